"""Compatible versions for environment packages that do not support the newest ones."""

from __future__ import annotations

from collections.abc import Mapping

WORKING: Mapping[str, str] = {
    "gymnasium_robotics": "gymnasium-robotics==1.4.2 'mujoco<=3.10'",
    "metaworld": "metaworld==3.1.1 packaging 'mujoco<=3.10'",
    "robosuite": "robosuite==1.5.2 mujoco==3.6.0",
}
"""Packages that need older dependencies: what to install into a separate virtual environment."""


def version_advice(name: str) -> str:
    """What to install for an id like `gymnasium_robotics:FetchPush-v4`; empty for other packages."""
    wanted = WORKING.get(name.partition(":")[0])
    if wanted is None:
        return ""
    return f"; it works in an environment of its own (pip install {wanted}), whose Python is given as python="
