"""Published weights of skeleton networks: their names here, where they lie, what they are.

MMAction2 ends the name of a file with the first eight digits of its SHA-256, PYSKL publishes none.
Accuracies are those that both state for ten clips of each video.
"""

import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from models.skeleton.notes import MMACTION2, PYSKL
from models.skeleton.published import TITLES

_MMACTION2 = "https://download.openmmlab.com/mmaction/v1.0/skeleton"
_MMACTION2_PROJECTS = "https://download.openmmlab.com/mmaction/v1.0/projects"
_PYSKL = "https://download.openmmlab.com/mmaction/pyskl/ckpt"


@dataclass(frozen=True, slots=True)
class PublishedWeights:
    """A file of published weights.

    Attributes:
        name: as users give it.
        url: of the file.
        file_name: under which it is kept.
        toolbox: who published it.
        model: a key of `models.skeleton.published.TITLES`.
        stream: what it sees: a value of `--pose_streams`, or "" of RGBPose-Conv3D.
        data: that it was trained on.
        accuracy: top-1 as published, per cent; None where none is.
        sha256: the first digits of the file's; "" where none are published.
    """

    name: str
    url: str
    file_name: str
    toolbox: str
    model: str
    stream: str
    data: str
    accuracy: float | None
    sha256: str = ""

    @property
    def title(self) -> str:
        """Return the name of the network in texts."""
        return TITLES[self.model]


# ---------------------------------------------------------------- the tables

_STREAMS = {"j": "joint", "b": "bone", "jm": "joint-motion", "bm": "bone-motion"}
# MMAction2's graph networks: network, date, data; then of joint, bone, joint motion and bone motion
# the digits of the sum and the accuracy.
_MMACTION2_GRAPHS = """
stgcn 20221129 ntu60-xsub 2d 484a394a 88.95 c4b44488 91.69 f18eb408 86.90 99c60e2d 87.86
stgcn 20221129 ntu60-xsub 3d 850308e1 88.11 9c8d2970 88.76 927648ea 86.06 593162ca 85.49
stgcn 20221129 ntu120-xsub 2d 612416c6 83.19 131e63c3 83.36 7cb38ec2 78.87 f5b19892 79.55
stgcn 20221129 ntu120-xsub 3d 0484f579 82.15 bc007510 84.28 5d54f525 78.93 3cb0e4e1 80.02
2s-agcn 20221222 ntu60-xsub 2d 4c0ed77e 88.60 293878b5 91.59 0c86e3a1 88.02 87996f0d 88.82
2s-agcn 20221222 ntu60-xsub 3d 24dabf78 88.26 abe70a7f 89.22 923cd3c3 86.73 3d8f6f43 86.41
stgcnpp 20221228 ntu60-xsub 2d 86e1e77a 89.29 cd11a691 92.30 19a34aba 87.30 c02a0749 88.76
stgcnpp 20221230 ntu60-xsub 3d 4e455ce3 89.14 7f356072 90.21 650de5cc 86.67 b00440d2 87.45
"""
# MMAction2's PoseC3D: data, stream, configuration, date, sum, accuracy (FineGYM: mean of classes).
_MMACTION2_VOLUMES = """
gym joint slowonly_r50_8xb16-u48-240e_gym-keypoint 20220815 da338c58 93.5
gym limb slowonly_r50_8xb16-u48-240e_gym-limb 20220815 2e6e3c5c 93.6
ntu60-xsub joint slowonly_r50_8xb16-u48-240e_ntu60-xsub-keypoint 20220815 38db104b 93.6
ntu60-xsub limb slowonly_r50_8xb16-u48-240e_ntu60-xsub-limb 20220815 af2f119a 93.5
ucf101-split1 joint slowonly_kinetics400-pretrained-r50_8xb16-u48-120e_ucf101-split1-keypoint 20220815 9972260d 86.8
hmdb51-split1 joint slowonly_kinetics400-pretrained-r50_8xb16-u48-120e_hmdb51-split1-keypoint 20220815 17eaa484 69.6
k400 joint slowonly_r50_8xb32-u48-240e_k400-keypoint 20230731 7f498b55 47.4
"""  # noqa: E501
# What both toolboxes fine-tune for UCF101 and HMDB51: name, network, stream, file, accuracy.
_MMACTION2_START = "k400-start posec3d joint k400_posec3d-041f49c6 -"
# MMAction2's RGBPose-Conv3D on NTU60 X-Sub: name, network, stream, file, accuracy of ten clips.
_MMACTION2_RGBPOSE = """
rgb rgbpose - rgb_only_20230228-576b9f86 95.4
pose posec3d joint pose_only_20230228-fa40054e 93.5
init rgbpose - rgbpose_conv3d_init_20230228-09b7684b -
both rgbpose - rgbpose_conv3d_20230301-ac7b0e77 96.8
"""
# MMAction2's CTR-GCN on NTU60 X-Sub, joints alone: keypoints, digits of the sum, accuracy.
_MMACTION2_CTRGCN = """
2d 7aba454e 89.6
3d 950dca0a 89.0
"""
# PYSKL's graph networks: network, folder, data, keypoints, accuracies of the four streams.
_PYSKL_GRAPHS = """
stgcn stgcn/stgcn_vanilla ntu60-xsub 3d 81.5 81.0 79.9 81.2
stgcn stgcn/stgcn_vanilla ntu60-xsub 2d 85.7 85.8 81.6 83.9
stgcn stgcn/stgcn_vanilla ntu60-xview 3d 90.1 87.7 88.8 88.3
stgcn stgcn/stgcn_vanilla ntu60-xview 2d 92.4 90.0 92.0 86.5
stgcn stgcn/stgcn_pyskl ntu60-xsub 3d 87.8 88.6 85.8 86.2
stgcn stgcn/stgcn_pyskl ntu60-xsub 2d 89.0 91.2 86.7 87.8
stgcn stgcn/stgcn_pyskl ntu60-xview 3d 95.5 95.0 93.7 92.8
stgcn stgcn/stgcn_pyskl ntu60-xview 2d 98.0 96.5 95.6 95.4
stgcn stgcn/stgcn_pyskl ntu120-xsub 3d 82.1 83.7 80.3 80.6
stgcn stgcn/stgcn_pyskl ntu120-xsub 2d 80.1 83.4 78.6 79.8
stgcn stgcn/stgcn_pyskl ntu120-xset 3d 84.5 85.8 82.7 83.0
stgcn stgcn/stgcn_pyskl ntu120-xset 2d 84.2 87.7 82.5 83.5
aagcn aagcn/aagcn_pyskl ntu60-xsub 3d 89.0 89.1 86.9 86.6
aagcn aagcn/aagcn_pyskl ntu60-xsub 2d 89.7 92.2 88.7 88.8
aagcn aagcn/aagcn_pyskl ntu60-xview 3d 95.7 95.2 93.9 92.4
aagcn aagcn/aagcn_pyskl ntu60-xview 2d 97.1 96.8 95.5 95.9
aagcn aagcn/aagcn_pyskl ntu120-xsub 3d 82.8 84.7 80.0 80.2
aagcn aagcn/aagcn_pyskl ntu120-xsub 2d 80.2 84.2 80.9 81.1
aagcn aagcn/aagcn_pyskl ntu120-xset 3d 84.8 86.2 82.0 82.8
aagcn aagcn/aagcn_pyskl ntu120-xset 2d 86.3 88.2 85.1 85.1
ctrgcn ctrgcn/ctrgcn_pyskl ntu60-xsub 3d 89.6 90.0 88.0 87.5
ctrgcn ctrgcn/ctrgcn_pyskl ntu60-xsub 2d 90.6 92.7 89.4 90.3
ctrgcn ctrgcn/ctrgcn_pyskl ntu60-xview 3d 95.6 95.4 94.4 93.6
ctrgcn ctrgcn/ctrgcn_pyskl ntu60-xview 2d 96.9 97.6 94.8 95.6
ctrgcn ctrgcn/ctrgcn_pyskl ntu120-xsub 3d 84.0 85.9 81.1 82.2
ctrgcn ctrgcn/ctrgcn_pyskl ntu120-xsub 2d 82.2 84.6 82.3 82.1
ctrgcn ctrgcn/ctrgcn_pyskl ntu120-xset 3d 85.9 87.4 84.1 83.9
ctrgcn ctrgcn/ctrgcn_pyskl ntu120-xset 2d 84.5 88.6 85.6 85.6
stgcnpp stgcnpp/stgcnpp ntu60-xsub 3d 89.3 90.1 87.5 87.3
stgcnpp stgcnpp/stgcnpp ntu60-xsub 2d 89.3 92.3 84.0 88.8
stgcnpp stgcnpp/stgcnpp ntu60-xview 3d 95.6 95.5 94.3 93.8
stgcnpp stgcnpp/stgcnpp ntu60-xview 2d 97.4 97.2 93.4 95.4
stgcnpp stgcnpp/stgcnpp ntu120-xsub 3d 83.2 85.6 80.4 81.5
stgcnpp stgcnpp/stgcnpp ntu120-xsub 2d 84.4 84.8 76.4 81.1
stgcnpp stgcnpp/stgcnpp ntu120-xset 3d 85.6 87.5 84.3 83.0
stgcnpp stgcnpp/stgcnpp ntu120-xset 2d 88.1 88.5 82.6 84.1
"""
# PYSKL's PoseC3D: data, stream, file, accuracy (FineGYM: mean of classes).
_PYSKL_VOLUMES = """
ntu60-xsub joint slowonly_r50_ntu60_xsub/joint 93.7
ntu60-xsub limb slowonly_r50_ntu60_xsub/limb 93.4
ntu60-xview joint slowonly_r50_ntu60_xview/joint 96.5
ntu60-xview limb slowonly_r50_ntu60_xview/limb 96.0
ntu120-xsub joint slowonly_r50_ntu120_xsub/joint 85.9
ntu120-xsub limb slowonly_r50_ntu120_xsub/limb 85.9
ntu120-xset joint slowonly_r50_ntu120_xset/joint 89.7
ntu120-xset limb slowonly_r50_ntu120_xset/limb 89.7
gym joint slowonly_r50_gym/joint 93.8
gym limb slowonly_r50_gym/limb 93.8
ucf101-split1 joint slowonly_r50_ucf101_k400p/s1_joint 86.9
hmdb51-split1 joint slowonly_r50_hmdb51_k400p/s1_joint 69.4
"""
_PYSKL_RGBPOSE = """
rgb rgbpose - rgb_only 95.1
pose posec3d joint pose_only 93.2
init rgbpose - rgbpose_conv3d_init -
both rgbpose - rgbpose_conv3d 96.9
"""


def _rows(table: str) -> Iterator[list[str]]:
    return (line.split() for line in table.strip().splitlines())


def _entry(
    name: str, url: str, told: tuple[str, str, str], accuracy: str, toolbox: str, sha256: str = ""
) -> PublishedWeights:
    """Make an entry of what a row says; `told` is network, stream and data."""
    model, stream, data = told
    short = toolbox == PYSKL  # whose files are called j.pth in many folders
    return PublishedWeights(
        name=name,
        url=url,
        file_name=f"{name.replace('/', '-')}.pth" if short else url.rpartition("/")[2],
        toolbox=toolbox,
        model=model,
        stream="" if stream == "-" else stream.replace("-", "_"),
        data=data,
        accuracy=None if accuracy == "-" else float(accuracy),
        sha256=sha256,
    )


def _of_mmaction2() -> Iterator[PublishedWeights]:
    for family, date, data, dims, *rest in _rows(_MMACTION2_GRAPHS):
        model = family.removeprefix("2s-")
        for stream, digits, accuracy in zip(_STREAMS.values(), rest[::2], rest[1::2], strict=True):
            config = f"{family}_8xb16-{stream}-u100-80e_{data}-keypoint-{dims}"
            url = f"{_MMACTION2}/{family}/{config}/{config}_{date}-{digits}.pth"
            name, told = f"{model}/{data}-{dims}-{stream}", (model, stream, f"{data}-{dims}")
            yield _entry(name, url, told, accuracy, MMACTION2, digits)
    for dims, digits, accuracy in _rows(_MMACTION2_CTRGCN):
        config = f"ctrgcn_8xb16-joint-u100-80e_ntu60-xsub-keypoint-{dims}"
        url = f"{_MMACTION2_PROJECTS}/ctrgcn/{config}/{config}_20230308-{digits}.pth"
        name, told = f"ctrgcn/ntu60-xsub-{dims}-joint", ("ctrgcn", "joint", f"ntu60-xsub-{dims}")
        yield _entry(name, url, told, accuracy, MMACTION2, digits)
    for data, stream, config, date, digits, accuracy in _rows(_MMACTION2_VOLUMES):
        url = f"{_MMACTION2}/posec3d/{config}/{config}_{date}-{digits}.pth"
        told = ("posec3d", stream, data)
        yield _entry(f"posec3d/{data}-{stream}", url, told, accuracy, MMACTION2, digits)
    for part, model, stream, file, accuracy in _rows(_MMACTION2_START):
        url, told = f"{_MMACTION2}/posec3d/{file}.pth", (model, stream, "k400")
        name = f"posec3d/{part}"
        yield _entry(name, url, told, accuracy, MMACTION2, file.rpartition("-")[2])
    for part, model, stream, file, accuracy in _rows(_MMACTION2_RGBPOSE):
        url = f"{_MMACTION2}/posec3d/rgbpose_conv3d/{file}.pth"
        name, told = f"rgbpose/ntu60-xsub-{part}", (model, stream, "ntu60-xsub")
        yield _entry(name, url, told, accuracy, MMACTION2, file.rpartition("-")[2])


def _of_pyskl() -> Iterator[PublishedWeights]:
    for model, place, data, dims, *accuracies in _rows(_PYSKL_GRAPHS):
        keypoints = {"2d": "hrnet", "3d": "3dkp"}[dims]
        folder = f"{_PYSKL}/{place}_{data.replace('-', '_')}_{keypoints}"
        short_place = place.rpartition("/")[2].removesuffix("_pyskl").replace("_", "-")
        for (short, stream), accuracy in zip(_STREAMS.items(), accuracies, strict=True):
            name, told = f"{short_place}/{data}-{dims}-{stream}", (model, stream, f"{data}-{dims}")
            yield _entry(f"pyskl/{name}", f"{folder}/{short}.pth", told, accuracy, PYSKL)
    for data, stream, file, accuracy in _rows(_PYSKL_VOLUMES):
        url, told = f"{_PYSKL}/posec3d/{file}.pth", ("posec3d", stream, data)
        yield _entry(f"pyskl/posec3d/{data}-{stream}", url, told, accuracy, PYSKL)
    for part, model, stream, file, accuracy in _rows(_PYSKL_RGBPOSE):
        url, told = f"{_PYSKL}/rgbpose_conv3d/{file}.pth", (model, stream, "ntu60-xsub")
        yield _entry(f"pyskl/rgbpose/ntu60-xsub-{part}", url, told, accuracy, PYSKL)


CATALOGUE = {entry.name: entry for entry in (*_of_mmaction2(), *_of_pyskl())}


# ---------------------------------------------------------------- finding


def find_published(text: str) -> PublishedWeights | None:
    """Return the weights of a name, of the name of their file or of their URL; None for none."""
    if text in CATALOGUE:
        return CATALOGUE[text]
    secure = f"https://{text.removeprefix('http://')}"
    known = (e for e in CATALOGUE.values() if text in (e.file_name, e.url) or e.url == secure)
    return next(known, None)


def nearest_names(text: str, most: int = 3) -> list[str]:
    """Return the names that are most like a text, at least one."""
    text = text.lower()[:200]
    found = difflib.get_close_matches(text, CATALOGUE, most, cutoff=0.5)
    return found or difflib.get_close_matches(text, CATALOGUE, 1, cutoff=0.0)


def _seen_with_frames(name: str) -> str:
    return "frames" if name.endswith("-rgb") else "frames and joints"


def catalogue_table() -> list[dict[str, Any]]:
    """Return the catalogue as rows of text, for documents: a dict of columns each."""
    return [
        {
            "name": entry.name,
            "network": entry.title,
            "sees": entry.stream.replace("_", " ") or _seen_with_frames(entry.name),
            "data": entry.data,
            "top-1 (published)": "" if entry.accuracy is None else f"{entry.accuracy:g}",
            "from": entry.toolbox,
            "SHA-256": entry.sha256,
        }
        for entry in CATALOGUE.values()
    ]
