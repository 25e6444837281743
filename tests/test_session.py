"""Whole runs on a tiny data set: train, stop, resume, test, in every mode."""

import json
import random
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

import main
import main_only_pose
import session
import test_models as test_script
from datasets.records import PUBLISHED, load_records, write_list
from errors import InputError, Interrupted
from machine import StopRequest
from tests.small_runs import wait_until

ROOT = Path(__file__).resolve().parent.parent
SMALL = shlex.split(
    "--arch resnet18 --width 8 --gsf --input_size 32 --num_segments 4 --pretrained none"
)
MODES = {
    "rgb": (main, SMALL),
    "early": (main, [*SMALL, "--early_fusion_poses"]),
    "late_attention": (main, [*SMALL, "--late_fusion_poses_attention"]),
    "late_fast": (main, [*SMALL, "--late_fusion_poses_fast"]),
    "late": (main, [*SMALL, "--late_fusion_poses"]),
    "pose": (main_only_pose, ["--num_segments", "4"]),
}
CLIPS = {"train": 7, "val": 3, "test": 5}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """FR-FS-shaped: 15 clips of 9 to 12 frames, a square that rises (1) or falls (0)."""
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    root = folder / "FRFS"
    (root / "poses").mkdir(parents=True)
    for split, count in CLIPS.items():
        lines = []
        for number in range(count):
            name, length, label = f"{split}_{number}", int(rng.integers(9, 13)), number % 2
            write_clip(root, name, length, label, rng)
            lines.append(f"{name} {length} {label}\n")
        (root / f"{split}_videofolder.txt").write_text("".join(lines))
    return folder


def write_clip(root, name, length, label, rng):
    (root / "frames" / name).mkdir(parents=True)
    keypoints = np.ones((length, 1, 17, 3), np.float32)
    for t in range(length):
        y = 10 + (length - t if label else t) * 2
        frame = rng.integers(0, 60, (48, 64, 3), np.uint8)
        frame[y : y + 8, 28:36] = 255
        cv2.imwrite(str(root / "frames" / name / f"{t + 1:05d}.jpg"), frame)
        keypoints[t, 0, :, 0] = 32 + rng.normal(0, 3, 17)
        keypoints[t, 0, :, 1] = y + rng.normal(0, 3, 17)
    np.savez(root / "poses" / f"{name}.npz", keypoints=keypoints, height=48, width=64)


def command(mode, data, out, *more):
    _, options = MODES[mode]
    paths = ["--dataset", "FRFS", "--dataset_path", str(data), "--experiment_path", str(out)]
    recipe = shlex.split("--batch-size 2 --epochs 2 --warmup 1 --workers 0 --dropout 0.5 --lr 0.05")
    return [*options, *paths, *recipe, *more]


def train(mode, data, out, *more):
    script, _ = MODES[mode]
    return script.main(command(mode, data, out, *more))


def run_of(out):
    (folder,) = out.glob("experiments/FRFS/*/*_run")
    return folder


def weights_of(folder):
    return torch.load(folder / "last.pth.tar", weights_only=True)


def numbers_of(folder):
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    clocks = {"seconds", "waiting"}
    return [{k: v for k, v in json.loads(x).items() if k not in clocks} for x in lines]


def same(a, b):
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


class StopAt(StopRequest):
    """A signal that comes at the n-th poll after the first checkpoint of a session."""

    left = 0
    is_armed = False

    def poll(self):
        if StopAt.is_armed:
            StopAt.left -= 1
            if StopAt.left == 0:
                raise Interrupted(signal.SIGTERM)


@pytest.fixture
def stop_at(monkeypatch):
    """Count polls from where there is something to save."""
    fit = session._fit

    def armed(*args):
        StopAt.is_armed = True
        try:
            fit(*args)
        finally:
            StopAt.is_armed = False

    monkeypatch.setattr(session, "_fit", armed)
    monkeypatch.setattr(session, "StopRequest", StopAt)
    return StopAt


@pytest.mark.parametrize("mode", ["rgb", "early", "late_attention", "pose"])
def test_interrupted_and_resumed_equals_uninterrupted(mode, data, tmp_path, stop_at):
    """Bit for bit: weights, optimiser, totals, metrics; at random moments, one run stopped twice.

    The same command continues; polls are in the wait for data, within steps, and in evaluation.
    """
    stop_at.left = 0
    train(mode, data, tmp_path / "straight")
    straight = run_of(tmp_path / "straight")
    rng, total = random.Random(mode), -stop_at.left
    halves = rng.randint(2, total // 2), rng.randint(2, total // 2)
    for number, polls in enumerate([[rng.randint(1, total)], halves]):
        out = tmp_path / f"paused{number}"
        for left in polls:
            stop_at.left = left
            with pytest.raises(SystemExit) as stop:
                train(mode, data, out)
            assert stop.value.code == 143
        stop_at.left = 0
        train(mode, data, out, "--workers", "1")
        paused = run_of(out)
        for part in ("model", "optimizer", "best", "best_loss", "best_epoch", "epoch", "step"):
            assert same(weights_of(straight)[part], weights_of(paused)[part]), part
        assert numbers_of(straight) == numbers_of(paused)


def test_seeds_decide(data, tmp_path):
    for name, seed in (("a", "0"), ("b", "0"), ("c", "1")):
        train("early", data, tmp_path / name, "--seed", seed)
    a, b, c = (weights_of(run_of(tmp_path / name))["model"] for name in "abc")
    assert same(a, b)
    assert not same(a, c)


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_trains_and_is_tested_with_clips_and_crops(mode, data, tmp_path, capsys):
    best = train(mode, data, tmp_path)
    assert 0 <= best <= 1
    folder = run_of(tmp_path)
    assert {p.name for p in folder.iterdir()} >= {
        "args.json", "environment.json", "metrics.jsonl", "last.pth.tar", "best.pth.tar",
    }  # fmt: skip
    options = ["--num_clips", "3", "--test_crops", "10", "--batch-size", "2", "--save_scores"]
    weights = ["--weights", str(folder / "best.pth.tar"), "--workers", "0"]
    metrics = test_script.main([*weights, *options])
    assert metrics.total == CLIPS["test"]
    report = json.loads((folder / "test_report.json").read_text())
    assert report["correct"] == metrics.correct
    assert report["options"]["fusion"] == mode.replace("rgb", "none")
    assert (folder / "confusion.png").read_bytes()[:4] == b"\x89PNG"
    with np.load(folder / "scores_test.npz", allow_pickle=False) as scores:
        assert scores["scores"].shape == (5, 2)
        assert scores["clips"].tolist() == [f"test_{n}" for n in range(5)]
    assert "95 % interval" in capsys.readouterr().out


def test_scores_do_not_depend_on_the_batch_size(data, tmp_path):
    train("early", data, tmp_path)
    weights = ["--weights", str(run_of(tmp_path) / "best.pth.tar"), "--workers", "0"]
    found = []
    for size in ("1", "3"):
        out = tmp_path / size
        test_script.main([*weights, "--batch-size", size, "--save_scores", "--output", str(out)])
        with np.load(out / "scores_test.npz") as saved:
            found.append(saved["scores"])
    assert np.allclose(*found, atol=1e-4)


@pytest.mark.parametrize("prefix", ["", "module."])
def test_defect_19_checkpoints_with_and_without_module(prefix, data, tmp_path):
    train("rgb", data, tmp_path)
    folder = run_of(tmp_path)
    model = weights_of(folder)["model"]
    foreign = tmp_path / "foreign.pth.tar"
    torch.save({"state_dict": {prefix + k: v for k, v in model.items()}}, foreign)
    here = ["--dataset", "FRFS", "--dataset_path", str(data), "--workers", "0"]
    ours = [*SMALL[:-2], *here]
    last = test_script.main(["--weights", str(folder / "last.pth.tar"), "--workers", "0"])
    again = test_script.main(["--weights", str(foreign), *ours])
    assert again == last


def test_published_test_line_without_gsf_flags_is_refused(data, tmp_path, capsys):
    train("early", data, tmp_path)
    with pytest.raises(SystemExit):
        test_script.main(
            ["--weights", str(run_of(tmp_path) / "best.pth.tar"), "--arch", "resnet50"]
        )
    assert "holds a network with arch resnet18" in capsys.readouterr().err


def test_evaluate_only_writes_nothing(data, tmp_path):
    train("rgb", data, tmp_path)
    last = run_of(tmp_path) / "last.pth.tar"
    before = sorted(tmp_path.rglob("*"))
    top1 = train("rgb", data, tmp_path, "--evaluate", "--resume", str(last))
    assert top1 == numbers_of(run_of(tmp_path))[-1]["val/top1"]
    assert sorted(tmp_path.rglob("*")) == before


def test_finetune_and_feature_extractor(data, tmp_path):
    train("rgb", data, tmp_path / "first")
    best = str(run_of(tmp_path / "first") / "best.pth.tar")
    start = ["--checkpoint_path", best, "--epochs", "1"]
    train("rgb", data, tmp_path / "tuned", "--finetune", *start)
    train("rgb", data, tmp_path / "frozen", "--feature_extractor", *start)
    first = torch.load(best, weights_only=True)["model"]
    tuned, frozen = (weights_of(run_of(tmp_path / n))["model"] for n in ("tuned", "frozen"))
    moved = {k for k in first if not torch.equal(first[k], frozen[k])}
    assert moved
    assert all(k.startswith("head.") for k in moved)
    assert sum(not torch.equal(first[k], tuned[k]) for k in first) > len(first) / 2


def test_class_weights_amp_accumulation_and_adamw_run(data, tmp_path):
    train(
        "early", data, tmp_path, "--class_weights", "balanced", "--with_amp", "--amp_dtype", "bf16",
        "--iter_size", "3", "--optimizer", "adamw", "--rand_augment", "--mask_background",
        "--epochs", "1",
    )  # fmt: skip
    assert len(numbers_of(run_of(tmp_path))) == 1


def test_eval_freq(data, tmp_path):
    train("pose", data, tmp_path, "--epochs", "5", "--eval-freq", "2")
    evaluated = [n["epoch"] for n in numbers_of(run_of(tmp_path)) if "val/top1" in n]
    assert evaluated == [1, 3, 4]


def test_resume_with_other_options_is_refused(data, tmp_path):
    train("pose", data, tmp_path)
    last = str(run_of(tmp_path) / "last.pth.tar")
    with pytest.raises(InputError, match="was trained with lr 0.05, this command says 0.01"):
        train("pose", data, tmp_path, "--resume", last, "--lr", "0.01")


def test_auto_resume_starts_anew_when_the_newest_run_is_finished(data, tmp_path):
    train("pose", data, tmp_path)
    train("pose", data, tmp_path, "--resume", "auto")
    assert len(list(tmp_path.glob("experiments/FRFS/*/*_run"))) == 2


def started(program, kind, arguments, cwd):
    """Start main.py ("rgb") or test_models.py ("test") as a process."""
    return program.start(*arguments, env={"PROGRAM": kind}, cwd=cwd)


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_real_signal_saves_and_exits(signum, code, program, data, tmp_path):
    line = command("early", data, tmp_path, "--epochs", "500", "-j", "1")
    process = started(program, "rgb", line, tmp_path)
    wait_until(lambda: "epoch 0:" in process.stdout)
    time.sleep(0.2)
    process.send_signal(signum)
    assert process.wait() == code, process.stderr
    assert "the same command continues it" in process.stdout
    assert process.stderr == ""
    assert weights_of(run_of(tmp_path))["epoch"] >= 1


BAD_LINES = {
    "no data set folder": (["--dataset", "diving48"], "diving48"),
    "missing list": (["--train_list", "nowhere.txt"], "nowhere.txt"),
    "missing resume file": (["--resume", "nowhere.pth.tar"], "nowhere.pth.tar"),
    "missing checkpoint": (["--finetune", "--checkpoint_path", "no.pth"], "no.pth"),
    "missing pretrained": (["--pretrained", "no.pth"], "no.pth"),
    "class names": (["--class_names", "a", "b", "c"], "--class_names"),
    "several GPUs": (["--gpus", "0", "1"], "--gpus 0 1"),
}


@pytest.mark.parametrize("case", BAD_LINES)
def test_a_user_error_is_one_line_and_leaves_nothing(case, program, data, tmp_path):
    options, message = BAD_LINES[case]
    process = started(program, "rgb", command("early", data, tmp_path, *options), tmp_path)
    assert process.wait() == 2
    assert process.stderr.count("\n") == 1
    assert message in process.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_shell_sees_the_same(data, tmp_path):
    line = [sys.executable, ROOT / "main.py", *command("early", data, tmp_path)]
    line += ["--train_list", "nowhere.txt"]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert "nowhere.txt" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_an_error_in_a_worker_is_one_line_too(program, data, tmp_path):
    bad = tmp_path / "data"
    (bad / "FRFS").mkdir(parents=True)
    for name in ("frames", "poses"):
        (bad / "FRFS" / name).symlink_to(data / "FRFS" / name)
    for split in CLIPS:
        (bad / "FRFS" / f"{split}_videofolder.txt").write_text(
            (data / "FRFS" / f"{split}_videofolder.txt").read_text()
        )
    (bad / "FRFS" / "frames").unlink()
    subprocess.run(["cp", "-r", data / "FRFS" / "frames", bad / "FRFS" / "frames"], check=True)
    for frame in (bad / "FRFS" / "frames" / "train_3").iterdir():
        frame.write_bytes(frame.read_bytes()[:-80])
    line = command("early", bad, tmp_path / "out", "-j", "1")
    process = started(program, "rgb", line, tmp_path)
    assert process.wait() == 2
    assert process.stderr.count("\n") == 1
    assert "train_3" in process.stderr


def test_defect_12_the_test_list_is_kept_apart(data, tmp_path):
    """Training needs no test list; one that shares a clip with val is refused."""
    copy = tmp_path / "data" / "FRFS"
    copy.mkdir(parents=True)
    for name in ("frames", "poses"):
        (copy / name).symlink_to(data / "FRFS" / name)
    for split in ("train", "val"):
        text = (data / "FRFS" / f"{split}_videofolder.txt").read_text()
        (copy / f"{split}_videofolder.txt").write_text(text)
    train("pose", copy.parent, tmp_path / "out", "--epochs", "1")
    (copy / "test_videofolder.txt").write_text(
        (copy / "val_videofolder.txt").read_text().splitlines()[0] + "\n"
    )
    with pytest.raises(InputError, match="allow_overlap"):
        train("pose", copy.parent, tmp_path / "out", "--epochs", "1")


def packed(path, **changes):
    """Write a changed copy of a checkpoint in its place, where nothing else is known of it."""
    content = torch.load(path, weights_only=True)
    for name in ("manifest.json", "previous.pth.tar", "finished.json"):
        (path.parent / name).unlink(missing_ok=True)
    torch.save({**content, **changes}, path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"classes": ["a", "b", "c"]}, "was trained on the classes a, b, c"),
        ({"version": 7}, "version 7"),
        ({"format": "another"}, "is not the checkpoint of a training run"),
        ({"args": ["x"]}, "holds damaged options"),
        ({"clips": {"train": torch.arange(3), "val": torch.arange(3)}}, "another train list"),
    ],
)
def test_resume_refuses_what_is_not_this_run(changes, message, data, tmp_path):
    train("pose", data, tmp_path)
    last = run_of(tmp_path) / "last.pth.tar"
    packed(last, **changes)
    with pytest.raises(InputError, match=message):
        train("pose", data, tmp_path, "--resume", str(last))


def test_resume_stays_in_its_run_folder(data, tmp_path):
    train("pose", data, tmp_path)
    copy = tmp_path / "copy.pth.tar"
    copy.write_bytes((run_of(tmp_path) / "last.pth.tar").read_bytes())
    with pytest.raises(InputError, match=r"is not the last\.pth\.tar of a run folder"):
        train("pose", data, tmp_path, "--resume", str(copy))


@pytest.mark.parametrize("split", ["train", "val"])
def test_clips_that_were_trained_or_selected_on_are_no_test(split, data, tmp_path):
    train("pose", data, tmp_path)
    best = ["--weights", str(run_of(tmp_path) / "best.pth.tar"), "--workers", "0"]
    seen = ["--test_list", str(data / "FRFS" / f"{split}_videofolder.txt")]
    lists = [f"--{s}_list={tmp_path / f'own_{s}.txt'}" for s in ("train", "val")]
    for s in ("train", "val"):
        (tmp_path / f"own_{s}.txt").write_text(f"elsewhere_{s} 9 0\n")
    with pytest.raises(InputError, match=f"of these clips in its {split} list"):
        test_script.main([*best, *seen, *lists])
    assert test_script.main([*best, *seen, *lists, "--allow_overlap"]).total == CLIPS[split]


def test_the_published_protocol_is_said_wherever_a_result_is_reported(data, tmp_path, capsys):
    copy = tmp_path / "data" / "FRFS"
    shutil.copytree(data / "FRFS", copy)
    for split in ("val", "test"):
        write_list(
            copy / f"{split}_videofolder.txt",
            load_records(data / "FRFS" / "test_videofolder.txt"),
            {"protocol": PUBLISHED},
        )
    train("pose", copy.parent, tmp_path)
    assert "WARNING: published protocol" in capsys.readouterr().out
    best = str(run_of(tmp_path) / "best.pth.tar")
    test_script.main(["--weights", best, "--workers", "0"])
    assert "WARNING: published protocol" in capsys.readouterr().out
    report = json.loads((run_of(tmp_path) / "test_report.json").read_text())
    assert report["protocol"] == PUBLISHED


def test_a_signal_to_the_whole_group_saves_too(program, data, tmp_path):
    line = command("early", data, tmp_path, "--epochs", "500", "-j", "2")
    process = started(program, "rgb", line, tmp_path)
    wait_until(lambda: "epoch 0:" in process.stdout)
    process.send_signal(signal.SIGTERM, whole_group=True)
    assert (process.wait(), process.stderr) == (143, "")
    assert "the same command continues it" in process.stdout


def test_a_signal_ends_a_test_quietly(program, data, tmp_path):
    train("early", data, tmp_path)
    views = ["--num_clips", "100", "--test_crops", "10", "--workers", "0"]
    weights = ["--weights", str(run_of(tmp_path) / "best.pth.tar")]
    process = started(program, "test", [*weights, *views], tmp_path)
    wait_until(lambda: "holds" in process.stdout)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    assert (process.wait(), process.stderr) == (130, "")


def test_scores_that_are_not_finite_are_refused(data, tmp_path):
    train("pose", data, tmp_path)
    best = run_of(tmp_path) / "best.pth.tar"
    model = torch.load(best, weights_only=True)["model"]
    packed(best, model={k: torch.full_like(v, torch.nan) for k, v in model.items()})
    with pytest.raises(InputError, match="the scores of clip test_0 are not finite"):
        test_script.main(["--weights", str(best), "--workers", "0"])


def test_one_frame_is_no_batch(data, tmp_path):
    line = command("rgb", data, tmp_path, "--num_segments", "1", "--batch-size", "3")
    with pytest.raises(InputError, match="leave a batch of one frame"):
        main.main(line)
    assert list(tmp_path.iterdir()) == []


def test_classes_of_a_users_own_data_set_come_from_the_checkpoint(data, tmp_path):
    (tmp_path / "own").symlink_to(data / "FRFS")
    line = [*command("pose", data, tmp_path), "--dataset", "own", "--dataset_path", str(tmp_path)]
    main_only_pose.main(line)
    (best,) = tmp_path.glob("experiments/own/*/*/best.pth.tar")
    frames = len(list((data / "FRFS" / "frames" / "test_0").iterdir()))
    (tmp_path / "zeros.txt").write_text(f"test_0 {frames} 0\n")
    options = ["--test_list", str(tmp_path / "zeros.txt"), "--workers", "0"]
    assert test_script.main(["--weights", str(best), *options]).total == 1
