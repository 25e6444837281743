"""RELIABILITY 19, 22 and 23 as training meets them: odd lists, odd labels, what two lists share."""

import numpy as np
import pytest

import main_only_pose
import test_models as test_script
from datasets.clip_table import ClipRow, write_table
from datasets.labels import find_class_gaps
from errors import InputError
from tests.small_runs import command, run_of, runs_of


def edit(root, split, old, new):
    path = root / f"{split}_videofolder.txt"
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def complaint(root, *more):
    with pytest.raises(InputError) as caught:
        main_only_pose.main(command(root, root / "out", *more))
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert runs_of(root / "out") == []
    return message


# ---------------------------------------------------------------- 19: lists


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("train_1 13 1", "train_1"),
        ("train_1 0 1", "train_videofolder.txt:2"),
        ("train_1 -3 1", "train_videofolder.txt:2"),
        ("train_1 12.0 1", "train_videofolder.txt:2"),
        ("train_1 1e3 1", "train_videofolder.txt:2"),
        ("train_1 999999999999999999999 1", "train_videofolder.txt:2"),
        ("img_train_1 12 1", "img_train_1"),
        ("train_0 12 0", "train_0"),
    ],
)
def test_a_line_that_cannot_be_is_named_before_training(line, expected, dataset):
    edit(dataset, "train", "train_1 12 1", line)
    assert expected in complaint(dataset)


def test_an_empty_list_is_named(dataset):
    for split in ("train", "val"):
        path = dataset / f"{split}_videofolder.txt"
        whole = path.read_bytes()
        path.write_text("")
        assert path.name in complaint(dataset)
        path.write_bytes(whole)


# ---------------------------------------------------------------- 22: labels


def test_labels_of_a_list_are_compared_with_the_classes():
    three = ("a", "b", "c")
    whole = np.array([0, 1, 2, 0])
    assert find_class_gaps({"train": whole, "val": whole}, three) == []
    (line,) = find_class_gaps({"train": np.array([0, 2]), "val": whole}, three)
    assert line.startswith("the train list has no clip of class b: the network cannot learn")
    (line,) = find_class_gaps({"train": whole, "val": np.array([1, 1])}, three)
    assert line.startswith("all 2 clips of the val list are of class b")
    many = [f"c{number}" for number in range(20)]
    (line,) = find_class_gaps({"test": np.arange(10)}, many)
    assert "the classes c10, c11, c12, c13, c14 and 5 more: the result says nothing" in line
    (line,) = find_class_gaps({"train": np.array([0, 2])}, ("a", "\x1b[31m\n", "c"))
    assert line.isprintable()
    assert find_class_gaps({"train": np.zeros(3, np.int64)}, ("alone",)) == []


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_list_of_one_class_is_warned_of_once_before_the_first_epoch(split, dataset, capsys):
    edit(dataset, split, " 12 1\n", " 12 0\n")
    main_only_pose.main(command(dataset, dataset / "out", epochs=1))
    said = capsys.readouterr().out
    line = f"WARNING: all {4 if split == 'train' else 2} clips of the {split} list are of class"
    assert said.count(line) == 1
    assert said.index(line) < said.index("epoch 0:")


def test_a_class_without_training_clips_is_warned_of_once(make_dataset, capsys):
    root = make_dataset("FRFS", clips=(6, 3, 3))
    names = ["--class_names", "up", "down"]
    main_only_pose.main(command(root, root / "out", *names, epochs=1))
    assert "WARNING" not in capsys.readouterr().out
    own = make_dataset("mine", clips=(6, 3, 3))
    line = ["--dataset", "mine", "--class_names", "up", "down", "never"]
    main_only_pose.main(command(own, own / "out", *line, epochs=1))
    said = capsys.readouterr().out
    assert said.count("WARNING: the train list has no clip of class never") == 1
    assert said.count("WARNING: the val list has no clip of class never") == 1


@pytest.mark.parametrize(
    "label", ["-1", "2", "fall", "0x1", "1_0", "\u0661", "1.0", "nan", "9" * 5000, "--help"]
)
def test_a_label_that_is_no_class_is_refused_with_its_line(label, dataset):
    edit(dataset, "train", "train_1 12 1", f"train_1 12 {label}")
    message = complaint(dataset)
    assert "train_videofolder.txt:2 has label" in message
    assert len(message) < 10_000


# ---------------------------------------------------------------- 23: leakage


def rows_of(dataset):
    names = sorted(path.stem for path in (dataset / "poses").iterdir())
    return {name: ClipRow(name, num_frames=12, group=name, sha256=name * 4) for name in names}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"sha256": "train_0" * 4}, "1 clips with the same content, such as train_0 and test_1"),
        ({"group": "train_0"}, "1 groups (athletes, events or videos), such as train_0"),
    ],
    ids=["same sum", "same athlete"],
)
def test_what_train_and_test_share_is_refused_unless_allowed(change, expected, dataset, capsys):
    rows = rows_of(dataset)
    write_table(dataset, rows.values())
    main_only_pose.main(command(dataset, dataset / "fine", epochs=1))
    facts = {"num_frames": 12, "group": "test_1", "sha256": "test_1" * 4, **change}
    write_table(dataset, [*(rows | {"test_1": ClipRow("test_1", **facts)}).values()])
    message = complaint(dataset)
    assert expected in message
    assert "--allow_overlap" in message
    best = ["--weights", str(run_of(dataset / "fine") / "best.pth.tar"), "--workers", "0"]
    with pytest.raises(InputError, match="allow_overlap"):
        test_script.main(best)
    main_only_pose.main(command(dataset, dataset / "out", "--allow_overlap", epochs=1))
    capsys.readouterr()
    test_script.main([*best, "--allow_overlap"])
    assert "WARNING" in capsys.readouterr().out


def test_the_same_file_in_train_and_test_is_refused_unless_allowed(dataset):
    edit(dataset, "test", "test_1 12 1", "train_1 12 1")
    assert "share 1 clips, such as train_1" in complaint(dataset)
    main_only_pose.main(command(dataset, dataset / "out", "--allow_overlap", epochs=1))
