"""What has to be known of a trained model to use it: its network, its input, its classes."""

import argparse
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from datasets.loading import input_spec
from datasets.views import InputSpec
from deployment.checks import check_classes, check_data, check_options
from deployment.transforms_of import describe_input
from errors import InputError
from models.weights import FORMAT, checkpoint_options, read_checkpoint
from ops.skeleton import COCO17
from opts import INPUT_OPTIONS, MODEL_OPTIONS, needs_frames

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
        if missing or not options.get("class_names"):
            raise InputError(
                f"{path} does not say {missing[0] if missing else 'its classes'}, only checkpoints "
                f"of this project do (format {FORMAT}): make a model folder of it with "
                "tools/export.py and the options of its network"
            )
        data = read_checkpoint(path).get("data")
        return cls.checked(options, options["class_names"], data, path)

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
        return describe_input(self.input, self.input_names)

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
        """Return which fields of a `Batch` the network reads: frames, keypoints or both."""
        has_frames = needs_frames(self.args)
        # Early fusion reads keypoints as a channel of the frames.
        has_keypoints = self.options["fusion"] not in ("none", "early")
        return ("frames",) * has_frames + ("keypoints",) * has_keypoints

    def input_shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of an input of `input_names`, without the batch."""
        spec = self.input
        if name == "keypoints":
            return spec.num_segments, spec.num_people, len(COCO17.joints), 3
        return spec.num_segments, self.options["num_channels"], spec.input_size, spec.input_size
