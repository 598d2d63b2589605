"""A real-time control loop: images in, actions out, with a world model of random weights."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import numpy as np
import torch

from jepa_mpc.costs import PlanCost
from jepa_mpc.encoders.convnet import KeypointEncoder
from jepa_mpc.encoders.layers.pixels import IMAGENET_MEAN, IMAGENET_STD
from jepa_mpc.encoders.layers.weights import draw_weights
from jepa_mpc.planners import cem
from jepa_mpc.seeding import generator
from jepa_mpc.types import ActionBox, MpcSettings, Observation
from jepa_mpc.world_model.agents.executor import RecedingHorizon
from jepa_mpc.world_model.agents.pace import Drive, Timing, beats
from jepa_mpc.world_model.agents.planning import PlanningAgent
from jepa_mpc.world_model.costs.goal import GoalDistance
from jepa_mpc.world_model.memory.replay_buffer import ReplayBuffer
from jepa_mpc.world_model.perception.images import ImagePerception
from jepa_mpc.world_model.recipes import leworldmodel

SIDE, CAMERAS, HORIZON, ACTION_DIM = 64, ("left", "right"), 5, 7
SAMPLES, ITERATIONS, ELITES = 64, 6, 8


def make_agent(seed: int) -> tuple[PlanningAgent, int]:
    """An agent with an untrained world model for two cameras, and the number of its weights."""
    encoder = KeypointEncoder(num_cameras=len(CAMERAS), width=64, hidden=192)
    objective = leworldmodel.build(preset="lab", action_dim=ACTION_DIM, encoder=encoder)
    draw_weights(objective, generator(seed, "weights"))
    objective.eval().requires_grad_(False)
    agent = PlanningAgent(
        perception=ImagePerception(
            objective.encoder, cameras=CAMERAS, image_size=(SIDE, SIDE), mean=IMAGENET_MEAN, std=IMAGENET_STD
        ),
        memory=ReplayBuffer(capacity=1, window=1, action_dim=ACTION_DIM),
        dynamics=leworldmodel.as_world_model(objective),
        cost=PlanCost(GoalDistance()),
        planner=cem(num_samples=SAMPLES, num_iterations=ITERATIONS, num_elites=ELITES),
        box=ActionBox(low=torch.full((ACTION_DIM,), -0.05), high=torch.full((ACTION_DIM,), 0.05)),
        settings=MpcSettings(horizon=HORIZON),
        generator=generator(seed, "planner"),
    )
    return agent, sum(weight.numel() for weight in objective.parameters())


def drive(planning: str, *, count: int, period_s: float, seed: int) -> dict[str, Any]:
    """Run `count` control periods and return timing statistics of the loop.

    Args:
        planning: "sync" plans inside each period, "async" in a parallel thread.
        count: Control periods.
        period_s: Their length.
        seed: Of weights, images and planner.

    Raises:
        ValueError: If `planning` is neither.
    """
    if planning not in ("sync", "async"):
        raise ValueError(f"planning must be 'sync' or 'async', got {planning!r}")
    agent, num_weights = make_agent(seed)
    pictures = torch.randint(
        0, 256, (16, 1, 1, 6, SIDE, SIDE), dtype=torch.uint8, generator=generator(seed, "pictures")
    )
    looks = [Observation(frames=picture, cameras=CAMERAS) for picture in pictures]
    agent.reset(looks[0])
    cycles, ages, busy_s = [], [], time.process_time()
    with ExitStack() as stack:
        executor = RecedingHorizon(
            agent.think,
            hold=torch.zeros(1, ACTION_DIM),
            box=agent.search.box,
            timing=Timing(period_s=period_s, max_age_s=(HORIZON - 1) * period_s),
            pool=stack.enter_context(ThreadPoolExecutor(1)) if planning == "async" else None,
        )
        for _ in range(3):  # warm-up: the first searches initialise caches
            executor.tick(looks[0])
        for beat in beats(count, period_s=period_s):
            began_s = time.monotonic()
            command = executor.tick(looks[beat.index % len(looks)])
            cycles.append(beat.late_s + time.monotonic() - began_s)
            ages.append(command.age_s if command.drive is Drive.FOLLOW else np.nan)
    busy_s = time.process_time() - busy_s
    return _figures(np.array(cycles), np.array(ages), period_s) | {
        "planning": planning,
        "weights": num_weights,
        "busy ms per period": 1e3 * busy_s / count,
        "counts": dict(executor.counts),
    }


def _figures(cycles: np.ndarray, ages: np.ndarray, period_s: float) -> dict[str, Any]:
    """Timing statistics; a cycle runs from the scheduled time to the answer."""
    p50, p99 = np.percentile(cycles, [50, 99])
    return {
        "periods": len(cycles),
        "p50 cycle ms": 1e3 * float(p50),
        "p99 cycle ms": 1e3 * float(p99),
        "missed": int((cycles > period_s).sum()),
        "held": int(np.isnan(ages).sum()),
        "oldest action ms": 1e3 * float(np.nanmax(ages)) if np.isfinite(ages).any() else None,
    }
