"""A planner teaches a policy: the loss, the taking of turns, and what the turns are good for."""

from __future__ import annotations

import pytest
import torch

from jepa_mpc.encoders.layers.weights import draw_weights
from jepa_mpc.seeding import generator
from jepa_mpc.types import ActionBox, Rollout
from jepa_mpc.world_model.policies.distillation import Distillation, dagger, visited
from jepa_mpc.world_model.policies.goal import GoalPolicy
from jepa_mpc.world_model.training.loop import FitSettings, fit

BOX = ActionBox(low=torch.tensor([-0.1, -0.1]), high=torch.tensor([0.1, 0.1]))


class Points:
    """z' = z + a."""

    def rollout(self, context, plans):
        return Rollout(latents=(context.latents[:, None, -1:, 0] + plans.cumsum(dim=2))[..., None, :])


def drawn() -> GoalPolicy:
    policy = GoalPolicy(width=2, action_scale=[0.1, 0.1], chunk=2, hidden=32, depth=1)
    draw_weights(policy, generator(0, "policy"))
    return policy


def teacher(state, goal):
    """Straight to the goal, in steps that the box allows."""
    way = (goal - state)[:, 0]
    first = BOX.clip(way)
    return torch.stack([first, BOX.clip(way - first)], dim=1)


def energy(state, goal, plans):
    """Squared distance from the goal at the end."""
    return (state[:, None, 0] + plans.sum(dim=2) - goal[:, None, 0]).square().sum(dim=-1)


def lessons(count: int = 64) -> dict[str, torch.Tensor]:
    state = torch.rand(count, 1, 2, generator=generator(0, "state"))
    goal = torch.rand(count, 1, 2, generator=generator(0, "goal"))
    return {"state": state, "goal": goal, "steps": torch.ones(count), "actions": teacher(state, goal)}


def train(policy, batch, *, steps=100, **settings):
    objective = Distillation(policy, energy, **settings)
    fit(objective, lambda stream: batch, settings=FitSettings(steps=steps, learning_rate=6e-3), seed=0)
    return objective


def test_imitation_is_the_absolute_error_in_units_of_the_scale():
    policy, batch = drawn(), lessons()
    gap = (policy(batch["state"], batch["goal"], batch["steps"]) - batch["actions"]).abs().mean() / 0.1
    torch.testing.assert_close(Distillation(policy, None)(batch, generator(0)).total, gap)


def test_the_energy_alone_teaches_without_a_single_good_label():
    """The labels say: stand still. The slope of the energy says where to go."""
    policy, batch = drawn(), lessons()
    batch["actions"] = torch.zeros_like(batch["actions"])
    before = energy(
        batch["state"], batch["goal"], policy(batch["state"], batch["goal"], batch["steps"])[:, None]
    ).mean()
    train(policy, batch, slope=1000.0)
    made = BOX.clip(policy(batch["state"], batch["goal"], batch["steps"]))
    assert energy(batch["state"], batch["goal"], made[:, None]).mean() < 0.7 * before


def test_cheap_plans_count_more():
    """Half of the labels lead away: with a temperature they are ignored."""
    batch = lessons(64)
    batch["actions"][::2] *= -1
    errors = []
    for temperature in (None, 0.05):
        policy = drawn()
        train(policy, batch, temperature=temperature)
        made = policy(batch["state"], batch["goal"], batch["steps"])
        errors.append((made - teacher(batch["state"], batch["goal"])).abs().mean().item())
    assert errors[1] < 0.7 * errors[0]


def test_the_walk_of_a_policy_is_its_own():
    policy, batch = drawn(), lessons(4)
    walk = visited(policy, Points(), box=BOX, state=batch["state"], goal=batch["goal"], steps=3)
    action = BOX.clip(policy(batch["state"], batch["goal"], torch.ones(4)))[:, :1]
    assert walk.shape == (3, 4, 1, 2) and torch.equal(walk[0], batch["state"])
    torch.testing.assert_close(walk[1], batch["state"] + action)


def test_taking_turns_gathers_labels_where_the_policy_leads():
    policy, sizes = drawn(), []

    def starts(index):
        batch = lessons(16)
        return 0.2 * batch["state"], batch["goal"]

    def learn(found, index):
        sizes.append(len(found["state"]))
        train(policy, dict(found), steps=60)

    found = dagger(policy, teacher, Points(), box=BOX, starts=starts, fit=learn, rounds=3, steps=5)
    assert sizes == [16, 16 + 80, 16 + 160] and len(found["actions"]) == 176
    torch.testing.assert_close(found["actions"], teacher(found["state"], found["goal"]))
    state, goal = starts(0)
    ends = visited(policy, Points(), box=BOX, state=state, goal=goal, steps=16)[-1]
    alone = drawn()
    train(alone, lessons(16) | {"state": state, "actions": teacher(state, goal)}, steps=180)
    lost = visited(alone, Points(), box=BOX, state=state, goal=goal, steps=16)[-1]
    gaps = [(end - goal).norm(dim=-1).mean().item() for end in (ends, lost)]
    assert gaps[0] < 0.06 and gaps[0] < 0.5 * gaps[1]


def test_odd_settings_are_refused():
    with pytest.raises(ValueError, match="temperature > 0"):
        Distillation(drawn(), energy, temperature=0.0)
    with pytest.raises(ValueError, match="none was given"):
        Distillation(drawn(), None, slope=1.0)
    with pytest.raises(ValueError, match="rounds >= 1"):
        dagger(drawn(), teacher, Points(), box=BOX, starts=lambda i: None, fit=lambda f, i: None, rounds=0, steps=1)
