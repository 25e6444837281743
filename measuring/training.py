"""Training steps: what they cost, and what part of them is spent waiting for data."""

import statistics
import time
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import nn
from torch.utils.data import DataLoader

from datasets.loading import build_train_loader
from engine import EpochResult, TrainSettings, TrainState, train_one_epoch
from machine import StopRequest
from measuring.clips import ClipsOnDisk, make_images, make_skeletons
from measuring.loaders import CACHED, OURS, cache_options, options
from measuring.networks import build_variant
from measuring.plan import Plan, Setup
from measuring.record import Row, Section
from measuring.timing import Spread, Timing, race
from measuring.variants import PLAIN, PUBLISHED, formulation, why_not
from models import build_model
from models.classifier import ClipClassifier
from models.fusion import RGBEncoder
from ops.batch import Batch
from optim import Schedule, build_optimizer

_CLASSES = 2
_POSE_CASE = "pose-only epoch"
LOADER_SHARE = "waiting for data, %"
# Of the recipe; no schedule ever ends here.
_EPOCHS = 1_000_000
_LEARNING_RATE, _MOMENTUM, _DECAY, _CLIP_GRADIENT = 1e-4, 0.9, 5e-4, 20.0


def measure_steps(plan: Plan) -> Section:
    """Time training steps of early fusion on a batch that is there: normalise, pass, update."""
    side, segments = plan.input_size, plan.num_segments
    section = Section(
        name="step",
        title=f"Training step of early fusion, {segments}x4x{side}x{side} a clip, bytes to "
        "updated weights",
        peer=PUBLISHED,
        limit=PLAIN,
    )
    for setup in plan.setups(batch=1):
        for arch in plan.archs:
            plan.progress(setup.case(f"training step of {arch}"))
            section.rows += _steps(plan, setup, arch)
    return section


def _steps(plan: Plan, setup: Setup, arch: str) -> list[Row]:
    batch = _batch(plan, setup.batch)
    calls: dict[str, Callable[[], object]] = {}
    reasons: dict[str, str] = {}
    for variant in plan.variants:
        backbone = build_variant(
            variant, arch, plan.num_segments, plan.device, in_channels=4, layout=setup.layout
        )
        if isinstance(backbone, str):
            reasons[variant] = backbone
            continue
        model = ClipClassifier(RGBEncoder(backbone), _CLASSES, dropout=0.5).to(plan.device)
        call = _one_step(variant, model, batch, plan, setup)
        reasons[variant] = why_not(call)
        if not reasons[variant]:
            calls[variant] = call
    timings = race(calls, plan.repeats, plan.device)
    return [
        Row(
            case=setup.case(arch),
            variant=variant,
            timing=timings[variant].times(1e3) if variant in timings else None,
            clock=setup.clock(plan.device),
            settings={"arch": arch, **setup.facts()},
            note=reasons[variant],
        )
        for variant in plan.variants
    ]


def _batch(plan: Plan, clips: int) -> Batch:
    generator = torch.Generator().manual_seed(0)
    shape = clips, plan.num_segments, plan.input_size, plan.input_size
    frames = torch.randint(256, (*shape, 3), dtype=torch.uint8, generator=generator)
    return Batch(
        frames=frames.permute(0, 1, 4, 2, 3),
        heatmap=torch.rand(shape, generator=generator),
        label=torch.arange(clips) % _CLASSES,
        clips=tuple(f"clip {number}" for number in range(clips)),
    ).to(plan.device)


class _Batches:
    """Batches in memory, as `train_one_epoch` takes a loader."""

    def __init__(self, batches: Sequence[Batch]) -> None:
        self.batch_sampler = self._batches = batches

    def __iter__(self) -> Iterator[Batch]:
        return iter(self._batches)


def _one_step(
    variant: str, model: nn.Module, batch: Batch, plan: Plan, setup: Setup
) -> Callable[[], object]:
    amp_dtype = None if setup.dtype == "float32" else getattr(torch, setup.dtype)
    epoch = _epoch(model, _Batches([batch]), plan.device, amp_dtype)

    def call() -> EpochResult:
        with formulation(variant):
            return epoch()

    return call


def _epoch(
    model: nn.Module,
    loader: "DataLoader | _Batches",
    device: torch.device,
    amp_dtype: torch.dtype | None = None,
) -> Callable[[], EpochResult]:
    """Return what trains one epoch of a loader at each call."""
    optimizer = build_optimizer(model, "sgd", _LEARNING_RATE, _MOMENTUM, _DECAY)
    scaler = torch.amp.GradScaler(device.type, enabled=amp_dtype is torch.float16)
    state = TrainState(model, optimizer, scaler)
    settings = TrainSettings(
        schedule=Schedule(_EPOCHS, 0, _LEARNING_RATE),
        iter_size=1,
        clip_gradient=_CLIP_GRADIENT,
        amp_dtype=amp_dtype,
        class_weights=None,
        seed=0,
    )

    def run() -> EpochResult:
        if isinstance(loader, DataLoader):
            loader.batch_sampler.start(state.epoch)  # type: ignore[union-attr]
        result = train_one_epoch(
            state,
            loader,  # type: ignore[arg-type]
            settings,
            device,
            StopRequest(),
            lambda *_: None,
        )
        state.next_epoch()
        return result

    return run


# ---------------------------------------------------------------- waiting


def measure_waiting(plan: Plan) -> Section:
    """Measure the share of training that is spent waiting for data."""
    section = Section(
        name="waiting",
        title="Share of training in which the network waits for its loader",
        unit="ms an epoch",
    )
    section.rows += _pose_only(plan)
    section.rows += _rgb(plan)
    return section


def _pose_only(plan: Plan) -> list[Row]:
    clips, frames = (40, 20) if plan.is_quick else (400, 100)
    plan.progress(f"pose-only training, {clips} clips")
    data = make_skeletons(plan.folder / "skeletons", clips, frames)
    choices = ["--pose_only", "--num_segments", "16", "--batch-size", "16", "--workers", "0"]
    args, source = data.open(choices)
    model = build_model(args, _CLASSES).to(plan.device)
    run = _epoch(model, build_train_loader(args, source), plan.device)
    what = f"{_POSE_CASE}, {clips} clips of {frames} frames"
    return [_waiting_row(what, "0 workers", run, plan.repeats)]


def _rgb(plan: Plan) -> list[Row]:
    """Train the last of the backbones on frames of the first size."""
    size, arch = plan.sizes[0], plan.archs[-1]
    name = f"{size[0]}x{size[1]}"
    folder = plan.folder / f"waiting_{name}"
    data = make_images(folder, size, num_clips=2 if plan.is_quick else 6, num_frames=24)
    network = ["--arch", arch, "--gsf", "--pretrained", "none", "--device", plan.device.type]
    rows = []
    for label, extra in ((OURS, []), (CACHED, cache_options(folder / "cache"))):
        for workers in _distinct(plan, data, [*network, *extra]):
            plan.progress(f"waiting for {workers} loader processes, {label}")
            args, source = data.open([*options(2, workers, plan.input_size), *network, *extra])
            model = build_model(args, _CLASSES).to(plan.device)
            run = _epoch(model, build_train_loader(args, source), plan.device)
            case = f"{arch} + GSF at {plan.input_size} pixels, {name}, {label}"
            variant = f"{workers} worker{'s' * (workers != 1)}"
            rows.append(_waiting_row(case, variant, run, min(2, plan.repeats)))
    return rows


def _distinct(plan: Plan, data: ClipsOnDisk, extra: Sequence[str]) -> list[int]:
    """Return the numbers of processes that this machine really starts."""
    found = []
    for workers in plan.workers:
        args, source = data.open([*options(2, workers, plan.input_size), *extra])
        found.append(build_train_loader(args, source).num_workers)
    return sorted(set(found))


def _waiting_row(case: str, variant: str, run: Callable[[], EpochResult], repeats: int) -> Row:
    run()  # starts the loader's processes, fills caches
    results, cpu = [], []
    for _ in range(repeats):
        start = time.process_time()
        results.append(run())
        cpu.append(1e3 * (time.process_time() - start))
    wall = Spread.of([1e3 * result.seconds for result in results])
    return Row(
        case=case,
        variant=variant,
        timing=Timing(wall, Spread.of(cpu)),
        clock="wall",
        facts={LOADER_SHARE: 100 * statistics.median(result.waiting for result in results)},
    )


def is_pose_row(row: Row) -> bool:
    """Say whether a row is that of skeletons alone."""
    return row.case.startswith(_POSE_CASE)
