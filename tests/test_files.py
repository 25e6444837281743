"""Files that are there whole or not at all, and links that leave the original alone."""

import errno
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from errors import InputError, printable
from files import (
    alone_in,
    holds,
    link_file,
    partial_of,
    read_regular,
    remove_partials,
    replacing,
    replacing_folder,
    write_text,
)

ROOT = Path(__file__).resolve().parent.parent


def names(folder):
    return sorted(path.name for path in folder.rglob("*"))


def test_a_file_is_replaced_at_the_end_of_the_block(tmp_path):
    path = tmp_path / "a b.txt"
    path.write_text("old")
    with replacing(path) as file:
        file.write(b"new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert names(tmp_path) == ["a b.txt"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, OSError(errno.ENOSPC, "full")])
def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path, error):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def fail():
        with replacing(path) as file:
            file.write(b"half")
            raise error

    with pytest.raises(type(error) if isinstance(error, Exception) else error):
        fail()
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / "clip"
    partial_of(path).mkdir()
    (partial_of(path) / "stale").write_text("")

    def fail():
        with replacing_folder(path) as folder:
            (folder / "1").write_text("")
            raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        fail()
    assert names(tmp_path) == []
    with replacing_folder(path) as folder:
        assert names(folder) == []
        (folder / "1").write_text("")
        assert not path.exists()
    assert names(tmp_path) == ["1", "clip"]


def test_a_killed_process_leaves_only_a_hidden_partial(tmp_path):
    code = (
        f"import sys, os; sys.path.insert(0, {str(ROOT)!r})\n"
        "from pathlib import Path\n"
        "from files import replacing, replacing_folder\n"
        f"root = Path({str(tmp_path)!r})\n"
        "with replacing(root / 'a.txt') as file, replacing_folder(root / 'clip') as folder:\n"
        "    file.write(b'half'); file.flush(); (folder / '1').write_text('')\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == -9
    assert all(path.name.startswith(".") for path in tmp_path.iterdir())
    assert remove_partials(tmp_path) == 2
    assert names(tmp_path) == []


def test_remove_partials_takes_nothing_else(tmp_path):
    (tmp_path / "sub" / ".c.partial").mkdir(parents=True)
    (tmp_path / "sub" / ".c.partial" / "1.jpg").write_text("")
    (tmp_path / ".x.partial").write_text("")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("")
    (tmp_path / "sub" / ".link.partial").symlink_to(outside)
    for kept in (".hidden", "a.partial", "sub/b.partial.txt"):
        (tmp_path / kept).write_text("")
    assert remove_partials(tmp_path) == 3
    assert names(tmp_path) == [
        ".hidden", "a.partial", "b.partial.txt", "kept", "outside", "sub",
    ]  # fmt: skip
    assert remove_partials(tmp_path / "nowhere") == 0


def test_text_has_plain_line_ends(tmp_path):
    write_text(tmp_path / "a", "é\nb\n")
    assert (tmp_path / "a").read_bytes() == b"\xc3\xa9\nb\n"


@pytest.mark.parametrize(
    ("mode", "is_same", "is_link"),
    [("hard", True, False), ("copy", False, False), ("symlink", True, True)],
)
def test_kinds_of_links(tmp_path, mode, is_same, is_link, monkeypatch):
    source, target = tmp_path / "sub" / "s p ü.jpg", tmp_path / "target.jpg"
    source.parent.mkdir()
    source.write_bytes(b"frame")
    monkeypatch.chdir(tmp_path)
    assert link_file(Path("sub/s p ü.jpg"), target, mode) is (mode == "copy")
    assert target.read_bytes() == b"frame"
    assert target.samefile(source) is is_same
    assert target.is_symlink() is is_link
    if is_link:
        assert target.readlink().is_absolute()


def test_a_hard_link_to_what_a_link_names(tmp_path):
    (tmp_path / "s").write_bytes(b"frame")
    (tmp_path / "l").symlink_to("s")
    link_file(tmp_path / "l", tmp_path / "t")
    assert not (tmp_path / "t").is_symlink()
    assert (tmp_path / "t").samefile(tmp_path / "s")


@pytest.mark.parametrize("code", [errno.EXDEV, errno.EPERM, errno.ENOTSUP, errno.EMLINK])
def test_a_refused_hard_link_becomes_a_copy(tmp_path, monkeypatch, code):
    def refuse(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "link", refuse)
    (tmp_path / "s").write_bytes(b"frame")
    assert link_file(tmp_path / "s", tmp_path / "t")
    assert (tmp_path / "t").read_bytes() == b"frame"
    assert not (tmp_path / "t").samefile(tmp_path / "s")


def test_other_faults_of_a_link_are_not_hidden(tmp_path):
    (tmp_path / "s").write_bytes(b"frame")
    (tmp_path / "t").write_bytes(b"there")
    for mode in ("hard", "symlink"):
        with pytest.raises(FileExistsError):
            link_file(tmp_path / "s", tmp_path / "t", mode)
    with pytest.raises(FileNotFoundError):
        link_file(tmp_path / "no", tmp_path / "u")


def test_only_regular_files_of_reasonable_size_are_read(tmp_path):
    path = tmp_path / "f"
    path.write_bytes(b"12345")
    assert read_regular(path, 5) == b"12345"
    with pytest.raises(OSError, match="more than 4 bytes"):
        read_regular(path, 4)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    for odd in (tmp_path / "pipe", tmp_path / "zero"):
        done = threading.Thread(target=lambda odd=odd: _expect_refusal(odd), daemon=True)
        done.start()
        done.join(5)
        assert not done.is_alive()
    with pytest.raises(IsADirectoryError):
        read_regular(tmp_path, 5)
    with pytest.raises(FileNotFoundError):
        read_regular(tmp_path / "no", 5)


def _expect_refusal(path):
    with pytest.raises(OSError, match="not a regular file"):
        read_regular(path, 5)


def test_holds_compares_content(tmp_path):
    path = tmp_path / "f"
    assert not holds(path, b"")
    path.write_bytes(b"12345")
    assert holds(path, b"12345")
    assert not holds(path, b"12346")
    assert not holds(path, b"123456")
    assert not holds(tmp_path, b"")


def test_any_name_can_be_shown():
    assert printable("clip é 1.jpg") == "clip é 1.jpg"
    assert printable("a\x1b[31m\n\udcff\u202e") == r"a\x1b[31m\n\udcff\u202e"


def test_one_program_at_a_time_in_a_folder(tmp_path):
    folder = tmp_path / "poses"
    code = (
        f"import sys, time; sys.path.insert(0, {str(ROOT)!r})\n"
        "from pathlib import Path\nfrom files import alone_in\n"
        f"with alone_in(Path({str(folder)!r})):\n    print('in', flush=True)\n    time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"in\n"
        refused = pytest.raises(InputError, match="poses is being written by another program")
        with refused, alone_in(folder, seconds=0.1):
            pytest.fail("two at once")
        other.kill()
        other.wait()
        with alone_in(folder):
            pass


def test_a_full_disk_names_what_is_written(tmp_path):
    with pytest.raises(OSError, match="out.txt"), replacing(tmp_path / "out.txt"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert list(tmp_path.iterdir()) == []
