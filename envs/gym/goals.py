"""Goals of gymnasium environments, and defaults for some of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import gymnasium
import numpy as np
import torch
from numpy.typing import NDArray

from jepa_mpc.envs.costs import Stage, apart
from jepa_mpc.envs.gym.later import Later
from jepa_mpc.envs.gym.moments import Moment, Success, ended, near
from jepa_mpc.functions import function_of

Photograph = Callable[[gymnasium.Env[Any, Any]], NDArray[np.uint8]]


@dataclass(frozen=True, kw_only=True)
class GymGoal:
    """The goal in an environment.

    Args:
        observation: Observation at the goal, None on ignored axes; None overall to plan for reward alone.
        success: Success criterion; by default `info["is_success"]` or `info["success"]`, if they exist.
        horizon: Recommended planning horizon in steps.
        repeat: Environment steps per action.
        describe: The task in a sentence.
        later: Instead of `observation` and `success`: the state that random actions reach from the same start.
        photograph: Renders the goal image of an episode that has just begun, uint8 `(h, w, 3)`: gets the environment,
            which is restored afterwards. By default the image in the reset's `info["goal_rendered"]`.
        options: Options of every reset.
    """

    observation: Sequence[float | None] | None = None
    success: Success | None = None
    horizon: int = 20
    repeat: int = 1
    describe: str = ""
    later: Later | None = None
    photograph: Photograph | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.repeat < 1 or self.horizon < 1:
            raise ValueError(f"repeat and horizon must be at least 1, got {self.repeat} and {self.horizon}")
        if self.later is not None and (self.observation is not None or self.success is not None):
            raise ValueError("give a goal either by later, or by observation and success")

    def stage(self, length: int) -> Stage:
        """Cost of each step of a plan, from sensors: `length` numbers of the observation, reward, and end.

        Distance of the observation to the goal's, in tolerances for `later` goals; the negative reward without a goal.
        """
        if self.later is not None:
            widths = torch.from_numpy(self.later.widths(length))
            axes = [axis for axis, width in enumerate(widths.isfinite().tolist()) if width]
            return lambda now, goal: (
                ((now[..., axes] - goal[..., axes]) / widths[axes]).square().sum(dim=-1).add(1e-12).sqrt()
            )
        if self.observation is None:
            return lambda now, goal: -now[..., -2]
        return apart([axis for axis, value in enumerate(self.observation) if value is not None])


def goal_of(name: str, changes: Mapping[str, Any]) -> GymGoal:
    """A goal from plain values: the default in `GOALS`, with some entries replaced.

    Args:
        name: Its id, with or without the module that registers it.
        changes: Entries of `GymGoal`; `later` holds those of `Later`. `success` is "ended", or a function of a moment
            (`file.py:name`), `photograph` and the policy of `later` are functions of the environment; a number
            `tolerance` turns `observation` into a success criterion.

    Raises:
        ValueError: If an entry is unknown or invalid.
    """
    entries = {str(key): value for key, value in changes.items()}
    tolerance = entries.pop("tolerance", None)
    if entries.get("later") is not None:
        later = dict(entries["later"])
        if isinstance(later.get("policy"), str):
            later["policy"] = function_of(later["policy"])
        entries = {"observation": None, "success": None, **entries, "later": Later(**later)}
    if tolerance is not None and entries.get("observation") is not None:
        entries |= {"success": near(entries["observation"], tolerance)}
    elif isinstance(entries.get("success"), str):
        entries["success"] = ended if entries["success"] == "ended" else function_of(entries["success"])
    if isinstance(entries.get("photograph"), str):
        entries["photograph"] = function_of(entries["photograph"])
    if {"observation", "success"} & entries.keys() and "later" not in entries:
        entries["later"] = None
    try:
        return replace(GOALS.get(name.rpartition(":")[2], GymGoal()), **entries)
    except TypeError as error:
        known = ", ".join((*GymGoal.__dataclass_fields__, "tolerance"))
        raise ValueError(f"a goal takes {known}; got {', '.join(map(str, changes))}") from error


def upright(moment: Moment) -> bool:
    """Pendulum: within 18 degrees of upright and slower than 1 rad/s."""
    cosine, _, speed = moment.observation
    return bool(cosine > 0.95 and abs(speed) < 1.0)


GOALS: Mapping[str, GymGoal] = {
    "Pendulum-v1": GymGoal(
        success=upright,
        horizon=25,
        describe="Swing the pendulum up and hold it within 18 degrees of upright, slower than 1 rad/s.",
    ),
    "MountainCarContinuous-v0": GymGoal(
        success=ended,
        horizon=15,
        repeat=10,
        describe="Drive out of the valley; reached where the environment ends the episode.",
    ),
    "InvertedPendulum-v5": GymGoal(
        observation=(0.0, 0.0, 0.0, 0.0),
        success=lambda moment: not moment.ended,
        horizon=15,
        describe="Hold the pole upright until the end; the environment ends an episode in which it falls.",
    ),
    "Reacher-v5": GymGoal(
        observation=(None, None, None, None, None, None, None, None, 0.0, 0.0),
        success=lambda moment: bool(np.linalg.norm(moment.observation[-2:]) < 0.02),
        horizon=10,
        describe="Bring the fingertip to the target; reached within 2 cm.",
    ),
}
"""Default goals of gymnasium environments."""
