"""The plainest rollout that MuJoCo offers: the reference for the speed of ours."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mujoco
import mujoco.rollout
import numpy as np

from jepa_mpc.envs.task import Task
from jepa_mpc.types import Plans


class _Listening:
    """A plant that records the control signals that it makes."""

    def __init__(self, plant: Any) -> None:
        self.plant = plant
        self.signals: list[Any] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.plant, name)

    def controls(self, *arguments: Any) -> Any:
        made = self.plant.controls(*arguments)
        self.signals.append(made[0])
        return made


def plain_rollout(task: Task, plans: Plans) -> tuple[Callable[[], object], int]:
    """Physics of plans `1 S H A` from the task's current state as one `mujoco.rollout` call, and its physics steps.

    The control signals are those of `task.dynamics`, computed beforehand.
    """
    env, plant = task.env, task.env.plant
    env.plant = listening = _Listening(plant)
    try:
        task.dynamics.rollout(task.context(), plans)
    finally:
        env.plant = plant
    signals = np.concatenate(listening.signals, axis=1)
    size = mujoco.mj_stateSize(plant.model, mujoco.mjtState.mjSTATE_FULLPHYSICS)
    begin, data = env.state()[None, :size].repeat(plans.shape[1], 0), [mujoco.MjData(plant.model)]
    pool = mujoco.rollout.Rollout(nthread=0)
    return lambda: pool.rollout(plant.model, data, begin, signals), plans.shape[1] * signals.shape[1]
