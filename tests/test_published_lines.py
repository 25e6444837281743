"""The command lines of the README, as they stand there, on the built-in data written as FR-FS."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.making_videos import write_video

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
KINDS = {"main.py": "rgb", "main_only_pose.py": "pose", "test_models.py": "test"}
# What the README says is reduced to try the lines: epochs, ImageNet weights, size.
SMALL = "--epochs 1 --pretrained none --input_size 32"


def published_lines(script):
    return re.findall(rf"^python ({script}\.py --arch.*)$", README, flags=re.MULTILINE)


def run(line, folder):
    command = [sys.executable, *shlex.split(line)]
    command[1] = str(ROOT / command[1])
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


@pytest.fixture
def train_or_test(program):
    """Return a function that runs a training or test program, which takes seconds to import."""

    def run_line(line, folder):
        name, *arguments = shlex.split(line)
        started = program.start(*arguments, env={"PROGRAM": KINDS[name]}, cwd=folder)
        assert (started.wait(300), started.stderr) == (0, "")
        return started.stdout

    return run_line


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("published")
    (made,) = re.findall(r"^python (tools/make_synthetic.py .*)$", README, flags=re.MULTILINE)
    run(f"{made} --synthetic_clips 6 2 2 --synthetic_size 64x36 --workers 1", folder)
    return folder


def test_there_are_four_published_lines():
    counts = [len(published_lines(s)) for s in ("main", "main_only_pose", "test_models")]
    assert counts == [2, 1, 1]


@pytest.mark.parametrize(
    "line",
    [*published_lines("main"), *published_lines("main_only_pose")],
    ids=["early", "late", "pose"],
)
def test_training_lines(line, train_or_test, folder, tmp_path):
    line = line.replace("<dataset_path>", "dataset").replace("<experiments path>", str(tmp_path))
    out = train_or_test(f"{line.replace('<experiment name>', 'published')} {SMALL}", folder)
    assert "best val top-1" in out
    (weights,) = tmp_path.glob("experiments/FRFS/*/*_published/best.pth.tar")
    assert (weights.parent / "last.pth.tar").is_file()
    if "--early" in line:
        (test,) = published_lines("test_models")
        test = test.replace("<dataset_path>", "dataset")
        out = train_or_test(test.replace("<path to pth.tar checkpoint>", str(weights)), folder)
        assert "of 2 clips, 95 % interval" in out
        assert json.loads((weights.parent / "test_report.json").read_text())["total"] == 2


def test_preparing_lines_on_prepared_data(folder):
    assert "already prepared" in run("process_dataset_FRFS.py", folder)
    assert "nothing to do" in run("preprocess_pose.py", folder)


def readme_line(script):
    """Return the lines of the README that begin with a script, as commands."""
    found = re.findall(rf"^python ({script}.*?)(?:\s+#.*)?$", README, flags=re.MULTILINE)
    assert found, script
    return found


def test_videos_of_ones_own(train_or_test, tmp_path):
    """A folder per class, a table, a check, and training on what they made."""
    rows = ["video,label,group"]
    for label in ("landed", "fall"):
        (tmp_path / "clips" / label).mkdir(parents=True)
        for number in range(5):
            name = f"clips/{label}/{number}.mp4"
            write_video(tmp_path / name, 12, size=(64, 36), first=len(rows))
            rows.append(f"{name},{label},athlete {number}")
    (tmp_path / "labels.csv").write_text("\n".join(rows), encoding="utf-8")

    by_folder, by_table = readme_line("process_dataset_videos.py")
    place = "<folder with a folder of videos for each class>"
    assert "the lists are dataset/jumps" in run(by_folder.replace(place, "clips"), tmp_path)
    train = (
        "main.py --dataset jumps --dataset_path dataset --arch resnet18 --width 8 --num_segments 2 "
        f"--workers 0 --allow_overlap {SMALL}"
    )
    assert "best val top-1" in train_or_test(train, tmp_path)
    shutil.rmtree(tmp_path / "dataset")
    run(by_table, tmp_path)
    assert (tmp_path / "dataset" / "jumps" / "folds" / "5of5").is_dir()
    (check,) = readme_line("tools/check_dataset.py")
    assert "verdict:" in run(check, tmp_path)
    assert (tmp_path / "dataset" / "jumps" / "check" / "report.html").is_file()


def test_python_example(folder, tmp_path):
    """The README's Python block runs, with a checkpoint of the options that it names."""
    (block,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    setup, rest = block.split("print(load_checkpoint")
    save = "torch.save({'state_dict': model.state_dict()}, 'best.pth.tar')\n"
    code = f"{setup}{save}print(load_checkpoint{rest}print(logits.shape)\n".replace("224", "32")
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{code}"],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "torch.Size([2, 2])" in done.stdout
