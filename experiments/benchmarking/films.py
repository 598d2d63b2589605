"""Films of planners at work: the goal, each planner's picture with its imagined path, and the energies below."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from jepa_mpc.envs.drawing import Colour, Picture, Point, draw_crosshair, draw_path, enlarge, panels
from jepa_mpc.envs.tabletop import TabletopEnv
from jepa_mpc.envs.tracing import pixel_path
from jepa_mpc.episode import Episode, run_episode
from jepa_mpc.experiments.benchmarking.cells import LEARNED, Cell
from jepa_mpc.experiments.benchmarking.play import agent_of, task_at
from jepa_mpc.experiments.reaching.films import believed_path
from jepa_mpc.seeding import seed_of
from jepa_mpc.step_log import StepLog

PAPER, INK, FAINT = (251, 250, 247), (38, 43, 51), (138, 143, 152)
COLOURS: tuple[Colour, ...] = ((240, 228, 66), (86, 180, 233), (230, 159, 0), (204, 121, 167), (0, 158, 115))
CURVES: tuple[Colour, ...] = ((160, 140, 0), (0, 114, 178), (213, 94, 0), (170, 70, 130), (0, 120, 85))
SHARPNESS = 3


@dataclass(kw_only=True)
class Take:
    """One planner's episode.

    Args:
        name: The planner's name.
        goal: The goal image.
        pictures: What the camera saw before each action, with the imagined path, and at the end.
        energies: Cost of the present as the agent sees it, before each action.
        planned: Cost that each search expected of its plan.
        success: Whether the goal was reached at the end.
        broken: Whether the simulation broke down.
    """

    name: str
    goal: Picture
    pictures: list[Picture] = field(default_factory=list)
    energies: list[float] = field(default_factory=list)
    planned: list[float] = field(default_factory=list)
    success: bool = False
    broken: bool = False


def take(cell: Cell, checkpoint: Path | None, *, camera: str | None, size: int, colour: Colour) -> Take:
    """Play one episode and photograph it.

    Args:
        cell: Who plays what.
        checkpoint: The learned world model, if the cell plans in one.
        camera: Name of the camera; None for the task's own.
        size: Width and height of the pictures in pixels.
        colour: Of the imagined path.
    """
    learned = cell.dynamics == LEARNED
    if learned:
        task = task_at(cell.task, checkpoint, (), 64)
    else:
        task = task_at(cell.task, None, (_camera(cell, camera),), size, dynamics=cell.dynamics)
    env: Any = task.env
    task.reset(seed=seed_of(cell.start_seed, "start", cell.start))
    frames = env.goal().frames[0, 0, :3].permute(1, 2, 0).numpy()
    shown = Take(name=cell.planner, goal=enlarge(np.ascontiguousarray(frames), size))
    view = View(env, camera or env.cameras[0], size)
    path: list[Point] = []

    def decided(played: Episode) -> None:
        nonlocal path
        log = played.logs[-1]
        assert log is not None and log.present_cost is not None
        shown.energies.append(float(log.present_cost[0]))
        if log.planned:
            assert log.plan is not None
            shown.planned.append(float(log.plan.cost[0]))
            path = view.believed(log) if learned else view.simulated(log)
        shown.pictures.append(view.picture(path, colour))

    agent, _ = agent_of(cell, task, checkpoint)
    played = run_episode(env, agent, steps=cell.steps, decided=decided)
    shown.broken, shown.success = played.broken, played.success
    shown.pictures.append(view.picture([], None))
    return shown


def compose(takes: Sequence[Take], *, height: int) -> list[Picture]:
    """The frames of the film: goal and planners side by side, all energies below; a short take waits at its end.

    Raises:
        ValueError: If there is no take.
    """
    if not takes:
        raise ValueError("a film needs at least one planner")
    total = max(len(each.pictures) for each in takes)
    top = max((energy for each in takes for energy in each.energies if math.isfinite(energy)), default=1.0)
    frames = []
    for index in range(total):
        columns = [("goal", takes[0].goal)]
        for each in takes:
            over = index >= len(each.pictures) - 1
            ending = "broke down" if each.broken else "reached" if each.success else "not reached"
            columns.append(
                (f"{each.name}: {ending}" if over else each.name, each.pictures[min(index, len(each.pictures) - 1)])
            )
        frame = panels(columns, height=height)
        curves = [(each.name, each.energies[: index + 1]) for each in takes]
        frames.append(np.concatenate([frame, energy_chart(frame.shape[1], curves, total=total - 1, top=top)]))
    return frames


def energy_chart(
    width: int, curves: Sequence[tuple[str, Sequence[float]]], *, total: int, top: float, height: int = 96
) -> Picture:
    """Curves from 0 to `top` over `total` steps, each with its name and present value at its right end."""
    room, margin, head = min(170, width // 3), 10, 20
    sheet = Image.new("RGB", (SHARPNESS * width, SHARPNESS * height), PAPER)
    draw = ImageDraw.Draw(sheet)
    right, base = width - room, height - margin
    draw.line([SHARPNESS * v for v in (margin, base, right, base)], fill=FAINT, width=SHARPNESS)
    labels = []
    for number, (name, values) in enumerate(curves):
        points = [
            (
                margin + (right - margin) * step / max(1, total - 1),
                base - (base - head) * min(1.0, max(0.0, value) / top),
            )
            for step, value in enumerate(values)
            if math.isfinite(value)
        ]
        colour = CURVES[number % len(CURVES)]
        if len(points) > 1:
            draw.line([(SHARPNESS * x, SHARPNESS * y) for x, y in points], fill=colour, width=2 * SHARPNESS)
        if points:
            (x, y), reach = points[-1], 3
            draw.ellipse([SHARPNESS * v for v in (x - reach, y - reach, x + reach, y + reach)], fill=colour)
            labels.append((y, f"{name}  {values[-1]:.3g}", colour))
    small = sheet.resize((width, height), Image.Resampling.BOX)
    write, font = ImageDraw.Draw(small), ImageFont.load_default(12)
    write.text((margin, 4), "energy: cost of the present, as the planner's world sees it", fill=INK, font=font)
    for (_, text, colour), place in zip(labels, _spread([label[0] for label in labels], head, base), strict=True):
        write.text((right + 10, place), text, fill=colour, font=font, anchor="lm")
    return np.asarray(small)


class View:
    """A camera of an environment, and the ways that plans take in its picture.

    Args:
        env: The environment.
        camera: Name of the camera.
        size: Width and height of the pictures in pixels.
    """

    def __init__(self, env: Any, camera: str, size: int) -> None:
        self.env, self.camera, self.size = env, camera, size

    def picture(self, path: Sequence[Point], colour: Colour | None) -> Picture:
        """What the camera sees; with the imagined path in a colour, unless that is None, and the goal's place."""
        picture = self.env.picture(self.camera, self.size)
        if colour is not None:
            picture = draw_path(picture, path, colour=colour)
        if isinstance(self.env, TabletopEnv):
            target = self.size * self.env.scene.project(self.env.goal_m, self.camera)
            picture = draw_crosshair(picture, (float(target[0]), float(target[1])))
        return picture

    def simulated(self, log: StepLog) -> list[Point]:
        """The way of a plan in the simulator."""
        assert log.imagined is not None
        states = np.concatenate([self.env.state()[None], log.imagined[0, :, 0].numpy()])
        scene = getattr(self.env, "scene", self.env)
        return self._pixels(pixel_path(self.env.plant, states, camera=self.camera, seen=scene.data))

    def believed(self, log: StepLog) -> list[Point]:
        """The way of a plan in a learned world, as the position head reads it, from where the hand really is."""
        here, imagined = believed_path(log)
        path_m = self.env.hand_m() + np.concatenate([np.zeros((1, 3)), imagined - here])
        return self._pixels(self.env.scene.project(path_m, self.camera))

    def _pixels(self, points: NDArray[np.float64]) -> list[Point]:
        return [(float(x), float(y)) for x, y in self.size * points]


def _camera(cell: Cell, camera: str | None) -> str:
    """The camera that was named, or the one that shows the task best."""
    if camera is not None:
        return camera
    env = task_at(cell.task, None).env
    return str(getattr(env, "view", "left"))


def _spread(heights: Sequence[float], low: float, high: float) -> list[float]:
    """Heights of labels, pushed apart to at least 14 pixels, inside of a range where they fit."""
    order, placed, at = sorted(range(len(heights)), key=lambda i: heights[i]), [0.0] * len(heights), low - 14
    for rank, index in enumerate(order):
        room = high - 14 * (len(order) - 1 - rank)
        at = max(at + 14, min(heights[index], room))
        placed[index] = at
    return placed
