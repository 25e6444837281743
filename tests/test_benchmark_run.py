"""tools/benchmark.py: one command, three files; or one clear line."""

import json
import signal

import cv2
import pytest
import torch

from errors import InputError, Interrupted
from measuring.targets import Outcome, Target
from tools import benchmark

SMALL = [
    *("--quick", "--repeats", "1", "--sizes", "96x64", "--arch", "resnet18"),
    *("--input_size", "32", "--num_segments", "2", "--workers", "0"),
]


@pytest.fixture(autouse=True)
def give_back(machine_state):
    handler = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, handler)


def run(folder, *options):
    benchmark.main([*SMALL, "--output", str(folder), *options])
    return json.loads((folder / "benchmark.json").read_text(encoding="utf-8"))


def test_networks_and_steps(tmp_path, capsys):
    variants = ["--variants", "plain", "published", "eager"]
    values = run(tmp_path, "--what", "network", *variants)
    (section,) = values["sections"]
    measured = {(row["case"], row["variant"]) for row in section["rows"] if row["timing"]}
    assert len(measured) == 6
    eager = next(row for row in section["rows"] if row["variant"] == "eager")
    assert eager["speed_up"] > 0
    assert eager["facts"]["largest difference"] < 1e-4
    assert values["machine"]["torch"] == torch.__version__
    assert "Whole networks" in capsys.readouterr().out
    assert cv2.imread(str(tmp_path / "benchmark.png")) is not None
    assert (tmp_path / "benchmark.md").read_text(encoding="utf-8").startswith("### Whole")


def test_data_path(tmp_path, capsys):
    values = run(tmp_path, "--what", "loader", "testing", "--markdown", "--check")
    names = [section["name"] for section in values["sections"]]
    assert names == ["loader", "stages", "workers", "testing"]
    for section in values["sections"]:
        assert all(row["timing"]["wall"]["median"] > 0 for row in section["rows"])
    out = capsys.readouterr().out
    assert "| 96x64 | published |" in out
    assert "more are about other parts" in out


def test_training(tmp_path):
    values = run(tmp_path, "--what", "training", "--variants", "plain", "eager")
    steps, waiting = values["sections"]
    assert {row["variant"] for row in steps["rows"]} == {"plain", "eager"}
    assert all(0 <= row["facts"]["waiting for data, %"] <= 100 for row in waiting["rows"])


def test_what_cannot_run_is_a_row_with_a_reason(tmp_path, monkeypatch):
    monkeypatch.setattr("measuring.variants.shutil.which", lambda name: None)
    values = run(tmp_path, "--what", "network", "--variants", "plain", "compiled")
    compiled = [r for r in values["sections"][0]["rows"] if r["variant"] == "compiled"]
    assert [row["note"] for row in compiled] == ["there is no C++ compiler on this machine"] * 2
    assert all(row["timing"] is None for row in compiled)


def test_a_missed_promise_is_exit_code_1(tmp_path, monkeypatch, capsys):
    outcome = Outcome(Target("a promise", ">=", 9, lambda sections: None), value=3.0)
    with pytest.raises(SystemExit) as ended:
        benchmark.check([outcome])
    assert ended.value.code == 1
    assert "MISSED        a promise: 3.00, wanted >= 9" in capsys.readouterr().out


def test_sigterm_ends_as_ctrl_c_does():
    with pytest.raises(Interrupted):
        benchmark._stop(signal.SIGTERM, None)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_a_device_that_is_not_there(tmp_path):
    with pytest.raises(ValueError, match="--device cuda is not available"):
        run(tmp_path / "out", "--device", "cuda")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "options",
    [
        ["--what", "coffee"],
        ["--threads", "0"],
        ["--batch", "-1"],
        ["--repeats", "0"],
        ["--dtype", "int8"],
        ["--device", "tpu"],
        ["--sizes", "640"],
        ["--sizes", "641x360"],
        ["--sizes", "16x16"],
        ["--sizes", "100000x100000"],
        ["--workers", "many"],
    ],
)
def test_wrong_options_end_with_one_line(options, capsys):
    with pytest.raises(SystemExit) as ended:
        benchmark.main(options)
    assert ended.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_an_output_that_is_a_file(tmp_path):
    (tmp_path / "file").write_text("x", encoding="utf-8")
    with pytest.raises(InputError, match="cannot be made a folder .File exists.: name another"):
        run(tmp_path / "file")
