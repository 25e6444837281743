"""The built-in data set on disk: its layout, its bytes, and what happens when things go wrong."""

import hashlib
import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest

from datasets.synthetic import FPS, SyntheticSpec, ensure_synthetic, render_clip
from datasets.synthetic.sheet import key_moments
from datasets.synthetic.writer import VERSION, balanced_labels
from errors import InputError
from tools.make_synthetic import main

SPEC = SyntheticSpec(size=(48, 32), clips=(5, 2, 3), seed=4)


def tree(home):
    """Name and hash of every file below a folder."""
    files = sorted(path for path in home.rglob("*") if path.is_file())
    return {
        str(path.relative_to(home)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files
    }


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """The data set of SPEC, drawn by this process alone."""
    return ensure_synthetic(SPEC, tmp_path_factory.mktemp("data"), workers=1)


def read_list(home, split):
    lines = (home / f"{split}_videofolder.txt").read_text().splitlines()
    return [(folder, int(n), int(label)) for folder, n, label in map(str.split, lines)]


def test_lists_name_the_clips_with_their_lengths_and_balanced_labels(home):
    for split, count in zip(("train", "val", "test"), SPEC.clips, strict=True):
        rows = read_list(home, split)
        assert [folder for folder, _, _ in rows] == [f"{split}_{i + 1:04d}" for i in range(count)]
        labels = [label for _, _, label in rows]
        assert sum(labels) == count // 2
        for folder, num_frames, _ in rows:
            names = sorted(path.name for path in (home / "frames" / folder).iterdir())
            assert names == [f"{i:05d}.jpg" for i in range(1, num_frames + 1)]
            assert 36 <= num_frames <= 49


def test_labels_are_balanced_and_shuffled():
    labels = balanced_labels(320, np.random.default_rng(0))
    assert labels.sum() == 160
    assert 100 < np.count_nonzero(np.diff(labels)) < 220  # alternating would be 319


def test_files_hold_what_render_clip_gives(home):
    folder, num_frames, label = read_list(home, "val")[1]
    clip = render_clip(SPEC.size, (SPEC.seed, 1, 1), label, rink_seed=SPEC.seed)
    with np.load(home / "poses" / f"{folder}.npz", allow_pickle=False) as poses:
        assert poses["keypoints"].shape == (num_frames, 1, 17, 3)
        assert poses["keypoints"].dtype == poses["keypoints_exact"].dtype == np.float32
        np.testing.assert_array_equal(poses["keypoints"][:, 0], clip.keypoints)
        np.testing.assert_array_equal(poses["keypoints_exact"][:, 0], clip.keypoints_exact)
        assert (poses["height"], poses["width"], poses["fps"]) == (32, 48, FPS)
        assert str(poses["source"]) == "gate-shift-pose synthetic, detector model v1"
    for number, frame in enumerate(clip.frames, start=1):
        written = cv2.imread(str(home / "frames" / folder / f"{number:05d}.jpg"))[..., ::-1]
        np.testing.assert_allclose(written.mean(axis=(0, 1)), frame.mean(axis=(0, 1)), atol=1.5)


def test_a_complete_set_is_left_as_it_is(home):
    before = {path: path.stat().st_mtime_ns for path in home.rglob("*")}
    seen = []
    assert ensure_synthetic(SPEC, home.parent, progress=lambda *p: seen.append(p)) == home
    assert seen == [(10, 10)]
    assert {path: path.stat().st_mtime_ns for path in home.rglob("*")} == before


def test_the_bytes_do_not_depend_on_the_number_of_processes(home, tmp_path):
    done = []
    other = ensure_synthetic(
        SPEC, tmp_path, "FRFS", progress=lambda *p: done.append(p[0]), workers=2
    )
    assert tree(other) == tree(home)
    assert done == list(range(11))


def test_another_seed_gives_other_bytes(home, tmp_path):
    spec = SyntheticSpec(SPEC.size, (1, 1, 1), seed=SPEC.seed + 1)
    other = tree(ensure_synthetic(spec, tmp_path))
    mine = tree(home)
    shared = [name for name in other if name in mine and not name.endswith(".txt")]
    assert len(shared) > 100
    assert not any(other[name] == mine[name] for name in shared)


def test_an_interrupted_run_goes_on_where_it_stopped(home, tmp_path):
    def stop(done, total):
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ensure_synthetic(SPEC, tmp_path, progress=stop, workers=1)
    partial = tmp_path / "synthetic"
    assert not (partial / "synthetic.json").exists()
    written = {path: path.stat().st_mtime_ns for path in partial.rglob("*.jpg")}
    # What a killed process leaves: a clip begun, and one with its keypoints only.
    (partial / "frames" / ".val_0001.123").mkdir()
    (partial / "frames" / ".val_0001.123" / "00001.jpg").write_bytes(b"half a pict")
    (partial / "poses" / "val_0002.npz").write_bytes(b"half a fi")

    seen = []
    ensure_synthetic(SPEC, tmp_path, progress=lambda *p: seen.append(p), workers=1)
    assert seen[0] == (4, 10)
    assert tree(partial) == tree(home)
    assert not list((partial / "frames").glob(".*"))
    assert {path: path.stat().st_mtime_ns for path in written} == written


def test_a_clip_that_fails_half_way_leaves_nothing_behind(tmp_path, monkeypatch):
    class DiskFullError(Exception):
        pass

    frames = []

    def encode(frame):
        frames.append(frame)
        if len(frames) == 20:
            raise DiskFullError
        return b"picture"

    monkeypatch.setattr("datasets.synthetic.writer._encode_jpeg", encode)
    with pytest.raises(DiskFullError):
        ensure_synthetic(SPEC, tmp_path, workers=1)
    assert not list((tmp_path / "synthetic" / "frames").iterdir())


def test_a_set_of_another_spec_is_refused_and_kept(home):
    before = tree(home)
    wanted = SyntheticSpec(SPEC.size, SPEC.clips, seed=9)
    with pytest.raises(InputError) as error:
        ensure_synthetic(wanted, home.parent)
    message = str(error.value)
    assert re.search(r"48x32, 5\+2\+3 clips, seed 4\), wanted .* seed 9\)", message)
    assert "choose another folder or remove this one" in message
    assert "\n" not in message
    assert tree(home) == before


def test_a_set_of_another_version_is_refused(tmp_path):
    home = ensure_synthetic(SyntheticSpec((48, 32), (1, 1, 1)), tmp_path)
    marker = home / "synthetic.json"
    facts = json.loads(marker.read_text())
    assert facts["class_names"] == ["landed", "fall"]
    marker.write_text(json.dumps(facts | {"version": 0}))
    with pytest.raises(InputError, match=rf"version 0.*wanted is \(version {VERSION}"):
        ensure_synthetic(SyntheticSpec((48, 32), (1, 1, 1)), tmp_path)
    marker.write_text("no json")
    with pytest.raises(InputError, match=r"\(unknown\), wanted"):
        ensure_synthetic(SyntheticSpec((48, 32), (1, 1, 1)), tmp_path)


def test_a_folder_with_other_files_is_refused(tmp_path):
    (tmp_path / "FRFS").mkdir()
    (tmp_path / "FRFS" / "Train.xls").write_text("precious")
    with pytest.raises(InputError, match="not a synthetic data set"):
        ensure_synthetic(SPEC, tmp_path, "FRFS")
    assert [path.name for path in (tmp_path / "FRFS").iterdir()] == ["Train.xls"]


def test_a_clip_with_missing_frames_is_named(tmp_path):
    spec = SyntheticSpec((48, 32), (1, 1, 1))
    home = ensure_synthetic(spec, tmp_path)
    (home / "frames" / "val_0001" / "00003.jpg").unlink()
    with pytest.raises(InputError, match=r"val_0001 holds \d+ frames instead of \d+: remove"):
        ensure_synthetic(spec, tmp_path)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"size": (160, 8)}, "--synthetic_size 160x8 is too small: use 32x32 or more"),
        ({"clips": (4, 0, 2)}, "--synthetic_clips 4 0 2 leaves a split empty"),
        ({"seed": -1}, "--synthetic_seed -1 is negative"),
    ],
)
def test_a_spec_that_cannot_be_made_is_refused(fields, message):
    with pytest.raises(InputError, match=re.escape(message)):
        SyntheticSpec(**fields)


def test_the_tool_writes_the_set_and_says_where(tmp_path, capsys):
    options = "--name FRFS --synthetic_size 48x32 --synthetic_clips 1 1 1 --synthetic_seed 3"
    main(["--output", str(tmp_path), *options.split()])
    assert capsys.readouterr().out.strip() == str(tmp_path / "FRFS")
    assert (tmp_path / "FRFS" / "synthetic.json").is_file()
    assert len(read_list(tmp_path / "FRFS", "test")) == 1


def test_the_tool_refuses_what_it_cannot_do(capsys):
    with pytest.raises(SystemExit, match="2"):
        main([])
    assert "give --output, --contact_sheet or both" in capsys.readouterr().err
    with pytest.raises(InputError, match="ends in .png"):
        main(["--contact_sheet", "sheet.jpg"])


def test_the_contact_sheet_shows_each_clip_before_in_and_after_the_jump():
    clip = render_clip(SPEC.size, 5, 1)
    before, takeoff, air, after, late = np.array(key_moments(clip)) / FPS
    jump = clip.facts.jump
    assert before < takeoff <= jump.takeoff + 0.04 < air < jump.landing < after < late


def test_the_readme_picture_is_small_and_as_wide_as_the_page():
    path = Path(__file__).parent.parent / "docs" / "images" / "contact_sheet.png"
    assert path.stat().st_size <= 700_000
    assert 1180 <= cv2.imread(str(path)).shape[1] <= 1210
