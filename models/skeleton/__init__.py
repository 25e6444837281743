"""The skeleton zoo: published models of skeletons, one paper a file."""

from collections.abc import Callable

from models.classifier import Encoder
from models.skeleton.agcn import AAGCN, AGCN
from models.skeleton.ctrgcn import CTRGCN
from models.skeleton.stgcn import STGCN
from models.skeleton.stgcnpp import STGCNPlusPlus

# Each takes (layout, in_channels=3, num_people=2, pooling="mean").
SKELETON_ENCODERS: dict[str, Callable[..., Encoder]] = {
    "stgcn": STGCN,
    "agcn": AGCN,
    "aagcn": AAGCN,
    "stgcnpp": STGCNPlusPlus,
    "ctrgcn": CTRGCN,
}
