"""Which joints a skeleton model leans on: what it says when one is taken away."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from models import Network
from ops.batch import Batch
from ops.skeleton import COCO17, SkeletonLayout
from results.metrics import class_evidence


@torch.no_grad()
def joint_importance(
    model: Network,
    batch: Batch,
    label: Tensor,
    layout: SkeletonLayout = COCO17,
    streams: Sequence[str] = ("joint",),
) -> Tensor:
    """Return how much each joint speaks for a class.

    A joint is made undetected in all frames of a clip; its importance is by how much the log-odds
    of the class fall then. Below 0 the joint speaks against the class. Joints that stand in for
    each other show as unimportant, both.

    Source: occlusion, Zeiler and Fergus 2014, arXiv:1311.2901, with joints in place of patches.

    Args:
        model: in evaluation mode, on the device of `batch`.
        batch: B clips with keypoints (B, T, M, V, 3), or skeletons of whole clips, of which the
            bones that touch a joint are taken away with it.
        label: (B,) the class to explain.
        layout: of these skeletons.
        streams: of these skeletons, three channels each.

    Returns:
        (B, V) float32 on the CPU.

    Raises:
        ValueError: the batch has no keypoints.
    """
    name = "keypoints" if batch.skeletons is None else "skeletons"
    seen = batch.keypoints if batch.skeletons is None else batch.skeletons
    if seen is None:
        raise ValueError("joints can be taken away only where there are keypoints")
    whole = _evidence(model, batch, label)
    falls = []
    for joint in range(seen.shape[3]):
        without = seen.clone()
        if name == "keypoints":
            without[:, :, :, joint] = 0
        else:
            _take_away(without, joint, layout, streams)
        changed: dict[str, Tensor] = {name: without}
        falls.append(whole - _evidence(model, replace(batch, **changed), label))  # type: ignore[arg-type]
    return torch.stack(falls, dim=1)


def _take_away(
    skeletons: Tensor, joint: int, layout: SkeletonLayout, streams: Sequence[str]
) -> None:
    """Set a joint of (B, L, M, V, 3 S) skeletons to 0 in place: undetected, in every stream."""
    bones = [child for child, parent in enumerate(layout.parents) if parent == joint]
    for number, stream in enumerate(streams):
        gone = [joint, *bones] if stream.startswith("bone") else [joint]
        skeletons[:, :, :, gone, 3 * number : 3 * number + 3] = 0


def _evidence(model: Network, batch: Batch, label: Tensor) -> Tensor:
    """Return (B,) log-odds of the classes."""
    odds = torch.from_numpy(class_evidence(model(batch).double().cpu().numpy(), "logits"))
    return odds.gather(1, label.cpu()[:, None])[:, 0].float()
