"""The tasks of the headroom table (pushing and picking with true dynamics), and the cost of all its planning agents."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from jepa_mpc import envs
from jepa_mpc.envs.costs import Stage, apart, task_cost, weighted
from jepa_mpc.envs.handling_cost import grip, moving
from jepa_mpc.envs.pick import PROTOCOLS
from jepa_mpc.envs.task import Task
from jepa_mpc.errors import choose

PUSH = "push"
TASKS = (PUSH, *PROTOCOLS)
PUSH_STEPS = 30
AT_END, EFFORT = 1.0, 0.005
HAND = (0, 1, 2)


def task_at(name: str, *, kind: str, cameras: tuple[str, ...] = (), image_size: int = 64) -> Task:
    """A task with true dynamics.

    Args:
        name: "push" (`push-v1`, 30 steps) or a protocol of `pick-v1`.
        kind: Kind of the object of `pick-v1`, or "mixed".
        cameras: Names of the cameras to draw; none by default.
        image_size: Width and height of the pictures, px.

    Raises:
        UnknownName: If there is no such task.
    """
    choose(dict.fromkeys(TASKS), name, "task")
    pictures: dict[str, Any] = {"cameras": cameras, "image_size": image_size}
    if name == PUSH:
        return with_cost(envs.make_task("push-v1", budget=PUSH_STEPS, **pictures), moving())
    return envs.make_task("pick-v1", protocol=name, object=kind, **pictures)


def with_cost(task: Task, stage: Stage) -> Task:
    """The task with another stage cost, reduced over the plan like all costs of the table."""
    return replace(task, cost=task_cost(stage, at_end=AT_END, effort=EFFORT))


def without_object(task: Task) -> Task:
    """The task with a cost that ignores the object: only hand and grip count."""
    return with_cost(task, hand_and_grip() if "grip [m]" in task.env.plant.sensors else apart(HAND))


def hand_and_grip() -> Stage:
    """Distance of hand and grip from where the goal shows them; the object does not count."""
    return weighted((1.0, apart(HAND)), (1.0, grip))
