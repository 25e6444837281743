"""What the project has promised of its speed, and whether a measurement keeps it."""

import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from measuring.contest import FORWARD, SAVED, TRAINING
from measuring.loaders import CACHED, OURS
from measuring.record import Row, Section
from measuring.testing import NORMALISED, PUBLISHED_APART, TOGETHER
from measuring.training import LOADER_SHARE, is_pose_row
from measuring.variants import EAGER, FUSED, PUBLISHED
from measuring.volumes import JOINTS, LIMBS
from measuring.zoo import INFERENCE, STEP
from measuring.zoo import OURS as OUR_SKELETONS

Sections = Mapping[str, Section]
# The promises for a CPU hold for this, those for a GPU for the other: what users get there.
_ON_CPU = {"threads": 1, "dtype": "float32", "channels_last": False}
_ON_GPU = {
    "dtype": "bfloat16",
    "channels_last": True,
    "batch": 8,
    "arch": "resnet50",
    "input_size": 224,
}


@dataclass(frozen=True, slots=True)
class Target:
    """One promise.

    Attributes:
        name: what is measured.
        sense: ">=" where more is better.
        limit: to reach.
        measure: finds the value; None where it was not measured.
        device: type of the device that it is about.
    """

    name: str
    sense: Literal[">=", "<="]
    limit: float
    measure: Callable[[Sections], float | None]
    device: str = "cpu"


@dataclass(frozen=True, slots=True)
class Outcome:
    """A promise and what was measured; `value` None where nothing was."""

    target: Target
    value: float | None

    @property
    def is_met(self) -> bool | None:
        """Say whether the promise is kept, None when nobody knows."""
        if self.value is None:
            return None
        limit = self.target.limit
        return self.value >= limit if self.target.sense == ">=" else self.value <= limit

    def text(self) -> str:
        """Return a line for a reader."""
        verdict = {True: "met", False: "MISSED", None: "not measured"}[self.is_met]
        value = "" if self.value is None else f": {self.value:.2f}"
        return f"{verdict:<12}  {self.target.name}{value}, wanted {self._wanted()}"

    def _wanted(self) -> str:
        return f"{self.target.sense} {self.target.limit:g}"

    def as_json(self) -> dict[str, object]:
        """Return it as JSON can hold it."""
        wanted = {"name": self.target.name, "wanted": self._wanted()}
        return {**wanted, "value": self.value, "met": self.is_met}


def check_targets(sections: Sections, device_type: str) -> list[Outcome]:
    """Compare what was measured on a device with the promises for it; the CPU's always count."""
    return [
        Outcome(target, target.measure(sections))
        for target in TARGETS
        if target.device in ("cpu", device_type)
    ]


# ---------------------------------------------------------------- values


def _ours(section: Section, wanted: Mapping[str, object]) -> list[Row]:
    """Return the rows that a user gets: fused where that was measured, else eager."""
    rows = [
        row
        for row in section.rows
        if row.timing is not None and wanted.items() <= dict(row.settings).items()
    ]
    fused = [row for row in rows if row.variant == FUSED]
    return fused or [row for row in rows if row.variant == EAGER]


def _module(work: str) -> Callable[[Sections], float | None]:
    """Return how many times as fast as published the module is, over all shapes."""

    def measure(sections: Sections) -> float | None:
        section = sections.get("module")
        if section is None:
            return None
        rows = _ours(section, {**_ON_CPU, "device": "cpu", "work": work, "batch": 2})
        ratios = [ratio for row in rows if (ratio := section.speed_up(row)) is not None]
        return statistics.geometric_mean(ratios) if ratios else None

    return measure


def _saved(sections: Sections) -> float | None:
    """Return the largest share of the published module's saved bytes that ours saves."""
    section = sections.get("module")
    if section is None:
        return None
    shares = []
    for row in _ours(section, {"work": TRAINING, "dtype": "float32"}):
        published = section.find(row.case, PUBLISHED)
        if published is not None and published.facts.get(SAVED):
            shares.append(row.facts[SAVED] / published.facts[SAVED])
    return max(shares, default=None)


def _network(
    work: str, wanted: Mapping[str, object], device: str
) -> Callable[[Sections], float | None]:
    """Return what ResNet-50 with GSF costs against the same without."""

    def measure(sections: Sections) -> float | None:
        section = sections.get("network")
        if section is None:
            return None
        rows = _ours(section, {**wanted, "work": work, "device": device})
        return next((ratio for row in rows if (ratio := section.relative_cost(row))), None)

    return measure


def _loader(name: str, variant: str, case: str) -> Callable[[Sections], float | None]:
    """Return how many times as fast as its peer a data path is."""

    def measure(sections: Sections) -> float | None:
        section = sections.get(name)
        row = None if section is None else section.find(case, variant)
        return None if section is None or row is None else section.speed_up(row)

    return measure


def _against_published(case: str) -> Callable[[Sections], float | None]:
    """Return how many times as fast as the published steps, view by view, a test is."""

    def measure(sections: Sections) -> float | None:
        section = sections.get("testing")
        row = None if section is None else section.find(case, NORMALISED)
        peer = None if section is None else section.find(case, PUBLISHED_APART)
        if row is None or peer is None or not row.cost or not peer.cost:
            return None
        return peer.cost / row.cost

    return measure


def _skeletons(name: str, wanted: Mapping[str, object]) -> Callable[[Sections], float | None]:
    """Return how many times as fast as published skeleton models or their volumes are."""

    def measure(sections: Sections) -> float | None:
        section = sections.get(name)
        if section is None:
            return None
        selected = {**_ON_CPU, "device": "cpu", "quick": False, **wanted}.items()
        rows = (row for row in section.rows if selected <= dict(row.settings).items())
        ours = next((row for row in rows if row.variant == OUR_SKELETONS), None)
        return None if ours is None else section.speed_up(ours)

    return measure


def _pose_share(sections: Sections) -> float | None:
    section = sections.get("waiting")
    rows = [] if section is None else [row for row in section.rows if is_pose_row(row)]
    return rows[0].facts[LOADER_SHARE] if rows else None


_R50 = {**_ON_CPU, "arch": "resnet50", "input_size": 112, "num_segments": 8, "batch": 1}
_HD, _NHD = "1280x720", "640x360"

TARGETS = (
    Target("GSF module, forward, times as fast as published", ">=", 9, _module(FORWARD)),
    Target(
        "GSF module, forward + backward, times as fast as published", ">=", 6, _module(TRAINING)
    ),
    Target("GSF module, saved for backward, share of the published", "<=", 0.5, _saved),
    Target(
        "ResNet-50 GSF, forward, cost / plain, 8x3x112x112",
        "<=",
        1.25,
        _network(FORWARD, _R50, "cpu"),
    ),
    Target(
        "ResNet-50 GSF, forward + backward, cost / plain, 8x3x112x112",
        "<=",
        1.4,
        _network(TRAINING, _R50, "cpu"),
    ),
    Target("loader, 1280x720, times as fast as published", ">=", 4, _loader("loader", OURS, _HD)),
    Target("loader, 640x360, times as fast as published", ">=", 3, _loader("loader", OURS, _NHD)),
    Target("warm cache, 1280x720, times as fast", ">=", 8, _loader("loader", CACHED, _HD)),
    Target("warm cache, 640x360, times as fast", ">=", 8, _loader("loader", CACHED, _NHD)),
    *(
        Target(
            f"test of 10 crops x 2 clips, {case}, times as fast as our own loader crop by crop",
            ">=",
            5,
            _loader("testing", TOGETHER, case),
        )
        for case in (_HD, _NHD)
    ),
    *(
        Target(
            f"test of 10 crops x 2 clips, {case}, times as fast as the published crop by crop",
            ">=",
            5,
            _against_published(case),
        )
        for case in (_HD, _NHD)
    ),
    Target(
        "ST-GCN++, inference, times as fast as published, 16 clips of 2x100x25",
        ">=",
        1.2,
        _skeletons("zoo", {"model": "stgcnpp", "work": INFERENCE, "batch": 16}),
    ),
    Target(
        "ST-GCN++, training step, times as fast as published, 16 clips of 2x100x25",
        ">=",
        1.2,
        _skeletons("zoo", {"model": "stgcnpp", "work": STEP, "batch": 16}),
    ),
    *(
        Target(
            f"{what} of 8 clips, 17x48x56x56, times as fast as a loop",
            ">=",
            10,
            _skeletons("volumes", {"what": what, "batch": 8}),
        )
        for what in (JOINTS, LIMBS)
    ),
    Target("pose-only epoch, waiting for data, %", "<=", 10, _pose_share),
    Target(
        "ResNet-50 GSF on a GPU, forward, cost / plain, batch 8, 8x224, bfloat16",
        "<=",
        1.15,
        _network(FORWARD, _ON_GPU, "cuda"),
        "cuda",
    ),
    Target(
        "ResNet-50 GSF on a GPU, forward + backward, cost / plain, batch 8, 8x224, bfloat16",
        "<=",
        1.25,
        _network(TRAINING, _ON_GPU, "cuda"),
        "cuda",
    ),
)
