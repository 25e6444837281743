"""Wrong files of every kind are read or refused in one line; what is not, the fuzzer notices."""

import json
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from benchmarks import fuzz_inputs, fuzzing
from benchmarks.fuzz_inputs import deal_cases, main
from benchmarks.fuzz_targets import Target
from benchmarks.fuzzing import Player, Tally, fuzz
from benchmarks.mutations import mutate
from errors import InputError

CASES = 20
PLENTY = 15.0  # seconds; machines that run tests may be busy


@pytest.fixture(scope="module")
def player(tmp_path_factory):
    return Player(tmp_path_factory.mktemp("fuzz"), seed=3, seconds=PLENTY)


def names(targets):
    return [target.name for target in targets]


def test_honest_files_are_read(player):
    for target in player.targets:
        for seed in target.seeds:
            target.path.write_bytes(seed)
            assert player.read(target) == ("read", ""), target.name


def test_wrong_files_are_read_or_refused_in_one_line(player):
    outcomes = Tally()
    for number, target in enumerate(player.targets):
        for case in range(max(CASES // target.cost, 2)):
            outcome, what, seconds, memory = player.play((number, case))
            outcomes.add(target.name, outcome, f"{target.name} {case}: {what}", seconds, memory)
    assert outcomes.faults == []
    assert outcomes.count("refused") > outcomes.count("read") > 0


def test_a_case_is_a_function_of_its_numbers(tmp_path, player):
    (tmp_path / "again").mkdir()
    again = Player(tmp_path / "again", seed=3)
    assert names(again.targets) == names(player.targets)
    for number, target in enumerate(player.targets):
        if target.name in ("clip list", "keypoints of a clip (.npz)", "JPEG"):
            assert [again.content((number, n)) for n in range(9)] == [
                player.content((number, n)) for n in range(9)
            ]


def test_mutations_differ_from_the_file_and_from_each_other():
    seeds = [b"# a: b\na 12 0\nb 12 1\n"]
    made = [mutate(np.random.default_rng(n), seeds) for n in range(200)]
    assert len(set(made)) > 150
    assert sum(content == seeds[0] for content in made) < 30


def test_cases_are_dealt_by_kind_and_cost():
    targets = [
        Target("a", Path("a"), [b""], len),
        Target("b", Path("b"), [b""], len, cost=4),
        Target("c", Path("c"), [b""], len, kind="image"),
    ]
    cases = deal_cases(targets, {"table": 50, "image": 7, "video": 0}, hostile=2)
    counts = [sum(target == n and number >= 0 for target, number in cases) for n in range(3)]
    assert counts == [40, 10, 7]
    assert [case for case in cases if case[1] < 0] == [
        (n, -1 - h) for h in range(2) for n in range(3)
    ]
    assert len(set(cases)) == len(cases) == 63


# ---------------------------------------------------------------- faults are noticed


def crash(path: Path) -> None:
    os.abort()


def hang(path: Path) -> None:
    time.sleep(60)


def hang_for_good(path: Path) -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})
    time.sleep(600)


def slip(path: Path) -> None:
    raise KeyError("slip")


def chatter(path: Path) -> None:
    raise InputError("one line\nand another")


def execute(path: Path) -> None:
    (path.parent.parent / "canary").touch()


def refuse(path: Path) -> None:
    raise InputError("no")


FAULTS = {
    slip: "traceback",
    chatter: "traceback",
    hang: "hang",
    execute: "executed",
    refuse: "refused",
    Path.read_bytes: "read",
}


def faulty_targets(folder: Path) -> list[Target]:
    return [Target(read.__name__, folder / "x", [b"x"], read) for read in FAULTS]


def dying_targets(folder: Path) -> list[Target]:
    reads = (refuse, crash, hang_for_good)
    return [Target(read.__name__, folder / "x", [b"x"], read) for read in reads]


def test_a_reader_that_slips_hangs_or_runs_the_file_is_noticed(tmp_path):
    player = Player(tmp_path, 0, seconds=0.2, make=faulty_targets)
    found = [player.play((n, 0))[0] for n in range(len(FAULTS))]
    assert found == list(FAULTS.values())
    assert not player.canary.exists()
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


def test_a_reader_that_kills_or_blocks_its_process_is_noticed_and_the_rest_is_played(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(fuzzing, "_PATIENCE", 1.0)
    player = Player(tmp_path, 0, make=dying_targets)
    cases = [(1, 0), (0, 0), (2, 0), (0, 1), (1, 1), (0, 2)]
    keep = tmp_path / "kept"
    keep.mkdir()
    tally = fuzz(player, cases, 0, workers=1, keep=keep, make=dying_targets)
    assert dict(tally.outcomes) == {
        ("refuse", "refused"): 3,
        ("crash", "crash"): 2,
        ("hang_for_good", "hang"): 1,
    }
    assert len(tally.faults) == len(list(keep.iterdir())) == 3


def test_the_program_counts_and_writes_what_it_counted(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(fuzz_inputs, "make_targets", faulty_targets)
    monkeypatch.setattr(fuzz_inputs, "fuzz", lambda *given, **more: played(given[0], given[1]))
    output = tmp_path / "fuzz.json"
    with pytest.raises(SystemExit) as end:
        main(["--lists", "12", "--jpegs", "0", "--videos", "0", "--output", str(output)])
    assert end.value.code == 1
    report = json.loads(output.read_text())
    assert report["totals"] == {
        "read": 2, "refused": 2, "traceback": 4, "hang": 2, "crash": 0, "executed": 2,
    }  # fmt: skip
    assert len(report["faults"]) == 8
    assert "12 cases" in capsys.readouterr().out


def played(player: Player, cases) -> Tally:
    player._seconds = 0.2
    tally = Tally()
    for case in cases:
        outcome, what, seconds, memory = player.play(case)
        tally.add(player.targets[case[0]].name, outcome, what, seconds, memory)
    return tally
