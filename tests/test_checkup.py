import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from checkup import check_prepared, findings_csv
from datasets.check.findings import KINDS, Finding
from errors import InputError
from tests.scenes import write_scenes

PROJECT = Path(__file__).resolve().parent.parent
PROGRAM = PROJECT / "tools" / "check_dataset.py"


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    return write_scenes(tmp_path_factory.mktemp("data") / "mine")


@pytest.fixture
def root(scenes, tmp_path):
    return shutil.copytree(scenes, tmp_path / "mine")


def check(root, **choices):
    return check_prepared(root.name, root.parent, workers=1, **choices)


def run(*arguments, **choices):
    return subprocess.run(
        [sys.executable, str(PROGRAM), *map(str, arguments)],
        capture_output=True,
        text=True,
        **choices,
    )


def test_a_clean_data_set_gets_a_clean_bill(root, capsys):
    checkup = check(root, strict=True)
    lines = capsys.readouterr().out.splitlines()
    assert (checkup.findings, checkup.errors, checkup.warnings) == ([], 0, 0)
    assert lines[-1] == "verdict: nothing wrong was found"
    assert "train        4        80     50.0%        2        2" in lines
    assert {path.name for path in (root / "check").iterdir()} == {
        "findings.csv",
        "report.html",
        "summary.json",
    }
    assert (root / "manifest.csv").is_file()


def test_the_summary_counts_and_gives_examples(root, capsys):
    for number in range(3, 9):
        (root / "frames" / f"train_{number % 4}" / f"{number:05d}.jpg").write_bytes(b"")
    check(root)
    lines = capsys.readouterr().out.splitlines()
    assert "error: a frame file has 0 bytes (frame_empty, 4)" in lines
    assert "  and 1 more" in lines
    assert lines[-1] == "verdict: 4 errors and 0 warnings: mend the errors before training"
    summary = json.loads((root / "check" / "summary.json").read_text(encoding="utf-8"))
    assert summary["findings"] == {"frame_empty": 4}
    assert summary["splits"]["train"]["classes"] == {"class 0": 2, "class 1": 2}
    with (root / "check" / "findings.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {row["kind"] for row in rows} == {"frame_empty"}


def test_strict_refuses_errors_and_warnings_after_writing_the_report(root, capsys):
    (root / "poses" / "nobody.npz").write_bytes(b"")
    assert check(root).warnings == 1
    shutil.rmtree(root / "check")
    with pytest.raises(InputError, match="--strict accepts none"):
        check(root, strict=True)
    assert (root / "check" / "report.html").is_file()
    assert "unlisted" in capsys.readouterr().out


def test_the_manifest_is_written_once_and_again_when_asked(root):
    check(root, report=False)
    first = (root / "manifest.csv").read_bytes()
    path = root / "frames" / "train_0" / "00002.jpg"
    data = bytearray(path.read_bytes())
    data[-40] ^= 1
    path.write_bytes(data)
    assert [f.kind for f in check(root, report=False, verify=True).findings] == ["manifest_changed"]
    assert (root / "manifest.csv").read_bytes() == first
    assert check(root, report=False).findings == []
    check(root, report=False, update_manifest=True)
    assert check(root, report=False, verify=True).findings == []


def test_with_output_nothing_is_written_into_the_data_set(root, tmp_path):
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    check(root, output=tmp_path / "elsewhere" / "here")
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before
    written = {path.name for path in (tmp_path / "elsewhere" / "here").iterdir()}
    assert written == {"findings.csv", "summary.json", "report.html", "manifest.csv"}


def test_no_report_leaves_the_old_one_out(root):
    check(root, report=False)
    assert not (root / "check" / "report.html").exists()


def test_cells_are_no_formulas():
    names = ("=cmd|' /C calc'!A0", "+1", "-1", "@x", "\tx", "plain", 'a,"b"')
    rows = list(
        csv.reader(
            findings_csv([Finding("unlisted", name, name, name) for name in names]).splitlines()
        )
    )
    for name, row in zip(names, rows[1:], strict=True):
        shown = {"p": name, "a": name, "\t": "\\tx"}.get(name[0], f"'{name}")
        assert row[2:5] == [shown] * 3


def test_every_kind_is_in_the_documentation():
    text = (PROJECT / "docs" / "CHECKING.md").read_text(encoding="utf-8")
    table = {line.split("|")[1].strip(" `"): line for line in text.splitlines() if "| `" in line}
    assert set(KINDS) <= set(table)
    for name, kind in KINDS.items():
        assert table[name].split("|")[2].strip() == kind.level


def test_a_data_set_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(InputError, match="is not there"):
        check_prepared("mine", tmp_path)


# ---------------------------------------------------------------- the program


def test_the_program_ends_with_0_and_with_2(root):
    arguments = ("--dataset", "mine", "--dataset_path", root.parent, "--workers", 1)
    done = run(*arguments, "--strict", "--no_report")
    assert (done.returncode, done.stderr) == (0, "")
    (root / "frames" / "train_0" / "00001.jpg").unlink()
    done = run(*arguments, "--no_report", "--no_decode")
    assert (done.returncode, done.stderr) == (0, "")
    done = run(*arguments, "--strict", "--no_report")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "--strict accepts none" in done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_the_program_says_what_it_needs(tmp_path):
    done = run("--dataset_path", tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {tmp_path / 'FRFS'} is not there")
    done = run("--workers", 0)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)


def test_a_worker_that_imports_the_program_loads_no_torch():
    code = (
        f"import sys; sys.path.insert(0, {str(PROJECT)!r}); import tools.check_dataset; "
        "import datasets.check.clip, datasets.check.manifest; print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("False\n", "")


def test_workers_end_when_the_program_is_killed(root):
    psutil = pytest.importorskip("psutil")

    lines = [f"clip_{number} 20 0\n" for number in range(400)]
    for line in lines:
        (root / "frames" / line.split()[0]).symlink_to(root / "frames" / "train_0")
    with (root / "train_videofolder.txt").open("a", encoding="utf-8") as file:
        file.writelines(lines)
    command = [
        sys.executable,
        str(PROGRAM),
        "--dataset",
        "mine",
        "--dataset_path",
        str(root.parent),
    ]
    process = subprocess.Popen([*command, "--workers", "2"], stdout=subprocess.DEVNULL)
    workers = []
    for _ in range(200):
        workers = psutil.Process(process.pid).children(recursive=True)
        if len(workers) >= 3:  # two, and one that keeps count of shared memory
            break
        time.sleep(0.1)
    process.kill()
    process.wait()
    assert workers
    _, left = psutil.wait_procs(workers, timeout=20)
    assert left == []


def test_two_processes_give_the_same_as_one(root):
    (root / "frames" / "train_0" / "00003.jpg").write_bytes(b"")
    for number in range(80):
        shutil.copytree(root / "frames" / "train_0", root / "frames" / f"more_{number}")
    lines = "".join(f"more_{number} 20 0\n" for number in range(80))
    with (root / "train_videofolder.txt").open("a", encoding="utf-8") as file:
        file.write(lines)
    arguments = ("--dataset", "mine", "--dataset_path", root.parent, "--no_report")
    results = []
    for workers in (1, 2):
        done = run(*arguments, "--workers", workers, "--output", root.parent / str(workers))
        assert (done.returncode, done.stderr) == (0, "")
        results.append((root.parent / str(workers) / "findings.csv").read_bytes())
        results.append((root.parent / str(workers) / "manifest.csv").read_bytes())
    assert results[:2] == results[2:]


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGKILL])
def test_stopping_it_leaves_nothing_half_written(root, signum):
    check(root)
    before = {p: p.read_bytes() for p in root.rglob("*") if p.is_file() and "check" in p.parts}
    command = [
        sys.executable,
        str(PROGRAM),
        "--dataset",
        "mine",
        "--dataset_path",
        str(root.parent),
    ]
    for delay in (2.5, 4.5):
        process = subprocess.Popen(
            [*command, "--update_manifest"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        time.sleep(delay)
        process.send_signal(signum)
        error = process.communicate()[1].decode()
        assert process.returncode in (0, -signum, 128 + signum)
        assert "Traceback" not in error
    after = {p: p.read_bytes() for p in before}
    assert set(after) == set(before)
    assert json.loads(after[root / "check" / "summary.json"])["clips"] == 8
    assert check(root, verify=True).findings == []
    assert not [p for p in root.rglob(".*.partial")]
    assert os.path.getsize(root / "manifest.csv") > 1000  # noqa: PTH202
