"""What has to be known of a trained model to use it: its network, its input, its classes."""

import argparse
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import numpy as np

from datasets.loading import input_spec
from datasets.pose_views import people_geometry, skeleton_views
from datasets.views import InputSpec
from deployment.checks import check_classes, check_data, check_options
from deployment.transforms_of import describe_input
from errors import InputError
from models.weights import FORMAT, checkpoint_options, read_checkpoint
from ops.skeleton import COCO17, SkeletonLayout
from options.skeletons import EARLIER_DEFAULTS, layout_of, needs_frames
from opts import INPUT_OPTIONS, MODEL_OPTIONS

# The options that decide the network and what it sees.
KEPT_OPTIONS = (*MODEL_OPTIONS, *INPUT_OPTIONS, "pose_normalize")
CONFIG_VERSION = 1


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """A trained model without its weights.

    Attributes:
        options: the values of `KEPT_OPTIONS`.
        classes: names in order of the label.
        data: what `datasets.facts.data_facts` said of its training data; {} when not known.
    """

    options: Mapping[str, Any]
    classes: tuple[str, ...]
    data: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def checked(cls, options: object, classes: object, data: object, where: object) -> Self:
        """Make a configuration of values that a file holds.

        Args:
            options: by name; others than `KEPT_OPTIONS` are left out.
            classes: names in order of the label.
            data: see the attribute.
            where: the file, for messages.

        Raises:
            InputError: a value is absent or not one that a model of ours can have.
        """
        # Earlier releases had no models of whole clips, and said nothing of them.
        if isinstance(options, Mapping) and not EARLIER_DEFAULTS.keys() & options.keys():
            options = {**EARLIER_DEFAULTS, **options}
        return cls(
            check_options(options, KEPT_OPTIONS, where),
            check_classes(classes, where),
            check_data(data, where),
        )

    @classmethod
    def of_checkpoint(cls, path: Path) -> Self:
        """Read the configuration of one of our checkpoints.

        Raises:
            InputError: the file does not say what it holds, as published ones do not.
        """
        options = checkpoint_options(path)
        missing = [name for name in KEPT_OPTIONS if name not in options]
        classes = options.get("class_names")
        if missing or not classes:
            network = "" if "fusion" in options else " and the options of its network"
            raise InputError(
                f"{path} does not say {missing[0] if missing else 'its classes'}, only checkpoints "
                f"of this project do (format {FORMAT}): make a model folder of it with "
                f"tools/export.py{network}{'' if classes else ' and --class_names'}"
            )
        data = read_checkpoint(path).get("data")
        return cls.checked(options, classes, data, path)

    @classmethod
    def of_json(cls, text: str | bytes, where: object) -> Self:
        """Read the text of a `config.json`, or of an ONNX file's metadata.

        Raises:
            InputError: it is no such text, or describes no model that this release can have.
        """
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, dict) or value.get("format") != FORMAT:
            raise InputError(
                f"{where} does not describe a model of this project (format {FORMAT}): export it "
                "with tools/export.py"
            )
        if value.get("format_version") != CONFIG_VERSION:
            raise InputError(
                f"{where} is of version {ascii(value.get('format_version'))[:20]}, this release "
                f"reads {CONFIG_VERSION}: use the release that wrote it"
            )
        network, sees = value.get("network"), value.get("input")
        if not isinstance(network, dict) or not isinstance(sees, dict):
            raise InputError(f"{where} lacks its network or its input: export the model again")
        config = cls.checked(network | sees, value.get("classes"), value.get("data"), where)
        if value.get("transforms") != config.transforms:
            raise InputError(
                f"{where} asks for other transforms than those of this release: use the release "
                "that wrote it, or export the model again"
            )
        return config

    def to_json(self) -> dict[str, Any]:
        """Return plain values that `of_json` reads."""
        return {
            "format": FORMAT,
            "format_version": CONFIG_VERSION,
            "classes": list(self.classes),
            "network": {name: self.options[name] for name in MODEL_OPTIONS},
            "input": {name: self.options[name] for name in (*INPUT_OPTIONS, "pose_normalize")},
            "transforms": self.transforms,
            "data": dict(self.data),
        }

    @property
    def transforms(self) -> dict[str, Any]:
        """Return what happens to a clip before the network, in numbers."""
        return describe_input(self.input, self.input_names, self.layout, self.volume_size)

    @property
    def args(self) -> argparse.Namespace:
        """Return the options as `models.build_model` takes them."""
        return argparse.Namespace(**self.options, pretrained="none")

    @property
    def input(self) -> InputSpec:
        """Return what the network sees of a clip."""
        return input_spec(self.args)

    @property
    def input_names(self) -> tuple[str, ...]:
        """Return which fields of a `Batch` the network reads.

        "frames", and "keypoints" of these or "skeletons" of a whole clip; "present" where it
        matters to the network who was detected when.
        """
        options, streams = self.options, self.options["rgbpose_streams"]
        if options["fusion"] == "rgbpose":
            return ("frames",) * (streams != "pose") + ("skeletons",) * (streams != "rgb")
        frames = ("frames",) * needs_frames(self.args)
        if self.input.skeleton is not None:
            asks_who = bool(frames) or options["pose_pooling"] == "masked"
            return (*frames, "skeletons", *("present",) * asks_who)
        # Early fusion reads keypoints as a channel of the frames.
        return (*frames, *("keypoints",) * (options["fusion"] not in ("none", "early")))

    @property
    def layout(self) -> SkeletonLayout:
        """Return the joints of the keypoints."""
        return layout_of(self.options["skeleton_layout"]) or COCO17

    @property
    def volume_size(self) -> tuple[int, int] | None:
        """Return (height, width) of the heatmap volumes that the network draws; None for none."""
        spec = self.input
        if spec.skeleton is None or not spec.skeleton.is_volume:
            return None
        nobody, size = np.zeros((1, 1, len(self.layout), 3), np.float32), (64, 64)
        crop = people_geometry(size, nobody, spec.input_size, None, False)
        alone = replace(spec.skeleton, length=1)
        return skeleton_views(alone, nobody, size, self.layout, crops=[crop]).volume_size

    @property
    def frame_side(self) -> int:
        """Return the side of the frames as the network sees them outside of training, pixels."""
        spec = self.input
        if spec.skeleton is None or spec.skeleton.frame_share is None:
            return spec.input_size
        nobody = np.zeros((1, 1, len(self.layout), 3), np.float32)
        return people_geometry((64, 64), nobody, spec.input_size, None, False).out_size

    def input_shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of an input of `input_names`, without the batch."""
        spec, seen = self.input, self.input.skeleton
        if name == "keypoints":
            return spec.num_segments, spec.num_people, len(COCO17.joints), 3
        if name == "frames" or seen is None:
            return spec.num_segments, self.options["num_channels"], *[self.frame_side] * 2
        if name == "present":
            return seen.length, seen.num_people
        channels = 3 if seen.is_volume else 3 * len(seen.streams)
        return seen.length, seen.num_people, len(self.layout), channels
