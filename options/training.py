"""The options of training: initial weights, optimisation, the run."""

import argparse
from pathlib import Path

from options.recipes import RECIPES
from options.types import natural, non_negative_real, positive, positive_real, probability


def add_start_options(parser: argparse.ArgumentParser) -> None:
    """Where the weights come from."""
    group = parser.add_argument_group("initial weights")
    group.add_argument(
        "--pretrained",
        default="imagenet",
        help="backbone weights: imagenet, none, or a file in torchvision's naming",
    )
    group.add_argument(
        "--checkpoint_path",
        type=Path,
        help="checkpoint for the two options below: a file, or the name of published weights of a "
        "skeleton model",
    )
    group.add_argument(
        "--stream_checkpoints",
        type=Path,
        nargs=2,
        metavar=("RGB", "POSE"),
        help="of --rgbpose_conv3d: start from these, trained with --rgbpose_streams rgb and pose",
    )
    start = group.add_mutually_exclusive_group()
    start.add_argument(
        "--finetune",
        action="store_true",
        help="start from --checkpoint_path; the classifier is new when the classes differ",
    )
    start.add_argument(
        "--feature_extractor",
        action="store_true",
        help="start from --checkpoint_path and train the classifier alone",
    )


def add_optim_options(parser: argparse.ArgumentParser) -> None:
    """How the weights change. Defaults are the published recipe."""
    group = parser.add_argument_group("optimisation")
    group.add_argument(
        "--recipe",
        choices=tuple(RECIPES),
        help="settings of a skeleton model as published, or small: ours for some hundred clips; as "
        "defaults of all other options",
    )
    group.add_argument(
        "--epochs",
        type=positive,
        default=120,
        help="epochs to train, each --repeat times through the training list",
    )
    group.add_argument(
        "--repeat",
        type=positive,
        default=1,
        help="times that an epoch goes through the training list; recipes: 5 or 10, as published",
    )
    group.add_argument(
        "--balanced_sampling",
        action="store_true",
        help="let every class have equally many clips in an epoch: those of rare classes come "
        "again, with other random changes",
    )
    group.add_argument(
        "-b", "--batch-size", type=positive, default=4, help="clips per forward pass"
    )
    group.add_argument(
        "--iter_size",
        type=positive,
        default=2,
        help="forward passes per step: the effective batch is batch-size x iter_size",
    )
    group.add_argument("--optimizer", choices=("sgd", "adamw"), default="sgd", help="method")
    group.add_argument(
        "--lr", "--learning-rate", type=positive_real, default=0.01, help="peak rate"
    )
    group.add_argument("--momentum", type=probability, default=0.9, help="of SGD")
    group.add_argument(
        "--nesterov",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="Nesterov's momentum in SGD",
    )
    group.add_argument(
        "--lr_schedule",
        choices=("cosine", "cosine_step", "multistep"),
        default="cosine",
        help="after the warm-up: half a cosine by epochs or by steps, or a tenth at each of "
        "--lr_steps",
    )
    group.add_argument("--lr_steps", type=positive, nargs="+", help="epochs of multistep")
    group.add_argument(
        "--decay",
        choices=("weights", "all"),
        default="weights",
        help="what --weight-decay is on: weights alone, or norms and biases, too",
    )
    group.add_argument(
        "--weight-decay",
        "--wd",
        type=non_negative_real,
        default=5e-4,
        help="how much weights decay, see --decay",
    )
    group.add_argument("--warmup", type=natural, default=10, help="epochs of linear warm-up")
    group.add_argument(
        "--clip-gradient",
        "--gd",
        type=positive_real,
        default=20.0,
        help="largest norm of the whole gradient",
    )
    group.add_argument("--with_amp", action="store_true", help="automatic mixed precision")
    group.add_argument(
        "--amp_dtype",
        choices=("fp16", "bf16"),
        help="of --with_amp; default fp16 on CUDA, bf16 elsewhere",
    )
    group.add_argument(
        "--label_smoothing",
        type=probability,
        default=0.0,
        help="share of the target that all classes have in equal parts",
    )
    group.add_argument(
        "--class_weights",
        choices=("none", "balanced"),
        default="none",
        help="weight the loss by the inverse class frequency",
    )


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """Where results go, how often, and how to continue."""
    group = parser.add_argument_group("run")
    group.add_argument(
        "--experiment_path", type=Path, default=Path(), help="runs go to <this>/experiments/"
    )
    group.add_argument(
        "--experiment_name", default="run", help="last part of the run folder's name"
    )
    group.add_argument(
        "--resume",
        help="last.pth.tar of a run to continue exactly; 'auto': the newest run of this name that "
        "is not finished, or a new one; 'none': a new one. By default the newest unfinished one of "
        "this name with the same options, or a new one",
    )
    group.add_argument("--start-epoch", type=natural, help="count epochs from here, not from 0")
    group.add_argument(
        "-e", "--evaluate", action="store_true", help="only evaluate --resume on the val list"
    )
    group.add_argument("-p", "--print-freq", type=positive, default=20, help="steps between lines")
    group.add_argument(
        "-ef", "--eval-freq", type=positive, default=1, help="epochs between evaluations"
    )
