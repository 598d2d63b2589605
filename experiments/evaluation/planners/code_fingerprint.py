"""Fingerprint of the code that played a cell; cells with another fingerprint are played again."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from jepa_mpc.places import ROOT
from jepa_mpc.runs.origin import git

PLANNERS = ROOT / "planners"
PLAYED_BY = ("planners", "envs", "world_model", "jepa_mpc", "experiments/evaluation/planners")
"""Folders of the code that affects the result of a cell."""


@lru_cache(maxsize=2)
def fingerprint(*, baseline: bool = False) -> str:
    """The fingerprint of the present code.

    For cells with a planner it covers the source of the planners; uncommitted changes in any of the packages involved
    affect every fingerprint. Between commits, a task whose results change gets another name.

    Args:
        baseline: Whether there is no planner, so that its source does not matter.
    """
    planners = "" if baseline else f"planners {digest(sorted(PLANNERS.glob('*.py')))}"
    changed = uncommitted()
    return ", ".join(part for part in (planners, changed and f"uncommitted {changed}") if part)


def digest(files: Iterable[Path]) -> str:
    """A hash of names and contents, 12 characters."""
    total = hashlib.sha256()
    for path in files:
        total.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return total.hexdigest()[:12]


def uncommitted() -> str:
    """A hash of uncommitted changes in the packages involved, 12 characters; "" for none."""
    changed = git("diff", "HEAD", "--", *PLAYED_BY)
    names = git("ls-files", "--others", "--exclude-standard", "-z", "--", *PLAYED_BY).decode().split("\0")
    new = [ROOT / name for name in names if name]
    return hashlib.sha256(changed + digest(new).encode()).hexdigest()[:12] if changed or new else ""
