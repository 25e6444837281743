import shutil

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from datasets.catalogue import find_row
from datasets.check.lists import read_lists
from datasets.check.pool import Workers
from datasets.check.splits import check_classes
from datasets.check.survey import survey
from datasets.clip_table import ClipRow, write_table
from datasets.records import PUBLISHED
from errors import InputError
from tests.scenes import NUM_FRAMES, SIZE, write_clip, write_scenes


@pytest.fixture
def root(tmp_path):
    return write_scenes(tmp_path / "mine")


def look(root, name="mine"):
    return survey(root, find_row(name), Workers(1), decode=False)


def findings(root, name="mine"):
    return {finding.kind: finding for finding in look(root, name).findings}


def list_of(root, split):
    return root / f"{split}_videofolder.txt"


def rewrite(root, split, *lines):
    list_of(root, split).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def add_clip(root, split, name, label=0):
    with list_of(root, split).open("a", encoding="utf-8") as file:
        file.write(f"{name} {NUM_FRAMES} {label}\n")


def copy_clip(root, source, name):
    shutil.copytree(root / "frames" / source, root / "frames" / name)
    target = root / "poses" / f"{name}.npz"
    target.parent.mkdir(exist_ok=True)
    shutil.copy(root / "poses" / f"{source}.npz", target)


def test_a_clean_data_set_has_no_finding(root):
    found = look(root)
    assert found.findings == []
    assert [(s.split, s.clips, s.majority) for s in found.splits] == [
        ("train", 4, 0.5),
        ("val", 2, 0.5),
        ("test", 2, 0.5),
    ]
    assert (found.frames, dict(found.sizes)) == (8 * NUM_FRAMES, {SIZE: 8})


def test_no_list_at_all_is_refused(root):
    for split in ("train", "val", "test"):
        list_of(root, split).unlink()
    with pytest.raises(InputError, match="has no clip list"):
        look(root)


# ---------------------------------------------------------------- lists


def test_one_list_is_enough(root):
    for split in ("val", "test"):
        list_of(root, split).unlink()
    assert set(findings(root)) == {"list_missing", "unlisted"}


BAD_LINES = {
    "train_0 20": "list_line",
    "train_0 20 -1": "list_line",
    "train_0 many 1": "list_line",
    "../train_0 20 1": "list_line",
    "/etc 20 1": "list_line",
    "a\0b 20 1": "list_line",
    "train_1 20 1": "list_repeat",
}


@pytest.mark.parametrize(("line", "kind"), BAD_LINES.items(), ids=repr)
def test_a_bad_line_is_named_and_the_others_are_checked(root, line, kind):
    rewrite(root, "train", "train_1 20 1", line, "train_2 20 0", "train_3 20 1", "train_0 20 0")
    found = look(root)
    (bad,) = [finding for finding in found.findings if finding.kind == kind]
    assert bad.path == f"{list_of(root, 'train')}:2"
    assert found.splits[0].clips == 4


def test_many_bad_lines_are_counted(root):
    rewrite(root, "train", *[f"clip {i}" for i in range(500)], "train_0 20 0")
    bad = [finding for finding in look(root).findings if finding.kind == "list_line"]
    assert len(bad) == 21
    assert "480 more" in bad[-1].text


def test_an_empty_list_and_one_that_is_no_text_are_told(root):
    list_of(root, "val").write_text("", encoding="utf-8")
    list_of(root, "test").write_bytes(b"\xff\xfe\x00garbage")
    found = findings(root)
    assert {"list_empty", "list_unreadable"} <= set(found)


def test_a_label_beyond_the_classes_is_told_and_a_huge_one_takes_no_memory(root):
    add_clip(root, "train", "train_9", label=999_999_999)
    copy_clip(root, "train_0", "train_9")
    add_clip(root, "val", "val_9", label=2)
    copy_clip(root, "train_1", "val_9")
    assert "label_unknown" not in findings(root)
    header = '# classes: ["landed", "fall"]\n'
    text = list_of(root, "train").read_text(encoding="utf-8")
    list_of(root, "train").write_text(header + text, encoding="utf-8")
    texts = [f.text for f in look(root).findings if f.kind == "label_unknown"]
    assert len(texts) == 2
    assert "999999999 of train_9" in texts[0]


def test_the_header_is_read(root):
    text = list_of(root, "train").read_text(encoding="utf-8")
    header = "# made_by: x\n# left_out: 3\n# classes: [1, 2]\n"
    list_of(root, "train").write_text(header + text, encoding="utf-8")
    found = findings(root)
    assert found["left_out"].text == "leaves out 3 damaged clips"
    assert "list_header" in found


def test_a_broken_table_is_told(root):
    (root / "clips.csv").write_text("clip,num_frames\ntrain_0,many\n", encoding="utf-8")
    found = findings(root)["table_unreadable"]
    assert found.path.endswith("clips.csv:2")


# ---------------------------------------------------------------- classes


def test_a_split_of_one_class_and_one_that_lacks_a_class_are_told(root):
    rewrite(root, "train", "train_0 20 0", "train_2 20 0")
    found = findings(root)
    assert found["one_class"].text == "has only clips of class 0"
    assert found["class_not_trained"].text == "has no clip of class 1"
    rewrite(root, "train", *[f"train_{i} 20 {i % 2}" for i in range(4)])
    rewrite(root, "test", "test_0 20 0")
    found = findings(root)
    assert found["class_not_tested"].path == str(list_of(root, "test"))


# ---------------------------------------------------------------- leaks


def test_a_clip_in_two_lists_is_told_once_as_such(root):
    add_clip(root, "val", "train_0")
    found = look(root)
    assert [f.kind for f in found.findings if f.level == "error"] == ["shared_clip"]


def test_equal_content_under_two_names_is_told(root):
    copy_clip(root, "train_0", "val_9")
    add_clip(root, "val", "val_9")
    assert set(findings(root)) == {"shared_content"}
    text = findings(root)["shared_content"].text
    assert "train_0" in text
    assert "val_9" in text


def test_equal_content_in_one_list_under_two_labels_is_told(root):
    copy_clip(root, "train_0", "train_9")
    add_clip(root, "train", "train_9", label=1)
    assert "under another label" in findings(root)["repeated_content"].text


def test_overlapping_cuts_of_one_film_are_told(root):
    copy_clip(root, "train_0", "test_9")
    add_clip(root, "test", "test_9")
    folder = root / "frames" / "test_9"
    write_clip(root / "other", seed=77)
    for number in range(9, NUM_FRAMES + 1):
        shutil.copy(root / "other" / f"{number:05d}.jpg", folder)
    assert set(findings(root)) == {"shared_frames"}
    assert "shares 8 frames with train_0" in findings(root)["shared_frames"].text


def test_two_black_frames_in_common_are_no_leak(root):
    for split in ("train", "test"):
        for number in (1, 2):
            source = root / "frames" / "train_0" / "00001.jpg"
            shutil.copy(source, root / "frames" / f"{split}_1" / f"{number:05d}.jpg")
    assert findings(root) == {}


def test_a_recompressed_copy_is_told(root):
    import cv2

    copy_clip(root, "train_0", "test_9")
    for path in (root / "frames" / "test_9").iterdir():
        cv2.imwrite(str(path), cv2.imread(str(path)), [cv2.IMWRITE_JPEG_QUALITY, 60])
    add_clip(root, "test", "test_9")
    found = findings(root)
    assert set(found) == {"near_duplicate"}
    assert found["near_duplicate"].clip == "test_9"
    assert "looks like train_0 of train" in found["near_duplicate"].text


def test_a_group_in_two_lists_is_told(root):
    names = [f"{s}_{i}" for s, n in (("train", 4), ("val", 2), ("test", 2)) for i in range(n)]
    rows = [ClipRow(name, num_frames=NUM_FRAMES, group=name.split("_")[0]) for name in names]
    write_table(root, rows)
    assert findings(root) == {}
    write_table(root, [*rows[:-1], ClipRow("test_1", num_frames=NUM_FRAMES, group="train")])
    assert set(findings(root)) == {"shared_group"}


def test_the_published_protocol_is_said_and_its_overlap_expected(root):
    text = list_of(root, "test").read_text(encoding="utf-8")
    list_of(root, "val").write_text(text, encoding="utf-8")
    assert "shared_clip" in findings(root)
    list_of(root, "val").write_text(f"# protocol: {PUBLISHED}\n{text}", encoding="utf-8")
    assert set(findings(root)) == {"published", "unlisted"}
    add_clip(root, "train", "test_0")
    assert "shared_clip" in findings(root)


# ---------------------------------------------------------------- the rest


def test_unlisted_files_are_told(root):
    write_clip(root / "frames" / "deep" / "forgotten", seed=50)
    (root / "poses" / "nobody.npz").write_bytes(b"")
    (root / "videos").mkdir()
    (root / "videos" / "film.mp4").write_bytes(b"")
    (root / "videos" / ".film.mp4.partial").write_bytes(b"")
    unlisted = [f.path for f in look(root).findings if f.kind == "unlisted"]
    expected = ("frames/deep/forgotten", "poses/nobody.npz", "videos/film.mp4")
    assert unlisted == [str(root / place) for place in expected]


def test_a_clip_below_another_is_listed(root):
    copy_clip(root, "train_0", "train_1/inner")
    add_clip(root, "train", "train_1/inner")
    assert set(findings(root)) == {"repeated_content"}


def test_sizes_and_rates_that_differ_are_counted(root):
    shutil.rmtree(root / "frames" / "val_1")
    write_clip(root / "frames" / "val_1", seed=90, size=(48, 32))
    rates = {"train_0": 15.0, "train_1": 29.97, "train_2": 30.0}
    write_table(root, [ClipRow(n, num_frames=NUM_FRAMES, fps=fps) for n, fps in rates.items()])
    found = findings(root)
    assert "96x64 (7 clips), 48x32 (1 clips)" in found["sizes_differ"].text
    assert "30 (2 clips), 15 (1 clips)" in found["rates_differ"].text


def test_no_keypoints_at_all_is_no_finding_but_one_missing_is(root):
    (root / "poses" / "val_0.npz").unlink()
    assert findings(root)["keypoints_missing"].clip == "val_0"
    shutil.rmtree(root / "poses")
    found = look(root)
    assert (found.findings, found.has_poses) == ([], False)


def test_skeletons_alone_need_no_frames(root):
    shutil.rmtree(root / "frames")
    found = look(root)
    assert (found.findings, found.has_frames) == ([], False)


def test_without_frames_or_keypoints_every_clip_is_an_error(root):
    shutil.rmtree(root / "frames")
    shutil.rmtree(root / "poses")
    assert [f.kind for f in look(root).findings] == ["frames_missing"] * 8


def test_names_that_would_disturb_a_terminal_are_escaped(root):
    odd = "clip \x1b[31mred"
    copy_clip(root, "train_0", odd)
    (root / "frames" / odd / "00003.jpg").write_bytes(b"")
    add_clip(root, "train", odd)
    (finding,) = [f for f in look(root).findings if f.kind == "frame_empty"]
    assert "\x1b" not in finding.line() + finding.clip


def test_a_name_too_long_for_the_disk_does_not_stop_the_check(root):
    add_clip(root, "train", "a" * 4096)
    found = look(root)
    assert [f.level for f in found.findings] == ["error"]
    assert found.frames == 8 * NUM_FRAMES


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_bytes_in_lists_and_table_end_in_findings(root, data):
    """Mutated and random files: no traceback, and every finding is one line."""
    for name in ("train_videofolder.txt", "clips.csv"):
        old = b"train_0 20 0\n# x: y\ntrain_1 20 1\nclip,video,num_frames,fps\ntrain_0,,20,30\n"
        cut = data.draw(st.integers(0, len(old)))
        (root / name).write_bytes(old[:cut] + data.draw(st.binary(max_size=40)) + old[cut:])
    found = read_lists(root)
    found.findings += check_classes(found)
    for finding in found.findings:
        assert len(finding.printable().line().splitlines()) == 1


def test_lists_name_every_clip_once(root):
    add_clip(root, "val", "train_0")
    assert len(read_lists(root).clips()) == 8
