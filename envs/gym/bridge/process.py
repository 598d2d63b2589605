"""The process behind a bridge: started in a session of its own, killed with all that it has started."""

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
"""Files here are memory; a file without a name elsewhere does as well."""


class BrokenBridge(OSError):
    """The process behind a bridge is gone, hangs or does not understand; the message says which."""


class ChildProcess:
    """The process of `child.py`, its line and the memory that it shares; nothing of them outlives this object.

    Args:
        env: What it shall run, for messages.
        python: The Python that runs it.

    Raises:
        BrokenBridge: If there is no such Python.
    """

    def __init__(self, env: str, python: Path) -> None:
        found = shutil.which(str(python))
        if found is None:
            raise BrokenBridge(f"there is no Python {python} to run {env} with: give python=/path/of/venv/bin/python")
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
        """The last line that a process wrote before it ended, and its exit status."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(5)
        size = self._errors.seek(0, os.SEEK_END)
        self._errors.seek(max(size - 4096, 0))
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        status = self.process.returncode
        how = f" with status {status}" if status is None or status >= 0 else f" by {signal.Signals(-status).name}"
        return how + (f": {lines[-1][:500]}" if lines else "")


def _end(process: subprocess.Popen[bytes], line: socket.socket) -> None:
    """Kill a process with all that it has started, and wait for it."""
    line.close()
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    process.wait()
