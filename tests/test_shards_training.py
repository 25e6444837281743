"""Training and testing from shards gives the numbers of training and testing from folders."""

import json
import shlex

import pytest
import torch

import main
import main_only_pose
import test_models as test_script
from errors import InputError
from tools import pack_dataset

SMALL = shlex.split(
    "--arch resnet18 --width 8 --gsf --input_size 32 --num_segments 4 --pretrained none"
)
MODES = {
    "rgb": (main, SMALL),
    "early": (main, [*SMALL, "--early_fusion_poses"]),
    "pose": (main_only_pose, ["--num_segments", "4"]),
    "pose pixels": (main_only_pose, ["--num_segments", "4", "--pose_normalize", "none"]),
}
RECIPE = shlex.split("--dataset FRFS --batch-size 2 --epochs 2 --warmup 1 --lr 0.05")


def train(mode, out, *where):
    script, options = MODES[mode]
    script.main([*options, *RECIPE, "--workers", "0", "--experiment_path", str(out), *where])
    (folder,) = out.glob("experiments/FRFS/*/*_run")
    return folder


def numbers_of(folder):
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [
        {k: v for k, v in json.loads(line).items() if k.startswith(("train/", "val/", "lr"))}
        for line in lines
    ]


def pack(root, output, *more):
    pack_dataset.main([
        "--dataset", "FRFS", "--dataset_path", str(root.parent), "--output", str(output),
        "--workers", "0", *more,
    ])  # fmt: skip
    return output


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("poses", ["npz", "npy"])
def test_the_numbers_are_those_of_folders(mode, poses, make_dataset, tmp_path):
    root = make_dataset(clips=(7, 3, 3), poses=poses)
    shards = pack(root, tmp_path / "shards")
    plain = train(mode, tmp_path / "a", "--dataset_path", str(root.parent))
    packed = train(mode, tmp_path / "b", "--shards", str(shards))
    assert numbers_of(plain) == numbers_of(packed)
    weights = [
        torch.load(run / "last.pth.tar", weights_only=True)["model"] for run in (plain, packed)
    ]
    assert all(torch.equal(weights[0][k], weights[1][k]) for k in weights[0])


@pytest.mark.parametrize("mode", ["rgb", "early", "pose"])
def test_folders_and_shards_are_one_data_set(mode, dataset, tmp_path):
    """Each tests what the other trained, and the train list stays no test list."""
    shards = pack(dataset, tmp_path / "shards")
    run = train(mode, tmp_path / "out", "--shards", str(shards))
    best = ["--weights", str(run / "best.pth.tar"), "--workers", "0", "--output"]
    if mode == "pose":
        best = ["--report_clips", "2", *best]
    from_shards = test_script.main([*best, str(tmp_path / "1")])  # the checkpoint says where
    assert (tmp_path / "1" / "report.html").is_file()
    folders = ["--dataset_path", str(dataset.parent)]
    from_folders = test_script.main([*best, str(tmp_path / "2"), *folders])
    assert (from_shards.loss, from_shards.accuracy) == (from_folders.loss, from_folders.accuracy)
    seen = ["--test_list", str(dataset / "train_videofolder.txt"), "--allow_overlap"]
    for place in (folders, ["--shards", str(shards)]):
        with pytest.raises(InputError, match="share 4 clips|of these clips in its train list"):
            test_script.main([*best, str(tmp_path / "3"), *place, *seen[:2]])


def test_a_checkpoint_names_no_command(dataset, tmp_path, capsys):
    shards = pack(dataset, tmp_path / "shards")
    run = train("pose", tmp_path / "out", "--shards", str(shards))
    best = run / "best.pth.tar"
    content = torch.load(best, weights_only=True)
    content["args"]["shards"] = f"pipe:touch {tmp_path}/canary; cat {shards}/{{}}"
    torch.save(content, best)
    with pytest.raises(SystemExit):
        test_script.main(["--weights", str(best), "--workers", "0"])
    assert "needs --dataset_path, the folder that holds it, or --shards" in capsys.readouterr().err
    assert not (tmp_path / "canary").exists()
