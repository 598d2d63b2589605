"""Odd goals and observations in front of the whole agent: refused with one sentence, or handled with finite actions."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from jepa_mpc.costs import PlanCost, WeightedSum
from jepa_mpc.errors import BadObservation
from jepa_mpc.planners import cem
from jepa_mpc.seeding import generator
from jepa_mpc.types import ActionBox, MpcSettings, Observation
from jepa_mpc.world_model.agents.pace import Moment
from jepa_mpc.world_model.agents.planning import PlanningAgent
from jepa_mpc.world_model.costs.goal import GoalDistance
from jepa_mpc.world_model.costs.terms import Effort
from jepa_mpc.world_model.memory.replay_buffer import ReplayBuffer
from jepa_mpc.world_model.recipes import as_world_model
from tests import tiny

CAMERAS = ("left", "right")
BOX = ActionBox(low=torch.full((7,), -0.05), high=torch.full((7,), 0.05))

FAULTS: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "wrong size": (lambda x: x[..., :16], "32 x 32 pixels, got 32 x 16"),
    "one camera": (lambda x: x[:, :, :3], "C = 6"),
    "grayscale": (lambda x: x[:, :, :2], "grayscale"),
    "with transparency": (lambda x: torch.cat([x, x[:, :, :2]], dim=2), "transparency"),
    "channels last": (lambda x: x.movedim(2, -1), "channels last"),
    "floats to 255": (lambda x: x.float(), "uint8"),
    "floats to 1": (lambda x: x.float() / 255, "multiply by 255"),
    "not a number": (lambda x: x.float() * torch.nan, "uint8"),
    "no time axis": (lambda x: x[:, 0], "five axes"),
    "nothing": (lambda x: x[:, :0], "empty"),
}


def agent(*, effort: float = 0.0) -> PlanningAgent:
    objective = tiny.objective()
    objective.eval().requires_grad_(False)
    model = as_world_model(objective, tiny.interface())
    return PlanningAgent(
        perception=model.perception,
        memory=ReplayBuffer(capacity=1, window=1, action_dim=7),
        dynamics=model.dynamics,
        cost=WeightedSum(
            {"goal": (1.0, PlanCost(GoalDistance())), "effort": (effort, PlanCost(Effort(scale=BOX.high)))}
        ),
        planner=cem(num_samples=32, num_elites=8, num_iterations=4),
        box=BOX,
        settings=MpcSettings(horizon=3),
        generator=generator(0, "agent"),
    )


def seen(frames: Tensor, cameras: tuple[str, ...] = CAMERAS) -> Observation:
    return Observation(frames=frames, cameras=cameras)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_goal_or_observation_is_refused_and_the_agent_goes_on(fault: str) -> None:
    spoil, message = FAULTS[fault]
    good, made = tiny.frames(1, 1), agent()
    with pytest.raises(BadObservation, match=message):
        made.reset(seen(spoil(good)))
    made.reset(seen(good))
    with pytest.raises(BadObservation, match=message):
        made.act(seen(spoil(good)))
    with pytest.raises(BadObservation, match=message):
        made.think([Moment(observation=seen(spoil(good)), stamp_s=0.0)], None)
    assert made.act(seen(good)).isfinite().all()


@pytest.mark.parametrize("cameras", [("right", "left"), ("left", "wrist"), ("left",)])
def test_another_camera_is_refused(cameras: tuple[str, ...]) -> None:
    with pytest.raises(BadObservation, match="trained with cameras"):
        agent().reset(seen(tiny.frames(1, 1), cameras))


@pytest.mark.parametrize("value", [0, 255])
def test_a_picture_of_one_colour_still_gives_an_action_inside_the_box(value: int) -> None:
    made = agent()
    made.reset(seen(tiny.frames(1, 1)))
    action = made.act(seen(torch.full_like(tiny.frames(1, 1), value)))
    assert action.isfinite().all() and torch.equal(BOX.clip(action), action)


def test_how_a_picture_lies_in_memory_changes_nothing() -> None:
    frames = tiny.frames(1, 1)
    actions = []
    for laid in (frames, frames.transpose(3, 4).contiguous().transpose(3, 4)):
        made = agent()
        made.reset(seen(tiny.frames(1, 1, seed=1)))
        actions.append(made.act(seen(laid)))
    torch.testing.assert_close(*actions)


def test_where_nothing_is_to_be_gained_the_agent_hardly_moves() -> None:
    made = agent(effort=1.0)
    made.reset(seen(tiny.frames(1, 1)))
    # an untrained model knows no way to the goal; staying is best, and 5 % of the range is what the search leaves over
    assert made.act(seen(tiny.frames(1, 1))).abs().max() <= 0.05 * 0.1
