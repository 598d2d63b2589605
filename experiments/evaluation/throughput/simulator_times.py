"""True dynamics compared with a plain `mujoco.rollout` of the same controls: physics steps per CPU second."""

from __future__ import annotations

import statistics
import time
from typing import Any

import torch

from jepa_mpc import envs
from jepa_mpc.envs.plain import plain_rollout
from jepa_mpc.seeding import generator


def simulate(name: str, *, rows: int, rounds: int, seed: int) -> dict[str, Any]:
    """Thousands of physics steps per CPU second, ours and plain, in turn.

    Args:
        name: Of a task.
        rows: Candidate plans, each as long as the task's horizon.
        rounds: Measurements; the results are medians.
        seed: Of the start and the plans.
    """
    task = envs.make_task(name)
    task.reset(seed=seed)
    shares = torch.rand(1, rows, task.horizon, task.box.dim, generator=generator(seed, "plans"))
    plans = task.box.low + shares * (task.box.high - task.box.low)
    work, steps = plain_rollout(task, plans)
    context, plain, ours = task.context(), [], []
    for _ in range(rounds):
        start = time.process_time()
        work()
        middle = time.process_time()
        task.dynamics.rollout(context, plans)
        plain.append(steps / (middle - start) / 1000)
        ours.append(steps / (time.process_time() - middle) / 1000)
    task.close()
    return {
        "task": name,
        "rows": rows,
        "plain k steps/s": statistics.median(plain),
        "ours k steps/s": statistics.median(ours),
        "ratio": statistics.median(own / other for own, other in zip(ours, plain, strict=True)),
    }
