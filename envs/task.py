"""A task for planner benchmarks: true dynamics, a cost of simulator sensors, a goal, and baselines.

task = envs.make_task("push-v1")
task.reset(seed=3)
result = planner.plan(PlanRequest(evaluate=task.objective(), box=task.box, batch=1, horizon=task.horizon, ...))
task.step(result.actions[0, 0])
task.success()
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from jepa_mpc.envs.baselines import DoNothing, Policy, RandomActions
from jepa_mpc.envs.oracle_cpu import SimulatorPerception
from jepa_mpc.envs.plant import Array, Plant
from jepa_mpc.envs.tracing import Tracked
from jepa_mpc.envs.true_dynamics import true_dynamics
from jepa_mpc.interfaces import Cost, Dynamics, Perception
from jepa_mpc.types import ActionBox, Context, Costs, Goal, Observation, Plans


class PlannableEnv(Protocol):
    """What an environment must offer for planning without learning (all of `envs.ENVS` do)."""

    plant: Plant
    dt_s: float
    budget: int
    horizon: int
    describe: str
    tracked: Tracked | None

    @property
    def action_box(self) -> ActionBox:
        """Bounds of one action."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode."""

    def step(self, action: NDArray[np.float32]) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Carry out one action."""

    def state(self) -> Array:
        """The full state as one row."""

    def set_state(self, state: Array) -> None:
        """Restore a state."""

    def observation(self) -> Observation:
        """Current camera images and joints."""

    def plant_sensors(self) -> Array:
        """The plant's current sensors `(Q,)`."""

    def goal_sensors(self) -> Array:
        """The plant's sensors at the goal `(Q,)`."""

    def success(self) -> bool:
        """Whether the goal is currently reached."""

    def cost(self) -> Cost:
        """The task's own cost of predicted futures."""

    def oracle(self) -> Policy | None:
        """An oracle policy, if there is one."""

    def close(self) -> None:
        """Release all resources."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """Everything for planning on true dynamics and for evaluation.

    Args:
        name: Name of the environment.
        env: The environment; begin an episode with `reset` before anything else.
        dynamics: Its own simulator, with the Dynamics protocol.
        perception: Perceives its full state.
        cost: Cost of predicted futures, B S; infinite for a candidate whose simulation diverged.
        baselines: Makers of policies without planning, by name: "nothing", "random" (needs a generator), and "oracle"
            if there is one.
        horizon: Recommended planning horizon in steps.
        describe: The task in a sentence, with its success criterion.
    """

    name: str
    env: PlannableEnv
    dynamics: Dynamics
    perception: Perception
    cost: Cost
    horizon: int
    describe: str
    baselines: Mapping[str, Callable[[torch.Generator], Policy]] = field(default_factory=dict)

    @property
    def box(self) -> ActionBox:
        """Bounds of one action."""
        return self.env.action_box

    @property
    def dt_s(self) -> float:
        """Seconds per action."""
        return self.env.dt_s

    @property
    def budget(self) -> int:
        """Actions per episode."""
        return self.env.budget

    def reset(self, *, seed: int) -> None:
        """Begin the episode of a seed."""
        self.env.reset(seed=seed)

    def step(self, action: Tensor | NDArray[Any]) -> dict[str, Any]:
        """Carry out one action `(A,)`; returns gymnasium's info with `terminated` and `truncated` added."""
        _, _, terminated, truncated, info = self.env.step(np.asarray(action, dtype=np.float32))
        return {**info, "terminated": terminated, "truncated": truncated}

    def success(self) -> bool:
        """Whether the goal is currently reached."""
        return self.env.success()

    def context(self) -> Context:
        """The current state, as input of the dynamics: latents `1 1 1 D`, float64."""
        latents = torch.from_numpy(self.env.state())[None, None, None]
        return Context(latents=latents, actions=torch.zeros(1, 0, self.box.dim))

    def goal(self) -> Goal:
        """The goal: its sensors `1 Q`; the latents are the current ones, since there is no goal state."""
        latents = torch.from_numpy(self.env.state())[None, None]
        return Goal(latents=latents, sensors=torch.from_numpy(np.array(self.env.goal_sensors()))[None])

    def objective(self) -> Callable[[Plans], Costs]:
        """The cost of plans `1 S H A` from the current state; later changes of the environment have no effect on it."""
        context, goal = self.context(), self.goal()

        def evaluate(plans: Plans) -> Costs:
            return self.cost(self.dynamics.rollout(context, plans), plans, goal).to(plans.dtype)

        return evaluate

    def close(self) -> None:
        """Stop the threads and close the environment."""
        close = getattr(self.dynamics, "close", None)
        if close is not None:
            close()
        self.env.close()


def task_of(name: str, env: PlannableEnv, *, num_threads: int | None = 1, dynamics: str | None = None) -> Task:
    """Assemble a task.

    Args:
        name: Its name.
        env: The environment.
        num_threads: CPU threads of the true dynamics; None for all available to this process.
        dynamics: Simulator for planning, a name of `envs.true_dynamics.DYNAMICS`; by default chosen by the environment.

    Raises:
        ValueError: If the environment lacks what planning needs.
        UnknownName: If there is no such dynamics.
        MissingPackage: If its package is not installed.
    """
    needed = ("state", "set_state", "observation", "goal_sensors", "success", "cost", "oracle", "horizon", "action_box")
    missing = [name for name in needed if not hasattr(env, name)]
    if missing:
        raise ValueError(
            f"{name} cannot be used for planning, it lacks {', '.join(missing)}: wrap a gymnasium environment in "
            "envs.gym.adapter.GymEnv"
        )
    baselines: dict[str, Callable[[torch.Generator], Policy]] = {
        "nothing": lambda generator: DoNothing(),
        "random": RandomActions,
    }
    if env.oracle() is not None:
        baselines["oracle"] = lambda generator: _oracle(env)
    return Task(
        name=name,
        env=env,
        dynamics=true_dynamics(env, dynamics, num_threads=usable_threads() if num_threads is None else num_threads),
        perception=SimulatorPerception(env),
        cost=env.cost(),
        horizon=env.horizon,
        describe=env.describe,
        baselines=baselines,
    )


def usable_threads() -> int:
    """Number of CPU threads available to this process."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _oracle(env: PlannableEnv) -> Policy:
    policy = env.oracle()
    if policy is None:
        raise ValueError("this task has no oracle")
    return policy
