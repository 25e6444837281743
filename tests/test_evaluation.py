import json

import numpy as np
import pytest

import test_models as test_script
from errors import InputError
from results.score_files import ClipScores, read_scores, write_scores


def write_models(folder, name, shift=0, **changes):
    """Write scores of two models on 60 clips of a list, the second one too sure of itself."""
    labels = np.arange(60) % 3
    paths = []
    for seed, sure in ((shift, 1.0), (shift + 1, 5.0)):
        scores = np.random.default_rng(seed).normal(size=(60, 3)) + 1.5 * np.eye(3)[labels]
        values = {"clips": tuple(f"{name} {n}" for n in range(60)), "labels": labels,
                  "scores": sure * scores, "classes": ("a", "b", "c"), "split": name,
                  "groups": tuple(f"athlete {n // 6}" for n in range(60))}  # fmt: skip
        paths.append(folder / f"{name}_{seed - shift}.npz")
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


def test_a_report_is_of_the_list_that_the_scores_are_of(tmp_path):
    first, _ = write_models(tmp_path, "val")
    (tmp_path / "test_report.json").write_text("of a test")
    (tmp_path / "scores_test.npz").write_bytes(b"of a test")
    test_script.main(["--scores", first, "--save_scores"])
    assert json.loads((tmp_path / "val_test_report.json").read_text())["split"] == "val"
    assert read_scores(tmp_path / "scores_val.npz").split == "val"
    assert (tmp_path / "test_report.json").read_text() == "of a test"
    assert (tmp_path / "scores_test.npz").read_bytes() == b"of a test"
    assert not (tmp_path / "report.html").exists()

    tested, _ = write_models(tmp_path, "test")
    test_script.main(["--scores", tested, "--split", "val", "--output", str(tmp_path / "out")])
    assert report(tmp_path / "out")["split"] == "test"


def test_a_score_file_does_not_replace_what_another_test_wrote(tmp_path):
    first, _ = write_models(tmp_path, "test")
    (tmp_path / "test_report.json").write_text("of a run")
    with pytest.raises(
        InputError, match=r"test_report.json is there from another test: .*--output"
    ):
        test_script.main(["--scores", first])
    assert (tmp_path / "test_report.json").read_text() == "of a run"

    (tmp_path / "test_report.json").unlink()
    kept = tmp_path / "scores_test.npz"
    kept.write_bytes((tmp_path / "test_0.npz").read_bytes())
    val, _ = write_models(tmp_path, "val", 10)
    line = ["--scores", str(kept), "--val_scores", val, "--calibrate", "--save_scores"]
    with pytest.raises(InputError, match="scores_test.npz is there from another test"):
        test_script.main(line)


def test_a_split_that_is_no_name_of_a_list_names_no_file(tmp_path):
    first, _ = write_models(tmp_path, "test", split="../../x")
    test_script.main(["--scores", first, "--output", str(tmp_path / "out"), "--save_scores"])
    assert {p.name for p in (tmp_path / "out").iterdir()} == {
        "confusion.png", "report.html", "scores_test.npz", "test_report.json"
    }  # fmt: skip


def test_several_comparisons_are_adjusted_for_their_number(tmp_path, capsys):
    test = write_models(tmp_path, "test")
    line = ["--scores", *test, "--output", str(tmp_path / "out"), "--compare"]
    test_script.main(line)
    found = report(tmp_path / "out")["comparisons"]
    raw = sorted((c["group_p_value"], c["p_adjusted"]) for c in found.values())
    assert raw[0][1] == pytest.approx(min(1, 2 * raw[0][0]))
    assert raw[1][1] == pytest.approx(max(raw[0][1], raw[1][0]))
    assert "adjusted for 2 comparisons, Holm" in capsys.readouterr().out
    assert "adjusted for 2 comparisons, Holm" in (tmp_path / "out" / "report.html").read_text()


def test_a_model_given_twice_is_refused(tmp_path, capsys):
    first, second = write_models(tmp_path, "test")
    with pytest.raises(SystemExit):
        test_script.main(["--scores", first, second, first, "--output", str(tmp_path / "out")])
    assert "test_0.npz is given twice: name each model once" in capsys.readouterr().err


@pytest.mark.parametrize("protocol", ["", "published"])
def test_a_choice_among_models_is_warned_of_also_beside_other_warnings(tmp_path, protocol):
    test = write_models(tmp_path, "test", protocol=protocol)
    test_script.main(["--scores", *test, "--output", str(tmp_path / "out")])
    found = report(tmp_path / "out")
    assert len(found["selection"]) == (1 if protocol else 0)
    assert "2 models were scored on the same test clips" in found["cautions"][0]
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count('class="verdict bad warned"') == (2 if protocol else 1)
    assert "2 models were scored on the same test clips" in page


@pytest.mark.parametrize("name", ["confusion.png", "test_report.json"])
def test_what_cannot_be_written_is_named_with_the_way_out(tmp_path, name):
    first, _ = write_models(tmp_path, "test")
    (tmp_path / "out" / name).mkdir(parents=True)
    with pytest.raises(InputError, match=rf"{name} cannot be written .*: name another --output"):
        test_script.main(["--scores", first, "--output", str(tmp_path / "out")])
