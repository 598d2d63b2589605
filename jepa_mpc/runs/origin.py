"""Provenance of a run: code, machine, versions."""

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
    """The commit of the code, marked if files differ from it; "unknown" outside a repository."""
    return git("describe", "--always", "--dirty", "--abbrev=12", "--exclude=*").decode().strip() or "unknown"


def machine() -> str:
    """CPU model and number of cores."""
    known = Path("/proc/cpuinfo")
    lines = known.read_text().splitlines() if known.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{os.cpu_count()} x {names[0] if names else platform.machine()}"


def versions() -> dict[str, str]:
    """Versions of Python and the relevant packages."""
    return {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}


def git(*arguments: str) -> bytes:
    """Output of git in the checkout; empty without git or outside a repository."""
    if shutil.which("git") is None:
        return b""
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, check=False).stdout
