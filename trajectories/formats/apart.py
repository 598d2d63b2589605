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
import select
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import numpy as np

from jepa_mpc.errors import BadEpisode
from jepa_mpc.trajectories.guards import GRACE_S, fault

MOST_S = 300.0  # CPU time for one file, however long it is
SPARE_BYTES = 256 << 20
IDLE_S = 0.5  # time without requests after which the process ends
KINDS = "fiub"
Send = Callable[[str, np.ndarray], None]
"""Hands over an array of numbers by its name; called in the forked process, one array after the other."""
Work = Callable[[Send], Any]
"""Sends arrays and returns a JSON value."""
Answer = tuple[Any, Mapping[str, np.ndarray]]
"""The JSON value, and the arrays by name."""


class Crash(BadEpisode):
    """A file ended the process that read it; it is better not tried again."""


class _Idle(Exception):
    """The process has ended because nothing was asked for a while."""


class ForkedReader:
    """Answers requests in a forked process, which is a copy of this one at the first request.

    The process serves further requests as well, since forking takes as long as reading some pictures; it ends after
    half a second without any, and a crash or another fork starts a new one. What it changes in memory stays there.

    For each request it may use 4 s of CPU time and 1 s more for each MB of the file (at most 301 s), and 2 x file +
    256 MB more memory than this process.

    Args:
        serve: Called there with each request, a JSON value, and a function that sends arrays. Returns a JSON value.
    """

    def __init__(self, serve: Callable[[Any, Send], Any]) -> None:
        self._serve = serve
        self._reset()

    def __getstate__(self) -> dict[str, Any]:
        return {"_serve": self._serve}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["_serve"])  # type: ignore[misc]

    def __del__(self) -> None:
        self.close()

    def _reset(self) -> None:
        self._owner, self._lock = os.getpid(), threading.Lock()
        self._process: _Process | None = None

    def ask(self, where: Path, request: Any) -> Answer:
        """The answer to a request that reads the file `where`; tuples in it become lists.

        Raises:
            BadEpisode: If `serve` raises it.
            Crash: If the process crashes or exceeds its limits.
            RuntimeError: If `serve` raises anything else; holds the traceback.
        """
        if self._owner != os.getpid():  # this process was forked, and the reader is that of its parent
            self.close()
            self._reset()
        limits = {"seconds": _seconds(where), "bytes": 2 * _size(where) + SPARE_BYTES}
        line = json.dumps({"request": request, **limits}).encode() + b"\n"
        with self._lock:
            while True:
                self._process = self._process or _start(self._serve)
                try:
                    answer = self._process.ask(line)
                except _Idle:
                    self.close()
                    continue
                except BaseException:  # an interrupt in the middle of an answer, or a mistake in `serve`
                    self.close()
                    raise
                if answer is None:
                    raise _crash(where, self.close())
                break
        if isinstance(answer, BadEpisode):
            raise answer
        return answer

    def close(self) -> int:
        """End the process, if there is one; its exit status."""
        process, self._process = self._process, None
        return process.end(kill=self._owner == os.getpid()) if process else 0


def all_apart(works: Sequence[tuple[Path, Work]]) -> list[Answer | BadEpisode]:
    """What each of several pieces of work makes of its file, or why the file is refused (see `ForkedReader`).

    Args:
        works: The file that a piece reads, and what to do with it.

    Returns:
        Value and arrays of each piece, or the BadEpisode that it raised; a Crash if the process ended.

    Raises:
        RuntimeError: If a piece raises anything but BadEpisode; holds the traceback.
    """
    found: list[Answer | BadEpisode] = []
    with contextlib.closing(ForkedReader(lambda number, send: works[number][1](send))) as process:
        for number, (where, _) in enumerate(works):
            try:
                found.append(process.ask(where, number))
            except BadEpisode as error:
                found.append(error)
    return found


@dataclass(frozen=True)
class _Process:
    """A forked process and the pipes to it."""

    number: int
    requests: int
    answers: BinaryIO

    def ask(self, line: bytes) -> Answer | BadEpisode | None:
        """The answer to a request, or None if the process ended before it was complete."""
        with contextlib.suppress(BrokenPipeError):
            while line:
                line = line[os.write(self.requests, line) :]
        return _received(self.answers)

    def end(self, *, kill: bool) -> int:
        """Close the pipes, and end the process if it is ours; its status, 0 if the program ignores its children."""
        os.close(self.requests)
        self.answers.close()
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            if kill:
                os.kill(self.number, signal.SIGKILL)  # no effect if it has already ended: the status tells how
                return os.waitpid(self.number, 0)[1]
        return 0


def _start(serve: Callable[[Any, Send], Any]) -> _Process:
    (requested, requests), (answers, answered) = os.pipe(), os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python warns of other threads: the child needs none
        child = os.fork()
    if child == 0:
        os.close(requests)
        os.close(answers)
        _run(serve, requested, answered)
    os.close(requested)
    os.close(answered)
    return _Process(child, requests, os.fdopen(answers, "rb"))


def _crash(where: Path, status: int) -> Crash:
    name = signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else "it exits"
    problem = f"crashes the library that reads it ({name})"
    if name == "SIGPROF":
        problem = f"keeps the library that reads it busy for more than {_seconds(where):.0f} s"
    return Crash(str(fault(where, field="file", problem=problem, remedy="restore it, or write it anew")))


def _size(where: Path) -> int:
    """Bytes of a file; 0 if there is none, which the work itself reports better."""
    with contextlib.suppress(OSError):
        return where.stat().st_size
    return 0


def _seconds(where: Path) -> float:
    """Granted CPU time: a second more than `Patience` grants, whose message says more."""
    return min(GRACE_S + _size(where) / 1e6, MOST_S) + 1.0


def _run(serve: Callable[[Any, Send], Any], requested: int, answered: int) -> NoReturn:
    """The forked process: answer requests within limits, and end without any of the parent's clean-up."""
    try:
        for number in (signal.SIGTERM, signal.SIGPROF, signal.SIGALRM):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what an interrupt ends
        faulthandler.disable()
        _lower(resource.RLIMIT_CORE, 0)
        memory, waiting = _memory(), select.poll()
        waiting.register(requested, select.POLLIN)
        with os.fdopen(requested, "rb") as requests, os.fdopen(answered, "wb") as pipe, _mistakes_told(pipe):
            while waiting.poll(IDLE_S * 1000) and (line := requests.readline()):
                told = json.loads(line)
                signal.setitimer(signal.ITIMER_PROF, told["seconds"])
                if memory:
                    _lower(resource.RLIMIT_AS, memory + told["bytes"])
                _say(pipe, _outcome(partial(serve, told["request"]), partial(_send, pipe)))
                pipe.flush()
            _say(pipe, {"idle": True})
    finally:
        os._exit(0)


@contextlib.contextmanager
def _mistakes_told(pipe: BinaryIO) -> Iterator[None]:
    """Send the traceback of an error in the program, which ends the process."""
    try:
        yield
    finally:
        if sys.exc_info()[0] is not None:
            _say(pipe, {"failed": traceback.format_exc()})


def _outcome(work: Work, send: Send) -> dict[str, Any]:
    """What a piece of work returns, or why it refuses the file, as JSON."""
    try:
        return {"value": work(send)}
    except BadEpisode as error:
        return {"refused": str(error)}


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
    """The next answer, or None if the process ended before it was complete.

    Raises:
        _Idle: If it ended before it was asked.
        RuntimeError: If the work failed by a mistake in the program.
    """
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
            case {"idle": True}:
                raise _Idle
            case {"failed": trace}:
                raise RuntimeError(f"reading failed in a process of its own:\n{trace}")
    return None


def _bytes_of(array: np.ndarray) -> memoryview:
    return array.reshape(-1).view(np.uint8).data


def _fill(pipe: BinaryIO, view: memoryview) -> bool:
    while len(view):
        count = pipe.readinto(view)  # type: ignore[attr-defined]
        if not count:
            return False
        view = view[count:]
    return True
