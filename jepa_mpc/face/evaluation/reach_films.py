"""Videos of the world model in action: camera with the predicted path, goal, and the predicted end state."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from jepa_mpc.envs.reach import ReachEnv
from jepa_mpc.episode import PlayedEpisode
from jepa_mpc.reporting.album import Album, load_album
from jepa_mpc.reporting.contact_sheet import Tile
from jepa_mpc.reporting.drawing import draw_crosshair, draw_path, gamma_of, panels, sparkline, with_gamma
from jepa_mpc.reporting.html import POSTER
from jepa_mpc.reporting.video import VideoWriter, save_picture
from jepa_mpc.step_log import StepLog

PANEL = 224
SUCCESS_M = 0.05
Picture = NDArray[np.uint8]


@lru_cache(maxsize=2)
def album_at(folder: Path) -> Album | None:
    """The frame album of a checkpoint, cached per process."""
    return load_album(folder)


class Film:
    """The video of one lab, episode after episode.

    Attributes:
        path: Destination; an image of the same name is its poster.
        finals: How each episode ended.
    """

    def __init__(self, writer: VideoWriter, path: Path, album: Album | None) -> None:
        self.writer, self.path, self.album = writer, path, album
        self.finals: list[Tile] = []
        self._goal: Picture = np.zeros((PANEL, PANEL, 3), np.uint8)
        self._episode, self._gamma = 0, 1.0
        self.poster: Picture | None = None

    def begin(self, env: ReachEnv, episode: int) -> None:
        """Render the goal: place the hand there and move it back."""
        self._episode = episode
        here = env.state()
        env.arm.place(env.goal_m)
        goal = env.picture(env.cameras[0], PANEL)
        env.set_state(here)
        self._gamma = gamma_of(goal)
        self._goal = with_gamma(goal, self._gamma)

    def show(self, env: ReachEnv, played: PlayedEpisode) -> None:
        """Add a frame: camera with the plan drawn in, the goal, the predicted end of the plan."""
        camera = env.cameras[0]
        here, imagined = believed_path(played.logs[-1])
        path_m = env.hand_m() + np.concatenate([np.zeros((1, 3)), imagined - here])
        path = [tuple(point) for point in (PANEL * env.scene.project(path_m, camera)).tolist()]
        target = tuple((PANEL * env.scene.project(env.goal_m, camera)).tolist())
        seen = draw_crosshair(draw_path(self._seen(env), path), target)
        shown = camera if self._gamma == 1 else f"{camera}, brightened"
        columns = [(f"camera ({shown})", seen), ("goal image", self._goal)]
        if self.album is not None:
            columns.append(("imagined (nearest logged frame)", self.album.nearest(imagined[-1])))
        self._write(env, columns, played.distances)

    def end(self, env: ReachEnv, played: PlayedEpisode) -> None:
        """Add the last frame, and the tile for the contact sheet."""
        final = self._seen(env)
        gone = float(played.distances[-1])
        blank = [] if self.album is None else [("", np.full_like(final, 255))]
        self._write(env, [("end", final), ("goal image", self._goal), *blank], played.distances)
        self.finals.append(
            Tile(lab=env.lab.name, final=final, goal=self._goal, distance_m=gone, success=gone < SUCCESS_M)
        )

    def _seen(self, env: ReachEnv) -> Picture:
        """The scene for viewers: brightened if it is nearly black."""
        return with_gamma(env.picture(env.cameras[0], PANEL), self._gamma)

    def _write(self, env: ReachEnv, columns: list[tuple[str, Picture]], distances_m: Sequence[float]) -> None:
        frame = panels(columns, height=PANEL)
        self.poster = sparkline(frame, distances_m, total=env.budget + 1)
        self.writer.write(self.poster)


@contextmanager
def open_film(path: Path | None, env: ReachEnv, checkpoint: Path) -> Iterator[Film | None]:
    """A video that is published when the block succeeds, or None without a path."""
    if path is None:
        yield None
        return
    with VideoWriter(path, env.metadata["render_fps"]) as writer:
        film = Film(writer, path, album_at(checkpoint))
        yield film
    if film.poster is not None:
        save_picture(film.poster, path.with_suffix(POSTER))


def believed_path(log: StepLog | None) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The agent's estimate of the hand position `(3,)` (m), and the predicted path of its plan `(H, 3)`.

    An agent that holds, does not plan or has no position head stays at its position.
    """
    if log is None or log.position is None:
        return np.zeros(3, np.float32), np.zeros((1, 3), np.float32)
    here = log.position[0].cpu().numpy()
    if log.path is None or (log.held is not None and bool(log.held.all())):
        return here, here[None]
    return here, log.path[0].cpu().numpy()


def worst(tiles: Sequence[Tile]) -> Tile | None:
    """The episode that ended farthest from its goal."""
    return max(tiles, key=lambda tile: tile.distance_m if np.isfinite(tile.distance_m) else np.inf, default=None)
