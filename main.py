"""Train a clip classifier on RGB: alone, with early or with late pose fusion.

python main.py --dataset synthetic --arch resnet18 --width 32 --gsf --early_fusion_poses
    --pretrained none --optimizer adamw --lr 0.003 --epochs 6 --warmup 1
"""

from collections.abc import Sequence

import opts
import session
from errors import run_script


def main(argv: Sequence[str] | None = None) -> float:
    """Train, evaluate after every epoch, and return the best validation top-1 (0 to 1)."""
    return session.train(opts.parse_train_args(argv))


if __name__ == "__main__":
    run_script(main)
