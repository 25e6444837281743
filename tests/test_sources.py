"""Where the frames of a listed clip are found, and where they are not looked for."""

import os

import numpy as np
import pytest

from datasets.clip_table import ClipRow
from datasets.frames import ImageFrames
from datasets.records import ClipRecord
from datasets.sources import find_frames, refuse_outside
from datasets.videos import VideoFrames
from errors import InputError

RECORD = ClipRecord("clip 1", 4, 0)


def complaint(root, record=RECORD, table=None):
    with pytest.raises(InputError) as caught:
        find_frames(root, record, table or {})
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message


def test_images_are_found_and_go_before_a_video(tmp_path, make_frames):
    make_frames(tmp_path / "frames" / "clip 1", 4)
    table = {"clip 1": ClipRow("clip 1", "v.mp4", num_frames=4)}
    for rows in ({}, table):
        found = find_frames(tmp_path, RECORD, rows)
        assert isinstance(found, ImageFrames)
        assert found.load(np.array([0, 3]), (64, 36)).shape == (2, 36, 64, 3)


def test_a_video_is_found_by_the_table(tmp_path):
    row = ClipRow("clip 1", "sub/v.mp4", 30, 99, 4, 64, 36)
    found = find_frames(tmp_path, RECORD, {"clip 1": row})
    assert isinstance(found, VideoFrames)
    assert found.place == tmp_path / "videos" / "sub" / "v.mp4"
    assert (found.count, found.first_frame, found.start_pts) == (4, 30, 99)


def test_list_and_table_must_agree(tmp_path):
    message = complaint(tmp_path, table={"clip 1": ClipRow("clip 1", "v.mp4", num_frames=5)})
    assert "has 4 frames in its list and 5 in" in message


def test_a_folder_that_leads_out_is_refused(tmp_path, make_frames):
    make_frames(tmp_path / "elsewhere", 4)
    (tmp_path / "frames").mkdir()
    (tmp_path / "frames" / "clip 1").symlink_to(tmp_path / "elsewhere")
    assert "outside of" in complaint(tmp_path)
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "out").symlink_to(tmp_path / "elsewhere")
    row = ClipRow("clip 2", "out/v.mp4", num_frames=4)
    assert "outside of" in complaint(tmp_path, ClipRecord("clip 2", 4, 0), {"clip 2": row})


def test_a_loop_of_links_a_long_name_and_nul_are_refused(tmp_path):
    (tmp_path / "frames").mkdir()
    (tmp_path / "frames" / "clip 1").symlink_to(tmp_path / "frames" / "clip 1")
    complaint(tmp_path)
    complaint(tmp_path, ClipRecord("x" * 4096, 4, 0))
    complaint(tmp_path, ClipRecord("/".join("x" * 200 for _ in range(30)), 4, 0))
    with pytest.raises(InputError, match="no usable path"):
        refuse_outside(tmp_path / "a\0b", tmp_path)


def test_files_may_be_links_and_the_data_set_may_be_one(tmp_path, make_frames):
    make_frames(tmp_path / "source", 4)
    folder = tmp_path / "data" / "frames" / "clip 1"
    folder.mkdir(parents=True)
    for path in (tmp_path / "source").iterdir():
        (folder / path.name).symlink_to(path)
    (tmp_path / "link").symlink_to(tmp_path / "data")
    found = find_frames(tmp_path / "link", RECORD, {})
    assert found.load(np.arange(4), (64, 36)).shape == (4, 36, 64, 3)


@pytest.mark.parametrize("odd", ["pipe", "device", "folder"])
def test_what_is_no_file_is_never_opened(tmp_path, make_frames, odd):
    folder = tmp_path / "frames" / "clip 1"
    make_frames(folder, 4)
    path = folder / "00003.jpg"
    path.unlink()
    if odd == "pipe":
        os.mkfifo(path)
    elif odd == "device":
        path.symlink_to("/dev/zero")
    else:
        path.mkdir()
    assert "00003.jpg is missing" in complaint(tmp_path)
