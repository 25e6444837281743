"""RELIABILITY 15: keypoints that are not numbers, absent, outside, of nobody, of three people."""

import csv
import math

import numpy as np
import pytest
import torch

import main
import main_only_pose
import opts
from datasets.loading import build_eval_loader, build_train_loader
from datasets.opening import open_dataset
from errors import InputError
from tests.conftest import SIZE, standing_person, write_archive
from tests.small_runs import RGB, command, numbers_of, run_of
from tools import check_dataset

N = 12
MODES = {
    "early": (main, (*RGB, "--early_fusion_poses")),
    "late": (main, (*RGB, "--late_fusion_poses_fast")),
    "attention": (main, (*RGB, "--late_fusion_poses_attention")),
    "pose": (main_only_pose, ()),
}


def crowd():
    """Return three people: one at the left, one in the middle, one at the right."""
    people = np.concatenate([standing_person(N, seed=seed) for seed in range(3)], axis=1)
    people[:, :, :, 0] += np.array([-20, 0, 20])[:, None]
    return people


def unseen():
    """Return a person whose joints all have the score 0, wherever they are."""
    person = standing_person(N)
    person[..., 2] = 0
    return person


def outside():
    """Return a person of whom no joint is in the picture."""
    person = standing_person(N)
    person[..., 0] += 5 * SIZE[0]
    return person


def nobody():
    return np.zeros((N, 1, 17, 3), np.float32)


ODD = {"train_0": crowd, "train_1": unseen, "train_2": outside, "train_3": nobody}


@pytest.fixture
def odd(dataset):
    """Return a data set whose training clips are all odd."""
    for name, make in ODD.items():
        write_archive(dataset / "poses" / f"{name}.npz", make())
    return dataset


def loader_of(root, *more, split="train"):
    args = opts.parse_train_args(command(root, root, *RGB, *more))
    source = open_dataset(args)
    if split == "drawn":
        return build_train_loader(args, source)
    return build_eval_loader(args, source, split)


def by_clip(loader):
    """Return clip -> (heatmap (T, S, S), keypoints (T, M, V, 3)), either None where unused."""
    found = {}
    for batch in loader:
        for row, name in enumerate(batch.clips):
            parts = (batch.heatmap, batch.keypoints)
            found[name] = tuple(None if part is None else part[row] for part in parts)
    return found


@pytest.mark.parametrize("split", ["train", "drawn"])
def test_heatmaps_are_finite_and_empty_where_nobody_is_seen(odd, split):
    loader = loader_of(odd, *MODES["early"][1], split=split)
    heatmaps = {name: heatmap for name, (heatmap, _) in by_clip(loader).items()}
    assert heatmaps.keys() == ODD.keys()
    for heatmap in heatmaps.values():
        assert torch.isfinite(heatmap).all()
        assert heatmap.min() >= 0
        assert heatmap.max() <= 1
    for name in ("train_1", "train_2", "train_3"):
        assert not heatmaps[name].any()
    assert heatmaps["train_0"].any()


@pytest.mark.parametrize("mode", ["early", "late"])
def test_of_three_people_the_first_is_the_athlete(mode, odd):
    """Whoever else is in the file changes nothing; preprocess_pose.py puts the athlete first."""
    three = by_clip(loader_of(odd, *MODES[mode][1]))["train_0"]
    found = []
    for person in range(3):
        write_archive(odd / "poses" / "train_0.npz", crowd()[:, [person]])
        found.append(by_clip(loader_of(odd, *MODES[mode][1]))["train_0"])
    first, *others = (one[mode == "late"] for one in found)
    assert first.any()
    assert torch.equal(three[mode == "late"], first)
    assert not any(torch.equal(first, other) for other in others)


def test_joints_that_nobody_saw_are_exact_zeros_for_pose_streams(odd):
    keypoints = {name: one for name, (_, one) in by_clip(loader_of(odd, *MODES["late"][1])).items()}
    for one in keypoints.values():
        assert torch.isfinite(one).all()
    for name in ("train_1", "train_3"):
        assert not keypoints[name].any()
    assert keypoints["train_0"].any()


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_trains_on_odd_keypoints_with_finite_numbers(mode, odd, tmp_path):
    script, options = MODES[mode]
    script.main(command(odd, tmp_path / "out", *options))
    numbers = numbers_of(run_of(tmp_path / "out"))
    assert all(math.isfinite(value) for line in numbers for value in line.values())
    best = torch.load(run_of(tmp_path / "out") / "best.pth.tar", weights_only=True)
    assert all(torch.isfinite(t).all() for t in best["model"].values() if t.is_floating_point())


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [(3, 0, 5, 0), (0, 0, 0, 1), (11, 0, 16, 2)])
@pytest.mark.parametrize("mode", ["early", "pose"])
def test_what_is_no_number_stops_before_training_and_is_named(mode, place, value, dataset):
    broken = standing_person(N)
    broken[place] = value
    path = dataset / "poses" / "train_2.npz"
    write_archive(path, broken)
    script, options = MODES[mode]
    with pytest.raises(InputError) as caught:
        script.main(command(dataset, dataset / "out", *options))
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert str(path) in message
    assert "preprocess_pose.py" in message
    assert not (dataset / "out").exists()


@pytest.mark.parametrize(
    ("policy", "kept", "words"),
    [
        ("skip", 2, "2 of 4 clips had no keypoint file: dropped (--missing_pose skip)"),
        ("zero", 4, "2 of 4 clips had no keypoint file: used with every joint undetected"),
    ],
)
def test_absent_keypoints_follow_the_policy_and_are_counted_at_the_end(
    policy, kept, words, dataset, tmp_path, capsys
):
    for name in ("train_1", "train_3"):
        (dataset / "poses" / f"{name}.npz").unlink()
    with pytest.raises(InputError, match="2 of 4 clips have no keypoints"):
        main_only_pose.main(command(dataset, tmp_path / "out"))
    line = command(dataset, tmp_path / "out", "--missing_pose", policy)
    main_only_pose.main(line)
    said = capsys.readouterr().out
    assert f"{kept} training and 2 validation clips" in said
    assert said.rindex(words) > said.rindex("epoch 1:")


def test_the_data_report_counts_what_is_odd(odd, tmp_path):
    """One entry a clip, whose kind says what it is; what is not a number is an error."""
    broken = standing_person(N)
    broken[4, 0, 2] = np.nan
    write_archive(odd / "poses" / "val_0.npz", broken)
    (odd / "poses" / "val_1.npz").unlink()
    line = ["--dataset", "FRFS", "--dataset_path", odd.parent, "--output", tmp_path / "report"]
    check_dataset.main([str(word) for word in line])
    with (tmp_path / "report" / "findings.csv").open(encoding="utf-8", newline="") as file:
        kinds = {(row["clip"], row["kind"]) for row in csv.DictReader(file)}
    for name, kind in {
        "train_1": "keypoints_empty",
        "train_2": "keypoints_outside",
        "train_3": "keypoints_empty",
        "val_0": "keypoints_nan",
        "val_1": "keypoints_missing",
    }.items():
        assert (name, kind) in kinds
