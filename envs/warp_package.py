"""MuJoCo Warp, imported on use."""

from __future__ import annotations

from typing import Any

from jepa_mpc.errors import MissingPackage


def import_warp(wanted_by: str) -> tuple[Any, Any]:
    """The packages warp and mujoco_warp, with output disabled.

    Raises:
        MissingPackage: If mujoco-warp is not installed.
    """
    try:
        import warp

        config: Any = warp.config
        if hasattr(warp, "LOG_WARNING"):
            config.log_level = warp.LOG_WARNING
        else:
            config.quiet = True  # versions before 1.19
        import mujoco_warp
    except ImportError as error:
        raise MissingPackage("mujoco-warp", wanted_by) from error
    return warp, mujoco_warp
