"""Keypoints of other programs: what is read, who is who, which frame is meant, what is refused."""

import contextlib
import json
import os
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from datasets.importers import READERS
from datasets.importers.names import (
    clip_aliases,
    group_frames,
    match_clips,
    plain_name,
    split_frame_name,
)
from datasets.importers.numbering import Target, choose_offsets
from datasets.importers.people import People, Span, clean, gather_rows
from datasets.importers.slots import slots_of
from errors import InputError
from ops.skeleton import BODY18, BODY25, COCO17
from options.poses import IMPORT_FORMATS


def numbers(seed: int = 0, joints: int = 17) -> np.ndarray:
    """Return (V, 3) keypoints with three decimals, as programs write them."""
    rng = np.random.default_rng(seed)
    keypoints = rng.uniform(1, 60, (joints, 3)).round(3)
    keypoints[:, 2] = rng.uniform(0.2, 1, joints).round(3)
    return keypoints


def as_layout(keypoints: np.ndarray, layout) -> np.ndarray:
    """Return COCO-17 keypoints as another layout, joints that COCO lacks far off."""
    wide = np.full((len(layout.joints), 3), 0.123)
    for place, joint in enumerate(layout.joints):
        if joint in COCO17.joints:
            wide[place] = keypoints[COCO17.joints.index(joint)]
    return wide


def write_json(path: Path, content) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def person(image, keypoints, **more):
    return {
        "image_id": image,
        "category_id": 1,
        "keypoints": keypoints.ravel().tolist(),
        "score": 3.1,
        "box": [1, 2, 3, 4],
        **more,
    }


@contextlib.contextmanager
def opened(kind: str, path: Path):
    with READERS[kind](path) as source:
        yield source


def load(kind: str, path: Path, key: int = 0) -> People:
    with opened(kind, path) as source:
        return source.load(list(source.aliases)[key])


def refusal(kind: str, path: Path) -> str:
    """Return the one line that reading everything ends with."""
    with pytest.raises(InputError) as error, opened(kind, path) as source:  # noqa: PT012
        for key in source.aliases:
            source.span(key)
            source.load(key)
    assert len(str(error.value).splitlines()) == 1
    return str(error.value)


def test_every_format_that_can_be_chosen_has_a_reader():
    assert tuple(READERS) == IMPORT_FORMATS


# ---------------------------------------------------------------- AlphaPose


@pytest.mark.parametrize("joints", [17, 26, 68, 133, 136])
def test_alphapose_results_are_read(tmp_path, joints):
    poses = [numbers(seed, joints) for seed in range(3)]
    path = write_json(
        tmp_path / "a" / "alphapose-results.json",
        [
            person("frame_000012.jpg", poses[0], idx=1),
            person("frame_000012.jpg", poses[1], idx=[[2.0], [5.0]]),
            person("frame_000010.jpg", poses[2], idx=1.0),
        ],
    )
    with opened("alphapose", path) as source:
        ((key, aliases),) = source.aliases.items()
        assert source.span(key) == Span(10, 12, "frame_000010")
        people = source.load(key)
    assert "a" in aliases
    assert people.frames.tolist() == [12, 12, 10]
    assert people.tracks.tolist() == [1, 2, 1]
    assert np.allclose(people.keypoints, [pose[:17] for pose in poses])


@pytest.mark.parametrize(
    ("people", "joints"), [("people", "pose_keypoints_2d"), ("bodies", "joints")]
)
def test_alphapose_forms_open_and_cmu_are_read(tmp_path, people, joints):
    pose = numbers()
    frame = {"version": 0.1, people: [{joints: as_layout(pose, BODY18).ravel().tolist()}]}
    path = write_json(tmp_path / "a.json", {"3.jpg": frame, "4.jpg": {"version": 0.1, people: []}})
    found = load("alphapose", path)
    assert found.frames.tolist() == [3]
    assert np.allclose(found.keypoints[0], pose)


def test_alphapose_joins_on_the_number_and_not_on_the_order(tmp_path):
    images = ["10.jpg", "9.jpg", "clip/11.png", "C:\\data\\clip\\7.jpg", "000000000008.jpg"]
    entries = [person(image, numbers(n)) for n, image in enumerate(images)]
    found = []
    with opened("alphapose", write_json(tmp_path / "x.json", entries)) as source:
        for key in source.aliases:
            people = source.load(key)
            found += [(int(f), k) for f, k in zip(people.frames, people.keypoints, strict=True)]
    assert sorted(number for number, _ in found) == [7, 8, 9, 10, 11]
    for number, keypoints in found:
        assert np.allclose(keypoints, numbers([10, 9, 11, 7, 8].index(number)))


def test_alphapose_numbers_as_image_ids(tmp_path):
    path = write_json(tmp_path / "x.json", [person(7, numbers()), person(8, numbers())])
    assert load("alphapose", path).frames.tolist() == [7, 8]


def test_alphapose_one_file_of_several_clips_by_folder_or_by_name(tmp_path):
    images = ["a/00001.jpg", "a/00002.jpg", "b/00001.jpg", "c d_00004.jpg"]
    path = write_json(tmp_path / "all.json", [person(image, numbers()) for image in images])
    with opened("alphapose", path) as source:
        matches = match_clips(source.aliases, ["a", "b", "c d", "all"])
        assert list(matches.keys) == ["a", "b", "c d"]
        assert matches.clips_without == ("all",)
        assert source.load(matches.keys["a"]).frames.tolist() == [1, 2]
        assert list(match_clips(source.aliases, ["a", "b", "all"]).keys) == ["a", "b"]


def test_alphapose_one_file_a_clip_in_folders_or_flat(tmp_path):
    write_json(tmp_path / "x" / "alphapose-results.json", [person("1.jpg", numbers(1))])
    write_json(tmp_path / "y z.json", [person("1.jpg", numbers(2))])
    write_json(tmp_path / "deep" / "v.json", [person("1.jpg", numbers(3))])
    with opened("alphapose", tmp_path) as source:
        matches = match_clips(source.aliases, ["x", "y z", "deep/v"])
        assert not matches.clips_without
        for seed, clip in enumerate(("x", "y z", "deep/v"), start=1):
            assert np.allclose(source.load(matches.keys[clip]).keypoints[0], numbers(seed))


def test_alphapose_a_damaged_file_leaves_the_others(tmp_path):
    write_json(tmp_path / "good.json", [person("1.jpg", numbers())])
    write_json(tmp_path / "bad.json", '[{"image_id": "1.jpg", "keyp')
    write_json(tmp_path / "empty.json", [])
    with opened("alphapose", tmp_path) as source:
        matches = match_clips(source.aliases, ["good", "bad", "empty"])
        assert matches.clips_without == ("empty",)
        assert len(source.load(matches.keys["good"]).frames) == 1
        for read in (source.span, source.load):
            with pytest.raises(InputError, match=r"bad\.json:1 is not JSON \(column"):
                read(matches.keys["bad"])
        assert source.findings == [
            f"{tmp_path / 'empty.json'} has nobody in it: neither a clip nor a frame is named"
        ]


ONE = person("1.jpg", numbers())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "x.json:1 is not JSON"),
        ("[" * 100_000, "nested too deeply"),
        ('{"a":' * 100_000, "nested too deeply"),
        ('[{"keypoints": [1' + "0" * 10_000 + "]}]", "object 1"),
        ("3", "not a list of people"),
        ([3], "object 1 has no keypoints"),
        ([ONE, {"image_id": "1.jpg"}], "object 2 has no keypoints"),
        ([person(None, numbers())], "object 1 is of image 'None': the name should hold the number"),
        ([person("no number.jpg", numbers())], "is of image 'no number.jpg'"),
        ([person("", numbers())], "is of image ''"),
        ([person(-1, numbers())], "is of image '-1.0'"),
        ([person(1.5, numbers())], "is of image '1.5'"),
        ([person([], numbers())], "is of image"),
        ([{**ONE, "keypoints": []}], "object 1 has no list of numbers"),
        ([{**ONE, "keypoints": [1, 2]}], "object 1 has no list of numbers"),
        ([{**ONE, "keypoints": "1 2 3"}], "object 1 has no list of numbers"),
        ([{**ONE, "keypoints": [[1, 2, 3]]}], "object 1 has no list of numbers"),
        ([{**ONE, "keypoints": [1, 2, "3"]}], "object 1 has no list of numbers"),
        ([{**ONE, "keypoints": [1, 2, True]}], "object 1 has no list of numbers"),
        ([ONE, person("2.jpg", numbers(joints=26))], "object 2 has 26 joints, those before 17"),
        ([person("1.jpg", numbers(joints=16))], "has 16 joints for each person"),
        ([person("1.jpg", numbers() * 99)], "confidences up to"),
        ([ONE] * 101, "101 people in one frame"),
        ({"people": []}, "use --format openpose"),
        ({"1.jpg": 3}, "image '1.jpg' has no list of people"),
        ({"1.jpg": {"people": [3]}}, "image '1.jpg', person 1 has no list of numbers"),
        ({"images": [], "annotations": []}, "image 'images' has no list of people"),
    ],
)
def test_alphapose_what_is_no_result_is_refused_with_its_place(tmp_path, content, message):
    path = write_json(tmp_path / "x.json", content)
    text = refusal("alphapose", path)
    assert str(path) in text
    assert message in text


@pytest.mark.parametrize("data", [b"\xff\xfe[\x00", b"\x00" * 50, b"[1,\xc3", b"\x89PNG"])
def test_json_that_is_no_text_is_refused(tmp_path, data):
    path = tmp_path / "x.json"
    path.write_bytes(data)
    assert str(path) in refusal("alphapose", path)


def test_json_with_a_mark_at_its_beginning_is_read(tmp_path):
    path = write_json(tmp_path / "x.json", "\ufeff" + json.dumps([ONE]))
    assert len(load("alphapose", path).frames) == 1


# ---------------------------------------------------------------- OpenPose


def write_openpose(folder: Path, prefix: str, frames: dict[int, list[np.ndarray]], **more) -> None:
    for number, people in frames.items():
        held = [
            {"person_id": [-1], "pose_keypoints_2d": pose.ravel().tolist(), **more}
            for pose in people
        ]
        write_json(
            folder / f"{prefix}{number:012d}_keypoints.json", {"version": 1.3, "people": held}
        )


@pytest.mark.parametrize("layout", [BODY18, BODY25], ids=lambda layout: layout.name)
def test_openpose_frames_are_read(tmp_path, layout):
    poses = [numbers(seed) for seed in range(3)]
    wide = [as_layout(pose, layout) for pose in poses]
    write_openpose(tmp_path, "my clip_2_", {0: wide[:2], 1: [], 2: wide[2:]})
    with opened("openpose", tmp_path) as source:
        ((key, aliases),) = source.aliases.items()
        assert aliases[0] == "my clip_2"
        assert source.span(key) == Span(0, 2, "my clip_2_000000000000")
        people = source.load(key)
    assert people.frames.tolist() == [0, 0, 2]
    assert people.tracks.tolist() == [-1, -1, -1]
    assert np.allclose(people.keypoints, poses)


def test_openpose_ids_of_its_tracker_are_kept(tmp_path):
    write_openpose(tmp_path, "a_", {0: [as_layout(numbers(), BODY25)]}, person_id=[4])
    assert load("openpose", tmp_path).tracks.tolist() == [4]


def test_openpose_older_and_sparser_files(tmp_path):
    pose = as_layout(numbers(), BODY18)
    write_json(
        tmp_path / "a_0_keypoints.json", {"people": [{"pose_keypoints": pose.ravel().tolist()}]}
    )
    hand = {"pose_keypoints_2d": [], "hand_left_keypoints_2d": [1, 2, 3]}
    write_json(tmp_path / "a_1_keypoints.json", {"people": [hand]})
    assert load("openpose", tmp_path).frames.tolist() == [0]


def test_openpose_clips_in_folders_or_in_names(tmp_path):
    pose = [as_layout(numbers(), BODY25)]
    write_openpose(tmp_path / "fall" / "one", "whatever_", {0: pose})
    write_openpose(tmp_path / "flat", "two_", {0: pose})
    write_openpose(tmp_path / "flat", "three_", {0: pose})
    write_json(tmp_path / "four" / "00001.json", {"people": []})
    with opened("openpose", tmp_path) as source:
        matches = match_clips(source.aliases, ["fall/one", "two", "x/three", "four", "five"])
    assert list(matches.keys) == ["fall/one", "two", "x/three", "four"]
    assert matches.clips_without == ("five",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "has no list of people"),
        ({"people": 3}, "has no list of people"),
        ({"people": [3]}, "person 1 has no pose_keypoints_2d"),
        ({"people": [{"pose_keypoints_2d": [1, 2]}]}, "person 1 has no pose_keypoints_2d"),
        ({"people": [{"pose_keypoints_2d": None}]}, "person 1 has no pose_keypoints_2d"),
        ({"people": [{"pose_keypoints_2d": [0.5] * 45}]}, "has 15 joints for each person"),
        (
            {"people": [{"pose_keypoints_2d": [0.5] * n} for n in (54, 75)]},
            "person 2 has 25 joints",
        ),
        ('{"people": [', "is not JSON"),
    ],
)
def test_openpose_what_is_no_frame_is_refused_with_its_place(tmp_path, content, message):
    path = write_json(tmp_path / "a_0_keypoints.json", content)
    text = refusal("openpose", tmp_path)
    assert str(tmp_path / "a") in text
    assert "joints for each" in text or str(path) in text
    assert message in text


def test_two_files_of_one_frame_are_refused(tmp_path):
    write_json(tmp_path / "a_1_keypoints.json", {"people": []})
    write_json(tmp_path / "a_01_keypoints.json", {"people": []})
    assert "is of the same frame as" in refusal("openpose", tmp_path)


def test_a_file_without_a_number_is_refused(tmp_path):
    path = write_json(tmp_path / "notes.json", {})
    assert f"{path} has no frame number" in refusal("openpose", tmp_path)


@pytest.mark.parametrize("kind", ["openpose", "npy", "npz", "alphapose"])
def test_an_empty_or_missing_folder_is_refused(tmp_path, kind):
    assert str(tmp_path) in refusal(kind, tmp_path)
    assert "gone" in refusal(kind, tmp_path / "gone")


# ---------------------------------------------------------------- arrays


@pytest.mark.parametrize("values", [2, 3])
@pytest.mark.parametrize("people", [None, 0, 1, 3])
def test_npy_frames_of_every_shape_are_read(tmp_path, values, people):
    poses = np.stack([numbers(seed)[:, :values] for seed in range(max(people or 1, 1))])
    held = poses[0] if people is None else poses[:people]
    (tmp_path / "a").mkdir()
    np.save(tmp_path / "a" / "00003.npy", held.astype(np.float32))
    found = load("npy", tmp_path)
    count = 1 if people is None else people
    assert found.frames.tolist() == [3] * count
    if count:
        assert np.allclose(found.keypoints[..., :values], poses)
        assert values == 3 or (found.keypoints[..., 2] == 1).all()


def test_npy_zeros_are_nobody_and_frames_may_be_missing(tmp_path):
    for number, pose in ((2, np.zeros((17, 2))), (5, numbers()[:, :2])):
        np.save(tmp_path / f"clip_{number}.npy", pose)
    with opened("npy", tmp_path) as source:
        (key,) = source.aliases
        assert source.span(key) == Span(2, 5, "clip_2")
        assert source.load(key).frames.tolist() == [5]


def save(path: Path, array) -> Path:
    np.save(path, array, allow_pickle=True)
    return path


def lying(path: Path, shape: str) -> Path:
    header = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    path.write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode())
    return path


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: path.write_bytes(b""), "no readable array"),
        (lambda path: path.write_bytes(b"\x93NUMPY\x09\x00" + bytes(99)), "unknown .npy version"),
        (lambda path: path.write_bytes(b"<html>" * 9), "no readable array"),
        (lambda path: save(path, np.array([{}, 1], object)), "values of type object"),
        (lambda path: save(path, np.array(["a"])), "values of type <U1"),
        (lambda path: save(path, np.zeros(34)), "has the shape (34,)"),
        (lambda path: save(path, np.zeros((17, 4))), "has the shape (17, 4)"),
        (lambda path: save(path, np.zeros((16, 2)) + 5), "has 16 joints"),
        (lambda path: save(path, np.zeros((101, 17, 2)) + 5), "101 people"),
        (lambda path: lying(path, "(17, 2)"), "ends after 0 of 272 bytes"),
        (lambda path: lying(path, "(1000, 1000, 3)"), "ends after 0 of 24000000 bytes"),
        (lambda path: lying(path, "(100000000000, 17, 3)"), "has the shape"),
        (lambda path: lying(path, "(-1, 17, 3)"), "has the shape (-1, 17, 3)"),
        (lambda path: lying(path, "'x'"), "no readable array"),
    ],
)
def test_npy_that_is_no_pose_is_refused(tmp_path, write, message):
    path = tmp_path / "1.npy"
    write(path)
    text = refusal("npy", tmp_path)
    assert str(tmp_path) in text
    assert message in text


def test_npy_of_different_shapes_are_refused(tmp_path):
    np.save(tmp_path / "1.npy", numbers())
    np.save(tmp_path / "2.npy", numbers()[:, :2])
    assert "2.npy has poses of (17, 2), frames before (17, 3)" in refusal("npy", tmp_path)


@pytest.mark.parametrize("shape", [(5, 17, 3), (5, 2, 17, 3), (5, 17, 2), (5, 2, 17, 2)])
def test_npz_of_every_shape_is_read_and_its_slots_stay(tmp_path, shape):
    array = np.random.default_rng(0).uniform(0.1, 1, shape)
    array[1] = 0
    (tmp_path / "fall").mkdir()
    np.savez(tmp_path / "fall" / "a.npz", keypoints=array, width=64, height=36, fps=30.0)
    with opened("npz", tmp_path) as source:
        ((key, aliases),) = source.aliases.items()
        assert aliases == ("fall/a",)
        assert source.span(key) == Span(0, 4, is_array=True)
        people = source.load(key)
    assert people.size == (64, 36)
    assert people.in_slots
    slots = array.reshape(5, -1, *shape[-2:])
    found = np.zeros((*slots.shape[:3], 3), np.float32)
    found[people.frames, people.tracks] = people.keypoints
    assert np.allclose(found[..., : shape[-1]], slots)


def test_npz_without_a_size_and_a_single_file(tmp_path):
    np.savez(tmp_path / "a.npz", keypoints=np.ones((2, 17, 3)))
    assert load("npz", tmp_path / "a.npz").size is None


def bomb(path: Path) -> None:
    """Write an .npz whose array unpacks to 4 GB of zeros, in its header at least."""
    header = "{'descr': '<f4', 'fortran_order': False, 'shape': (20000000, 17, 3), }".ljust(117)
    data = b"\x93NUMPY\x01\x00\x76\x00" + header.encode() + b"\n" + bytes(10**6)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("keypoints.npy", data)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: path.write_bytes(b""), "no readable array"),
        (lambda path: path.write_bytes(b"PK\x03\x04" + bytes(99)), "no readable array"),
        (lambda path: np.savez(path, poses=np.ones((2, 17, 3))), "has no array 'keypoints'"),
        (lambda path: np.savez(path, keypoints=np.ones((2, 17))), "has the shape (2, 17)"),
        (lambda path: np.savez(path, keypoints=np.ones((0, 17, 3))), "has the shape (0, 17, 3)"),
        (lambda path: np.savez(path, keypoints=np.ones((2, 101, 17, 3))), "has the shape"),
        (lambda path: np.savez(path, keypoints=np.ones((2, 15, 3))), "has 15 joints"),
        (lambda path: np.savez(path, keypoints=np.array([None])), "values of type object"),
        (
            lambda path: np.savez(path, keypoints=np.ones((2, 17, 3)), width=-3, height=5),
            "for frames of -3.0x5.0 pixels",
        ),
        (
            lambda path: np.savez(path, keypoints=np.ones((2, 17, 3)), width=np.nan, height=5),
            "for frames of nanx5.0 pixels",
        ),
        (
            lambda path: np.savez(path, keypoints=np.ones((2, 17, 3)), width=[1, 2], height=5),
            "has the shape (2,), it should be one number for a side",
        ),
        (bomb, "bytes of numbers, the most is"),
    ],
)
def test_npz_that_holds_no_keypoints_is_refused(tmp_path, write, message):
    write(tmp_path / "a.npz")
    text = refusal("npz", tmp_path)
    assert str(tmp_path / "a.npz") in text
    assert message in text


def test_pipes_and_devices_are_refused_at_once(tmp_path):
    for name in ("a.json", "1_keypoints.json", "1.npy", "a.npz"):
        os.mkfifo(tmp_path / name)
    start = time.monotonic()
    for kind in ("alphapose", "npz"):
        for path in (tmp_path / f"a.{'json' if kind == 'alphapose' else 'npz'}", Path("/dev/zero")):
            assert "no regular file" in refusal(kind, path)
    (tmp_path / "a.json").unlink()
    for kind in ("openpose", "npy"):
        assert "no regular file" in refusal(kind, tmp_path)
    assert time.monotonic() - start < 5


# ---------------------------------------------------------------- numbers that are none


def test_what_is_no_number_is_undetected_and_counted(tmp_path):
    pose = numbers()
    text = json.dumps([person("1.jpg", pose)])
    flat = pose.ravel().tolist()
    for joint, bad in ((0, "NaN"), (1, "Infinity"), (2, "1e999"), (3, "null"), (4, "1e7")):
        text = text.replace(
            f"{flat[3 * joint]}, {flat[3 * joint + 1]}", f"{bad}, {flat[3 * joint + 1]}"
        )
    people = load("alphapose", write_json(tmp_path / "x.json", text))
    assert people.unusable == 5
    assert not people.keypoints[0, :5].any()
    assert np.allclose(people.keypoints[0, 5:], pose[5:])


def test_confidences_end_at_1_and_joints_without_any_are_undetected():
    keypoints = np.full((1, 17, 3), 9.0)
    keypoints[0, :, 2] = [0, -1, 1.0005, 1.5, 6] + [0.5] * 12
    keypoints[0, 6, :2] = 0
    found, unusable, above = clean(keypoints, "x")
    assert (unusable, above) == (0, 2)
    assert not found[0, [0, 1, 6]].any()
    assert found[0, 2:6, 2].tolist() == [1, 1, 1, 0.5]
    keypoints[0, 5, 2] = np.nan
    assert clean(keypoints, "x")[1] == 1


def test_who_has_no_joint_is_nobody():
    people = gather_rows([(1, np.zeros((17, 3)), 4), (2, numbers(), 4)], "x")
    assert people.frames.tolist() == [2]
    assert len(gather_rows([], "x").frames) == 0


# ---------------------------------------------------------------- names


@pytest.mark.parametrize(
    ("stem", "parts"),
    [
        ("clip_000000000012_keypoints", ("clip", 12)),
        ("00012", ("", 12)),
        ("a 1_b-2 3", ("a 1_b-2", 3)),
        ("video2_0007", ("video2", 7)),
        ("frame12.jpg", ("frame", 12)),
        ("nothing", None),
        ("", None),
    ],
)
def test_the_last_number_of_a_name_is_the_frame(stem, parts):
    assert split_frame_name(stem) == parts


def test_clips_match_by_whole_names_then_by_ends():
    aliases = {
        "1": ["/data/frames/fall/a"],
        "2": ["b"],
        "3": ["x/c", "c"],
        "4": ["unknown"],
        "5": ["./fall//d/"],
        "6": ["fall\\e"],
    }
    spelled = {key: [plain_name(name) for name in names] for key, names in aliases.items()}
    matches = match_clips(spelled, ["fall/a", "walk/b", "c", "fall/d", "fall/e", "f"])
    assert matches.keys == {"fall/a": "1", "walk/b": "2", "c": "3", "fall/d": "5", "fall/e": "6"}
    assert matches.clips_without == ("f",)
    assert matches.keys_without == ("4",)


def test_a_clip_is_not_the_end_of_another_word():
    matches = match_clips({"1": ["backfall"], "2": ["backfall/a"]}, ["fall", "fall/a"])
    assert not matches.keys


def test_letters_with_accents_match_however_they_are_composed():
    assert match_clips({"1": clip_aliases("cafe\u0301", "")}, ["caf\u00e9"]).keys == {
        "caf\u00e9": "1"
    }


def test_ambiguous_names_are_refused():
    with pytest.raises(InputError, match="1 fits clips fall/a and walk/a"):
        match_clips({"1": ["a"]}, ["fall/a", "walk/a"])
    with pytest.raises(InputError, match="2 and 1 both fit clip a"):
        match_clips({"1": ["x/a"], "2": ["a"]}, ["a"])


def test_hidden_files_are_not_looked_at(tmp_path):
    np.save(tmp_path / "a_1.npy", numbers())
    np.save(tmp_path / ".b_1.npy", numbers())
    (tmp_path / ".git").mkdir()
    np.save(tmp_path / ".git" / "c_1.npy", numbers())
    assert [Path(key).name for key in group_frames(tmp_path, ".npy")] == ["a"]


# ---------------------------------------------------------------- which frame is meant


def target(first=1, count=10, found=None, stem="", has_frames=True):
    return Target("a", count, found or count, first, has_frames, stem)


def offset_of(target_of_a: Target, span: Span, given=None) -> int:
    offsets, faults = choose_offsets({"a": target_of_a}, {"a": span}, given)
    assert not faults, faults
    return offsets["a"]


@pytest.mark.parametrize(
    ("of_frames", "span", "offset"),
    [
        (target(first=1), Span(0, 9), 1),  # OpenPose, images from 1
        (target(first=1), Span(1, 10), 0),
        (target(first=1), Span(0, 3), 1),  # 0 rules the images' own numbers out
        (target(first=1), Span(4, 10), 0),  # 10 rules counting from 0 out
        (target(first=0), Span(1, 10), -1),
        (target(first=0), Span(0, 9), 0),
        (target(first=501), Span(503, 505), 0),
        (target(first=501), Span(0, 9), 501),
        (target(first=501), Span(1, 10), 500),
        (target(stem="frame_00001"), Span(3, 5, "frame_00003"), 0),
        (target(stem="00001"), Span(3, 5, "00003"), 0),
        (target(first=0, has_frames=False), Span(0, 9), 0),
        (target(first=0, has_frames=False), Span(1, 10), -1),
        (target(count=10, found=12), Span(1, 12), 0),
    ],
)
def test_the_one_way_to_count_that_fits_is_found(of_frames, span, offset):
    assert offset_of(of_frames, span) == offset


@pytest.mark.parametrize(
    ("of_frames", "span"),
    [
        (target(), Span(2, 8)),
        (target(), Span(1, 9)),
        (target(stem="1"), Span(3, 5, "3")),  # a bare number could be anybody's
        (target(stem="00001"), Span(3, 5, "3")),
        (target(stem="00001"), Span(3, 5, "img_00003")),
        (target(stem="00001"), Span(3, 5, "0003")),
        (target(first=0, has_frames=False), Span(2, 5)),
    ],
)
def test_what_is_ambiguous_is_refused_and_asked_for(of_frames, span):
    with pytest.raises(InputError, match="fit both: say with --frame_offset"):
        offset_of(of_frames, span)
    assert offset_of(of_frames, span, given=0) == 0


def test_one_clip_decides_for_all():
    targets = {name: target() for name in "ab"}
    spans = {"a": Span(3, 8), "b": Span(0, 7)}
    assert choose_offsets(targets, spans) == ({"a": 1, "b": 1}, {})
    targets["b"] = target(first=0)
    with pytest.raises(InputError, match="fit both"):  # b says: from 0, or as on disk
        choose_offsets(targets, spans)


def test_clips_that_contradict_each_other_are_refused():
    with pytest.raises(InputError, match=r"clip b are numbered 1 to 10 and those of a 0 to 9"):
        choose_offsets(dict.fromkeys("ab", target()), {"a": Span(0, 9), "b": Span(1, 10)})


def test_a_clip_that_nothing_fits_is_left_out():
    targets = dict.fromkeys("abc", target())
    spans = {"a": Span(1, 10), "b": Span(4, 40), "c": Span(0, 8, is_array=True)}
    offsets, faults = choose_offsets(targets, spans)
    assert offsets == {"a": 0}
    assert faults["b"].startswith("has frames 4 to 40; these should be among the clip's, 1 to 10")
    assert faults["c"] == "holds 9 frames, its clip has 10"
    _, faults = choose_offsets(targets, {"a": Span(1, 10)}, given=5)
    assert "with --frame_offset 5 they should be" in faults["a"]


@given(first=st.integers(0, 3), count=st.integers(1, 30), data=st.data())
def test_an_offset_is_never_wrong(first, count, data):
    """Whatever way a source counts and whatever frames it lacks: the right offset or a question."""
    base = data.draw(st.sampled_from([0, 1, first]))
    low = data.draw(st.integers(0, count - 1))
    high = data.draw(st.integers(low, count - 1))
    with contextlib.suppress(InputError):
        assert offset_of(target(first, count), Span(base + low, base + high)) == first - base


# ---------------------------------------------------------------- who is who


def scene(num_frames: int, person_of, seed: int = 0):
    """Return two people side by side as (N, 2, 17, 3): a large one in the middle, a small one."""
    athlete = person_of(num_frames, (640, 360), seed)[:, 0]
    bystander = person_of(num_frames, (640, 360), seed + 1)[:, 0].copy()
    bystander[..., :2] = bystander[..., :2] * 0.4 + (0, 10)
    athlete[..., 2], bystander[..., 2] = 0.5, 0.95
    return np.stack((athlete, bystander), axis=1)


def people_of(pair: np.ndarray, order, tracks=None) -> People:
    rows = [
        (frame, pair[frame, who], -1 if tracks is None else tracks[who])
        for frame in range(len(pair))
        for who in order(frame)
    ]
    return gather_rows(rows, "x")


def shuffled(frame: int) -> list[int]:
    return [0, 1] if frame % 3 else [1, 0]


def test_tracks_of_the_source_stay_together_and_the_athlete_is_first(person):
    pair = scene(20, person)
    slots = slots_of(people_of(pair, shuffled, (8, 3)), 20, (640, 360), most=2)
    assert np.allclose(slots.keypoints, pair)
    assert (slots.left_over, slots.twice) == (0, 0)
    one = slots_of(people_of(pair, shuffled, (8, 3)), 20, (640, 360))
    assert np.allclose(one.keypoints, pair[:, :1])
    assert one.left_over == 20


def test_people_without_tracks_are_linked_and_confidence_does_not_choose(person):
    pair = scene(20, person)
    slots = slots_of(people_of(pair, shuffled), 20, (640, 360), most=2)
    assert np.allclose(slots.keypoints, pair)


def test_tracks_that_change_their_number_are_joined(person):
    pair = scene(20, person)
    rows = [(f, pair[f, 0], 1 if f < 9 else 7) for f in range(20) if f != 9]
    slots = slots_of(gather_rows(rows, "x"), 20, (640, 360), most=2)
    assert np.allclose(np.delete(slots.keypoints[:, 0], 9, 0), np.delete(pair[:, 0], 9, 0))
    assert not slots.keypoints[9].any()
    assert not slots.keypoints[:, 1].any()


def test_slots_of_an_array_stay_but_are_linked_on_request(person):
    pair = scene(12, person)
    mixed = pair.copy()
    mixed[::2] = mixed[::2, ::-1]
    people = people_of(mixed, lambda frame: [0, 1], (0, 1))
    people = People(people.frames, people.keypoints, people.tracks, in_slots=True)
    assert np.allclose(slots_of(people, 12, (640, 360)).keypoints, mixed)
    assert np.allclose(slots_of(people, 12, (640, 360), most=1).keypoints, mixed[:, :1])
    assert np.allclose(slots_of(people, 12, (640, 360), most=2, link=True).keypoints, pair)


def test_the_same_track_twice_in_a_frame_keeps_the_more_confident(person):
    pair = scene(6, person)
    slots = slots_of(people_of(pair, shuffled, (1, 1)), 6, (640, 360))
    assert np.allclose(slots.keypoints[:, 0], pair[:, 1])
    assert (slots.left_over, slots.twice) == (6, 6)


def test_given_boxes_say_who_the_athlete_is(person):
    pair = scene(15, person)
    place = pair[:, 1, :, :2]
    boxes = np.concatenate((place.min(1), place.max(1)), axis=1)
    for tracks in (None, (1, 2)):
        slots = slots_of(people_of(pair, shuffled, tracks), 15, (640, 360), boxes=boxes)
        assert np.allclose(slots.keypoints[:, 0], pair[:, 1])


@pytest.mark.parametrize("tracks", [None, (1, 2)])
def test_nobody_at_all_is_zeros(tracks):
    for people in (gather_rows([], "x"), people_of(np.zeros((4, 2, 17, 3)), shuffled, tracks)):
        slots = slots_of(people, 4, (640, 360), most=2)
        assert slots.keypoints.shape == (4, 2, 17, 3)
        assert not slots.keypoints.any()


def test_a_joint_far_off_does_not_lose_the_athlete(person):
    pair = scene(20, person)
    pair[7, 0, 9, :2] = 5, 350
    pair[12, 0, 10, :2] = 2000, -900
    slots = slots_of(people_of(pair, shuffled), 20, (640, 360))
    assert np.allclose(slots.keypoints[:, 0], pair[:, 0])


def test_a_person_of_one_joint_is_somebody():
    pose = np.zeros((17, 3))
    pose[9] = 30, 20, 0.5
    slots = slots_of(gather_rows([(1, pose, -1)], "x"), 3, (64, 36))
    assert np.allclose(slots.keypoints[1, 0], pose)


# ---------------------------------------------------------------- fuzz


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["image_id", "keypoints", "people", "bodies", "joints", "idx", "1.jpg"])
            | st.sampled_from(["pose_keypoints_2d", "person_id", "score", "version"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


def read_all(kind: str, path: Path) -> None:
    """Read everything; nothing but an `InputError` of one line that names the file may come."""
    faults = []
    try:
        with opened(kind, path) as source:
            for key in source.aliases:
                faults += read_clip(source, key)
    except InputError as error:
        faults.append(str(error))
    assert all(str(path.parent) in fault for fault in faults), faults
    assert all(len(fault.splitlines()) == 1 for fault in faults), faults


def read_clip(source, key) -> list[str]:
    try:
        source.span(key)
        people = source.load(key)
    except InputError as error:
        return [str(error)]
    assert np.isfinite(people.keypoints).all()
    if people.frames.max(initial=0) < 50:
        slots = slots_of(people, 50, (64, 36), most=2).keypoints
        assert np.isfinite(slots).all()
        assert 0 <= slots[..., 2].min() <= slots[..., 2].max() <= 1
    return []


FUZZ = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@FUZZ
@given(content=JSON, kind=st.sampled_from(["alphapose", "openpose"]))
def test_any_json_is_read_or_refused(tmp_path, content, kind):
    path = write_json(tmp_path / "1.json", json.dumps(content))
    read_all(kind, path if kind == "alphapose" else tmp_path)


def mutate(good: bytes, data) -> bytes:
    changed = bytearray(good)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, max(len(changed) - 1, 0)))
        kind = data.draw(st.sampled_from(["byte", "cut", "drop", "insert"]))
        if kind == "byte" and changed:
            changed[place] = data.draw(st.integers(0, 255))
        elif kind == "cut":
            del changed[place:]
        elif kind == "drop":
            del changed[place : place + data.draw(st.integers(1, 30))]
        else:
            extra = data.draw(
                st.binary(max_size=8) | st.sampled_from([b"NaN", b"1e999", b"[[", b"-"])
            )
            changed[place:place] = extra
    return bytes(changed)


@FUZZ
@given(data=st.data(), kind=st.sampled_from(["alphapose", "openpose", "npy", "npz"]))
def test_mutated_files_are_read_or_refused(tmp_path, data, kind):
    suffix = {"npy": "npy", "npz": "npz"}.get(kind, "json")
    path = tmp_path / f"1.{suffix}"
    for other in tmp_path.iterdir():
        other.unlink()
    if kind == "alphapose":
        write_json(path, [person(f"{n}.jpg", numbers(n), idx=n % 2) for n in range(3)])
    elif kind == "openpose":
        pose = as_layout(numbers(), BODY25).ravel().tolist()
        write_json(path, {"version": 1.3, "people": [{"pose_keypoints_2d": pose}] * 2})
    elif kind == "npy":
        np.save(path, np.stack([numbers(0), numbers(1)]))
    else:
        np.savez(path, keypoints=np.stack([numbers(0), numbers(1)]), width=64, height=36)
    path.write_bytes(mutate(path.read_bytes(), data))
    read_all(kind, path if kind in ("alphapose", "npz") else tmp_path)
