import os
import shutil

import av
import cv2
import numpy as np
import pytest

from datasets.check.clip import ClipTask, check_clip
from datasets.check.findings import KINDS
from datasets.clip_table import ClipRow
from datasets.records import ClipRecord
from tests.making_videos import SIZE as FILM
from tests.making_videos import write_video
from tests.scenes import NUM_FRAMES, SIZE, write_clip


@pytest.fixture
def folder(tmp_path):
    write_clip(tmp_path / "frames" / "clip 1", seed=0)
    return tmp_path / "frames" / "clip 1"


def check(folder, num_frames=NUM_FRAMES, decode=True, **choices):
    given = {"has_frames": True, "has_poses": False, **choices}
    record = ClipRecord(folder.name, num_frames, 0)
    return check_clip(ClipTask(folder.parent.parent, record, None, decode, **given))


def kinds(folder, *args, **choices):
    return [finding.kind for finding in check(folder, *args, **choices).findings]


def frame(folder, number):
    return folder / f"{number:05d}.jpg"


@pytest.mark.parametrize("decode", [True, False])
def test_a_sound_clip_has_no_finding_and_is_described(folder, decode):
    result = check(folder, decode=decode)
    assert result.findings == ()
    assert (result.size, result.frames, len(result.keys)) == (SIZE, NUM_FRAMES, NUM_FRAMES)
    assert result.signature is not None
    assert len(result.sha256) == 64


def test_the_content_of_a_clip_does_not_depend_on_its_name(folder, tmp_path):
    other = tmp_path / "frames" / "other"
    shutil.copytree(folder, other)
    assert check(folder).sha256 == check(other).sha256
    frame(other, 3).write_bytes(frame(other, 4).read_bytes())
    assert check(folder).sha256 != check(other).sha256


def empty(folder):
    frame(folder, 5).write_bytes(b"")


def web_page(folder):
    frame(folder, 5).write_bytes(b"<html>not found</html>")


def cut(folder):
    data = frame(folder, 5).read_bytes()
    frame(folder, 5).write_bytes(data[: len(data) * 2 // 3])


def tail(folder):
    with frame(folder, 5).open("ab") as file:
        file.write(b"padding")


def bomb(folder):
    data = bytearray(frame(folder, 5).read_bytes())
    place = data.index(b"\xff\xc0")
    data[place + 5 : place + 9] = (30_000).to_bytes(2, "big") * 2
    frame(folder, 5).write_bytes(data)


def holes(folder):
    data = bytearray(frame(folder, 5).read_bytes())
    start = data.index(b"\xff\xda") + 20
    data[start : start + 200] = b"\xff\x00" * 100
    frame(folder, 5).write_bytes(data)


def gap(folder):
    frame(folder, 5).unlink()


def fewer(folder):
    frame(folder, NUM_FRAMES).unlink()


def more(folder):
    shutil.copy(frame(folder, 7), frame(folder, NUM_FRAMES + 1))


def twice(folder):
    shutil.copy(frame(folder, 5), folder / "0000005.jpg")


def nameless(folder):
    shutil.copy(frame(folder, 5), folder / "cover.jpg")


def other_size(folder):
    cv2.imwrite(str(frame(folder, 5)), np.zeros((32, 48, 3), np.uint8))


def repeated(folder):
    for number in range(6, 12):
        shutil.copy(frame(folder, 5), frame(folder, number))


def gone(folder):
    shutil.rmtree(folder)


def bare(folder):
    gone(folder)
    folder.mkdir()


FAULTS = {
    "frame_empty": empty,
    "frame_not_image": web_page,
    "frame_truncated": cut,
    "frame_tail": tail,
    "frame_oversized": bomb,
    "frame_corrupt": holes,
    "frame_gap": gap,
    "frames_fewer": fewer,
    "frames_more": more,
    "frame_names": twice,
    "size_changes": other_size,
    "frames_repeated": repeated,
    "frames_missing": gone,
}


@pytest.mark.parametrize(("kind", "plant"), FAULTS.items(), ids=FAULTS)
def test_a_planted_fault_is_found_and_named(folder, kind, plant):
    assert kind not in kinds(folder)
    plant(folder)
    found = {finding.kind: finding for finding in check(folder).findings}
    assert kind in found
    assert str(folder) in found[kind].path
    assert "\n" not in found[kind].line()
    assert found[kind].line().endswith(KINDS[kind].remedy)


def test_a_frame_without_a_number_and_an_empty_folder_are_found(folder):
    nameless(folder)
    assert "frame_names" in kinds(folder)
    bare(folder)
    assert kinds(folder) == ["frames_missing"]


def test_a_gap_names_the_missing_frames(folder):
    for number in (5, 6, 7):
        frame(folder, number).unlink()
    texts = [finding.text for finding in check(folder).findings]
    assert "lacks frame 5 to 7, between 00004.jpg and 00008.jpg" in texts


def test_many_broken_frames_are_one_finding_with_their_number(folder):
    for number in (3, 9, 11):
        frame(folder, number).write_bytes(b"")
    (finding,) = [f for f in check(folder).findings if f.kind == "frame_empty"]
    assert finding.path.endswith("00003.jpg")
    assert "2 more of this clip" in finding.text


def test_without_decoding_headers_still_tell(folder):
    cut(folder)
    assert kinds(folder, decode=False) == ["frame_truncated"]


def test_single_repeats_as_in_real_videos_are_no_finding(folder):
    for number in (5, 15):
        shutil.copy(frame(folder, number), frame(folder, number + 1))
    assert kinds(folder) == []


def test_frames_may_count_from_zero_and_be_unpadded(folder):
    for number in range(1, NUM_FRAMES + 1):
        frame(folder, number).rename(folder / f"img{number - 1}.jpg")
    assert kinds(folder) == []


def test_a_pipe_named_as_a_frame_is_not_read(folder):
    os.mkfifo(frame(folder, NUM_FRAMES + 1))
    assert kinds(folder) == []


def test_a_folder_that_leads_outside_is_an_error(folder, tmp_path):
    outside = tmp_path / "elsewhere"
    folder.rename(outside)
    folder.symlink_to(outside)
    (finding,) = check(folder).findings
    assert finding.level == "error"
    assert "outside" in finding.text


def test_what_training_refuses_is_always_an_error(folder):
    """Whatever is wrong with names and numbers: no error here means that training opens it."""
    from datasets.frames import ImageFrames
    from errors import InputError

    for plant in FAULTS.values():
        shutil.rmtree(folder, ignore_errors=True)
        write_clip(folder, seed=0)
        plant(folder)
        try:
            images = ImageFrames.find(folder, NUM_FRAMES)
            for block in images.blocks(images.size(), 8):
                del block
            opens = True
        except InputError:
            opens = False
        has_error = any(finding.level == "error" for finding in check(folder).findings)
        assert opens or has_error, plant.__name__


def test_skeletons_alone_miss_no_frames(folder):
    gone(folder)
    assert kinds(folder, has_frames=False) == []


# ---------------------------------------------------------------- videos


def check_film(root, name="film.mp4", num_frames=30, decode=True):
    row = ClipRow("clip", video=name, num_frames=num_frames, width=FILM[0], height=FILM[1])
    task = ClipTask(root, ClipRecord("clip", num_frames, 0), row, decode, True, False)
    return check_clip(task)


@pytest.fixture
def film(tmp_path):
    (tmp_path / "videos").mkdir()
    write_video(tmp_path / "videos" / "film.mp4", num_frames=30)
    return tmp_path / "videos" / "film.mp4"


@pytest.mark.parametrize("decode", [True, False])
def test_a_sound_video_has_no_finding(film, tmp_path, decode):
    result = check_film(tmp_path, decode=decode)
    assert (result.findings, result.frames, result.size) == ((), 30, FILM)
    assert (result.signature is not None) == decode


def test_a_damaged_a_short_and_a_missing_video_are_told_apart(film, tmp_path):
    assert [f.kind for f in check_film(tmp_path, num_frames=40).findings] == ["video_damaged"]
    film.write_bytes(film.read_bytes()[:400])
    assert [f.kind for f in check_film(tmp_path).findings] == ["video_damaged"]
    film.write_bytes(b"")
    assert [f.kind for f in check_film(tmp_path, decode=False).findings] == ["video_damaged"]
    film.unlink()
    (finding,) = check_film(tmp_path, decode=False).findings
    assert (finding.kind, finding.path) == ("frames_missing", str(film))


def test_a_video_that_stands_still_is_told(tmp_path):
    (tmp_path / "videos").mkdir()
    path = tmp_path / "videos" / "film.mp4"
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = *FILM, "yuv420p"
        for _ in range(30):
            image = np.full((FILM[1], FILM[0], 3), 90, np.uint8)
            file.mux(stream.encode(av.VideoFrame.from_ndarray(image, "rgb24")))
        file.mux(stream.encode(None))
    assert [f.kind for f in check_film(tmp_path).findings] == ["frames_repeated"]
