"""The child process of a bridge: started in its own session, killed with all its children."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import weakref
from pathlib import Path
from typing import IO

CHILD = Path(__file__).with_name("child.py")
SHARED = Path("/dev/shm")
"""Shared-memory folder; an anonymous file elsewhere works as well."""


class BrokenBridge(OSError):
    """The child process of a bridge ended, hangs or sends invalid messages; the message says which."""


class ChildProcess:
    """The process of `child.py`, its socket and its shared memory; all are released with this object.

    Args:
        env: Name of its environment, for messages.
        python: The Python that runs it.

    Raises:
        BrokenBridge: If the interpreter does not exist.
    """

    def __init__(self, env: str, python: Path) -> None:
        found = shutil.which(str(python))
        if found is None:
            raise BrokenBridge(f"there is no Python {python} to run {env} with: pass python=/path/of/venv/bin/python")
        self.python = python
        self.memory: IO[bytes] = tempfile.TemporaryFile(dir=SHARED if SHARED.is_dir() else None)  # noqa: SIM115
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
        self.line, far = socket.socketpair()
        handed = (far.fileno(), self.memory.fileno())
        self.process = subprocess.Popen(
            [found, str(CHILD), *map(str, handed)],
            pass_fds=handed,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self._errors,
            start_new_session=True,
        )
        far.close()
        self.end = weakref.finalize(self, _end, self.process, self.line)

    def last_words(self) -> str:
        """The last line of a process's output, and its exit status."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(5)
        size = self._errors.seek(0, os.SEEK_END)
        self._errors.seek(max(size - 4096, 0))
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        status = self.process.returncode
        how = f" with status {status}" if status is None or status >= 0 else f" by {signal.Signals(-status).name}"
        return how + (f": {lines[-1][:500]}" if lines else "")


def _end(process: subprocess.Popen[bytes], line: socket.socket) -> None:
    """Kill a process with all its children, and wait for it."""
    line.close()
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    process.wait()
