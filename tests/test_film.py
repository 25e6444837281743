from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from datasets.check.strips import Strip
from datasets.clips import ClipDataset, ViewSpec
from datasets.frames import ImageFrames, NumberedFiles
from datasets.order import SampleKey
from datasets.records import load_records
from datasets.scan import find_clips
from datasets.videos import VideoFrames
from datasets.views import InputSpec
from errors import InputError
from explanation.film import MOST_TILES, Film, detection_rates, frame_names, gate_strip
from explanation.gates import GateMaps
from explanation.pictures import (
    AGAINST,
    FOR,
    TILE_HEIGHT,
    add_glow,
    draw_importance,
    encode_strip,
    overlay,
    seen_frames,
    tile_size,
)
from ops.skeleton import COCO17
from tests.conftest import grey_of

CPU = torch.device("cpu")


def clips_of(root, num_clips=1, **changes):
    spec = InputSpec(**({"num_segments": 4, "input_size": 32, "heatmap_channel": True} | changes))
    found, _ = find_clips(
        root, load_records(root / "test_videofolder.txt"), has_frames=spec.has_frames,
        has_poses=spec.has_poses, missing_pose="zero",
    )  # fmt: skip
    return ClipDataset(found, spec, ViewSpec(num_clips=num_clips, test_crops=3))


def picture_of(strip: Strip) -> np.ndarray:
    picture = cv2.imdecode(np.frombuffer(strip.jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert picture.shape[1::-1] == strip.size
    return picture[..., ::-1]


@pytest.mark.parametrize(
    ("num_clips", "frames"), [(1, (1, 4, 7, 10)), (2, (0, 3, 6, 9)), (3, (0, 3, 6, 9))]
)
def test_frames_are_those_of_the_first_sampling_that_was_scored(dataset, num_clips, frames):
    clips = clips_of(dataset, num_clips, has_poses=False, heatmap_channel=False)
    scored = clips[SampleKey(0, 1)].frames
    assert len(scored) == num_clips * 3
    (strip,) = Film(clips, dataset, None, CPU).draw("test_1", 0, "fall")
    numbers = ", ".join(f"{frame + 1:05d}" for frame in frames)  # files count from 1
    assert strip.caption == f"Input: frames {numbers}"
    picture = picture_of(strip)
    assert picture.shape[0] == TILE_HEIGHT
    width = (picture.shape[1] - 3 * 2) // 4
    seen = seen_frames(scored[0])
    for tile, frame in enumerate(frames):
        assert np.abs(seen[tile].astype(int) - grey_of(frame)).max() < 12
        middle = picture[20:60, tile * (width + 2) + 10 : tile * (width + 2) + width - 10]
        assert np.abs(middle.astype(int) - grey_of(frame)).max() < 12


def test_drawing_does_not_depend_on_the_views_that_were_scored_and_changes_no_sample(dataset):
    clips = clips_of(dataset, 2)
    before = clips[SampleKey(0, 0)].frames.clone()
    Film(clips, dataset, None, CPU).draw("test_0", 0, "fall")
    assert torch.equal(clips[SampleKey(0, 0)].frames, before)
    assert before.shape[0] == 6


def test_the_skeleton_lies_where_the_heatmap_glows(dataset):
    clips = clips_of(dataset, input_size=64, field_of_view="frame")
    first, second = Film(clips, dataset, None, CPU).draw("test_0", 0, "fall")
    yellow = picture_of(first).astype(int)
    bones = (yellow[..., 0] - yellow[..., 2]) > 60
    glow = picture_of(second).astype(int)
    lit = (glow[..., 0] - glow[..., 2]) > 60
    # Joints glow, bones connect them: they reach as far to all sides, in each of the four tiles.
    for one, other in zip(
        np.split(bones[:, :572], 4, 1), np.split(lit[:, :572], 4, 1), strict=True
    ):
        for axis in (0, 1):
            ends = [np.flatnonzero(part.any(axis))[[0, -1]] for part in (one, other)]
            assert np.abs(ends[0] - ends[1]).max() <= 6


def test_maps_are_those_of_the_first_sampling_that_was_scored(dataset, monkeypatch):
    seen = []
    monkeypatch.setattr(Film, "_maps", lambda self, tiles, batch, *_: seen.append(batch) or [])
    clips = clips_of(dataset, 2)
    Film(clips, dataset, None, CPU).draw("test_0", 0, "fall")
    (batch,) = seen
    centre = clips_of(dataset, 2)
    centre.views = ViewSpec(num_clips=2)
    sample = centre[SampleKey(0, 0)]
    assert torch.equal(batch.frames, sample.frames[:1])
    assert torch.equal(batch.keypoints, sample.keypoints[:1])
    assert batch.views == 1


def test_frames_have_the_numbers_of_their_files(dataset):
    files = NumberedFiles(dataset, "img_", 7, 4, ".jpg", 5, 5)
    assert frame_names(ImageFrames(files), np.array([0, 2])) == "0007, 0009"
    video = VideoFrames(dataset / "a.mp4", 5, 30, None, (64, 36))
    assert frame_names(video, np.array([0, 2])) == "0, 2"
    assert frame_names(None, np.array([4])) == "4"


def test_long_inputs_show_some_segments(dataset):
    clips = clips_of(dataset, num_segments=12)
    first = Film(clips, dataset, None, CPU).draw("test_0", 0, "x")[0]
    assert len(first.caption.split(", with")[0].split(",")) == MOST_TILES


def test_skeletons_alone_need_no_frames(dataset):
    for path in (dataset / "frames" / "test_0").iterdir():
        path.unlink()
    clips = clips_of(dataset, has_frames=False, heatmap_channel=False)
    (strip,) = Film(clips, dataset, None, CPU).draw("test_0", 0, "x")
    assert picture_of(strip).max() > 150


def test_a_clip_that_is_not_there_or_not_readable_is_one_line(dataset):
    film = Film(clips_of(dataset), dataset, None, CPU)
    with pytest.raises(InputError, match="clip nobody is not in the list"):
        film.draw("nobody", 0, "x")
    (dataset / "frames" / "test_0" / "00002.jpg").write_bytes(b"no picture")
    with pytest.raises(InputError, match="00002"):
        film.draw("test_0", 0, "x")


def test_detection_rates_of_clips_whose_keypoints_did_not_fit_in_memory(dataset, make_archive):
    some = np.ones((12, 2, 17, 3), np.float32)
    some[:6, 0] = 0
    some[:3, 1] = 0
    make_archive(dataset / "poses" / "test_1.npz", some)
    clips = clips_of(dataset)
    assert detection_rates(clips, dataset).tolist() == [1.0, 0.75]
    emptied = ClipDataset([replace(c, keypoints=None) for c in clips.clips], clips.spec, ViewSpec())
    assert detection_rates(emptied, dataset).tolist() == [1.0, 0.75]


# ---------------------------------------------------------------- drawing


def test_what_moves_on_lies_above_what_moves_back():
    gates = torch.zeros(1, 2, 2, 4, 4)
    gates[:, :, 1], gates[:, :, 0] = 0.5, -0.25  # group 1 goes to the next segment
    tiles = [np.full((80, 100, 3), 200, np.uint8)] * 2
    strip = gate_strip(tiles, GateMaps("layer1.0", gates), np.arange(2))
    assert strip.caption.endswith("strongest gate 0.50")
    picture = picture_of(strip).astype(int)
    assert picture.shape[:2] == (162, 202)
    assert picture[40, 50, 0] - picture[40, 50, 2] > 100
    assert picture[120, 50, 2] - picture[120, 50, 0] > 30


@pytest.mark.parametrize(("value", "colour"), [(1.0, FOR), (-1.0, AGAINST)])
def test_maps_colour_their_place_and_grey_the_rest(value, colour):
    values = np.zeros((4, 4))
    values[:, :2] = value
    drawn = overlay(np.full((80, 80, 3), 255, np.uint8), values)
    np.testing.assert_allclose(drawn[40, 2], colour, atol=1)
    assert len(set(drawn[40, 78].tolist())) == 1


def test_heat_glows():
    heat = np.zeros((4, 4), np.float32)
    heat[0] = 1
    drawn = add_glow(np.full((40, 40, 3), 100, np.uint8), heat)
    assert drawn[0, 20, 0] > 250
    assert drawn[39, 20].max() < 40


def test_important_joints_have_disks_and_undetected_ones_none():
    person = np.zeros((17, 3), np.float32)
    person[3] = (20, 30, 1)
    person[5] = (60, 30, 1)
    person[7] = (50, 10, 0)
    importance = np.zeros(17)
    importance[[3, 7]] = 1.0
    importance[5] = -1.0
    drawn = draw_importance(np.zeros((80, 80, 3), np.uint8), person, importance, COCO17)
    np.testing.assert_allclose(drawn[30, 20], FOR, atol=1)
    np.testing.assert_allclose(drawn[30, 60], AGAINST, atol=1)
    assert drawn[10, 50].max() == 0


@pytest.mark.parametrize("place", [(np.inf, 0), (1e30, -1e30), (-5, 3)])
def test_joints_far_away_draw_nothing_bad(place):
    person = np.zeros((17, 3), np.float32)
    person[3] = (*place, 1)
    with np.errstate(invalid="ignore"):
        draw_importance(np.zeros((80, 80, 3), np.uint8), person, np.ones(17), COCO17)


def test_rows_of_a_strip_lie_below_each_other():
    tiles = [np.full((80, 60, 3), 40 * n, np.uint8) for n in range(3)]
    strip = encode_strip("two", tiles, tiles[::-1])
    assert strip.size == (3 * 60 + 2 * 2, 2 * 80 + 2)
    picture = picture_of(strip)
    assert picture[40, 30, 0] < 20
    assert picture[120, 30, 0] > 60


@pytest.mark.parametrize("size", [(640, 360), (1, 1000), (1000, 1)])
def test_tiles_of_any_shape_can_be_drawn(size):
    width, height = tile_size(*size)
    assert 48 <= width <= 160
    assert height == TILE_HEIGHT
