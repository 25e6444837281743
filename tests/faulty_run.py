"""Training programs in which something goes wrong at a chosen moment, for tests of faults.

PLANTS in the environment is a JSON list of {"at", "nth", "what"}, maybe with "rank" (that process
alone) and "when" ("before", the default, or "after"): at the nth call of one of `PLACES`, `what`
happens: a signal (TERM, INT, USR1, KILL), or one of `DEEDS`. PROGRAM names the program.
"""

import importlib
import json
import os
import signal
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import assembly
import checkpoints
import engine
import main as train_main
import main_only_pose
import reports
import session
import starts
import steps
import test_models as test_main
from datasets.clips import ClipDataset
from datasets.skeletons import SkeletonDataset
from errors import run_script

PLACES = {
    "build": (starts, "build_model"),
    "compile": (assembly, "tune_network"),
    "data": (SkeletonDataset, "__getitems__"),
    "sample": (ClipDataset, "__getitem__"),
    "forward": (steps, "_loss"),
    "step": (engine, "take_step"),
    "optimizer": (torch.optim.SGD, "step"),
    "evaluate": (session, "evaluate"),
    "save": (checkpoints.CheckpointFolder, "save_last"),
    "save_best": (checkpoints.CheckpointFolder, "save_best"),
    "fsync": (os, "fsync"),
    "replace": (Path, "replace"),
    "record": (reports.EpochLog, "record"),
    "scalar": (reports.SummaryWriter, "add_scalar"),
}
PROGRAMS = {"pose": main_only_pose, "rgb": train_main, "test": test_main}


def half_a_line(log, epoch, values):
    """Be killed while a line is written: half of it is in the file."""
    line = json.dumps({"epoch": epoch, **values})
    with log._path.open("a", encoding="utf-8") as file:
        file.write(line[: len(line) // 2])
        file.flush()
    os.kill(os.getpid(), signal.SIGKILL)


def fail(*_):
    raise RuntimeError("this process fails")


def hang(*_):
    time.sleep(600)


def lack_memory(*_):
    raise torch.OutOfMemoryError("CUDA out of memory (planted)")


DEEDS = {"half a line": half_a_line, "fail": fail, "hang": hang, "oom": lack_memory}


def happens(what, arguments):
    if what in DEEDS:
        DEEDS[what](*arguments)
    else:
        os.kill(os.getpid(), getattr(signal, f"SIG{what}"))


def plant(order):
    owner, name = PLACES[order["at"]]
    original, calls = getattr(owner, name), [0]
    what, when = order["what"], order.get("when", "before")

    def wrapped(*arguments, **options):
        calls[0] += 1
        is_now = calls[0] == order.get("nth", 1)
        if is_now and what == "nan":
            return original(*arguments, **options) * torch.nan
        if is_now and when == "before":
            happens(what, arguments)
        result = original(*arguments, **options)
        if is_now and when == "after":
            happens(what, arguments)
        return result

    setattr(owner, name, wrapped)


def spoil_gradient(order):
    """Let the loss be finite and its gradient not."""

    def loss(original, *arguments):
        result = original(*arguments)
        # The root of 0 has an infinite slope: 0 x inf is NaN.
        return result + (result.detach() * 0 + (result - result)).sqrt()

    original, calls = steps._loss, [0]

    def wrapped(*arguments):
        calls[0] += 1
        is_now = calls[0] == order.get("nth", 1)
        return loss(original, *arguments) if is_now else original(*arguments)

    steps._loss = wrapped


def main(argv):
    for order in json.loads(os.environ.get("PLANTS", "[]")):
        if order.get("rank", int(os.environ.get("RANK", "0"))) != int(os.environ.get("RANK", "0")):
            continue
        if order["what"] == "nan gradient":
            spoil_gradient(order)
        else:
            plant(order)
    program = PROGRAMS[os.environ.get("PROGRAM", "pose")]
    return program.main(argv)


if __name__ == "__main__":
    run_script(lambda: importlib.import_module("tests.faulty_run").main(sys.argv[1:]))
