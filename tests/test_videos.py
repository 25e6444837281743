"""Frames of videos are those of a full decode, whatever the codec; damage has one clear line."""

import gc
import os
import pickle
import resource
from pathlib import Path

import av
import numpy as np
import pytest

from datasets import video_files
from datasets.prepare import probing
from datasets.prepare.probing import VideoLimits, _Tally, probe_video
from datasets.prepare.video_plan import find_part, find_start, load_info, save_info
from datasets.video_files import frames_from, orientation_of, upright_rgb
from datasets.videos import VideoFrames
from errors import InputError
from tests.clocks import soon
from tests.making_videos import SIZE, cut, number_of, picture, write_sound, write_video

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


def complaint(call, *args) -> str:
    with pytest.raises(InputError) as caught:
        call(*args)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def whole(path: Path, first: int = 0, count: int | None = None, start_pts=None) -> VideoFrames:
    info = probe_video(path)
    count = info.num_frames - first if count is None else count
    return VideoFrames(path, count, first, start_pts, (info.width, info.height))


def decode_plainly(path: Path) -> np.ndarray:
    """Decode all of a video without any of our code."""
    with av.open(str(path)) as file:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)])


KINDS = {
    "h264 with B frames": {"name": "a.mp4"},
    "open groups of pictures": {
        "name": "a.mp4",
        "options": {"x264-params": "open-gop=1:bframes=3:b-adapt=0"},
    },
    "intra refresh": {"name": "a.mp4", "options": {"x264-params": "intra-refresh=1:bframes=0"}},
    "xvid avi": {"name": "a.avi", "codec": "mpeg4"},
    "vp9": {"name": "a.webm", "codec": "libvpx-vp9"},
    "transport stream": {"name": "a.ts"},
    "lossless, odd size": {"name": "a.mkv", "codec": "ffv1", "pixels": "yuv444p", "size": (63, 47)},
    "10 bits, 4:4:4": {"name": "a.mp4", "pixels": "yuv444p10le"},
    "motion JPEG": {"name": "a.avi", "codec": "mjpeg", "pixels": "yuvj420p"},
    "mpeg2 program stream": {"name": "a.mpg", "codec": "mpeg2video"},
    "bottom up": {"name": "a.avi", "codec": "rawvideo", "pixels": "bgr24"},
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_part_of_a_video_equals_that_of_a_full_decode(kind, tmp_path):
    choices = dict(KINDS[kind])
    path = write_video(tmp_path / choices.pop("name"), 60, **choices)
    info = probe_video(path)
    full = decode_plainly(path)
    size = (info.width, info.height)
    assert (info.num_frames, size) == (60, choices.get("size", SIZE))
    assert max(abs(number_of(image, 60) - i) for i, image in enumerate(full)) <= 3
    for first in (0, 1, 9, 10, 11, 13, 29, 40, 57):
        count = min(12, 60 - first)
        for start in {None, find_start(path, info, first, count)}:
            video = VideoFrames(path, count, first, start, size)
            indices = np.array([count - 1, 0, 1, 0, count // 2])
            assert np.array_equal(video.load(indices, size), full[first + indices])
            indices = np.unique(indices)
            assert np.array_equal(list(video.stream(indices, size)), full[first + indices])
            blocks = list(video.blocks(size, 5))
            assert [len(block) for block in blocks[:-1]] == [5] * (len(blocks) - 1)
            assert np.array_equal(np.concatenate(blocks), full[first : first + count])


@pytest.mark.parametrize("kind", ["h264 with B frames", "vp9", "transport stream"])
def test_seeking_is_used_where_it_leads_to_the_same_frames(kind, tmp_path, monkeypatch):
    choices = dict(KINDS[kind])
    path = write_video(tmp_path / choices.pop("name"), 60, **choices)
    info = probe_video(path)
    assert all(find_start(path, info, first, 5) is not None for first in range(15, 50))
    read = []
    monkeypatch.setattr(
        "datasets.videos.frames_from", lambda *args: read.append(args[2]) or frames_from(*args)
    )
    monkeypatch.setattr("datasets.videos.decode_frames", lambda _: pytest.fail("from the start"))
    for first in range(15, 50, 7):
        video = VideoFrames(path, 5, first, int(info.pts[first]), SIZE)
        assert number_of(video.load(np.array([2]), SIZE)[0], 60) == first + 2
    assert read.count(0.0) == 5


def test_a_wrong_time_stamp_falls_back_to_counting(tmp_path):
    path = write_video(tmp_path / "a.mp4", 40)
    info = probe_video(path)
    video = VideoFrames(path, 5, 20, int(info.pts[20]) + 1, SIZE)
    assert [number_of(image, 40) for image in video.load(np.arange(5), SIZE)] == list(range(20, 25))


def test_check_sums_refuse_a_seek_that_leads_to_other_pictures(tmp_path):
    path = write_video(tmp_path / "a.mp4", 40)
    info = probe_video(path)
    assert find_start(path, info, 20, 5) == info.pts[20]
    info.sums[22] ^= 1
    assert find_start(path, info, 20, 5) is None
    assert find_start(path, info, 0, 5) is None


def test_real_videos_parts_equal_a_full_decode():
    if not DATA.is_dir():
        pytest.skip("../shared/data is not part of the project: no real videos")
    for path in sorted((DATA / "clips").iterdir()):
        info = probe_video(path)
        full, size = decode_plainly(path), (info.width, info.height)
        assert len(full) == info.num_frames
        for first in range(1, info.num_frames - 10, 37):
            start = find_start(path, info, first, 9)
            assert (start is None) == (path.suffix == ".avi")  # its time stamps jump
            video = VideoFrames(path, 9, first, start, size)
            assert np.array_equal(video.load(np.array([8, 2]), size), full[[first + 8, first + 2]])


@pytest.mark.parametrize("rotation", [0, 90, 180, -90])
def test_frames_are_upright_as_shown(rotation, tmp_path):
    path = write_video(tmp_path / "a.mp4", 3, rotation=rotation)
    video = whole(path)
    assert video.size() == (SIZE if rotation % 180 == 0 else SIZE[::-1])
    image = video.load(np.array([1]), video.size())[0]
    expected = np.rot90(picture(1), rotation // 90)  # counterclockwise, as the tag
    assert np.abs(image.astype(int) - expected).mean() < 4


def test_scaled_frames_are_upright_too(tmp_path):
    path = write_video(tmp_path / "a.mp4", 1, rotation=90)
    with av.open(str(path)) as file:
        frame = next(file.decode(video=0))
        assert orientation_of(frame).text == "turned by 270 degrees"
        assert upright_rgb(frame, (24, 32)).shape == (32, 24, 3)


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("signs", [(1, 1), (-1, 1), (1, -1), (-1, -1)])
def test_all_eight_ways_to_lay_a_picture_on_its_grid(transposed, signs, monkeypatch):
    matrix = np.zeros((3, 3), np.int32)
    matrix[[0, 1], [1, 0] if transposed else [0, 1]] = np.array(signs) * 65536
    monkeypatch.setattr(
        "datasets.video_files.SideData", type("Data", (bytes,), {"buffer_size": 36})
    )
    data = video_files.SideData(matrix.tobytes())
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (6, 8, 3)).astype(np.uint8)

    class Turned:
        side_data = {"DISPLAYMATRIX": data}  # noqa: RUF012

    turn = orientation_of(Turned())
    monkeypatch.setattr("datasets.video_files.orientation_of", lambda frame: turn)

    # Each corner of the picture goes where the matrix sends it, seen from the middle.
    shown = upright_rgb(av.VideoFrame.from_ndarray(image, "rgb24"))
    for x, y in ((0, 0), (7, 0), (0, 5), (7, 5)):
        to = np.array([x - 3.5, y - 2.5]) @ (matrix[:2, :2] / 65536)
        column, row = to + np.array(shown.shape[1::-1]) / 2 - 0.5
        assert np.array_equal(shown[int(row), int(column)], image[y, x])


def test_decoding_leaves_no_threads_behind(tmp_path):
    """Each would be waited for in vain in a process that is forked later."""
    path = write_video(tmp_path / "a.mp4", 60)
    before = len(list(Path("/proc/self/task").glob("*")))
    frames = VideoFrames(path, 60, 0, None, SIZE)
    assert sum(len(block) for block in frames.blocks(SIZE, 16)) == 60
    assert len(list(Path("/proc/self/task").glob("*"))) <= before + 1


def test_variable_frame_rate_is_noticed(tmp_path):
    steady = probe_video(write_video(tmp_path / "a.mkv", 30, rate=30))
    assert (steady.is_variable, round(steady.fps, 1)) == (False, 30.0)
    times = [0, 10, 100, 110, 400, 500, 510, 1000]
    uneven = probe_video(write_video(tmp_path / "b.mkv", 8, pts=times))
    assert uneven.is_variable
    assert np.allclose(uneven.times() * 1000, times, atol=1)
    assert round(uneven.fps, 3) == 7.0


# ---------------------------------------------------------------- number 18: broken videos


def test_broken_videos_have_one_clear_line(tmp_path):
    (tmp_path / "text.mp4").write_text("hello " * 200)
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "list.mp4").write_text("#EXTM3U\n#EXTINF:10,\n/etc/passwd\n#EXT-X-ENDLIST\n")
    (tmp_path / "concat.mp4").write_text("ffconcat version 1.0\nfile a.mp4\n")
    (tmp_path / "dash.mp4").write_text('<?xml version="1.0"?><MPD></MPD>')
    (tmp_path / "noise.avi").write_bytes(np.random.default_rng(0).bytes(5000))
    (tmp_path / "folder.mp4").mkdir()
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "zero.mp4").symlink_to("/dev/zero")
    write_sound(tmp_path / "sound.mp4")
    cut(write_video(tmp_path / "whole.mp4"), tmp_path / "headless.mp4", 0.3)
    said = {
        path.name: complaint(probe_video, path)
        for path in sorted(tmp_path.iterdir())
        if path.name != "whole.mp4"
    }
    parts = {
        "text.mp4": "is no video",
        "empty.mp4": "is empty (0 bytes)",
        "list.mp4": "is a playlist",
        "concat.mp4": "is a playlist",
        "dash.mp4": "is a playlist",
        "noise.avi": "is no video",
        "folder.mp4": "is no regular file",
        "pipe.mp4": "is no regular file",
        "zero.mp4": "is no regular file",
        "sound.mp4": "holds only sound",
        "headless.mp4": "cut before its index",
    }
    assert said.keys() == parts.keys()
    for name, part in parts.items():
        assert part in said[name]
        assert str(tmp_path / name) in said[name]
    assert "No such file" in complaint(probe_video, tmp_path / "none.mp4")
    assert "cannot be read" in complaint(probe_video, tmp_path / ("x" * 4096))
    assert "cannot be read" in complaint(probe_video, Path("nul\0.mp4"))


def test_a_playlist_is_never_followed_under_any_name(tmp_path):
    write_video(tmp_path / "a.mp4")
    for name in ("b.ffconcat", "b.txt", "b.mkv", "b"):
        (tmp_path / name).write_text("ffconcat version 1.0\nfile a.mp4\n")
        assert "playlist" in complaint(probe_video, tmp_path / name)


@pytest.mark.parametrize(
    ("name", "choices"),
    [
        ("a.mkv", {}),
        ("a.avi", {"codec": "mpeg4"}),
        ("a.ts", {}),
        ("a.mp4", {"container": {"movflags": "faststart"}}),
        ("a.webm", {"codec": "libvpx-vp9"}),
    ],
)
def test_a_cut_video_gives_its_whole_frames_and_says_where_it_ends(name, choices, tmp_path):
    size = (320, 240)  # large enough that a cut falls into a frame
    path = write_video(tmp_path / name, 150, size=size, gop=25, **choices)
    full = decode_plainly(path)
    broken = cut(path, tmp_path / f"cut_{name}", 0.55)
    info = probe_video(broken)
    assert 20 < info.num_frames < 130
    if name != "a.ts":  # a transport stream has no header that promises a length
        assert info.ends_early
        assert f"after {info.num_frames} frames" in info.notes[0]
    video = VideoFrames(broken, info.num_frames, 0, None, size)
    got = video.load(np.arange(info.num_frames), size)
    assert np.array_equal(got, full[: info.num_frames])


def test_jitter_of_time_stamps_is_no_variable_frame_rate(tmp_path):
    times = [100 * i + 4 * (i % 2) for i in range(12)]
    info = probe_video(write_video(tmp_path / "a.mkv", 12, pts=times))
    assert (info.is_variable, info.has_times) == (False, True)


def test_rounded_times_of_a_table_find_the_frame_that_is_meant(tmp_path):
    info = probe_video(write_video(tmp_path / "a.mp4", 30, rate=30))
    assert find_part(info, 0.0667, 0.1001) == (2, 1)  # frames 2 and 3 are shown at 2/30 and 3/30
    assert find_part(info, 0.0663, 0.0997) == (2, 1)
    assert find_part(info, None, 1.4) == (0, 30)
    with pytest.raises(ValueError, match="goes from 0 to 1.6 s, the video lasts 1.00 s"):
        find_part(info, None, 1.6)


@pytest.mark.parametrize(("promised", "kept"), [(2.0, 20), (1.2, 25)])
def test_an_uneven_video_is_trimmed_only_if_it_is_shorter_than_promised(promised, kept):
    tally = _Tally(Path("a.mkv"))
    steps = np.full(24, 40)
    steps[[5, 19]] = 120
    tally.pts = [0, *np.cumsum(steps).tolist()]
    tally.sums = [0] * 25
    assert tally._trim(promised, 0.001) == (kept < 25)
    assert (len(tally.pts), len(tally.sums)) == (kept, kept)


def test_a_gap_near_the_end_of_a_whole_video_costs_no_frame(tmp_path):
    times = [40 * i + 240 * (i >= 25) for i in range(30)]
    path = write_video(tmp_path / "a.mp4", 30, pts=times)
    info = probe_video(path)
    assert (info.num_frames, info.ends_early, info.notes) == (30, False, ())
    assert np.allclose(info.times() * 1000, times, atol=1)


def test_a_gap_in_the_middle_of_a_steady_video_is_said(tmp_path):
    times = [40 * i + 120 * (i >= 15) for i in range(40)]
    info = probe_video(write_video(tmp_path / "a.mkv", 40, pts=times))
    assert (info.num_frames, info.ends_early) == (40, False)
    (note,) = info.notes
    assert "has 1 gap in time (the first after 0.56 s) where about 3 frames may be missing" in note
    uneven = np.cumsum(np.random.default_rng(0).integers(20, 90, 40)).tolist()
    assert probe_video(write_video(tmp_path / "b.mkv", 40, pts=uneven)).notes == ()


def test_a_gap_near_the_end_counts_only_if_something_is_missing(tmp_path):
    times = [40 * i + 120 * (i >= 35) for i in range(40)]
    info = probe_video(write_video(tmp_path / "a.mkv", 40, pts=times))  # lasts what it promises
    assert (info.num_frames, info.ends_early) == (40, False)
    info = probe_video(write_video(tmp_path / "a.ts", 40, pts=times))  # promises nothing
    assert (info.num_frames, info.ends_early) == (35, True)


def test_check_sums_of_frames_are_checked(tmp_path):
    path = write_video(tmp_path / "a.mkv", 20, codec="ffv1", options={"level": "3"})
    assert probe_video(path).notes == ()
    with av.open(str(path)) as file:
        place = next(packet.pos for i, packet in enumerate(file.demux(video=0)) if i == 8)
    data = bytearray(path.read_bytes())
    data[place + 60] ^= 0xFF
    path.write_bytes(data)
    info = probe_video(path)
    assert (info.num_frames, info.ends_early) == (8, True)
    assert "has a damaged frame after 8 frames, which are used" in info.notes[0]


def test_a_decoder_that_notices_damage_ends_the_video(tmp_path):
    path = write_video(tmp_path / "a.ts", 40, size=(320, 240), gop=40)
    data = bytearray(path.read_bytes())
    for place in range(len(data) // 2, len(data) // 2 + 2000):
        if place % 188 >= 60:  # what the packets hold, not their heads
            data[place] ^= 0x5A
    path.write_bytes(data)
    info = probe_video(path)
    assert 0 < info.num_frames < 40
    assert "is damaged" in info.notes[0]


def test_lost_frames_and_complaints_are_said(tmp_path, monkeypatch):
    path = write_video(tmp_path / "a.mp4", 20)
    lossy = lambda video: (f for i, f in enumerate(video_files.decode_frames(video)) if i != 8)  # noqa: E731
    monkeypatch.setattr(probing, "decode_frames", lossy)
    lost, gap = probe_video(path).notes
    assert lost == "gives 19 of the 20 frames that it lists"
    assert "has 1 gap in time (the first after 0.28 s)" in gap
    tally = _Tally(path)
    tally.pts = [0] * 19
    tally.hear([(16, "h264", "error while  decoding MB")])
    tally.hear([])
    tally.hear([(16, "h264", "other")])
    assert tally._report_note().startswith("made its decoder complain 2 times (h264: error while d")


def test_frames_that_the_decoder_mends_are_not_used(tmp_path):
    path = write_video(tmp_path / "a.mp4", 60, size=(320, 240), gop=30)
    data = bytearray(path.read_bytes())
    middle = data.index(b"mdat") + (len(data) - data.index(b"mdat")) // 2
    for place in range(middle, middle + 40):
        data[place] ^= 0xFF
    broken = tmp_path / "b.mp4"
    broken.write_bytes(data)
    info = probe_video(broken)
    assert 5 < info.num_frames < 60
    assert info.ends_early
    full = decode_plainly(path)
    video = VideoFrames(broken, info.num_frames, 0, None, (320, 240))
    got = video.load(np.arange(info.num_frames), (320, 240))
    assert np.array_equal(got, full[: info.num_frames])


def test_a_video_that_is_shorter_than_its_clip_says_so(tmp_path):
    path = write_video(tmp_path / "a.mp4", 20)
    video = VideoFrames(path, 30, 0, None, SIZE)
    message = complaint(video.load, np.array([25]), SIZE)
    assert "ends before frame 20" in message
    assert str(path) in message
    assert "ends before frame 20" in complaint(lambda: list(video.blocks(SIZE, 8)))
    with pytest.raises(IndexError):
        video.load(np.array([30]), SIZE)
    with pytest.raises(IndexError):
        video.load(np.array([-1]), SIZE)
    assert video.load(np.array([], np.int64), SIZE).shape == (0, 48, 64, 3)


def test_a_stream_of_a_video_is_in_order_and_whole(tmp_path):
    video = VideoFrames(write_video(tmp_path / "a.mp4", 20), 20, 0, None, SIZE)
    assert not video.can_reduce
    assert list(video.stream(np.array([], np.int64), SIZE)) == []
    for indices in ([20], [-1, 3]):
        with pytest.raises(IndexError):
            list(video.stream(np.array(indices), SIZE))
    for indices, reduction in (([3, 3], 1), ([3, 2], 1), ([3], 2)):
        with pytest.raises(ValueError, match=r"a\.mp4"):
            list(video.stream(np.array(indices), SIZE, reduction))
    short = VideoFrames(video.path, 30, 0, None, SIZE)
    assert "ends before frame 20" in complaint(lambda: list(short.stream(np.array([25]), SIZE)))


def test_another_size_than_expected_says_so(tmp_path):
    path = write_video(tmp_path / "a.mp4", 5)
    video = VideoFrames(path, 5, 0, None, (48, 64))
    assert "is 64x48 pixels at frame 0, the clip 48x64" in complaint(
        video.load, np.array([0]), (48, 64)
    )


def test_a_size_that_changes_in_the_middle_is_refused(tmp_path):
    one = write_video(tmp_path / "a.h264", 10)
    two = write_video(tmp_path / "b.h264", 10, size=(96, 64))
    (tmp_path / "c.h264").write_bytes(one.read_bytes() + two.read_bytes())
    assert "changes from 64x48 to 96x64" in complaint(probe_video, tmp_path / "c.h264")
    assert probe_video(one).num_frames == 10


def test_eight_hours_are_refused_at_once_and_read_when_wanted(tmp_path):
    path = write_video(tmp_path / "a.mkv", 960, size=(16, 16), pts=[30_000 * i for i in range(960)])
    with soon():
        assert "lasts 8.0 hours or more, at most 4" in complaint(probe_video, path)
    assert probe_video(path, VideoLimits(9 * 3600)).num_frames == 960


def test_too_many_frames_are_refused_whatever_the_header_says(tmp_path):
    path = write_video(tmp_path / "a.mkv", 300)
    assert "hours or more" in complaint(probe_video, path, VideoLimits(2.0))


def test_a_promise_of_gigabytes_is_refused_from_the_header(tmp_path):
    path = write_video(tmp_path / "a.avi", 3, codec="rawvideo", pixels="bgr24")
    data = bytearray(path.read_bytes())
    place = data.index(b"strf") + 12  # width and height of the bitmap header
    data[place : place + 8] = (16_000).to_bytes(4, "little") + (10_000).to_bytes(4, "little")
    path.write_bytes(data)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    message = complaint(probe_video, path)
    assert "16000x10000 pixels" in message
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 * 1024


def test_decoders_chatter_reaches_nobody(tmp_path, capfd):
    path = write_video(tmp_path / "a.mkv", 60, size=(320, 240))
    level = av.logging.get_level()
    probe_video(cut(path, tmp_path / "b.mkv", 0.5))
    complaint(probe_video, cut(path, tmp_path / "c.mkv", 0.01))
    assert capfd.readouterr() == ("", "")
    assert av.logging.get_level() == level


def test_nothing_stays_open_and_copies_share_nothing(tmp_path):
    path = write_video(tmp_path / "a.mp4", 20)
    video = whole(path)
    copy = pickle.loads(pickle.dumps(video))
    for _ in range(3):
        assert np.array_equal(video.load(np.array([3]), SIZE), copy.load(np.array([3]), SIZE))
        next(iter(video.blocks(SIZE, 4)))
    gc.collect()
    if Path("/proc/self/fd").is_dir():
        opened = [str(fd.readlink()) for fd in Path("/proc/self/fd").iterdir() if fd.is_symlink()]
        assert not [name for name in opened if name == str(path)]


def test_what_was_found_out_is_read_again_or_not_used(tmp_path):
    info = probe_video(write_video(tmp_path / "a.mp4", 20, rotation=90))
    save_info(tmp_path / "x" / "a.npz", info)
    known = load_info(tmp_path / "x" / "a.npz", info.sha256)
    for name in ("codec", "width", "fps", "time_base", "sha256", "notes", "ends_early"):
        assert getattr(known, name) == getattr(info, name)
    assert np.array_equal(known.pts, info.pts)
    assert np.array_equal(known.sums, info.sums)
    assert load_info(tmp_path / "x" / "a.npz", "other") is None
    assert load_info(tmp_path / "none.npz", info.sha256) is None
    for share in (0.0, 0.3, 0.9):
        cut(tmp_path / "x" / "a.npz", tmp_path / "b.npz", share)
        assert load_info(tmp_path / "b.npz", info.sha256) is None
