"""Pictures of some clips: what is stored, what was found in it, and what the network sees of it."""

from collections.abc import Sequence

import cv2
import numpy as np

from datasets.check.findings import Finding, printable
from datasets.check.strips import Sheet, Strip
from datasets.check.survey import Survey
from datasets.clips import ClipDataset, ViewSpec
from datasets.drawing import draw_bones, glow, join_strip
from datasets.frames import FrameSource
from datasets.order import SampleKey
from datasets.poses import find_poses
from datasets.records import ClipRecord
from datasets.sampling import sample_segments
from datasets.scan import find_clips
from datasets.sources import find_frames
from datasets.views import InputSpec
from errors import InputError

NUM_TILES = 5
_TILE_HEIGHT, _MOST_TILE_WIDTH = 112, 224  # pixels
_INPUT_SIZE = 112
_MOST_CLASSES, _CLIPS_OF_CLASS, _MOST_CLIPS = 10, 2, 12
_WORST_CLIPS = 8
_QUALITY = 78
_BROKEN = np.array((110, 24, 32), np.uint8)


def draw_worst(survey: Survey) -> list[Sheet]:
    """Draw the clips with the most findings, errors counting more."""
    by_clip: dict[str, list[Finding]] = {}
    for finding in survey.findings:
        if finding.clip:
            by_clip.setdefault(finding.clip, []).append(finding)

    def badness(clip: str) -> tuple[int, int]:
        found = by_clip[clip]
        return -sum(finding.level == "error" for finding in found), -len(found)

    listed = {printable(record.name): (record, split) for record, split in _listed(survey)}
    worst = sorted((clip for clip in by_clip if clip in listed), key=badness)[:_WORST_CLIPS]
    return [_draw(survey, *listed[clip], tuple(by_clip[clip])) for clip in worst]


def draw_classes(survey: Survey) -> list[Sheet]:
    """Draw a few clips of each class, from the train list where it has some."""
    has_error = {finding.clip for finding in survey.findings if finding.level == "error"}
    by_label: dict[int, list[tuple[ClipRecord, str]]] = {}
    for record, split in _listed(survey):
        if printable(record.name) not in has_error:
            by_label.setdefault(record.label, []).append((record, split))
    labels = sorted(by_label)[:_MOST_CLASSES]
    share = min(_CLIPS_OF_CLASS, max(1, _MOST_CLIPS // max(len(labels), 1)))
    sheets = []
    for label in labels:
        clips = by_label[label]
        chosen = [clips[i * len(clips) // share] for i in range(min(share, len(clips)))]
        sheets += [_draw(survey, record, split, ()) for record, split in chosen]
    return sheets


def _listed(survey: Survey) -> list[tuple[ClipRecord, str]]:
    records = survey.lists.records
    return [(record, split) for split in records for record in records[split]]


# ---------------------------------------------------------------- one clip


def _draw(survey: Survey, record: ClipRecord, split: str, findings: tuple[Finding, ...]) -> Sheet:
    strips, trouble = [], ""
    try:
        images = find_frames(survey.root, record, survey.lists.table)
        strips += _draw_stored(survey, record, images, findings)
        strips += _draw_network(survey, record)
    except InputError as error:
        trouble = printable(" ".join(str(error).split()))
    return Sheet(
        printable(record.name),
        split,
        printable(survey.lists.class_name(record.label)),
        record.num_frames,
        findings,
        tuple(strips),
        trouble,
    )


def _choose_frames(num_frames: int, findings: Sequence[Finding]) -> np.ndarray:
    """Return the frames around the first finding that names one, else frames spread over all."""
    around = next((f.frame for f in findings if f.frame is not None), None)
    if around is None or num_frames <= NUM_TILES:
        return sample_segments(num_frames, min(NUM_TILES, num_frames))
    first = np.clip(around - NUM_TILES // 2, 0, num_frames - NUM_TILES)
    return first + np.arange(NUM_TILES)


def _draw_stored(
    survey: Survey, record: ClipRecord, images: FrameSource, findings: Sequence[Finding]
) -> list[Strip]:
    """Draw frames as they are stored, with skeletons, and as heatmaps."""
    picks = _choose_frames(images.count, findings)
    size = images.size()
    frames, trouble = _load_each(images, picks, size)
    width = int(np.clip(_TILE_HEIGHT * size[0] / size[1], 16, _MOST_TILE_WIDTH))
    shown = (width, _TILE_HEIGHT)
    tiles = [cv2.resize(frame, shown, interpolation=cv2.INTER_AREA) for frame in frames]
    numbers = ", ".join(str(pick) for pick in picks.tolist())
    people = _people(survey, record, images, size, picks)
    if people is None:
        return [_strip(f"frames {numbers}{trouble}", tiles)]
    people = people * np.array([shown[0] / size[0], shown[1] / size[1], 1], np.float32)
    layout = survey.row.layout
    glowing = [
        glow(tile, some, layout, sigma=_TILE_HEIGHT / 36)
        for tile, some in zip(tiles, people, strict=True)
    ]
    for tile, some in zip(tiles, people, strict=True):
        for person in some:
            draw_bones(tile, person, layout, (255, 214, 10))
    return [
        _strip(f"frames {numbers}, with keypoints{trouble}", tiles),
        _strip("heatmap of the keypoints", glowing),
    ]


def _load_each(
    images: FrameSource, picks: np.ndarray, size: tuple[int, int]
) -> tuple[list[np.ndarray], str]:
    """Load frames; one that cannot be read becomes a red area, and is named."""
    try:
        return list(images.load(picks, size)), ""
    except InputError:
        frames, broken = [], []
        for pick in picks.tolist():
            try:
                frames.append(images.load(np.array([pick]), size)[0])
            except InputError:
                frames.append(np.full((size[1], size[0], 3), _BROKEN))
                broken.append(str(pick))
        return frames, f"; red: frame {', '.join(broken)} cannot be read"


def _people(
    survey: Survey,
    record: ClipRecord,
    images: FrameSource,
    size: tuple[int, int],
    picks: np.ndarray,
) -> np.ndarray | None:
    """Return the keypoints (T, M, V, 3) of some frames in pixels of `size`, None without any."""
    if not survey.has_poses:
        return None
    try:
        source = find_poses(survey.root, record, images, survey.row.layout)
        return None if source is None else source.load().keypoints_at(size)[picks]
    except InputError:
        return None


def _draw_network(survey: Survey, record: ClipRecord) -> list[Strip]:
    """Draw what a network is given in training: cropped, perhaps mirrored, resized."""
    clips, _ = find_clips(
        survey.root,
        [record],
        has_frames=True,
        has_poses=survey.has_poses,
        missing_pose="zero",
        layout=survey.row.layout,
    )
    spec = InputSpec(
        num_segments=NUM_TILES,
        input_size=_INPUT_SIZE,
        has_poses=survey.has_poses,
        heatmap_channel=survey.has_poses,
    )
    views = ViewSpec(train=True, may_flip=survey.row.may_flip)
    dataset = ClipDataset(clips, spec, views, layout=survey.row.layout)
    sample = dataset[SampleKey(epoch=0, index=0)]
    assert sample.frames is not None
    rgb = sample.frames[0].movedim(1, -1).numpy()  # (T, S, S, 3)
    strips = [_strip("input of the network in training, RGB", list(rgb))]
    if sample.heatmap is not None:
        grey = np.rint(255 * sample.heatmap[0].numpy()).astype(np.uint8)
        strips.append(_strip("its heatmap channel", [cv2.merge([one] * 3) for one in grey]))
    return strips


def _strip(caption: str, tiles: Sequence[np.ndarray]) -> Strip:
    picture = join_strip(tiles)
    bgr = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    encoded = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1]
    return Strip(caption, encoded.tobytes(), (picture.shape[1], picture.shape[0]))
