"""Where figures come from: code, machine, versions."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
from collections.abc import Iterable
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path

from jepa_mpc.places import ROOT

PACKAGES = ("torch", "mujoco", "numpy")
PLANNERS = ROOT / "planners"
PLAYED_BY = ("planners", "envs", "world_model", "jepa_mpc", "experiments/benchmarking")
"""Folders of the code that the result of a cell depends on."""


def commit() -> str:
    """The commit of the code, marked where files differ from it, or "unknown" outside of a repository."""
    return _git("describe", "--always", "--dirty", "--abbrev=12").decode().strip() or "unknown"


@lru_cache(maxsize=2)
def fingerprint(*, baseline: bool = False) -> str:
    """What tells the code that plays a cell from other code: cells of another fingerprint are played again.

    The source of the planners counts for every cell that plans; changes that are not committed, in any of the packages
    that play, count for all. Between commits, tasks whose results change get another name.

    Args:
        baseline: Whether nothing is planned, so that planners do not matter.
    """
    planners = "" if baseline else f"planners {digest(sorted(PLANNERS.glob('*.py')))}"
    changed = uncommitted()
    return ", ".join(part for part in (planners, changed and f"uncommitted {changed}") if part)


def digest(files: Iterable[Path]) -> str:
    """A hash of names and contents, in 12 letters."""
    total = hashlib.sha256()
    for path in files:
        total.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return total.hexdigest()[:12]


def uncommitted() -> str:
    """A hash of what differs from the commit in the packages that play, in 12 letters; "" for nothing."""
    changed = _git("diff", "HEAD", "--", *PLAYED_BY)
    names = _git("ls-files", "--others", "--exclude-standard", "-z", "--", *PLAYED_BY).decode().split("\0")
    new = [ROOT / name for name in names if name]
    return hashlib.sha256(changed + digest(new).encode()).hexdigest()[:12] if changed or new else ""


def machine() -> str:
    """Processor and cores."""
    known = Path("/proc/cpuinfo")
    lines = known.read_text().splitlines() if known.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{os.cpu_count()} x {names[0] if names else platform.machine()}"


def versions() -> dict[str, str]:
    """Python and the packages that matter."""
    return {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}


def _git(*arguments: str) -> bytes:
    """What git answers; nothing without git or outside of a repository."""
    if shutil.which("git") is None:
        return b""
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, check=False).stdout
