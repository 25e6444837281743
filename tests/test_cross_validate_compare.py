"""`cross_validate.py --compare` says what makes two cross-validations hard to compare."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from datasets.folds import VAL_SHARE
from errors import InputError
from results.score_files import ClipScores, read_scores, write_scores
from results.selection import overlap_protocol
from tools import cross_validate

REPORT = "cross_validation.json"


@pytest.fixture
def finished(tmp_path):
    """Return a folder with what a comparison reads of a cross-validation of two seeds."""
    folder = tmp_path / "cv"
    folder.mkdir()
    labels = np.arange(12) // 6
    for seed in (0, 1):
        noise = np.random.default_rng(seed).normal(size=(12, 2))
        clips = tuple(f"c{n:02}" for n in range(12))
        scores = ClipScores(clips, labels, noise, ("x", "y"), groups=("g",) * 12, split="test")
        write_scores(folder / f"scores_seed{seed}.npz", scores)
    plan = {"folds": "2", "count": 2, "sha256": "1", "options": {}}
    plan |= {"folds_sha256": "2", "groups_sha256": "3"}
    value = {"seeds": [{"seed": 0}, {"seed": 1}], "plan": plan}
    (folder / REPORT).write_text(json.dumps(value))
    return folder


def refusal(*argv):
    with pytest.raises(InputError) as caught:
        cross_validate.main(list(argv))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_two_are_compared_clip_by_clip(finished, tmp_path, capsys):
    other = tmp_path / "other"
    shutil.copytree(finished, other)
    cross_validate.main(["--compare", str(finished), str(other), "--output", str(tmp_path / "c")])
    printed = capsys.readouterr().out
    assert "other against cv: +0.00% accuracy, mean over 2 and 2 seeds (no interval)" in printed
    assert "note:" not in printed
    assert "WARNING" not in printed
    value = json.loads((tmp_path / "c" / "comparison.json").read_text())
    assert value["against"]["other"]["p_value"] == 1
    (other / "scores_seed1.npz").unlink()
    assert "scores_seed1.npz is not there" in refusal("--compare", str(finished), str(other))
    (other / REPORT).write_text("[]")
    assert "holds no finished cross-validation" in refusal("--compare", str(finished), str(other))
    assert "needs another folder" in refusal("--compare", str(finished))


def test_a_comparison_says_when_trainings_had_other_clips(finished, tmp_path, capsys):
    other = tmp_path / "other"
    shutil.copytree(finished, other)
    says = "or dealt in another way: trainings had other clips"
    plan = json.loads((other / REPORT).read_text())["plan"]
    older = {name: value for name, value in plan.items() if name != "folds_sha256"}
    for changed, is_said in (
        ({"folds_sha256": "0"}, True),
        ({"groups_sha256": "0"}, False),
        (older, False),
        (older | {"options": plan["options"] | {"fold_val": VAL_SHARE}}, False),
        (older | {"options": plan["options"] | {"fold_val": 0.3}}, True),
    ):
        value = json.loads((finished / REPORT).read_text())
        value["plan"] = changed if "options" in changed else plan | changed
        (other / REPORT).write_text(json.dumps(value))
        cross_validate.main(["--compare", str(finished), str(other)])
        assert (says in capsys.readouterr().out) == is_said, changed


def test_a_comparison_warns_of_clips_that_were_trained_on(finished, tmp_path, capsys):
    other = tmp_path / "other"
    shutil.copytree(finished, other)
    scores = read_scores(other / "scores_seed1.npz")
    seen = overlap_protocol(["fold 1: 17 of 20 test clips were in the train list"])
    write_scores(other / "scores_seed1.npz", replace(scores, protocol=seen))
    cross_validate.main(["--compare", str(finished), str(other), "--output", str(tmp_path / "c")])
    says = "other: trained or selected on clips of this test: fold 1: 17 of 20"
    assert f"WARNING: {says}" in capsys.readouterr().out
    assert f"WARNING: {says}" in (tmp_path / "c" / "comparison.md").read_text()
    (note,) = json.loads((tmp_path / "c" / "comparison.json").read_text())["notes"]
    assert note.startswith(says)


def test_folders_that_do_not_fit_are_named(finished, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(finished, other)
    scores = read_scores(other / "scores_seed1.npz")
    clips = ("c99", *scores.clips[1:])
    write_scores(other / "scores_seed1.npz", replace(scores, clips=clips))
    said = refusal("--compare", str(finished), str(other))
    assert said.startswith(f"{other} (seed 1) and {finished} (seed 0) cannot be put side by")
