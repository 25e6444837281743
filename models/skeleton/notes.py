"""What a file of PYSKL or MMAction2 says beside its weights, and the options that this means.

Both keep the text of the configuration; MMAction2 names the classes. Where a file says nothing, the
name that it was published under says what the network sees.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from models.skeleton.published import STREAM_CHANNELS, SkeletonNetwork
from ops.skeleton import ALIASES, LAYOUTS

PYSKL, MMACTION2 = "PYSKL", "MMAction2"
_STREAMS = {"j": "joint", "b": "bone", "jm": "joint_motion", "bm": "bone_motion"}
_MOST_CONFIG = 200_000  # characters; real ones have some thousand
_MOST_NAME = 200  # characters of the name of a class
# That published data hold; a note may say anything.
_MOST_PEOPLE = 10


def toolbox_of(state: Mapping[str, Any], meta: object, network: SkeletonNetwork | None) -> str:
    """Say which toolbox wrote a file: "PYSKL", "MMAction2", or "" where nothing tells.

    Args:
        state: the tensors by their names in the file.
        meta: what the file says beside them.
        network: what `recognise` found.
    """
    notes = meta if isinstance(meta, Mapping) else {}
    for note, toolbox in (
        ("pyskl_version", PYSKL), ("mmaction_version", MMACTION2), ("mmengine_version", MMACTION2),
    ):  # fmt: skip
        if note in notes:
            return toolbox
    if "cls_head.fc.weight" in state:
        return MMACTION2
    is_graph = network is not None and network.is_graph
    return PYSKL if is_graph and "cls_head.fc_cls.weight" in state else ""


def told_options(
    state: Mapping[str, Tensor], network: SkeletonNetwork | None, meta: object, path: Path
) -> dict[str, Any]:
    """Return the options of ours that rebuild a network of PYSKL or MMAction2.

    Args:
        state: its tensors by their names in the file.
        network: what `recognise` found.
        meta: what the file says beside its tensors.
        path: of the file; published names say what the input was.

    Returns:
        By name, only what is certain; {} for what is no network of the zoo.
    """
    if network is None:
        return {}
    config = _config_of(meta)
    streams = _rgbpose_streams(network, config, path.name)
    if streams:
        return {"fusion": "rgbpose", "rgbpose_streams": streams, **_layout_option(network, config)}
    options = {"fusion": "pose", "pose_model": network.name, **_layout_option(network, config)}
    options |= _frames_option(config)
    seen = _streams_told(config, path.name)
    if seen and (not network.is_graph or network.channels == STREAM_CHANNELS * len(seen)):
        options["pose_streams"] = seen
    if network.is_graph:
        # Both toolboxes show two people to graph networks unless they are told otherwise.
        people = re.search(r"num_person\s*=\s*(\d{1,2})\b", config)
        told = int(people[1]) if people else 2
        options["num_people"] = network.people or (told if 1 <= told <= _MOST_PEOPLE else 2)
        return options | _normalisation(toolbox_of(state, meta, network), network)
    options |= _side_option(config, path.name)
    return options | {"pose_normalize": "none", "posec3d_stages": list(network.stages)}


def told_classes(meta: object, count: int | None) -> list[str] | None:
    """Return the names of `count` classes if a file of a toolbox has them beside its tensors.

    Names that a terminal cannot show are none.
    """
    notes = meta if isinstance(meta, Mapping) else {}
    dataset = notes.get("dataset_meta")
    inner = dataset.get("classes") if isinstance(dataset, Mapping) else None
    names = inner or notes.get("CLASSES")
    if not isinstance(names, list | tuple) or len(names) != count:
        return None
    are_names = all(map(_is_class_name, names))
    return list(names) if are_names and len(set(names)) == len(names) else None


def _is_class_name(name: object) -> bool:
    """Say whether this is text that a terminal and a table can show."""
    return type(name) is str and 0 < len(name) <= _MOST_NAME and name.isprintable()


def _rgbpose_streams(network: SkeletonNetwork, config: str, file_name: str) -> str:
    """Return which streams of RGBPose-Conv3D a network is, "" if it is none of them."""
    if network.streams:
        return network.streams
    # Of the same shapes as PoseC3D, but its third stage keeps all frames.
    keeps_frames = re.search(r"temporal_strides\s*=\s*\(\s*1,\s*1,\s*1,?\s*\)", config)
    # As MMAction2 calls its file, and as ours keep PYSKL's.
    is_named = not config and re.search(r"^pose_only(_|\b)|rgbpose.*-pose\.pth$", file_name)
    return "pose" if network.name == "posec3d" and (keeps_frames or is_named) else ""


def _layout_option(network: SkeletonNetwork, config: str) -> dict[str, Any]:
    told = re.search(r"layout\s*=\s*'([\w+-]{1,30})'", config)
    layout = LAYOUTS.get(ALIASES.get(told[1], told[1])) if told else None
    if layout is not None and len(layout) == network.joints:
        return {"skeleton_layout": layout.name}
    # Channels of volumes may be limbs: of those that are published, COCO has 17 of both.
    name = network.layout if network.is_graph or network.joints == 17 else None
    return {} if name is None else {"skeleton_layout": name}


def _frames_option(config: str) -> dict[str, Any]:
    lengths = set(re.findall(r"clip_len\s*=\s*(\d{1,4})\b", config))
    if len(lengths) == 1 and int(min(lengths)) > 0:
        return {"pose_frames": int(min(lengths))}
    padded = re.search(r"type\s*=\s*'PadTo',\s*length\s*=\s*(\d{1,4})\b", config)
    if padded is None or lengths or int(padded[1]) == 0:
        return {}
    return {"pose_frames": int(padded[1]), "pose_sampling": "pad_zero"}


def _side_option(config: str, file_name: str) -> dict[str, Any]:
    """Return the side of volumes in training, of which 56 is the default.

    Tests see 64 of it, and 56 of the 48 that weights for UCF101 and HMDB51 were trained with.
    """
    # The size that a random crop is brought to, however the text is laid out.
    resize = r"RandomResizedCrop.{0,120}?scale\s*=\s*\(\s*(\d{2,3}),\s*\1\b"
    told = re.search(resize, config, re.DOTALL)
    if told:
        return {"pose_size": int(told[1])}
    is_small = not config and re.search(r"ucf101|hmdb51", file_name)
    return {"pose_size": 48} if is_small else {}


def _normalisation(toolbox: str, network: SkeletonNetwork) -> dict[str, Any]:
    """Return how coordinates enter; PYSKL and MMAction2 differ in joints that were not detected.

    They stay at 0 in one, and are moved with the others in the other.
    """
    if network.layout == "ntu25":
        return {"pose_normalize": "spine"}
    values = {PYSKL: "image", MMACTION2: "image_keep"}
    return {"pose_normalize": values[toolbox]} if toolbox else {}


def _config_of(meta: object) -> str:
    notes = meta if isinstance(meta, Mapping) else {}
    texts = (notes.get(key) for key in ("config", "cfg"))
    return next((t for t in texts if isinstance(t, str) and len(t) <= _MOST_CONFIG), "")


def _streams_told(config: str, file_name: str) -> list[str]:
    """Return the streams that a configuration, or else the name of a file, tells; [] for none."""
    told = re.search(r"feats\s*=\s*\[([\w', \n]{3,60})\]", config)
    if told:
        names = re.findall(r"'(\w+)'", told[1])
        return [_STREAMS[name] for name in names] if set(names) <= _STREAMS.keys() else []
    for mark, stream in (("with_limb", "limb"), ("with_kp", "joint")):
        if re.search(rf"{mark}\s*=\s*True", config):
            return [stream]
    short = re.search(r"(?:^|[-_])(jm|bm|j|b)\.pth$", file_name)
    if short:
        return [_STREAMS[short[1]]]
    words = file_name.replace("_", "-")
    found = re.search(r"(?:^|-)(joint-motion|bone-motion|joint|bone|limb)(?=[-.])", words)
    return [found[1].replace("-", "_")] if found else []
