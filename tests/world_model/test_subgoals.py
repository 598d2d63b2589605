"""Rows of goal pictures with their own budgets."""

from __future__ import annotations

import pytest
import torch

from jepa_mpc.types import Observation
from jepa_mpc.world_model.agents.subgoals import Stage, SubGoals


def picture(value: int) -> Observation:
    return Observation(frames=torch.full((1, 1, 3, 4, 4), value, dtype=torch.uint8), cameras=("left",))


class Notes:
    """An agent that notes what it is told."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def reset(self, goal: Observation) -> None:
        self.said.append(f"reset {int(goal.frames.max())}")

    def aim(self, goal: Observation) -> None:
        self.said.append(f"aim {int(goal.frames.max())}")

    def act(self, observation: Observation) -> torch.Tensor:
        self.said.append("act")
        return torch.zeros(1, 7)


def test_each_picture_is_the_goal_for_its_steps_and_the_last_one_stays():
    agent = Notes()
    task = SubGoals(agent, [Stage(goal=picture(1), steps=2), Stage(goal=picture(2), steps=1)])
    for _ in range(5):
        task.act(picture(0))
    assert agent.said == ["reset 1", "act", "act", "aim 2", "act", "act", "act"] and task.last
    task.reset()
    assert agent.said[-1] == "reset 1" and not task.last


def test_a_task_needs_stages_with_steps():
    with pytest.raises(ValueError, match="at least one stage"):
        SubGoals(Notes(), [])
    with pytest.raises(ValueError, match="steps >= 1"):
        Stage(goal=picture(1), steps=0)
