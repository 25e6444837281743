"""The checkpoint files of one run: written so that no fault leaves the run without one.

A file is serialised beside its place, brought to the disk, read again and compared, and only then
gets its name. `manifest.json` knows the SHA-256 of every file that may be there at any moment: of
what is there now, and of what takes its place next. So a program that is killed between any two
calls of the system leaves a `last.pth.tar` or `previous.pth.tar` that is whole and known.
"""

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import IO, Any

import safetensors.torch
import torch
from torch import Tensor

from errors import InputError
from files import locked, open_regular, partial_of, remove_partials, sync_folder
from manifests import Entry, Manifest, now
from models.reading import read_opened, told_of, training_state
from models.stored import check_plain, find_non_finite
from models.weight_files import FileFault, open_weights

LAST, PREVIOUS, BEST = "last.pth.tar", "previous.pth.tar", "best.pth.tar"
WEIGHTS, MANIFEST, LOCK = "best.safetensors", "manifest.json", ".lock"

Write = Callable[[IO[bytes]], object]


@dataclass(frozen=True, slots=True)
class Restored:
    """A checkpoint to continue from.

    Attributes:
        path: the file.
        content: what it holds.
        troubles: a line for each file that could not be used, or not be compared, and what is done.
    """

    path: Path
    content: dict[str, Any]
    troubles: tuple[str, ...] = ()


class CheckpointFolder:
    """The checkpoints of the run in `path`, and their manifest.

    One program writes at a time: `save_last`, `save_best` and `clean` belong inside `alone`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        # name -> what is known of the file that has it now; None until the files were looked at.
        self._known: dict[str, Entry] | None = None
        self._bad: set[str] = set()

    @property
    def last(self) -> Path:
        """The newest checkpoint."""
        return self.path / LAST

    @property
    def previous(self) -> Path:
        """The checkpoint before `last`."""
        return self.path / PREVIOUS

    @property
    def best(self) -> Path:
        """The checkpoint with the best validation accuracy."""
        return self.path / BEST

    @property
    def best_weights(self) -> Path:
        """The model of `best` alone, as safetensors, with all that testing it needs."""
        return self.path / WEIGHTS

    @property
    def manifest(self) -> Path:
        """The SHA-256 of the files."""
        return self.path / MANIFEST

    # ------------------------------------------------------------ writing

    def save_last(self, payload: Mapping[str, Any]) -> None:
        """Make `payload` the newest checkpoint; the one that was it becomes `previous`.

        Raises:
            InputError: it cannot be written; the earlier files are whole.
            ValueError: it holds more than plain data.
        """
        check_plain(payload)
        with self._saving(LAST):
            entry = self._write(LAST, payload, lambda file: torch.save(dict(payload), file))
            known = self._take_stock()
            after = {**known, LAST: entry}
            turns = self.last.is_file() and LAST not in self._bad
            if turns:
                after.pop(PREVIOUS, None)
                after |= {PREVIOUS: known[LAST]} if LAST in known else {}
            self._announce(after, known)
            if turns:
                self._turn()
            partial_of(self.last).replace(self.last)
            sync_folder(self.path)
            self._now_known(after, LAST, *((PREVIOUS,) if turns else ()))

    def save_best(self, payload: Mapping[str, Any]) -> None:
        """Make `payload` the best checkpoint, and its model `best_weights`.

        Both are on the disk before either gets its name, and the old `best_weights` goes first: a
        program that is killed leaves no pair of files of different epochs.

        Raises:
            InputError: the model has a tensor that is not finite, or the files cannot be written;
                the earlier files are whole.
            ValueError: it holds more than plain data.
        """
        check_plain(payload)
        culprit = find_non_finite(payload["model"])
        if culprit is not None:
            raise InputError(
                f"{self.best} is not replaced: {culprit} of the model of epoch "
                f"{payload.get('epoch')} holds NaN or infinity, so the training has diverged: "
                f"lower --lr, or continue from an earlier checkpoint"
            )
        with self._saving(BEST):
            entry = self._write(BEST, payload, lambda file: torch.save(dict(payload), file))
            weights = self._write(WEIGHTS, payload, lambda file: file.write(_as_tensors(payload)))
            known = self._take_stock()
            after = {**known, BEST: entry, WEIGHTS: weights}
            self._announce(after, known)
            self.best_weights.unlink(missing_ok=True)
            partial_of(self.best).replace(self.best)
            partial_of(self.best_weights).replace(self.best_weights)
            sync_folder(self.path)
            self._now_known(after, BEST, WEIGHTS)

    def _write(self, name: str, payload: Mapping[str, Any], write: Write) -> Entry:
        """Write the file that is to be `name` beside its place, and read it again from the disk."""
        partial = partial_of(self.path / name)
        partial.unlink(missing_ok=True)
        with partial.open("wb") as file:
            hashing = _Hashing(file)
            try:
                write(hashing)  # type: ignore[arg-type]
            except RuntimeError:
                if hashing.fault is None:
                    raise
            if hashing.fault is not None:  # torch hides why it failed, or that it did
                raise hashing.fault
            file.flush()
            os.fsync(file.fileno())
            _forget(file)
        with partial.open("rb") as file:
            if hashlib.file_digest(file, "sha256").digest() != hashing.sum.digest():
                raise OSError(None, "what was written reads back otherwise: the disk is failing")
        return Entry(
            hashing.sum.hexdigest(),
            hashing.size,
            _number(payload.get("epoch")),
            _number(payload.get("step")),
            now(),
        )

    def _announce(self, after: Mapping[str, Entry], before: Mapping[str, Entry]) -> None:
        replaced = {name: entry for name, entry in before.items() if after.get(name) != entry}
        Manifest(after, replaced).write(self.manifest)

    def _turn(self) -> None:
        """Let `previous` name what `last` names; `last` stays, where the file system has links."""
        partial = partial_of(self.previous)
        partial.unlink(missing_ok=True)
        try:
            os.link(self.last, partial)
        except OSError:  # without links there is no `last` for a moment, which `read_last` knows
            self.last.replace(self.previous)
            return
        partial.replace(self.previous)
        partial.unlink(missing_ok=True)  # renaming one name of a file to another keeps both

    def _take_stock(self) -> dict[str, Entry]:
        """Say what is known of the files that are there; once, then by what was done."""
        if self._known is not None:
            return self._known
        manifest, _ = Manifest.read(self.manifest)
        known: dict[str, Entry] = {}
        for name in (LAST, PREVIOUS, BEST, WEIGHTS):
            if not (self.path / name).is_file():
                continue
            digest, size = _sum_of(self.path / name)
            found = manifest.find(digest)
            if found is None and name in manifest.files:
                found = manifest.files[name]
                if digest:  # it is another file: it stays found out
                    self._bad.add(name)
            # One that no manifest knows, as of an older release, is known from now on.
            if found is not None or digest:
                known[name] = found or Entry(digest, size)
        self._known = known
        return known

    def _now_known(self, after: dict[str, Entry], *fresh: str) -> None:
        self._known = after
        self._bad -= set(fresh)

    @contextmanager
    def _saving(self, name: str) -> Iterator[None]:
        """Turn what the system refuses into one line; leave nothing half written."""
        try:
            yield
        except BaseException as error:
            self._known = None  # some of it may be done
            for one in (LAST, PREVIOUS, BEST, WEIGHTS):
                with suppress(OSError):
                    partial_of(self.path / one).unlink(missing_ok=True)
            if isinstance(error, OSError):
                raise InputError(
                    f"{self.path / name} cannot be written ({_reason(error, self.path)}); the "
                    "checkpoints before it are whole: make space or mend the folder, then give the "
                    "same command again"
                ) from error
            raise

    # ------------------------------------------------------------ reading

    def read_last(self) -> Restored:
        """Read the newest checkpoint that is whole: `last`, else `previous`.

        A file is compared with the manifest. Where that fits neither file, the sums inside the
        files alone decide.

        Raises:
            InputError: there is none.
        """
        manifest, trouble = Manifest.read(self.manifest)
        reasons: dict[Path, str] = {}
        for known in (manifest, None):
            for path in (self.last, self.previous):
                try:
                    content = self._read(path, known)
                except FileFault as error:
                    reasons.setdefault(path, error.fault)
                    continue
                return Restored(path, content, self._troubles(path, content, reasons, trouble))
            if not manifest.files:
                break
        way_out = f"start from the weights of {self.best} with --finetune --checkpoint_path, or "
        faults = ", and ".join(f"{path} {reason}" for path, reason in reasons.items())
        raise InputError(
            f"{faults}: {way_out if self.best.is_file() else ''}start anew with --resume none"
        )

    def _read(self, path: Path, manifest: Manifest | None) -> dict[str, Any]:
        """Read a checkpoint that is one of the manifest, if that knows its name."""
        try:
            with open_weights(path) as file:
                is_checked = manifest is not None and path.name in manifest.files
                if is_checked and manifest is not None:
                    _compare(file, path, manifest)
                content = read_opened(file, path, is_checked=is_checked)
        except OSError as error:
            raise FileFault(path, f"cannot be read ({error.strerror or error})") from error
        return training_state(content, path)

    def _troubles(
        self, path: Path, content: Mapping[str, Any], reasons: Mapping[Path, str], trouble: str
    ) -> tuple[str, ...]:
        lines = [f"{self.manifest} {trouble}: nothing but the files themselves says whether they "
                 "are whole"] if trouble else []  # fmt: skip
        at = f"epoch {content['epoch']}, step {content['step']}"
        for bad, reason in reasons.items():
            if bad != path:
                lines.append(f"{bad} {reason}: {path.name} of {at} is used instead")
                self._bad.add(bad.name)
            else:
                lines.append(f"{bad} {reason}, but is whole by its own sums: it is used, at {at}")
        return tuple(lines)

    # ------------------------------------------------------------ the folder

    def clean(self) -> None:
        """Remove what killed programs left half written.

        Raises:
            InputError: it cannot be removed.
        """
        try:
            remove_partials(self.path)
        except OSError as error:
            raise InputError(
                f"{self.path} cannot be written ({_reason(error, self.path)}): mend the folder"
            ) from error

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep other programs from continuing the run; the lock ends with this process.

        Raises:
            InputError: another program is at it, or the folder cannot be written.
        """
        taken = False
        try:
            with locked(self.path / LOCK):
                taken = True
                yield
        except OSError as error:
            if taken:
                raise
            raise InputError(
                f"{self.path} cannot be written ({_reason(error, self.path)}): mend the folder, "
                "or choose another --experiment_path"
            ) from error


class _Hashing:
    """A file to write to that also sums up what is written."""

    def __init__(self, file: IO[bytes]) -> None:
        self.sum, self.size = hashlib.sha256(), 0
        self.fault: OSError | None = None
        self._file = file

    def write(self, data: Any) -> int:
        """Write bytes; remember why it failed, which torch does not tell."""
        try:
            written = self._file.write(data)
        except OSError as error:
            self.fault = error
            raise
        self.sum.update(data)
        self.size += written
        return written

    def flush(self) -> None:
        """Do nothing: the file is flushed when all is written."""


def _forget(file: IO[bytes]) -> None:
    """Ask the system to drop its copy of a file, so that reading it means the disk."""
    if hasattr(os, "posix_fadvise"):
        with suppress(OSError):
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _as_tensors(payload: Mapping[str, Any]) -> bytes:
    """Return the model of a checkpoint as a safetensors file."""
    seen: set[int] = set()
    tensors = {name: _alone(tensor, seen) for name, tensor in payload["model"].items()}
    return safetensors.torch.save(tensors, metadata=told_of(payload, tensors))


def _alone(tensor: Tensor, seen: set[int]) -> Tensor:
    """Return a tensor in memory of its own, on the CPU: safetensors takes no shared memory."""
    own = tensor.detach().cpu().contiguous()
    place = own.untyped_storage().data_ptr()
    is_shared = place in seen or own.untyped_storage().nbytes() != own.nbytes
    seen.add(place)
    return own.clone() if is_shared else own


def _compare(file: BufferedReader, path: Path, manifest: Manifest) -> None:
    """Make sure that an open file is one of the manifest; it then stands at its start again."""
    size, expected = os.fstat(file.fileno()).st_size, manifest.files[path.name]
    found = manifest.find(hashlib.file_digest(file, "sha256").hexdigest())
    file.seek(0)
    if found is not None:
        return
    if size != expected.bytes:
        raise FileFault(path, f"has {size:,} of {expected.bytes:,} bytes, by {MANIFEST}")
    raise FileFault(path, f"is damaged (its SHA-256 is not the one in {MANIFEST})")


def _sum_of(path: Path) -> tuple[str, int]:
    """Return the SHA-256 of a file and its size; "" and 0 if it cannot be read."""
    try:
        with open_regular(path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest(), file.tell()
    except OSError:
        return "", 0


def _number(value: object) -> int | None:
    return value if type(value) is int else None


def _reason(error: OSError, folder: Path) -> str:
    return "its folder is gone" if not folder.is_dir() else str(error.strerror or error)
