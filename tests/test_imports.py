"""The import table of docs/ARCHITECTURE.md, and: importing does no work."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = {
    "main",
    "main_only_pose",
    "test_models",
    "process_dataset_FRFS",
    "preprocess_pose",
    "process_dataset_videos",
    "predict",
}
FREE = {"errors", "files", "console"}
DATA = {"opts", "options", "ops", "transforms", "datasets"}
MAY_IMPORT = {
    "errors": set(),
    "files": set(),
    "console": set(),
    "options": {"opts", "ops"},
    "opts": {"options"},
    "ops": set(),
    "transforms": {"ops"},
    "datasets": {"opts", "options", "ops", "transforms"},
    "models": {"opts", "options", "ops"},
    "results": set(),
    "machine": {"ops"},
    "optim": set(),
    "ranks": {"ops"},
    "scoring": {"ops", "machine", "ranks"},
    "steps": {"ops", "machine", "optim", "ranks"},
    "engine": {"ops", "machine", "optim", "ranks", "scoring", "steps"},
    "manifests": set(),
    "checkpoints": {"models", "manifests"},
    "reports": {"results"},
    "explanation": {*DATA, "models", "results"},
    "deployment": {*DATA, "models", "results"},
    "prediction": {*DATA, "models", "results", "deployment"},
    "resume": {*DATA, "models", "reports", "checkpoints"},
    "seen_clips": {*DATA, "models", "results"},
    "starts": {*DATA, "models", "seen_clips"},
    "saving": {"checkpoints"},
    "assembly": {*DATA, "models", "machine", "optim", "ranks", "engine", "starts"},
    "session": {
        *DATA,
        "models",
        "results",
        "machine",
        "optim",
        "ranks",
        "engine",
        "scoring",
        "reports",
        "resume",
        "checkpoints",
        "saving",
        "seen_clips",
        "assembly",
    },
    "evaluation": {
        *DATA,
        "models",
        "results",
        "machine",
        "ranks",
        "scoring",
        "reports",
        "seen_clips",
        "assembly",
    },
    "pages": {
        *DATA,
        "models",
        "results",
        "reports",
        "explanation",
        "evaluation",
        "assembly",
        "machine",
    },
    "checkup": {*DATA, "machine", "reports", "pages"},
    "extraction": {*DATA, "models", "machine", "ranks", "reports"},
    "campaigns": {*DATA, "results", "machine", "reports"},
    "measuring": {
        *DATA,
        "models",
        "results",
        "machine",
        "optim",
        "engine",
        "scoring",
        "reports",
        "assembly",
        "benchmarks",
    },
}
OURS = set(MAY_IMPORT) | SCRIPTS | {"tools", "benchmarks", "tests"}


def sources() -> list[Path]:
    folders = (
        "options",
        "pages",
        "campaigns",
        "ops",
        "datasets",
        "models",
        "results",
        "deployment",
        "prediction",
        "explanation",
        "measuring",
        "tools",
        "benchmarks",
    )
    return sorted([*ROOT.glob("*.py"), *(p for f in folders for p in (ROOT / f).rglob("*.py"))])


def layer_of(path: Path) -> str:
    relative = path.relative_to(ROOT)
    return relative.parts[0].removesuffix(".py")


def imported_layers(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found.add(node.module.split(".")[0])
    return found & OURS


@pytest.mark.parametrize("path", sources(), ids=lambda p: str(p.relative_to(ROOT)))
def test_a_file_imports_only_what_stands_to_its_left(path):
    layer = layer_of(path)
    allowed = MAY_IMPORT.get(layer, set(MAY_IMPORT)) | FREE | {layer}
    assert imported_layers(path) <= allowed


@pytest.mark.parametrize("path", sources(), ids=lambda p: str(p.relative_to(ROOT)))
def test_no_device_calls_outside_scripts_and_engine(path):
    if layer_of(path) in {"engine", "machine", "session", *SCRIPTS, "tools", "benchmarks"}:
        pytest.skip("this layer moves models and batches")
    text = path.read_text(encoding="utf-8")
    assert ".cuda(" not in text


def test_importing_every_script_prints_and_writes_nothing(tmp_path):
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import {', '.join(sorted(SCRIPTS))}"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "module", ["process_dataset_FRFS", "process_dataset_videos", "tools/check_dataset", "checkup"]
)
def test_the_data_programs_answer_at_once(module):
    """torch and the plotting libraries take seconds to load."""
    code = (
        f"import runpy, sys; sys.path.insert(0, {str(ROOT)!r}); "
        f"runpy.run_path({str(ROOT / module)!r} + '.py', run_name='loaded'); "
        "print({'torch', 'matplotlib', 'sklearn'} & set(sys.modules) or '')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "", "")


def test_every_module_has_a_row_in_the_architecture():
    text = (ROOT / "docs" / "ARCHITECTURE.md").read_text(encoding="utf-8")
    names = {layer_of(path) for path in sources()}
    missing = {name for name in names if f"`{name}.py`" not in text and f"`{name}/`" not in text}
    assert missing == set()
