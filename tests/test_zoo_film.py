"""Reports on models of whole clips: what they saw, and which joints they lean on."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from datasets.clips import ClipDataset, ViewSpec, collate
from datasets.frames import ImageFrames, scan_folder
from datasets.loading import input_spec
from datasets.order import SampleKey
from datasets.pose_views import SkeletonSpec, skeleton_views
from datasets.poses import PoseArchive, Poses, save_poses
from datasets.records import ClipRecord
from datasets.scan import Clip
from explanation.film import MOST_TILES, Film, detection_rates
from explanation.gradcam import backbone_of, grad_cam
from explanation.joints import joint_importance
from explanation.pictures import TILE_HEIGHT
from explanation.skeletons import place_in_tiles, seen_rows
from ops.batch import Batch
from ops.skeleton import COCO17, NTU25
from options.skeletons import FRAME_MODELS
from results import run_results
from tests.making_zoo import CPU, ZOO, zoo_config, zoo_network
from tests.scenes import SIZE, walker, write_clip

NOBODY = np.zeros((4, 2, 17, 3), np.float32)


class Given:
    """Keypoints that are in memory."""

    def __init__(self, tracks):
        self.tracks = tracks

    def load(self):
        return Poses(self.tracks, None)


def clip_of(folder: Path, tracks: np.ndarray, size=SIZE, frames=True) -> Clip:
    """Return a clip with these keypoints, as annotations give them."""
    record = ClipRecord("c", len(tracks), 1)
    images = None
    if frames:
        write_clip(folder / "frames" / "c", 3, len(tracks), size)
        images = ImageFrames(scan_folder(folder / "frames" / "c", len(tracks), (".jpg",)))
    return Clip(record, images, Given(tracks), size, tracks)


def film_of(name: str, folder: Path, tracks=None, model=True, size=SIZE, frames=True, **changes):
    network = zoo_network(name, **changes)
    spec, tracks = input_spec(network.config.args), walker(2) if tracks is None else tracks
    clip = clip_of(folder, tracks, size, frames)
    views = ViewSpec(num_clips=2)
    clips = ClipDataset([clip], spec, views, layout=network.config.layout)
    return Film(clips, folder, network.model if model else None, CPU)


def picture_of(strip) -> np.ndarray:
    picture = cv2.imdecode(np.frombuffer(strip.jpeg, np.uint8), cv2.IMREAD_COLOR)
    return picture[..., ::-1].astype(int)


def yellow(picture: np.ndarray) -> np.ndarray:
    return picture[..., 0] - picture[..., 2] > 60


def metres(num_frames=10, people=2, seed=0) -> np.ndarray:
    """Return (N, M, 25, 4) of people who stand upright, y upwards; the second is gone at times."""
    rng = np.random.default_rng(seed)
    tracks = np.zeros((num_frames, people, 25, 4), np.float32)
    tracks[..., :3] = rng.normal(0, 0.4, (num_frames, people, 25, 3))
    tracks[..., 3, 1] = 1.5  # the head
    tracks[..., 3] = 1
    tracks[::3, 1:] = 0
    return tracks


# ---------------------------------------------------------------- strips


@pytest.mark.parametrize("name", ZOO)
def test_every_model_of_the_zoo_has_pictures(tmp_path, name):
    is_ntu, is_openpose = name == "ntu", name == "openpose"
    tracks = metres() if is_ntu else np.tile(walker(1, 10), (1, 2, 1, 1))
    if is_openpose:
        tracks = np.concatenate([tracks, tracks[:, :, :1]], axis=2)
    film = film_of(name, tmp_path, tracks, frames=zoo_config(name).input.has_frames)
    strips = film.draw("c", 1, "falls")
    captions = [strip.caption for strip in strips]
    is_rgb = backbone_of(film.model) is not None
    expected = ["Grad-CAM"] if is_rgb else ["joints"]
    assert film.maps == expected
    assert captions[-1].startswith("Grad-CAM for falls" if is_rgb else "Joints that speak for")
    volumes = [text for text in captions if "heatmap volume" in text]
    assert len(volumes) == (name in ("posec3d", "limb", "rgbpose_pose"))
    for strip in strips:
        assert strip.size[1] % TILE_HEIGHT in (0, 2)
        assert picture_of(strip).std() > 1


def test_the_frames_are_those_that_the_network_saw(tmp_path):
    tracks = walker(1, 40)
    tracks[..., 2] = np.linspace(0.5, 1, 40)[:, None, None]
    film = film_of("stgcnpp", tmp_path, tracks, model=False, pose_normalize="none")
    seen = film.clips[SampleKey(0, 0)].skeletons.skeletons[0, :, 0, 0, 2].numpy()
    rows = [int(np.abs(tracks[:, 0, 0, 2] - value).argmin()) for value in seen]
    caption = film.draw("c", 0, "x")[0].caption
    assert caption == "Input: skeletons of frames " + ", ".join(f"{r + 1:05d}" for r in rows)
    assert len(rows) == MOST_TILES


@pytest.mark.parametrize("sampling", ["uniform", "spread", "pad_zero", "pad_loop"])
@pytest.mark.parametrize("num_frames", [1, 3, 30])
def test_seen_frames_are_those_of_the_views(sampling, num_frames):
    tracks = walker(0, num_frames)
    tracks[:, 0, 0, 2] = np.arange(1, num_frames + 1) / 100
    spec = SkeletonSpec(8, sampling=sampling, normalize="none")
    rows = seen_rows(spec, tracks, COCO17, 2)
    views = skeleton_views(spec, tracks, SIZE, COCO17, 2)
    found = np.rint(views.skeletons[0, :, 0, 0, 2].numpy() * 100).astype(int) - 1
    np.testing.assert_array_equal(rows, found)


def test_frames_without_the_main_person_are_not_shown_where_the_network_did_not_see_them():
    tracks = metres(12, 1)
    tracks[2:5] = 0
    rows = seen_rows(SkeletonSpec(12, normalize="spine"), tracks, NTU25)
    assert set(rows.tolist()) == set(range(12)) - {2, 3, 4}


def test_empty_frames_are_dark_and_have_no_number(tmp_path):
    film = film_of("stgcnpp", tmp_path, walker(1, 5), model=False, pose_sampling="pad_zero")
    (strip,) = film.draw("c", 0, "x")
    assert strip.caption == "Input: skeletons of frames 00001, 00002, 00003, 00004, 00005"
    tiles = np.array_split(picture_of(strip), MOST_TILES, axis=1)
    assert [yellow(tile).any() for tile in tiles] == [True] * 5 + [False] * 3


def test_people_lie_in_the_crop_of_rgbpose_as_in_its_volumes(tmp_path):
    film = film_of("rgbpose", tmp_path, walker(2, 10), model=False)
    (clip,) = film.clips.clips
    batch = collate([film.clips[SampleKey(0, 0)]])
    rows = film._seen_rows(clip, np.array([0, 5]))
    people = film._people_in_view(clip, rows, (80, 80))
    expected = batch.skeletons[0].numpy() * (
        80 / batch.volume_size[0],
        80 / batch.volume_size[0],
        1,
    )
    shown = expected.shape[1]  # nobody is drawn into places left over
    np.testing.assert_allclose(people[:, :shown], expected, atol=1e-3)
    assert not people[:, shown:].any()
    assert people[:, 0, :, :2].std() > 10


def test_coordinates_that_are_no_pixels_fill_the_tiles():
    tracks = NOBODY.copy()
    tracks[:, 0, :, :2] = np.random.default_rng(0).uniform(-2, 1.5, (4, 17, 2))
    tracks[:, 0, :, 2] = 1
    for size in ((2, 2), (400, 300)):
        placed = place_in_tiles(tracks, size, (100, 80), is_picture=False)
        seen = placed[:, 0, :, :2].reshape(-1, 2)
        low, high = seen.min(axis=0), seen.max(axis=0)
        assert (low >= 7.9).all()
        assert (high <= (92.1, 72.1)).all()
        np.testing.assert_allclose((low + high) / 2, (50, 40), atol=1e-3)
        assert max((high - low) / (100, 80)) == pytest.approx(0.8)
        assert not placed[:, 1].any()
    on_picture = place_in_tiles(tracks, (2, 2), (100, 80), is_picture=True)
    np.testing.assert_allclose(on_picture[..., :2], tracks[..., :2] * (50, 40), rtol=1e-6)


def test_three_dimensions_are_seen_from_the_front_head_up():
    tracks = metres(4, 1)
    placed = place_in_tiles(tracks, (1920, 1080), (100, 80), is_picture=False)
    assert placed.shape == (4, 1, 25, 3)
    heads, rest = placed[:, 0, 3, 1], np.delete(placed[:, 0, :, 1], 3, axis=1)
    assert (heads[:, None] < rest).all()
    order = np.argsort(tracks[:, 0, :, 0].ravel())
    assert (np.diff(placed[:, 0, :, 0].ravel()[order]) >= 0).all()


def test_nobody_is_drawn_as_nobody(tmp_path):
    assert not place_in_tiles(NOBODY, (2, 2), (100, 80), is_picture=False).any()
    film = film_of("posec3d", tmp_path, np.zeros((10, 2, 17, 3), np.float32), frames=False)
    strips = film.draw("c", 1, "falls")
    assert len(strips) == 3
    assert not yellow(picture_of(strips[0])).any()


def test_detection_rates_know_three_dimensions(tmp_path):
    tracks = metres(10, 1)
    tracks[:4] = 0
    tracks[4:, ..., 2] = -1.0  # z is no confidence
    film = film_of("ntu", tmp_path, tracks, model=False, frames=False)
    np.testing.assert_allclose(detection_rates(film.clips, tmp_path), [0.6])


# ---------------------------------------------------------------- joints


def batch_of(name: str, tracks=None) -> Batch:
    config = zoo_config(name)
    tracks = np.tile(walker(4), (1, 2, 1, 1)) if tracks is None else tracks
    views = skeleton_views(config.input.skeleton, tracks, SIZE, config.layout)
    return Batch(skeletons=views.skeletons, present=views.present, volume_size=views.volume_size)


@pytest.mark.parametrize("name", ["stgcnpp", "streams", "posec3d", "ntu"])
def test_importance_is_what_an_undetected_joint_changes(name):
    network = zoo_network(name)
    batch = batch_of(name, metres() if name == "ntu" else None)
    config, label = network.config, torch.tensor([1])
    spec = config.input.skeleton
    streams = ("joint",) if spec.is_volume else spec.streams
    falls = joint_importance(network.model, batch, label, config.layout, streams)
    assert falls.shape == (1, len(config.layout))
    assert falls.abs().max() > 1e-4

    def odds(of):
        with torch.no_grad():
            logits = network.model(of)[0]
        return float(logits[1] - logits[0])

    for joint in (0, 6, 9):
        without = batch.skeletons.clone()
        for number, stream in enumerate(streams):
            touched = [joint]
            if stream.startswith("bone"):
                touched += [c for c, p in enumerate(config.layout.parents) if p == joint]
            without[:, :, :, touched, 3 * number : 3 * number + 3] = 0
        expected = odds(batch) - odds(replace(batch, skeletons=without))
        assert float(falls[0, joint]) == pytest.approx(expected, abs=1e-4)


def test_a_joint_that_the_network_does_not_use_has_no_importance():
    """Weights of zero for one joint of the input: taking it away changes nothing."""
    network = zoo_network("stgcnpp")
    norm = network.model.encoder.data_bn
    with torch.no_grad():
        norm.weight[3 * 9 : 3 * 10] = 0
    falls = joint_importance(network.model, batch_of("stgcnpp"), torch.tensor([0]))[0]
    assert abs(float(falls[9])) < 1e-6
    assert falls.abs().max() > 1e-4


# ---------------------------------------------------------------- Grad-CAM of RGBPose-Conv3D


def test_grad_cam_of_rgbpose_is_that_of_its_rgb_stream():
    network = zoo_network("rgbpose")
    model, config = network.model, network.config
    rng = torch.Generator().manual_seed(1)
    frames = torch.randn(2, *config.input_shape("frames"), generator=rng)
    skeletons = torch.rand(2, *config.input_shape("skeletons"), generator=rng) * 6
    batch = Batch(frames=frames, skeletons=skeletons, volume_size=config.volume_size)
    label = torch.tensor([1, 0])
    cam = grad_cam(model, batch, label, "layer4")
    assert cam.shape[:2] == (2, config.options["num_segments"])
    # Averages over time and space: the gradient is the row of the classifier, everywhere.
    kept = []
    hook = model.encoder.rgb_path.layer4.register_forward_hook(lambda *a: kept.append(a[2]))
    with torch.no_grad():
        model(batch)
    hook.remove()
    weights = model.head.rgb.weight[label] / kept[0][0, 0].numel()
    expected = torch.einsum("bcthw,bc->bthw", kept[0], weights).clamp(min=0)
    assert torch.allclose(cam, expected, atol=1e-6)
    assert all(p.grad is None for p in model.parameters())


# ---------------------------------------------------------------- names


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("streams", "pose (stgcnpp, joint + bone motion)"),
        ("posec3d", "pose (posec3d, joint)"),
        ("late", "late_attention (resnet18, stgcnpp, joint)"),
        ("rgbpose", "RGBPose-Conv3D"),
        ("rgbpose_pose", "RGBPose-Conv3D, pose stream alone"),
    ],
)
def test_runs_are_named_by_their_network(name, words):
    assert run_results.describe(zoo_config(name).options) == words
    assert run_results.FRAME_MODELS == FRAME_MODELS


def test_keypoint_files_are_shown_as_annotations_are(tmp_path):
    film = film_of("stgcnpp", tmp_path, walker(3), model=False)
    save_poses(tmp_path / "poses" / "c.npz", walker(3), SIZE, "test")
    poses = PoseArchive(tmp_path / "poses" / "c.npz", 20, 20, 17, "")
    (clip,) = film.clips.clips
    other = ClipDataset(
        [replace(clip, poses=poses, keypoints=None)], film.clips.spec, ViewSpec(num_clips=2)
    )
    (one,), (two,) = (f.draw("c", 0, "x") for f in (film, Film(other, tmp_path, None, CPU)))
    assert one == two


def test_the_people_whom_the_network_sees_first_are_drawn(tmp_path):
    tracks = walker(2)[:, :1].repeat(2, axis=1)
    tracks[:, 1, :, :2] *= 1.5
    order = {"num_people": 1, "people_order": "area"}
    film = film_of("stgcnpp", tmp_path, tracks, model=False, **order)
    (clip,) = film.clips.clips
    picks = np.array([0, 2])
    assert np.array_equal(film._people(clip, picks)[:, 0], tracks[picks, 1])
