"""Videos of picking: the views of scene and wrist beside the current goal image."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from jepa_mpc.envs.pick import PickEnv
from jepa_mpc.reporting.drawing import enlarge, gamma_of, panels, with_gamma
from jepa_mpc.reporting.html import POSTER
from jepa_mpc.reporting.video import VideoWriter, save_picture

PANEL = 192
Picture = NDArray[np.uint8]


@contextmanager
def filming(path: Path | None, env: PickEnv) -> Iterator[Callable[[], None]]:
    """Yields a function that writes the present frame; the video appears when the block ends without an error.

    Args:
        path: The video to write; a picture of its last frame is put beside it. None: nothing is written.
        env: The task, with cameras.
    """
    if path is None:
        yield lambda: None
        return
    last: list[Picture] = []
    with VideoWriter(path, env.metadata["render_fps"] / 2) as writer:

        def watch() -> None:
            last[:] = [frame_of(env)]
            writer.write(last[0])

        yield watch
    save_picture(last[0], path.with_suffix(POSTER))


def frame_of(env: PickEnv) -> Picture:
    """One frame of the video: the views of scene and wrist, and both in the goal image."""
    goal = env.sub_goal()
    scene = env.picture(env.cameras[0], PANEL)
    gamma = gamma_of(scene)
    seen = [(f"{env.cameras[0]} (wide)", scene), ("wrist", env.picture(env.cameras[-1], PANEL))]
    shown = [
        (f"goal '{goal.name}'", _camera(goal.frames, 0)),
        ("its wrist", _camera(goal.frames, len(env.cameras) - 1)),
    ]
    return panels([(name, with_gamma(picture, gamma)) for name, picture in (*seen, *shown)], height=PANEL)


def _camera(frames: NDArray[np.uint8], number: int) -> Picture:
    return enlarge(np.ascontiguousarray(frames[3 * number : 3 * number + 3].transpose(1, 2, 0)), PANEL)
