"""Memory and completeness of an epoch over a data set of very many clips in shards.

python benchmarks/check_shards.py --clips 100000
python benchmarks/check_shards.py --clips 100000 --mode pose --processes 4 --keep scratch

Makes tiny clips (folders that are links to some dozen real ones), packs them, then loads an epoch
with 1 and with several processes, as training would: prints resident memory along the way, how
often each clip was seen, and seconds. Nothing is trained. The pages of the files that are read
belong to the system and are not counted.
"""

import argparse
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

import cv2
import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402
from torch.utils.data import DataLoader  # noqa: E402

import opts  # noqa: E402
from console import StepLine, say  # noqa: E402
from datasets.catalogue import find_row  # noqa: E402
from datasets.clips import ClipDataset  # noqa: E402
from datasets.loading import build_train_loader  # noqa: E402
from datasets.opening import open_dataset  # noqa: E402
from datasets.order import EpochBatches  # noqa: E402
from datasets.pose_files import write_archive  # noqa: E402
from datasets.shards.packing import pack_dataset  # noqa: E402
from datasets.shards.planning import PackSpec  # noqa: E402
from datasets.skeletons import as_batch  # noqa: E402
from errors import InputError, run_script  # noqa: E402
from options.types import OneLineParser, natural, positive  # noqa: E402

NAME = "tiny"
_SIZE = (32, 24)
_REAL_CLIPS = 32
_BATCH = 64
_SHARD_BYTES = 64 * 10**6
_REPORTS = 10
_SEGMENTS = 4


def main(argv: Sequence[str] | None = None) -> None:
    """Make, pack and read the clips; exits with 2 where one is lost or repeated."""
    args = parse(argv)
    with folder_of(args.keep) as folder:
        shards = folder / f"shards-{args.clips}"
        if not (shards / "index.json").is_file():
            make_shards(folder, shards, args.clips, args.frames)
        size = sum(path.stat().st_size for path in shards.iterdir())
        index = sum((shards / name).stat().st_size for name in ("index.json", "index.npz"))
        count = len(list(shards.glob("*.tar")))
        say(f"{count} shards, {size / 1e9:.2f} GB, index {index / 1e6:.1f} MB")
        for processes in dict.fromkeys((1, args.processes)):
            run_epoch(shards, args, processes)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the options."""
    parser = OneLineParser(description="Load an epoch of very many clips out of shards.")
    parser.add_argument("--clips", type=positive, default=100_000, help="clips in the train list")
    parser.add_argument("--frames", type=positive, default=_SEGMENTS, help="frames of each")
    parser.add_argument("--mode", choices=("rgb", "early", "pose"), default="rgb", help="what of")
    parser.add_argument("--processes", type=positive, default=4, help="that share the epoch")
    parser.add_argument("-j", "--workers", type=natural, default=2, help="of a single process")
    parser.add_argument("--keep", type=Path, help="folder for the clips and shards, kept")
    parser.add_argument("--epochs", type=positive, default=1, help="one after the other")
    return parser.parse_args(argv)


@contextmanager
def folder_of(path: Path | None) -> Iterator[Path]:
    """Give a folder that is removed at the end, unless it was asked for."""
    if path is not None:
        path.mkdir(parents=True, exist_ok=True)
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


# ---------------------------------------------------------------- the clips


def make_shards(folder: Path, shards: Path, clips: int, frames: int) -> None:
    """Make clips and pack them."""
    start = time.monotonic()
    root = folder / "data" / NAME
    shutil.rmtree(root, ignore_errors=True)
    make_clips(root, clips, frames)
    say(f"{clips:,} clips made in {time.monotonic() - start:.0f} s")
    start = time.monotonic()
    with StepLine("shards", every=10) as line:
        pack_dataset(
            PackSpec(find_row(NAME), root, shards, ("train",), _SHARD_BYTES, workers=2), line
        )
    say(f"packed in {time.monotonic() - start:.0f} s")
    shutil.rmtree(root)


def make_clips(root: Path, clips: int, frames: int) -> None:
    """Write a few clips, and links to them under many names."""
    rng = np.random.default_rng(0)
    (root / "poses").mkdir(parents=True)
    for number in range(_REAL_CLIPS):
        folder = root / "frames" / f"real_{number}"
        folder.mkdir(parents=True)
        for frame in range(frames):
            image = rng.integers(0, 256, (*_SIZE[::-1], 3), np.uint8)
            data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 60])[1]
            (folder / f"{frame:05d}.jpg").write_bytes(data.tobytes())
        keypoints = rng.uniform(1, _SIZE[1] - 1, (frames, 1, 17, 3)).astype(np.float32)
        keypoints[..., 2] = 1
        size = {"width": np.array(_SIZE[0]), "height": np.array(_SIZE[1])}
        write_archive(root / f"real_{number}.npz", {"keypoints": keypoints, **size})
    for clip in range(clips):
        real = f"real_{clip % _REAL_CLIPS}"
        (root / "frames" / f"c{clip}").symlink_to(real)
        os.link(root / f"{real}.npz", root / "poses" / f"c{clip}.npz")
    lines = (f"c{clip} {frames} {clip % 2}\n" for clip in range(clips))
    (root / "train_videofolder.txt").write_text("".join(lines), encoding="utf-8")


# ---------------------------------------------------------------- an epoch


def run_epoch(shards: Path, args: argparse.Namespace, processes: int) -> None:
    """Load epochs with some processes, and say what came.

    Raises:
        InputError: a clip was lost or came twice.
    """
    workers = args.workers if processes == 1 else 0
    say(f"{processes} processes with {workers} loader workers each, {args.mode}:")
    context = multiprocessing.get_context("spawn")  # they share no memory with this one
    pipes = []
    started = []
    for rank in range(processes):
        ours, theirs = context.Pipe(duplex=False)
        job = (theirs, shards, args, rank, processes, workers)
        process = context.Process(target=load_share, args=job)
        process.start()
        theirs.close()
        pipes.append(ours)
        started.append(process)
    seen = np.zeros((args.epochs, args.clips), np.int64)
    for rank, pipe in enumerate(pipes):
        counts, memory, seconds = pipe.recv()
        seen += counts
        first, last = memory[1], memory[-1]
        texts = ", ".join(f"{value:.0f}" for value in memory)
        say(f"  process {rank}: MB {texts}; {last - first:+.1f} MB; {seconds:.0f} s")
    for process in started:
        process.join()
    lost, repeated = int((seen == 0).sum()), int((seen > 1).sum())
    say(f"  {args.clips:,} clips, {args.epochs} epochs: {lost} lost, {repeated} repeated")
    if lost or repeated:
        raise InputError(f"{lost} clips were lost and {repeated} repeated: they should be none")


def load_share(
    pipe: Connection, shards: Path, args: argparse.Namespace, rank: int, count: int, workers: int
) -> None:
    """Load the share of a process; send how often each clip came, memory in MB, and seconds."""
    torch.set_num_threads(1)
    dataset = open_clips(shards, args.mode)
    batches = EpochBatches(
        len(dataset), _BATCH, seed=0, shuffle=True, iter_size=count, rank=rank, count=count
    )
    loader = DataLoader(
        dataset,
        batch_sampler=batches,
        collate_fn=as_batch,
        num_workers=workers,
        persistent_workers=workers > 0,
        # As in training; a process that was spawned would spawn.
        multiprocessing_context="fork" if workers and hasattr(os, "fork") else None,
    )
    seen = np.zeros((args.epochs, len(dataset)), np.int64)
    memory, start = [memory_of(os.getpid())], time.monotonic()
    steps = len(batches) // count * args.epochs
    every = max(1, steps // _REPORTS)
    done = 0
    with StepLine(f"process {rank}", every=10**9) as line:
        for epoch in range(args.epochs):
            batches.start(epoch)
            for batch in loader:
                np.add.at(seen[epoch], [int(name[1:]) for name in batch.clips], 1)
                done += 1
                if done % every == 0:
                    pids = [os.getpid(), *children_of(os.getpid())]
                    memory.append(sum(map(memory_of, pids)))
                    line(done, steps)
    pipe.send((seen, memory, time.monotonic() - start))
    pipe.close()


def open_clips(shards: Path, mode: str) -> ClipDataset:
    """Open the train list as training does."""
    line = ["--dataset", NAME, "--shards", str(shards), "--input_size", "32", "--num_segments"]
    line += [str(_SEGMENTS), "--pretrained", "none", "--workers", "0"]
    if mode == "pose":
        args = opts.parse_pose_train_args(line)
    else:
        args = opts.parse_train_args(line + ["--early_fusion_poses"] * (mode == "early"))
    loader = build_train_loader(args, open_dataset(args))
    assert isinstance(loader.dataset, ClipDataset)
    return loader.dataset


def memory_of(pid: int) -> float:
    """Return the memory of a process in MB, shared pages by its part of them; 0 if it has ended."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    except OSError:
        return 0.0
    lines = dict(line.split(":", 1) for line in text.splitlines()[1:])
    return int(lines["Pss_Anon"].split()[0]) / 1000


def children_of(pid: int) -> list[int]:
    """Return the processes that a process has started."""
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii")
    return [int(child) for child in text.split()]


if __name__ == "__main__":
    run_script(main)
