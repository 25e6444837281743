"""Every reader of foreign files, each with honest files to begin with.

A reader may return, or raise `InputError` with one line; what else it does is a fault. Two of them
document other errors. They are called as deep as programs call them: what was read is used.
"""

import io
import json
import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from benchmarks.fuzz_pictures import (
    FRAMES,
    SIZE,
    film_bytes,
    image_targets,
    jpeg_bytes,
    video_targets,
)
from campaigns import plan as plans
from datasets.check.findings import Tally
from datasets.check.keypoints import check_boxes
from datasets.check.lists import read_lists
from datasets.check.manifest import read_manifest
from datasets.clip_table import groups_of, load_table
from datasets.frames import ImageFrames, scan_folder
from datasets.importers import READERS
from datasets.pose_files import read_notes
from datasets.poses import PoseArchive, PoseFrames
from datasets.prepare.boxes import load_boxes as load_box_file
from datasets.prepare.boxes import parse_boxes
from datasets.prepare.label_tables import read_label_table
from datasets.prepare.pose_jobs import load_boxes
from datasets.prepare.video_plan import load_info
from datasets.prepare.video_table import read_table
from datasets.records import (
    ClipRecord,
    count_classes,
    format_list,
    header_classes,
    load_records,
    read_header,
)
from datasets.sources import find_frames
from deployment.model_card import read_result
from files import write_text
from prediction.posing import load_video_poses
from prediction.sources import find_sources
from results.run_results import read_run
from results.score_files import ClipScores, format_csv, read_scores, write_scores

JOINTS = 17
_CLIPS = ("train_0", "train_1", "späte Landung/2")


@dataclass(frozen=True, slots=True)
class Target:
    """A reader and where its file lies.

    Attributes:
        name: what is read.
        path: where a case is put.
        seeds: honest content.
        read: reads the file at `path` and uses what it says.
        kind: "table" (lists, tables, arrays, JSON ...), "image" or "video".
        cost: cases of an average reader that take as long as one of this.
        errors: that are documented beside `InputError`.
    """

    name: str
    path: Path
    seeds: Sequence[bytes]
    read: Callable[[Path], object]
    kind: str = "table"
    cost: int = 1
    errors: tuple[type[Exception], ...] = field(default=())


def make_targets(folder: Path) -> list[Target]:
    """Return all readers; their files lie in `folder`, which is filled."""
    makers = (_lists, _arrays, _keypoints, _results, _models, _sheets)
    targets = [target for make in makers for target in make(folder)]
    return [*targets, *image_targets(folder, Target), *video_targets(folder, Target)]


# ---------------------------------------------------------------- text


def _lists(folder: Path) -> list[Target]:
    root = _data_set(folder / "data")
    lines = "".join(f"{name} {FRAMES} {n % 2}\n" for n, name in enumerate(_CLIPS))
    header = '# classes: ["landed", "fall"]\n# left_out: 2\n# protocol: x\n'
    table = (
        "clip,video,first_frame,start_pts,num_frames,width,height,fps,group,sha256\n"
        f"train_0,,0,,{FRAMES},64,36,25.0,A,{'a' * 64}\n"
        f"train_1,film.mp4,0,,{FRAMES},64,36,25.0,B,{'b' * 64}\n"
        f"{_CLIPS[2]},film.mp4,2,1024,8,64,36,25.0,,\n"
    )
    requests = "video,label,split,group,start_seconds,end_seconds\nfilm.mp4,fall,train,A,0,0.4\n"
    manifest = "path,size,sha256,width,height\n" + "".join(
        f"frames/{name},12,{'c' * 64},64,36\n" for name in ("a.jpg", "b.jpg")
    )
    texts = [text.encode() for text in (lines, header + lines)]
    (folder / "films").mkdir(exist_ok=True)
    (folder / "films" / "film.mp4").write_bytes(b"film")
    return [
        Target("clip list", root / "test_videofolder.txt", texts, _read_list),
        Target("clips.csv", root / "clips.csv", [table.encode()], _read_table),
        Target(
            "video table",
            folder / "films" / "table.csv",
            [requests.encode(), requests.replace(",", ";").encode()],
            lambda path: read_table(path, None, {}, folder / "none"),
        ),
        Target(
            "manifest.csv",
            folder / "manifest.csv",
            [manifest.encode()],
            lambda path: list(read_manifest(path)),
        ),
        Target(
            "list of videos",
            folder / "films" / "list.txt",
            [b"film.mp4\n# no\nhttp://127.0.0.1/x.m3u8\n"],
            lambda path: [(s.name, s.stem) for s in find_sources([str(path)])],
        ),
    ]


def _data_set(root: Path) -> Path:
    for name in _CLIPS[::2]:
        (root / "frames" / name).mkdir(parents=True, exist_ok=True)
        for number in range(FRAMES):
            (root / "frames" / name / f"{number:05d}.jpg").write_bytes(jpeg_bytes(number))
    (root / "videos").mkdir(exist_ok=True)
    (root / "videos" / "film.mp4").write_bytes(film_bytes())
    return root


def _read_list(path: Path) -> None:
    lists = read_lists(path.parent)
    [str(finding) for finding in lists.findings]
    header = read_header(path)
    classes = header_classes(path, header)
    records = load_records(path)
    write_text(path.with_suffix(".copy"), format_list(records, {"classes": json.dumps(classes)}))
    count_classes(path, records)


def _read_table(path: Path) -> None:
    table = load_table(path.parent)
    groups_of(table, list(table))
    for name in _CLIPS:
        frames = table[name].num_frames if name in table else FRAMES
        if frames > 0:
            source = find_frames(path.parent, ClipRecord(name, frames, 0), table)
            source.load(np.array([0]), source.size())


# ---------------------------------------------------------------- arrays


def _npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=False)
    return file.getvalue()


def _npz(**arrays: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
    return file.getvalue()


def _poses() -> np.ndarray:
    rng = np.random.default_rng(0)
    places = rng.uniform(1, 35, (FRAMES, 2, JOINTS, 2))
    return np.concatenate((places, np.ones((FRAMES, 2, JOINTS, 1))), axis=-1).astype(np.float32)


def _arrays(folder: Path) -> list[Target]:
    poses, size = _poses(), {"width": np.array(SIZE[0]), "height": np.array(SIZE[1])}
    archive = _npz(keypoints=poses, source=np.array("x"), clip=np.array("frames a 0 12"), **size)
    boxes = _npy(np.tile(np.array([1, 2, 30, 40], np.float32), (FRAMES, 1)))
    images = ImageFrames(scan_folder(folder / "data" / "frames" / _CLIPS[0], FRAMES))
    facts = {"pts": np.arange(4), "sums": np.arange(4), "keyframes": np.arange(1)}
    info = _npz(values=np.array(json.dumps({"made_with": "x", "sha256": "a"})), **facts)
    single = folder / "single"
    single.mkdir(exist_ok=True)
    root = folder / "boxed"
    (root / "boxes").mkdir(parents=True, exist_ok=True)
    return [
        Target(
            "keypoints of a clip (.npz)",
            folder / "clip.npz",
            [archive, _npz(keypoints=poses)],
            lambda path: PoseArchive(path, FRAMES, FRAMES, JOINTS, "frames a 0 12").load(),
        ),
        Target("keypoints of a video (.npz)", folder / "video.npz", [archive], _read_video_poses),
        Target(
            "notes of keypoints",
            folder / "notes.npz",
            [archive],
            read_notes,
        ),
        Target(
            "keypoints of a frame (.npy)",
            single / "00001.npy",
            [_npy(poses[0, 0, :, :2]), _npy(poses[0, 0])],
            lambda path: PoseFrames(scan_folder(path.parent, 1, (".npy",)), JOINTS).load(),
        ),
        Target(
            "boxes (.npy)",
            root / "boxes" / "a.npy",
            [boxes],
            lambda path: (load_boxes(path, images), _check_boxes(root)),
        ),
        Target(
            "what is known of a video", folder / "info.npz", [info], lambda p: load_info(p, "a")
        ),
    ]


def _read_video_poses(path: Path) -> None:
    load_video_poses(path, JOINTS).keypoints_at((128, 72))


def _check_boxes(root: Path) -> list[str]:
    tally = Tally("a")
    check_boxes(root, ClipRecord("a", FRAMES, 0), tally)
    return [str(finding) for finding in tally]


# ---------------------------------------------------------------- keypoints of other programs


def _keypoints(folder: Path) -> list[Target]:
    person = [value for joint in range(JOINTS) for value in (joint + 1.5, joint + 2.5, 0.5)]
    found = {"person_id": [-1], "pose_keypoints_2d": [*person, *person[:24]]}
    openpose = {"version": 1.3, "people": [found]}
    alphapose = [
        {"image_id": f"{n}.jpg", "category_id": 1, "keypoints": person, "score": 2.5, "idx": 1}
        for n in range(3)
    ]
    annotation = {
        "frame_dir": "a",
        "label": 1,
        "img_shape": (36, 64),
        "total_frames": 3,
        "keypoint": np.ones((1, 3, JOINTS, 2), np.float16),
        "keypoint_score": np.ones((1, 3, JOINTS), np.float16),
    }
    pyskl = pickle.dumps({"split": {"train": ["a"]}, "annotations": [annotation]}, 4)
    corners = {"a": [[1, 2, 30, 2, 30, 40, 1, 40], None, [[1, 2], [30, 2], [30, 40], [1, 40]]]}
    clips, frames = folder / "openpose" / "a", folder / "npy" / "a"
    for made in (clips, frames):
        made.mkdir(parents=True, exist_ok=True)
    return [
        Target(
            "OpenPose", clips / "a_000000000001_keypoints.json",
            [json.dumps(openpose).encode()], lambda path: _import("openpose", path.parent.parent),
        ),
        Target(
            "AlphaPose", folder / "alphapose-results.json",
            [json.dumps(alphapose).encode()], lambda path: _import("alphapose", path),
        ),
        Target(
            "import .npy", frames / "00001.npy", [_npy(_poses()[0])],
            lambda path: _import("npy", path.parent.parent),
        ),
        Target(
            "import .npz", folder / "import.npz", [_npz(keypoints=_poses())],
            lambda path: _import("npz", path),
        ),
        Target("PYSKL", folder / "x.pkl", [pyskl], lambda path: _import("pyskl", path), cost=60),
        Target(
            "boxes of FR-FS", folder / "boxes.json", [json.dumps(corners).encode()], _read_box_file
        ),
    ]  # fmt: skip


def _import(kind: str, path: Path) -> None:
    with READERS[kind](path) as source:
        [str(finding) for finding in source.findings]
        for key in source.aliases:
            source.span(key)
            source.load(key)


def _read_box_file(path: Path) -> None:
    for entry in load_box_file(path).values():
        parse_boxes(entry, 3, SIZE)


# ---------------------------------------------------------------- results and models


def _results(folder: Path) -> list[Target]:
    scores = ClipScores(
        clips=("a", "=b", "c d"),
        labels=np.array([0, 1, 0]),
        scores=np.array([[0.25, 0.75], [0.5, 0.5], [1.0, 0.0]], np.float32),
        classes=("landed", "fall"),
        kind="probabilities",
        groups=("A", "", "B"),
        split="test",
    )
    write_scores(folder / "seed.npz", scores)
    args = {"dataset": "FRFS", "seed": 1, "epochs": 3, "fusion": "none", "arch": "resnet18"}
    epochs = "".join(
        json.dumps({"epoch": n, "val_accuracy": 0.5, "val_loss": 0.7, "seconds": 1.5}) + "\n"
        for n in range(3)
    )
    report = {
        "total": 3, "correct": 2, "macro_f1": 0.5, "protocol": "", "cautions": ["x"],
        "classes": ["landed", "fall"], "selection": [], "intervals": {"values": {}},
    }  # fmt: skip
    plan = {"script": "main.py", "folds": "3", "count": 3, "options": {"seed": 1, "fold": None}}
    run = folder / "run"
    run.mkdir(exist_ok=True)
    return [
        Target("scores (.npz)", folder / "s.npz", [(folder / "seed.npz").read_bytes()], _scores),
        Target("scores (.csv)", folder / "s.csv", [format_csv(scores).encode()], _scores),
        Target("args.json", run / "args.json", [json.dumps(args).encode()], _run),
        Target("metrics.jsonl", run / "metrics.jsonl", [epochs.encode()], _run),
        Target("test report", run / "test_report.json", [json.dumps(report).encode()], _report),
        Target(
            "plan.json",
            folder / "plan.json",
            [json.dumps(plan).encode()],
            lambda path: plans._flat(plans._read_plan(path)),
        ),
    ]


def _scores(path: Path) -> None:
    read = read_scores(path)
    write_scores(path.with_name("copy.csv"), read)
    again = read_scores(path.with_name("copy.csv"))
    assert (again.clips, again.classes) == (read.clips, read.classes)


def _run(path: Path) -> None:
    read_run(path.parent)


def _report(path: Path) -> None:
    _run(path)
    read_result(path, ("landed", "fall"))


def _models(folder: Path) -> list[Target]:
    from benchmarks.fuzz_models import model_targets  # torch takes seconds

    home = folder / "model"
    home.mkdir(exist_ok=True)
    return model_targets(home, Target)


def _sheets(folder: Path) -> list[Target]:
    from benchmarks.fuzz_sheets import Row, xls_bytes, xlsx_bytes

    rows: list[Row] = [("video", "label"), ("1", 0), ("2", 1), ("a b", 1)]
    return [
        Target(
            "label table (.xls)", folder / "t.xls", [xls_bytes(rows)], read_label_table, cost=30
        ),
        Target(
            "label table (.xlsx)", folder / "t.xlsx", [xlsx_bytes(rows)], read_label_table, cost=30
        ),
    ]
