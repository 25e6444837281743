"""`tools/cross_validate.py` with training and test programs that take no time.

They lie in the folder that FAKE_PROGRAMS names, see `write_programs`. A training of three epochs
saves after each; a test writes scores that seed and fold decide.
"""

import os
from pathlib import Path

from campaigns import children
from tools import cross_validate

TRAIN = """
import json, sys, time
from pathlib import Path
argv = sys.argv[1:]
value = lambda name: argv[argv.index(name) + 1]
place = Path(value("--experiment_path"))
seed, fold = int(value("--seed")), value("--fold")
print("training", seed, fold, flush=True)
if (place / "fail").exists():
    sys.exit("error: no space left | for <this> run")
if "--resume" in argv:
    last = Path(value("--resume"))
    state = json.loads(last.read_text())
    assert state["seed"] == seed and state["fold"] == fold
else:
    last = place / "experiments" / "d" / "a" / f"{time.time_ns()}_run" / "last.pth.tar"
    last.parent.mkdir(parents=True)
    state = {"epoch": 0, "seed": seed, "fold": fold}
while state["epoch"] < 3:
    time.sleep(float(argv[argv.index("--lr") + 1]))
    state["epoch"] += 1
    last.with_name("x").write_text(json.dumps(state))
    last.with_name("x").replace(last)
    last.with_name("best.pth.tar").write_text(json.dumps(state))
with (place / "ended.txt").open("a") as file:
    file.write("x")
"""
TEST = """
import json, sys
from pathlib import Path
import numpy as np
weights = Path(sys.argv[sys.argv.index("--weights") + 1])
state = json.loads(weights.read_text())
assert state["epoch"] == 3
fold, count = (int(word) for word in state["fold"].split("/"))
clips = [f"c{n:02}" for n in range(12) if n % count == fold - 1]
labels = np.array([int(clip[1:]) // 6 for clip in clips])
scores = np.random.default_rng([state["seed"], fold]).normal(size=(len(clips), 2))
scores[np.arange(len(clips)), labels] += 1
values = dict(clips=np.array(clips), labels=labels, scores=scores,
              classes=np.array(["class 0", "class 1"]), kind=np.array("logits"),
              split=np.array("test"), groups=np.array([f"g{clip[-1]}" for clip in clips]))
with weights.with_name("y").open("wb") as file:
    np.savez(file, **values)
weights.with_name("y").replace(weights.with_name("scores_test.npz"))
"""


def write_programs(folder: Path) -> Path:
    folder.mkdir()
    (folder / "main_only_pose.py").write_text(TRAIN, encoding="utf-8")
    (folder / "test_models.py").write_text(TEST, encoding="utf-8")
    return folder


def main(argv):
    children.ROOT = Path(os.environ["FAKE_PROGRAMS"])
    cross_validate.main(argv)
