"""What tells the code that played a cell from other code: cells of another fingerprint are played again."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from jepa_mpc.places import ROOT
from jepa_mpc.runs.origin import git

PLANNERS = ROOT / "planners"
PLAYED_BY = ("planners", "envs", "world_model", "jepa_mpc", "experiments/evaluation/planners")
"""Folders of the code that the result of a cell depends on."""


@lru_cache(maxsize=2)
def fingerprint(*, baseline: bool = False) -> str:
    """The fingerprint of the present code.

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
    changed = git("diff", "HEAD", "--", *PLAYED_BY)
    names = git("ls-files", "--others", "--exclude-standard", "-z", "--", *PLAYED_BY).decode().split("\0")
    new = [ROOT / name for name in names if name]
    return hashlib.sha256(changed + digest(new).encode()).hexdigest()[:12] if changed or new else ""
