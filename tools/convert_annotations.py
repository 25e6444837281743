"""Write an annotation pickle with the joints of another layout.

python tools/convert_annotations.py ntu60_2d.pkl --to coco17 --output ntu60_coco17.pkl
python tools/convert_annotations.py own.pkl --skeleton_layout openpose25 --to coco17 --output c.pkl

For weights that were trained on other joints. Compressed files (Kinetics) become plain ones.
"""

import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from console import StepLine, say, warn  # noqa: E402
from datasets.annotations.annotation_set import (  # noqa: E402
    AnnotationSet,
    open_annotations,
    told_layout,
)
from datasets.annotations.checks import check_annotations  # noqa: E402
from datasets.annotations.exporting import Annotation, write_annotations  # noqa: E402
from errors import InputError, run_script  # noqa: E402
from ops.conversion import convert_keypoints, joint_sources, numbered_joints  # noqa: E402
from ops.skeleton import SkeletonLayout  # noqa: E402
from options.annotations import parse_convert_args  # noqa: E402
from options.skeletons import layout_of  # noqa: E402


def main(argv: Sequence[str] | None = None) -> int:
    """Write the pickle; return how many clips there are."""
    args = parse_convert_args(argv)
    target = layout_of(args.to)
    assert target is not None
    with tempfile.TemporaryDirectory(prefix="annotations-") as cache:
        found = open_annotations(
            args.file, layout_of(args.skeleton_layout), Path(cache), args.keypoint_files
        )
        refuse_lossy(found, target)
        broken = broken_clips(found, args.skip_broken)
        clips = [name for name in found.names if name not in broken]
        splits = {} if found.is_bare else found.splits
        count = write_annotations(args.output, converted(found, target, clips), splits)
    source = found.layout
    empty = [
        joint
        for joint, from_joints in zip(target.joints, joint_sources(source, target), strict=True)
        if not from_joints
    ]
    if broken:
        warn(f"{args.file}: {len(broken)} broken clips were left out (--skip_broken)")
    say(f"{args.output}: {count} clips, {len(source)} joints of {source.name} to {target.name}")
    if told_layout(len(target), source.dims) != replace(target, dims=source.dims):
        say(
            f"{len(target)} joints in {source.dims} dimensions do not tell their layout: give "
            f"--skeleton_layout {target.name} (or its JSON file) wherever the file is used"
        )
    if empty:
        say(f"undetected everywhere, as {source.name} has no place for them: {', '.join(empty)}")
    return count


def refuse_lossy(found: AnnotationSet, target: SkeletonLayout) -> None:
    """Refuse what would lose clips, or take one joint for another.

    Raises:
        InputError: a clip is there several times, or a layout only numbers its joints.
    """
    repeated = next(iter(found.store.repeats), None)
    if repeated is not None:
        raise InputError(
            f"{found.path} has clip {repeated[:80]!r} {found.store.repeats[repeated]} times: leave "
            "one of them"
        )
    if target.joints == numbered_joints(len(target)) and target != found.layout:
        raise InputError(
            f"the layout {target.name} numbers its joints, and they are matched by name: give "
            "their names as joints"
        )


def broken_clips(found: AnnotationSet, skip: bool) -> set[str]:
    """Return the clips that are broken; "" stands for annotations without a name.

    Raises:
        InputError: there is one, and it may not be left out.
    """
    faults = [one for one in check_annotations(found) if one.severity == "error"]
    # Splits are taken over as they are, but for clips that are not there.
    faults = [one for one in faults if one.field != "split"]
    if faults and not skip:
        who = f"clip {faults[0].sample[:80]!r}" if faults[0].sample else "the file"
        raise InputError(
            f"{found.path}: {who}, {faults[0].field}: {faults[0].text}. Name all that is wrong "
            "with tools/check_annotations.py, mend it, or leave it out with --skip_broken"
        )
    return {one.sample for one in faults}


def converted(
    found: AnnotationSet, target: SkeletonLayout, clips: Sequence[str]
) -> Iterator[Annotation]:
    """Yield each of these clips with the joints of another layout.

    Raises:
        InputError: there is no conversion between the two.
    """
    with StepLine("clips", every=1000) as line:
        for number, name in enumerate(clips, start=1):
            try:
                tracks = convert_keypoints(found.keypoints(name), found.layout, target)
            except ValueError as error:
                raise InputError(f"{found.path}: {error}") from None
            yield Annotation(name, found.label(name), tracks, found.size(name))
            line(number, len(clips))


if __name__ == "__main__":
    run_script(main)
