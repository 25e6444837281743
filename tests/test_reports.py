import json

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score

from errors import InputError
from reports import (
    Metrics,
    RunFolder,
    metrics_text,
    plain,
    render_confusion,
    save_scores,
    wilson_interval,
)


@pytest.mark.parametrize(("correct", "total"), [(0, 5), (5, 5), (204, 208), (22, 26), (1, 1)])
def test_wilson_interval_solves_its_equation(correct, total):
    # The ends are the p at which the observed proportion lies z standard errors away.
    low, high = wilson_interval(correct, total)
    z = 1.959963984540054
    for end in (low, high):
        if 0 < end < 1:
            error = (end * (1 - end) / total) ** 0.5
            assert abs(correct / total - end) == pytest.approx(z * error, abs=1e-9)
    assert 0 <= low <= correct / total <= high <= 1


def test_wilson_interval_of_the_published_result():
    assert wilson_interval(204, 208) == pytest.approx((0.952, 0.992), abs=5e-4)


def test_wilson_interval_refuses_nonsense():
    with pytest.raises(ValueError, match="no proportion"):
        wilson_interval(3, 2)


def test_metrics_on_a_small_example():
    labels = np.array([0, 0, 0, 1])
    scores = np.array([[2.0, 1], [2, 1], [1, 2], [1, 2]])
    metrics = Metrics.of(labels, scores, 0.5)
    assert (metrics.correct, metrics.total) == (3, 4)
    assert metrics.majority == 0.75
    assert metrics.recall == pytest.approx([2 / 3, 1.0])
    assert metrics.confusion == [[2, 1], [0, 1]]
    assert metrics.macro_f1 == pytest.approx((0.8 + 2 / 3) / 2)


@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
def test_recall_averages_to_balanced_accuracy_and_skips_absent_classes():
    rng = np.random.default_rng(0)
    labels, scores = rng.integers(0, 7, 50), rng.normal(size=(50, 7))
    labels[labels == 3] = 4
    metrics = Metrics.of(labels, scores, 1.0)
    assert metrics.recall[3] is None
    occurring = [recall for recall in metrics.recall if recall is not None]
    assert np.mean(occurring) == pytest.approx(balanced_accuracy_score(labels, scores.argmax(1)))


def test_top_5_accuracy():
    scores = np.tile(np.arange(7.0), (2, 1))
    assert Metrics.of(np.array([1, 2]), scores, 1.0).top5 == 0.5


def test_defect_23_no_top_5_with_two_classes():
    assert Metrics.of(np.array([0, 1]), np.eye(2), 0.1).top5 is None


def test_text_names_counts_interval_and_majority():
    text = metrics_text(Metrics.of(np.array([0, 1, 1]), np.eye(2)[[0, 1, 0]], 0.1), ["a", "b"])
    assert "66.67%  (2 of 3 clips, 95 % interval" in text
    assert "majority  66.67%" in text
    assert "b" in text.splitlines()[-1]


def test_scores_file_has_no_pickles(tmp_path):
    path = tmp_path / "scores.npz"
    save_scores(path, ["a b", "ü"], np.array([0, 1]), np.eye(2), ["x", "y"])
    with np.load(path, allow_pickle=False) as saved:
        assert saved["clips"].tolist() == ["a b", "ü"]
        assert saved["scores"].shape == (2, 2)
    assert [p.name for p in tmp_path.iterdir()] == ["scores.npz"]


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
    metrics = Metrics.of(np.array([0, 1]), np.eye(2), 0.1)
    render_confusion(metrics, [r"a$\bad$", "\u843d"], tmp_path / "confusion.png")
    assert [p.name for p in tmp_path.iterdir()] == ["confusion.png"]
