"""The servo: perception and a proportional step, nothing else."""

from __future__ import annotations

import pytest
import torch

from jepa_mpc.types import ActionBox, Observation
from jepa_mpc.world_model.agents.goals import EncodedGoal
from jepa_mpc.world_model.agents.servo import ServoAgent
from jepa_mpc.world_model.perception.images import StatePerception

BOX = ActionBox(low=torch.tensor([-0.05] * 3 + [0.0]), high=torch.tensor([0.05] * 3 + [0.0]))


def look(places: torch.Tensor) -> Observation:
    frames = torch.zeros(len(places), 1, 3, 1, 1, dtype=torch.uint8)
    return Observation(frames=frames, cameras=("none",), proprio=places[:, None])


def servo(gain: float = 0.6) -> ServoAgent:
    perception = StatePerception()
    return ServoAgent(
        perception=perception,
        goals=EncodedGoal(perception),
        position_head=lambda latents: latents[..., 0, :3],
        box=BOX,
        gain=gain,
    )


def test_it_goes_straight_to_the_goal_and_stays():
    agent, place, goal = servo(), torch.zeros(2, 3), torch.tensor([[0.1, 0.05, 0.0], [0.0, 0.0, -0.2]])
    agent.reset(look(goal))
    first = agent.act(look(place))
    assert torch.allclose(first[:, :3], torch.tensor([[0.05, 0.025, 0.0], [0.0, 0.0, -0.05]])) and not first[:, 3].any()
    for _ in range(20):
        action = agent.act(look(place))
        assert bool(BOX.contains(action).all())
        place = place + action[:, :3]
    assert float((place - goal).norm(dim=-1).max()) < 1e-4 and float(agent.last.goal_distance.max()) < 1e-3


def test_it_needs_a_goal_and_a_gain():
    with pytest.raises(RuntimeError, match="reset"):
        servo().act(look(torch.zeros(1, 3)))
    with pytest.raises(ValueError, match="gain"):
        servo(gain=0.0)
