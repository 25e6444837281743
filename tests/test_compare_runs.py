import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from errors import InputError, run_script
from results.run_results import describe, find_runs, read_run
from results.score_files import ClipScores, read_scores, write_scores
from tools import compare_runs, ensemble_scores

ROOT = Path(__file__).resolve().parent.parent
ARGS = {
    "dataset": "FRFS",
    "fusion": "none",
    "arch": "resnet18",
    "gsf": True,
    "seed": 3,
    "epochs": 2,
}
EPOCHS = [
    {"epoch": 0, "val/top1": 0.75, "val/loss": 0.9, "seconds": 4.0},
    {"epoch": 1, "val/top1": 0.75, "val/loss": 0.4, "seconds": 2.0},
]


def clip_scores(seed=0, total=40, strength=2.0, **changes):
    labels = np.arange(total) % 2
    scores = np.random.default_rng(seed).normal(size=(total, 2)) + strength * np.eye(2)[labels]
    clips = tuple(f"clip {n}" for n in range(total))
    return ClipScores(**({"clips": clips, "labels": labels, "scores": scores,
                          "classes": ("fall", "landed")} | changes))  # fmt: skip


def write_run(folder, scores=None, args=ARGS, epochs=EPOCHS, **report):
    folder.mkdir(parents=True)
    (folder / "args.json").write_text(json.dumps(args))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(e) + "\n" for e in epochs))
    if scores is not None:
        write_scores(folder / "scores_test.npz", scores)
        right = int((scores.scores.argmax(1) == scores.labels).sum())
        report = {"total": len(scores), "correct": right, "macro_f1": 0.5, "protocol": ""} | report
        (folder / "test_report.json").write_text(json.dumps(report))
    return folder


def test_a_whole_run_is_read(tmp_path):
    run = read_run(write_run(tmp_path / "run", clip_scores()))
    assert (run.name, run.dataset, run.seed, run.mode) == ("run", "FRFS", 3, "RGB (resnet18 + GSF)")
    assert (run.epochs_done, run.epochs, run.seconds) == (2, 2, 3.0)
    # Of equal accuracies the lower loss is the better, as in training.
    assert (run.best_val, run.best_epoch) == (0.75, 1)
    assert run.total == 40
    assert run.interval[0] < run.accuracy < run.interval[1]
    assert (run.notes, run.selection) == ((), ())


@pytest.mark.parametrize(
    ("name", "content", "note"),
    [
        ("args.json", b"{", "args.json is damaged"),
        ("args.json", b"[1]", "args.json is damaged"),
        ("args.json", b"\xff", "no UTF-8 text"),
        ("args.json", b"[" * 100_000, "args.json is damaged"),
        ("args.json", None, "no args.json"),
        ("metrics.jsonl", None, "no metrics.jsonl"),
        ("metrics.jsonl", b"", "unfinished: 0 of 2 epochs"),
        ("metrics.jsonl", b"<html>\n{}\n{}\n", "1 lines are no JSON objects"),
        ("test_report.json", b"", "test_report.json is damaged"),
        ("test_report.json", b"{}", "test_report.json is damaged"),
        ("test_report.json", b'{"total": 0, "correct": 0}', "no counts of clips"),
        ("test_report.json", b'{"total": 2, "correct": 3}', "no counts of clips"),
        ("test_report.json", b'{"total": NaN, "correct": true}', "no counts of clips"),
        ("test_report.json", None, "not tested on the test list"),
        ("scores_test.npz", b"PK", "scores_test.npz is no .npz file"),
        ("scores_test.npz", b"", "scores_test.npz is no .npz file"),
    ],
)
def test_what_is_damaged_is_named_and_not_fatal(tmp_path, name, content, note, capsys):
    write_run(tmp_path / "runs" / "good", clip_scores(1))
    bad = write_run(tmp_path / "runs" / "bad", clip_scores())
    (bad / name).unlink()
    if content is not None:
        (bad / name).write_bytes(content)
    rows = compare_runs.main([str(tmp_path / "runs" / "good"), str(bad)])
    assert note in " ".join(rows[1].notes)
    text = capsys.readouterr().out
    assert text.count("\n| bad |") == 1
    assert "- bad: " in text


def test_a_run_killed_while_writing_is_only_unfinished(tmp_path):
    folder = write_run(tmp_path / "run", clip_scores(), epochs=EPOCHS[:1])
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 1, "val')
    assert read_run(folder).notes == ("unfinished: 1 of 2 epochs",)


def test_numbers_that_are_none_are_left_out(tmp_path):
    odd = [{"epoch": 0, "val/top1": float("nan"), "seconds": "long"}, {"epoch": 1, "val/top1": 7}]
    run = read_run(write_run(tmp_path / "run", clip_scores(), epochs=odd))
    assert (run.best_val, run.seconds, run.epochs_done) == (None, None, 2)


def test_scores_of_another_test_are_not_taken(tmp_path):
    run = read_run(write_run(tmp_path / "run", clip_scores(), correct=1))
    assert run.scores is None
    assert run.notes == ("scores_test.npz is not of the report: test again",)


def test_intervals_are_over_groups_where_known(tmp_path):
    groups = tuple(f"athlete {n // 10}" for n in range(40))
    plain = read_run(write_run(tmp_path / "plain", clip_scores()))
    grouped = read_run(write_run(tmp_path / "grouped", clip_scores(groups=groups)))
    assert np.ptp(grouped.interval) > np.ptp(plain.interval)


def test_runs_are_found_below_folders_and_once(tmp_path):
    one = write_run(tmp_path / "experiments" / "FRFS" / "r 1", clip_scores())
    two = write_run(tmp_path / "experiments" / "FRFS" / "ü 2")
    (tmp_path / "notes.txt").write_text("")
    assert find_runs([tmp_path]) == [one, two]
    assert find_runs([two, tmp_path, tmp_path / "notes.txt"]) == [two, one]
    with pytest.raises(InputError, match="is not there"):
        find_runs([tmp_path / "nowhere"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no run folder there"):
        find_runs([tmp_path / "empty"])


@pytest.mark.parametrize(
    ("args", "mode"),
    [
        ({"fusion": "pose", "pose_model": "gcn"}, "pose (gcn)"),
        ({"fusion": "early", "arch": "resnet50", "mask_background": True}, "early, masked (resnet50)"),  # noqa: E501
        ({"fusion": "late_attention", "arch": "resnet18", "gsf": True},
         "late_attention (resnet18 + GSF)"),
    ],
)  # fmt: skip
def test_modes_have_names(args, mode):
    assert describe(args) == mode


def test_table_compares_with_the_first_run_and_is_written_in_three_formats(tmp_path, capsys):
    for name, strength in (("a|b", 1.0), ("c", 4.0), ("d", 4.0)):
        write_run(tmp_path / "runs" / name, clip_scores(strength=strength))
    write_run(tmp_path / "runs" / "e", None)
    outputs = [str(tmp_path / f"table.{suffix}") for suffix in ("md", "csv", "json")]
    rows = compare_runs.main([str(tmp_path / "runs"), "--output", *outputs])
    assert [row.run.name for row in rows] == ["a|b", "c", "d", "e"]
    assert rows[0].beside is None
    assert rows[1].p_adjusted == pytest.approx(min(1, 2 * rows[1].beside.p_value))
    text = (tmp_path / "table.md").read_text()
    assert text in capsys.readouterr().out
    assert "| a\\|b | RGB (resnet18 + GSF) | 3 | 2/2 | 75.00% (epoch 1) |" in text
    assert "adjusted for 2 comparisons (Holm)" in text
    assert "- e: not tested on the test list" in text
    assert "best of several test accuracies is optimistic" in text
    table = list(csv.DictReader((tmp_path / "table.csv").read_text().splitlines()))
    values = json.loads((tmp_path / "table.json").read_text())
    assert [line["run"] for line in table] == [value["run"] for value in values]
    assert float(table[1]["p_mcnemar"]) == values[1]["p_mcnemar"] == rows[1].beside.p_value
    assert values[3]["accuracy"] is None
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "runs", "table.csv", "table.json", "table.md"
    ]  # fmt: skip


def test_runs_on_other_clips_are_not_compared(tmp_path, capsys):
    write_run(tmp_path / "a", clip_scores())
    write_run(tmp_path / "b", clip_scores(total=38))
    rows = compare_runs.main([str(tmp_path / "a"), str(tmp_path / "b")])
    assert rows[1].beside is None
    assert "2 clips are in one alone" in rows[1].notes[0]
    assert "their accuracies do not compare" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("report", "reason"),
    [
        ({"protocol": "published (val and test are the same clips)"}, "selected on the test list"),
        ({"protocol": "published", "selection": ["seen\n before"]}, "seen before"),
        ({"selection": ["3 of 40 test clips were in the train list"]}, "3 of 40 test clips"),
        ({"selection": "broken", "protocol": "odd"}, "selected on the test list: odd"),
    ],
)
def test_a_run_selected_on_the_test_list_is_flagged(tmp_path, capsys, report, reason):
    write_run(tmp_path / "a", clip_scores(), **report)
    compare_runs.main([str(tmp_path / "a"), "--output", str(tmp_path / "t.json")])
    text = capsys.readouterr().out
    assert f"- a: **(!) {reason}" in text
    assert f"WARNING: a: {reason}" in text
    row = json.loads((tmp_path / "t.json").read_text())[0]
    assert row["selected_on_test"]
    assert reason in row["selection"]


def test_cautions_and_notes_of_a_report_are_repeated(tmp_path, capsys):
    write_run(tmp_path / "a", clip_scores(), cautions=["2 models"], notes=["the first 5 of 160"])
    write_run(tmp_path / "b", clip_scores(), cautions="2 models", notes=[3])
    rows = compare_runs.main([str(tmp_path / "a"), str(tmp_path / "b")])
    assert [row.notes for row in rows] == [("2 models", "the first 5 of 160"), ()]
    assert "- a: 2 models; the first 5 of 160" in capsys.readouterr().out


def test_names_are_neither_html_nor_formulas(tmp_path):
    evil = {"dataset": "=cmd|' 'A0", "fusion": "@SUM(A1)"}
    write_run(tmp_path / "=1+1 <img src=x onerror=alert(1)>", clip_scores(), ARGS | evil,
              notes=["<script>"])  # fmt: skip
    outputs = [tmp_path / "out" / f"t.{suffix}" for suffix in ("md", "csv", "json")]
    outputs[0].parent.mkdir()
    place = next(tmp_path.glob("=*"))
    compare_runs.main([str(place), "--output", *map(str, outputs)])
    assert "<" not in outputs[0].read_text()
    assert "| =1+1 &lt;img src=x" in outputs[0].read_text()
    (row,) = csv.DictReader(outputs[1].read_text().splitlines())
    assert row["run"] == f"'{place.name}"
    assert row["dataset"] == "'=cmd|' 'A0"
    assert row["mode"].startswith("'@SUM")
    assert float(row["accuracy"]) > 0
    assert json.loads(outputs[2].read_text())[0]["run"] == place.name


def test_an_honest_run_is_not_flagged(tmp_path, capsys):
    write_run(tmp_path / "a", clip_scores(), selection=[])
    rows = compare_runs.main([str(tmp_path / "a")])
    assert rows[0].run.selection == ()
    assert "(!)" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (["nowhere"], "nowhere is not there"),
        (["{run}", "--output", "t.xls"], "end its name in .md, .csv, .json"),
        (["{run}", "--output", "{run}/none/t.csv"], "cannot be written"),
        ([], "required: runs"),
    ],
)
def test_user_errors_are_one_line(tmp_path, line, message, capsys):
    run = str(write_run(tmp_path / "run", clip_scores()))
    assert_one_line(compare_runs, [word.format(run=run) for word in line], message, capsys)


def assert_one_line(tool, line, message, capsys):
    with pytest.raises(SystemExit) as ended:
        run_script(lambda: tool.main(line))
    errors = capsys.readouterr().err
    assert ended.value.code == 2
    assert message in errors
    assert len(errors.splitlines()) == 1


def test_both_tools_run_as_programs_from_anywhere(tmp_path):
    for name in ("compare_runs", "ensemble_scores"):
        tool = str(ROOT / "tools" / f"{name}.py")
        done = subprocess.run(
            [sys.executable, tool, "none.npz", "none"], capture_output=True, text=True, cwd=tmp_path
        )
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith("error: none.npz is not there")
        assert len(done.stderr.splitlines()) == 1


# ---------------------------------------------------------------- ensembles


def write_models(folder, split, first):
    paths = [folder / f"{name}_{split}.npz" for name in ("rgb", "pose")]
    for seed, path in enumerate(paths):
        clips = tuple(f"{split} {n}" for n in range(40))
        write_scores(path, clip_scores(seed + first, clips=clips, split=split, strength=seed + 1.0))
    return list(map(str, paths))


def test_ensemble_is_written_and_read(tmp_path, capsys):
    paths = write_models(tmp_path, "test", 0)
    metrics = ensemble_scores.main(
        [*paths, "--weights", "1", "3", "--output", str(tmp_path / "e.csv")]
    )
    mixed = read_scores(tmp_path / "e.csv")
    assert (mixed.kind, mixed.split) == ("probabilities", "test")
    assert metrics.correct == (mixed.scores.argmax(1) == mixed.labels).sum()
    text = capsys.readouterr().out
    assert "weight 0.250" in text
    assert "the ensemble against model 1" in text
    assert "note: no groups" in text


def test_weights_are_tuned_on_val_and_never_on_what_is_tested(tmp_path, capsys):
    test, val = write_models(tmp_path, "test", 0), write_models(tmp_path, "val", 10)
    ensemble_scores.main([*test, "--tune_on", *val])
    assert "weights tuned on 40 clips" in capsys.readouterr().out
    with pytest.raises(InputError, match="clips that are also tested"):
        ensemble_scores.main([*test, "--tune_on", *test])


def test_streams_are_weighted_by_name(tmp_path, capsys):
    joint, motion = write_models(tmp_path, "test", 0)
    ensemble_scores.main(["--streams", f"joint_motion={motion}", f"joint={joint}"])
    text = capsys.readouterr().out
    assert f"model 1   weight 0.333   {motion}" in text
    assert f"model 2   weight 0.667   {joint}" in text


def test_published_scores_are_flagged(tmp_path, capsys):
    for name in ("a.npz", "b.npz"):
        write_scores(tmp_path / name, clip_scores(protocol="published"))
    ensemble_scores.main([str(tmp_path / "a.npz"), str(tmp_path / "b.npz")])
    assert "WARNING: selected on the test list" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (["{0}"], "at least two models"),
        (["{0}", "{1}", "--weights", "1"], "--weights has 1 values for 2 score files"),
        (["{0}", "{1}", "--weights", "1", "x"], "'x' is not a number"),
        (["{0}", "{1}", "--weights", "0", "0"], "one above 0"),
        (["{0}", "{1}", "--tune_on", "{0}"], "--tune_on has 1 values"),
        (["{0}", "{1}", "--weights", "1", "2", "--tune_on", "{0}", "{1}"], "give one of the two"),
        (["--streams", "joint"], "write NAME=FILE"),
        (["--streams", "joint={0}", "skin={1}"], "name each once"),
        (["{0}", "--streams", "joint={0}"], "give no others"),
        (["--streams", "joint={0}", "bone={0}"], "is given twice"),
        (["--streams", "joint={0}", "skin={1}", "--weights", "1", "1"], "name each once"),
        (["{0}", "{1}", "--tune_on", "{0}", "{0}"], "is given twice"),
        (["{0}", "{1}", "--output", "e.xlsx"], "end it in .npz or .csv"),
        (["{0}", "none.npz"], "none.npz is not there"),
    ],
)
def test_wrong_ensembles_are_one_line(tmp_path, line, message, capsys):
    paths = write_models(tmp_path, "test", 0)
    assert_one_line(ensemble_scores, [word.format(*paths) for word in line], message, capsys)
