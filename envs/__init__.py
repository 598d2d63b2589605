"""Simulated robots and labs: everything that imports mujoco or dm_control."""

from __future__ import annotations

import os

if not os.environ.get("DISPLAY"):  # must be set before mujoco is imported
    os.environ.setdefault("MUJOCO_GL", "egl")
