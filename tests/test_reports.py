import json

import numpy as np
import pytest

from errors import InputError
from reports import (
    RunFolder,
    metrics_text,
    plain,
    render_confusion,
)
from results.group_intervals import GroupIntervals
from results.metrics import Metrics


def test_text_names_counts_interval_and_majority():
    text = metrics_text(Metrics.of(np.array([0, 1, 1]), np.eye(2)[[0, 1, 0]]), ["a", "b"])
    assert "66.67%  (2 of 3 clips, 95 % interval" in text
    assert "majority    66.67%" in text
    assert "calibration error" in text
    assert "b" in text.splitlines()[-1]


def test_text_says_groups_and_what_is_not_defined():
    labels, scores = np.zeros(6, np.int64), np.eye(2)[[0, 1, 0, 0, 0, 1]]
    intervals = GroupIntervals.of(labels, scores, "logits", list("aabbcc"))
    text = metrics_text(Metrics.of(labels, scores), ["a", "b"], intervals)
    assert "  over 3 groups: 95 % interval" in text
    assert "AUROC       not defined for these clips" in text
    assert "note: only 3 groups" in text


def test_options_become_plain_values(tmp_path):
    values = plain({"path": tmp_path, "size": (1, 2), "given": frozenset({"a"}), "x": None})
    assert json.loads(json.dumps(values)) == values


def test_two_runs_in_one_second_get_two_folders(tmp_path):
    runs = [RunFolder.create(tmp_path, "name", {"a": 1}) for _ in range(3)]
    assert len({run.path for run in runs}) == 3
    assert all((run.path / "args.json").is_file() for run in runs)


def test_a_run_folder_that_cannot_be_made_is_a_user_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="choose another --experiment_path"):
        RunFolder.create(tmp_path / "file", "name", {})


def test_log_drops_what_a_resumed_run_writes_again(tmp_path):
    run = RunFolder(tmp_path)
    log = run.open_log(0)
    for epoch in range(3):
        log.record(epoch, {"x": float(epoch)})
    log.close()
    with run.metrics.open("a") as file:
        file.write('{"epoch": 3, "x"')  # killed while writing
    log = run.open_log(2)
    log.record(2, {"x": 5.0})
    log.close()
    lines = [json.loads(line) for line in run.metrics.read_text().splitlines()]
    assert lines == [{"epoch": 0, "x": 0.0}, {"epoch": 1, "x": 1.0}, {"epoch": 2, "x": 5.0}]


def test_only_runs_of_this_very_name_are_found(tmp_path):
    for name in ("20260101_000000_run", "20260101_000000_2_run", "20260101_000000_my_run"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "last.pth.tar").touch()
    found = [run.path.name for run in RunFolder.candidates(tmp_path, "run")]
    assert found == ["20260101_000000_2_run", "20260101_000000_run"]
    assert RunFolder.candidates(tmp_path / "nowhere", "run") == []


def test_class_names_are_no_formulas(tmp_path):
    metrics = Metrics.of(np.array([0, 1]), np.eye(2))
    render_confusion(metrics, [r"a$\bad$", "\u843d"], tmp_path / "confusion.png")
    assert [p.name for p in tmp_path.iterdir()] == ["confusion.png"]
