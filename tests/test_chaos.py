"""The short version of the fault injection, and: what judges the runs would see a broken one."""

import json
import shlex
import shutil
import struct
from collections import Counter
from itertools import islice

import numpy as np
import pytest
import torch

import main_only_pose
from benchmarks import chaos
from benchmarks.faults import hooks, kills, processes, runs, signals
from benchmarks.faults.runs import Recipe, find_troubles, number_delta, only_run, saved_steps
from benchmarks.faults.table import Deadline, Findings, Row, markdown, quantile_text, write
from errors import InputError


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Return the folder of the data set of all runs, which takes seconds to draw."""
    return runs.make_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory):
    """Return the run folder of a small training."""
    folder = tmp_path_factory.mktemp("chaos")
    threads = torch.get_num_threads()
    recipe = Recipe("pose", 0, data)
    main_only_pose.main(recipe.options(folder / "out"))
    torch.set_flush_denormal(False)
    torch.set_num_threads(threads)
    return only_run(folder / "out")


@pytest.fixture
def run(finished, tmp_path):
    """Return a copy of it to do harm to."""
    return shutil.copytree(finished, tmp_path / "experiments" / "a" / "b" / "1_run")


def test_the_short_version_keeps_every_promise(data, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(chaos, "make_data", lambda folder: data)
    few = shlex.split("--quick --modes pose --only kills signals resume")
    few += shlex.split("--kills 4 --signals 2 --resumes 1")
    chaos.main([*few, "--work", str(tmp_path), "--output", str(tmp_path / "out")])
    found = json.loads((tmp_path / "out" / "chaos.json").read_text())
    assert found["kept"]
    assert found["broken"] == []
    assert found["facts"]["kills"]["by_kind"] == dict.fromkeys(
        ("call", "torn", "moment", "seen"), 1
    )
    assert found["facts"]["signals"]["saved"] == 2
    assert found["facts"]["resume"]["delta"] == 0
    text = (tmp_path / "out" / "chaos.md").read_text()
    assert text.count("| yes |") == len(found["rows"])
    assert "| kills | 4 x kill -9" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["out"]  # nothing else is left


def test_a_broken_promise_is_exit_code_1_and_the_other_parts_still_run(
    tmp_path, monkeypatch, capsys
):
    def fail(bench):
        raise InputError("it fell over")

    def hold(bench):
        return Findings([Row("resume", "what", "fine", "fine", True)])

    monkeypatch.setattr(chaos, "launching", lambda folder: _Nothing())
    monkeypatch.setattr(chaos, "make_data", lambda folder: folder)
    monkeypatch.setattr(chaos, "PARTS", {"kills": fail, "resume": hold})
    with pytest.raises(SystemExit) as end:
        chaos.main(["--work", str(tmp_path), "--output", str(tmp_path / "out")])
    assert end.value.code == 1
    out = capsys.readouterr().out
    assert "broken: kills: it fell over" in out
    assert "| resume | what | fine | fine | yes |" in out
    assert not json.loads((tmp_path / "out" / "chaos.json").read_text())["kept"]


class _Nothing:
    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None


def test_a_folder_that_is_not_there_is_one_line(capsys):
    with pytest.raises(SystemExit) as end:
        chaos.parse(["--work", "nowhere"])
    assert end.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


# ---------------------------------------------------------------- judging


def test_a_whole_run_has_no_troubles(run):
    assert find_troubles(run) == []
    assert saved_steps(run) == runs.EPOCHS * runs.STEPS


@pytest.mark.parametrize(
    "name", ["last.pth.tar", "previous.pth.tar", "best.pth.tar", "best.safetensors"]
)
@pytest.mark.parametrize("harm", ["cut", "flipped", "empty", "other"])
def test_a_damaged_file_is_a_trouble(name, harm, run):
    path = run / name
    data = bytearray(path.read_bytes())
    if harm == "flipped":
        data[len(data) // 2] ^= 1
    path.write_bytes({
        "cut": data[: len(data) // 2], "flipped": data, "empty": b"", "other": b"<html>",
    }[harm])  # fmt: skip
    assert any(name in trouble for trouble in find_troubles(run))


def test_a_lost_best_and_a_lost_manifest_are_troubles(run):
    (run / "best.pth.tar").rename(run / "kept")
    assert any("best.pth.tar is lost" in trouble for trouble in find_troubles(run))
    (run / "kept").rename(run / "best.pth.tar")
    (run / "manifest.json").unlink()
    assert any("manifest.json is not there" in trouble for trouble in find_troubles(run))


def test_a_run_that_was_begun_anew_is_no_only_run(run, tmp_path):
    assert only_run(tmp_path) == run
    shutil.copytree(run, run.with_name("2_run"))
    with pytest.raises(InputError, match="holds 2 run folders with a checkpoint"):
        only_run(tmp_path)


def test_a_single_bit_is_a_difference(run, finished):
    assert runs.run_delta(run, finished) == 0
    lines = (run / "metrics.jsonl").read_text().splitlines()
    last = json.loads(lines[-1])
    last["train/loss"] = float(np.nextafter(last["train/loss"], 9))
    (run / "metrics.jsonl").write_text("\n".join([*lines[:-1], json.dumps(last)]) + "\n")
    assert 0 < runs.run_delta(run, finished) < 1e-10


@pytest.mark.parametrize(
    ("one", "other", "delta"),
    [
        (torch.tensor([1.0, torch.nan]), torch.tensor([1.0, torch.nan]), 0),
        (torch.tensor([1.0]), torch.tensor([torch.nan]), np.inf),
        (torch.tensor([1.0, 2.0]), torch.tensor([1.0, 2.5]), 0.5),
        (torch.zeros(2), torch.zeros(3), np.inf),
        ({"a": [1, 2.0]}, {"a": [1, 2.25]}, 0.25),
        ({"a": 1}, {"b": 1}, np.inf),
        ([1], [1, 2], np.inf),
        ("a", "b", np.inf),
    ],
)
def test_differences_of_nested_values(one, other, delta):
    assert number_delta(one, other) == delta


def test_which_calls_belong_to_a_checkpoint(tmp_path):
    fate = tmp_path / "fate"
    for text, belongs in {
        "replace /x/1_run/.last.pth.tar.partial /x/1_run/last.pth.tar": True,
        "fsync /x/1_run": True,
        "fsync /x/1_run/.manifest.json.partial": True,
        "fsync /x/1_run/metrics.jsonl": False,
        "replace /x/1_run/.args.json.partial /x/1_run/args.json": False,
    }.items():
        fate.write_text(text)
        assert kills._is_of_checkpoint(fate) == belongs
    assert not kills._is_of_checkpoint(tmp_path / "none")


def test_steps_of_several_processes_are_joined(tmp_path):
    trace = tmp_path / "trace"
    trace.write_text('{"clips": [["b", "a"]], "loss": [1.0]}\n{"clips": [], "loss": []}\n')
    (tmp_path / "trace.1").write_text(
        '{"clips": [["c"]], "loss": [2.0]}\n{"clips": [["d"]], "loss": [0.5]}\n'
    )
    steps = processes._read_trace(trace, 2)
    assert [step.clips for step in steps] == [("a", "b", "c"), ("d",)]
    assert [step.loss for step in steps] == [1.0, 0.5]
    (tmp_path / "trace.1").write_text("")
    with pytest.raises(InputError, match="the 2 processes took"):
        processes._read_trace(trace, 2)


def test_every_phase_signal_and_number_of_processes_comes_as_often(tmp_path):
    cases = list(signals.cases(60, tmp_path))
    counted = Counter((case.phase, case.signum, case.processes) for case in cases)
    assert len(counted) == 30
    assert set(counted.values()) == {2}
    assert {case.processes for case in cases if case.is_plain} == {1, 2}
    assert len(list(islice(signals.cases(1000, tmp_path), 7))) == 7


def test_times_of_a_process_that_died_amid_one(tmp_path):
    (tmp_path / "steps").write_bytes(struct.pack("2d", 1.5, 2.5) + b"\0\0\0")
    assert hooks.read_times(tmp_path / "steps") == [1.5, 2.5]
    assert hooks.read_times(tmp_path / "none") == []


# ---------------------------------------------------------------- tables


def test_the_table_says_what_is_broken(tmp_path):
    rows = [Row("a", "b", "c", "d", True), Row("a", "b", "c", "d", False)]
    findings = Findings(rows, {"a": 1}, ["e"])
    assert not findings.is_kept
    assert not Findings([], {}, ["e"]).is_kept
    assert Findings(rows[:1]).is_kept
    assert markdown(rows).splitlines()[2:] == [
        "| a | b | c | d | yes |",
        "| a | b | c | d | **NO** |",
    ]
    write(tmp_path / "new", findings, {"seed": 0}, 60.0)
    assert json.loads((tmp_path / "new" / "chaos.json").read_text())["minutes"] == 1


def test_quantiles_and_deadlines():
    assert quantile_text([]) == "none"
    assert quantile_text([1.0, 2.0, 3.0]).startswith("p50 2.00 s")
    assert Deadline(0).is_over
    assert not Deadline(1).is_over
