"""Guards against harmful logs: paths out of the folder, special files, false sizes, and inputs that never end.

Every reader opens files through `plain_file`, compares declared sizes with `room` before it allocates, and limits work
on hostile files with `Patience`. One read takes at most 2 x file + 256 MB.
"""

from __future__ import annotations

import os
import stat
import struct
import time
import zlib
from pathlib import Path
from typing import Any

from jepa_mpc.errors import BadEpisode

GRACE_BYTES = 96 << 20
GRACE_S = 3.0
MAX_WORDS = 1000
RATES_HZ = (1e-3, 1e5)
# what third-party parsers raise on malformed bytes; MissingPackage is an ImportError and passes
DECODER_ERRORS = (
    ArithmeticError, AssertionError, AttributeError, BufferError, EOFError, LookupError, MemoryError, NameError,
    OSError, RuntimeError, SyntaxError, TypeError, ValueError, struct.error, zlib.error,
)  # fmt: skip
KINDS = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket", stat.S_IFLNK: "a link",
         stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"}  # fmt: skip


def fault(where: str | Path, *, field: str, problem: str, remedy: str = "", episode: int | None = None) -> BadEpisode:
    """The one form of every error: file, episode, field, problem and remedy on one line."""
    place = where.name if isinstance(where, Path) else where
    at = "" if episode is None else f"episode {episode}: "
    told = " ".join(f"{at}field '{repr(field)[1:-1]}' {problem}".split())
    told = told if len(told) <= MAX_WORDS else told[:MAX_WORDS] + " ..."
    sentence = f"{place}: {told}" + (f"; {remedy}" if remedy else "")
    return BadEpisode(sentence.encode("utf-8", "backslashreplace").decode())


def no_log(path: Path) -> BadEpisode:
    """The error for a missing log; the message says how to make one."""
    remedy = f"name an existing log, or record one in simulated labs: python experiments/collect.py out={path}"
    return fault(str(path), field="file", problem="does not exist", remedy=remedy)


def plain_file(path: Path, root: Path, *, field: str = "file") -> Path:
    """A path checked to be a regular file below a log's folder, without links on the way.

    Args:
        path: The file; it may be the log itself, which the user may give as a link.
        root: The log: its folder, or its only file.
        field: Where the path was read from, for the message.

    Raises:
        BadEpisode: If the path leaves the log, or a part of it is missing, a link, a pipe, a device or a folder instead
            of a
            file.
    """
    parts = path.relative_to(root).parts if path.is_relative_to(root) else ("..",)
    name = "/".join(parts) or root.name
    if ".." in parts or "\0" in str(path):
        raise fault(name, field=field, problem=f"leads out of the log: {str(path)!r}", remedy="restore the log")
    here = root
    for at, part in enumerate(("", *parts)):
        here = here / part
        kind = _kind(here, name, field, follow=at == 0)
        wanted = stat.S_IFREG if at == len(parts) else stat.S_IFDIR
        if kind != wanted:
            problem = f"is {KINDS.get(kind, 'a file in place of a folder')}, not a plain file in this log"
            raise fault(name, field=field, problem=problem, remedy="put the file itself there (cp -rL does so)")
    return path


def _kind(path: Path, name: str, field: str, *, follow: bool) -> int:
    try:
        path.name.encode()
        return stat.S_IFMT(os.stat(path, follow_symlinks=follow).st_mode)
    except FileNotFoundError as error:
        raise fault(name, field=field, problem=f"is missing in {path.parent}", remedy="restore it") from error
    except (OSError, ValueError) as error:  # loops, overlong names, names that are not text
        reason = getattr(error, "strerror", None) or error
        raise fault(name, field=field, problem=f"is no file ({reason})", remedy="rename or restore it") from error


def read_plain(path: Path, root: Path, *, field: str = "file") -> bytes:
    """The bytes of a regular file of a log.

    Raises:
        BadEpisode: If it is not such a file or cannot be read.
    """
    plain_file(path, root, field=field)
    try:
        return path.read_bytes()
    except OSError as error:
        raise fault(path, field=field, problem=f"cannot be read ({error.strerror})", remedy="restore it") from error


def room(path: Path) -> int:
    """Bytes that one read may decode from a file: its size plus a margin, so that a copy also fits."""
    return path.stat().st_size + GRACE_BYTES


def check_room(needed: float, path: Path, *, field: str) -> None:
    """Refuse, before anything is allocated, data that exceeds the memory limit for a file of this size.

    Args:
        needed: Bytes that the header declares.
        path: The file.
        field: What is read.

    Raises:
        BadEpisode: If it is too much.
    """
    if needed > room(path):
        problem = f"needs {needed:.3g} bytes at once, the file has {path.stat().st_size}"
        raise fault(path, field=field, problem=problem, remedy="read fewer steps at once, or store it in parts")


class Patience:
    """A limit on the CPU time for one file.

    Args:
        path: The file.
        seconds_per_mb: Time beyond the first 3 s for each MB of it.
    """

    def __init__(self, path: Path, *, seconds_per_mb: float = 1.0) -> None:
        self.path = path
        self.seconds = GRACE_S + seconds_per_mb * path.stat().st_size / 1e6
        self.until = time.thread_time() + self.seconds

    def check(self) -> None:
        """Raise if the time is spent.

        Raises:
            BadEpisode: If it is.
        """
        if time.thread_time() > self.until:
            problem = f"takes more than {self.seconds:.0f} s for {self.path.stat().st_size} bytes"
            raise fault(self.path, field="file", problem=problem, remedy="write it anew, in smaller files")


def time_step(value: Any, *, where: str | Path, field: str, rate: bool = True) -> float:
    """Declared seconds between two steps; 0 if there are none.

    Args:
        value: The number; None, 0 and non-numbers count as undeclared.
        where: The file.
        field: The header's field.
        rate: Whether the number counts steps per second; else it is the time step itself.

    Raises:
        BadEpisode: If it is negative, not finite or not a plausible rate of a robot (0.001 to 100 000 Hz).
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or value == 0:
        return 0.0
    low, high = RATES_HZ if rate else (1 / RATES_HZ[1], 1 / RATES_HZ[0])
    if not low <= value <= high:
        expected = f"expected {low:g} to {high:g} " + ("steps per second" if rate else "s")
        raise fault(where, field=field, problem=f"is {value!r}", remedy=expected)
    return 1.0 / value if rate else float(value)
