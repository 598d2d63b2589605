"""Hidden workspace folders beside a destination, each with one writer.

A workspace is locked by a file inside it; the system releases the lock when the process ends for any reason. The next
writer clears what a killed writer left.
"""

from __future__ import annotations

import errno
import fcntl
import itertools
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from jepa_mpc.errors import Busy

LOCK = ".writer"


@contextmanager
def workspace(path: Path) -> Iterator[Path]:
    """Lock the workspace of a destination: an empty folder beside it, removed when the block ends.

    Raises:
        Busy: If another writer holds it.
    """
    place = path.with_name(f".{path.name}.tmp")
    handle = _claim(place)
    if handle is None:
        raise Busy(f"another process is writing {path}: wait for it")
    with _held(place, handle):
        yield place


@contextmanager
def free_workspace(path: Path) -> Iterator[Path]:
    """Lock a workspace of a destination with several writers, of which the last one wins.

    Workspaces are numbered from 0 and the first free one is taken, so that the next writer finds what a killed one
    left.
    """
    places = (path.with_name(f".{path.name}.{number}.tmp") for number in itertools.count())
    place, handle = next((place, handle) for place in places if (handle := _claim(place)) is not None)
    with _held(place, handle):
        for later in itertools.takewhile(Path.exists, places):
            _clear_abandoned(later)
        yield place


def clear_workspaces(folder: Path) -> None:
    """Remove unlocked workspaces in a folder."""
    for place in folder.glob(".*.tmp"):
        if place.is_dir() and not place.is_symlink():
            _clear_abandoned(place)


def open_lock(path: Path) -> int:
    """A file to lock, which is made if need be; a link is not followed and a pipe not waited for.

    Raises:
        OSError: If something else than a plain file stands there.
    """
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.EINVAL, f"{path} is no plain file: remove it")
    return handle


def lock(handle: int) -> bool:
    """Lock an open file for this writer; False if another one has locked it."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _clear_abandoned(place: Path) -> None:
    handle = _claim(place)
    if handle is not None:
        with _held(place, handle):
            pass


@contextmanager
def _held(place: Path, handle: int) -> Iterator[None]:
    """Empty a claimed workspace, yield, remove it and release the lock."""
    try:
        _empty(place)
        yield
    finally:
        if _is_at(handle, place / LOCK):  # otherwise the folder was removed manually and this is another writer's
            _remove(place)
        os.close(handle)


def _claim(place: Path) -> int | None:
    """The open lock of a workspace, created if needed; None if another writer holds it."""
    while True:
        with suppress(FileExistsError):  # a prior existence check could race with removal by its holder
            place.mkdir()
        if place.is_symlink():  # what it leads to is not ours to empty
            raise OSError(errno.ELOOP, f"{place.name} is a link: remove it")
        try:
            handle = open_lock(place / LOCK)
        except FileNotFoundError:  # its previous holder has just removed the folder
            continue
        try:
            held = lock(handle)
        except BaseException:
            os.close(handle)
            raise
        if held and _is_at(handle, place / LOCK):
            return handle
        os.close(handle)
        if not held:
            return None


def _empty(place: Path) -> None:
    """Remove everything but the lock."""
    for entry in place.iterdir():
        if entry.name != LOCK:
            _delete(entry)


def _remove(place: Path) -> None:
    """Remove a workspace, the lock last, because the folder may then belong to another writer."""
    try:
        _empty(place)
        (place / LOCK).unlink()
        place.rmdir()
    except OSError:  # already taken over, or not removable now: the next writer clears it
        pass


def _delete(entry: Path) -> None:
    """Delete a file, a link or a folder with its content."""
    if entry.is_dir() and not entry.is_symlink():
        shutil.rmtree(entry)
    else:
        entry.unlink()


def _is_at(handle: int, path: Path) -> bool:
    """Whether an open file is the one at `path`."""
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False
