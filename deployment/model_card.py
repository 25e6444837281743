"""Model cards: what a model is, how good, how it is used; in the form of Hugging Face's hub."""

import html
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deployment.config import ModelConfig
from deployment.folder import ONNX, WEIGHTS
from errors import InputError
from files import read_regular
from results.intervals import wilson_interval
from results.run_results import describe, selection_of, texts_of

_MOST_REPORT_BYTES = 2**26
# Of what a report remarks; a file from elsewhere may hold any number.
_MOST_REMARKS = 10


@dataclass(frozen=True, slots=True)
class TestResult:
    """What a `test_report.json` says, as far as a card tells it.

    Attributes:
        dataset: name of the data set; None where it does not say.
        split: the list.
        total: clips.
        correct: of them.
        selection: why the accuracy is optimistic, a sentence for each reason.
        remarks: what else is to be kept in mind.
        majority: share of the most frequent class, 0 to 1; None where it does not say.
        scores: other numbers by name, in 0 to 1.
        interval: 95 % interval of the accuracy.
        interval_of: how the interval was found.
    """

    dataset: str | None
    split: str
    total: int
    correct: int
    selection: tuple[str, ...]
    remarks: tuple[str, ...]
    majority: float | None
    scores: Mapping[str, float]
    interval: tuple[float, float]
    interval_of: str


def read_result(path: Path, classes: tuple[str, ...]) -> TestResult:
    """Read a report of `test_models.py`.

    Args:
        path: of it.
        classes: of the model, which should be those of the report.

    Raises:
        InputError: it cannot be read, is no such report, or is of other classes or of several
            models.
    """
    report = _read_report(path)
    total, correct = report.get("total"), report.get("correct")
    if (
        type(total) is not int
        or type(correct) is not int
        or not 0 <= correct <= total < 2**53
        or not total
    ):
        raise InputError(
            f"{path} has no counts of clips, so it is no report of test_models.py: test again"
        )
    if isinstance(report.get("weights"), list):
        raise InputError(f"{path} is of an ensemble, not of one model: test the model alone")
    if report.get("classes") not in (None, list(classes)):
        raise InputError(f"{path} has other classes than the model: name the report of this model")
    options = report.get("options")
    dataset = options.get("dataset") if isinstance(options, dict) else None
    interval, interval_of = _interval(report.get("intervals"), correct, total)
    names = {"macro F1": "macro_f1", "balanced accuracy": "balanced_accuracy"}
    return TestResult(
        dataset=dataset if isinstance(dataset, str) else None,
        split=str(report.get("split", "test"))[:20],
        total=total,
        correct=correct,
        selection=selection_of(report)[:_MOST_REMARKS],
        remarks=(*texts_of(report.get("cautions")), *texts_of(report.get("notes")))[:_MOST_REMARKS],
        majority=_share(report.get("majority")),
        scores={
            name: v for name, key in names.items() if (v := _share(report.get(key))) is not None
        },
        interval=interval,
        interval_of=interval_of,
    )


def _interval(found: object, correct: int, total: int) -> tuple[tuple[float, float], str]:
    """Return the interval over groups where the report has one, else Wilson's over clips."""
    values = found.get("values") if isinstance(found, dict) else None
    ends = values.get("accuracy") if isinstance(values, dict) else None
    if isinstance(found, dict) and found.get("unit") == "group" and isinstance(ends, list):
        shares = [share for end in ends if (share := _share(end)) is not None]
        if len(shares) == len(ends) == 2 and type(found.get("units")) is int:
            return (shares[0], shares[1]), f"over {found['units']} groups"
    return wilson_interval(correct, total), "Wilson, clips as independent"


def _read_report(path: Path) -> dict[str, Any]:
    try:
        report = json.loads(read_regular(path, _MOST_REPORT_BYTES))
    except OSError as error:
        raise InputError(
            f"{path} cannot be read ({error.strerror}): name a test_report.json"
        ) from error
    except (ValueError, RecursionError):
        report = None
    if not isinstance(report, dict):
        raise InputError(f"{path} is no report of test_models.py (JSON): name a test_report.json")
    return report


def _share(value: object) -> float | None:
    is_number = type(value) in (int, float) and 0 <= value <= 1  # type: ignore[operator]
    return float(value) if is_number else None  # type: ignore[arg-type]


def model_card(
    config: ModelConfig,
    *,
    name: str,
    licence: str | None = None,
    result: TestResult | None = None,
    checks: Mapping[str, str] | None = None,
    sizes: Mapping[str, int] | None = None,
) -> str:
    """Write a model card: YAML front matter, then Markdown.

    Args:
        config: of the model.
        name: of the model.
        licence: an identifier of Hugging Face; None says that it is not known.
        result: of a test.
        checks: file -> how it was compared with PyTorch.
        sizes: file -> bytes.
    """
    parts = [
        _front_matter(config, name, licence, result),
        f"# {escape(name)}",
        _what_it_is(config),
        _classes(config),
        "## Trained on",
        _training(config),
        "## Results",
        _results(result),
        "## Files",
        _files(checks or {}, sizes or {}),
        "## Use",
        _use(config, sizes or {}),
        "## Limits",
        _limits(config),
        "## Licence",
        _licence(licence),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def escape(text: object) -> str:
    """Return foreign text as Markdown that shows it and does nothing else."""
    return re.sub(r"([\\`*_{}\[\]|~#])", r"\\\1", html.escape(_line(text), quote=False))


def _line(text: object) -> str:
    """Return text on one line: in front matter, a line could end it."""
    line = " ".join(str(text).split())
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line)


def _front_matter(
    config: ModelConfig, name: str, licence: str | None, result: TestResult | None
) -> str:
    # Loaded here: it takes a second, and only cards need it.
    from huggingface_hub import EvalResult, ModelCardData

    tags = ["video-classification", "action-recognition", "sports", "gate-shift-fuse"]
    tags += ["pose"] if config.input.has_poses else []
    tags += ["onnx"]
    results = None
    if result is not None:
        low, high = result.interval
        dataset = _line(result.dataset or "unknown")
        shown = f"accuracy, {result.total} clips, 95 % interval {low:.1%} to {high:.1%}"
        results = [
            EvalResult(
                task_type="video-classification",
                dataset_type=dataset,
                dataset_name=dataset,
                dataset_split=_line(result.split),
                metric_type="accuracy",
                metric_name=shown + (", optimistic" if result.selection else ""),
                metric_value=round(result.correct / result.total, 6),
            )
        ]
    data = ModelCardData(
        license=licence,
        library_name="gate-shift-pose",
        pipeline_tag="video-classification",
        tags=tags,
        model_name=_line(name),
        eval_results=results,
    )
    return f"---\n{data.to_yaml()}\n---"


def _what_it_is(config: ModelConfig) -> str:
    network = escape(describe(config.options))
    return (
        f"A classifier of short sports videos: {network}. It looks at {_what_it_sees(config)}. "
        "`config.json` holds everything that its input needs: sampling, crop, mean and deviation, "
        "joints."
    )


def _what_it_sees(config: ModelConfig) -> str:
    spec, names = config.input, config.input_names
    frames = f"{spec.num_segments} frames"
    if "frames" in names:
        frames += f" of {config.frame_side} x {config.frame_side} pixels"
    if "skeletons" in names:
        skeletons = _skeletons_text(config)
        return f"{frames} of a clip and at {skeletons}" if "frames" in names else skeletons
    sees = {
        ("frames",): "RGB frames",
        ("keypoints",): "the joints of one person (COCO, 17 joints), without RGB",
        ("frames", "keypoints"): "RGB frames and the joints of one person (COCO, 17 joints)",
    }[names]
    if spec.heatmap_channel:
        sees += " with a fourth channel, the heatmap of the person's joints"
    return f"{frames} of a clip and sees {sees}"


def _skeletons_text(config: ModelConfig) -> str:
    """Say what a model of whole clips sees of skeletons."""
    seen, layout = config.input.skeleton, config.layout
    assert seen is not None
    most = "the skeleton of one person" if seen.num_people == 1 else "the skeletons of"
    most += "" if seen.num_people == 1 else f" at most {seen.num_people} people"
    text = f"{most} ({escape(layout.name)}, {len(layout)} joints) in {seen.length} frames of a clip"
    if config.volume_size is None:
        return f"{text}, as {' and '.join(seen.streams).replace('_', ' ')}"
    height, width = config.volume_size
    drawn = "limbs" if "limb" in seen.streams else "joints"
    return f"{text}, drawn as heatmap volumes of {drawn}, {width} x {height} pixels"


def _classes(config: ModelConfig) -> str:
    shown = [f"{n}. {escape(name)}" for n, name in enumerate(config.classes[:100])]
    more = len(config.classes) - len(shown)
    lines = [f"Classes ({len(config.classes)}), in order of the output:", "", *shown]
    return "\n".join([*lines, f"\n... and {more} more, see `config.json`"] if more else lines)


def _training(config: ModelConfig) -> str:
    data = config.data
    if not data:
        return "The weights do not say what they were trained on."
    lines = [f"Data set: {escape(data['dataset'])}.", "", "| list | clips | SHA-256 of its lines |"]
    lines.append("|---|---|---|")
    lines += [
        f"| {escape(split)} | {facts['clips']} | `{facts['sha256']}` |"
        for split, facts in data["lists"].items()
    ]
    if data.get("clip_seconds"):
        lines += ["", f"A training clip lasts {data['clip_seconds']:.2f} seconds (median)"]
        lines[-1] += f" at {data['fps']:.4g} frames a second." if data.get("fps") else "."
    return "\n".join(lines)


def _results(result: TestResult | None) -> str:
    if result is None:
        return (
            "No test report was at hand when this card was written: how good it is, is not known."
        )
    low, high = result.interval
    where = escape(result.dataset) if result.dataset else "a data set that the report does not name"
    rows = [
        f"On the {escape(result.split)} list of {where}, n = {result.total} clips:",
        "",
        "| number | value |",
        "|---|---|",
        f"| accuracy | {result.correct} of {result.total}, {result.correct / result.total:.1%} |",
        f"| 95 % interval ({result.interval_of}) | {low:.1%} to {high:.1%} |",
    ]
    if result.majority is not None:
        rows.append(f"| always the most frequent class | {result.majority:.1%} |")
    rows += [f"| {name} | {value:.3f} |" for name, value in result.scores.items()]
    for text in result.selection:
        rows += ["", f"**These numbers are no estimate for other videos: {escape(text)}.**"]
    for text in result.remarks:
        rows += ["", f"Note: {escape(text)}."]
    return "\n".join(rows)


def _files(checks: Mapping[str, str], sizes: Mapping[str, int]) -> str:
    lines = ["- `config.json`: network, input, classes, SHA-256 of the files"]
    for file, size in sizes.items():
        check = f"; {escape(checks[file])}" if file in checks else ""
        lines.append(f"- `{file}`: {size / 1e6:.1f} MB{check}")
    return "\n".join(lines)


def _use(config: ModelConfig, sizes: Mapping[str, int]) -> str:
    blocks = [
        "On a video, with the programs of Gate-Shift-Pose:",
        "```sh\npython predict.py --weights THIS_FOLDER --source video.mp4\n```",
        "In Python, with the same programs on the path:",
        "```python\n"
        "from pathlib import Path\n\nimport torch\n\n"
        "from deployment.networks import load_network\n\n"
        'network = load_network(Path("THIS_FOLDER"), torch.device("cpu"))\n'
        "network.config.classes, network.config.input  # names, and what a clip has to become\n"
        "```",
    ]
    if ONNX in sizes:
        shapes = ", ".join(
            f"{name} (B, {', '.join(map(str, config.input_shape(name)))})"
            for name in config.input_names
        )
        feed = ", ".join(f'"{name}": {name}' for name in config.input_names)
        blocks += [
            f"With onnxruntime alone; {_kinds(config)}, {shapes}, made as `config.json` says:",
            "```python\nimport onnxruntime\n\n"
            f'session = onnxruntime.InferenceSession("{ONNX}")\n'
            f'(logits,) = session.run(["logits"], {{{feed}}})  # (B, {len(config.classes)})\n```',
        ]
    if WEIGHTS not in sizes:
        blocks[3] = blocks[3].replace('"THIS_FOLDER"', f'"THIS_FOLDER/{ONNX}"')
    return "\n\n".join(blocks)


def _kinds(config: ModelConfig) -> str:
    return "float32, `present` bool" if "present" in config.input_names else "float32"


def _limits(config: ModelConfig) -> str:
    lines = [
        "- It always answers with one of its classes, also for a video that shows none of them.",
        "- The softmax of its logits is not a calibrated probability unless a temperature was "
        "fitted on clips that it was not tested on.",
        "- Videos of other cameras, venues or athletes than those of the training clips can be "
        "much harder than the numbers above say.",
    ]
    if config.input.has_poses:
        lines.append(
            "- It depends on the pose estimator: where no joints are found it knows less than its "
            "results say."
        )
    if config.data.get("dataset") == "synthetic":
        lines.append("- The training clips are drawn by a program: it knows no real videos.")
    return "\n".join(lines)


def _licence(licence: str | None) -> str:
    if licence is None:
        return (
            "None was stated. The weights come from the training data: who trained them has to "
            "say what may be done with them."
        )
    return f"`{licence}`, as whoever exported the weights stated."
