"""Code in a process that has loaded PyTorch and nothing of ours: what an import finds or breaks shows there."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

FRESH = multiprocessing.get_context("forkserver")
FRESH.set_forkserver_preload(["torch", "scipy.spatial"])  # most of what a Python of its own would spend its time on


def run_fresh(code: str, *, cwd: Path, environment: Mapping[str, str], said: Path) -> subprocess.CompletedProcess[str]:
    """Run code as `python -c` does, with exactly these variables; what it says goes through the file `said`."""
    process = FRESH.Process(target=_execute, args=(code, str(cwd), dict(environment), str(said)))
    process.start()
    process.join(120)
    process.kill()
    process.join()
    return subprocess.CompletedProcess(["-c", code], process.exitcode or 0, "", said.read_text())


def _execute(code: str, cwd: str, environment: dict[str, str], said: str) -> None:
    descriptor = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(descriptor, 1), os.dup2(descriptor, 2)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    sys.path.insert(0, cwd)
    exec(compile(code, "<string>", "exec"), {"__name__": "__main__"})
