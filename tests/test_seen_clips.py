"""Tests on clips that a model was trained on: refused where that is certain, else flagged."""

import csv
import json
import shlex
import shutil

import pytest

import main_only_pose
import test_models as test_script
from datasets.records import load_records, write_list
from errors import InputError
from results.score_files import read_scores
from tests.conftest import write_dataset

TRAIN = shlex.split(
    "--num_segments 4 --epochs 1 --workers 0 --batch-size 2 --device cpu --dataset jumps"
)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_dataset(folder / "jumps", clips=(4, 2, 6))
    write_contents(folder / "jumps", "own")
    return folder


@pytest.fixture(scope="module")
def weights(data, tmp_path_factory):
    return train(data, tmp_path_factory.mktemp("run"))


def train(data, folder, *line):
    main_only_pose.main(
        [*TRAIN, *line, "--dataset_path", str(data), "--experiment_path", str(folder)]
    )
    return str(next(folder.rglob("best.pth.tar")))


def write_contents(root, mark):
    names = sorted(p.name for p in (root / "frames").iterdir())
    with (root / "clips.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("clip", "sha256"), *((n, f"{mark} {n}") for n in names)])


def copy(data, place, name):
    shutil.copytree(data / "jumps", place / name)
    return place / name


def run(weights, output, *line):
    line = ["--weights", weights, *line, "--output", output, "--workers", "0"]
    test_script.main(list(map(str, line)))
    return json.loads((output / "test_report.json").read_text())


@pytest.mark.parametrize("has_contents", [True, False])
def test_a_data_set_of_another_name_with_the_train_list_as_test_list(
    data, weights, tmp_path, has_contents
):
    root = copy(data, tmp_path, "other")
    trained = load_records(root / "train_videofolder.txt")
    write_list(root / "train_videofolder.txt", load_records(root / "val_videofolder.txt")[:1])
    write_list(root / "test_videofolder.txt", trained[::-1])
    (root / "val_videofolder.txt").unlink()
    if not has_contents:
        (root / "clips.csv").unlink()
    line = ["--dataset", "other", "--dataset_path", tmp_path]
    with pytest.raises(InputError, match="made with 4 of these clips in its train list"):
        run(weights, tmp_path / "out", *line)
    found = run(weights, tmp_path / "out", *line, "--allow_overlap")
    assert "4 of 4 test clips were in the train list of the checkpoint" in found["selection"][0]


def test_clips_of_other_names_are_known_by_their_contents(data, weights, tmp_path):
    root = copy(data, tmp_path, "other")
    for place in (root / "frames" / "train_1", root / "poses" / "train_1.npz"):
        place.rename(place.with_name(place.name.replace("train_1", "renamed")))
    text = (root / "clips.csv").read_text().replace("train_1,", "renamed,")
    (root / "clips.csv").write_text(text)
    (root / "test_videofolder.txt").write_text("test_0 12 0\nrenamed 12 1\n")
    (root / "train_videofolder.txt").unlink()
    with pytest.raises(InputError, match=r"with 1 of these clips .* train list, such as renamed"):
        run(weights, tmp_path / "out", "--dataset", "other", "--dataset_path", tmp_path)


def test_names_alone_are_flagged_and_other_contents_are_not(data, weights, tmp_path):
    root = copy(data, tmp_path, "other")
    (root / "clips.csv").unlink()
    (root / "train_videofolder.txt").unlink()
    (root / "test_videofolder.txt").write_text("test_0 12 0\ntrain_1 12 1\ntrain_2 12 0\n")
    line = ["--dataset", "other", "--dataset_path", tmp_path]
    for option in ((), ("--allow_overlap",)):
        found = run(weights, tmp_path / "out", *line, *option)
        (reason,) = found["selection"]
        assert reason.startswith("perhaps trained or selected on clips of this test: 2 of 3 test")
        page = (tmp_path / "out" / "report.html").read_text()
        assert '<p class="verdict bad warned">Perhaps trained' in page
    write_contents(root, "other")
    assert run(weights, tmp_path / "out", *line)["selection"] == []


def test_val_clips_that_were_trained_on_tune_nothing(data, tmp_path, capsys):
    weights = train(data, tmp_path / "runs", "--fold", "1/2", "--fold_val", "0")
    found = run(weights, tmp_path / "out")
    assert found["selection"] == []
    assert "chosen by the accuracy on training clips" in found["notes"][0]
    assert "note: " in capsys.readouterr().out
    with pytest.raises(InputError, match=r"6 of 6 val clips were in the train list.*no test"):
        run(weights, tmp_path / "out", "--calibrate")
    pair = [weights, str(shutil.copy(weights, tmp_path / "second.pth.tar"))]
    line = ["--weights", *pair, "--output", str(tmp_path / "both"), "--tune_on_val"]
    with pytest.raises(InputError, match=r"6 of 6 val clips were in the train list"):
        test_script.main([*line, "--workers", "0"])

    out = ["--output", str(tmp_path / "out"), "--workers", "0", "--split", "val", "--save_scores"]
    test_script.main(["--weights", weights, *out])
    reasons = json.loads((tmp_path / "out" / "val_test_report.json").read_text())["selection"]
    assert "6 of 6 val clips were in the train list of the checkpoint" in reasons[0]
    assert "the model was trained on clips of it: this is no test" in reasons[1]
    assert not any("chose the epoch" in reason for reason in reasons)

    saved = tmp_path / "out" / "scores_val.npz"
    assert "not apart" in read_scores(saved).protocol
    run(weights, tmp_path / "out", "--save_scores")
    tested = tmp_path / "out" / "scores_test.npz"
    line = ["--scores", tested, "--val_scores", saved, "--calibrate", "--output", tmp_path / "c"]
    with pytest.raises(InputError, match="trained on or are test clips"):
        test_script.main(list(map(str, line)))


def test_val_clips_that_were_not_trained_on_calibrate(weights, tmp_path):
    found = run(weights, tmp_path, "--calibrate")
    assert found["models"][0]["temperature"]["clips"] == 2
    assert found["notes"] == []


def test_a_part_of_the_list_is_called_one(weights, tmp_path, capsys):
    found = run(weights, tmp_path, "--max_num", "2")
    assert found["notes"] == ["a part of the list: the first 2 of 6 clips (--max_num)"]
    assert "note: a part of the list: the first 2 of 6" in capsys.readouterr().out
    assert "the first 2 of 6 clips of 2 classes" in (tmp_path / "report.html").read_text()
