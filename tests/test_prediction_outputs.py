"""Files of a prediction: none of the user's is lost, none of an earlier prediction stays."""

import csv
import os

import pytest

import predict
import prediction.outputs
from datasets.poses import save_poses
from errors import InputError
from ops.skeleton import COCO17
from prediction.frames import ImageFolder, VideoFile
from prediction.outputs import Wishes, result_lines, write_outputs, write_summary
from prediction.places import NAMES, check_places, is_prediction, output_folders
from prediction.results import Event, Timings, VideoResult, Window
from tests.conftest import write_frames
from tests.making_videos import SIZE, cut, write_video
from tests.test_predict import checkpoint
from tests.test_prediction_predictor import walking


def result_of(tracks=(0,), events=(), notes=()):
    """Return a result with two windows for each track, of which track 2 falls."""
    windows = [
        Window(track, start, start + 1, 0, 5, (0.2, 0.8) if track == 2 else (0.7, 0.3))
        for track in tracks
        for start in (0.0, 1.0)
    ]
    found = [Event(track, "fall", start, start + 0.5, 0.8) for track, start in events]
    return VideoResult(
        "a.mp4", ("landed", "fall"), 6.0, 12, 2.0, SIZE, tuple(windows), tuple(found), None,
        Timings(2, 1, 0, 1), tuple(notes),
    )  # fmt: skip


def rows_of(path):
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))


def content(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Return a folder with rgb.pth, pose.pth, a.mp4 and a.npz, in which we are."""
    monkeypatch.chdir(tmp_path)
    for mode in ("rgb", "pose"):
        checkpoint(tmp_path / f"{mode}.pth", mode)
    write_video(tmp_path / "a.mp4", 12)
    save_poses(tmp_path / "a.npz", walking(12), SIZE, "test")
    return tmp_path


def no_work(*_, **__):
    raise AssertionError("work has begun")


# ---------------------------------------------------------------- nothing is written over


@pytest.mark.parametrize("link", [None, os.link, os.symlink])
@pytest.mark.parametrize("no_video", [(), ("--no_video",)])
def test_the_video_that_is_read_is_not_written_over(place, monkeypatch, link, no_video):
    (place / "own").mkdir()
    target = place / "own" / "annotated.mp4"
    if link:
        link(place / "a.mp4", target)
    else:
        (place / "a.mp4").rename(target)
    before = content(place)
    monkeypatch.setattr(predict, "load_network", no_work)
    argv = ["--weights", "rgb.pth", "--source", "a.mp4" if link else "own/annotated.mp4"]
    with pytest.raises(
        InputError, match=r"own/annotated\.mp4 is read.*, and would be written over"
    ):
        predict.main([*argv, "--output", "own", *no_video])
    assert content(place) == before


@pytest.mark.parametrize("poses", ["own/poses.npz", "own"])
def test_keypoints_that_are_read_are_not_written_over(place, monkeypatch, poses):
    (place / "own").mkdir()
    (place / "a.npz").rename(place / "own" / "poses.npz")
    (place / "a.mp4").rename(place / "poses.mp4")
    before = content(place)
    monkeypatch.setattr(predict, "load_network", no_work)
    argv = ["--weights", "pose.pth", "--source", "poses.mp4", "--poses", poses, "--save_poses"]
    with pytest.raises(InputError, match=r"own/poses\.npz is read, and would be written over"):
        predict.main([*argv, "--output", "own"])
    assert content(place) == before


def test_no_source_is_written_over_by_the_results_of_another(place):
    predict.main(["--weights", "rgb.pth", "--source", "a.mp4"])
    before = content(place)
    again = ["--weights", "rgb.pth", "--source", "predictions/a/annotated.mp4", "a.mp4"]
    with pytest.raises(
        InputError, match=r"predictions/a/annotated\.mp4 is read, and would be written over"
    ):
        predict.main(again)
    assert content(place) == before


def test_results_do_not_lie_among_the_images_of_a_source(place, monkeypatch):
    write_frames(place / "clip", 6)
    before = content(place)
    with monkeypatch.context() as patch:
        patch.setattr(predict, "load_network", no_work)
        with pytest.raises(InputError, match="clip is a source itself"):
            predict.main(["--weights", "rgb.pth", "--source", "clip", "--output", "clip/../clip"])
    assert content(place) == before
    monkeypatch.chdir(place / "clip")  # below them, results do no harm
    argv = ["--weights", "../rgb.pth", "--source", ".", "--no_video"]
    assert predict.main(argv)[0].windows == predict.main(argv)[0].windows


@pytest.mark.parametrize("name", NAMES)
def test_what_is_not_ours_is_not_written_over(tmp_path, name):
    (tmp_path / name).write_text("start_seconds;mine", encoding="utf-8")
    with pytest.raises(InputError, match=rf"{name} is there and is no result of predict\.py"):
        check_places([tmp_path], [VideoFile(tmp_path / "a.mp4")])
    source = VideoFile(tmp_path / "a.mp4")
    with pytest.raises(InputError, match=name):
        write_outputs(tmp_path, result_of(), source, COCO17, Wishes(False), {})
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_pipe_does_not_keep_us_waiting(tmp_path):
    os.mkfifo(tmp_path / "timeline.csv")
    assert not is_prediction(tmp_path)
    with pytest.raises(InputError, match=r"timeline\.csv is to be written and is no file"):
        check_places([tmp_path], [])


# ---------------------------------------------------------------- nothing of before stays


def test_files_of_an_earlier_prediction_do_not_stay(place):
    write_video(place / "b.mp4", 20)
    argv = ["--weights", "pose.pth", "--poses", "a.npz", "--output", "o"]
    predict.main([*argv, "--source", "a.mp4", "--save_poses"])
    assert {path.name for path in (place / "o").iterdir()} == set(NAMES)
    (place / "o" / "mine.txt").write_text("mine", encoding="utf-8")
    predict.main(["--weights", "rgb.pth", "--source", "b.mp4", "--output", "o", "--no_video"])
    left = {path.name for path in (place / "o").iterdir()}
    assert left == {*NAMES, "mine.txt"} - {"annotated.mp4", "poses.npz"}


@pytest.mark.parametrize("removed", range(1, len(NAMES)))
def test_a_folder_that_is_half_removed_is_ours_and_incomplete(tmp_path, monkeypatch, removed):
    source = VideoFile(write_video(tmp_path / "a.mp4", 4))
    folder = tmp_path / "o"
    write_outputs(folder, result_of(), source, COCO17, Wishes(), {})
    left = iter(range(removed))
    unlink = type(folder).unlink

    def killed(path, missing_ok=False):
        if next(left, None) is None:
            raise KeyboardInterrupt
        unlink(path, missing_ok)

    with monkeypatch.context() as patch:
        patch.setattr(type(folder), "unlink", killed)
        with pytest.raises(KeyboardInterrupt):
            write_outputs(folder, result_of(), source, COCO17, Wishes(), {})
    assert is_prediction(folder)
    assert not (folder / "predictions.json").exists()


def test_what_is_broken_off_does_not_look_complete(tmp_path, monkeypatch):
    source = VideoFile(write_video(tmp_path / "a.mp4", 12))

    def write(**wishes):
        write_outputs(tmp_path / "o", result_of(), source, COCO17, Wishes(**wishes), {})

    def fails(*_):
        raise OSError(28, "No space left on device", "x")

    write()
    with monkeypatch.context() as patch:
        patch.setattr(prediction.outputs, "write_annotated", fails)
        with pytest.raises(OSError, match="No space"):
            write()
    left = {path.name for path in (tmp_path / "o").iterdir()}
    assert left == {"timeline.csv", "timeline.png", "events.csv"}
    with monkeypatch.context() as patch:
        patch.setattr(prediction.outputs, "write_timeline_csv", fails)
        with pytest.raises(OSError, match="No space"):
            write()
    write(video=False)
    assert (tmp_path / "o" / "predictions.json").is_file()


# ---------------------------------------------------------------- whether it can be written


@pytest.mark.parametrize("output", ["f", "f/below", "dangling"])
def test_an_output_that_cannot_be_is_found_before_the_work(place, monkeypatch, output):
    (place / "f").write_bytes(b"")
    (place / "dangling").symlink_to("nothing")
    monkeypatch.setattr(predict, "load_network", no_work)
    for sources in (["a.mp4"], ["a.mp4", "b.mp4"]):
        with pytest.raises(InputError, match=f"--output {output}.* is no folder"):
            predict.main(["--weights", "rgb.pth", "--source", *sources, "--output", output])


def test_a_folder_in_the_place_of_a_file_is_found_before_the_work(place, monkeypatch):
    monkeypatch.setattr(predict, "load_network", no_work)
    argv = ["--weights", "rgb.pth", "--output", "o", "--source"]
    (place / "o" / "events.csv").mkdir(parents=True)
    with pytest.raises(InputError, match=r"events\.csv is to be written and is no file"):
        predict.main([*argv, "a.mp4"])
    (place / "o" / "summary.csv").mkdir()
    with pytest.raises(InputError, match=r"summary\.csv is to be written and is no file"):
        predict.main([*argv, "a.mp4", "b.mp4"])


def test_no_folder_takes_the_place_of_the_summary(tmp_path):
    names = ["Summary.csv.mp4", "x/summary.csv.avi", "summary.csv_2.mp4"]
    folders = output_folders(tmp_path, [VideoFile(tmp_path / name) for name in names])
    assert len({path.name.casefold() for path in folders} | {"summary.csv"}) == 4


def test_the_others_go_on_when_results_cannot_be_written(place, monkeypatch, capsys):
    write_video(place / "b.mp4", 12)
    write = predict.write_outputs

    def fails_once(folder, *rest):
        if folder.name == "a":
            raise OSError(27, "File too large", str(folder / "annotated.mp4"))
        return write(folder, *rest)

    monkeypatch.setattr(predict, "write_outputs", fails_once)
    with pytest.raises(InputError, match="1 of 2 sources gave no result: .*File too large"):
        predict.main(["--weights", "rgb.pth", "--source", "a.mp4", "b.mp4", "--no_video"])
    first, second = rows_of(place / "predictions" / "summary.csv")
    assert first["error"].endswith("annotated.mp4: File too large")
    assert (second["error"], second["track"]) == ("", "0")
    assert "WARNING" in capsys.readouterr().out


# ---------------------------------------------------------------- own videos are no sources


def test_a_second_run_does_not_predict_annotated_videos(place, capsys):
    argv = ["--weights", "rgb.pth", "--source", "."]
    write_video(place / "annotated.mp4", 12)  # the user's own
    write_video(place / "b" / "annotated.mp4", 12)
    first = predict.main(argv)
    assert "left out" not in capsys.readouterr().out
    again = predict.main(argv)
    assert [r.source for r in first] == [r.source for r in again]
    assert len(again) == 3
    assert "left out 3 videos that predict.py has drawn upon" in capsys.readouterr().out
    with pytest.raises(InputError, match="no videos but 3 that predict.py has drawn upon"):
        predict.main(["--weights", "rgb.pth", "--source", "predictions"])


# ---------------------------------------------------------------- the summary, and lines


def test_each_person_has_a_row_with_its_own_events(tmp_path):
    result = result_of((1, 2), [(1, 0.5), (2, 0.25), (2, 1.5)])
    write_summary(tmp_path / "s.csv", [("a.mp4", result), ("b.mp4", result_of(()))])
    rows = [list(row.values()) for row in rows_of(tmp_path / "s.csv")]
    assert rows == [
        ["a.mp4", "2.000", "1", "landed", "0.700000", "1", "0.500", ""],
        ["a.mp4", "2.000", "2", "fall", "0.800000", "2", "0.250", ""],
        ["b.mp4", "2.000", "", "", "", "0", "", ""],
    ]


def test_lines_name_the_person_unless_it_is_the_only_one():
    def said(tracks):
        return "\n".join(result_lines(result_of(tracks, [(track, 0.0) for track in tracks])))

    assert "person" not in said((0,))
    assert "person 1: landed" in said((1,))
    assert "(person 1)" in said((1,))
    assert "person 2: fall" in said((0, 2))
    assert "no answer" in said(())


def test_the_summary_says_which_video_broke_off(place):
    whole = write_video(
        place / "w.mp4", 150, size=(320, 240), gop=25, container={"movflags": "faststart"}
    )
    cut(whole, place / "cut.mp4", 0.55)
    predict.main(["--weights", "rgb.pth", "--source", "cut.mp4", "a.mp4", "--no_video"])
    broken, good = rows_of(place / "predictions" / "summary.csv")
    assert broken["error"].startswith("read up to ")
    assert "cut.mp4" in broken["error"]
    assert broken["label"]
    assert good["error"] == ""


def test_images_and_videos_may_have_a_rate_but_videos_alone_not(place):
    write_frames(place / "clip", 6)
    sources = predict.look_for_sources(["a.mp4", "clip"], 5.0)
    assert isinstance(sources[1], ImageFolder)
    with pytest.raises(InputError, match="--fps 5 is for folders of images"):
        predict.main(["--weights", "rgb.pth", "--source", "a.mp4", "--fps", "5"])


def test_two_videos_do_not_share_a_file_of_keypoints(place):
    write_video(place / "b" / "a.mp4", 12)
    (place / "poses").mkdir()
    (place / "a.npz").rename(place / "poses" / "a.npz")
    with pytest.raises(InputError, match="a.npz"):
        predict.main(["--weights", "pose.pth", "--source", "a.mp4", "b/a.mp4", "--poses", "poses"])
    assert not (place / "predictions").exists()
