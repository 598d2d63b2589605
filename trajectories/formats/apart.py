"""Work on untrusted files in a process of its own, for libraries that crash or loop on damaged ones.

libhdf5 does both: a few changed bytes in a heap, an index or a filter end in a segmentation fault, an endless loop or
gigabytes of memory, and nothing in the same process can stop it. The forked process has its own limits on CPU time and
memory. It answers with JSON and the bytes of arrays; nothing is unpickled.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import resource
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from math import ceil
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import numpy as np

from jepa_mpc.errors import BadEpisode
from jepa_mpc.trajectories.guards import GRACE_S, fault

MOST_S = 300.0  # CPU time for one file, however long it is
SPARE_BYTES = 256 << 20
KINDS = "fiub"
Send = Callable[[str, np.ndarray], None]
"""Hands over an array of numbers by its name; called in the forked process, one array after the other."""
Work = Callable[[Send], Any]
"""Sends arrays and returns a JSON value."""
Answer = tuple[Any, Mapping[str, np.ndarray]]
"""The JSON value, and the arrays by name."""


class Crash(BadEpisode):
    """A file ended the process that read it; it is better not tried again."""


def all_apart(works: Sequence[tuple[Path, Work]]) -> list[Answer | BadEpisode]:
    """What each of several pieces of work makes of its file, or why the file is refused.

    One forked process does them in order; after a crash, another one goes on with the next piece. For each piece, the
    process may use 4 s of CPU time and 1 s more for each MB of the file (at most 301 s), and 2 x file + 256 MB more
    memory than this process. What the work changes in memory is lost.

    Args:
        works: The file that a piece reads, and what to do with it. In its JSON value, tuples become lists.

    Returns:
        Value and arrays of each piece, or the BadEpisode that it raised; a Crash if the process ended.

    Raises:
        RuntimeError: If a piece raises anything but BadEpisode; holds the traceback.
    """
    found: list[Answer | BadEpisode] = []
    while len(found) < len(works):
        found += _from_one_process(works[len(found) :])
    return found


def _from_one_process(works: Sequence[tuple[Path, Work]]) -> list[Answer | BadEpisode]:
    """The answers of one forked process; if it crashes, the last one says so."""
    found: list[Answer | BadEpisode] = []
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python warns of other threads: the child needs none
        child = os.fork()
    if child == 0:
        _serve(works, writing)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        try:
            while len(found) < len(works) and (answer := _received(pipe)) is not None:
                found.append(answer)
        finally:
            os.kill(child, signal.SIGKILL)  # it has nothing left to do, or nobody waits for it
            status = _ended(child)
    if len(found) < len(works):
        found.append(_crash(works[len(found)][0], status))
    return found


def _ended(child: int) -> int:
    """The status of an ended process; 0 where the program ignores what becomes of its children."""
    with contextlib.suppress(ChildProcessError):
        return os.waitpid(child, 0)[1]
    return 0


def _crash(where: Path, status: int) -> Crash:
    name = signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else "it exits"
    problem = f"crashes the library that reads it ({name})"
    if name == "SIGXCPU":
        problem = f"keeps the library that reads it busy for more than {_seconds(where)} s"
    return Crash(str(fault(where, field="file", problem=problem, remedy="restore it, or write it anew")))


def _size(where: Path) -> int:
    """Bytes of a file; 0 if there is none, which the work itself reports better."""
    with contextlib.suppress(OSError):
        return where.stat().st_size
    return 0


def _seconds(where: Path) -> int:
    """Granted CPU time: up to a second more than `Patience` grants, whose message says more."""
    return int(min(GRACE_S + _size(where) / 1e6, MOST_S)) + 1


def _serve(works: Sequence[tuple[Path, Work]], writing: int) -> NoReturn:
    """The forked process: work within limits, send the answers, and end without any of the parent's clean-up."""
    try:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGXCPU, signal.SIGALRM):
            signal.signal(number, signal.SIG_DFL)
        faulthandler.disable()
        _lower(resource.RLIMIT_CORE, 0)
        memory = _memory()
        with os.fdopen(writing, "wb") as pipe:
            for where, work in works:
                _lower(resource.RLIMIT_CPU, ceil(time.process_time()) + _seconds(where))
                if memory:
                    _lower(resource.RLIMIT_AS, memory + 2 * _size(where) + SPARE_BYTES)
                _say(pipe, _outcome(work, partial(_send, pipe)))
                pipe.flush()
    finally:
        os._exit(0)


def _outcome(work: Work, send: Send) -> dict[str, Any]:
    """What a piece of work returns or raises, as JSON."""
    try:
        return {"value": work(send)}
    except BadEpisode as error:
        return {"refused": str(error)}
    except BaseException:  # noqa: BLE001  a mistake in the program, which must not run on in two processes
        return {"failed": traceback.format_exc()}


def _send(pipe: BinaryIO, name: str, array: np.ndarray) -> None:
    _say(pipe, {"array": [name, array.dtype.str, array.shape]})
    pipe.write(_bytes_of(np.ascontiguousarray(array)))


def _say(pipe: BinaryIO, message: Mapping[str, Any]) -> None:
    pipe.write(json.dumps(message).encode() + b"\n")


def _memory() -> int:
    """Address space of this process in bytes; 0 where the system does not tell."""
    if sys.platform != "linux":
        return 0
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def _lower(kind: int, most: int) -> None:
    """Set a limit of this process, below the one that nobody can raise."""
    hard = resource.getrlimit(kind)[1]
    resource.setrlimit(kind, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


def _received(pipe: BinaryIO) -> Answer | BadEpisode | None:
    """The next answer, or None if the process ended before it was complete."""
    arrays: dict[str, np.ndarray] = {}
    while (line := pipe.readline()).endswith(b"\n"):
        match json.loads(line):
            case {"array": [name, kind, shape]}:
                dtype = np.dtype(kind)
                assert dtype.kind in KINDS, kind
                arrays[name] = np.empty(shape, dtype)
                if not _fill(pipe, _bytes_of(arrays[name])):
                    return None
            case {"value": value}:
                return value, arrays
            case {"refused": sentence}:
                return BadEpisode(sentence)
            case {"failed": trace}:
                raise RuntimeError(f"reading failed in a process of its own:\n{trace}")
    return None


def _bytes_of(array: np.ndarray) -> memoryview:
    return memoryview(array.reshape(-1).view(np.uint8))


def _fill(pipe: BinaryIO, view: memoryview) -> bool:
    while len(view):
        count = pipe.readinto(view)  # type: ignore[attr-defined]
        if not count:
            return False
        view = view[count:]
    return True
