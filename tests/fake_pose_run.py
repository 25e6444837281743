"""preprocess_pose.py with an estimator that sleeps instead of computing, for tests of faults.

Usage: fake_pose_run.py SECONDS_PER_FRAME [options of preprocess_pose.py]
"""

import os
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import preprocess_pose
from errors import InputError, run_script
from ops.people import Detections


class SleepingEstimator:
    """Finds one person whose joints say how bright the frame is."""

    name, version, weights, weights_hash = "fake", "1", "none.pt", "0" * 64

    def __init__(self, seconds):
        self.seconds = seconds

    def detect(self, frames):
        time.sleep(self.seconds * len(frames))
        return [one_person(frame) for frame in frames]


def one_person(frame):
    grey = float(frame.mean())
    if grey > 250:
        raise InputError("a frame is too bright for this estimator")
    joints = np.full((1, 17, 3), (5 + grey / 50, 6, 0.5), np.float32)
    joints[0, :, 0] += np.arange(17)
    box = np.array([[4, 4, 30, 30]], np.float32)
    return Detections(box, np.array([0.9], np.float32), joints)


def main(argv):
    seconds = float(argv[0])
    preprocess_pose.build_estimator = lambda name, opts: SleepingEstimator(seconds)
    if wait := float(os.environ.get("SECONDS_BEFORE_PLAN", "0")):
        plan = preprocess_pose.plan_poses
        preprocess_pose.plan_poses = lambda *given: (time.sleep(wait), plan(*given))[1]
    preprocess_pose.main([*argv[1:], "--no_check"])


if __name__ == "__main__":
    run_script(lambda: main(sys.argv[1:]))
