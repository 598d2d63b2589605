"""Files and folders that appear whole or not at all.

Everything is written beside its destination, flushed to the disk and then renamed over it. A crash, a kill or a full
disk leaves what stood there before.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from jepa_mpc.errors import Busy

Json = Mapping[str, "Json"] | Sequence["Json"] | str | int | float | bool | None


@contextmanager
def atomic_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary path to write to; publish it as `path` when the block ends without an error.

    The temporary file lies in the same folder and keeps the suffix (video writers look at it). Missing parent folders
    are made. If the block raises, the temporary file is removed and `path` stays as it was.

    Args:
        path: Where the file shall appear.

    Raises:
        OSError: If the disk is full or the place cannot be written; names `path`.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")
    try:
        with _naming(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            if path.exists():
                shutil.copymode(path, temporary)
            _flush(temporary)
            os.replace(temporary, path)
            _flush(path.parent)
    finally:
        if temporary.exists():
            temporary.unlink()


@contextmanager
def atomic_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give an empty temporary folder to fill; publish it as `path` when the block ends without an error.

    A folder that stood at `path` is replaced as a whole. It stays readable until the new one is complete: between the
    two renames it is found by `published`. One folder has one writer at a time; what a killed one left is cleared.

    Args:
        path: Where the folder shall appear.

    Raises:
        Busy: If another process is writing the same folder.
        OSError: If the disk is full or the place cannot be written; names `path`.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.tmp")
    with _naming(path):
        temporary.parent.mkdir(parents=True, exist_ok=True)
    with _claimed(temporary, path):
        try:
            with _naming(path):
                yield temporary
                publish_folder(temporary, path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def only_writer(folder: str | os.PathLike[str], *, what: str = "training") -> Iterator[None]:
    """Hold a folder, which is made if need be; the system lets go of it even if the process is killed.

    Args:
        folder: What is held.
        what: What the holder does, for the message to others.

    Raises:
        Busy: If another process holds it.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.seek(0)
            holder = lock.read().strip()
            who = f" (process {holder})" if holder else ""
            raise Busy(f"another {what}{who} writes to {folder}: wait for it or name another folder") from error
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def publish_folder(draft: str | os.PathLike[str], path: str | os.PathLike[str]) -> None:
    """Put a folder that is complete where `path` is, as a whole; what stood there goes.

    Args:
        draft: The folder, beside its destination.
        path: Where it shall appear.

    Raises:
        OSError: If the place cannot be written; `path` is then as it was.
    """
    draft = Path(draft)
    for entry in (*draft.rglob("*"), draft):
        _flush(entry)
    _swap(draft, Path(path))


def published(folder: str | os.PathLike[str]) -> Path:
    """The folder itself, or the older one that a writer killed in mid-swap has left beside it."""
    folder = Path(folder)
    previous = _previous(folder)
    return previous if not folder.exists() and previous.exists() else folder


def write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file whole or not at all.

    Raises:
        OSError: If the disk is full or the place cannot be written; names `path`.
    """
    with atomic_file(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a UTF-8 text file whole or not at all.

    Raises:
        OSError: If the disk is full or the place cannot be written; names `path`.
    """
    write_bytes(path, text.encode())


def write_json(path: str | os.PathLike[str], value: Json) -> None:
    """Write a JSON file whole or not at all.

    Raises:
        TypeError: If `value` holds something that JSON does not know.
        ValueError: If `value` holds NaN or an infinity.
        OSError: If the disk is full or the place cannot be written; names `path`.
    """
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def _previous(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.previous")


def _swap(new: Path, path: Path) -> None:
    """Put `new` where `path` is; the old folder is deleted last."""
    previous = _previous(path)
    if path.exists():
        shutil.rmtree(previous, ignore_errors=True)
        os.rename(path, previous)
    try:
        os.rename(new, path)
    except OSError:
        if previous.exists():
            os.rename(previous, path)
        raise
    _flush(path.parent)
    shutil.rmtree(previous, ignore_errors=True)


@contextmanager
def _claimed(temporary: Path, path: Path) -> Iterator[None]:
    """Make a temporary folder that is empty and locked; the lock is on the folder itself, so that nothing is left."""
    handle = None
    while handle is None:
        with _naming(path):
            temporary.mkdir(exist_ok=True)
        handle = _locked(temporary, path)
    try:
        for entry in temporary.iterdir():
            shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
        yield
    finally:
        os.close(handle)


def _locked(temporary: Path, path: Path) -> int | None:
    """A handle that locks the folder, or None if the folder was moved away meanwhile."""
    try:
        handle = os.open(temporary, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if temporary.stat().st_ino == os.fstat(handle).st_ino:
            return handle
    except BlockingIOError as error:
        os.close(handle)
        raise Busy(f"another process is writing {path}: wait for it") from error
    except FileNotFoundError:
        pass
    os.close(handle)
    return None


def _flush(path: Path) -> None:
    """Wait until a file or the entries of a folder are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Let an OSError name the file that was to be written."""
    try:
        yield
    except Busy:
        raise
    except OSError as error:
        reason = error.strerror or str(error)
        raise OSError(
            error.errno or errno.EIO, f"could not write ({reason}); nothing there was changed", str(path)
        ) from error
