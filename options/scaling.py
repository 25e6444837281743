"""Options of several processes, of the effective batch, and of what may go wrong in a training."""

import argparse

from options.types import natural, non_negative_real, positive, positive_real

# Clips of a step for which the published learning rate of 0.01 holds: 4 x 2.
PUBLISHED_BATCH = 8
# What `--auto_scale_lr` is without a number, until the parser knows the recipe.
AS_PUBLISHED = 0
# Seconds.
WORKER_TIMEOUT, RANK_TIMEOUT = 60.0, 600.0


def add_scaling_options(parser: argparse.ArgumentParser) -> None:
    """The effective batch, and the processes of torchrun that share it."""
    group = parser.add_argument_group(
        "effective batch and processes",
        "torchrun shares the --iter_size forward passes of a step among its processes: batches and "
        "results do not depend on how many there are",
    )
    group.add_argument(
        "--auto_scale_lr",
        type=positive,
        nargs="?",
        const=AS_PUBLISHED,
        metavar="CLIPS",
        help="multiply --lr by effective batch / CLIPS; without a number CLIPS is "
        f"that of --recipe, else {PUBLISHED_BATCH}, the batch of the published command lines",
    )
    group.add_argument(
        "--micro_batch",
        type=positive,
        metavar="CLIPS",
        help="most clips in one forward pass of training; the effective batch stays, batch norm "
        "sees fewer clips; with too little memory it is halved by itself",
    )
    group.add_argument(
        "--gradient_sum",
        choices=("auto", "ordered", "fast"),
        default="auto",
        help="how processes add up their gradients: 'ordered' as one process does, with the same "
        "bits for any number of them and more traffic; 'fast' while they are computed; auto: "
        "ordered on CPUs",
    )
    group.add_argument(
        "--sync_bn",
        action="store_true",
        help="batch norm over all --batch-size clips of a forward pass where more processes than "
        "--iter_size cut it",
    )
    add_waiting_options(group)


def add_waiting_options(group: argparse._ActionsContainer) -> None:
    """How long processes wait for each other."""
    group.add_argument(
        "--worker_timeout",
        type=non_negative_real,
        default=WORKER_TIMEOUT,
        metavar="SECONDS",
        help="a loader process that stands still so long ends the program, with the name of its "
        "clip; 0: never",
    )
    group.add_argument(
        "--rank_timeout",
        type=positive_real,
        default=RANK_TIMEOUT,
        metavar="SECONDS",
        help="processes of torchrun wait so long for one another",
    )


def add_fault_options(parser: argparse.ArgumentParser) -> None:
    """What is saved when, and what may be left out."""
    group = parser.add_argument_group("saving and faults")
    group.add_argument(
        "--save_every_minutes",
        type=non_negative_real,
        default=5.0,
        metavar="MINUTES",
        help="longest time between two checkpoints, also within an epoch; 0: after every step",
    )
    group.add_argument(
        "--skip_nonfinite",
        type=natural,
        default=0,
        metavar="STEPS",
        help="leave out up to so many steps of a run whose loss or gradient is not finite; each is "
        "written to nonfinite.jsonl with its clips",
    )
