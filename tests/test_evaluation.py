import json

import numpy as np
import pytest

import test_models as test_script
from errors import InputError
from results.score_files import ClipScores, read_scores, write_scores


def write_models(folder, split, shift=0, **changes):
    """Write scores of two models on 60 clips of a list, the second one too sure of itself."""
    labels = np.arange(60) % 3
    paths = []
    for seed, sure in ((shift, 1.0), (shift + 1, 5.0)):
        scores = np.random.default_rng(seed).normal(size=(60, 3)) + 1.5 * np.eye(3)[labels]
        values = {"clips": tuple(f"{split} {n}" for n in range(60)), "labels": labels,
                  "scores": sure * scores, "classes": ("a", "b", "c"), "split": split,
                  "groups": tuple(f"athlete {n // 6}" for n in range(60))}  # fmt: skip
        paths.append(folder / f"{split}_{seed - shift}.npz")
        write_scores(paths[-1], ClipScores(**(values | changes)))
    return list(map(str, paths))


def report(folder):
    return json.loads((folder / "test_report.json").read_text())


def test_one_score_file_is_reported_with_intervals_over_groups(tmp_path, capsys):
    first, _ = write_models(tmp_path, "test")
    metrics = test_script.main(["--scores", first, "--output", str(tmp_path / "out")])
    found = report(tmp_path / "out")
    assert found["correct"] == metrics.correct
    assert found["intervals"]["unit"] == "group"
    assert found["intervals"]["units"] == 10
    assert (found["weights"], found["comparisons"]) == (first, {})
    assert "over 10 groups" in capsys.readouterr().out


def test_an_ensemble_tuned_and_calibrated_on_val(tmp_path, capsys):
    test, val = write_models(tmp_path, "test"), write_models(tmp_path, "val", 10)
    line = ["--scores", *test, "--output", str(tmp_path), "--val_scores", *val]
    test_script.main([*line, "--tune_on_val", "--calibrate", "--compare", "--save_scores", "both"])
    found = report(tmp_path)
    assert [m["weight"] for m in found["models"]] != [0.5, 0.5]
    assert found["models"][1]["temperature"]["value"] > 3
    assert found["tuned_on_val_clips"] == 60
    assert list(found["comparisons"]) == [test[1], "the ensemble"]
    text = capsys.readouterr().out
    assert "weights tuned on 60 val clips" in text
    assert "the ensemble against model 1" in text
    assert "model 2 against model 1" in text
    mixed = [read_scores(tmp_path / f"scores_test.{suffix}") for suffix in ("npz", "csv")]
    assert (mixed[0].scores == mixed[1].scores).all()


@pytest.mark.parametrize("option", ["--tune_on_val", "--calibrate"])
def test_test_clips_are_never_tuned_on(tmp_path, option):
    test = write_models(tmp_path, "test")
    line = ["--scores", *test, "--output", str(tmp_path), "--val_scores", *test, option]
    with pytest.raises(InputError, match="would make the result no test"):
        test_script.main(line)


def test_a_test_list_that_chose_the_epoch_is_flagged(tmp_path, capsys):
    first, _ = write_models(tmp_path, "test", protocol="published")
    test_script.main(["--scores", first, "--output", str(tmp_path)])
    assert "WARNING: selected on the test list" in capsys.readouterr().out
    assert report(tmp_path)["protocol"] == "published"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ([], "one of the arguments --weights --scores is required"),
        (["--scores", "a.npz", "--weights", "b"], "not allowed with"),
        (["--scores", "a.npz", "b.npz"], "several models need --output"),
        (["--scores", "a.npz", "--compare"], "need several models"),
        (["--scores", "a.npz", "b.npz", "--ensemble_weights", "1"], "has 1 values for 2 models"),
        (["--scores", "a.npz", "--calibrate"], "--val_scores goes with"),
        (["--weights", "a", "--val_scores", "b.npz"], "checkpoints score the val list themselves"),
        (["--weights", "a", "--calibrate", "--split", "val"], "a report on it says nothing"),
    ],
)
def test_wrong_combinations_are_one_line(line, message, capsys):
    with pytest.raises(SystemExit) as ended:
        test_script.main(line)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err
