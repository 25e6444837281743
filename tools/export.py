"""Make a model folder of a checkpoint, and check that it says what the checkpoint says.

python tools/export.py --weights <run folder>/best.pth.tar --output model
python tools/export.py --weights published.pth --arch resnet18 --gsf --num_segments 16 \
    --class_names no_fall fall --output model
"""

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import assembly  # noqa: E402
from console import say, warn  # noqa: E402
from datasets.loading import build_eval_loader  # noqa: E402
from deployment.config import KEPT_OPTIONS, ModelConfig  # noqa: E402
from deployment.folder import (  # noqa: E402
    CARD,
    CONFIG,
    ONNX,
    WEIGHTS,
    find_model,
    new_model_folder,
    refuse_existing,
    write_config,
    write_weights,
)
from deployment.hub import push_folder  # noqa: E402
from deployment.model_card import TestResult, model_card, read_result  # noqa: E402
from deployment.networks import TorchNetwork, load_network  # noqa: E402
from deployment.onnx_export import OPSET, example_batch, export_onnx  # noqa: E402
from deployment.rescore import Agreement, rescore  # noqa: E402
from errors import InputError, run_script  # noqa: E402
from files import write_text  # noqa: E402
from machine import prepare_cpu  # noqa: E402
from models.downloads import published_entry, resolve_weights  # noqa: E402
from models.reading import is_ours  # noqa: E402
from models.weights import checkpoint_options, read_checkpoint  # noqa: E402
from ops.batch import Batch  # noqa: E402
from options.exporting import (  # noqa: E402
    describe_foreign,
    parse_export_args,
    refuse_contradictions,
)
from options.shards import is_folder_of_shards  # noqa: E402
from opts import SOURCE_OPTIONS  # noqa: E402
from results.run_results import describe  # noqa: E402

FILES = {"safetensors": WEIGHTS, "onnx": ONNX}
# Clips that are loaded at once.
_LOADED = 8


def main(argv: Sequence[str] | None = None) -> Path:
    """Export, check, and return the model folder."""
    args = parse_export_args(argv)
    args.weights = find_weights(args)
    output = args.output or default_output(args.weights)
    refuse_existing(output, args.overwrite)
    prepare_cpu(args.threads)
    network = load(args)
    result = find_result(args, network.config)
    say(
        f"{args.weights}: {describe(network.config.options)}, {len(network.config.classes)} classes"
    )
    batches, what = find_clips(args, network.config)
    with new_model_folder(output, args.overwrite) as folder:
        files = write_files(folder, network, args.formats)
        checks = check_files(folder, files, network, batches, what, args.tolerance)
        sizes = {file: (folder / file).stat().st_size for file in files}
        card = model_card(
            network.config,
            name=args.name or default_name(args.weights),
            licence=args.license,
            result=result,
            checks=checks,
            sizes=sizes,
        )
        write_text(folder / CARD, card)
    say(f"wrote {output}: {', '.join([*files, CONFIG, CARD])}")
    if args.push_to_hub is not None:
        sent = [*files, CONFIG, CARD]
        say(f"sent to {push_folder(output, sent, args.push_to_hub, private=args.private)}")
    return output


# ---------------------------------------------------------------- what is exported


def find_weights(args: argparse.Namespace) -> Path:
    """Return the file of `--weights`; published ones, given by their name, are fetched.

    Raises:
        InputError: there are none, or they would be exported beside what is downloaded.
    """
    if args.output is None and published_entry(args.weights) is not None:
        raise InputError(f"{args.weights} are published weights: add --output for the model folder")
    return resolve_weights(args.weights)


def default_output(weights: Path) -> Path:
    """Return where the folder goes unless `--output` says it.

    Raises:
        InputError: the weights are a model folder themselves.
    """
    if weights.is_dir():
        raise InputError(f"{weights} is a folder: name the new one with --output")
    return weights.parent / "model"


def default_name(weights: Path) -> str:
    """Return the name of a run, or of a file that is in none."""
    weights = weights.resolve()
    is_run = (weights.parent / "args.json").is_file()
    return weights.parent.name if is_run or weights.is_dir() else weights.name.partition(".")[0]


def load(args: argparse.Namespace) -> TorchNetwork:
    """Load the model of `--weights`; the command line describes it where it does not itself.

    Raises:
        InputError: it cannot be read, or does not fit what is said of it.
    """
    device = torch.device("cpu")
    kind, path = find_model(args.weights)
    if kind == "onnx":
        raise InputError(f"{path} cannot be exported again: give the checkpoint that it is of")
    told = checkpoint_options(path) if kind == "checkpoint" else {}
    if kind == "checkpoint" and not is_ours(read_checkpoint(path)):
        described = describe_foreign(args, told)
        config = ModelConfig.checked(
            vars(described), described.class_names, None, "the command line"
        )
        return TorchNetwork.of_checkpoint(path, device, config)
    network = load_network(args.weights, device)
    assert isinstance(network, TorchNetwork)
    stored = argparse.Namespace(**network.config.options)
    refuse_contradictions(args, stored, network.config.classes)
    return network


def find_result(args: argparse.Namespace, config: ModelConfig) -> TestResult | None:
    """Read the report of `--report`, or that of the run if it is of these weights.

    Raises:
        InputError: `--report` cannot be used.
    """
    if args.report is not None:
        return read_result(args.report, config.classes)
    path = args.weights.parent / "test_report.json"
    if args.weights.is_dir() or not path.is_file():
        say("no test_report.json: the card has no results; run test_models.py, or give --report")
        return None
    if path.stat().st_mtime < args.weights.stat().st_mtime:
        warn(f"{path} is older than the weights, so it is left out: test again, or give --report")
        return None
    try:
        return read_result(path, config.classes)
    except InputError as error:
        warn(f"the card has no results: {error}")
        return None


# ---------------------------------------------------------------- clips to check with


def find_clips(args: argparse.Namespace, config: ModelConfig) -> tuple[Iterator[Batch], str]:
    """Find clips to score; noise where there are none.

    Returns:
        Batches of `--clips` clips, and what they are.

    Raises:
        InputError: the data set of `--dataset` cannot be used.
    """
    options = source_options(args, config)
    if options.dataset is None:
        return noise(args, config, "the model does not say its data set and --dataset is not given")
    try:
        source = assembly.open_data(options)
        split = next(s for s in ("test", "val", "train") if source.has(s))
        loader = build_eval_loader(options, source, split, batch_size=_LOADED)
    except (InputError, StopIteration, OSError) as error:
        if args.dataset is not None:
            raise
        return noise(args, config, str(error) or "the data set has no lists")
    count = min(args.clips, len(source.records(split)))
    return iter(loader), f"{count} clips of the {split} list of {source.row.name}"


def source_options(args: argparse.Namespace, config: ModelConfig) -> argparse.Namespace:
    """Return the options of a loader: those of the command line, else of the checkpoint."""
    is_file = args.weights.is_file() and find_model(args.weights)[0] == "checkpoint"
    stored = checkpoint_options(args.weights) if is_file else {}
    options = {name: getattr(args, name, None) for name in SOURCE_OPTIONS}
    if args.dataset is None:
        options |= {name: stored[name] for name in SOURCE_OPTIONS if name in stored}
    if args.dataset_path is not None:
        options["dataset_path"] = args.dataset_path
    for place in ("dataset_path", "annotations", "keypoint_files"):
        if isinstance(options[place], str):
            options[place] = Path(str(options[place]))
    options["class_names"] = None
    # As a test does: what a checkpoint names is opened only if it is a folder.
    shards = stored.get("shards")
    is_said = args.dataset is not None or args.dataset_path is not None
    is_folder = isinstance(shards, str) and is_folder_of_shards(shards)
    options["shards"] = shards if is_folder and not is_said else None
    options |= {"shard_cache": None, "shard_cache_gb": 0, "shard_order": None}
    needed = {name: config.options[name] for name in KEPT_OPTIONS}
    return argparse.Namespace(
        **options,
        **needed,
        missing_pose=stored.get("missing_pose", "zero"),
        max_num=args.clips,
        allow_overlap=True,
        workers=0,
        device="cpu",
        seed=0,
    )


def noise(args: argparse.Namespace, config: ModelConfig, why: str) -> tuple[Iterator[Batch], str]:
    """Return random inputs to score instead of clips, and say so."""
    warn(f"no real clips, the check uses random inputs: {why}")
    starts = range(0, args.clips, _LOADED)
    batches = (
        example_batch(config, min(_LOADED, args.clips - start), seed=start) for start in starts
    )
    return batches, f"{args.clips} random inputs, not real clips"


# ---------------------------------------------------------------- writing and checking


def write_files(folder: Path, network: TorchNetwork, formats: Sequence[str]) -> list[str]:
    """Write the files of these formats and `config.json`; return their names."""
    names = [FILES[name] for name in FILES if name in formats]
    if WEIGHTS in names:
        write_weights(folder, network.model)
    if ONNX in names:
        start = time.monotonic()
        export_onnx(network.model, network.config, folder / ONNX)
        say(f"{ONNX}: opset {OPSET}, traced in {time.monotonic() - start:.1f} s")
    write_config(folder, network.config, OPSET)
    return names


def check_files(
    folder: Path,
    files: Sequence[str],
    network: TorchNetwork,
    batches: Iterator[Batch],
    what: str,
    tolerance: float,
) -> dict[str, str]:
    """Load each file as users do and compare it with the model; return what was found.

    Raises:
        InputError: one does not say what the model says.
    """
    exported = [load_network(folder / file, network.device) for file in files]
    found = dict(zip(files, rescore(network, exported, batches), strict=True))
    for file, agreement in found.items():
        say(f"{file} against PyTorch, {what}: {agreement.text()}")
    for file, agreement in found.items():
        if not agreement.holds(tolerance):
            raise InputError(refusal(file, agreement, what, tolerance))
    say(f"OK: all within {tolerance:g}")
    return {
        file: f"checked against PyTorch on {what}: {agreement.text()}"
        for file, agreement in found.items()
    }


def refusal(file: str, agreement: Agreement, what: str, tolerance: float) -> str:
    """Say that an exported file is not as its model."""
    return (
        f"{file} does not say what the model says ({agreement.text()}, on {what}; --tolerance "
        f"{tolerance:g}), so nothing was written: update torch, onnxscript and onnxruntime, or "
        "leave this format out with --formats"
    )


if __name__ == "__main__":
    run_script(main)
