from pathlib import Path

import numpy as np
import pytest

from datasets.check.findings import Tally
from datasets.check.keypoints import check_boxes, check_keypoints
from datasets.poses import save_poses
from datasets.records import ClipRecord
from ops.skeleton import COCO17, swap_left_right
from tests.scenes import NUM_FRAMES, SIZE, walker

RECORD = ClipRecord("clip", NUM_FRAMES, 0)


def look(root, size=SIZE):
    tally = Tally("clip")
    facts = check_keypoints(root, RECORD, None, size, COCO17, tally)
    return facts, list(tally)


def kinds(root, size=SIZE):
    return [finding.kind for finding in look(root, size)[1]]


def write(root, keypoints, size=SIZE):
    save_poses(root / "poses" / "clip.npz", keypoints, size, "test")


def test_a_walk_has_no_finding_and_is_described(tmp_path):
    keypoints = walker(0)
    keypoints[:5] = 0
    keypoints[5:, :, 3] = 0
    write(tmp_path, keypoints)
    facts, findings = look(tmp_path)
    assert findings == []
    assert facts.detected == pytest.approx(0.75)
    assert (facts.people, facts.joints) == (1, pytest.approx(16 / 17))


def test_people_are_counted(tmp_path):
    write(tmp_path, np.concatenate([walker(0), walker(1), np.zeros_like(walker(2))], axis=1))
    assert look(tmp_path)[0].people == 2


def nobody(keypoints):
    keypoints[:] = 0


def few(keypoints):
    keypoints[6:] = 0


def outside(keypoints):
    keypoints[..., 0] += SIZE[0]


def one_far_away(keypoints):
    keypoints[8:12, :, 9, :2] = 5000


def frozen(keypoints):
    keypoints[4:14] = keypoints[4]


def jump(keypoints):
    keypoints[9, ..., 0] += 45


def other_person(keypoints):
    keypoints[9:, ..., 0] -= 45


def swap_once(keypoints):
    keypoints[9] = swap_left_right(keypoints[9])


def swap_half(keypoints):
    keypoints[9:] = swap_left_right(keypoints[9:])


def shares(keypoints):
    keypoints[..., :2] /= SIZE


FAULTS = {
    nobody: "keypoints_empty",
    few: "keypoints_few",
    outside: "keypoints_outside",
    one_far_away: "keypoints_outside",
    frozen: "keypoints_frozen",
    jump: "keypoints_jump",
    other_person: "keypoints_jump",
    swap_once: "keypoints_swapped",
    swap_half: "keypoints_swapped",
    shares: "keypoints_scale",
}


@pytest.mark.parametrize(("plant", "kind"), FAULTS.items(), ids=lambda x: getattr(x, "__name__", x))
def test_a_planted_fault_is_found(tmp_path, plant, kind):
    keypoints = walker(0)
    plant(keypoints)
    write(tmp_path, keypoints)
    assert kinds(tmp_path) == [kind]


@pytest.mark.parametrize("plant", [jump, swap_once, swap_half], ids=lambda plant: plant.__name__)
def test_a_finding_names_the_frame_that_shows_it(tmp_path, plant):
    keypoints = walker(0)
    plant(keypoints)
    write(tmp_path, keypoints)
    assert [finding.frame for finding in look(tmp_path)[1]] == [9]


@pytest.mark.parametrize("scale", [0.5, 1, 20])
def test_the_size_of_the_picture_does_not_matter(tmp_path, scale):
    size = (int(SIZE[0] * scale), int(SIZE[1] * scale))
    for plant in (None, jump, swap_once):
        keypoints = walker(0)
        if plant:
            plant(keypoints)
        keypoints[..., :2] *= scale
        write(tmp_path, keypoints, size)
        assert kinds(tmp_path, size) == ([FAULTS[plant]] if plant else [])


def test_a_turn_of_the_body_is_no_swap(tmp_path):
    keypoints = walker(0)
    middle = keypoints[..., :1].mean(axis=2, keepdims=True)
    turn = np.cos(np.linspace(0, np.pi, NUM_FRAMES))[:, None, None, None]
    keypoints[..., :1] = middle + (keypoints[..., :1] - middle) * turn
    write(tmp_path, keypoints)
    assert kinds(tmp_path) == []


def test_a_missing_file_nan_and_a_wrong_length_or_shape_are_told_apart(tmp_path):
    assert kinds(tmp_path) == ["keypoints_missing"]
    path = tmp_path / "poses" / "clip.npz"
    path.parent.mkdir()
    path.write_bytes(b"not a zip")
    assert kinds(tmp_path) == ["keypoints_unreadable"]
    broken = walker(0)
    broken[3, 0, 5, 0] = np.nan
    np.savez(path, keypoints=broken)
    assert kinds(tmp_path) == ["keypoints_nan"]
    broken[3, 0, 5, 0] = np.inf
    np.savez(path, keypoints=broken)
    assert kinds(tmp_path) == ["keypoints_nan"]
    np.savez(path, keypoints=walker(0)[:-3])
    assert kinds(tmp_path) == ["keypoints_length"]
    np.savez(path, keypoints=walker(0)[..., :15, :])
    assert kinds(tmp_path) == ["keypoints_unreadable"]
    write(tmp_path, walker(0), (SIZE[1], SIZE[0]))
    assert "keypoints_size" in kinds(tmp_path)


def test_files_beside_the_frames_are_checked_too(tmp_path):
    folder = tmp_path / "frames" / "clip"
    folder.mkdir(parents=True)
    for number, person in enumerate(walker(0)[:, 0, :, :2], start=1):
        np.save(folder / f"{number:05d}.npy", person)
    assert kinds(tmp_path) == []
    (folder / "00007.npy").unlink()
    assert kinds(tmp_path) == ["keypoints_unreadable"]


def boxes_of(root, array):
    path = root / "boxes" / "clip.npy"
    path.parent.mkdir(exist_ok=True)
    np.save(path, array)
    tally = Tally("clip")
    check_boxes(root, RECORD, tally)
    return [finding.kind for finding in tally]


def test_boxes_are_checked(tmp_path):
    good = np.tile(np.array([10, 10, 30, 50], np.float32), (NUM_FRAMES, 1))
    good[3] = np.nan
    assert boxes_of(tmp_path, good) == []
    half = good.copy()
    half[4, 2] = np.nan
    whole = np.nan_to_num(good).astype(int)
    for bad in (good[:-1], good[:, :3], good[:, ::-1], half, whole, good.astype(object)):
        assert boxes_of(tmp_path, bad) == ["boxes_unusable"]


def test_real_keypoints_give_few_findings(tmp_path):
    source = Path(__file__).resolve().parents[2] / "shared" / "data" / "gmdcsa24" / "keypoints"
    if not source.is_dir():
        pytest.skip("../shared/data is not part of the project: no real keypoints")
    found = []
    for path in sorted(source.glob("*.npz")):
        (tmp_path / "poses").mkdir(exist_ok=True)
        (tmp_path / "poses" / path.name).write_bytes(path.read_bytes())
        with np.load(path) as saved:
            record = ClipRecord(path.stem, len(saved["keypoints"]), 0)
        tally = Tally(path.stem)
        check_keypoints(tmp_path, record, None, None, COCO17, tally)
        found += tally
    # BlazePose does exchange left and right of somebody on the floor.
    assert {finding.kind for finding in found} <= {"keypoints_swapped"}
    assert len(found) <= 6
