"""Where the figures of a run come from: code, machine, versions."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from importlib.metadata import version
from pathlib import Path

from jepa_mpc.places import ROOT

PACKAGES = ("torch", "mujoco", "numpy")


def commit() -> str:
    """The commit of the code, marked where files differ from it, or "unknown" outside of a repository."""
    return git("describe", "--always", "--dirty", "--abbrev=12", "--exclude=*").decode().strip() or "unknown"


def machine() -> str:
    """Processor and cores."""
    known = Path("/proc/cpuinfo")
    lines = known.read_text().splitlines() if known.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{os.cpu_count()} x {names[0] if names else platform.machine()}"


def versions() -> dict[str, str]:
    """Python and the packages that matter."""
    return {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}


def git(*arguments: str) -> bytes:
    """What git answers in the checkout; nothing without git or outside of a repository."""
    if shutil.which("git") is None:
        return b""
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, check=False).stdout
