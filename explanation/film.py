"""A clip as film strips: what the network saw of it, and what it made of that."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from datasets.cached_frames import CachedFrames
from datasets.check.strips import Strip
from datasets.clip_table import load_table
from datasets.clips import ClipDataset, ViewSpec, collate
from datasets.frames import FrameSource, ImageFrames
from datasets.order import SampleKey
from datasets.pose_views import people_geometry
from datasets.poses import find_poses
from datasets.sampling import sample_frames, sample_segments
from datasets.scan import Clip
from datasets.sources import find_frames
from datasets.views import Crop, fit_people
from errors import InputError
from explanation.gates import GateMaps, early_and_late, recorded_gates
from explanation.gradcam import backbone_of, choose_stage, grad_cam
from explanation.joints import joint_importance
from explanation.pictures import (
    TILE_HEIGHT,
    add_glow,
    as_tiles,
    draw_importance,
    encode_strip,
    overlay,
    seen_frames,
    tile_size,
    with_skeletons,
)
from explanation.skeletons import place_in_tiles, seen_rows, tracks_of_clip, volume_heat
from models import Network
from ops.batch import Batch
from transforms import Geometry, eval_geometries

# More segments than this are shown as some of them, spread over the clip.
MOST_TILES = 8


class Film:
    """Draws clips of a data set as one view shows them: first sampling scored, centre crop.

    Args:
        clips: as they were tested.
        root: folder of the data set.
        model: what looks at them, in evaluation mode; None draws no maps.
        device: where the model is.
    """

    def __init__(
        self, clips: ClipDataset, root: Path, model: Network | None, device: torch.device
    ) -> None:
        views = ViewSpec(num_clips=clips.views.num_clips)
        self.clips = ClipDataset(
            clips.clips, clips.spec, views, clips.seed, None, clips.estimate, clips.layout
        )
        self.root = root
        self.model = model
        self.device = device
        self.rows = {clip.record.name: row for row, clip in enumerate(clips.clips)}

    @property
    def maps(self) -> list[str]:
        """Name the kinds of maps that `draw` adds to the frames."""
        if self.model is None:
            return []
        if backbone_of(self.model) is None:
            return ["joints"]
        return ["gates", "Grad-CAM"] if early_and_late(self.model) else ["Grad-CAM"]

    def draw(self, name: str, label: int, class_name: str) -> list[Strip]:
        """Draw a clip.

        Args:
            name: of the clip.
            label: the class that maps explain.
            class_name: its name, for the captions.

        Raises:
            InputError: the clip is not in the data set, or its files cannot be read.
        """
        if name not in self.rows:
            raise InputError(f"clip {name} is not in the list of the data set: no pictures")
        row = self.rows[name]
        clip, spec = self.clips.clips[row], self.clips.spec
        sample = self.clips[SampleKey(0, row)]
        # One of several samplings takes other frames than a single one does.
        batch = next(collate([sample]).rows(1))
        picks = sample_frames(
            clip.record.num_frames, spec.num_segments, spec.interval, self.clips.views.num_clips
        )[0]
        sees_frames = self.model is None or backbone_of(self.model) is not None
        is_skeleton = batch.frames is None or not sees_frames
        if is_skeleton and spec.skeleton is not None:
            picks = self._seen_rows(clip, picks)
        shown = sample_segments(len(picks), min(len(picks), MOST_TILES))
        if batch.frames is None or is_skeleton:
            return self._draw_skeletons(clip, batch, picks, shown, label, class_name)
        box = self._geometry(clip).box
        size = tile_size(box.width, box.height)
        tiles = as_tiles(seen_frames(batch.frames[0])[shown], size)
        people = self._people_in_view(clip, picks[shown], size)
        numbers = frame_names(self._frames_of(clip), picks[shown])
        strips = self._input_strips(tiles, people, batch.heatmap, shown, numbers)
        return strips + self._maps(tiles, batch, shown, label, class_name)

    def _input_strips(
        self,
        tiles: Sequence[np.ndarray],
        people: np.ndarray | None,
        heatmap: Tensor | None,
        shown: np.ndarray,
        numbers: str,
    ) -> list[Strip]:
        text = f"Input: frames {numbers}"
        drawn = list(tiles)
        if people is not None:
            text += ", with the skeleton that was given"
            drawn = with_skeletons(tiles, people, self.clips.layout)
        strips = [encode_strip(text, drawn)]
        if heatmap is not None:
            heat = heatmap[0].numpy()[shown]
            lit = [add_glow(tile, one) for tile, one in zip(tiles, heat, strict=True)]
            strips.append(encode_strip("Input: the heatmap channel", lit))
        return strips

    def _people_in_view(
        self, clip: Clip, picks: np.ndarray, size: tuple[int, int]
    ) -> np.ndarray | None:
        """Return keypoints (T, M, V, 3) in pixels of the tiles; None where none were given.

        Those estimated while loading are known in the frame of reference of the network alone.
        """
        if clip.poses is None:
            return None
        geometry = self._geometry(clip)
        people = self._people(clip, picks)
        moved = Crop(geometry).apply_to_keypoints(people, self.clips.layout)
        return moved * np.array([*(side / geometry.out_size for side in size), 1], np.float32)

    def _people(self, clip: Clip, picks: np.ndarray) -> np.ndarray:
        """Return (T, M, V, D) of those whom the network saw in some frames; nobody in frame -1."""
        spec = self.clips.spec
        count, tracks = spec.num_people, tracks_of_clip(clip, self.clips.layout)
        if spec.skeleton is not None:
            count, tracks = spec.skeleton.num_people, spec.skeleton.in_order(tracks)
        return fit_people(tracks[picks], count) * (picks >= 0)[:, None, None, None]

    def _geometry(self, clip: Clip) -> Geometry:
        """Return the crop that the network saw."""
        spec = self.clips.spec
        if spec.skeleton is not None and spec.skeleton.frame_share is not None:
            tracks = tracks_of_clip(clip, self.clips.layout)
            return people_geometry(clip.size, tracks, spec.input_size, None, may_flip=False)
        return eval_geometries(*clip.size, spec.input_size, 1, spec.field_of_view)[0]

    def _seen_rows(self, clip: Clip, picks: np.ndarray) -> np.ndarray:
        """Return (L,) the frames of a clip that a model of whole clips saw; -1 for none."""
        spec, layout = self.clips.spec, self.clips.layout
        assert spec.skeleton is not None
        has_windows = spec.has_frames and spec.interval is not None
        windows = np.repeat(picks[None, [0, -1]], self.clips.views.num_clips, axis=0)
        return seen_rows(
            spec.skeleton,
            tracks_of_clip(clip, layout),
            layout,
            self.clips.views.num_clips,
            windows if has_windows else None,
        )

    # ------------------------------------------------------------ maps

    def _maps(
        self,
        tiles: Sequence[np.ndarray],
        batch: Batch,
        shown: np.ndarray,
        label: int,
        class_name: str,
    ) -> list[Strip]:
        if self.model is None:
            return []
        batch = batch.to(self.device)
        stage = choose_stage(self.clips.spec.input_size)
        names = early_and_late(self.model)
        with recorded_gates(self.model, names) as gates:
            cam = grad_cam(self.model, batch, torch.tensor([label]), stage)[0]
        strips = [gate_strip(tiles, gates[name], shown) for name in names]
        return [*strips, _cam_strip(tiles, cam, shown, f"{class_name} ({stage})")]

    def _draw_skeletons(
        self,
        clip: Clip,
        batch: Batch,
        picks: np.ndarray,
        shown: np.ndarray,
        label: int,
        class_name: str,
    ) -> list[Strip]:
        """Draw what a model without frames saw: skeletons, over the frames where there are any."""
        spec, layout, rows = self.clips.spec.skeleton, self.clips.layout, picks[shown]
        size = tile_size(*clip.size)
        pictures = self._pictures(clip, rows[rows >= 0], size)
        # The model needs no frames, so they need not be there.
        tiles = [np.full((size[1], size[0], 3), 24, np.uint8) for _ in rows]
        for place, picture in zip(np.flatnonzero(rows >= 0), pictures or (), strict=False):
            tiles[place] = picture
        people = self._people(clip, rows)
        people = place_in_tiles(people, clip.size, size, is_picture=pictures is not None)
        drawn = with_skeletons(tiles, people, layout)
        numbers = frame_names(self._frames_of(clip), rows[rows >= 0])
        strips = [encode_strip(f"Input: skeletons of frames {numbers}", drawn)]
        if spec is not None and batch.skeletons is not None and batch.volume_size is not None:
            strips.append(self._volume_strip(batch, shown))
        if self.model is None:
            return strips
        streams = ("joint",) if spec is None or spec.is_volume else spec.streams
        asked = batch.to(self.device), torch.tensor([label])
        falls = joint_importance(self.model, *asked, layout, streams)[0]
        importance = _scaled(falls).numpy()
        disks = [
            draw_importance(tile, some, importance, layout)
            for tile, some in zip(tiles, people, strict=True)
        ]
        best = self.clips.layout.joints[int(falls.argmax())].replace("_", " ")
        text = f"most {best}, without which the log-odds change by {-float(falls.max()):+.2f}"
        return [*strips, encode_strip(f"Joints that speak for {class_name}: {text}", disks)]

    def _volume_strip(self, batch: Batch, shown: np.ndarray) -> Strip:
        spec, size = self.clips.spec.skeleton, batch.volume_size
        assert spec is not None
        assert size is not None
        assert batch.skeletons is not None
        heat = volume_heat(spec, batch.skeletons[:1, shown], size, self.clips.layout)
        dark = np.zeros((TILE_HEIGHT, TILE_HEIGHT, 3), np.uint8)
        what = "limbs" if "limb" in spec.streams else "joints"
        text = f"Input: the heatmap volume of {what}, {size[1]}x{size[0]} pixels, all channels"
        return encode_strip(text, [add_glow(dark, one) for one in heat])

    def _pictures(
        self, clip: Clip, picks: np.ndarray, size: tuple[int, int]
    ) -> list[np.ndarray] | None:
        images = self._frames_of(clip)
        try:
            if images is not None and len(picks):
                return as_tiles(images.load(picks, images.size()), size)
        except InputError:
            pass
        return None

    def _frames_of(self, clip: Clip) -> FrameSource | None:
        """Return the frames of a clip; None where a model without frames has none."""
        if clip.images is not None:
            return clip.images
        try:
            return find_frames(self.root, clip.record, load_table(self.root))
        except InputError:
            return None


def frame_names(frames: FrameSource | None, picks: np.ndarray) -> str:
    """Return what to call frames (T,), 0-based: the numbers of their files, as the files have them.

    Frames of a video, and those that are not there, are counted from 0.
    """
    if isinstance(frames, CachedFrames):
        frames = frames.source
    if isinstance(frames, ImageFrames):
        return ", ".join(_number_of(frames.files.path(index)) for index in picks.tolist())
    return ", ".join(map(str, picks.tolist()))


def _number_of(path: Path) -> str:
    digits = re.search(r"[0-9]+$", path.stem)
    return digits[0] if digits else path.stem


def gate_strip(tiles: Sequence[np.ndarray], maps: GateMaps, shown: np.ndarray) -> Strip:
    """Draw the gates of the first clip of a batch over its tiles, one for each `shown` segment."""
    gates = maps.gates[0]  # (T, 2, H, W)
    scaled = _scaled(gates).numpy()[shown]
    rows = [
        [overlay(tile, gate[group]) for tile, gate in zip(tiles, scaled, strict=True)]
        for group in (1, 0)
    ]
    return encode_strip(
        f"GSF gates of {maps.block}: features that move one segment on (upper row) and back "
        f"(lower row); strongest gate {float(gates.abs().max()):.2f}",
        *rows,
    )


def _cam_strip(tiles: Sequence[np.ndarray], cam: Tensor, shown: np.ndarray, name: str) -> Strip:
    scaled = _scaled(cam).numpy()[shown]
    drawn = [overlay(tile, one) for tile, one in zip(tiles, scaled, strict=True)]
    nothing = "" if cam.any() else "; nothing speaks for it"
    return encode_strip(f"Grad-CAM for {name}{nothing}", drawn)


def _scaled(values: Tensor) -> Tensor:
    """Divide by the largest size of any value; what is 0 everywhere stays so."""
    return values / values.abs().max().clamp(min=1e-12)


def detection_rates(clips: ClipDataset, root: Path) -> np.ndarray:
    """Return the share of the frames of each clip in which somebody was found.

    Models that see no keypoints are measured by the same files, where there are any.

    Returns:
        (N,) in 0-1; NaN where the keypoints of a clip are not there or cannot be read.
    """
    table = load_table(root)
    rates = np.full(len(clips), np.nan)
    for number, clip in enumerate(clips.clips):
        keypoints = clip.keypoints
        if keypoints is None:
            row = table.get(clip.record.name)
            try:
                source = clip.poses or find_poses(root, clip.record, clip.images, clips.layout, row)
                keypoints = None if source is None else source.load().keypoints_at(clip.size)
            except InputError:
                continue
        if keypoints is not None:
            rates[number] = (keypoints[..., -1] > 0).any(axis=(1, 2)).mean()
    return rates
