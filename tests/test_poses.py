import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasets.clip_table import ClipRow
from datasets.frames import scan_folder
from datasets.poses import PoseArchive, PoseFrames, Poses, find_poses, save_poses
from datasets.records import ClipRecord
from errors import InputError
from ops.skeleton import COCO17

N = 6


def load(path: Path, num_on_disk: int = N) -> Poses:
    return PoseArchive(path, N, num_on_disk, 17).load()


def complaint(act) -> str:
    with pytest.raises(InputError) as caught:
        act()
    message = str(caught.value)
    assert "\n" not in message
    assert message.endswith("run preprocess_pose.py again for this clip")
    return message


@pytest.fixture
def archive(tmp_path, person):
    """Return a function that writes an .npz with some arrays replaced; None leaves one out."""

    def write(**arrays) -> Path:
        content = {"keypoints": person(N), "height": 36, "width": 64} | arrays
        path = tmp_path / "clip_017.npz"
        np.savez_compressed(path, **{k: v for k, v in content.items() if v is not None})
        return path

    return write


def test_an_archive_gives_keypoints_and_frame_size(archive, person):
    poses = load(archive())
    assert np.array_equal(poses.keypoints, person(N))
    assert poses.keypoints.dtype == np.float32
    assert poses.size == (64, 36)


@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.int32])
def test_any_number_type_and_memory_order_is_read(archive, person, dtype):
    keypoints = np.asfortranarray(person(N).astype(dtype))
    assert np.array_equal(
        load(archive(keypoints=keypoints)).keypoints, keypoints.astype(np.float32)
    )


def test_one_person_may_come_without_an_axis_and_a_size_may_lack(archive, person):
    poses = load(archive(keypoints=person(N)[:, 0], height=None, width=None))
    assert poses.keypoints.shape == (N, 1, 17, 3)
    assert poses.size is None


def test_keypoints_of_all_frames_on_disk_serve_a_list_that_names_fewer(archive, person):
    assert np.array_equal(load(archive(keypoints=person(9)), 9).keypoints, person(9)[:N])


def changed(keypoints: np.ndarray, place: tuple, value: float) -> np.ndarray:
    keypoints[place] = value
    return keypoints


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda k: k[:4], "holds 4 poses, its clip has 6 frames"),
        (
            lambda k: k[..., :2],
            "has keypoints of shape (6, 1, 17, 2), they should be (N, M, 17, 3)",
        ),
        (lambda k: k[:, :, :15], "has keypoints of shape (6, 1, 15, 3)"),
        (lambda k: k[0, 0], "has keypoints of shape (17, 3)"),
        (lambda k: k[:, :0], "holds 0 people"),
        (lambda k: np.repeat(k, 101, axis=1), "holds 101 people, it may be 1 to 100"),
        (lambda k: changed(k, (2, 0, 3, 0), np.nan), "holds NaN or infinite keypoints"),
        (lambda k: changed(k, (2, 0, 3, 1), np.inf), "holds NaN or infinite keypoints"),
        (lambda k: changed(k, (2, 0, 3, 2), np.nan), "holds NaN or infinite keypoints"),
        (lambda k: changed(k, (2, 0, 3, 2), -0.1), "holds confidences from -0.1 to 1"),
        (lambda k: changed(k, (2, 0, 3, 2), 87), "holds confidences from 1 to 87"),
        (lambda k: changed(k, (2, 0, 3, 0), 1e9), "holds keypoints more than 1000000 pixels away"),
        (lambda k: k.astype(str), "holds values of type <U"),
        (lambda k: k.astype(bool), "holds values of type bool"),
        (lambda k: np.array({"k": 1}, dtype=object), "holds values of type object"),
    ],
)
def test_wrong_keypoints_are_named(archive, person, change, expected):
    path = archive(keypoints=change(person(N)))
    message = complaint(lambda: load(path))
    assert message.startswith(f"{path} {expected}")


@pytest.mark.parametrize("header", [b"{'descr': '<f4', ", b"  x = (", b"(" * 500, b"{'a': 1}"])
def test_a_header_that_is_no_python_is_named(header, tmp_path):
    """numpy parses the header of an .npy: whatever it raises is one line."""
    path = tmp_path / "clip_017.npz"
    data = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("keypoints.npy", data)
    assert complaint(lambda: load(path)).startswith(f"{path} is no readable array")


def test_wrong_sizes_and_files_are_named(archive, tmp_path):
    assert "has a height of 0" in complaint(lambda: load(archive(height=0)))
    assert "has a width of nan" in complaint(lambda: load(archive(width=np.nan)))
    assert "has a width of shape (2,)" in complaint(lambda: load(archive(width=[1, 2])))
    assert "holds one of height and width" in complaint(lambda: load(archive(width=None)))
    assert "has no array 'keypoints'" in complaint(lambda: load(archive(keypoints=None)))
    path = tmp_path / "text.npz"
    path.write_text("version https://git-lfs.github.com/spec/v1")
    assert "is no readable keypoint file" in complaint(lambda: load(path))
    assert "is no readable keypoint file" in complaint(lambda: load(tmp_path / "gone.npz"))


def test_a_header_cannot_make_us_allocate(tmp_path):
    """A file of 200 bytes that promises 10**12 frames, and one that promises more than it has."""
    for length, expected in (
        (10**12, "holds 1000000000000 poses"),
        (N, "ends after 0 of 1224 bytes"),
    ):
        header = io.BytesIO()
        shape = {"descr": "<f4", "fortran_order": False, "shape": (length, 1, 17, 3)}
        np.lib.format.write_array_header_1_0(header, shape)
        path = tmp_path / "bomb.npz"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("keypoints.npy", header.getvalue())
        assert expected in complaint(lambda path=path: load(path))


@given(place=st.integers(0, 10_000), value=st.integers(0, 255), cut=st.booleans())
def test_a_damaged_archive_gives_finite_keypoints_or_one_line(tmp_path_factory, place, value, cut):
    path = tmp_path_factory.mktemp("poses") / "clip.npz"
    np.savez(path, keypoints=np.ones((N, 1, 17, 3), np.float32), height=36, width=64)
    data = bytearray(path.read_bytes())
    place %= len(data)
    data[place] = value
    path.write_bytes(data[:place] if cut else data)
    message = None
    try:
        poses = load(path)
    except InputError as error:
        message = str(error)
    if message is None:
        assert np.isfinite(poses.keypoints).all()
    else:
        assert len(message.splitlines()) == 1


def test_undetected_joints_are_exact_zeros_however_they_were_written(archive, person):
    keypoints = person(N)
    keypoints[0, 0, 3] = 12, 13, 0
    keypoints[1, 0, 4] = 0, 0, 0.9
    keypoints[2, 0, 5] = 12, 0, 0.9
    keypoints[3, 0, 6, 2] = 1.0005
    loaded = load(archive(keypoints=keypoints)).keypoints
    assert not loaded[0, 0, 3].any()
    assert not loaded[1, 0, 4].any()
    assert loaded[2, 0, 5].tolist() == pytest.approx([12, 0, 0.9])
    assert loaded[3, 0, 6, 2] == 1


# ---------------------------------------------------------------- frame size


def test_defect_05_keypoints_follow_the_size_of_the_frames(person):
    poses = Poses(person(2), (640, 360))
    assert poses.fits((1280, 720))
    doubled = poses.keypoints_at((1280, 720))
    assert np.allclose(doubled[..., :2], 2 * person(2)[..., :2])
    assert np.array_equal(doubled[..., 2], person(2)[..., 2])
    assert np.array_equal(poses.keypoints_at((640, 360)), person(2))
    assert np.array_equal(poses.keypoints, person(2))


@pytest.mark.parametrize(
    ("own", "size", "fits"),
    [
        ((640, 360), (320, 180), True),
        ((1920, 1080), (455, 256), True),
        ((1920, 1080), (456, 256), True),
        ((640, 480), (640, 360), False),
        ((640, 360), (360, 640), False),
        ((1920, 1080), (460, 256), False),
    ],
)
def test_only_frames_of_the_same_shape_fit(person, own, size, fits):
    assert Poses(person(1), own).fits(size) is fits


# ---------------------------------------------------------------- one file per frame


@pytest.fixture
def clip(tmp_path, make_frames, person):
    """Return a data set folder with one clip and the published .npy of each of its frames."""
    folder = tmp_path / "frames" / "clip"
    make_frames(folder, N)
    for frame, points in enumerate(person(N)[:, 0, :, :2], start=1):
        np.save(folder / f"{frame:05d}.npy", points)
    return tmp_path


def find(root: Path):
    images = scan_folder(root / "frames" / "clip", N)
    return find_poses(root, ClipRecord("clip", N, 0), images, COCO17)


def test_published_files_are_read_with_confidence_where_there_is_a_point(clip, person):
    points = person(N)[2, 0, :, :2]
    points[4] = 0
    np.save(clip / "frames" / "clip" / "00003.npy", points)
    np.save(clip / "frames" / "clip" / "00004.npy", np.zeros((17, 2)))
    poses = find(clip).load()
    assert poses.size is None
    assert np.array_equal(poses.keypoints[0, 0, :, :2], person(N)[0, 0, :, :2])
    assert poses.keypoints[2, 0, :, 2].tolist() == [1] * 4 + [0] + [1] * 12
    assert not poses.keypoints[3].any()
    assert find(clip).path == clip / "frames" / "clip"


def test_an_archive_goes_before_files_of_single_frames(clip, make_archive, person):
    assert isinstance(find(clip), PoseFrames)
    make_archive(clip / "poses" / "clip.npz", person(N, seed=5))
    assert isinstance(find(clip), PoseArchive)
    assert np.array_equal(find(clip).load().keypoints, person(N, seed=5))


def test_defect_03_a_frame_without_its_pose_file_is_named(clip):
    (clip / "frames" / "clip" / "00003.npy").unlink()
    with pytest.raises(InputError, match=r"clip/00003.npy is missing"):
        find(clip)


def test_wrong_files_of_single_frames_are_named(clip):
    path = clip / "frames" / "clip" / "00002.npy"
    np.save(path, np.zeros((34,)))
    assert f"{path} has a pose of shape (34,), it should be (17, 2)" in complaint(find(clip).load)
    np.save(path, np.full((17, 2), np.nan))
    assert f"{path} holds NaN" in complaint(find(clip).load)
    path.write_bytes(b"")
    assert f"{path} is no readable keypoint file" in complaint(find(clip).load)


def test_files_numbered_unlike_the_frames_are_refused(clip):
    folder = clip / "frames" / "clip"
    for number in range(1, N + 1):
        (folder / f"{number:05d}.npy").rename(folder / f"{number - 1:05d}.npy")
    message = complaint(lambda: find(clip))
    assert "has frames from number 1 and poses from number 0" in message


def test_a_clip_without_any_file_has_no_poses(tmp_path, make_frames):
    make_frames(tmp_path / "frames" / "clip", N)
    assert find(tmp_path) is None


def test_keypoints_of_other_frames_of_the_same_name_are_refused(tmp_path, person):
    """Parts of a video are named by their number: another table gives the name to other frames."""
    path = tmp_path / "poses" / "clip.npz"
    rows = [ClipRow("clip", "a.mp4", first, None, N, sha256="ab") for first in (0, 40)]
    save_poses(path, person(N), (64, 36), "mine", {"clip": rows[0].identity})
    record = ClipRecord("clip", N, 0)
    for row in (rows[0], None, ClipRow("clip", num_frames=N, sha256="cd")):
        assert find_poses(tmp_path, record, None, COCO17, row).load().keypoints.any()
    with pytest.raises(InputError, match="was made for other frames"):
        find_poses(tmp_path, record, None, COCO17, rows[1]).load()
