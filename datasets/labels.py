"""What the labels of lists lack, said before anything is trained."""

from collections.abc import Mapping, Sequence

import numpy as np

from errors import printable

_SHOWN = 5
_MEANING = {
    "train": "the network cannot learn them",
    "val": "nothing about them decides which epoch is the best",
    "test": "the result says nothing about them",
}


def find_class_gaps(labels: Mapping[str, np.ndarray], classes: Sequence[str]) -> list[str]:
    """Say which classes have no clip in a list, one line a list.

    Args:
        labels: list ("train", "val" or "test") -> (N,) class of each of its clips.
        classes: names of all K classes.

    Returns:
        Warnings; empty where every list has clips of every class.
    """
    found = []
    for split, own in labels.items():
        counts = np.bincount(own, minlength=len(classes))
        absent = [name for name, count in zip(classes, counts, strict=True) if not count]
        if len(absent) == len(classes) - 1 and absent:
            only = printable(classes[int(counts.argmax())])
            found.append(
                f"all {len(own)} clips of the {split} list are of class {only}: an accuracy of "
                "them means nothing; check its labels"
            )
        elif absent:
            found.append(
                f"the {split} list has no clip of {_names(absent)}: {_MEANING[split]}; check its "
                "labels"
            )
    return found


def _names(absent: Sequence[str]) -> str:
    """Return names as 'class a' or 'the classes a, b and 3 more'."""
    if len(absent) == 1:
        return f"class {printable(absent[0])}"
    shown = ", ".join(printable(name) for name in absent[:_SHOWN])
    more = f" and {len(absent) - _SHOWN} more" if len(absent) > _SHOWN else ""
    return f"the classes {shown}{more}"
