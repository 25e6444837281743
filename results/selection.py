"""Whether the clips of a test had a say in what they test; then its accuracy is optimistic."""

from collections.abc import Sequence

from results.score_files import ClipScores

_PUBLISHED = "published"
_LAST = "the last epoch"
_NOT_APART = "not apart"
_SAME_NAMES = "same names"


def overlap_protocol(found: Sequence[str]) -> str:
    """Return the `protocol` of scores whose clips a model has seen, from what was found of it.

    Args:
        found: what the clips share with other lists, a phrase for each; none for an honest test.
    """
    return f"{_NOT_APART} ({'; '.join(found)})" if found else ""


def names_protocol(found: Sequence[str]) -> str:
    """Return the `protocol` of scores whose clips have names that the model has seen.

    Args:
        found: a phrase for each list of the model; none when no names coincide.
    """
    return f"{_SAME_NAMES} ({'; '.join(found)})" if found else ""


def protocol_reason(protocol: str) -> str:
    """Return what the `protocol` of scores or of a report says, as a sentence; "" for none."""
    if not protocol:
        return ""
    if protocol.startswith(_NOT_APART):
        found = protocol.removeprefix(f"{_NOT_APART} (").removesuffix(")")
        return f"trained or selected on clips of this test: {found}; the accuracy is optimistic"
    if protocol.startswith(_SAME_NAMES):
        found = protocol.removeprefix(f"{_SAME_NAMES} (").removesuffix(")")
        return (
            f"perhaps trained or selected on clips of this test: {found}; if they are the same "
            "clips, the accuracy is optimistic"
        )
    if protocol.endswith(_LAST):
        return (
            "val is the test list: the last epoch was tested, so the clips chose no epoch; they "
            "may have chosen options"
        )
    return (
        "selected on the test list: these clips chose the epoch; the accuracy is optimistic"
        if protocol.startswith(_PUBLISHED)
        else f"selected on the test list: {protocol}; the accuracy is optimistic"
    )


def split_reason(split: str, protocol: str = "") -> str:
    """Return what the list of a test says about it, as a sentence; "" for the test list.

    Args:
        split: the list.
        protocol: of its scores.
    """
    if split == "val" and protocol.startswith(_NOT_APART):
        return "a report on the val list, and the model was trained on clips of it: this is no test"
    if split == "val":
        return (
            "a report on the val list: these clips chose the epoch; the accuracy is optimistic and "
            "no result of a test"
        )
    if split == "train":
        return "a report on the train list: the model was trained on these clips; this is no test"
    return ""


def selection_reasons(models: Sequence[ClipScores], split: str) -> list[str]:
    """Return why the result of some models is optimistic, a sentence for each reason.

    Args:
        models: scores of the same clips.
        split: the list, where the scores do not say.
    """
    found = [protocol_reason(scores.protocol) for scores in models]
    found += [split_reason(scores.split or split, scores.protocol) for scores in models]
    return [reason for reason in dict.fromkeys(found) if reason]
