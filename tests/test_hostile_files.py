"""Files that attack: nothing of them is run, nothing waits, nothing reaches the network.

RELIABILITY numbers 12, 21 and 28.
"""

import importlib.util
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.fuzzing import Player
from benchmarks.hostile_files import hostile_files, onnx_files, pickles
from errors import InputError
from tests.making_models import write_checkpoint

ROOT = Path(__file__).resolve().parent.parent
PLENTY = 15.0  # seconds; machines that run tests may be busy
DEAR = 10  # readers that start a process get every so many of the files

_UNSAFE = """
import pickle, sys, time
from pathlib import Path
sys.path.insert(0, {root!r})
from benchmarks.hostile_files import pickles
canary = Path(sys.argv[1])
for name, data in pickles(canary).items():
    try:
        pickle.loads(data)
    except Exception as error:
        pass
    end = time.monotonic() + 10
    while not canary.exists() and time.monotonic() < end:
        time.sleep(0.01)
    print(name if canary.exists() else f"NOT {{name}}")
    canary.unlink(missing_ok=True)
"""


@pytest.fixture(scope="module")
def player(tmp_path_factory):
    return Player(tmp_path_factory.mktemp("hostile"), seed=0, seconds=PLENTY)


def test_there_are_enough_and_they_do_run_where_pickle_is_trusted(tmp_path):
    """A payload that could not run would prove nothing."""
    canary = tmp_path / "canary"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _UNSAFE.format(root=str(ROOT)), str(canary)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    found = done.stdout.split("\n")
    assert [line for line in found if line.startswith("NOT")] == []
    assert len(found) - 1 == len(pickles(canary)) >= 40, done.stderr
    assert len(dict(hostile_files(canary))) >= 100
    assert len(dict(onnx_files(canary))) >= 5
    assert not canary.exists()  # making them runs none


def test_no_reader_runs_a_hostile_file(player):
    faults = []
    for number, target in enumerate(player.targets):
        for hostile in range(0, len(player.hostile), DEAR if target.cost > 20 else 1):
            case = (number, -1 - hostile)
            outcome, what, _, _ = player.play(case)
            if outcome not in ("read", "refused"):
                faults.append(f"{player.name(case)}: {what}")
    assert faults == []


def socket_at(path: Path) -> None:
    os.mknod(path, 0o140600)


SPECIAL = {
    "pipe": os.mkfifo,
    "socket": socket_at,
    "endless device": lambda path: path.symlink_to("/dev/zero"),
    "terminal": lambda path: path.symlink_to("/dev/tty"),
    "link to itself": lambda path: path.symlink_to(path),
    "link to nothing": lambda path: path.symlink_to(path.parent / "nothing"),
    "folder": lambda path: path.mkdir(),
    "memory": lambda path: path.symlink_to("/proc/self/mem"),
}


@pytest.mark.parametrize("kind", SPECIAL)
def test_no_reader_waits_for_a_pipe_or_drains_a_device(player, kind):
    for target in player.targets:
        target.path.unlink(missing_ok=True)
        SPECIAL[kind](target.path)
        try:
            assert player.read(target)[0] in ("read", "refused"), target.name
        finally:
            is_folder = target.path.is_dir() and not target.path.is_symlink()
            target.path.rmdir() if is_folder else target.path.unlink()
            target.path.write_bytes(target.seeds[0])


# ---------------------------------------------------------------- through the programs


@pytest.fixture(scope="module")
def evil(tmp_path_factory):
    """Return a folder of the payloads that could be checkpoints, and the canary."""
    folder = tmp_path_factory.mktemp("evil")
    canary = folder / "canary"
    wanted = ("os.system", "torch legacy", "torch zip", "torch zip, as a checkpoint", "torch tar")
    made = dict(hostile_files(canary))
    for number, name in enumerate(wanted):
        (folder / f"{number}.pth.tar").write_bytes(made[name])
    for suffix, name in ((".npz", "npz of objects"), (".csv", "os.system"), (".pkl", "os.system")):
        (folder / f"x{suffix}").write_bytes(made[name])
    for number, (_, data) in enumerate(onnx_files(canary)):
        (folder / f"{number}.onnx").write_bytes(data)
    return folder


def refusal(run, *arguments) -> str:
    """Return the one line by which a program refuses its input."""
    with pytest.raises(InputError) as caught:
        run([str(argument) for argument in arguments])
    return str(caught.value)


def test_programs_refuse_hostile_models(evil, dataset, tmp_path):
    import main
    import predict
    import test_models
    from tools import export

    data = ("--dataset", "FRFS", "--dataset_path", dataset.parent, "-j", "0", "--batch-size", "2")
    small = (*data, "--experiment_path", tmp_path, "--num_segments", "3", "--input_size", "32")
    for path in [*evil.glob("*.pth.tar"), *evil.glob("*.onnx")]:
        assert str(path) in refusal(predict.main, "--weights", path, "--source", "x.mp4")
    for path in evil.glob("*.pth.tar"):
        finetune = ("--pretrained", "none", "--finetune", "--checkpoint_path")
        for wish in (("--resume",), ("--pretrained",), finetune):
            assert str(path) in refusal(main.main, *small, *wish, path)
        assert str(path) in refusal(test_models.main, *data, "--weights", path)
        assert str(path) in refusal(export.main, "--weights", path, "--output", tmp_path / "out")
    assert not (evil / "canary").exists()


def test_programs_refuse_hostile_scores_and_keypoints(evil, dataset, tmp_path):
    from tools import ensemble_scores, import_poses

    for path in (evil / "x.npz", evil / "x.csv"):
        other = tmp_path / path.name
        shutil.copy(path, other)
        assert str(path) in refusal(ensemble_scores.main, path, other)
    import_to = ("--dataset", "FRFS", "--dataset_path", dataset.parent)
    for suffix, kind in ((".pkl", "pyskl"), (".npz", "npz")):
        source = evil / f"x{suffix}"
        with pytest.raises((InputError, SystemExit)):
            import_poses.main(
                ["--format", kind, "--source", str(source), *map(str, import_to), "--overwrite"]
            )
    assert not (evil / "canary").exists()


@pytest.mark.parametrize("name", ["torchvision", "ultralytics"])
def test_estimators_refuse_hostile_weights(evil, name, tmp_path):
    if importlib.util.find_spec(name) is None:  # importing it here would change how it loads
        pytest.skip(f"{name} is not installed")
    from models.pose_torchvision import TorchvisionPose
    from models.pose_ultralytics import UltralyticsPose

    kind = {"torchvision": TorchvisionPose, "ultralytics": UltralyticsPose}[name]
    for number, path in enumerate(sorted(evil.glob("*.pth.tar"))):
        copy = tmp_path / f"{number}-pose.pt"
        copy.write_bytes(path.read_bytes())
        with pytest.raises(InputError, match=copy.name) as caught:
            kind(copy)
        assert len(str(caught.value).splitlines()) == 1
    assert not (evil / "canary").exists()


def test_a_program_ends_with_2_and_one_line(evil, tmp_path):
    done = subprocess.run(
        [sys.executable, ROOT / "predict.py", "--weights", evil / "0.pth.tar", "--source", "x"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert "Traceback" not in done.stderr
    assert not (evil / "canary").exists()


# ---------------------------------------------------------------- network


_WATCH = """
import socket, sys
def watch(event, arguments):
    is_far = event == "socket.getaddrinfo" or (
        event in ("socket.connect", "socket.bind", "socket.sendto")
        and isinstance(arguments[1], tuple)
    )
    if is_far or event in ("socket.gethostbyname", "urllib.Request"):
        with open({log!r}, "a") as file:
            file.write(f"{{event}} {{arguments}}\\n")
        raise OSError("no network")
sys.addaudithook(watch)
"""
_ROUND = """
import sys
sys.path.insert(0, {root!r})
import main_only_pose, test_models, predict
from tools import check_dataset, compare_runs, export
data = ["--dataset", "FRFS", "--dataset_path", {data!r}]
run = [*data, "--experiment_path", {runs!r}, "--epochs", "1", "-j", "0", "--batch-size", "2"]
main_only_pose.main([*run, "--num_segments", "3"])
check_dataset.main([*data, "--output", {runs!r} + "/check"])
export.main(["--weights", {model!r}, "--output", {runs!r} + "/model"])
print("whole")
"""


def test_nothing_reaches_the_network_unless_it_is_asked_to(dataset, tmp_path):
    """The hook is in every process that is started, also in those that these start."""
    log = tmp_path / "calls"
    (tmp_path / "hook").mkdir()
    (tmp_path / "hook" / "sitecustomize.py").write_text(_WATCH.format(log=str(log)))
    model = write_checkpoint(tmp_path / "m" / "best.pth.tar", "pose")
    places = {"data": dataset.parent, "runs": tmp_path / "runs", "model": model, "root": ROOT}
    code = _ROUND.format(**{name: str(place) for name, place in places.items()})
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "hook"), "OMP_NUM_THREADS": "1"},
    )
    assert "whole" in done.stdout, done.stdout + done.stderr
    assert not log.exists()


def test_the_watch_of_the_network_sees_a_call(tmp_path):
    log = tmp_path / "calls"
    code = _WATCH.format(log=str(log)) + "socket.create_connection(('127.0.0.1', 9))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "no network" in done.stderr
    assert "getaddrinfo" in log.read_text()


def test_no_file_of_ours_unpickles_or_loads_yaml_unsafely():
    """Words that would let a file run; the one unpickler has a list of what it may ask for."""
    words = ("pickle.load", "allow_pickle=True", "weights_only=False", "yaml.load", "eval(",
             "joblib.load", "shelve.open", "marshal.load", "torch.jit.load")  # fmt: skip
    allowed = {ROOT / "benchmarks" / "hostile_files.py"}
    folders = ("tests", ".venv", "build")
    for path in ROOT.rglob("*.py"):
        if path.relative_to(ROOT).parts[0] in folders or path in allowed:
            continue
        text = path.read_text(encoding="utf-8")
        found = [word for word in words if word in text.replace(".eval(", "")]
        assert found == [], path
    assert pickle.HIGHEST_PROTOCOL >= 5
