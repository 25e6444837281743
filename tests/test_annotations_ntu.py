"""The text files of NTU RGB+D: exact numbers, who is kept, splits, and broken lines."""

import numpy as np
import pytest

from datasets.annotations.annotation_set import open_annotations
from datasets.annotations.checks import check_annotations
from datasets.annotations.ntu import NtuName, read_skeletons, splits_of, to_tracks
from errors import InputError
from tools import import_ntu as program


def text_of(frames):
    """Return the text of frames, each a list of (tracking number, (25, 3) joints)."""
    lines = [str(len(frames))]
    for bodies in frames:
        lines.append(str(len(bodies)))
        for name, joints in bodies:
            lines += [f"{name} 0 1 1 0 1 0 0.1 -0.2 2", "25"]
            lines += [" ".join([*map(repr, map(float, j)), *["0.5"] * 8, "2"]) for j in joints]
    return "\n".join(lines) + "\n"


def body(seed, motion, frames=6):
    """Return (frames, 25, 3) joints that move about so much."""
    rng = np.random.default_rng(seed)
    return rng.normal(0, motion, (frames, 25, 3)).round(5) + 2


def write(folder, name, frames):
    path = folder / f"{name}.skeleton"
    path.write_text(frames if isinstance(frames, str) else text_of(frames))
    return path


NAME = "S001C002P003R002A013"


def test_the_two_who_move_most_are_kept_in_that_order(tmp_path):
    still, little, much = body(1, 0.01), body(2, 0.1), body(3, 1)
    frames = [[("72", still[n]), ("9", little[n])] + [("5", much[n])] * (n > 2) for n in range(6)]
    tracks = to_tracks(read_skeletons(write(tmp_path, NAME, frames)))
    assert tracks.shape == (6, 2, 25, 4)
    assert tracks.dtype == np.float32
    assert np.array_equal(tracks[3:, 0, :, :3], much[3:].astype(np.float32))
    assert not tracks[:3, 0].any()
    assert np.array_equal(tracks[:, 1, :, :3], little.astype(np.float32))
    assert (tracks[:, 1, :, 3] == 1).all()


def test_people_who_are_not_there_are_zeros(tmp_path):
    frames = [[], [("1", body(1, 1)[0])], []]
    tracks = to_tracks(read_skeletons(write(tmp_path, NAME, frames)), 3)
    assert tracks.shape == (3, 3, 25, 4)
    assert np.flatnonzero(tracks.any(axis=(2, 3)).ravel()).tolist() == [3]
    for empty in ([], [[], []]):
        assert to_tracks(read_skeletons(write(tmp_path, NAME, empty))) is None


def test_a_body_that_goes_on_under_another_number_keeps_its_place(tmp_path):
    much, little = body(3, 1), body(2, 0.1)
    frames = [[("7" if n < 4 else "8", much[n]), ("5", little[n])] for n in range(6)]
    tracks = to_tracks(read_skeletons(write(tmp_path, NAME, frames)))
    assert np.array_equal(tracks[:, 0, :, :3], much.astype(np.float32))
    assert np.array_equal(tracks[:, 1, :, :3], little.astype(np.float32))


def changed(lines, number, text):
    return "\n".join([*lines[: number - 1], *([] if text is None else [text]), *lines[number:]])


@pytest.mark.parametrize(
    ("number", "text", "message"),
    [
        (1, "x", r":1 has 'x', it should be the number of frames, 0 to"),
        (1, "999999999", ":1 has '999999999'"),
        (1, "-3", ":1 has '-3'"),
        (1, "1", ":30 goes on after the 1 frames"),
        (2, "2", ":31 has"),
        (4, "24", ":4 has 24 joints, it should be 25"),
        (7, "1 2 3", ":7 has 3 values of joint 3, it should be 12"),
        (7, " ".join(["nan"] * 12), ":7 has 12 values of joint 3"),
        (7, " ".join(["1e999"] * 12), ":7 has 12 values of joint 3"),
        (7, " ".join(["a"] * 12), ":7 has 12 values of joint 3"),
        (1, "9" * 5000, ":1 has '9{40}', it should be the number of frames, 0 to 100000"),
        (57, None, ":57 ends here, more should follow"),
    ],
)
def test_a_broken_line_is_named(tmp_path, number, text, message):
    lines = text_of([[("1", body(1, 1)[n])] for n in range(2)]).splitlines()
    path = write(tmp_path, NAME, changed(lines, number, text) + "\n")
    with pytest.raises(InputError, match=message) as error:
        read_skeletons(path)
    assert str(error.value).startswith(f"{path}:")


def test_other_line_ends_and_twice_the_same_body(tmp_path):
    text = text_of([[("1", body(1, 1)[0])]])
    plain = read_skeletons(write(tmp_path, NAME, text))["1"][1]
    other = tmp_path / f"{NAME}.skeleton"
    other.write_bytes(text.replace("\n", "\r\n\r\n").encode())
    assert np.array_equal(read_skeletons(other)["1"][1], plain)
    twice = [[("1", body(1, 1)[0]), ("1", body(1, 1)[0])]]
    with pytest.raises(InputError, match="body 1, which is twice in frame 1"):
        read_skeletons(write(tmp_path, NAME, twice))
    with pytest.raises(InputError, match="cannot be read"):
        read_skeletons(tmp_path / "gone.skeleton")


# ---------------------------------------------------------------- names and splits


def all_names(setups, subjects, actions=1):
    return [
        f"S{s:03}C{c:03}P{p:03}R001A{a:03}"
        for s in setups
        for c in (1, 2, 3)
        for p in subjects
        for a in range(1, actions + 1)
    ]


def test_splits_are_those_that_were_published():
    names = all_names([1], range(1, 41))
    splits = splits_of(names, "ntu60")
    assert set(splits) == {"xsub_train", "xsub_val", "xview_train", "xview_val"}
    seen = {NtuName.parse(name).subject for name in splits["xsub_train"]}
    assert seen == {1, 2, 4, 5, 8, 9, 13, 14, 15, 16, 17, 18, 19, 25, 27, 28, 31, 34, 35, 38}
    assert {NtuName.parse(name).camera for name in splits["xview_train"]} == {2, 3}
    names = all_names(range(1, 33), range(1, 107))
    splits = splits_of(names, "ntu120")
    subjects = {NtuName.parse(name).subject for name in splits["xsub_train"]}
    assert len(subjects) == 53  # half of 106
    assert {NtuName.parse(name).setup % 2 for name in splits["xset_train"]} == {0}
    for one, other in (("xsub_train", "xsub_val"), ("xset_train", "xset_val")):
        assert sorted(splits[one] + splits[other]) == sorted(names)


@pytest.mark.parametrize("name", ["S001C002P003R002A01", "S000C002P003R002A013", "x", f"{NAME}_"])
def test_other_names_are_refused(name):
    with pytest.raises(ValueError, match="is not named as"):
        NtuName.parse(name)


# ---------------------------------------------------------------- the program


@pytest.mark.parametrize("workers", ["0", "2"])
def test_the_program_makes_a_pickle_to_train_from(tmp_path, workers, capsys):
    folder = tmp_path / "skeletons" / "deeper"
    folder.mkdir(parents=True)
    moving = {name: body(n, 1) for n, name in enumerate(all_names([1], [1, 3], 2))}
    for name, places in moving.items():
        write(folder, name, [[("7", joints)] for joints in places])
    write(folder, "S001C001P005R001A003", [[], []])
    write(folder, "S018C001P005R001A061", [[], []])
    out = tmp_path / "ntu.pkl"
    options = ["--source", str(folder.parent), "--output", str(out), "-j", workers]
    assert program.main(options) == 12
    assert "1 files without any body are left out, such as S001C001P005R001A003" in (
        capsys.readouterr().out
    )
    found = open_annotations(out, None, tmp_path / "cache")
    assert check_annotations(found) == []
    assert found.layout.name == "ntu25"
    assert {name: len(clips) for name, clips in found.splits.items()} == {
        "xsub_train": 6,
        "xsub_val": 6,
        "xview_train": 8,
        "xview_val": 4,
    }
    for name, places in moving.items():
        assert found.label(name) == int(name[-3:]) - 1
        assert np.array_equal(found.keypoints(name)[:, 0, :, :3], places.astype(np.float32))
        assert not found.keypoints(name)[:, 1].any()


def test_the_program_stops_at_a_broken_file_or_leaves_it_out(tmp_path, capsys):
    source = tmp_path / "in"
    source.mkdir()
    write(source, NAME, [[("7", body(1, 1)[0])]])
    broken = write(source, "S001C001P001R001A001", "2\n1\n")
    options = ["--source", str(source), "--output", str(tmp_path / "x.pkl"), "-j", "0"]
    with pytest.raises(InputError, match=f"{broken}:3 ends here.*--skip_broken"):
        program.main(options)
    assert [p.name for p in tmp_path.iterdir()] == ["in"]
    assert program.main([*options, "--skip_broken"]) == 1
    assert f"WARNING: left out: {broken}:3 ends here" in capsys.readouterr().out
    with pytest.raises(SystemExit):  # it is there now
        program.main(options)
    (source / "other.skeleton").write_text("")
    with pytest.raises(InputError, match="other.skeleton is not named as"):
        program.main([*options, "--overwrite"])
