"""The agents of the headroom table: planning in true dynamics, the same with parts removed, and plain policies."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from jepa_mpc.envs.baselines import Policy
from jepa_mpc.envs.servo import RelativeServo, Servo, StillWorld
from jepa_mpc.envs.task import Task
from jepa_mpc.face.handling.handling_tasks import without_object
from jepa_mpc.interfaces import Planner
from jepa_mpc.planners import icem
from jepa_mpc.planners.sampling import Answer
from jepa_mpc.types import ActionBox, Costs, PlanRequest, Plans

TRUE, STILL, BLIND = "true dynamics", "still world", "blind"
SERVO, RELATIVE, SCRIPTED = "servo", "relative servo", "scripted"
PLANNING = (TRUE, STILL, BLIND)
CONTROLS = (SERVO, RELATIVE, STILL, BLIND)


@dataclass(frozen=True, kw_only=True)
class Planning:
    """Settings of the planning agents. They use iCEM, whose plans are smooth and start from the previous plan.

    Args:
        horizon: Steps that a plan looks ahead.
        num_samples: Plans in a round.
        num_iterations: Rounds.
        answer: The plan that is carried out: the "best" one, or the "mean" of the last elites, which depends less on
            errors of a learned cost.
    """

    horizon: int
    num_samples: int
    num_iterations: int
    answer: Answer = "best"

    def planner(self) -> Planner:
        """The planner with these settings."""
        elites = max(4, self.num_samples // 6)
        search = icem(num_samples=self.num_samples, num_elites=elites, num_iterations=self.num_iterations)
        return replace(search, answer=self.answer, try_mean="end") if self.answer == "mean" else search


class Plannable(Protocol):
    """What a plan is made for: a task with its simulator, or `Seen`."""

    @property
    def box(self) -> ActionBox:
        """Bounds of one action."""

    def objective(self) -> Callable[[Plans], Costs]:
        """The cost of plans `1 S H A` from the present on."""


class Planned:
    """Makes a new plan at every step and carries out its first action.

    Args:
        task: The task, after its reset.
        planning: Settings of the planner.
        generator: Random numbers of the planner.
    """

    def __init__(self, task: Plannable, planning: Planning, generator: torch.Generator) -> None:
        self.task, self.planning, self.generator = task, planning, generator
        self.planner = planning.planner()
        self._guess: torch.Tensor | None = None

    def act(self, env: object = None) -> NDArray[np.float32]:
        """The action `(A,)`."""
        still = torch.zeros(1, self.planning.horizon, self.task.box.dim)
        request = PlanRequest(
            evaluate=self.task.objective(),
            box=self.task.box,
            batch=1,
            horizon=self.planning.horizon,
            generator=self.generator,
            warm_start=self._guess,
            fallback=still,
        )
        actions = self.planner.plan(request).actions
        self._guess = torch.cat([actions[:, 1:], still[:, :1]], dim=1)
        return actions[0, 0].numpy().astype(np.float32)


Maker = Callable[[Task, Planning, torch.Generator], Policy]


def _in_still_world(task: Task, planning: Planning, generator: torch.Generator) -> Policy:
    return Planned(replace(task, dynamics=StillWorld(task.env)), planning, generator)


AGENTS: Mapping[str, Maker] = {
    TRUE: Planned,
    SERVO: lambda task, planning, generator: Servo(task.env),
    RELATIVE: lambda task, planning, generator: RelativeServo(task.env),
    STILL: _in_still_world,
    BLIND: lambda task, planning, generator: _in_still_world(without_object(task), planning, generator),
    SCRIPTED: lambda task, planning, generator: task.baselines["oracle"](generator),
    "random": lambda task, planning, generator: task.baselines["random"](generator),
    "do nothing": lambda task, planning, generator: task.baselines["nothing"](generator),
}
