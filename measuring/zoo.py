"""The skeleton zoo: how large its models are, how fast they answer and learn."""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.published_skeletons import PublishedSTGCNPlusPlus
from measuring.clips import skeleton
from measuring.plan import Plan, Setup
from measuring.record import Row, Section
from measuring.timing import race
from measuring.variants import PUBLISHED, why_not
from models.classifier import ClipClassifier, Encoder
from models.pose_encoders import POSE_ENCODERS
from models.skeleton import SKELETON_ENCODERS
from models.skeleton.flops import count_flops
from models.skeleton.posec3d import PoseC3D, VolumeDrawing
from models.skeleton.rgbpose_conv3d import SCALE_RATIO, SPEED_RATIO, RGBPoseConv3D
from ops.batch import Batch, labels_of
from ops.skeleton import COCO17, NTU25

OURS, GIVEN = "ours", "ours, volumes given"
INFERENCE, STEP = "inference", "training step"
PARAMETERS, FLOPS, SPEED = "parameters", "multiply-adds of a clip, G", "clips/s"
OTHER_SPEED = "other CPU, clips/s"
# Clips in a second on an i7-11800H, as published with PYSKL (examples/inference_speed.ipynb): two
# people, 100 frames, 25 joints, batches of 16; of PoseC3D 48x56x56, batches of 8.
_OTHER_SPEEDS = {"stgcn": 13.8, "stgcnpp": 8.9, "ctrgcn": 7.2, "aagcn": 7.5, "posec3d": 2.9}
_CLASSES = 60
_LEARNING_RATE, _MOMENTUM = 1e-4, 0.9
# How far formulations of the same may be apart, as a share of the largest number.
_MOST_APART = 1e-3
# Rounds of networks on volumes, each call of which takes up to half a minute.
_MOST_ROUNDS = 3

Way = Callable[[nn.Module], nn.Module]


@dataclass(frozen=True, slots=True)
class Shape:
    """What a clip is, by default that of the published figures of graph networks.

    Attributes:
        clips: of a batch, where none is asked for.
        frames: of a skeleton.
        joints: of a skeleton.
        people: of a clip.
        side: of heatmap volumes, pixels; 0 for none.
    """

    clips: int = 16
    frames: int = 100
    joints: int = 25
    people: int = 2
    side: int = 0

    def quick(self) -> "Shape":
        """Return something smaller."""
        return replace(self, frames=16, clips=min(self.clips, 2), side=min(self.side, 16))

    def text(self) -> str:
        """Return it in words."""
        if self.side:
            return f"{self.joints}x{self.frames}x{self.side}x{self.side}"
        people = "2 people" if self.people == 2 else "1 person"
        return f"{self.frames} frames, {self.joints} joints, {people}"


_FRAME = Shape(joints=len(COCO17), people=1)  # models of single frames know no other joints
VOLUME = Shape(clips=8, frames=48, joints=len(COCO17), side=56)
_BOTH = Shape(clips=1, frames=32, joints=len(COCO17), side=56)


@dataclass(frozen=True, slots=True)
class _Entry:
    """A model of the table.

    Attributes:
        name: in the table.
        shape: of its clips.
        build: makes it.
        batch: makes its input of so many clips.
        others: further ways to do the same, made of the model.
        other_speed: what is published of it.
    """

    name: str
    shape: Shape
    build: Callable[[], nn.Module]
    batch: Callable[[Shape, int], Batch]
    others: Mapping[str, Way] = field(default_factory=dict)
    other_speed: float | None = None


def measure_zoo(plan: Plan) -> Section:
    """Time inference and training steps of models of skeletons, on batches that are there."""
    section = Section(
        name="zoo",
        title=f"Skeleton models, {_CLASSES} classes: inference; training step, skeletons to "
        "updated weights",
        peer=PUBLISHED,
        notes=[
            "published is ST-GCN++ with the same weights in the published order of computation",
            "posec3d and rgbpose draw their volumes inside, but where they are given",
            f"{OTHER_SPEED}: published for an i7-11800H (PYSKL, inference_speed.ipynb); another "
            "machine with more cores, so it is context and no comparison",
        ],
    )
    for entry in _entries(plan):
        for setup in one_layout(plan).setups(entry.shape.clips):
            plan.progress(setup.case(entry.name))
            section.rows += _measure(plan, setup, entry)
    return section


def one_layout(plan: Plan) -> Plan:
    """Return the plan without memory layouts, which these models choose for themselves."""
    return replace(plan, layouts=plan.layouts[:1])


def settings_of(plan: Plan, setup: Setup) -> dict[str, object]:
    """Return what a program may select rows by; the memory layout is none of it."""
    facts = {**setup.facts(), "channels_last": False}
    return {**facts, "device": plan.device.type, "quick": plan.is_quick}


def shape_of(plan: Plan, shape: Shape) -> Shape:
    """Return the shape that is measured."""
    return shape.quick() if plan.is_quick else shape


# ---------------------------------------------------------------- the models


def _entries(plan: Plan) -> list[_Entry]:
    """Return the models that are asked for."""
    found: list[_Entry] = []
    for name in plan.models:
        if name == "posec3d":
            found += [_volume_entry("joint"), _volume_entry("limb")]
        elif name == "rgbpose":
            found.append(_Entry(name, _BOTH, lambda: RGBPoseConv3D(_CLASSES, COCO17), _both_batch))
        else:
            found.append((_frame_entry if name in POSE_ENCODERS else _graph_entry)(name))
    return [replace(entry, shape=shape_of(plan, entry.shape)) for entry in found]


def _graph_entry(name: str) -> _Entry:
    others: dict[str, Way] = {PUBLISHED: _as_published} if name == "stgcnpp" else {}
    return _Entry(
        name,
        Shape(),
        lambda: ClipClassifier(SKELETON_ENCODERS[name](NTU25), _CLASSES, dropout=0.0),
        _skeleton_batch,
        others,
        _OTHER_SPEEDS.get(name),
    )


def _frame_entry(name: str) -> _Entry:
    return _Entry(
        name,
        _FRAME,
        lambda: ClipClassifier(POSE_ENCODERS[name](), _CLASSES, dropout=0.5),
        _keypoint_batch,
    )


def _volume_entry(stream: str) -> _Entry:
    is_joint = stream == "joint"
    return _Entry(
        f"posec3d, {stream}s",
        VOLUME,
        lambda: ClipClassifier(PoseC3D(COCO17, stream=stream), _CLASSES, dropout=0.5),
        _volume_batch,
        {GIVEN: _with_volumes} if is_joint else {},
        _OTHER_SPEEDS["posec3d"] if is_joint else None,
    )


def _as_published(model: nn.Module) -> nn.Module:
    return _with_encoder(model, lambda ours: PublishedSTGCNPlusPlus(ours))  # type: ignore[arg-type]


def _with_volumes(model: nn.Module) -> nn.Module:
    def change(encoder: Encoder) -> Encoder:
        encoder.drawing = _DrawnOnce(encoder.drawing)  # type: ignore[assignment, arg-type]
        return encoder

    return _with_encoder(model, change)


def _with_encoder(model: nn.Module, change: Callable[[Encoder], Encoder]) -> nn.Module:
    assert isinstance(model, ClipClassifier)
    other = copy.deepcopy(model)
    other.encoder = change(other.encoder)
    return other


class _DrawnOnce:
    """The volumes of the first batch, for all."""

    def __init__(self, drawing: VolumeDrawing) -> None:
        self._drawing = drawing
        self._volumes: Tensor | None = None

    def draw(self, batch: Batch) -> Tensor:
        if self._volumes is None:
            self._volumes = self._drawing.draw(batch)
        return self._volumes


# ---------------------------------------------------------------- batches


def moving_joints(shape: Shape, clips: int, side: float) -> np.ndarray:
    """Return (B, T, M, V, 3) joints of people who move in an image of side x side pixels."""
    rng = np.random.default_rng(0)
    joints = np.zeros((clips, shape.frames, shape.people, shape.joints, 3), np.float32)
    person = skeleton(shape.frames, (360, 360))[:, 0]  # (T, 17, 3)
    person[..., :2] *= side / 360
    joints[:] = person[:, np.arange(shape.joints) % person.shape[1]][None, :, None]
    joints[..., :2] += rng.normal(0, 0.1 * side, (clips, 1, shape.people, 1, 2))
    joints[..., :2] += rng.normal(0, 0.01 * side, (*joints.shape[:-1], 2))
    return joints


def _skeleton_batch(shape: Shape, clips: int) -> Batch:
    joints = torch.from_numpy(moving_joints(shape, clips, 2.0))
    joints[..., :2] -= 1  # from the middle of the image, as networks see it
    return Batch(skeletons=joints, label=torch.arange(clips) % _CLASSES)


def _keypoint_batch(shape: Shape, clips: int) -> Batch:
    batch = _skeleton_batch(shape, clips)
    return replace(batch, keypoints=batch.skeletons, skeletons=None)


def _volume_batch(shape: Shape, clips: int) -> Batch:
    joints = torch.from_numpy(moving_joints(shape, clips, shape.side))
    labels = torch.arange(clips) % _CLASSES
    return Batch(skeletons=joints, label=labels, volume_size=(shape.side, shape.side))


def _both_batch(shape: Shape, clips: int) -> Batch:
    side, generator = SCALE_RATIO * shape.side, torch.Generator().manual_seed(0)
    size = (clips, shape.frames // SPEED_RATIO, 3, side, side)
    frames = torch.randint(256, size, dtype=torch.uint8, generator=generator)
    return replace(_volume_batch(shape, clips), frames=frames)


# ---------------------------------------------------------------- measuring


def _measure(plan: Plan, setup: Setup, entry: _Entry) -> list[Row]:
    """Return a row for each way of a model, of inference and of training."""
    if entry.shape.side:
        plan = replace(plan, repeats=min(plan.repeats, _MOST_ROUNDS))
    torch.manual_seed(0)
    model = entry.build().eval()
    ways = {OURS: model, **{name: make(model) for name, make in entry.others.items()}}
    ways = {name: way.to(plan.device) for name, way in ways.items()}
    batch = entry.batch(entry.shape, setup.batch).to(plan.device)
    facts = {
        PARAMETERS: float(sum(weight.numel() for weight in model.parameters())),
        FLOPS: count_flops(model, entry.batch(entry.shape, 1).to(plan.device)) / 1e9,
    }
    if entry.other_speed is not None and not plan.is_quick:
        facts[OTHER_SPEED] = entry.other_speed
    reasons = _odd_ways(ways, batch)
    rows = []
    for work, make in ((INFERENCE, _inference), (STEP, _training_step)):
        calls = {name: make(way, batch, plan, setup) for name, way in ways.items()}
        row = Row(
            case=setup.case(f"{entry.name}, {entry.shape.text()}, {setup.batch} clips: {work}"),
            variant=OURS,
            clock=setup.clock(plan.device),
            facts=facts if work == INFERENCE else {},
            settings={"model": entry.name, "work": work, **settings_of(plan, setup)},
        )
        rows += race_ways(plan, row, setup.batch, calls, reasons)
    return rows


def race_ways(
    plan: Plan,
    row: Row,
    clips: int,
    calls: Mapping[str, Callable[[], object]],
    reasons: Mapping[str, str],
) -> list[Row]:
    """Return a row like `row` for each way of doing the same; its facts are of ours alone."""
    notes = {name: reasons.get(name) or why_not(call) for name, call in calls.items()}
    runnable = {name: call for name, call in calls.items() if not notes[name]}
    timings = race(runnable, plan.repeats, plan.device, warm_up=0)  # each has just run once
    rows = []
    for name in calls:
        timing = timings.get(name)
        facts = dict(row.facts) if name == OURS else {}
        if timing is not None:
            facts[SPEED] = clips / getattr(timing, row.clock).median
        rows.append(
            replace(
                row,
                variant=name,
                timing=timing and timing.times(1e3),
                facts=facts,
                note=notes[name],
            )
        )
    return rows


def _odd_ways(ways: Mapping[str, nn.Module], batch: Batch) -> dict[str, str]:
    """Return which ways say something else than ours, and how far off they are."""
    with torch.no_grad():
        said = {name: way.eval()(batch) for name, way in ways.items()}
    return {name: reason for name, logits in said.items() if (reason := apart(said[OURS], logits))}


def apart(ours: Tensor, other: Tensor) -> str:
    """Say how far two results are apart; "" where that is rounding."""
    difference = float((ours - other).abs().max() / ours.abs().max().clamp(min=1e-12))
    return "" if difference <= _MOST_APART else f"says something else, {difference:.1e} off"


def _inference(model: nn.Module, batch: Batch, plan: Plan, setup: Setup) -> Callable[[], object]:
    def call() -> Tensor:
        model.eval()
        with torch.no_grad(), setup.autocast(plan.device):
            return model(batch)  # type: ignore[no-any-return]

    return call


def _training_step(
    model: nn.Module, batch: Batch, plan: Plan, setup: Setup
) -> Callable[[], object]:
    optimizer = torch.optim.SGD(model.parameters(), _LEARNING_RATE, _MOMENTUM, nesterov=True)
    labels = labels_of(batch)

    def call() -> None:
        model.train()
        with setup.autocast(plan.device):
            logits = model(batch).float()
        heads = logits.unbind(1) if logits.ndim == 3 else (logits,)  # a loss for each stream
        torch.stack([F.cross_entropy(head, labels) for head in heads]).sum().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return call
