"""Train a clip classifier on skeletons alone; no frame is read.

python main_only_pose.py --dataset synthetic --optimizer adamw --lr 0.001 --epochs 30
"""

from collections.abc import Sequence

import opts
import session
from errors import run_script


def main(argv: Sequence[str] | None = None) -> float:
    """Train, evaluate after every epoch, and return the best validation top-1 (0 to 1)."""
    return session.train(opts.parse_pose_train_args(argv))


if __name__ == "__main__":
    run_script(main)
