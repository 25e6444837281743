"""Pose estimation back ends: what comes out, and what they must not do."""

import hashlib
import importlib
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from torchvision.models.detection import keypointrcnn_resnet50_fpn
from torchvision.ops import FrozenBatchNorm2d

from errors import InputError
from models import pose_weights
from models.estimators import (
    BACKENDS,
    EstimatorOpts,
    UltralyticsPose,
    build_estimator,
    weights_notes,
)
from models.pose_torchvision import ADDRESS, DEFAULT_WEIGHTS, TorchvisionPose

ROOT = Path(__file__).resolve().parent.parent

# Runs in a process of its own: the package reads its settings when it is first imported.
SCRIPT = """
import os
from pathlib import Path
import numpy as np
import torch
from models import pose_ultralytics
from models.estimators import EstimatorOpts, UltralyticsPose, build_estimator
from ops.tracking import most_confident
from errors import InputError

with pose_ultralytics._quiet_import():
    from ultralytics import YOLO
    from ultralytics.utils import AUTOINSTALL, ONLINE, SETTINGS
weights = Path("random.pt")
YOLO("yolo11n-pose.yaml").save(weights)  # random weights
frames = np.random.default_rng(0).integers(0, 255, (3, 90, 160, 3), dtype=np.uint8)


def check(people, joints_inside=True):
    assert people.boxes.shape == (len(people), 4) and people.keypoints.shape[1:] == (17, 3)
    assert (people.scores >= 0).all() and (people.scores <= 1).all()
    assert (people.boxes[:, 2:] >= people.boxes[:, :2]).all()
    assert (people.keypoints[..., 2] >= 0).all() and (people.keypoints[..., 2] <= 1).all()
    assert (people.boxes <= (160, 90, 160, 90)).all()


estimator = build_estimator("ultralytics", EstimatorOpts(weights, confidence=1e-9, batch_size=2))
found = estimator.detect(frames)
assert len(found) == 3 and len(found[0]) > 0
for people in found:
    check(people)
again = estimator.detect(frames[2:])
assert len(again[0]) == len(found[2])
assert np.allclose(again[0].boxes, found[2].boxes, atol=0.1)  # a batch is no more than its frames
assert estimator.version and len(estimator.weights_hash) == 64
small = EstimatorOpts(weights, confidence=1e-9, image_size=320)
assert not np.array_equal(build_estimator("ultralytics", small).detect(frames)[0].boxes[:5],
                          found[0].boxes[:5])

pairs = most_confident(found, 2)
assert pairs.shape == (3, 2, 17, 3) and pairs.dtype == np.float32
assert (pairs[..., 2] > 0).any() and (pairs[..., 2] <= 1).all()
sure = UltralyticsPose(weights).detect(frames)  # random weights are sure of nothing
assert [len(people) for people in sure] == [0, 0, 0]

YOLO("yolo11n.yaml").save("boxes.pt")
try:
    UltralyticsPose("boxes.pt")
except InputError as error:
    assert "give a pose model" in str(error), error
else:
    raise AssertionError("a box model was taken")

from torchvision.models.detection import keypointrcnn_resnet50_fpn
torch.manual_seed(0)
torch.save(keypointrcnn_resnet50_fpn(weights=None, weights_backbone=None).state_dict(), "rcnn.pth")
opts = EstimatorOpts(Path("rcnn.pth"), confidence=0.05, image_size=96, batch_size=2)
found = build_estimator("torchvision", opts).detect(frames)
assert len(found) == 3 and len(found[0]) > 0
for people in found:
    check(people)

assert not ONLINE and not AUTOINSTALL
assert "YOLO_CONFIG_DIR" not in os.environ and "YOLO_OFFLINE" not in os.environ
assert not list(Path.home().rglob("*")), list(Path.home().rglob("*"))
assert sorted(p.name for p in Path.cwd().iterdir()) == ["boxes.pt", "random.pt", "rcnn.pth"]
"""


def test_back_ends_run_offline_and_leave_no_trace(tmp_path):
    pytest.importorskip("ultralytics", reason="ultralytics is not installed")
    home, work = tmp_path / "home", tmp_path / "work"
    home.mkdir()
    work.mkdir()
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("YOLO_", "XDG_"))}
    environment = clean | {"HOME": str(home), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    result = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=work, env=environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout == ""


def test_the_packages_are_imported_in_one_file_each_and_late():
    files = [
        path
        for folder in (".", "datasets", "models", "ops", "tools", "benchmarks")
        for path in (ROOT / folder).glob("*.py")
    ]
    for name in ("ultralytics", "rtmlib"):
        ways = (f'import_module("{name}")', f"\nimport {name}", f"\nfrom {name}")
        users = [path.name for path in files if any(way in path.read_text("utf-8") for way in ways)]
        assert users == [f"pose_{name}.py"]
    code = (
        "import models.estimators, sys; "
        "sys.exit(any(n in sys.modules for n in ('ultralytics', 'rtmlib')))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


# ---------------------------------------------------------------- Ultralytics


class Recorder:
    """Stands for a model: keeps the images it is given, finds somebody at its mean colour."""

    def __init__(self):
        self.batches = []
        self.settings = []

    def predict(self, images, conf, device, verbose, **settings):
        self.batches.append(images)
        self.settings.append(settings)
        people = [np.full((1, 17, 3), 1.0, np.float32) * image.mean() for image in images]
        return [
            SimpleNamespace(
                keypoints=SimpleNamespace(data=torch.from_numpy(person)),
                boxes=SimpleNamespace(conf=torch.ones(1), xyxy=torch.tensor([[0.0, 0, 4, 4]])),
            )
            for person in people
        ]


@pytest.fixture
def recorder(monkeypatch, tmp_path):
    recorder = Recorder()
    monkeypatch.setattr("models.pose_ultralytics._load", lambda path: (recorder, "8.0"))
    recorder.weights = tmp_path / "yolo11n-pose.pt"
    recorder.weights.write_bytes(b"weights")
    return recorder


def test_frames_go_in_as_bgr_in_batches_and_come_out_in_order(recorder):
    estimator = UltralyticsPose(recorder.weights, batch_size=2)
    frames = np.arange(1, 6, dtype=np.uint8)[:, None, None, None] * np.ones((1, 4, 4, 3), np.uint8)
    frames[..., 0] += 10  # red
    found = estimator.detect(frames)
    assert [len(images) for images in recorder.batches] == [2, 2, 1]
    assert np.array_equal(recorder.batches[0][0][0, 0], [1, 1, 11])
    left = [people.keypoints[0, 0, 0] for people in found]
    assert np.allclose(left, frames.mean(axis=(1, 2, 3)))
    assert recorder.settings == [{}] * 3


def test_options_reach_the_model(recorder):
    opts = EstimatorOpts(recorder.weights, image_size=320, batch_size=3)
    estimator = build_estimator("ultralytics", opts)
    estimator.detect(np.zeros((4, 8, 8, 3), np.uint8))
    assert recorder.settings == [{"imgsz": 320}] * 2
    assert estimator.weights_hash == hashlib.sha256(b"weights").hexdigest()
    assert (estimator.name, estimator.weights) == ("ultralytics", "yolo11n-pose.pt")
    with pytest.raises(InputError, match="no multiple of 32, .* take 320"):
        build_estimator("ultralytics", EstimatorOpts(recorder.weights, image_size=310))


def test_missing_weights_name_the_address(tmp_path):
    with pytest.raises(InputError, match="github.com/ultralytics/assets") as caught:
        UltralyticsPose(tmp_path / "yolo11x-pose.pt")
    assert "AGPL-3.0" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("frames", [np.zeros((2, 8, 8, 4), np.uint8), np.zeros((2, 8, 8, 3))])
def test_wrong_frames(frames, recorder):
    with pytest.raises(ValueError, match="uint8 RGB"):
        UltralyticsPose(recorder.weights).detect(frames)


# ---------------------------------------------------------------- torchvision


@pytest.fixture(scope="module")
def rcnn(tmp_path_factory):
    """Return weights of a Keypoint R-CNN as torchvision saves them."""
    path = tmp_path_factory.mktemp("weights") / "rcnn.pth"
    torch.manual_seed(0)
    torch.save(keypointrcnn_resnet50_fpn(weights=None, weights_backbone=None).state_dict(), path)
    return path


def test_torchvision_finds_what_torchvision_finds(rcnn):
    frames = np.random.default_rng(0).integers(0, 255, (2, 60, 80, 3), dtype=np.uint8)
    estimator = TorchvisionPose(rcnn, confidence=0.1, image_size=96)
    theirs = keypointrcnn_resnet50_fpn(
        weights=None, weights_backbone=None, min_size=96, max_size=160, box_score_thresh=0.1
    )
    theirs.load_state_dict(torch.load(rcnn, weights_only=True))
    with torch.inference_mode():
        images = torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 255
        expected = theirs.eval()(list(images))
    for own, their in zip(estimator.detect(frames), expected, strict=True):
        assert 1 <= len(own) <= 20  # of a hundred: the others are less confident
        assert np.allclose(own.boxes, their["boxes"], atol=1e-3)
        assert np.allclose(own.scores, their["scores"], atol=1e-5)
        assert np.allclose(own.keypoints[..., :2], their["keypoints"][..., :2], atol=1e-3)
        confidence = 1 / (1 + np.exp(2 - their["keypoints_scores"].numpy()))
        assert np.allclose(own.keypoints[..., 2], confidence, atol=1e-5)


def test_the_published_weights_are_normalised_as_they_were_trained(rcnn, monkeypatch):
    def epsilons(estimator):
        layers = estimator._model.modules()
        return {layer.eps for layer in layers if isinstance(layer, FrozenBatchNorm2d)}

    assert epsilons(TorchvisionPose(rcnn)) == {1e-5}
    known = hashlib.sha256(rcnn.read_bytes()).hexdigest()[:8]
    monkeypatch.setattr("models.pose_torchvision._COCO_HASH", known)
    assert epsilons(TorchvisionPose(rcnn)) == {0.0}


def test_torchvision_asks_before_it_downloads(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="is not there") as caught:
        build_estimator("torchvision", EstimatorOpts())
    assert ADDRESS in str(caught.value)
    assert DEFAULT_WEIGHTS in str(caught.value)

    def refuse(url, timeout):
        raise OSError("no network")

    monkeypatch.setattr(pose_weights.urllib.request, "urlopen", refuse)
    with pytest.raises(InputError, match=r"cannot be downloaded \(no network\)") as caught:
        build_estimator("torchvision", EstimatorOpts(download=True))
    assert ADDRESS in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"<html>", b"\x80\x02."], ids=["empty", "html", "cut"])
def test_files_that_are_no_keypoint_rcnn(tmp_path, content):
    path = tmp_path / "w.pth"
    path.write_bytes(content)
    with pytest.raises(InputError, match="is no Keypoint R-CNN") as caught:
        TorchvisionPose(path)
    assert "\n" not in str(caught.value)


class Evil:
    def __reduce__(self):
        return (os.mkdir, ("evil",))


def test_weights_run_no_code(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"a": Evil()}, "w.pth")
    with pytest.raises(InputError, match="is no Keypoint R-CNN"):
        TorchvisionPose("w.pth")
    assert not Path("evil").exists()


# ---------------------------------------------------------------- downloads


def serve(path: Path) -> str:
    return path.as_uri()


def test_a_download_is_there_whole_and_with_its_hash(tmp_path):
    source = tmp_path / "source"
    source.write_bytes(b"x" * 3_000_000)
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    target = tmp_path / "w.pt"
    found = pose_weights.find_weights(target, "", "", url=serve(source), sha256=digest[:8])
    assert found == digest
    assert target.read_bytes() == source.read_bytes()
    target.unlink()
    with pytest.raises(InputError, match="its SHA-256 begins with"):
        pose_weights.find_weights(target, "", "", url=serve(source), sha256="00000000")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["source"]


def test_a_download_that_breaks_off(tmp_path, monkeypatch):
    class Short:
        headers = {"Content-Length": "100"}
        parts = [b"x" * 60, b""]

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def read(self, most):
            return self.parts.pop(0)

    monkeypatch.setattr(pose_weights.urllib.request, "urlopen", lambda url, timeout: Short())
    with pytest.raises(InputError, match="60 of 100 bytes came"):
        pose_weights.find_weights(tmp_path / "w.pt", "", "", url="https://example.org/w.pt")
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------- rtmlib


class FakeTool:
    """Stands for a model of rtmlib: prints as it does, and has its file's input size."""

    shape = [1, 3, 128, 96]

    def __init__(self, onnx_model, model_input_size=(1, 1), backend="", device="", score_thr=None):
        print(f"load {onnx_model}")  # noqa: T201 - as the package does
        self.given = (Path(onnx_model).name, backend, device, score_thr)
        self.model_input_size = model_input_size
        self.session = SimpleNamespace(get_inputs=lambda: [SimpleNamespace(shape=self.shape)])


class RTMO(FakeTool):
    found = np.zeros((1, 17, 2)), np.zeros((1, 17))

    def __call__(self, image):
        self.image = image
        return self.found


class RTMPose(FakeTool):
    joints = 17

    def __call__(self, image, bboxes):
        if len(bboxes) == 0:  # as the package does
            bboxes = [[0, 0, *image.shape[1::-1]]]
        places = np.asarray(bboxes)[:, None, :2] + np.ones((1, self.joints, 1))
        return places, np.full((len(bboxes), self.joints), 1.2)


class YOLOX(FakeTool):
    boxes = np.array([])

    def __call__(self, image):
        return self.boxes


@pytest.fixture
def onnx(tmp_path, monkeypatch):
    package = ModuleType("rtmlib")
    package.RTMO, package.RTMPose, package.YOLOX = RTMO, RTMPose, YOLOX
    version = ModuleType("rtmlib.version")
    version.__version__ = "0.0.16"
    for name, module in (
        ("rtmlib", package),
        ("rtmlib.version", version),
        ("onnxruntime", ModuleType("onnxruntime")),
    ):
        monkeypatch.setitem(sys.modules, name, module)
    paths = [tmp_path / "pose.onnx", tmp_path / "people.onnx"]
    for path in paths:
        path.write_bytes(path.name.encode())
    return paths


FRAMES = np.full((2, 40, 60, 3), (200, 100, 50), np.uint8)


def test_rtmo_gives_people_or_nobody(onnx, monkeypatch, capsys):
    estimator = build_estimator("rtmlib", EstimatorOpts(onnx[0], confidence=0.4, device="cuda:1"))
    assert estimator._pose.given == ("pose.onnx", "onnxruntime", "cuda:1", 0.4)
    assert estimator._pose.model_input_size == (128, 96)
    assert [len(people) for people in estimator.detect(FRAMES)] == [0, 0]
    assert estimator._pose.image[0, 0].tolist() == [50, 100, 200]
    places = np.stack([np.linspace(10, 20, 17), np.linspace(5, 35, 17)], axis=1)[None]
    monkeypatch.setattr(RTMO, "found", (places, np.full((1, 17), 0.5)))
    (people, _) = estimator.detect(FRAMES)
    assert np.allclose(people.boxes, [[9, 2, 21, 38]])
    assert people.scores.tolist() == [0.5]
    assert np.allclose(people.keypoints[0, :, :2], places)
    assert capsys.readouterr().out == ""


def test_rtmpose_looks_at_the_people_of_the_detector(onnx, monkeypatch):
    opts = EstimatorOpts(onnx[0], onnx[1], confidence=0.4)
    estimator = build_estimator("rtmlib", opts)
    assert estimator._pose.model_input_size == (96, 128)
    assert estimator._detector.model_input_size == (128, 96)
    assert estimator.weights == "pose.onnx+people.onnx"
    assert len(estimator.weights_hash) == 129
    assert [len(people) for people in estimator.detect(FRAMES)] == [0, 0]
    monkeypatch.setattr(YOLOX, "boxes", np.array([[1, 2, 30, 40], [5, 6, 50, 40.0]]))
    (people, _) = estimator.detect(FRAMES)
    assert np.array_equal(people.boxes, YOLOX.boxes)
    assert (people.keypoints[..., 2] == 1).all()
    assert people.keypoints[1, 3].tolist() == [6, 7, 1]
    monkeypatch.setattr(RTMPose, "joints", 133)
    with pytest.raises(InputError, match="finds 133 joints"):
        estimator.detect(FRAMES)


def test_rtmlib_that_is_not_installed(tmp_path, monkeypatch):
    (tmp_path / "pose.onnx").write_bytes(b"x")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(InputError, match="pip install rtmlib onnxruntime"):
        build_estimator("rtmlib", EstimatorOpts(tmp_path / "pose.onnx"))


def test_a_damaged_onnx_file(onnx, monkeypatch):
    def break_down(self, *_, **__):
        raise RuntimeError("INVALID_PROTOBUF\nmore")

    monkeypatch.setattr(RTMO, "__init__", break_down)
    with pytest.raises(InputError, match=r"is no RTMO model, or damaged \(INVALID_PROTOBUF\)"):
        build_estimator("rtmlib", EstimatorOpts(onnx[0]))


@pytest.mark.parametrize(
    ("backend", "opts", "message"),
    [
        ("rtmlib", EstimatorOpts(), "give --pose_weights"),
        ("rtmlib", EstimatorOpts(Path("a.onnx"), download=True), "get ONNX files from"),
        ("rtmlib", EstimatorOpts(Path("a.onnx"), image_size=640), "drop it"),
        ("rtmlib", EstimatorOpts(Path("a.onnx")), "a.onnx is not there"),
        ("torchvision", EstimatorOpts(detector=Path("a.onnx")), "--detector_weights a.onnx is for"),
        ("openpose", EstimatorOpts(), "choose from ultralytics, torchvision, rtmlib"),
    ],
)
def test_options_that_do_not_fit(backend, opts, message):
    with pytest.raises(InputError, match=message):
        build_estimator(backend, opts)


def test_notes_name_what_would_be_loaded(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert weights_notes("ultralytics", None, None) == {"weights": "yolo11x-pose.pt"}
    for name in ("a.onnx", "b.onnx"):
        Path(name).write_bytes(b"")
    empty = hashlib.sha256(b"").hexdigest()
    assert weights_notes("rtmlib", Path("a.onnx"), Path("b.onnx")) == {
        "weights": "a.onnx+b.onnx",
        "weights_sha256": f"{empty}+{empty}",
    }
    assert weights_notes("rtmlib", None, None) == {"weights": ""}
    assert set(BACKENDS) == {"ultralytics", "torchvision", "rtmlib"}
    assert importlib.import_module("options.poses").parse_pose_args([]).pose_backend in BACKENDS
