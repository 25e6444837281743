"""What has to be known of a trained model to use it: its network, its input, its classes."""

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from datasets.loading import input_spec
from datasets.views import InputSpec
from errors import InputError
from models.weights import FORMAT, checkpoint_options, read_checkpoint
from opts import INPUT_OPTIONS, MODEL_OPTIONS

# The options that decide the network and what it sees.
KEPT_OPTIONS = (*MODEL_OPTIONS, *INPUT_OPTIONS, "pose_normalize")


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
        content = read_checkpoint(path)
        return cls(
            {name: options[name] for name in KEPT_OPTIONS},
            tuple(options["class_names"]),
            content.get("data") or {},
        )

    @property
    def args(self) -> argparse.Namespace:
        """Return the options as `models.build_model` takes them."""
        return argparse.Namespace(**self.options, pretrained="none")

    @property
    def input(self) -> InputSpec:
        """Return what the network sees of a clip."""
        return input_spec(self.args)
