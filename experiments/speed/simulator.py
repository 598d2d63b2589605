"""True dynamics beside a plain `mujoco.rollout` of the same control signals: physics steps per busy second."""

from __future__ import annotations

import statistics
import time
from typing import Any

import mujoco
import mujoco.rollout
import numpy as np
import torch

import envs
from core.seeding import generator


class Listening:
    """A plant that notes the control signals that are made for it."""

    def __init__(self, plant: Any) -> None:
        self.plant, self.signals = plant, []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.plant, name)

    def controls(self, *arguments: Any) -> Any:
        """What the plant makes of the actions; the signals `rows steps nu` come first."""
        made = self.plant.controls(*arguments)
        self.signals.append(made[0])
        return made


def simulate(name: str, *, rows: int, rounds: int, seed: int) -> dict[str, Any]:
    """Thousands of physics steps per busy second, ours and plain, in turn.

    Args:
        name: Of a task.
        rows: Candidate plans, each as long as the task's horizon.
        rounds: Measurements, of which medians are given.
        seed: Of the start and the plans.
    """
    task = envs.make_task(name)
    task.reset(seed=seed)
    env, plant, box = task.env, task.env.plant, task.box
    shares = torch.rand(1, rows, task.horizon, box.dim, generator=generator(seed, "plans"))
    plans, context = box.low + shares * (box.high - box.low), task.context()
    env.plant = listening = Listening(plant)
    task.dynamics.rollout(context, plans)
    env.plant = plant
    signals = np.concatenate(listening.signals, axis=1)
    size = mujoco.mj_stateSize(plant.model, mujoco.mjtState.mjSTATE_FULLPHYSICS)
    begin, data = env.state()[None, :size].repeat(rows, 0), [mujoco.MjData(plant.model)]
    steps, plain, ours = rows * signals.shape[1], [], []
    with mujoco.rollout.Rollout(nthread=0) as pool:
        for _ in range(rounds):
            start = time.process_time()
            pool.rollout(plant.model, data, begin, signals)
            middle = time.process_time()
            task.dynamics.rollout(context, plans)
            plain.append(steps / (middle - start) / 1000)
            ours.append(steps / (time.process_time() - middle) / 1000)
    task.close()
    ratio = statistics.median(own / other for own, other in zip(ours, plain, strict=True))
    return {
        "task": name,
        "rows": rows,
        "plain k steps/s": statistics.median(plain),
        "ours k steps/s": statistics.median(ours),
        "ratio": ratio,
    }
