"""What the user names as a source: files, folders, lists, addresses, cameras."""

from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from datasets.prepare.video_table import natural_key
from datasets.video_files import VIDEO_SUFFIXES
from errors import InputError
from files import read_regular
from prediction.frames import ImageFolder, Source, VideoFile, count_images
from prediction.places import ANNOTATED, is_prediction
from prediction.streams import SCHEMES, Camera, Stream

_LONGEST_LIST = 10_000_000  # bytes
_LONGEST_NAME = 4096
_MOST_CAMERAS = 3  # digits of a camera's number


def find_sources(
    names: Sequence[str],
    fps: float | None = None,
    on_left_out: Callable[[Path], None] = lambda _: None,
) -> list[Source]:
    """Find what the user names.

    Args:
        names: each a video file, a folder of numbered images, a folder with videos in it or below,
            a text file with one of these in a line, an address, or the number of a camera.
        fps: of folders of images.
        on_left_out: called with each annotated video of an earlier prediction in a folder. These
            are drawn upon and no sources, unless they are named themselves.

    Returns:
        The sources, videos of a folder in natural order. A file that is not there or no video is
        among them: opening it says what is wrong, and the others go on.

    Raises:
        InputError: a name is empty; a folder or list has nothing in it.
    """
    return [source for name in names for source in _find(name, fps, on_left_out)]


def shown_name(name: str) -> str:
    """Return what the user named without what may be secret in an address."""
    return Stream(name).name if "://" in name else name


def _find(name: str, fps: float | None, on_left_out: Callable[[Path], None]) -> list[Source]:
    if not name.strip():  # as of a variable that is not set; a path of it would be this folder
        raise InputError(
            "--source is empty: name a video, a folder, a list, an address or a camera"
        )
    if len(name) > _LONGEST_NAME or "\0" in name:
        raise InputError(
            f"--source {name[:60]!r}... is no name of a file or address (at most {_LONGEST_NAME} "
            "letters): correct it"
        )
    path = Path(name)
    scheme = _scheme(name)
    if scheme in SCHEMES:
        return [Stream(name)]
    if scheme and not _is_there(path):
        raise InputError(
            f"--source {name}: addresses begin with {', '.join(SCHEMES)}; name a file by its path"
        )
    if name.isdigit() and len(name) <= _MOST_CAMERAS and not _is_there(path):
        return [Camera(int(name))]
    if _is_there(path) and path.is_dir():
        return _in_folder(path, fps, on_left_out)
    if path.suffix.lower() == ".txt" and _is_there(path) and path.is_file():
        return _in_list(path, fps, on_left_out)
    return [VideoFile(path)]


def _scheme(name: str) -> str:
    try:
        return urlsplit(name).scheme.lower() if "://" in name else ""
    except ValueError as error:  # an address of a machine that is none
        raise InputError(f"--source {name[:200]!r} is no address ({error}): correct it") from None


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a part of the name is longer than any can be
        return False


def _in_folder(
    folder: Path, fps: float | None, on_left_out: Callable[[Path], None]
) -> list[Source]:
    found = _videos_in(folder)
    ours = [path for path in found if path.name == ANNOTATED and is_prediction(path.parent)]
    for path in ours:
        on_left_out(path)
    videos = sorted(set(found) - set(ours))
    if videos:
        videos.sort(key=lambda path: natural_key(str(path.relative_to(folder))))
        return [VideoFile(path) for path in videos]
    if ours:
        raise InputError(
            f"{folder} holds no videos but {len(ours)} that predict.py has drawn upon: name "
            "another folder, or the file itself"
        )
    if count_images(folder):
        return [ImageFolder(folder, fps)]
    raise InputError(
        f"{folder} holds neither videos ({', '.join(VIDEO_SUFFIXES[:4])}, ...) nor "
        "numbered images: name a folder that does"
    )


def _videos_in(folder: Path) -> list[Path]:
    try:
        return [
            path
            for path in folder.rglob("*")
            if path.suffix.lower() in VIDEO_SUFFIXES
            and not path.name.startswith(".")
            and path.is_file()
        ]
    except OSError as error:
        raise InputError(
            f"{folder} cannot be read ({error.strerror}): name a folder of videos"
        ) from None


def _in_list(path: Path, fps: float | None, on_left_out: Callable[[Path], None]) -> list[Source]:
    try:
        lines = read_regular(path, _LONGEST_LIST).decode("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        raise InputError(
            f"{path} cannot be read ({reason}): a list has the path of a video in each line"
        ) from None
    names = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    found: list[Source] = []
    for name in names:
        is_path = "://" not in name and not name.isdigit()
        entry = str(path.parent / name) if is_path else name
        if entry.lower().endswith(".txt"):
            raise InputError(f"{path} names another list, {name}: name videos in it")
        found += _find(entry, fps, on_left_out)
    if not found:
        raise InputError(f"{path} is empty: a list has the path of a video in each line")
    return found
