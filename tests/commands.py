"""Commands of experiments/ in the process of the tests, which has already loaded what another Python would load."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import torch

EXPERIMENTS = Path(__file__).resolve().parents[1] / "experiments"


def command(script: str, *options: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `python experiments/SCRIPT.py OPTION ...` in a folder; answers its exit status and what it said.

    What a command changes of the process (folder, variables, handlers, threads) is put back. Tests of kills, signals
    and first imports need a process of their own instead.
    """
    path = EXPERIMENTS / f"{script}.py"
    out, err = io.StringIO(), io.StringIO()
    with (
        _kept(),
        mock.patch.dict(os.environ, {"NO_COLOR": "1", **environment}),
        mock.patch.object(sys, "argv", [str(path), *options]),
        mock.patch.object(sys, "path", [str(EXPERIMENTS), *sys.path]),
        contextlib.chdir(cwd),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        status = _status(path)
    return subprocess.CompletedProcess([script, *options], status, out.getvalue(), err.getvalue())


def _status(path: Path) -> int:
    """The exit status of a script, as Python itself would give it."""
    try:
        runpy.run_path(str(path), run_name="__main__")
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return end.code or 0
        sys.stderr.write(f"{end.code}\n")
        return 1
    return 0


@contextlib.contextmanager
def _kept() -> Iterator[None]:
    """Put back the handlers of signals and logging and the number of threads."""
    signals = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    root, threads = logging.getLogger(), torch.get_num_threads()
    handlers, level = root.handlers[:], root.level
    try:
        yield
    finally:
        for number, handler in signals.items():
            signal.signal(number, handler)
        root.handlers[:], root.level = handlers, level
        torch.set_num_threads(threads)
