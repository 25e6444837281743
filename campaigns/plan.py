"""What a cross-validation runs: the training line, the folds, the tests; kept in `plan.json`."""

import argparse
import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import opts
from datasets.clip_table import load_table
from datasets.facts import hash_records
from datasets.folds import Fold, hash_folds, hash_groups
from datasets.opening import DataSource, check_disjoint, open_dataset
from errors import InputError
from files import read_regular, write_json
from options.testing import parse_test_args, parser_of_tests
from options.types import named_options
from reports import plain

PLAN = "plan.json"
_SCRIPTS = ("main.py", "main_only_pose.py")
# What the driver sets for each run.
_OURS = (
    "fold", "seed", "experiment_path", "experiment_name", "resume", "evaluate", "start_epoch",
    "train_list", "val_list", "test_list",
)  # fmt: skip
_OURS_IN_TEST = (
    "weights", "scores", "output", "save_scores", "split", "max_num", "dataset", "fold",
    "fold_seed", "fold_val", "train_list", "val_list", "test_list",
)  # fmt: skip
# What may differ when a cross-validation goes on: it changes no number. Data that have moved are
# known by their lists, folds and groups.
_FREE = frozenset({"workers", "print_freq", "device", "gpus", "dataset_path", "cache_dir"})
_MOST_BYTES = 2**26


@dataclass(frozen=True, slots=True)
class Plan:
    """What a cross-validation runs.

    Attributes:
        script: the training program.
        line: its options as given.
        options: the same, parsed, as JSON values.
        folds: "5", or "groups" to leave one group out at a time.
        count: how many folds that makes.
        test: options of the tests as given.
        last: whether the last epoch is tested instead of the best on val.
        clips: of the data set.
        sha256: of their lines.
        folds_sha256: of the train, val and test lists of every fold.
        groups_sha256: of the group of every clip, by which folds are dealt and intervals drawn.
        tested: for each fold the names of the clips that it tests.
    """

    script: str
    line: tuple[str, ...]
    options: Mapping[str, Any]
    folds: str
    count: int
    test: tuple[str, ...]
    last: bool
    clips: int
    sha256: str
    folds_sha256: str
    groups_sha256: str
    tested: tuple[frozenset[str], ...]

    @property
    def weights(self) -> str:
        """Name of the checkpoint that is tested."""
        return "last.pth.tar" if self.last else "best.pth.tar"

    @property
    def command(self) -> str:
        """The training line, to be shown."""
        return shlex.join([self.script, *self.line])

    def to_json(self) -> dict[str, Any]:
        """Return what tells this plan from another one."""
        options = {name: value for name, value in self.options.items() if name not in _FREE}
        return {
            "script": self.script,
            "folds": self.folds,
            "count": self.count,
            "test": shlex.join(self.test),
            "last": self.last,
            "clips": self.clips,
            "sha256": self.sha256,
            "options": options,
            "folds_sha256": self.folds_sha256,
            "groups_sha256": self.groups_sha256,
        }


def make_plan(line: Sequence[str], folds: str, test: Sequence[str], *, last: bool) -> Plan:
    """Check the training line and the test options, and open the data set.

    Args:
        line: 'main.py --dataset ...' as for a single training; a 'python' in front is left out.
        folds: number of folds, or "groups".
        test: options of test_models.py.
        last: test the last epoch.

    Raises:
        InputError: the line is none, names what the folds set, or the data set has no such folds.
        SystemExit: 2, when a program does not accept its options.
    """
    script, options = _split_line(line)
    args = _parse_training(script, options)
    _parse_test(test)
    source, first = _open_fold(args, 1, folds)
    # All are dealt before hours are spent on the first ones.
    rest = (_open_fold(args, number, folds)[1] for number in range(2, first.count + 1))
    dealt = [first, *rest]
    found = {record for split in first.records.values() for record in split}
    records = sorted(found, key=lambda r: r.name)
    if args.fold_val == 0 and not last:
        raise InputError(
            "--fold_val 0 keeps no clips to choose the best epoch by: add --last before the --"
        )
    return Plan(
        script, tuple(options), plain(vars(args)), folds, first.count, tuple(test), last,
        len(records), hash_records(records), hash_folds(dealt),
        hash_groups(load_table(source.root), records),
        tuple(frozenset(record.name for record in fold.records["test"]) for fold in dealt),
    )  # fmt: skip


def _open_fold(args: argparse.Namespace, number: int, folds: str) -> tuple[DataSource, Fold]:
    """Return the data set that the training line names, and a fold of it.

    Raises:
        InputError: there is none such, or it shares clips, contents or groups.
    """
    options = argparse.Namespace(**{**vars(args), "fold": f"{number}/{folds}"})
    source = open_dataset(options)
    check_disjoint(source, options)
    if source.fold is None:
        raise ValueError("a data set opened with a fold has one")
    return source, source.fold


def _split_line(line: Sequence[str]) -> tuple[str, list[str]]:
    words = list(line)
    if words and Path(words[0]).name.startswith("python"):
        words = words[1:]
    if not words or Path(words[0]).name not in _SCRIPTS:
        what = repr(words[0]) if words else "nothing"
        raise InputError(
            f"after -- comes {what}: write the training line, as in -- main_only_pose.py "
            "--dataset synthetic --epochs 30"
        )
    return Path(words[0]).name, words[1:]


def _parse_training(script: str, options: Sequence[str]) -> argparse.Namespace:
    is_pose = script == "main_only_pose.py"
    named = named_options(opts.train_parser("pose" if is_pose else "none"), options)
    ours = sorted(named & set(_OURS))
    if ours:
        raise InputError(
            f"the training line says --{ours[0]}, which each run of a cross-validation gets anew: "
            "leave it out"
        )
    # The parsers need a fold to accept options of folds.
    parse = opts.parse_pose_train_args if is_pose else opts.parse_train_args
    return parse([*options, "--fold", "1/groups"])


def _parse_test(test: Sequence[str]) -> None:
    args = parse_test_args(["--weights", "best.pth.tar", *test])
    ours = sorted(args.given & set(_OURS_IN_TEST) - {"weights"})
    if ours or list(test).count("--weights"):
        raise InputError(
            f"--test says --{ours[0] if ours else 'weights'}, which each test of a "
            "cross-validation gets anew: leave it out"
        )


def begin(output: Path, plan: Plan) -> None:
    """Write the plan, or make sure that the folder holds this one.

    Raises:
        InputError: it holds another one, or files of something else.
    """
    path = output / PLAN
    if not path.exists():
        foreign = next((p for p in sorted(output.iterdir()) if not p.name.startswith(".")), None)
        if foreign is not None:
            raise InputError(
                f"--output {output} holds {foreign.name} and no {PLAN}: name a new folder, or that "
                "of the cross-validation to go on with"
            )
        write_json(path, plan.to_json())
        return
    then, now = _flat(_read_plan(path)), _flat(json.loads(json.dumps(plan.to_json())))
    for name, value in now.items():
        if then.get(name) != value:
            raise InputError(
                f"{output} was begun with {_WORDS.get(name, name)} {then.get(name, 'not noted')}, "
                f"this command has {value}: give the same again to go on, or another --output"
            )


def _flat(plan: Mapping[str, Any]) -> dict[str, Any]:
    """Return a plan with its options among the other fields, called as on the command line."""
    flat: dict[str, Any] = {}
    for name, value in plan.items():
        if name == "options" and isinstance(value, dict):
            flat |= {f"--{option}": its for option, its in value.items()}
        else:
            flat[name] = value
    return flat


_WORDS = {
    "folds": "--folds",
    "count": "folds in number",
    "test": "--test",
    "last": "--last",
    "clips": "clips in number",
    "sha256": "clip lists of SHA-256",
    "folds_sha256": "folds (clips.csv or the lists in folds/) of SHA-256",
    "groups_sha256": "groups (clips.csv) of SHA-256",
}


def _read_plan(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(read_regular(path, _MOST_BYTES))
    except (OSError, ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise InputError(f"{path} is damaged: name another --output, or remove that folder")
    return value


def may_overlap(plan: Plan) -> bool:
    """Say whether the clips of a test may be in the other lists of its fold."""
    given = named_options(parser_of_tests(), ["--weights", "x", *plan.test])
    return bool(plan.options["allow_overlap"]) or "allow_overlap" in given
