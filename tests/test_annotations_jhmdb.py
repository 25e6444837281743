"""JHMDB as it is published and as it came with DD-Net becomes annotation pickles."""

import os
import pickle

import numpy as np
import pytest
from scipy.io import savemat

from datasets.annotations.annotation_set import open_annotations
from datasets.annotations.checks import check_annotations
from errors import InputError
from tools import import_jhmdb as program


def positions(seed, frames=20):
    """Return (2, 15, T) pixels."""
    return np.random.default_rng(seed).uniform(1, 230, (2, 15, frames))


def write_published(folder):
    """Write two classes of two clips each, one for training and one for tests."""
    (folder / "splits").mkdir()
    written = {}
    for label, action in enumerate(("brush_hair", "catch")):
        lines = []
        for number in (1, 2):
            name = f"{action}_{number}"
            place = folder / "joint_positions" / action / name
            place.mkdir(parents=True)
            written[name] = positions(2 * label + number, 20 + number)
            savemat(place / "joint_positions.mat", {"pos_img": written[name], "scale": 1.0})
            lines.append(f"{name}.avi {number}\n")
        (folder / "splits" / f"{action}_test_split1.txt").write_text("".join(lines))
    return written


def run(folder, *more):
    line = ["--positions", folder / "joint_positions", "--splits", folder / "splits"]
    return program.main(list(map(str, [*line, "--output", folder / "made.pkl", *more])))


def test_published_files_become_a_pickle(tmp_path, capsys):
    written = write_published(tmp_path)
    assert run(tmp_path) == 4
    assert "--class_names brush_hair catch" in capsys.readouterr().out
    found = open_annotations(tmp_path / "made.pkl", None, tmp_path / "cache")
    assert check_annotations(found) == []
    assert found.layout.name == "jhmdb15"
    assert found.splits == {
        "train": ("brush_hair_1", "catch_1"),
        "test": ("brush_hair_2", "catch_2"),
    }
    assert [found.label(name) for name in ("brush_hair_1", "catch_2")] == [0, 1]
    for name, places in written.items():
        assert found.size(name) == (320, 240)
        expected = places.transpose(2, 1, 0).astype(np.float32)
        assert np.array_equal(found.keypoints(name)[:, 0, :, :2], expected)


def test_what_is_missing_or_broken_is_named_and_nothing_is_written(tmp_path):
    write_published(tmp_path)
    place = tmp_path / "joint_positions" / "catch" / "catch_2" / "joint_positions.mat"
    savemat(place, {"pos_img": np.zeros((3, 15, 4))})
    with pytest.raises(InputError, match=r"catch_2.*shape \(3, 15, 4\)"):
        run(tmp_path)
    savemat(place, {"pos_img": np.full((2, 15, 4), np.nan)})
    with pytest.raises(InputError, match="NaN"):
        run(tmp_path)
    place.write_bytes(b"no matrix" * 50)
    with pytest.raises(InputError, match="cannot be read as joint positions"):
        run(tmp_path)
    place.unlink()
    with pytest.raises(InputError, match="catch_2.*cannot be read"):
        run(tmp_path)
    lists = tmp_path / "splits" / "catch_test_split1.txt"
    lists.write_text("brush_hair_1.avi 2\n")
    with pytest.raises(InputError, match=r"split1.txt:1 names the clip brush_hair_1 again"):
        run(tmp_path)
    lists.write_text("catch_1.avi three\n")
    with pytest.raises(InputError, match="split1.txt:1 should be a clip and 1"):
        run(tmp_path)
    with pytest.raises(InputError, match="no list named"):
        run(tmp_path, "--split", 3)
    assert not (tmp_path / "made.pkl").exists()


class Bomb:
    """Makes a folder when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def write_ddnet(path, poses, labels, **more):
    path.write_bytes(pickle.dumps({"pose": poses, "label": labels, **more}, 2))
    return str(path)


def test_the_files_of_ddnet_are_never_replaced(tmp_path, capsys):
    train, test = tmp_path / "a.pkl", tmp_path / "b.pkl"
    for path in (train, test):
        path.write_bytes(b"theirs")
        with pytest.raises(SystemExit) as raised:
            program.main(["--ddnet", str(train), str(path), "--output", str(path), "--overwrite"])
        assert raised.value.code == 2
        assert "is the file that is read: name another one" in capsys.readouterr().err
        assert path.read_bytes() == b"theirs"


def test_the_files_of_ddnet_become_the_pickle_of_the_benchmark(tmp_path):
    rng = np.random.default_rng(0)
    poses = [rng.normal(0, 1, (n, 15, 2)).round(3) for n in (15, 40, 30)]
    train = write_ddnet(tmp_path / "a.pkl", poses[:2], ["wave", "catch"])
    test = write_ddnet(tmp_path / "b.pkl", poses[2:], ["golf"])
    out = tmp_path / "made.pkl"
    assert program.main(["--ddnet", train, test, "--output", str(out)]) == 3
    found = open_annotations(out, None, tmp_path / "cache")
    assert found.splits == {"train": ("train_0000", "train_0001"), "test": ("test_0000",)}
    assert [found.label(name) for name in ("train_0000", "train_0001", "test_0000")] == [2, 0, 1]
    assert found.size("test_0000") == (2, 2)
    places = found.keypoints("test_0000")[:, 0, :, :2]
    assert np.array_equal(places, poses[2].astype(np.float32) + 1)


def test_files_of_ddnet_run_nothing_and_are_checked(tmp_path):
    good = write_ddnet(tmp_path / "good.pkl", [np.zeros((15, 15, 2))], ["a"])
    out = ["--output", str(tmp_path / "made.pkl")]
    mark = tmp_path / "mark"
    bomb = tmp_path / "bomb.pkl"
    bomb.write_bytes(pickle.dumps(Bomb(mark)))
    cases = {
        str(bomb): "is refused",
        write_ddnet(tmp_path / "joints.pkl", [np.zeros((15, 17, 2))], ["a"]): "pose 0 is",
        write_ddnet(tmp_path / "text.pkl", ["x"], ["a"]): "a pose 0 that is no array of",
        write_ddnet(tmp_path / "few.pkl", [np.zeros((15, 15, 2))], []): "1 poses and 0 labels",
        write_ddnet(tmp_path / "nan.pkl", [np.full((15, 15, 2), np.nan)], ["a"]): "NaN",
        str(tmp_path / "missing.pkl"): "cannot be read",
        write_ddnet(tmp_path / "one.pkl", 3, ["a"]): "has a pose that is no list",
        write_ddnet(tmp_path / "words.pkl", [np.full((4, 15, 2), "x")], ["a"]): "no array of",
    }
    for path, message in cases.items():
        with pytest.raises(InputError, match=message):
            program.main(["--ddnet", good, path, *out])
    assert not mark.exists()
    assert not (tmp_path / "made.pkl").exists()
    with pytest.raises(SystemExit):
        program.main(["--ddnet", good, good, "--splits", str(tmp_path), *out])


def test_the_published_split_holds_as_many_clips_as_the_reference(tmp_path):
    path = program.ROOT.parent / "shared" / "data" / "jhmdb" / "jhmdb14_split1.pkl"
    if not path.is_file():
        pytest.skip("../shared/data is not part of the project: no JHMDB pickle")
    given = open_annotations(path, None, tmp_path / "cache")
    classes = (path.parent / "classes.txt").read_text().split()
    files = []
    for split in ("train", "test"):
        poses = [given.keypoints(name)[:, 0, :, :2] - 1 for name in given.splits[split]]
        labels = [classes[given.label(name)] for name in given.splits[split]]
        files.append(write_ddnet(tmp_path / f"{split}.pkl", poses, labels))
    out = tmp_path / "made.pkl"
    program.main(["--ddnet", *files, "--output", str(out)])
    made = open_annotations(out, None, tmp_path / "cache")
    assert made.splits == given.splits
    for name in made.names:
        assert made.label(name) == given.label(name)
        assert np.allclose(made.keypoints(name), given.keypoints(name), atol=1e-6)
