"""Sources: whatever the user names, in order, with time stamps, and clear lines for what is not."""

import functools
import http.server
import itertools
import socket
import threading
import time

import cv2
import numpy as np
import pytest

from datasets.video_files import VIDEO_SUFFIXES
from errors import InputError
from prediction import streams
from prediction.frames import ImageFolder, VideoFile
from prediction.sources import find_sources, shown_name
from prediction.streams import Camera, Stream
from tests.conftest import write_frames
from tests.making_videos import SIZE, cut, number_of, write_sound, write_video


def names(sources):
    return [source.path.name for source in sources]


# ---------------------------------------------------------------- what the user names


def test_folders_are_searched_in_natural_order(tmp_path):
    for name in ("take 10.mp4", "take 2.mp4", "sub/a.AVI", ".hidden.mp4", "notes.md", "take 1.mkv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    found = find_sources([str(tmp_path)])
    assert names(found) == ["a.AVI", "take 1.mkv", "take 2.mp4", "take 10.mp4"]


def test_a_list_names_files_beside_it(tmp_path):
    listed = tmp_path / "lists" / "videos.txt"
    listed.parent.mkdir()
    listed.write_text("# mine\n\n../a b.mp4\nhttps://host/x.mp4\n0\n", encoding="utf-8-sig")
    video, address, camera = find_sources([str(listed)])
    assert video.path.resolve() == tmp_path / "a b.mp4"
    assert isinstance(address, Stream)
    assert isinstance(camera, Camera)


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "is empty"), (b"\xff\xfe\x00", "UTF-8"), (b"more.txt\n", "another list")],
)
def test_lists_that_say_nothing(tmp_path, content, message):
    (tmp_path / "v.txt").write_bytes(content)
    with pytest.raises(InputError, match=message):
        find_sources([str(tmp_path / "v.txt")])


@pytest.mark.parametrize("name", ["", "  "])
def test_a_name_that_is_empty_is_not_this_folder(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.mp4").write_bytes(b"")
    with pytest.raises(InputError, match="--source is empty"):
        find_sources([name])


def test_annotated_videos_are_sources_only_by_name(tmp_path):
    heads = "start_seconds,end_seconds,first_frame,last_frame,track,label,probability\n"
    for folder in ("mine", "ours"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "annotated.mp4").write_bytes(b"")
    (tmp_path / "ours" / "timeline.csv").write_text(heads, encoding="utf-8")
    (tmp_path / "ours" / "b.mp4").write_bytes(b"")
    left_out = []
    found = find_sources([str(tmp_path)], None, left_out.append)
    assert [source.path.parent.name for source in found] == ["mine", "ours"]
    assert names(found) == ["annotated.mp4", "b.mp4"]
    assert left_out == [tmp_path / "ours" / "annotated.mp4"]
    assert names(find_sources([str(left_out[0])])) == ["annotated.mp4"]


def test_a_folder_with_nothing_in_it(tmp_path):
    with pytest.raises(InputError, match="neither videos .* nor numbered images"):
        find_sources([str(tmp_path)])


def test_digits_are_a_camera_unless_there_is_such_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (camera,) = find_sources(["0"])
    assert camera.is_live
    (tmp_path / "0").write_bytes(b"")
    assert isinstance(find_sources(["0"])[0], VideoFile)
    assert VIDEO_SUFFIXES


def test_addresses_of_other_kinds_are_refused():
    with pytest.raises(InputError, match="addresses begin with http, https"):
        find_sources(["ftp://host/x.mp4"])


def test_secrets_of_an_address_are_not_shown():
    stream = Stream("rtsp://me:secret@host:554/live/door.sdp?token=abc")
    assert stream.name == "rtsp://host:554/live/door.sdp"
    assert stream.stem == "door"
    assert shown_name(stream.address) == stream.name
    assert shown_name("a b.mp4") == "a b.mp4"
    assert Stream("http://host:8080/").stem == "host_8080"


# ---------------------------------------------------------------- frames


def watch(source):
    return [(frame.seconds, frame.size, frame.picture()) for frame in source.frames()]


def test_a_video_gives_all_frames_with_their_seconds(tmp_path):
    source = VideoFile(write_video(tmp_path / "a.mp4", 30, rate=25))
    frames = watch(source)
    assert [number_of(picture) for *_, picture in frames] == list(range(30))
    assert [seconds for seconds, *_ in frames] == pytest.approx([n / 25 for n in range(30)])
    assert source.rate() == pytest.approx(25)
    assert source.times() == pytest.approx([n / 25 for n in range(30)])


def test_variable_rates_and_late_beginnings_keep_their_stamps(tmp_path):
    stamps = [500, 540, 700, 710, 1900, 1940]
    path = write_video(tmp_path / "a.mkv", 6, pts=stamps)
    seconds = [seconds for seconds, *_ in watch(VideoFile(path))]
    assert seconds == pytest.approx([(s - 500) / 1000 for s in stamps], abs=2e-3)
    assert VideoFile(path).times() == pytest.approx(seconds)


def test_a_turned_video_is_upright(tmp_path):
    path = write_video(tmp_path / "a.mp4", 4, rotation=90)
    _, size, picture = watch(VideoFile(path))[0]
    assert size == SIZE[::-1]
    assert picture.shape == (SIZE[0], SIZE[1], 3)


def test_images_have_the_rate_of_the_user(tmp_path):
    write_frames(tmp_path / "c", 5)
    source = ImageFolder(tmp_path / "c", 10.0)
    assert [seconds for seconds, *_ in watch(source)] == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])
    assert source.times() == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])


def test_a_cut_video_gives_what_is_there_then_the_reason(tmp_path):
    whole = write_video(
        tmp_path / "a.mp4", 150, size=(320, 240), gop=25, container={"movflags": "faststart"}
    )
    source = VideoFile(cut(whole, tmp_path / "b.mp4", 0.55))
    seen = []
    with pytest.raises(InputError, match=r"b\.mp4"):
        seen.extend(frame.seconds for frame in source.frames())
    assert 20 < len(seen) < 130


@pytest.mark.parametrize("kind", ["missing", "folder", "empty", "html", "sound", "headless"])
def test_what_is_no_video_is_one_line(tmp_path, kind):
    path = tmp_path / "x <script>.mp4"
    if kind == "folder":
        path.mkdir()
    elif kind in ("empty", "html"):
        path.write_text("<!doctype html>" if kind == "html" else "", encoding="utf-8")
    elif kind == "sound":
        write_sound(path)
    elif kind == "headless":
        cut(write_video(tmp_path / "a.mp4", 40), path, 0.5)
    for ask in (VideoFile(path).rate, lambda: list(VideoFile(path).frames())):
        with pytest.raises(InputError, match="x <script>.mp4") as caught:
            ask()
        assert "\n" not in str(caught.value)


# ---------------------------------------------------------------- addresses


@pytest.fixture
def server(tmp_path):
    """Return the address of a folder."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    handler = functools.partial(Quiet, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def test_a_video_at_an_address(tmp_path, server):
    write_video(tmp_path / "a.mp4", 12)
    source = Stream(f"{server}/a.mp4")
    assert [number_of(picture) for *_, picture in watch(source)] == list(range(12))
    assert source.times() is None


def test_a_playlist_that_names_a_file_is_refused(tmp_path_factory, server, tmp_path):
    secret = write_video(tmp_path_factory.mktemp("outside") / "secret.ts", 5, codec="mpeg4")
    text = f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{secret.as_uri()}\n#EXT-X-ENDLIST\n"
    (tmp_path / "list.m3u8").write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match="list.m3u8 cannot be read"):
        watch(Stream(f"{server}/list.m3u8"))


def test_addresses_that_do_not_answer(server):
    with pytest.raises(InputError, match=r"nothing\.mp4 cannot be read"):
        watch(Stream(f"{server}/nothing.mp4"))
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    with pytest.raises(InputError, match="check the address"):
        watch(Stream(f"http://127.0.0.1:{port}/x.mp4"))


# ---------------------------------------------------------------- cameras


class FakeCapture:
    """A camera with `count` frames, one every `pause` seconds."""

    count, pause, opened = 12, 0.002, True
    released = 0

    def __init__(self, index):
        self.numbers = itertools.count()

    def isOpened(self):  # noqa: N802
        return self.opened

    def read(self):
        number = next(self.numbers)
        time.sleep(self.pause)
        return number < self.count, np.full((4, 6, 3), (number, 0, 255), np.uint8)

    def release(self):
        type(self).released += 1


@pytest.fixture
def capture(monkeypatch):
    fake = type("Capture", (FakeCapture,), {})
    monkeypatch.setattr(cv2, "VideoCapture", fake)
    return fake


def test_a_camera_gives_rgb_with_the_seconds_of_the_clock(capture):
    frames = watch(Camera(0))
    seconds = [seconds for seconds, *_ in frames]
    assert seconds[0] == 0
    assert seconds == sorted(set(seconds))
    assert frames[0][1] == (6, 4)
    assert frames[0][2][0, 0].tolist() == [255, 0, 0]
    assert capture.released == 1


def test_a_slow_reader_gets_the_newest_frames(capture):
    capture.count = 60
    camera = Camera(0)
    seen = []
    for frame in camera.frames():
        seen.append(int(frame.picture()[0, 0, 2]))
        time.sleep(0.02)
    assert camera.dropped > 20
    assert len(seen) + camera.dropped == 60
    assert seen == sorted(seen)
    assert seen[-1] == 59


def test_a_camera_that_is_left_is_given_back(capture):
    capture.count = 10**6
    frames = Camera(0).frames()
    next(frames)
    frames.close()
    assert capture.released == 1
    assert not [thread for thread in threading.enumerate() if thread.name == "camera"]


def test_no_camera_and_one_that_hangs(capture, monkeypatch):
    monkeypatch.setattr(streams, "_PATIENCE", 0.05)
    capture.pause = 0.3
    with pytest.raises(InputError, match="camera 0 gave no frame"):
        watch(Camera(0))
    capture.opened = False
    with pytest.raises(InputError, match="--source 3: there is no camera"):
        watch(Camera(3))
