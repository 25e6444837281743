import numpy as np
import pytest
import torch

from datasets import frames as frames_module
from datasets.clips import ClipDataset, Sample, ViewSpec, collate
from datasets.frames import ImageFrames
from datasets.order import SampleKey
from datasets.records import load_records
from datasets.scan import find_clips
from datasets.views import InputSpec
from errors import InputError
from ops.heatmap import joint_heatmap
from transforms import eval_geometries

SIDE, T = 16, 4
FIRST = SampleKey(0, 0)


def build(root, views=ViewSpec(), missing_pose="error", estimate=None, seed=0, **spec):  # noqa: B008
    spec = InputSpec(**({"num_segments": T, "input_size": SIDE} | spec))
    clips, report = find_clips(
        root,
        load_records(root / "train_videofolder.txt"),
        has_frames=spec.has_frames,
        has_poses=spec.has_poses,
        in_pixels=spec.pose_normalize == "none",
        missing_pose=missing_pose,
    )
    return ClipDataset(clips, spec, views, seed=seed, report=report, estimate=estimate)


def frame_numbers(frames: torch.Tensor) -> np.ndarray:
    """Read the grey level that tells which frame a picture is."""
    grey = frames.float().mean(dim=(-3, -2, -1))
    return ((grey.numpy() - 20) / 8).round().astype(int)


@pytest.fixture
def decoded(monkeypatch) -> list[str]:
    """Return the names of the images decoded from now on."""
    names: list[str] = []

    def decode(path, *how):
        names.append(f"{path.parent.name}/{path.name}")
        return frames_module_decode(path, *how)

    frames_module_decode = frames_module.decode_image
    monkeypatch.setattr(frames_module, "decode_image", decode)
    return names


# ---------------------------------------------------------------- what a sample is


@pytest.mark.parametrize(("num_clips", "crops"), [(1, 1), (2, 3), (3, 10)])
def test_defect_16_every_view_has_frames_and_keypoints(dataset, num_clips, crops):
    views = ViewSpec(num_clips=num_clips, test_crops=crops)
    sample = build(dataset, views, heatmap_channel=True)[SampleKey(0, 1)]
    V = num_clips * crops
    assert sample.frames.shape == (V, T, 3, SIDE, SIDE)
    assert sample.frames.dtype == torch.uint8
    assert sample.heatmap.shape == (V, T, SIDE, SIDE)
    assert sample.keypoints.shape == (V, T, 1, 17, 3)
    assert sample.heatmap.dtype == sample.keypoints.dtype == torch.float32
    assert (sample.label, sample.clip) == (1, "train_1")


def test_defect_02_the_frames_are_those_that_the_sampling_names(dataset):
    sample = build(dataset, ViewSpec(num_clips=2, test_crops=3))[FIRST]
    numbers = frame_numbers(sample.frames)
    assert numbers.tolist() == [[0, 3, 6, 9]] * 3 + [[1, 4, 7, 10]] * 3
    assert frame_numbers(build(dataset)[FIRST].frames).tolist() == [[1, 4, 7, 10]]
    dense = build(dataset, interval=2)[FIRST]
    assert frame_numbers(dense.frames).tolist() == [[2, 4, 6, 8]]


def test_defect_04_training_reaches_the_last_frame_and_the_first(dataset):
    clips = build(dataset, ViewSpec(train=True), has_poses=False)
    seen = {n for epoch in range(40) for n in frame_numbers(clips[SampleKey(epoch, 0)].frames)[0]}
    assert seen == set(range(12))


def test_every_frame_is_decoded_once_for_all_views(dataset, decoded):
    clips = build(dataset, ViewSpec(num_clips=5, test_crops=10), heatmap_channel=True)
    clips[FIRST]
    assert len(decoded) == len(set(decoded)) == 12


def test_keypoints_are_those_of_the_frames_shown(dataset, person):
    clips = build(dataset, pose_normalize="none")
    sample = clips[FIRST]
    (geometry,) = eval_geometries(64, 36, SIDE)
    expected = geometry.apply_to_keypoints(person(12))[[1, 4, 7, 10]]
    assert np.allclose(sample.keypoints[0], expected, atol=1e-4)


# ---------------------------------------------------------------- keypoints


def test_views_of_a_clip_share_one_frame_of_reference(dataset):
    """Crops and samplings of an evaluation show one and the same moving body."""
    sample = build(dataset, ViewSpec(num_clips=2, test_crops=5))[FIRST]
    crops = sample.keypoints.unflatten(0, (2, 5))
    assert torch.allclose(crops, crops[:, :1].expand_as(crops), atol=1e-4)
    whole = build(dataset, num_segments=12)[FIRST].keypoints[0]
    assert torch.allclose(crops[0, 0], whole[[0, 3, 6, 9]], atol=1e-4)


def test_defect_11_pose_streams_do_not_see_pixels(dataset, make_dataset):
    normalized = build(dataset)[FIRST].keypoints
    assert normalized[..., :2].abs().max() < 4
    larger = build(make_dataset("large", size=(640, 360)))[FIRST].keypoints
    assert torch.allclose(normalized, larger, atol=1e-3)


def test_normalised_keypoints_do_not_depend_on_an_unknown_frame_size(make_dataset):
    known = build(make_dataset("npz"), ViewSpec(train=True), has_frames=False)
    unknown = build(make_dataset("npy", poses="npy"), ViewSpec(train=True), has_frames=False)
    for epoch in range(8):
        one, other = (c[SampleKey(epoch, 0)].keypoints for c in (known, unknown))
        # Crops are whole pixels: their shape rounds differently.
        assert torch.allclose(one, other, atol=0.06)


def test_clips_are_filled_up_or_cut_to_the_wanted_number_of_people(dataset, make_archive, person):
    pair = np.concatenate((person(12), person(12, seed=8)), axis=1)
    make_archive(dataset / "poses" / "train_0.npz", pair)
    one, two = build(dataset), build(dataset, num_people=2)
    assert torch.equal(one[FIRST].keypoints, two[FIRST].keypoints[:, :, :1])
    assert two[FIRST].keypoints[:, :, 1].any()
    assert not two[SampleKey(0, 1)].keypoints[:, :, 1].any()


def test_missing_poses_under_zero_are_undetected_everywhere(dataset):
    (dataset / "poses" / "train_0.npz").unlink()
    clips = build(dataset, missing_pose="zero", heatmap_channel=True)
    sample = clips[FIRST]
    assert not sample.keypoints.any()
    assert not sample.heatmap.any()
    assert clips[SampleKey(0, 1)].keypoints.any()


def test_missing_poses_are_estimated_on_the_frames_shown_and_only_there(dataset, person):
    (dataset / "poses" / "train_0.npz").unlink()
    shapes = []

    def estimate(frames):
        shapes.append((frames.shape, frames.dtype))
        numbers = ((frames.mean(axis=(1, 2, 3)) - 20) / 8).round().astype(int)
        return person(12)[numbers]

    clips = build(dataset, missing_pose="estimate", estimate=estimate, pose_normalize="none")
    views = ViewSpec(num_clips=2)
    twice = build(dataset, views, "estimate", estimate=estimate, pose_normalize="none")
    (geometry,) = eval_geometries(64, 36, SIDE)
    expected = geometry.apply_to_keypoints(person(12))
    assert np.allclose(clips[FIRST].keypoints[0], expected[[1, 4, 7, 10]], atol=1e-4)
    assert np.allclose(twice[FIRST].keypoints[1], expected[[1, 4, 7, 10]], atol=1e-4)
    clips[SampleKey(0, 1)]
    assert shapes == [((4, 36, 64, 3), np.uint8), ((8, 36, 64, 3), np.uint8)]


def test_defect_31_skeletons_alone_decode_nothing(dataset, decoded, monkeypatch):
    monkeypatch.setattr(ImageFrames, "load", lambda *_: pytest.fail("loaded frames"))
    for views in (ViewSpec(train=True, rand_augment=True), ViewSpec(test_crops=10)):
        sample = build(dataset, views, has_frames=False)[FIRST]
        assert sample.frames is None
        assert sample.keypoints.any()
    assert decoded == []


def test_rgb_alone_has_no_keypoints(dataset):
    sample = build(dataset, has_poses=False)[FIRST]
    assert sample.keypoints is None
    assert sample.heatmap is None


# ---------------------------------------------------------------- the heatmap


@pytest.mark.parametrize("test_crops", [1, 3, 10])
def test_the_heatmap_is_drawn_at_the_keypoints_of_the_view(make_dataset, test_crops):
    root = make_dataset(size=(128, 72))
    views = ViewSpec(test_crops=test_crops)
    sample = build(root, views, heatmap_channel=True, pose_normalize="none", input_size=32)[FIRST]
    crop = 72 if test_crops == 3 else 63
    sigma = 10 * 72 / 360 * 32 / crop
    for view in range(len(sample.frames)):
        expected = joint_heatmap(sample.keypoints[view].numpy(), 32, 32, sigma)
        assert np.allclose(sample.heatmap[view].numpy(), expected, atol=1e-5)


def test_the_heatmap_follows_training_geometry_and_augmentation(make_dataset):
    root = make_dataset(size=(128, 72))
    views = ViewSpec(train=True, rand_augment=True)
    clips = build(root, views, heatmap_channel=True, pose_normalize="none", input_size=32)
    seen = set()
    for epoch in range(30):
        sample = clips[SampleKey(epoch, 0)]
        keypoints = sample.keypoints[0].numpy()
        inside = ((keypoints[..., :2] > 1) & (keypoints[..., :2] < 31)).all(axis=-1)
        heatmap = sample.heatmap[0].numpy()
        for t, _, joint in zip(*np.nonzero(inside), strict=True):
            x, y = keypoints[t, 0, joint, :2].astype(int)
            assert heatmap[t, y, x] > 0.6
        seen.add(sample.keypoints.numpy().tobytes())
    assert len(seen) == 30


def test_sigma_scales_with_the_frame(make_dataset):
    """A larger recording of the same scene gives the same heatmap."""
    small = build(make_dataset("small", size=(144, 80)), heatmap_channel=True)[FIRST]
    large = build(make_dataset("large", size=(288, 160)), heatmap_channel=True)[FIRST]
    assert (small.heatmap - large.heatmap).abs().max() < 1e-4


def test_masking_blackens_the_background_and_adds_no_channel(dataset):
    plain = build(dataset)[FIRST].frames
    sample = build(dataset, mask_background=True)[FIRST]
    masked = sample.frames
    assert sample.heatmap is None
    heatmap = build(dataset, heatmap_channel=True)[FIRST].heatmap
    assert masked.shape == plain.shape
    far = (heatmap <= 1 / 255)[:, :, None].expand_as(plain)
    assert 0.1 < far.float().mean() < 0.9
    assert torch.equal(masked[~far], plain[~far])
    assert not masked[far].any()


# ---------------------------------------------------------------- chance


def equal(one: Sample, other: Sample) -> bool:
    return torch.equal(one.frames, other.frames) and torch.equal(one.keypoints, other.keypoints)


def test_a_training_sample_is_a_function_of_seed_epoch_and_clip(dataset):
    views = ViewSpec(train=True, rand_augment=True)
    clips, again = build(dataset, views), build(dataset, views)
    samples = [clips[SampleKey(epoch, 0)] for epoch in range(4)]
    np.random.seed(0)  # noqa: NPY002
    torch.manual_seed(0)
    for epoch in reversed(range(4)):
        assert equal(again[SampleKey(epoch, 0)], samples[epoch])
    assert not any(equal(samples[0], other) for other in samples[1:])
    assert not equal(build(dataset, views, seed=1)[FIRST], samples[0])


def test_evaluation_draws_nothing(dataset):
    clips = build(dataset, seed=0)
    assert equal(clips[SampleKey(0, 2)], clips[SampleKey(5, 2)])
    assert equal(clips[SampleKey(0, 2)], build(dataset, seed=9)[SampleKey(0, 2)])


def test_a_mirror_image_is_drawn_unless_it_is_forbidden(dataset, make_archive, person):
    one_armed = person(12)
    one_armed[:, :, 9] = 0
    make_archive(dataset / "poses" / "train_0.npz", one_armed)

    def arms(may_flip: bool) -> set[tuple[bool, bool]]:
        clips = build(dataset, ViewSpec(train=True, may_flip=may_flip))
        drawn = [clips[SampleKey(epoch, 0)].keypoints for epoch in range(20)]
        return {(bool(k[0, 0, 0, 9].any()), bool(k[0, 0, 0, 10].any())) for k in drawn}

    assert arms(may_flip=True) == {(False, True), (True, False)}
    assert arms(may_flip=False) == {(False, True)}


# ---------------------------------------------------------------- batches


@pytest.mark.parametrize("views", [ViewSpec(), ViewSpec(num_clips=2, test_crops=3)])
def test_defect_14_a_batch_keeps_views_of_a_clip_together(dataset, views):
    clips = build(dataset, views)
    samples = [clips[SampleKey(0, index)] for index in (2, 1, 3)]
    batch = collate(samples)
    V = views.num_clips * views.test_crops
    assert (len(batch), batch.views) == (3, V)
    assert batch.clips == ("train_2", "train_1", "train_3")
    assert batch.label.tolist() == [0, 1, 1]
    assert torch.equal(batch.frames.unflatten(0, (3, V))[1], samples[1].frames)
    assert torch.equal(batch.keypoints.unflatten(0, (3, V))[2], samples[2].keypoints)


def test_batches_of_one_kind_of_input(dataset):
    rgb = collate([build(dataset, has_poses=False)[FIRST]])
    pose = collate([build(dataset, has_frames=False)[FIRST]])
    assert rgb.keypoints is None
    assert pose.frames is None
    assert len(rgb) == len(pose) == 1


def test_labels_are_those_of_the_clips_that_were_kept(dataset):
    (dataset / "poses" / "train_0.npz").unlink()
    clips = build(dataset, missing_pose="skip")
    assert clips.labels.tolist() == [1, 0, 1]
    assert len(clips) == 3
    assert (clips.report.missing, clips.report.clips) == (1, 4)


def test_a_damaged_frame_stops_with_its_name(dataset):
    path = dataset / "frames" / "train_0" / "00008.jpg"
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(InputError, match=r"train_0/00008.jpg is damaged"):
        build(dataset)[FIRST]
