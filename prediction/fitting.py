"""Whether a network, an estimator and given keypoints go together."""

from pathlib import Path

from deployment.networks import Network
from errors import InputError
from models.estimators import Estimator
from ops.conversion import joint_sources
from ops.skeleton import COCO17


def check_network(
    network: Network, estimator: Estimator | None, people: int | None, test_crops: int = 1
) -> None:
    """Make sure that a network can be asked what it is asked.

    Args:
        network: to ask.
        estimator: finds the people; None: they are given.
        people: time lines, one for each person; None: everybody.
        test_crops: of each frame.

    Raises:
        InputError: it cannot tell people apart, sees joints that no video shows, or no other crop
            than one.
    """
    name = network.source
    seen = network.config.input.skeleton
    has_crops = network.config.input.has_frames and (seen is None or seen.frame_share is None)
    if test_crops > 1 and seen is not None and not has_crops:
        raise InputError(
            f"--test_crops {test_crops}: {name} sees people wherever they are in the frame: leave "
            "it out"
        )
    if network.config.input.has_poses:
        _check_layout(network, estimator)
        return
    if people != 1:
        raise InputError(
            f"--people: {name} sees RGB alone and cannot tell people apart: leave it out, or "
            "take a model that sees poses"
        )
    if estimator is not None:
        raise InputError(f"--pose_weights: {name} sees RGB alone: leave out pose estimation")


def check_given(network: Network, poses: Path | None, estimator: Estimator | None) -> None:
    """Make sure that a network that sees poses gets them, and no other.

    Args:
        network: to ask.
        poses: a file or folder of keypoints.
        estimator: finds them otherwise.

    Raises:
        InputError: it does not.
    """
    name, has_poses = network.source, network.config.input.has_poses
    if poses is not None and not has_poses:
        raise InputError(f"--poses {poses}: {name} sees RGB alone: leave it out")
    if poses is None and estimator is None and has_poses:
        raise InputError(
            f"{name} sees poses: give them with --poses FILE.npz or FOLDER, or find them on "
            "the fly with --pose_backend and --pose_weights"
        )


def _check_layout(network: Network, estimator: Estimator | None) -> None:
    """Refuse joints that no video, or not the estimator, can give."""
    name, layout = network.source, network.config.layout
    if layout.dims != 2:
        raise InputError(
            f"{name} sees joints in {layout.dims} dimensions ({layout.name}), a video shows 2: "
            "test it with test_models.py --annotations"
        )
    found = sum(map(bool, joint_sources(COCO17, layout)))
    if estimator is not None and 2 * found < len(layout):
        raise InputError(
            f"--pose_weights finds the joints of {COCO17.name}, {found} of the {len(layout)} of "
            f"{layout.name} that {name} sees: give keypoints of this layout with --poses"
        )
