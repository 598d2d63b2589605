"""What the programs of README and docs find when they start: small logs, films, networks and pictures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Names = dict[str, Any]


def film(folder: Path) -> Names:
    """A video of twenty frames, clip.mp4."""
    import imageio.v2 as imageio

    frames = np.random.default_rng(0).integers(0, 255, (20, 64, 64, 3), dtype=np.uint8)
    imageio.mimwrite(folder / "clip.mp4", list(frames), fps=4, macro_block_size=1)
    return {}


def robot(folder: Path) -> Names:
    """Pictures of a goal and of now, and the columns of our arm."""
    names = ("goal_left", "goal_right", "left", "right")
    pictures = np.random.default_rng(0).integers(0, 255, (4, 128, 128, 3), dtype=np.uint8)
    columns = {
        "observation.ee_pose": np.array([0.4, 0.0, 0.3, 0.0, 0.0, 0.0]),
        "observation.gripper": np.array([0.02]),
        "observation.state": np.zeros(14),
    }
    return {**dict(zip(names, pictures, strict=True)), "columns": columns}


def scene(folder: Path) -> Names:
    """The model and the state of a small task."""
    from jepa_mpc import envs

    env = envs.make("cart-pole-v1", image_size=16)
    env.reset(seed=0)
    return {"model": env.plant.model, "data": env.data}




PREPARED: dict[str, Callable[[Path], Names]] = {
    "clip.mp4": film,
    "goal_left": robot,
    "exact_flow": scene,
}
"""A word of the program -> what must be there before it runs."""


def prepare(code: str, folder: Path) -> Names:
    """Names and files for a program."""
    found: Names = {}
    for word, maker in PREPARED.items():
        if word in code:
            found |= maker(folder)
    return found


