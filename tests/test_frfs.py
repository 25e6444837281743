"""The FR-FS download to a data set: what is found, what is refused, what is left alone."""

import json
import os
import random
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

import process_dataset_FRFS
from datasets.clip_table import load_table
from datasets.prepare import frfs, frfs_output
from datasets.records import PUBLISHED, load_records, read_header
from errors import InputError
from tests.frfs_download import state_of, write_clip, write_download, write_table

ROOT = Path(__file__).resolve().parent.parent
SPLITS = ("train", "val", "test")


def run(path, *more, check=False):
    process_dataset_FRFS.main(
        ["--dataset_path", str(path), *([] if check else ["--no_check"]), *map(str, more)]
    )


def records(path, split):
    return load_records(path / "FRFS" / f"{split}_videofolder.txt")


def names(path, split):
    return [record.name for record in records(path, split)]


def complaint(path, *more):
    with pytest.raises(InputError) as caught:
        run(path, *more)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def made(tmp_path):
    """A download in dataset/FRFS, where the published call looks for it."""
    return write_download(tmp_path / "FRFS")


# ---------------------------------------------------------------- the usual way


def test_frames_boxes_table_and_lists(made, tmp_path):
    run(tmp_path)
    root = tmp_path / "FRFS"
    assert names(tmp_path, "test") == [key for key, _ in made.test]
    assert sorted(names(tmp_path, "train") + names(tmp_path, "val")) == sorted(
        key for key, _ in made.train
    )
    assert {r.label for r in records(tmp_path, "val")} == {0, 1}
    assert {r.num_frames for s in SPLITS for r in records(tmp_path, s)} == {12}
    table = load_table(root)
    assert list(table) == made.keys
    row = table[made.keys[0]]
    assert (row.num_frames, row.width, row.height, row.video, row.group) == (12, 64, 36, "", "")
    assert len({row.sha256 for row in table.values()}) == len(made.keys)
    for key in made.keys:
        boxes = np.load(root / "boxes" / f"{key}.npy")
        assert (boxes.shape, boxes.dtype) == ((12, 4), np.float32)
        assert np.array_equal(boxes[:, 2:] - boxes[:, :2], np.full((12, 2), 8))


def test_defect_33_unpadded_names_keep_their_order(made, tmp_path):
    run(tmp_path)
    for key in made.keys:
        folder = tmp_path / "FRFS" / "frames" / key
        assert sorted(path.name for path in folder.iterdir()) == [
            f"{n:05d}.jpg" for n in range(1, 13)
        ]
        for index in range(12):
            assert (folder / f"{index + 1:05d}.jpg").samefile(made.frame(key, index))


@pytest.mark.parametrize("option", [None, "--copy", "--symlink"])
def test_the_download_stays_as_it_is(tmp_path, option):
    made = write_download(tmp_path / "down load é", broken=True)
    before = state_of(made.folder)
    run(tmp_path / "data", "--source", made.folder, *([option] if option else []))
    assert state_of(made.folder) == before


def test_kinds_of_links(tmp_path):
    made = write_download(tmp_path / "download")
    frame, source = tmp_path / "FRFS/frames/0_1/00004.jpg", made.frame("0_1", 3)
    for option, is_same, is_link in (
        ("--copy", False, False),
        ("--symlink", True, True),
        (None, True, False),
        ("--copy", False, False),
        (None, True, False),
        ("--symlink", True, True),
    ):
        run(tmp_path, "--source", made.folder, *([option] if option else []))
        assert (frame.samefile(source), frame.is_symlink()) == (is_same, is_link)
        assert frame.read_bytes() == source.read_bytes()
    assert not list((tmp_path / "FRFS").rglob(".*"))


def test_a_file_system_without_hard_links_gets_copies_once(tmp_path, monkeypatch, capsys):
    made = write_download(tmp_path / "download")

    def refuse(*_):
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    run(tmp_path, "--source", made.folder)
    out = capsys.readouterr().out
    assert out.count("cannot make hard links") == 1
    assert f"{12 * len(made.keys)} new copies" in out
    before = state_of(tmp_path / "FRFS")
    run(tmp_path, "--source", made.folder)
    assert "0 new copies, 0 put" in capsys.readouterr().out
    assert state_of(tmp_path / "FRFS") == before


@pytest.mark.parametrize("option", [None, "--copy", "--symlink"])
def test_running_again_changes_nothing(tmp_path, option):
    made = write_download(tmp_path / "download", broken=True)
    more = ["--source", made.folder, *([option] if option else [])]
    run(tmp_path, *more)
    before = state_of(tmp_path / "FRFS")
    run(tmp_path, *more)
    assert state_of(tmp_path / "FRFS") == before


def test_another_seed_is_said_and_done(tmp_path, capsys):
    made = write_download(tmp_path / "download", train=30)
    run(tmp_path, "--source", made.folder)
    first = names(tmp_path, "val")
    run(tmp_path, "--source", made.folder, "--seed", 7)
    assert "replaced" in capsys.readouterr().out
    assert names(tmp_path, "val") != first
    run(tmp_path / "new", "--source", made.folder, "--seed", 7)
    assert names(tmp_path, "val") == names(tmp_path / "new", "val")
    assert set(names(tmp_path, "val") + names(tmp_path, "train")) == {k for k, _ in made.train}


def test_defect_12_no_test_clip_chooses_the_epoch(made, tmp_path):
    run(tmp_path)
    assert not set(names(tmp_path, "val")) & set(names(tmp_path, "test"))


def test_the_published_protocol_is_declared_in_every_list(made, tmp_path, capsys):
    run(tmp_path, "--published_protocol")
    assert names(tmp_path, "val") == names(tmp_path, "test") == [key for key, _ in made.test]
    assert names(tmp_path, "train") == [key for key, _ in made.train]
    for split in SPLITS:
        header = read_header(tmp_path / "FRFS" / f"{split}_videofolder.txt")
        assert header["protocol"] == PUBLISHED
    assert "WARNING: published protocol" in capsys.readouterr().out


def test_no_class_has_a_name_unless_given(made, tmp_path):
    run(tmp_path)
    assert "classes" not in read_header(tmp_path / "FRFS/train_videofolder.txt")
    run(tmp_path, "--class_names", "Stürze", "ok, gut")
    for split in SPLITS:
        header = read_header(tmp_path / "FRFS" / f"{split}_videofolder.txt")
        assert json.loads(header["classes"]) == ["Stürze", "ok, gut"]


@pytest.mark.parametrize(
    "line",
    [
        "--class_names a",
        "--class_names a a",
        "--val_fraction 1",
        "--val_fraction nan",
        "--published_protocol --val_fraction 0.2",
        "--copy --symlink",
        "--seed -1",
    ],
)
def test_senseless_options_are_refused(tmp_path, line, capsys):
    with pytest.raises(SystemExit) as caught:
        run(tmp_path, *line.split())
    assert caught.value.code == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_the_check_runs_at_the_end(made, tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(
        process_dataset_FRFS, "check_prepared", lambda *a, **k: calls.append((a, k))
    )
    run(tmp_path, check=True)
    assert calls == [
        (("FRFS", tmp_path), {"decode": False, "strict": False, "wrote": ("boxes", "frames")})
    ]
    run(tmp_path)
    assert len(calls) == 1


# ---------------------------------------------------------------- where the download lies


@pytest.mark.parametrize(
    "place", ["FRFS", "FRFS/FR-FS", "FRFS/a/b", "FR-FS", "."], ids=lambda p: p or "dot"
)
def test_usual_places_are_found(tmp_path, place):
    write_download(tmp_path / place)
    run(tmp_path)
    assert len(names(tmp_path, "test")) == 4


def test_names_in_another_case_a_nested_folder_and_xlsx_suffix(tmp_path):
    made = write_download(tmp_path / "dl")
    (made.folder / "Images").rename(made.folder / "x")
    (made.folder / "IMAGES").mkdir()
    (made.folder / "x").rename(made.folder / "IMAGES" / "Images")
    (made.folder / "Train.xls").rename(made.folder / "train.XLS")
    run(tmp_path, "--source", tmp_path)
    assert len(names(tmp_path, "test")) == 4


def test_a_table_missing_or_twice_and_two_downloads(tmp_path):
    made = write_download(tmp_path / "FRFS")
    shutil.copy(made.folder / "Test.xls", made.folder / "test.XLSX")
    assert "has both Test.xls and test.XLSX" in complaint(tmp_path)
    (made.folder / "test.XLSX").unlink()
    (made.folder / "Test.xls").unlink()
    assert "has Images/ but no Test.xls beside it" in complaint(tmp_path)
    write_download(tmp_path / "both/a")
    write_download(tmp_path / "both/b")
    assert "holds several folders Images/" in complaint(tmp_path, "--source", tmp_path / "both")


def test_nothing_there_says_what_is_needed(tmp_path):
    done = subprocess.run(
        [sys.executable, str(ROOT / "process_dataset_FRFS.py")],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2
    for part in ("dataset/FRFS/Images/<key>/0.jpg", "Train.xls", "Test.xls", "--source"):
        assert part in done.stdout
    assert done.stderr.startswith("error: dataset/FRFS has no folder Images/")
    assert len(done.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_prepared_data_set_is_accepted(tmp_path, capsys):
    made = write_download(tmp_path / "elsewhere")
    run(tmp_path, "--source", made.folder)
    run(tmp_path)
    assert "already prepared" in capsys.readouterr().out


def test_lists_and_frames_of_somebody_else_are_not_replaced(made, tmp_path):
    path = tmp_path / "FRFS" / "val_videofolder.txt"
    path.write_text("0_1 12 0\n")
    assert "was not written by process_dataset_FRFS.py" in complaint(tmp_path)
    path.unlink()
    own = tmp_path / "FRFS" / "frames" / "0_2"
    shutil.copytree(made.clip("0_3"), own)
    assert "is not a frame of the download as it is now" in complaint(tmp_path)
    assert (own / "0.jpg").read_bytes() == made.frame("0_3", 0).read_bytes()
    shutil.rmtree(own)
    run(tmp_path)
    (own / "00002.jpg").unlink()
    (own / "00002.jpg").write_bytes(made.frame("0_1", 5).read_bytes())
    assert "00002.jpg is not a frame of the download" in complaint(tmp_path)


def test_keypoints_beside_the_frames_survive(made, tmp_path):
    run(tmp_path)
    keypoints = tmp_path / "FRFS/frames/0_1/00001.npy"
    np.save(keypoints, np.zeros((17, 2)))
    run(tmp_path, "--copy")
    assert keypoints.is_file()


# ---------------------------------------------------------------- what is wrong with it


def test_a_broken_clip_is_left_out_named_and_counted(tmp_path, capsys):
    made = write_download(tmp_path / "FRFS", broken=True)
    run(tmp_path)
    out = capsys.readouterr().out
    assert f"left out clip {made.broken}: {made.frame(made.broken, 6)} is damaged" in out
    assert "1 damaged clips were left out" in out
    assert made.broken not in names(tmp_path, "train") + names(tmp_path, "val")
    counts = [read_header(tmp_path / "FRFS" / f"{s}_videofolder.txt")["left_out"] for s in SPLITS]
    assert counts == ["1", "0", "0"]
    assert not (tmp_path / "FRFS/frames" / made.broken).exists()


def test_strict_stops_before_any_list(tmp_path, capsys):
    made = write_download(tmp_path / "FRFS", broken=True)
    assert complaint(tmp_path, "--strict").startswith("1 findings, named above")
    assert made.broken in capsys.readouterr().out
    assert not list((tmp_path / "FRFS").glob("*.txt"))
    assert not list((tmp_path / "FRFS/frames").iterdir())


def break_gap(made, key):
    made.frame(key, 5).unlink()


def break_size(made, key):
    cv2.imwrite(str(made.frame(key, 5)), np.zeros((40, 64, 3), np.uint8))


def break_empty(made, key):
    for path in made.clip(key).iterdir():
        path.unlink()


def break_folder(made, key):
    shutil.rmtree(made.clip(key))


def break_fifo(made, key):
    made.frame(key, 11).unlink()
    os.mkfifo(made.frame(key, 11))


def break_device(made, key):
    made.frame(key, 5).unlink()
    made.frame(key, 5).symlink_to("/dev/zero")


def break_symlink_out(made, key):
    made.frame(key, 5).rename(made.folder / "out.jpg")
    made.frame(key, 5).symlink_to(made.folder / "out.jpg")


def break_folder_out(made, key):
    made.clip(key).rename(made.folder / "out")
    made.clip(key).symlink_to(made.folder / "out")


def break_prefix(made, key):
    made.frame(key, 5).rename(made.clip(key) / "img_5.jpg")


def break_html(made, key):
    made.frame(key, 5).write_text("<html>404</html>")


def break_zero(made, key):
    made.frame(key, 5).write_bytes(b"")


def break_middle(made, key):
    data = made.frame(key, 5).read_bytes()
    place = data.index(b"\xff\xda") + 40
    made.frame(key, 5).write_bytes(data[:place] + data[place + 300 :])


BROKEN = {
    break_gap: "5.jpg is missing",
    break_size: "5.jpg is 64x40 pixels, the first frame of its clip 64x36",
    break_empty: "holds no .jpg or .png frames",
    break_folder: "is not there: unpack the download's images again",
    break_fifo: "11.jpg is no file",
    break_device: "5.jpg leads out of the download's images",
    break_symlink_out: "5.jpg leads out of the download's images",
    break_folder_out: "outside of",
    break_prefix: "img_5.jpg breaks the naming of its clip",
    break_html: "5.jpg is no JPEG or PNG image",
    break_zero: "5.jpg is no JPEG or PNG image (0 bytes)",
    break_middle: "5.jpg is damaged",
}


@pytest.mark.parametrize(
    ("break_clip", "expected"), BROKEN.items(), ids=lambda v: getattr(v, "__name__", "")
)
def test_every_kind_of_broken_clip(tmp_path, capsys, break_clip, expected):
    made = write_download(tmp_path / "FRFS")
    break_clip(made, "0_2")
    before = state_of(made.folder / "Images")
    run(tmp_path)
    out = capsys.readouterr().out
    (line,) = [line for line in out.splitlines() if line.startswith("left out")]
    assert line.startswith("left out clip 0_2: ")
    assert str(made.folder) in line
    assert expected in line
    assert "0_2" not in names(tmp_path, "train") + names(tmp_path, "val")
    assert state_of(made.folder / "Images") == before
    assert complaint(tmp_path, "--strict").startswith("1 findings")


def test_a_clip_of_one_frame_and_numbers_from_1(tmp_path):
    made = write_download(tmp_path / "FRFS")
    for path in list(made.clip("0_1").iterdir())[1:]:
        path.unlink()
    for index in reversed(range(12)):
        made.frame("0_2", index).rename(made.clip("0_2") / f"img_{index + 1:03d}.jpg")
    run(tmp_path)
    found = {r.name: r.num_frames for s in SPLITS for r in records(tmp_path, s)}
    assert (found["0_1"], found["0_2"], len(found)) == (1, 12, 12)


def test_a_clip_that_broke_later_is_dropped_from_the_lists(made, tmp_path, capsys):
    run(tmp_path, "--copy")
    break_html(made, "0_2")
    run(tmp_path, "--copy")
    assert "frames/0_2 is of an earlier run" in capsys.readouterr().out
    assert "0_2" not in names(tmp_path, "train") + names(tmp_path, "val")


def test_nothing_whole_is_an_error(tmp_path):
    made = write_download(tmp_path / "FRFS")
    for key in made.keys:
        break_zero(made, key)
    assert "no clip of the tables is whole" in complaint(tmp_path)
    made = write_download(tmp_path / "two" / "FRFS")
    for key, _ in made.test:
        break_zero(made, key)
    assert "no clip of the test table is whole" in complaint(tmp_path / "two")


def test_folders_without_a_row_are_named(made, tmp_path, capsys):
    write_clip(
        made.folder / "Images" / "extra \x1b[31m clip", 0, 3, (64, 36), np.random.default_rng()
    )
    Path(os.fsdecode(os.fsencode(made.folder / "Images") + b"/\xff")).mkdir()
    run(tmp_path)
    out = capsys.readouterr().out
    assert out.count("has no row in the tables: not used") == 2
    assert "\x1b" not in out
    assert complaint(tmp_path, "--strict").startswith("2 findings")


def test_keys_match_folders_however_accents_are_written(tmp_path):
    made = write_download(tmp_path / "FRFS")
    made.clip("0_1").rename(made.clip("cafe\u0301 1"))
    write_table(made.folder / "Train.xls", [("caf\u00e9 1", 0), *made.train[1:]])
    run(tmp_path)
    assert "caf\u00e9 1" in names(tmp_path, "train") + names(tmp_path, "val")


def test_a_clip_in_both_tables_is_refused(made, tmp_path):
    write_table(made.folder / "Test.xls", [("3_1", 1), ("0_1", 0)])
    message = complaint(tmp_path)
    assert "clip 0_1 is in row 2 of the training table and in row 3 of the test table" in message


def copy_clip(made, source, target):
    shutil.rmtree(made.clip(target))
    shutil.copytree(made.clip(source), made.clip(target))


def test_identical_clips_on_two_sides_are_refused(made, tmp_path, capsys):
    copy_clip(made, made.train[0][0], made.test[0][0])
    assert "hold 1 clips with the same content" in complaint(tmp_path)
    assert not list((tmp_path / "FRFS").glob("*.txt"))
    run(tmp_path, "--allow_overlap")
    assert "hold the same frames" in capsys.readouterr().out


def test_a_validation_clip_that_is_a_test_clip_is_refused(made, tmp_path):
    run(tmp_path)
    copy_clip(made, names(tmp_path, "val")[0], made.test[0][0])
    shutil.rmtree(tmp_path / "FRFS" / "frames")
    assert "the val and the test list hold 1 clips with the same content" in complaint(tmp_path)
    run(tmp_path / "new", "--source", made.folder, "--allow_overlap")


def test_identical_training_clips_stay_on_one_side(tmp_path, capsys):
    made = write_download(tmp_path / "download", train=12)
    copy_clip(made, "0_1", "0_3")
    copy_clip(made, "0_1", "1_2")
    for seed in range(12):
        run(tmp_path, "--source", made.folder, "--seed", seed, "--val_fraction", 0.5)
        assert len({"0_1", "0_3", "1_2"} & set(names(tmp_path, "val"))) in (0, 3)
    assert "have labels" not in capsys.readouterr().out


def test_identical_clips_of_two_labels_are_a_finding(made, tmp_path, capsys):
    copy_clip(made, "0_1", "0_2")
    run(tmp_path)
    assert "clips 0_1 and 0_2 hold the same frames, but have labels 0 and 1" in (
        capsys.readouterr().out
    )


def test_label_attacks(made, tmp_path, capsys):
    write_table(made.folder / "Train.xls", [(key, 0) for key, _ in made.train])
    assert "has label 1, of which no training clip is left" in complaint(tmp_path)
    write_table(made.folder / "Test.xls", [(key, 0) for key, _ in made.test])
    assert "all training clips have label 0" in complaint(tmp_path)
    write_table(made.folder / "Train.xls", made.train)
    run(tmp_path)
    assert "WARNING: all test clips have label 0" in capsys.readouterr().out


def test_bad_boxes_are_findings_and_never_stop_the_clips(made, tmp_path, capsys):
    path = made.folder / "FRFS_Boxes.json"
    boxes = json.loads(path.read_text())
    run(tmp_path)
    assert (tmp_path / "FRFS/boxes/0_1.npy").is_file()
    boxes["0_1"] = boxes["0_1"][:-1]
    boxes["0_2"][3] = [float("nan")] * 8
    boxes["9_9"] = []
    del boxes["0_3"]
    path.write_text(json.dumps(boxes))
    run(tmp_path)
    out = capsys.readouterr().out
    assert "clip 0_1 has 11 boxes for 12 frames: not used" in out
    assert "clip 0_2 has a box that is not 8 finite numbers, in 1 of 12 frames from frame 3" in out
    assert "'9_9' is no key of the tables" in out
    assert "has no boxes for 1 clips, such as 0_3" in out
    assert not (tmp_path / "FRFS/boxes/0_1.npy").exists()
    assert np.isnan(np.load(tmp_path / "FRFS/boxes/0_2.npy")).all(1).tolist() == [
        n == 3 for n in range(12)
    ]
    assert complaint(tmp_path, "--strict").startswith("4 findings")


# ---------------------------------------------------------------- killed at any moment


# The program without the libraries that take seconds to import and only print.
QUICK = """
import contextlib, sys, types
sys.path.insert(0, {root!r})
console, checkup = types.ModuleType("console"), types.ModuleType("checkup")
console.say = console.warn = lambda text: None
console.StepLine = lambda *_, **__: contextlib.nullcontext()
checkup.check_prepared = None
sys.modules.update(console=console, checkup=checkup)
import process_dataset_FRFS
print("ready", flush=True)
process_dataset_FRFS.main(sys.argv[1:])
"""


def content_of(folder):
    return {name: (mode, content) for name, (mode, _, content) in state_of(folder).items()}


def kill_after(seconds, path, *more):
    """Run the program on `path`, kill it `seconds` after its imports; say whether it was cut."""
    code = QUICK.format(root=str(ROOT))
    line = [sys.executable, "-c", code, "--dataset_path", str(path), "--no_check", *map(str, more)]
    with subprocess.Popen(line, stdout=subprocess.PIPE) as child:
        assert child.stdout.readline() == b"ready\n"
        time.sleep(seconds)
        child.kill()
    return child.returncode < 0


@pytest.mark.parametrize("option", [[], ["--copy"]], ids=["hard", "copy"])
def test_killed_at_any_moment_and_run_again(tmp_path, option):
    made = write_download(tmp_path / "download", train=20, num_frames=40, broken=True)
    more = ["--source", made.folder, *option]
    before = state_of(made.folder)
    start = time.monotonic()
    run(tmp_path / "whole", *more)
    usual = time.monotonic() - start
    expected = content_of(tmp_path / "whole")
    rng = random.Random(0)
    cut = []
    while len(cut) < 5 or sum(cut) < 2:
        assert len(cut) < 15, cut
        target = tmp_path / f"killed{len(cut)}"
        cut.append(kill_after(usual * rng.random(), target, *more))
        usual *= 1 if cut[-1] else 0.6  # the machine was busier when it was measured
        if list(target.glob("FRFS/*.txt")):  # the lists are the last to appear
            assert content_of(target / "FRFS/frames") == content_of(tmp_path / "whole/FRFS/frames")
        run(target, *more)
        assert content_of(target) == expected
    assert state_of(made.folder) == before


def test_killed_between_two_choices(tmp_path):
    """Lists of two seeds never lie side by side, whenever the second run is killed."""
    made = write_download(tmp_path / "download", train=20, num_frames=4)
    for attempt in range(5):
        run(tmp_path, "--source", made.folder)
        kill_after(0.03 * attempt, tmp_path, "--source", made.folder, "--seed", 1, "--copy")
        present = [s for s in SPLITS if (tmp_path / "FRFS" / f"{s}_videofolder.txt").is_file()]
        seeds = {
            read_header(tmp_path / "FRFS" / f"{s}_videofolder.txt").get("seed")
            for s in present
            if s != "test"
        }
        assert len(seeds) <= 1
    run(tmp_path, "--source", made.folder, "--seed", 1, "--copy")
    run(tmp_path / "whole", "--source", made.folder, "--seed", 1, "--copy")
    assert content_of(tmp_path / "FRFS") == content_of(tmp_path / "whole/FRFS")


def test_lists_of_two_choices_never_lie_side_by_side(tmp_path, monkeypatch):
    made = write_download(tmp_path / "download", train=20, num_frames=2)
    real = frfs_output.write_list
    for stop_at in range(3):
        run(tmp_path, "--source", made.folder)
        calls = []

        def stop(*args, calls=calls, stop_at=stop_at):
            calls.append(args)
            if len(calls) > stop_at:
                raise KeyboardInterrupt
            real(*args)

        monkeypatch.setattr(frfs_output, "write_list", stop)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, "--source", made.folder, "--seed", 1)
        monkeypatch.undo()
        for split in ("train", "val"):
            path = tmp_path / "FRFS" / f"{split}_videofolder.txt"
            assert not path.exists() or read_header(path)["seed"] == "1"


def test_what_a_killed_run_left_is_removed_and_nothing_else(made, tmp_path):
    frames = tmp_path / "FRFS" / "frames"
    (frames / ".gone.partial").mkdir(parents=True)
    (frames / ".gone.partial" / "00001.jpg").write_text("")
    (tmp_path / "FRFS" / ".train_videofolder.txt.partial").write_text("half")
    own = made.folder / "Images" / ".mine.partial"
    own.write_text("of the user")
    run(tmp_path)
    assert own.read_text() == "of the user"
    left = [p for p in (tmp_path / "FRFS").rglob(".*") if p != own]
    assert left == []


def test_interrupted_by_ctrl_c(tmp_path, monkeypatch):
    made = write_download(tmp_path / "download", train=20)
    real, calls = frfs.check_frames, []

    def stop_soon(*args):
        calls.append(args)
        return real(*args)

    monkeypatch.setattr(frfs, "check_frames", stop_soon)

    def progress(done, total):
        raise KeyboardInterrupt

    found = frfs.find_download(made.folder)
    with pytest.raises(KeyboardInterrupt):
        frfs.check_download(
            found, frfs.read_tables(found), tmp_path, "hard", workers=1, progress=progress
        )
    assert len(calls) < 10


# ---------------------------------------------------------------- the whole way


@pytest.mark.slow
def test_the_published_training_line_runs_on_a_generated_download(tmp_path, make_archive):
    """process_dataset_FRFS.py, keypoints given, main.py and test_models.py, each as a program."""
    made = write_download(tmp_path / "download", train=12, test=4, num_frames=20, broken=True)
    data = tmp_path / "data"

    def program(*line):
        done = subprocess.run(
            [sys.executable, str(ROOT / line[0]), *map(str, line[1:])],
            cwd=tmp_path, capture_output=True, text=True,
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
        return done.stdout

    out = program("process_dataset_FRFS.py", "--source", made.folder, "--dataset_path", data)
    assert f"left out clip {made.broken}" in out
    for split in SPLITS:
        for record in records(data, split):
            boxes = np.load(data / "FRFS/boxes" / f"{record.name}.npy")
            keypoints = np.ones((record.num_frames, 1, 17, 3), np.float32)
            keypoints[:, 0, :, 0] = np.linspace(boxes[:, 0], boxes[:, 2], 17, axis=1)
            keypoints[:, 0, :, 1] = np.linspace(boxes[:, 1], boxes[:, 3], 17, axis=1)
            make_archive(data / "FRFS/poses" / f"{record.name}.npz", keypoints, (64, 36))
    line = shlex.split(
        "main.py --arch resnet50 --batch-size 4 --num_segments 4 --lr 0.01 --epochs 1 --dropout "
        "0.5 --weight-decay 5e-4 --warmup 10 --early_fusion_poses --num_channels 4 --gsf "
        "--gsf_ch_ratio 100 --dataset FRFS --experiment_name whole --pretrained none "
        "--input_size 32 --width 8"
    )
    out = program(*line, "--dataset_path", data, "--experiment_path", tmp_path / "runs")
    assert "best val top-1" in out
    (weights,) = tmp_path.glob("runs/experiments/FRFS/*/*_whole/best.pth.tar")
    out = program("test_models.py", "--weights", weights, "--dataset_path", data, "-j", 0)
    assert "of 4 clips" in out
    assert "class 0" in out
    assert "fall" not in out
