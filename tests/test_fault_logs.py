"""RELIABILITY 27: killed or stopped while numbers are written: no line twice or half, in order."""

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.small_runs import assert_equal_runs, command, numbers_of, planted, run_of

EPOCHS = 4


@pytest.fixture(scope="module")
def straight(program, tmp_path_factory):
    """Return a data set and the folder of a run that nothing happened to."""
    from tests.conftest import write_dataset

    root = tmp_path_factory.mktemp("straight")
    data = write_dataset(root / "data" / "FRFS")
    assert program.run(*command(data, root / "out", epochs=EPOCHS)).wait() == 0
    return data, run_of(root / "out")


def scalars_of(folder):
    """Return tag -> [(step, value)] as TensorBoard shows it."""
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    return {
        tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]
    }


MOMENTS = {
    "half a line": {"at": "record", "nth": 3, "what": "half a line"},
    "before a line": {"at": "record", "nth": 2, "what": "KILL"},
    "after a line": {"at": "record", "nth": 2, "what": "KILL", "when": "after"},
    "first line": {"at": "record", "nth": 1, "what": "half a line"},
    "amid the scalars": {"at": "scalar", "nth": 9, "what": "KILL"},
    "signal before a line": {"at": "record", "nth": 2, "what": "TERM"},
    "signal amid the scalars": {"at": "scalar", "nth": 10, "what": "USR1"},
    "interrupt amid the scalars": {"at": "scalar", "nth": 3, "what": "INT"},
}
CODES = {"KILL": -9, "half a line": -9, "TERM": 143, "USR1": 143, "INT": 130}


@pytest.mark.parametrize("moment", MOMENTS)
def test_numbers_are_whole_and_in_order_whenever_it_is_stopped(moment, program, straight, tmp_path):
    data, expected = straight
    line = command(data, tmp_path, epochs=EPOCHS)
    stopped = program.run(*line, env=planted(MOMENTS[moment]))
    assert stopped.wait() == CODES[MOMENTS[moment]["what"]], stopped.stderr
    assert program.run(*line).wait() == 0
    folder = run_of(tmp_path)
    assert [line["epoch"] for line in numbers_of(folder)] == list(range(EPOCHS))
    assert_equal_runs(folder, expected)
    shown, wanted = scalars_of(folder), scalars_of(expected)
    assert shown.keys() == wanted.keys()
    for tag, points in shown.items():
        assert [step for step, _ in points] == list(range(EPOCHS))
        assert tag in ("seconds", "waiting") or points == wanted[tag]


def test_stopped_again_and_again_nothing_is_there_twice(program, straight, tmp_path):
    data, expected = straight
    line = command(data, tmp_path, epochs=EPOCHS)
    for order in MOMENTS.values():
        first = {**order, "nth": 1}
        assert program.run(*line, env=planted(first)).wait() == CODES[order["what"]]
    assert program.run(*line).wait() == 0
    assert_equal_runs(run_of(tmp_path), expected)
    for points in scalars_of(run_of(tmp_path)).values():
        assert [step for step, _ in points] == list(range(EPOCHS))


@pytest.mark.parametrize("rest", [b"\0" * 300, b"{]\n", b"\xff\xfe\n", b'{"epoch": "x"}\n', b"7\n"])
def test_a_log_that_a_power_cut_damaged_does_not_keep_a_run_from_going_on(
    rest, program, straight, tmp_path
):
    data, expected = straight
    line = command(data, tmp_path, epochs=EPOCHS)
    order = {"at": "record", "nth": 3, "what": "TERM"}
    assert program.run(*line, env=planted(order)).wait() == 143
    path = run_of(tmp_path) / "metrics.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:3]) + rest)
    again = program.run(*line)
    assert again.wait() == 0, again.stderr
    assert numbers_of(run_of(tmp_path)) == numbers_of(expected)
