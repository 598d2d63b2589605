"""Where figures come from: commit, machine, versions."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from importlib.metadata import version
from pathlib import Path

PACKAGES = ("torch", "mujoco", "numpy")


def commit() -> str:
    """The commit of the code, marked where files differ from it, or "unknown" outside of a repository."""
    if shutil.which("git") is None:
        return "unknown"
    asked = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=12"],
        cwd=Path(__file__).parent, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return asked.stdout.strip() or "unknown"


def machine() -> str:
    """Processor and cores."""
    known = Path("/proc/cpuinfo")
    lines = known.read_text().splitlines() if known.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{os.cpu_count()} x {names[0] if names else platform.machine()}"


def versions() -> dict[str, str]:
    """Python and the packages that matter."""
    return {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}
