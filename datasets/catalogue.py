"""What differs between data sets: one row each."""

from dataclasses import dataclass

from ops.skeleton import COCO17, SkeletonLayout


@dataclass(frozen=True, slots=True)
class DatasetRow:
    """One data set.

    Attributes:
        name: as `--dataset` spells it.
        folder: below `--dataset_path`.
        num_classes: K, or None to count the labels of the lists.
        class_names: K names in order of the label, or None for "class 0", "class 1", ...
        may_flip: whether a mirrored clip keeps its label.
        layout: of its keypoints.
        fps: frames per second where `clips.csv` does not say them; None when not known.
    """

    name: str
    folder: str
    num_classes: int | None
    class_names: tuple[str, ...] | None = None
    may_flip: bool = True
    layout: SkeletonLayout = COCO17
    fps: float | None = None


# FR-FS has no names here on purpose: its publications disagree on which label is a fall.
# Labels of something-something tell left from right.
_ROWS = (
    DatasetRow("FRFS", "FRFS", 2),
    DatasetRow("diving48", "diving48", 48),
    DatasetRow("something-v1", "something-v1", 174, may_flip=False),
    DatasetRow("something-v2", "something-v2", 174, may_flip=False),
    DatasetRow("kinetics400", "kinetics400", 400),
    DatasetRow("meccano", "meccano", 61),
    DatasetRow("synthetic", "synthetic", 2, ("landed", "fall"), fps=12.5),
)


def find_row(name: str) -> DatasetRow:
    """Return the row of data set `name`.

    A name that is not in the catalogue is a data set of the user's own in the same layout, with
    as many classes as its lists have.
    """
    known = {row.name: row for row in _ROWS}
    return known.get(name, DatasetRow(name, name, None))
