"""From a folder of videos, or a table, to a data set that trains; whatever happens on the way."""

import csv
import fcntl
import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

import process_dataset_videos
from datasets.clip_table import load_table
from datasets.prepare.splits import SPLITS
from datasets.records import load_records, read_header
from datasets.sources import find_frames
from errors import InputError
from tests.forking import launching
from tests.making_videos import SIZE, cut, number_of, write_sound, write_video

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT.parent / "shared" / "data"


@pytest.fixture
def source(tmp_path):
    """Return a folder with 2 classes of 6 videos each, all different."""
    folder = tmp_path / "in"
    for number in range(12):
        name = f"{'fall' if number % 2 else 'stand up'}/take {number}.mp4"
        write_video(folder / name, 10 + number, first=number)
    return folder


def run(tmp_path, *options, dataset="jumps", workers="0"):
    """Run the program in this process; return the folder of the data set."""
    fixed = ["--dataset", dataset, "--dataset_path", tmp_path / "out", "--no_check"]
    process_dataset_videos.main([*map(str, [*fixed, "--workers", workers, *options])])
    return tmp_path / "out" / dataset


def complaint(tmp_path, *options, **choices) -> str:
    with pytest.raises(InputError) as caught:
        run(tmp_path, *options, **choices)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def lists(folder):
    return {split: load_records(folder / f"{split}_videofolder.txt") for split in SPLITS}


def write_table(path, rows):
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)
    return path


def content(folder):
    """Return a hash of every file."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_a_folder_per_class_becomes_a_data_set(source, tmp_path, capsys):
    before = content(source)
    root = run(tmp_path, "--source", source)
    assert content(source) == before
    found, table = lists(root), load_table(root)
    names = [record.name for records in found.values() for record in records]
    assert len(names) == len(set(names)) == len(table) == 12
    assert set(names) == {path.removesuffix(".mp4") for path in before}
    for split in SPLITS:
        header = read_header(root / f"{split}_videofolder.txt")
        assert header == {
            "made_by": "process_dataset_videos.py",
            "classes": '["fall", "stand up"]',
            "left_out": "0",
        }
        for record in found[split]:
            assert record.label == ("stand up" in record.name)
            frames = find_frames(root, record, table)
            first = record.num_frames - 10  # as the fixture wrote it
            image = frames.load(np.array([record.num_frames - 1]), SIZE)[0]
            assert number_of(image) == first + record.num_frames - 1
    linked = root / "videos" / "fall" / "take 1.mp4"
    assert linked.samefile(source / "fall" / "take 1.mp4")
    said = capsys.readouterr().out
    assert "train: 8 clips of 8 groups (fall 4, stand up 4), majority rate 50.0%" in said


def test_extracted_frames_are_those_of_the_videos(source, tmp_path):
    videos = run(tmp_path, "--source", source, dataset="v")
    frames = run(tmp_path, "--source", source, "--extract_frames", "--short_side", 24, dataset="f")
    assert lists(videos) == lists(frames)
    table = load_table(frames)
    for record in lists(videos)["train"]:
        row = table[record.name]
        assert (row.video, row.width, row.height) == ("", 32, 24)
        one = find_frames(videos, record, load_table(videos))
        other = find_frames(frames, record, table)
        indices = np.arange(record.num_frames)
        a, b = one.load(indices, SIZE)[:, ::2, ::2], other.load(indices, (32, 24))
        assert np.abs(a.astype(int) - b).mean() < 3


@pytest.mark.parametrize("mode", ["--copy", "--symlink", None])
def test_ways_to_keep_videos_and_to_change_ones_mind(source, tmp_path, mode):
    root = run(tmp_path, "--source", source)
    root = run(tmp_path, "--source", source, *([mode] if mode else []))
    path = root / "videos" / "fall" / "take 1.mp4"
    same = path.samefile(source / "fall" / "take 1.mp4")
    assert (path.is_symlink(), same) == (mode == "--symlink", mode != "--copy")
    assert path.read_bytes() == (source / "fall" / "take 1.mp4").read_bytes()
    before = {p: p.lstat().st_mtime_ns for p in (root / "videos").rglob("*.mp4")}
    run(tmp_path, "--source", source, *([mode] if mode else []))
    assert before == {p: p.lstat().st_mtime_ns for p in (root / "videos").rglob("*.mp4")}
    assert not list(root.rglob("*.partial"))


def test_a_copy_of_the_same_size_and_other_content_is_replaced(source, tmp_path):
    root = run(tmp_path, "--source", source, "--copy")
    path, whole = root / "videos" / "fall" / "take 1.mp4", source / "fall" / "take 1.mp4"
    path.write_bytes(bytes(path.stat().st_size))
    run(tmp_path, "--source", source, "--copy")
    assert path.read_bytes() == whole.read_bytes()
    assert not path.samefile(whole)


def test_lists_of_two_choices_never_lie_side_by_side(source, tmp_path, monkeypatch):
    from datasets.prepare import video_output

    root = run(tmp_path, "--source", source)
    write, written = video_output.write_list, []

    def fail_at_the_second(path, *more):
        if written:
            raise KeyboardInterrupt
        written.append(path)
        write(path, *more)

    monkeypatch.setattr(video_output, "write_list", fail_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, "--source", source, "--seed", 5)
    assert list(root.glob("*_videofolder.txt")) == written


def test_a_table_with_parts_and_groups(tmp_path):
    rng = random.Random(0)
    rows = [("film", "class", "athlete", "start_seconds", "end_seconds")]
    for number in range(6):
        write_video(tmp_path / "in" / f"m{number}.mp4", 50, first=number)
        for part in range(4):
            rows.append(
                (f"m{number}", rng.choice("ab"), f"p{number // 2}", part / 2, part / 2 + 0.4)
            )
    table = write_table(tmp_path / "in" / "t.csv", rows)
    columns = ["--columns", "video=film", "label=class", "group=athlete"]
    root = run(tmp_path, "--table", table, *columns)
    clips = load_table(root)
    assert len(clips) == 24
    row = clips["m3__003"]
    assert (row.first_frame, row.num_frames, row.group) == (25, 10, "p1")
    assert row.start_pts is not None
    split_of = {r.name: split for split, records in lists(root).items() for r in records}
    per_athlete = defaultdict(set)
    for name, clip in clips.items():
        per_athlete[clip.group].add(split_of[name])
    assert sorted(map(len, per_athlete.values())) == [1, 1, 1]
    for record in lists(root)["train"]:
        image = find_frames(root, record, clips).load(np.array([2]), SIZE)[0]
        shown = int(record.name[1]) + clips[record.name].first_frame + 2
        assert abs(number_of(image) - shown) <= 1


def test_parts_of_one_video_are_one_group(tmp_path):
    rows = [("video", "label", "start_seconds", "end_seconds")]
    for number in range(5):
        write_video(tmp_path / "in" / f"m{number}.mp4", 50, first=number)
        rows += [(f"m{number}", "ab"[part % 2], part / 2, part / 2 + 0.4) for part in range(4)]
    root = run(tmp_path, "--table", write_table(tmp_path / "in" / "t.csv", rows), "--folds", 5)
    tested = Counter()
    for fold in range(1, 6):
        folder = root / "folds" / f"{fold}of5"
        split_of = {r.name: split for split, records in lists(folder).items() for r in records}
        assert len(split_of) == 20
        assert len({(name.split("__")[0], split) for name, split in split_of.items()}) == 5
        tested.update(name for name, split in split_of.items() if split == "test")
        assert read_header(folder / "val_videofolder.txt")["fold"] == f"{fold} of 5"
    assert set(tested.values()) == {1}
    assert len(tested) == 20
    assert content(root / "folds" / "1of5") == {
        f"{s}_videofolder.txt": content(root)[f"{s}_videofolder.txt"] for s in SPLITS
    }
    run(tmp_path, "--table", tmp_path / "in" / "t.csv")
    assert not (root / "folds").exists()


def test_the_tables_split_is_obeyed(source, tmp_path):
    names = sorted(path.relative_to(source).as_posix() for path in source.rglob("*.mp4"))
    given = ["train"] * 6 + ["dev"] * 3 + ["Test"] * 3
    rows = [(n, i % 2, s) for i, (n, s) in enumerate(zip(names, given, strict=True))]
    table = write_table(source / "t.csv", [("video", "label", "split"), *rows])
    found = lists(run(tmp_path, "--table", table))
    assert [r.name for r in found["val"]] == [n.removesuffix(".mp4") for n in names[6:9]]
    assert "gives the split, --folds" in complaint(tmp_path, "--table", table, "--folds", 3)
    rows = [(n, label, s.replace("dev", "train")) for n, label, s in rows]
    write_table(table, [("video", "label", "split"), *rows])
    found = lists(run(tmp_path, "--table", table))
    assert (len(found["train"]) + len(found["val"]), len(found["test"])) == (9, 3)
    rows = [(n, label, "train") for n, label, _ in rows]
    write_table(table, [("video", "label", "split"), *rows])
    assert "no clip is in test" in complaint(tmp_path, "--table", table)


def test_a_group_on_both_sides_of_a_given_split_is_refused(source, tmp_path):
    names = sorted(path.relative_to(source).as_posix() for path in source.rglob("*.mp4"))
    head = ("video", "label", "split", "group")
    rows = [(n, i % 2, ("train", "val", "test")[i // 4], i % 3) for i, n in enumerate(names)]
    table = write_table(source / "t.csv", [head, *rows])
    message = complaint(tmp_path, "--table", table)
    assert "t.csv:6 is in val" in message
    assert "t.csv:3 of the same group (1) in train" in message
    run(tmp_path, "--table", table, "--allow_overlap")
    rows = [(n, i // 8, ("train", "val", "test")[i // 4], "") for i, n in enumerate(names)]
    write_table(table, [head, *rows])
    assert "no clip of class '1' is in train" in complaint(tmp_path, "--table", table)


def test_what_the_table_shows_is_said_before_a_video_is_read(source, tmp_path, monkeypatch):
    def refuse(*_):
        raise AssertionError("a video was read")

    monkeypatch.setattr(process_dataset_videos, "read_videos", refuse)
    names = sorted(path.relative_to(source).as_posix() for path in source.rglob("*.mp4"))
    table, head = source / "t.csv", ("video", "label", "split", "group")

    def refusal(splits, groups, *options, labels=(0, 1) * 6):
        write_table(table, [head, *zip(names, labels, splits, groups, strict=True)])
        return complaint(tmp_path, "--table", table, *options)

    thirds, own = ["train"] * 4 + ["val"] * 4 + ["test"] * 4, [""] * 12
    assert "of the same group (g) in train" in refusal(thirds, ["g"] * 12)
    assert "belong to 6 groups, 99 folds need 99" in refusal(
        own, [f"g{i % 6}" for i in range(12)], "--folds", 99
    )
    assert "no clip is in test" in refusal(["train"] * 8 + ["val"] * 4, own)
    labels = [0] * 4 + [0, 1] * 4
    assert "no clip of class '1' is in train" in refusal(thirds, own, labels=labels)
    assert not (tmp_path / "out").exists()


def test_why_a_list_lacks_a_class_is_true(source, tmp_path, capsys):
    names = sorted(path.relative_to(source).as_posix() for path in source.rglob("*.mp4"))
    head = ("video", "label", "split")
    thirds = ["train"] * 4 + ["val"] * 4 + ["test"] * 4
    labels = ["a", "b", "a", "b", *["a"] * 4, "a", "b", "a", "b"]
    table = write_table(source / "t.csv", [head, *zip(names, labels, thirds, strict=True)])
    run(tmp_path, "--table", table)
    said = capsys.readouterr()
    assert "val has no clip of class b: so says the table's column split" in said.err + said.out
    labels = ["b", "b", *["a"] * 10]
    table = write_table(source / "t.csv", [head[:2], *zip(names, labels, strict=True)])
    run(tmp_path, "--table", table)
    said = capsys.readouterr()
    assert (
        "no clip of class b: its clips are of 2 groups, 3 lists share them" in said.err + said.out
    )


def test_the_same_file_twice_is_one_group(source, tmp_path, capsys):
    shutil.copy(source / "fall" / "take 1.mp4", source / "fall" / "again.mp4")
    root = run(tmp_path, "--source", source, "--strict")
    table = load_table(root)
    assert table["fall/again"].group == table["fall/take 1"].group != ""
    assert "are the same: one group" in capsys.readouterr().out
    split_of = {r.name: split for split, records in lists(root).items() for r in records}
    assert split_of["fall/again"] == split_of["fall/take 1"]
    shutil.copy(source / "fall" / "take 1.mp4", source / "stand up" / "again.mp4")
    run(tmp_path, "--source", source)
    assert "the same frames have 'fall'" in capsys.readouterr().out
    assert "findings (--strict)" in complaint(tmp_path, "--source", source, "--strict")


def test_damaged_videos_are_left_out_by_name_or_stop(source, tmp_path, capsys):
    (source / "fall" / "text.mp4").write_text("hello")
    (source / "fall" / "empty.mp4").touch()
    write_sound(source / "stand up" / "sound.mp4")
    os.mkfifo(source / "fall" / "pipe.mp4")
    (source / "fall" / "zero.mp4").symlink_to("/dev/zero")
    whole = write_video(tmp_path / "whole.mkv", 100, size=(320, 240))
    cut(whole, source / "fall" / "cut.mkv", 0.5)
    message = complaint(tmp_path, "--source", source, "--strict")
    assert "5 clips are damaged (--strict)" in message
    assert not list((tmp_path / "out").rglob("*_videofolder.txt"))
    capsys.readouterr()
    for workers in ("0", "2"):
        root = run(tmp_path, "--source", source, workers=workers)
        said = capsys.readouterr().out
        for name in ("text", "empty", "sound", "pipe", "zero"):
            assert f"{name}.mp4" in said
        assert said.count("WARNING: left out: ") == 5
        assert "5 clips were left out" in said
        assert read_header(root / "train_videofolder.txt")["left_out"] == "5"
        assert len(load_table(root)) == 13  # the cut one is used as far as it goes
        assert "cut.mkv" in said


def test_parts_that_cannot_be_had_name_their_line(source, tmp_path, capsys):
    names = sorted(path.relative_to(source).as_posix() for path in source.rglob("*.mp4"))
    spans = [(0, 0.2), (5, 6), (0.2, 0.1), (0.01, 0.02), (0.1, 2), (0.1, ""), ("", 0.5)]
    rows = [(name, i % 2, "", "") for i, name in enumerate(names)]
    rows += [(names[0], 0, *span) for span in spans] + [("none.mp4", 1, "", "")]
    head = ("video", "label", "start_seconds", "end_seconds")
    table = write_table(source / "t.csv", [head, *rows])
    root = run(tmp_path, "--table", table)
    said = capsys.readouterr().out
    for line, part in (
        (15, "goes from 5 to 6 s, the video lasts"),
        (16, "ends at 0.1 s, before it starts at 0.2 s"),
        (17, "is shorter than one frame"),
        (18, "goes from 0.1 to 2 s"),
        (21, "names video 'none.mp4', which is not in"),
    ):
        assert any(f"t.csv:{line} " in x and part in x for x in said.splitlines())
    assert read_header(root / "test_videofolder.txt")["left_out"] == "5"
    assert "5 clips are damaged" in complaint(tmp_path, "--table", table, "--strict")


def test_nothing_left_is_an_error(tmp_path):
    for name in ("a/1.mp4", "b/2.mp4", "b/3.mp4", "b/4.mp4"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_text("no video")
    assert "none of 4 clips can be used" in complaint(tmp_path, "--source", tmp_path / "in")


def test_places_that_cannot_be_meant(source, tmp_path):
    root = run(tmp_path, "--source", source)
    assert "is where the data set is written" in complaint(tmp_path, "--source", root / "videos")
    (root / "train_videofolder.txt").write_text("mine 3 0\n")
    assert "was not written by process_dataset_videos.py" in complaint(tmp_path, "--source", source)
    assert (root / "train_videofolder.txt").read_text() == "mine 3 0\n"
    other = run(tmp_path, "--source", source, "--extract_frames", dataset="f")
    assert "holds frames, which would be used instead" in complaint(
        tmp_path, "--source", source, dataset="f"
    )
    (other / "frames" / "fall" / "take 1" / ".made_of.json").unlink()
    assert "were not extracted by this program" in complaint(
        tmp_path, "--source", source, "--extract_frames", dataset="f"
    )


def test_odd_names_are_kept_or_made_safe(tmp_path):
    names = ["# 1.mp4", "ü 日本.mp4", "a.mp4", "a.avi", "a/b.mp4", "x  y.mp4", "..q.mp4"]
    for number, name in enumerate(names):
        for label in ("fall", "stand"):
            codec = "mpeg4" if name.endswith("avi") else "libx264"
            first = 2 * number + (label == "fall")
            write_video(tmp_path / "in" / label / name.lstrip("."), 12, codec=codec, first=first)
    (tmp_path / "in" / "fall" / "a.mp4").rename(tmp_path / "in" / "fall" / "bad\udcff.mp4")
    for options in ((), ("--extract_frames",)):
        root = run(tmp_path, "--source", tmp_path / "in", *options, dataset=f"n{len(options)}")
        found = lists(root)
        assert sum(map(len, found.values())) == 14
        for record in (r for records in found.values() for r in records):
            assert find_frames(root, record, load_table(root)).load(np.array([11]), SIZE).any()


def test_the_program_ends_as_users_expect(source, tmp_path):
    command = [sys.executable, ROOT / "process_dataset_videos.py", "--dataset", "x"]
    command += ["--source", "none"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert "none is no folder" in done.stderr


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ("", "name a folder of videos with --source"),
        ("--dataset ../x --source in", "is no name for a new folder"),
        ("--source in --short_side 9", "need --extract_frames"),
        ("--source in --extract_frames --jpeg_quality 101", "from 1 to 100"),
        ("--source in --folds 1", "at least 2"),
        ("--source in --folds 3 --test_fraction 0.1", "no --test_fraction"),
        ("--source in --val_fraction 0", "must be above 0"),
        ("--source in --columns label=x", "give the table"),
        ("--source in --class_names a a", "different names"),
    ],
)
def test_options_that_cannot_be_meant(options, part, capsys):
    with pytest.raises(SystemExit) as caught:
        process_dataset_videos.main(["--dataset", "x", *options.split()])
    said = capsys.readouterr().err
    assert (caught.value.code, said.count("\n")) == (2, 1)
    assert part in said


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    folder = tmp_path_factory.mktemp("printed")
    with launching("process_dataset_videos", folder) as launcher:
        yield launcher


def wait_for_workers(root):
    """Wait until the processes of a killed run have ended: they hold its lock."""
    with suppress(FileNotFoundError):
        handle = os.open(root, os.O_RDONLY)
        fcntl.flock(handle, fcntl.LOCK_EX)
        os.close(handle)


@pytest.mark.parametrize("mode", ["frames", "videos"])
def test_kill_at_any_moment_and_run_again(source, tmp_path, program, mode):
    """GSP_KILLS says how often; from 20 on, half of them must hit the middle of the work."""
    for number in range(3):
        write_video(source / "fall" / f"long {number}.mp4", 150, size=(320, 240), first=number)
    options = ["--source", source, "--folds", 3, "--dataset_path", tmp_path / "out", "--no_check"]
    options += ["--workers", 2]
    options += ["--extract_frames", "--short_side", 64] if mode == "frames" else ["--copy"]
    whole, root = tmp_path / "out" / "whole", tmp_path / "out" / "killed"
    begin = time.monotonic()
    assert program.run("--dataset", "whole", *options).poll() == 0
    seconds = time.monotonic() - begin
    expected = content(whole)
    kills = int(os.environ.get("GSP_KILLS", "4"))
    rng, moments, halves = random.Random(0), Counter(), 0
    for _ in range(kills):
        process = program.start("--dataset", "killed", *options)
        time.sleep(rng.uniform(0, seconds))
        process.send_signal(signal.SIGKILL, whole_group=rng.random() < 0.5)
        code = process.wait()
        wait_for_workers(root)
        there = content(root)
        moments["after" if code == 0 else "middle" if there else "before"] += 1
        halves += any(".partial" in name for name in there)
        assert {
            name: digest for name, digest in there.items() if ".partial" not in name
        }.items() <= (expected.items())
        if code == 0 or rng.random() < 0.5:
            again = program.run("--dataset", "killed", *options)
            assert again.poll() == 0, again.stderr
            assert content(root) == expected
            shutil.rmtree(root)
    assert program.run("--dataset", "killed", *options).poll() == 0
    assert content(root) == expected
    print(f"{kills} kills: {dict(moments)}, {halves} with files half-written")  # noqa: T201
    assert moments["middle"] >= (kills // 2 if kills >= 20 else 1)


def test_ctrl_c_ends_every_process_without_a_word(source, tmp_path, program):
    for number in range(3):
        write_video(source / "fall" / f"long {number}.mp4", 300, size=(320, 240), first=number)
    options = ["--source", source, "--dataset_path", tmp_path / "out", "--no_check"]
    options += ["--extract_frames", "--workers", 2]
    for attempt in range(8):  # a busy machine may stop us until there is nothing left to stop
        root = tmp_path / "out" / f"x{attempt}"
        process = program.start("--dataset", root.name, *options)
        while not (root / "frames").exists() and process.poll() is None:
            time.sleep(0.002)
        process.send_signal(signal.SIGINT, whole_group=True)  # as a terminal does
        if process.wait() != 0:
            break
    assert (process.wait(), process.stderr) == (130, "")
    wait_for_workers(root)
    assert not list(root.glob("*_videofolder.txt"))


def test_a_second_run_waits_for_none(source, tmp_path):
    from datasets.prepare import video_output

    root = tmp_path / "out" / "jumps"
    with video_output.alone_in(root):
        assert "is being written by another" in complaint(tmp_path, "--source", source)
    run(tmp_path, "--source", source)


def test_known_videos_are_not_decoded_again(source, tmp_path, monkeypatch):
    root = run(tmp_path, "--source", source)
    before = content(root)
    monkeypatch.setattr(
        "datasets.prepare.video_steps.probe_video", lambda *_: pytest.fail("decoded")
    )
    run(tmp_path, "--source", source)
    assert content(root) == before
    assert lists(run(tmp_path, "--source", source, "--seed", 5))


@pytest.mark.parametrize("extract", [False, True])
def test_real_videos_split_by_subject(tmp_path, extract):
    if not DATA.is_dir():
        pytest.skip("../shared/data is not part of the project: no real videos")
    source = tmp_path / "in"
    source.mkdir()
    with (DATA / "gmdcsa24" / "clips.csv").open(encoding="utf-8") as file:
        rows = list(csv.reader(file))
    chosen = ("1_fall_13", "2_adl_23", "3_adl_19", "3_fall_19", "4_fall_02")
    wanted = [row for row in rows if row[0].removeprefix("subject") in chosen]
    for name in chosen:
        path = source / f"subject{name}.mp4"
        path.symlink_to(DATA / "gmdcsa24" / "videos" / path.name)
    table = write_table(tmp_path / "clips.csv", [rows[0], *wanted])
    columns = ["--columns", "label=label_fall", "group=subject", "video=clip"]
    options = ["--source", source, "--table", table, *columns, "--class_names", "adl", "fall"]
    root = run(tmp_path, *options, *(["--extract_frames"] if extract else []), workers="2")
    clips = load_table(root)
    assert {name: clip.num_frames for name, clip in clips.items()} == {
        row[0]: int(row[3]) for row in wanted
    }
    sizes = {(clip.width, clip.height) for clip in clips.values()}
    assert sizes == {(341, 256)} if extract else {(640, 480)}
    split_of = {r.name: split for split, records in lists(root).items() for r in records}
    assert len({(clips[name].group, split) for name, split in split_of.items()}) == 4
