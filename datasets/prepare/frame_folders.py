"""A clip's folder of images, checked frame by frame, and linked under the names 00001.jpg on.

The folder that is linked from belongs to the user: nothing in it is renamed, removed or written.
"""

import os
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from datasets.frames import IMAGE_SUFFIXES, NumberedFiles, scan_folder
from datasets.strict_images import check_image
from errors import InputError
from files import LinkMode, holds, link_file, partial_of, read_regular, replacing_folder


@dataclass(frozen=True, slots=True)
class CheckedFrames:
    """The frames of a clip, every one decoded.

    Attributes:
        files: where they are.
        size: (width, height) of all of them, pixels.
        sha256: of the SHA-256 sums (32 bytes each) of the files, in order; hexadecimal.
    """

    files: NumberedFiles
    size: tuple[int, int]
    sha256: str

    def target(self, folder: Path, index: int) -> Path:
        """Return what 0-based frame `index` is called in the prepared `folder`."""
        return folder / f"{index + 1:05d}{self.files.suffix.lower()}"


def check_frames(folder: Path, base: Path) -> CheckedFrames:
    """Decode all images of a folder strictly.

    Args:
        folder: of the clip. Hidden files and those that are no images by name are not looked at.
        base: folder that it has to lie in, also after following links.

    Raises:
        InputError: no folder, no image, a gap in the numbering, something that is no file, an
            image that is not whole or of another size than the first; the first such is named.
    """
    files = scan_folder(folder, _count_images(folder, base))
    first_size: tuple[int, int] | None = None
    total = sha256()
    for index in range(files.count):
        path = files.path(index)
        size, digest = check_image(path)
        first_size = first_size or size
        if size != first_size:
            raise InputError(
                f"{path} is {size[0]}x{size[1]} pixels, the first frame of its clip "
                f"{first_size[0]}x{first_size[1]}: extract the frames of this clip at one size"
            )
        total.update(digest)
    assert first_size is not None
    return CheckedFrames(files, first_size, total.hexdigest())


def _count_images(folder: Path, base: Path) -> int:
    """Count the images of a folder, refusing what only looks like one."""
    inside = base.resolve()
    try:
        if not folder.resolve().is_relative_to(inside):
            raise InputError(f"{folder} leads to {folder.resolve()}, outside of {base}: copy it")
        with os.scandir(folder) as entries:
            images = [entry for entry in entries if _is_image(entry.name)]
            for entry in images:
                _check_entry(folder, entry, inside)
    except FileNotFoundError:
        raise InputError(
            f"{folder} is not there: unpack the download's images again, or remove its row from "
            "the table"
        ) from None
    except OSError as error:
        raise InputError(f"{folder} cannot be read ({error.strerror}): unpack it again") from None
    if not images:
        raise InputError(f"{folder} holds no .jpg or .png frames: unpack the download there")
    return len(images)


def _is_image(name: str) -> bool:
    return name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith(".")


def _check_entry(folder: Path, entry: os.DirEntry[str], inside: Path) -> None:
    if entry.is_symlink() and not Path(entry.path).resolve().is_relative_to(inside):
        raise InputError(
            f"{folder / entry.name} leads out of the download's images: put a copy in its place"
        )
    if not entry.is_file():
        raise InputError(f"{folder / entry.name} is no file: put the frame in its place")


# ---------------------------------------------------------------- linking


def effective_mode(sample: Path, folder: Path, mode: LinkMode) -> LinkMode:
    """Return "copy" where hard links are asked for and the file systems cannot make them.

    Args:
        sample: one of the files to link.
        folder: that the links are to lie below; it is there.
        mode: what is asked for.
    """
    if mode != "hard":
        return mode
    probe = partial_of(folder / "link")
    probe.unlink(missing_ok=True)
    copied = link_file(sample, probe, mode)
    probe.unlink()
    return "copy" if copied else "hard"


def compare_frames(frames: CheckedFrames, folder: Path, mode: LinkMode) -> list[int] | None:
    """Say which frames of a prepared folder are not yet links of the asked kind.

    Returns:
        0-based indices, all with the right content; None when the folder is not there.

    Raises:
        InputError: the folder holds other images, which this program never overwrites.
    """
    if not os.path.lexists(folder):
        return None
    wanted = {frames.target(folder, i).name for i in range(frames.files.count)}
    if folder.is_symlink() or not folder.is_dir():
        raise InputError(f"{folder} is no folder of ours: move it away and run again")
    foreign = [n for n in os.listdir(folder) if _is_image(n) and n not in wanted]  # noqa: PTH208
    if foreign:
        raise InputError(_not_ours(folder, min(foreign)))
    return [i for i in range(frames.files.count) if not _is_linked(frames, folder, i, mode)]


def _is_linked(frames: CheckedFrames, folder: Path, index: int, mode: LinkMode) -> bool:
    source, target = frames.files.path(index), frames.target(folder, index)
    if not os.path.lexists(target):
        return False
    is_same = target.exists() and target.samefile(source)
    if not is_same and not holds(target, read_regular(source, source.stat().st_size)):
        raise InputError(_not_ours(folder, target.name))
    if target.is_symlink() or mode == "symlink":
        return mode == "symlink" and is_same and target.is_symlink()
    return is_same == (mode == "hard")


def _not_ours(folder: Path, name: str) -> str:
    return (
        f"{folder / name} is not a frame of the download as it is now: move {folder} away and run "
        "again"
    )


def link_frames(frames: CheckedFrames, folder: Path, mode: LinkMode, todo: list[int] | None) -> int:
    """Give frames their names in a prepared folder; a new folder appears whole or not at all.

    Args:
        frames: what to link.
        folder: where.
        mode: how.
        todo: what `compare_frames` returned.

    Returns:
        How many were copied because they could not be linked.
    """
    if todo is None:
        with replacing_folder(folder) as partial:
            places = [frames.target(partial, i) for i in range(frames.files.count)]
            return sum(link_file(frames.files.path(i), p, mode) for i, p in enumerate(places))
    copied = 0
    for index in todo:
        target = frames.target(folder, index)
        partial = partial_of(target)
        partial.unlink(missing_ok=True)
        copied += link_file(frames.files.path(index), partial, mode)
        partial.replace(target)
    return copied
