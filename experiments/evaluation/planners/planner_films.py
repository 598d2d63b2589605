"""Videos of planners: the goal, each planner's camera image with its predicted path, and the energies below."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from jepa_mpc.envs.tabletop import TabletopEnv
from jepa_mpc.envs.tracing import Tracked, pixel_path
from jepa_mpc.episode import PlayedEpisode, run_episode
from jepa_mpc.experiments.evaluation.planners.cell_player import agent_of, task_at
from jepa_mpc.experiments.evaluation.planners.cells import LEARNED, Cell
from jepa_mpc.face.evaluation.reach_films import believed_path
from jepa_mpc.reporting.drawing import (
    FAINT,
    INK,
    PAPER,
    RULE,
    Colour,
    Picture,
    Point,
    draw_crosshair,
    draw_path,
    label_strip,
    panels,
)
from jepa_mpc.seeding import seed_of
from jepa_mpc.step_log import StepLog

COLOURS: tuple[Colour, ...] = ((240, 228, 66), (86, 180, 233), (230, 159, 0), (204, 121, 167), (0, 158, 115))
CURVES: tuple[Colour, ...] = ((160, 140, 0), (0, 114, 178), (213, 94, 0), (170, 70, 130), (0, 120, 85))
SHARPNESS = 3


@dataclass(kw_only=True)
class Take:
    """One planner's episode.

    Args:
        name: The planner's name.
        evaluations: Plans that each search scored, on average.
        pictures: Camera images with the predicted path, before each action and at the end.
        energies: The agent's energy of the current state, before each action.
        planned: Predicted cost of each plan.
        reached: Whether the goal was reached, before each action and at the end.
        broken: Whether the simulation failed.
    """

    name: str
    evaluations: int = 0
    pictures: list[Picture] = field(default_factory=list)
    energies: list[float] = field(default_factory=list)
    planned: list[float] = field(default_factory=list)
    reached: list[bool] = field(default_factory=list)
    broken: bool = False

    def state_at(self, index: int) -> str:
        """State of the episode at an image: reached as long as it holds, and how it ended."""
        if index >= len(self.pictures) - 1 and self.broken:
            return "broke down"
        if index < len(self.reached) and self.reached[index]:
            return "reached"
        return "not reached" if index >= len(self.pictures) - 1 else "on its way"


def take(
    cell: Cell,
    checkpoint: Path | None,
    *,
    camera: str | None,
    size: int,
    colour: Colour,
    moved: Callable[[], object] = lambda: None,
) -> Take:
    """Play one episode and render it.

    Args:
        cell: Planner and task.
        checkpoint: The learned world model, if the cell plans in one.
        camera: Name of the camera; None for the task's own.
        size: Width and height of the images in pixels.
        colour: Of the predicted path.
        moved: Called after each step.
    """
    learned = cell.dynamics == LEARNED
    task = task_at(
        cell.task, checkpoint if learned else None, dynamics=cell.dynamics, num_threads=None, robot=cell.robot
    )
    env: Any = task.env
    task.reset(seed=seed_of(cell.start_seed, "start", cell.start))
    shown = Take(name=cell.planner)
    view = View(env, camera_of(env, camera), size)
    path: list[Point] = []

    def decided(played: PlayedEpisode) -> None:
        nonlocal path
        log = played.logs[-1]
        assert log is not None and log.present_cost is not None
        shown.energies.append(float(log.present_cost[0]))
        if log.planned:
            assert log.plan is not None
            shown.planned.append(float(log.plan.cost[0]))
            path = view.believed(log) if learned else view.simulated(log)
        shown.pictures.append(view.picture(path, colour))

    agent, readings = agent_of(cell, task, checkpoint)
    played = run_episode(env, agent, steps=cell.steps, decided=decided, moved=lambda _: moved())
    shown.broken, shown.reached = played.broken, played.reached
    shown.evaluations = round(sum(each.evaluations for each in readings) / max(1, len(readings)))
    shown.pictures.append(view.picture([], None))
    return shown


def goal_picture(cell: Cell, *, camera: str | None, size: int) -> Picture:
    """The goal image of a cell's episode, from a camera of the video's size."""
    name = camera_of(task_at(cell.task, None, robot=cell.robot).env, camera)
    task = task_at(cell.task, None, (name,), size, robot=cell.robot)
    task.reset(seed=seed_of(cell.start_seed, "start", cell.start))
    return np.ascontiguousarray(task.env.goal().frames[0, 0].permute(1, 2, 0).numpy())


def compose(takes: Sequence[Take], goal: Picture, *, height: int, dt_s: float, world: str) -> list[Picture]:
    """The frames of the video: goal and planners side by side, all energies below; a short take repeats its last frame.

    Args:
        takes: The episodes.
        goal: The goal image.
        height: Height of each image in pixels.
        dt_s: Simulated seconds per step.
        world: Description of the planning dynamics.

    Raises:
        ValueError: If there is no take.
    """
    if not takes:
        raise ValueError("a video needs at least one planner")
    total = max(len(each.pictures) for each in takes)
    top = max((energy for each in takes for energy in each.energies if math.isfinite(energy)), default=1.0)
    tall = max(132, height // 2)
    frames = []
    for index in range(total):
        columns = [("goal", goal)]
        for each in takes:
            caption = f"{each.name}: {each.state_at(index)}, {each.evaluations} evaluations"
            columns.append((caption, each.pictures[min(index, len(each.pictures) - 1)]))
        frame = panels(columns, height=height)
        frame = label_strip(
            frame, f"step {index} of {total - 1}, {index * dt_s:.2f} s simulated", f"planned in {world}"
        )
        curves = [(each.name, each.energies[: index + 1]) for each in takes]
        chart = energy_chart(frame.shape[1], curves, total=total - 1, top=top, dt_s=dt_s, world=world, height=tall)
        frames.append(np.concatenate([frame, chart]))
    return frames


def energy_chart(
    width: int,
    curves: Sequence[tuple[str, Sequence[float]]],
    *,
    total: int,
    top: float,
    dt_s: float,
    world: str,
    height: int,
) -> Picture:
    """Curves from 0 to `top` over `total` steps with both axes; each has its name and current value at its end."""
    room, left, head = min(170, width // 3), 48, 24
    right, base = width - room, height - 24
    sheet = Image.new("RGB", (SHARPNESS * width, SHARPNESS * height), PAPER)
    draw = ImageDraw.Draw(sheet)

    def place(step: float, value: float) -> tuple[float, float]:
        share = min(1.0, max(0.0, value) / top) if top > 0 else 0.0
        return left + (right - left) * step / max(1, total - 1), base - (base - head) * share

    values = [tick for tick in MaxNLocator(3).tick_values(0.0, top) if 0 <= tick <= top] if top > 0 else [0.0]
    steps = [tick for tick in MaxNLocator(5, integer=True).tick_values(0, max(1, total - 1)) if 0 <= tick <= total - 1]
    for value in values:
        at = place(0, value)[1]
        draw.line([SHARPNESS * v for v in (left, at, right, at)], fill=RULE if value else FAINT, width=SHARPNESS)
    labels = []
    for number, (name, energies) in enumerate(curves):
        points = [place(step, energy) for step, energy in enumerate(energies) if math.isfinite(energy)]
        colour = CURVES[number % len(CURVES)]
        if len(points) > 1:
            draw.line([(SHARPNESS * x, SHARPNESS * y) for x, y in points], fill=colour, width=2 * SHARPNESS)
        if points:
            (x, y), reach = points[-1], 3
            draw.ellipse([SHARPNESS * v for v in (x - reach, y - reach, x + reach, y + reach)], fill=colour)
            labels.append((y, f"{name}  {energies[-1]:.3g}", colour))
    small = sheet.resize((width, height), Image.Resampling.BOX)
    write, font = ImageDraw.Draw(small), ImageFont.load_default(12)
    write.text((10, 4), f"energy: cost of the present, as {world} sees it", fill=INK, font=font)
    for value in values:
        write.text((left - 6, place(0, value)[1]), f"{value:.4g}", fill=FAINT, font=font, anchor="rm")
    for step in steps:
        write.text((place(step, 0)[0], base + 5), f"{step * dt_s:.3g} s", fill=FAINT, font=font, anchor="mt")
    for (_, text, colour), spot in zip(labels, _spread([label[0] for label in labels], head, base), strict=True):
        write.text((right + 10, spot), text, fill=colour, font=font, anchor="lm")
    return np.asarray(small)


class View:
    """A camera of an environment, and the paths of plans in its image.

    Args:
        env: The environment.
        camera: Name of the camera.
        size: Width and height of the images in pixels.
    """

    def __init__(self, env: Any, camera: str, size: int) -> None:
        self.env, self.camera, self.size = env, camera, size
        self.tracked: Tracked | None = getattr(env, "tracked", None)

    def picture(self, path: Sequence[Point], colour: Colour | None) -> Picture:
        """The camera image; with the predicted path in a colour, unless that is None, and the position of the goal."""
        picture = self.env.picture(self.camera, self.size)
        if colour is not None:
            picture = draw_path(picture, path, colour=colour)
        if isinstance(self.env, TabletopEnv):
            target = self.size * self.env.scene.project(self.env.goal_m, self.camera)
            picture = draw_crosshair(picture, (float(target[0]), float(target[1])))
        return picture

    def simulated(self, log: StepLog) -> list[Point]:
        """The path of a plan in the simulator; empty where the task does not declare the moved body."""
        assert log.imagined is not None
        if self.tracked is None:
            return []
        states = np.concatenate([self.env.state()[None], log.imagined[0, :, 0].numpy()])
        scene = getattr(self.env, "scene", self.env)
        return self._pixels(
            pixel_path(self.env.plant, states, tracked=self.tracked, camera=self.camera, seen=scene.data)
        )

    def believed(self, log: StepLog) -> list[Point]:
        """The path of a plan in a learned world, from the position head, starting at the true hand position."""
        here, imagined = believed_path(log)
        path_m = self.env.hand_m() + np.concatenate([np.zeros((1, 3)), imagined - here])
        return self._pixels(self.env.scene.project(path_m, self.camera))

    def _pixels(self, points: NDArray[np.float64]) -> list[Point]:
        return [(float(x), float(y)) for x, y in self.size * points]


def camera_of(env: Any, camera: str | None) -> str:
    """The named camera, or the default one of the task."""
    return camera or str(getattr(env, "view", None) or (env.cameras or ("left",))[0])


def _spread(heights: Sequence[float], low: float, high: float) -> list[float]:
    """Heights of labels, moved apart to at least 14 pixels, within a range where they fit."""
    order, placed, at = sorted(range(len(heights)), key=lambda i: heights[i]), [0.0] * len(heights), low - 14
    for rank, index in enumerate(order):
        room = high - 14 * (len(order) - 1 - rank)
        at = max(at + 14, min(heights[index], room))
        placed[index] = at
    return placed
