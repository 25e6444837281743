"""The frame cache changes no number that a network sees, but for what a resize does to pixels."""

import os
import shlex
from contextlib import nullcontext
from multiprocessing.reduction import ForkingPickler
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

import main
import opts
from datasets.cache import CacheSpec, cache_clips
from datasets.cached_frames import CachedFrames, shrink
from datasets.frame_store import map_clip
from datasets.frames import ImageFrames
from datasets.loading import build_eval_loader, build_train_loader
from datasets.opening import open_dataset
from datasets.poses import save_poses
from datasets.records import ClipRecord
from datasets.scan import Clip, find_clips
from datasets.videos import VideoFrames
from errors import InputError
from tests.making_videos import number_of, write_video

SIZE = (80, 48)
SMALL = shlex.split("--num_segments 4 --input_size 16 --batch-size 2 --device cpu --workers 0")


@pytest.fixture(autouse=True)
def _nothing_stays_mapped():
    map_clip.cache_clear()
    yield
    map_clip.cache_clear()


def smooth(number: int, size: tuple[int, int]) -> np.ndarray:
    """Return an RGB picture of slow waves, of which a smaller copy says as much."""
    x, y = np.meshgrid(*(np.linspace(0, 1, side) for side in size))
    waves = [np.sin(3 * x + k + number) * np.cos(2 * y + number / 3) for k in range(3)]
    return np.round(127 + 100 * np.stack(waves, -1)).astype(np.uint8)


def write_smooth(folder: Path, num_frames: int, size, suffix: str = ".png", first: int = 1) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(num_frames):
        image = cv2.cvtColor(smooth(number, size), cv2.COLOR_RGB2BGR)
        assert cv2.imwrite(str(folder / f"{first + number:05d}{suffix}"), image)


@pytest.fixture
def big(make_dataset) -> Path:
    """Return a data set of 80 x 48 pixels, whose stored frames are half as large."""
    root = make_dataset("FRFS", size=SIZE)
    for number, folder in enumerate(sorted((root / "frames").iterdir())):
        for file in folder.iterdir():
            file.unlink()
        write_smooth(folder, 12, SIZE, first=1 + number % 2)
    return root


def options(root: Path, *argv: str, cached: bool = True, short_side: int = 24):
    where = ["--dataset", root.name, "--dataset_path", str(root.parent)]
    if cached:
        folder = str(root.parent / "cache")
        argv = (*argv, "--cache", "frames", "--cache_dir", folder)
        argv = (*argv, "--cache_short_side", str(short_side))
    return opts.parse_train_args([*where, *SMALL, *argv])


def clips_of(args, split: str = "train"):
    return build_eval_loader(args, open_dataset(args), split).dataset.clips


def batches(args, build=build_train_loader, **choices):
    loader = build(args, open_dataset(args), **choices)
    if build is build_train_loader:
        loader.batch_sampler.start(3)
    return list(loader)


def prepared(batch):
    """Return a batch as a network sees it."""
    return batch.prepared() if hasattr(batch, "prepared") else batch


# ---------------------------------------------------------------- the same numbers


@pytest.mark.parametrize("mode", ["", "--early_fusion_poses", "--mask_background --rand_augment"])
def test_frames_that_are_small_already_give_the_same_bits(big, mode):
    argv = shlex.split(mode)
    for build, choices in (
        (build_train_loader, {}),
        (build_eval_loader, {"split": "val", "num_clips": 2, "test_crops": 10}),
    ):
        plain = batches(options(big, *argv, cached=False), build, **choices)
        stored = batches(options(big, *argv, short_side=48), build, **choices)
        assert len(plain) == len(stored) > 0
        for one, other in zip(plain, stored, strict=True):
            one, other = prepared(one), prepared(other)
            assert one.clips == other.clips
            assert torch.equal(one.frames, other.frames)
            assert (one.keypoints is None) == (other.keypoints is None)
            assert one.keypoints is None or torch.equal(one.keypoints, other.keypoints)


def test_a_run_with_small_frames_ends_with_the_same_weights(big, tmp_path):
    network = "--arch resnet18 --width 8 --gsf --pretrained none --epochs 2 --early_fusion_poses"
    weights = []
    for name, cached in (("plain", False), ("cached", True)):
        where = ["--dataset", "FRFS", "--dataset_path", str(big.parent)]
        argv = [*where, *SMALL, *network.split(), "--experiment_path", str(tmp_path / name)]
        if cached:
            argv += ["--cache", "frames", "--cache_dir", str(tmp_path), "--cache_short_side", "48"]
        main.main(argv)
        last = next((tmp_path / name).rglob("last.pth.tar"))
        # Pixels may differ with and without: a run goes on as it began.
        other = ["--cache", "none"] if cached else ["--cache", "frames"]
        other = [*where, *SMALL, *network.split(), "--resume", str(last), *other]
        with pytest.raises(InputError, match="was trained with cache"):
            main.main([*other, "--experiment_path", str(tmp_path / name), "--epochs", "3"])
        weights.append(torch.load(last, weights_only=True))
    names = [key for key, value in weights[0].items() if isinstance(value, dict)]
    key = next(n for n in names if any(torch.is_tensor(v) for v in weights[0][n].values()))
    assert weights[0][key]
    for name, one in weights[0][key].items():
        assert torch.equal(one, weights[1][key][name]), name


def test_resized_frames_look_the_same_and_keypoints_fit_them(big):
    argv = ("--early_fusion_poses", "--pose_normalize", "none")
    choices = {"split": "val", "num_clips": 2, "test_crops": 3}
    plain = batches(options(big, *argv, cached=False), build_eval_loader, **choices)
    stored = batches(options(big, *argv), build_eval_loader, **choices)
    for one, other in zip(map(prepared, plain), map(prepared, stored), strict=True):
        levels = (one.frames - other.frames)[:, :, :3].abs().mean() * 255 * 0.225
        assert 0 < levels < 1
        # Keypoints in pixels of the crop: 48 -> 16 and 24 -> 16 are the same crop.
        assert one.keypoints.abs().max() > 5
        assert torch.allclose(one.keypoints, other.keypoints, atol=1e-4)
        assert (one.frames - other.frames)[:, :, 3].abs().max() * 0.2 < 1e-4  # the heatmap
        assert one.frames[:, :, 3].max() > 3


def test_stored_frames_are_the_resized_frames(big):
    plain = clips_of(options(big, cached=False))
    stored = clips_of(options(big))
    assert len(plain) == len(stored) == 4
    for one, other in zip(plain, stored, strict=True):
        assert other.size == (40, 24) == other.images.size()
        assert (other.images.count, other.images.found) == (12, 12)
        assert (other.images.place, other.images.first) == (one.images.place, one.images.first)
        indices = np.array([11, 0, 5, 5, 0])
        expected = shrink(one.images.load(indices, SIZE), (40, 24))
        assert np.array_equal(other.images.load(indices, (40, 24)), expected)
        for index, picture in zip(indices, expected, strict=True):
            assert np.array_equal(other.images.frame(int(index)), picture)
        streamed = list(other.images.stream(np.array([0, 5, 11]), (40, 24)))
        assert np.array_equal(streamed, expected[[1, 2, 0]])
        blocks = list(other.images.blocks((40, 24), 5))
        assert [len(block) for block in blocks] == [5, 5, 2]
        assert np.array_equal(np.concatenate(blocks)[indices], expected)


def test_detail_too_fine_for_stored_frames_is_averaged():
    noise = np.random.default_rng(0).integers(0, 256, (2, 96, 160, 3), dtype=np.uint8)
    small = shrink(noise, (40, 24))
    assert small.shape == (2, 24, 40, 3)
    assert abs(small.mean() - noise.mean()) < 1
    assert small.std() < noise.std() / 4  # every fourth pixel, or four of sixteen, vary more
    assert shrink(noise, (160, 96)) is noise


def test_what_is_loaded_is_a_copy_and_what_is_looked_at_changes_no_file(big):
    images = clips_of(options(big))[0].images
    before = images.load(np.arange(12), (40, 24))
    again = images.load(np.arange(12), (40, 24))
    again[:] = 7
    torch.from_numpy(images.frame(3))  # warns of an array that cannot be written to
    path = images.stored.path
    data = path.read_bytes()
    images.frame(3)[:] = 0
    assert path.read_bytes() == data
    map_clip.cache_clear()
    assert np.array_equal(images.load(np.arange(12), (40, 24)), before)


def test_frames_that_are_not_there_are_refused(big):
    images = clips_of(options(big))[0].images
    for index in (-1, 12):
        with pytest.raises(IndexError, match="frames 0 to 11"):
            images.load(np.array([index]), (40, 24))
        with pytest.raises(IndexError):
            images.frame(index)
    assert not images.can_reduce
    for size, reduction in ((SIZE, 1), ((40, 24), 2)):
        with pytest.raises(ValueError, match="stored frames"):
            list(images.stream(np.array([1]), size, reduction))


# ---------------------------------------------------------------- keypoints


def write_form(root: Path, number: int, keypoints: np.ndarray, form: str) -> None:
    file = root / "poses" / f"train_{number}.npz"
    if form == "npz":
        save_poses(file, keypoints, SIZE, "test")
    elif form == "another size":
        save_poses(file, keypoints * np.float32([2, 2, 1]), (160, 96), "test")
    elif form == "npy":
        file.unlink()
        for frame, pose in enumerate(keypoints[:, 0, :, :2], start=1 + number % 2):
            np.save(root / "frames" / f"train_{number}" / f"{frame:05d}.npy", pose)
    else:
        np.savez(file, keypoints=keypoints)


@pytest.mark.parametrize("form", ["npz", "npz without a size", "npy", "another size"])
@pytest.mark.parametrize("in_memory", [True, False])
def test_every_form_of_keypoints_is_scaled(big, person, monkeypatch, form, in_memory):
    if not in_memory:
        monkeypatch.setattr("datasets.scan._MEMORY_BYTES", 0)
    for number in range(4):
        keypoints = person(12, SIZE, number)
        keypoints[3, 0, 4] = 0
        write_form(big, number, keypoints, form)
    records = open_dataset(options(big)).records("train")
    clips, _ = find_clips(big, records, has_frames=True, has_poses=True)
    assert all((clip.keypoints is not None) == in_memory for clip in clips)
    stored = cache_clips(clips, CacheSpec(big.parent / "cache", 24))

    def tracks(clip):
        return clip.poses.load().keypoints_at(clip.size)

    for one, other in zip(clips, stored, strict=True):
        expected = tracks(one) * np.float32([0.5, 0.5, 1])
        assert np.allclose(tracks(other), expected, rtol=1e-6)
        assert not tracks(other)[3, 0, 4].any()
        assert other.poses.path == one.poses.path
        if in_memory:
            assert np.array_equal(other.keypoints, tracks(other))  # both ways give the same bits


def test_clips_without_keypoints_or_without_frames_pass_through(make_dataset):
    root = make_dataset("FRFS", size=SIZE, poses=None)
    clip = clips_of(options(root, "--early_fusion_poses", "--missing_pose", "zero"))[0]
    assert clip.poses is None
    assert clip.size == (40, 24)
    records = open_dataset(options(root)).records("train")
    found, _ = find_clips(root, records, has_frames=False, has_poses=False)
    spec = CacheSpec(root / "nowhere", 24)
    assert cache_clips(found, spec) == found
    assert not spec.folder.exists()


# ---------------------------------------------------------------- all kinds of clips


def test_videos_odd_sizes_single_frames_and_names(tmp_path, make_dataset):
    root = make_dataset("my jumps", clips=(1, 1, 1), size=SIZE)
    names = ["größe/ 跳 <script>", "x" * 200, "one"]
    sizes = [(67, 33), (25, 90), (31, 31)]
    counts = [3, 2, 1]
    for name, size, count in zip(names, sizes, counts, strict=True):
        write_smooth(root / "frames" / name, count, size, ".jpg")
    lines = [
        f"{name} {count} {i % 2}\n"
        for i, (name, count) in enumerate(zip(names, counts, strict=True))
    ]
    (root / "train_videofolder.txt").write_text("".join(lines), encoding="utf-8")
    clips = clips_of(options(root))
    assert [clip.size for clip in clips] == [(49, 24), (24, 86), (24, 24)]
    plain = clips_of(options(root, cached=False))
    for one, other in zip(plain, clips, strict=True):
        every = np.arange(one.images.count)
        expected = shrink(one.images.load(every, one.size), other.size)
        assert np.array_equal(other.images.load(every, other.size), expected)


def test_a_part_of_a_video(tmp_path):
    video = VideoFrames(write_video(tmp_path / "videos" / "a.mp4", 40), 12, 20, None, (64, 48))
    record = ClipRecord("a", 12, 0)
    (clip,) = cache_clips(
        [Clip(record, video, None, (64, 48))], CacheSpec(tmp_path / "cache", 24, workers=2)
    )
    frames = clip.images.load(np.array([0, 11, 4]), (32, 24))
    assert [number_of(frame) for frame in frames] == [20, 31, 24]


# ---------------------------------------------------------------- made once


def forbid_decoding(monkeypatch):
    def decode(*_args, **_kwargs):
        raise AssertionError("a frame was decoded")

    monkeypatch.setattr(ImageFrames, "load", decode)
    monkeypatch.setattr(ImageFrames, "blocks", decode)


def test_what_is_there_is_not_decoded_again_by_any_list_or_worker(big, monkeypatch):
    args = options(big)
    expected = [batches(args), batches(args, build_eval_loader, split="val")]
    forbid_decoding(monkeypatch)
    args.workers = 2
    again = [batches(args), batches(args, build_eval_loader, split="val")]
    for one, other in zip(sum(expected, []), sum(again, []), strict=True):
        assert torch.equal(prepared(one).frames, prepared(other).frames)


def test_processes_write_the_same_files(big):
    args = options(big)
    folders = []
    for workers in (0, 3):
        args.workers = workers
        args.cache_dir = big.parent / f"cache {workers}"
        clips_of(args)
        files = args.cache_dir.rglob("*.frames")
        folders.append({file.name: file.read_bytes() for file in files})
    assert len(folders[0]) == 4
    assert folders[0] == folders[1]


def test_only_new_and_changed_clips_are_stored(big):
    args, heard = options(big), []

    def announce(text):
        heard.append(text)
        return nullcontext(lambda done, total: heard.append((done, total)))

    def run(split="train"):
        heard.clear()
        build_eval_loader(args, open_dataset(args), split, announce=announce)
        return heard

    text, *steps = run()
    assert "storing 4 of 4 clips: 48 frames" in text
    assert str(args.cache_dir / "FRFS" / "short_side_24") in text
    assert steps == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert run() == []
    assert "storing 2 of 2 clips" in run("val")[0]
    (big / "train_videofolder.txt").write_text("train_1 12 0\nval_0 12 1\ntest_0 12 1\n")
    assert "storing 1 of 3 clips" in run()[0]
    file = big / "frames" / "train_1" / "00005.png"
    file.write_bytes((big / "frames" / "train_1" / "00006.png").read_bytes())
    assert "storing 1 of 3 clips" in run()[0]
    os.utime(file, ns=(0, 12345))  # of the same length, at another time
    assert "storing 1 of 3 clips" in run()[0]
    clip = clips_of(args)[0]
    frames = clip.images.load(np.arange(12), clip.size)
    number = [path.name for path in sorted(file.parent.iterdir())].index(file.name)
    assert np.array_equal(frames[number], frames[number + 1])


def test_skeletons_alone_are_tested_without_a_cache(big):
    args = options(big)
    args.fusion = "pose"
    assert clips_of(args)[0].images is None
    assert not args.cache_dir.exists()


def test_clips_can_be_sent_to_another_process(big):
    """A loader does so where processes do not fork."""
    images = clips_of(options(big))[0].images
    assert isinstance(images, CachedFrames)
    copy = ForkingPickler.loads(ForkingPickler.dumps(images))
    assert np.array_equal(copy.frame(3), images.frame(3))
