"""A cross-validation that is stopped, killed or fails goes on and ends with the same files."""

import json
import os
import random
import shlex
import shutil
import signal
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from campaigns.plan import begin, make_plan
from datasets.clip_table import ClipRow, write_table
from datasets.records import PUBLISHED, ClipRecord, load_records, write_list
from errors import InputError
from results.score_files import ClipScores, read_scores, write_scores
from results.selection import overlap_protocol
from tests.fake_folds_run import write_programs
from tests.forking import launching
from tools import cross_validate

FILES = ("cross_validation.json", "cross_validation.md", "cross_validation.png")
SCORES = tuple(f"scores_seed{seed}.{suffix}" for seed in (0, 1) for suffix in ("npz", "csv"))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Return a folder with the lists of data set d and programs that take no time."""
    folder = tmp_path_factory.mktemp("cross")
    write_folds(folder / "d")
    write_programs(folder / "programs")
    return folder


def write_folds(root):
    """Write the folds that the programs test: every second clip."""
    records = [ClipRecord(f"c{n:02}", 9, n // 6) for n in range(12)]
    root.mkdir()
    write_list(root / "train_videofolder.txt", records)
    for k in (1, 2):
        write_fold(root, k, records[2 - k :: 2], records[k - 1 :: 2])


def write_fold(root, k, trained, tested):
    """Write the lists of fold k of 2; every third clip of those not tested is for validation."""
    parts = {"train": [r for n, r in enumerate(trained) if n % 3], "val": trained[::3]}
    folder = root / "folds" / f"{k}of2"
    folder.mkdir(parents=True, exist_ok=True)
    for split, records in (parts | {"test": tested}).items():
        write_list(folder / f"{split}_videofolder.txt", records)


@pytest.fixture(scope="module")
def launcher(tmp_path_factory):
    with launching("tests.fake_folds_run", tmp_path_factory.mktemp("printed")) as started:
        yield started


def words(place, output, *argv, folds=2, seeds="0 1", line=""):
    data = f"main_only_pose.py --dataset d --dataset_path {place} {line or '--lr 0.02'}"
    return [
        *shlex.split(f"--folds {folds} --seeds {seeds} --output {output}"), *argv,
        "--", *shlex.split(data),
    ]  # fmt: skip


def env(place):
    return {"FAKE_PROGRAMS": str(place / "programs")}


def content(output):
    return {name: (output / name).read_bytes() for name in (*FILES, *SCORES)}


@pytest.fixture(scope="module")
def finished(place, launcher, tmp_path_factory):
    """Return the folder of a cross-validation that nothing disturbed, and what it printed."""
    output = tmp_path_factory.mktemp("whole") / "cv"
    ended = launcher.run(*words(place, output), env=env(place))
    assert ended.poll() == 0, ended.stderr
    return output, ended.stdout


def test_every_fold_is_trained_and_tested_with_every_seed(finished, place, launcher):
    output, printed = finished
    assert "2 folds x 2 seeds = 4 runs, 0 finished before" in printed
    assert "4 of 4: seed 1, fold 2: " in printed
    report = json.loads((output / "cross_validation.json").read_text())
    assert [seed["seed"] for seed in report["seeds"]] == [0, 1]
    assert report["clips"] == 12
    for seed in (0, 1):
        scores = read_scores(output / f"scores_seed{seed}.npz")
        assert scores.clips == tuple(f"c{n:02}" for n in range(12))
        right = int((scores.scores.argmax(1) == scores.labels).sum())
        assert report["seeds"][seed]["correct"] == right
        assert f"| {seed} | {right} of 12 |" in printed
    before = content(output)
    again = launcher.run(*words(place, output), env=env(place))
    assert "4 finished before" in again.stdout
    assert content(output) == before
    assert {path.read_text() for path in output.glob("runs/*/ended.txt")} == {"x"}


def test_killed_at_random_moments_it_ends_with_the_same_files(finished, place, launcher, tmp_path):
    output, rng = tmp_path / "cv", random.Random(0)
    for number in range(8):
        jobs = ("--jobs", str(1 + number % 2))
        started = launcher.start(*words(place, output, *jobs), env=env(place))
        time.sleep(rng.uniform(0.05, 0.9))
        started.send_signal(signal.SIGKILL)
        started.wait()
    ended = launcher.run(*words(place, output), env=env(place))
    assert ended.poll() == 0, ended.stderr
    assert content(output) == content(finished[0])
    # A training that has a checkpoint is gone on with, not begun again.
    assert len(list(output.glob("runs/*/experiments/*/*/*/last.pth.tar"))) == 4


def test_ctrl_c_ends_the_runs_and_the_driver(finished, place, launcher, tmp_path):
    output = tmp_path / "cv"
    started = launcher.start(*words(place, output, "--jobs", "2"), env=env(place))
    while not list(output.glob("runs/*/experiments")):
        time.sleep(0.01)
    started.send_signal(signal.SIGINT, whole_group=True)
    assert started.wait() == 130
    assert started.stderr == ""
    assert not at_work(output)
    assert not (output / FILES[0]).exists()
    assert launcher.run(*words(place, output), env=env(place)).poll() == 0
    assert content(output) == content(finished[0])


def at_work(output):
    """Return the command lines of processes that name the folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            found.append(path.read_bytes())
    return [line for line in found if os.fsencode(output) in line]


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="no /proc on this system")
def test_no_run_outlives_a_killed_driver(place, launcher, tmp_path):
    output = tmp_path / "cv"
    line = words(place, output, line="--lr 60", seeds="0")
    started = launcher.start(*line, env=env(place))
    while not at_work(output / "runs"):
        time.sleep(0.01)
    started.send_signal(signal.SIGKILL)
    started.wait()
    end = time.monotonic() + 20
    while at_work(output / "runs"):
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_failed_run_is_named_and_the_others_go_on(finished, place, launcher, tmp_path):
    output = tmp_path / "cv"
    bad = output / "runs" / "seed1_fold1" / "fail"
    ended = launcher.run(*words(place, output), env=env(place))  # makes the plan
    shutil.rmtree(bad.parent)
    bad.parent.mkdir()
    bad.touch()
    ended = launcher.run(*words(place, output), env=env(place))
    assert ended.poll() == 2
    reason = "training: no space left | for <this> run"
    assert f"1 of 4 runs failed, such as seed 1, fold 1: {reason} (logs in " in ended.stderr
    assert ended.stderr.count("\n") == 1
    assert [seed["seed"] for seed in json.loads((output / FILES[0]).read_text())["seeds"]] == [0]
    assert "left out: seeds that lack a fold (1 runs missing: seed 1, fold 1)" in ended.stdout
    bad.unlink()
    assert launcher.run(*words(place, output), env=env(place)).poll() == 0
    assert content(output) == content(finished[0])


def test_all_failed_leave_no_report(place, launcher, tmp_path):
    output = tmp_path / "cv"
    (place / "broken").mkdir()
    (place / "broken" / "main_only_pose.py").write_text("import os; os.kill(os.getpid(), 9)")
    broken = {"FAKE_PROGRAMS": str(place / "broken")}
    ended = launcher.run(*words(place, output, seeds="0"), env=broken)
    assert ended.poll() == 2
    assert "2 of 2 runs failed, such as seed 0, fold 1: training: ended by SIGKILL" in ended.stderr
    assert "no seed has all its folds tested" in ended.stdout
    assert not (output / FILES[0]).exists()


# ---------------------------------------------------------------- what is refused


def refusal(*argv):
    with pytest.raises(InputError) as caught:
        cross_validate.main(list(argv))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"line": "--lr 0.02 --dropout 0.1"}, "begun with --dropout 0.5, this command has 0.1"),
        ({"folds": 3}, "begun with --folds 2, this command has 3"),
        ({"argv": ("--last",)}, "begun with --last False, this command has True"),
        ({"argv": ("--test=--num_clips 2",)}, "begun with --test , this command has --num_clips 2"),
    ],
)
def test_another_line_is_refused_where_one_was_begun(finished, place, change, says):
    argv = change.pop("argv", ())
    assert says in refusal(*words(place, finished[0], *argv, **change))


def test_other_clips_are_refused_where_one_was_begun(finished, place, tmp_path):
    (tmp_path / "d").mkdir()
    records = load_records(place / "d" / "train_videofolder.txt")
    write_list(tmp_path / "d" / "train_videofolder.txt", records[1:])
    assert "begun with clips in number 12, this command has 11" in refusal(
        *words(tmp_path, finished[0])
    )


def test_other_folds_of_the_same_clips_are_refused_where_one_was_begun(finished, tmp_path):
    root = tmp_path / "d"
    write_folds(root)
    plan = make_plan(words(tmp_path, "x")[8:], "2", [], last=False)
    begin(finished[0], plan)  # a copy is another place and nothing else
    records = load_records(root / "train_videofolder.txt")
    # The clips of both folds' tests are the same, one more is for validation.
    write_list(root / "folds" / "1of2" / "val_videofolder.txt", [*records[1:8:6], records[3]])
    write_list(root / "folds" / "1of2" / "train_videofolder.txt", [records[n] for n in (5, 9, 11)])
    assert "begun with folds (clips.csv or the lists in folds/) of SHA-256" in refusal(
        *words(tmp_path, finished[0])
    )
    shutil.rmtree(root)
    write_folds(root)
    write_table(root, [ClipRow(r.name, group=f"g{n % 2}") for n, r in enumerate(records)])
    line = "--lr 0.02 --allow_overlap"
    said = refusal(*words(tmp_path, finished[0], line=line))
    assert "begun with --allow_overlap False" in said
    other = replace(plan, groups_sha256="other")
    with pytest.raises(InputError, match="begun with groups"):
        begin(finished[0], other)


def test_groups_that_are_corrected_deal_other_folds(tmp_path):
    records = [ClipRecord(f"c{n:02}", 9, n // 6) for n in range(12)]
    plans = []
    for turn in (0, 0, 1):
        write_table_of(tmp_path / f"{turn}" / "d", records, turn)
        line = words(tmp_path / f"{turn}", "x")[8:]
        plans.append(make_plan(line, "groups", [], last=False))
    assert plans[0].to_json() == plans[1].to_json()
    assert plans[0].sha256 == plans[2].sha256
    assert plans[0].folds_sha256 != plans[2].folds_sha256
    assert plans[0].groups_sha256 != plans[2].groups_sha256
    for plan in plans:
        assert sorted(clip for fold in plan.tested for clip in fold) == [r.name for r in records]


def write_table_of(root, records, turn):
    root.mkdir(parents=True, exist_ok=True)
    write_list(root / "train_videofolder.txt", records)
    write_table(root, [ClipRow(r.name, group=f"g{n // (1 + turn) % 4}")
                       for n, r in enumerate(records)])  # fmt: skip


def test_scores_of_other_clips_than_the_fold_tests_are_refused(finished, place, tmp_path):
    output = tmp_path / "cv"
    shutil.copytree(finished[0], output)
    (output / "runs" / "seed0_fold2").rename(output / "x")
    (output / "runs" / "seed0_fold1").rename(output / "runs" / "seed0_fold2")
    (output / "x").rename(output / "runs" / "seed0_fold1")
    said = refusal(*words(place, output))
    assert "seed0_fold1 was tested on 6 clips that are not in fold 1 of 2, such as 'c01'" in said


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("--fold 1/2", "--fold, which each run"),
        ("--seed 3", "--seed, which each run"),
        ("--test_list x.txt", "--test_list, which each run"),
        ("--resume auto", "--resume, which each run"),
        ("--fold_val 0", "--fold_val 0 keeps no clips to choose the best epoch by"),
    ],
)
def test_options_that_each_run_gets_anew_are_refused(place, tmp_path, line, says):
    assert says in refusal(*words(place, tmp_path / "cv", line=line))
    assert not (tmp_path / "cv").exists()


@pytest.mark.parametrize("option", ["--weights x", "--max_num 3", "--output y", "--fold 1/2"])
def test_options_that_each_test_gets_anew_are_refused(place, tmp_path, option):
    said = refusal(*words(place, tmp_path / "cv", f"--test={option}"))
    assert f"--test says {option.split()[0]}, which each test" in said


def test_what_is_no_training_line_is_refused(place, tmp_path, capsys):
    for words_after in ([], ["python"], ["test_models.py"], ["rm", "-rf"]):
        said = refusal("--folds", "2", "--output", str(tmp_path / "cv"), "--", *words_after)
        assert said.startswith("after -- comes ")
    for argv in (
        ["--folds", "2", "--output", "x"],
        ["--output", "x", "--", "main.py"],
        ["--folds", "1", "--output", "x", "--", "main.py"],
        ["--folds", "2", "--seeds", "1", "1", "--output", "x", "--", "main.py"],
        ["--folds", "2", "--output", "x", "--", "main.py", "--dataset", "d", "--nonsense"],
        ["--compare", "a", "b", "--", "main.py"],
    ):
        with pytest.raises(SystemExit) as stop:
            cross_validate.main(argv)
        assert stop.value.code == 2
        assert capsys.readouterr().err.count("\n") == 1


def test_folds_that_cannot_be_are_found_before_the_first_training(place, tmp_path):
    assert "no groups are known" in refusal(*words(place, tmp_path / "cv", folds="groups"))
    records = load_records(place / "d" / "train_videofolder.txt")
    for k, tested in ((1, records[::2]), (2, records[1::2])):
        for split, part in (("train", records[4:]), ("val", records[:4]), ("test", tested)):
            path = tmp_path / "d" / "folds" / f"{k}of2" / f"{split}_videofolder.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_list(path, part)
    assert "share 4 clips" in refusal(*words(tmp_path, tmp_path / "cv"))
    assert not (tmp_path / "cv").exists()


def test_a_folder_of_something_else_is_left_alone(place, tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    (tmp_path / ".thesis.txt.partial").write_text("mine too")
    assert "holds thesis.txt and no plan.json" in refusal(*words(place, tmp_path))
    assert (tmp_path / ".thesis.txt.partial").exists()
    assert "cannot be made" in refusal(*words(place, tmp_path / "thesis.txt"))
    (tmp_path / "thesis.txt").unlink()
    (tmp_path / "plan.json").write_text("{")
    assert "plan.json is damaged" in refusal(*words(place, tmp_path))


# ---------------------------------------------------------------- what is no test


def marked(output, marks):
    """Give the scores of cells their protocol: (seed, fold) -> it."""
    for (seed, fold), protocol in marks.items():
        (path,) = (output / "runs" / f"seed{seed}_fold{fold}").rglob("scores_test.npz")
        write_scores(path, replace(read_scores(path), protocol=protocol))


def test_models_that_have_seen_what_tests_them_are_told_apart(finished, place, tmp_path, capsys):
    output = tmp_path / "cv"
    shutil.copytree(finished[0], output)
    found = [f"{n} of 6 test clips were in the train list of the checkpoint" for n in (5, 3)]
    # In a seed that is not the first, too.
    marked(output, {(1, 1): overlap_protocol(found[:1]), (1, 2): overlap_protocol(found[1:])})
    cross_validate.main(words(place, output))
    printed = capsys.readouterr().out
    assert f"this test: fold 1: {found[0]}; fold 2: {found[1]}; the acc" in printed
    assert "chose the epoch" not in printed
    assert "that has not seen its fold" not in printed
    assert "not all models are apart from what tests them" in printed
    protocol = read_scores(output / "scores_seed1.npz").protocol
    assert all(text in protocol for text in found)
    assert read_scores(output / "scores_seed0.npz").protocol == ""


def test_the_last_epoch_is_not_selected(place):
    args = [words(place, "x")[8:], "2", []]
    chosen, last = (make_plan(*args, last=is_last) for is_last in (False, True))
    scores = ClipScores(("a",), np.array([0]), np.zeros((1, 2)), ("x", "y"), protocol=PUBLISHED)
    assert cross_validate.unmarked(chosen, scores).protocol == PUBLISHED
    assert cross_validate.unmarked(last, scores).protocol == ""
    seen = replace(scores, protocol=overlap_protocol(["1 of 1 test clips"]))
    assert cross_validate.unmarked(last, seen).protocol == seen.protocol
    overlapping = make_plan(*args[:2], ["--allow_overlap"], last=True)
    assert cross_validate.unmarked(overlapping, scores).protocol == PUBLISHED


# ---------------------------------------------------------------- the real programs


def test_the_real_programs(make_dataset, tmp_path, capfd):
    root = make_dataset("jumps", clips=(5, 2, 3))
    output = tmp_path / "cv"
    line = "--num_segments 4 --batch-size 2 --iter_size 1 --epochs 1 --workers 0 --threads 1"
    cross_validate.main([
        *shlex.split(f"--folds 2 --jobs 2 --output {output}"), "--test=--num_clips 2", "--",
        "python3", "main_only_pose.py", "--dataset", "jumps", "--dataset_path", str(root.parent),
        *shlex.split(line), "--device", "cpu",
    ])  # fmt: skip
    assert "**Accuracy " in capfd.readouterr().out
    scores = read_scores(output / "scores_seed0.npz")
    assert len(scores) == 10
    names = {record.name for s in ("train", "val", "test")
             for record in load_records(root / f"{s}_videofolder.txt")}  # fmt: skip
    assert set(scores.clips) == names
    for run in output.glob("runs/*/experiments/*/*/*"):
        tested = {r.name for r in load_records(run / "lists" / "test_videofolder.txt")}
        assert set(read_scores(run / "scores_test.npz").clips) == tested
        options = json.loads((run / "test_report.json").read_text())["options"]
        assert (options["num_clips"], options["workers"]) == (2, 0)
        assert options["fold"] in {"1/2", "2/2"}
        assert os.fspath(run).count("seed0_fold") == 1
