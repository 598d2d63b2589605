"""The intrinsic cost and the energy: what they are, and that nothing trains or changes them."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

from jepa_mpc.encoders.layers.weights import draw_weights
from jepa_mpc.errors import UnknownName
from jepa_mpc.seeding import generator
from jepa_mpc.types import Context, Goal, Rollout
from jepa_mpc.world_model.costs.critic import Critic
from jepa_mpc.world_model.costs.energy import Energy
from jepa_mpc.world_model.costs.goal import GoalDistance
from jepa_mpc.world_model.costs.intrinsic import IntrinsicCost
from jepa_mpc.world_model.costs.terms import (
    Disagreement,
    Effort,
    MeasureDoubt,
    RangeLimit,
    Risk,
)
from jepa_mpc.world_model.dynamics.dead_reckoning import DeadReckoning
from jepa_mpc.world_model.dynamics.ensemble import MeanMeasure
from jepa_mpc.world_model.parts.position_head import HindsightDisplacement

B, S, H, N, D, A = 2, 3, 4, 2, 3, 2
STREAM = generator(0, "intrinsic")
LATENTS = torch.randn(B, S, H, N, D, generator=STREAM)
PLANS = torch.randn(B, S, H, A, generator=STREAM)
GOAL = Goal(latents=torch.randn(B, N, D, generator=STREAM))
ROLLOUT = Rollout(latents=LATENTS, proprio=LATENTS[..., 0, :])
HEAD = HindsightDisplacement(N * D)


def wants(**more) -> IntrinsicCost:
    return IntrinsicCost({"goal": GoalDistance(), "effort": Effort(), **more})


def test_a_limit_costs_the_square_of_the_excess_and_nothing_inside():
    limit = RangeLimit(low=(-1.0, -1.0), high=(1.0, 2.0), axes=(0, 2), unit=0.5)
    proprio = torch.tensor([[0.0, 99.0, 0.0], [1.5, 99.0, 0.0], [-2.0, 99.0, 2.5]]).view(1, 1, 3, 3)
    cost = limit(Rollout(latents=LATENTS, proprio=proprio), PLANS, GOAL)
    assert cost.flatten().tolist() == [0.0, 1.0, 5.0]


def test_a_limit_without_predicted_proprioception_is_refused():
    with pytest.raises(ValueError, match="carries none"):
        RangeLimit(low=(0.0,), high=(1.0,), axes=(3,))(Rollout(latents=LATENTS), PLANS, GOAL)
    with pytest.raises(ValueError, match="3 numbers"):
        RangeLimit(low=(0.0,), high=(1.0,), axes=(3,))(ROLLOUT, PLANS, GOAL)


def test_dead_reckoning_adds_the_way_that_was_commanded():
    class Still:
        def rollout(self, context, plans):
            assert context.proprio is None
            return Rollout(latents=LATENTS)

    gain = torch.tensor([[0.0, 0.0], [2.0, 0.0]])
    felt = torch.ones(B, 1, 2)
    world = DeadReckoning(Still(), gain=gain)
    moved = world.rollout(Context(latents=LATENTS[:, 0, :1], actions=PLANS[:, 0, :0], proprio=felt), PLANS).proprio
    assert (moved[..., 0] == 1).all()
    torch.testing.assert_close(moved[..., 1], 1 + 2 * PLANS[..., 0].cumsum(-1))


def test_risk_and_doubt_come_from_probe_and_ensemble():
    risk = Risk(probe=lambda latents: latents.mean(dim=(-2, -1)).sigmoid())(ROLLOUT, PLANS, GOAL)
    assert risk.shape == (B, S, H) and ((risk > 0) & (risk < 1)).all()
    doubt = torch.rand(B, S, H, generator=STREAM)
    assert torch.equal(Disagreement()(dataclasses.replace(ROLLOUT, disagreement=doubt), PLANS, GOAL), doubt)
    with pytest.raises(ValueError, match="needs an ensemble"):
        Disagreement()(ROLLOUT, PLANS, GOAL)


def test_members_that_measure_the_same_way_do_not_doubt():
    first, second = (lambda z: z.flatten(-2)), (lambda z: 3 * z.flatten(-2))
    twins = torch.cat([LATENTS, LATENTS + 5], dim=-2)
    goal = Goal(latents=torch.cat([GOAL.latents, GOAL.latents + 5], dim=-2))
    assert MeasureDoubt(heads=(first, first))(Rollout(latents=twins), PLANS, goal).abs().max() < 1e-10
    way = (LATENTS - GOAL.latents[:, None, None]).flatten(-2)
    apart = MeasureDoubt(heads=(first, second))(Rollout(latents=twins), PLANS, goal)
    torch.testing.assert_close(apart, way.square().sum(-1))  # way and 3 way: variance way^2


def test_nothing_inside_can_be_set_or_removed():
    cost = wants()
    with pytest.raises(AttributeError, match="sealed"):
        cost.names = ()
    with pytest.raises(AttributeError, match="sealed"):
        cost._terms = {}
    with pytest.raises(AttributeError, match="sealed"):
        del cost._floors
    with pytest.raises(TypeError):
        cost._terms["goal"] = Effort()
    with pytest.raises(TypeError):
        cost.floors["goal"] = -1.0
    with pytest.raises(dataclasses.FrozenInstanceError):
        cost._terms["effort"].scale = torch.ones(A)


def test_overwriting_a_number_of_a_term_is_noticed():
    cost = wants(pose=GoalDistance(metric=HEAD.metres))
    before = cost.fingerprint()
    inner = cost._terms["pose"].metric.__self__
    with torch.no_grad():
        inner.linear.weight.add_(1.0)
    with pytest.raises(RuntimeError, match="overwritten"):
        cost.terms(ROLLOUT, PLANS, GOAL)
    assert cost.fingerprint() != before


@pytest.mark.parametrize("metric", [HEAD.metres, MeanMeasure([HEAD.metres, HEAD.metres])], ids=["one", "ensemble"])
def test_training_the_head_that_it_was_made_from_does_not_reach_it(metric):
    head = HEAD if metric == HEAD.metres else metric.heads[0].__self__
    cost = IntrinsicCost({"goal": GoalDistance(metric=metric)})
    latents = LATENTS if metric == HEAD.metres else torch.cat([LATENTS] * 2, dim=-2)
    goal = GOAL if metric == HEAD.metres else Goal(latents=torch.cat([GOAL.latents] * 2, dim=-2))
    before = cost.terms(Rollout(latents=latents), PLANS, goal)["goal"]
    assert head.linear.weight.requires_grad
    old = head.linear.weight.detach().clone()
    try:
        with torch.no_grad():
            head.linear.weight.mul_(2.0)
        assert torch.equal(cost.terms(Rollout(latents=latents), PLANS, goal)["goal"], before)
    finally:
        with torch.no_grad():
            head.linear.weight.copy_(old)


def test_gradients_reach_actions_and_critic_but_not_the_intrinsic_cost():
    critic = Critic(width=D, hidden=8)
    draw_weights(critic, generator(1))
    cost = wants(pose=GoalDistance(metric=HEAD.metres))
    energy = Energy(intrinsic=cost, weights={"goal": 1.0, "effort": 1.0, "pose": 1.0}, critic=critic, critic_weight=1.0)
    plans = PLANS.clone().requires_grad_()
    latents = plans.cumsum(2).sum(-1)[..., None, None] + LATENTS
    energy(Rollout(latents=latents), plans, GOAL).sum().backward()
    assert plans.grad.abs().min() > 0
    assert all(p.grad is not None for p in critic.network.parameters())
    inner = cost._terms["pose"].metric.__self__.linear.weight
    assert inner.grad is None and not inner.requires_grad
    assert HEAD.linear.weight.grad is None


def test_the_energy_is_the_discounted_sum_and_the_critic_at_the_end():
    critic = Critic(width=D, hidden=8)
    draw_weights(critic, generator(1))
    weights = {"goal": 2.0, "effort": 0.5}
    energy = Energy(intrinsic=wants(), weights=weights, critic=critic, critic_weight=3.0, discount=0.9)
    goal = (LATENTS - GOAL.latents[:, None, None]).square().sum(-1).mean(-1)
    steps = 2.0 * goal + 0.5 * PLANS.square().mean(-1)
    ends = critic(LATENTS[:, :, -1], GOAL.latents[:, None].expand(B, S, N, D))
    wanted = sum(0.9**h * steps[..., h] for h in range(H)) + 3.0 * 0.9**H * ends
    torch.testing.assert_close(energy(ROLLOUT, PLANS, GOAL), wanted)
    shares = energy.terms(ROLLOUT, PLANS, GOAL)
    assert set(shares) == {"goal", "effort", "critic"}
    torch.testing.assert_close(sum(shares.values()), wanted)


def test_tokens_that_do_not_count_cost_nothing():
    far = LATENTS.clone()
    far[..., 1, :] += 100
    energy = Energy(intrinsic=wants(), weights={"goal": 1.0, "effort": 0.0}, tokens=(True, False))
    torch.testing.assert_close(energy(Rollout(latents=far), PLANS, GOAL), energy(ROLLOUT, PLANS, GOAL))
    with pytest.raises(ValueError, match="mask has 1 entries"):
        dataclasses.replace(energy, tokens=(True,))(ROLLOUT, PLANS, GOAL)


def test_a_safety_term_cannot_be_switched_off_and_doubt_may_be_sought():
    cost = IntrinsicCost(
        {"goal": GoalDistance(), "limits": Effort(), "doubt": Disagreement()}, floors={"limits": 1.0, "doubt": -1.0}
    )
    cost.check_weights({"goal": 0.0, "limits": 1.0, "doubt": -1.0})
    with pytest.raises(ValueError, match="limits.*at least 1.0"):
        cost.check_weights({"goal": 0.0, "limits": 0.5, "doubt": 0.0})
    with pytest.raises(ValueError, match="goal.*at least 0.0"):
        cost.check_weights({"goal": -1.0, "limits": 1.0, "doubt": 0.0})
    with pytest.raises(ValueError, match="no weight"):
        cost.check_weights({"goal": 0.0, "limits": 1.0})
    with pytest.raises(UnknownName, match="known: doubt, goal, limits"):
        cost.check_weights({"goal": 0.0, "limits": 1.0, "doubt": 0.0, "hunger": 1.0})


def test_a_critic_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="there is no critic"):
        Energy(intrinsic=wants(), weights={"goal": 1.0, "effort": 0.0}, critic_weight=1.0)


def test_the_intrinsic_cost_is_no_module_so_that_no_optimiser_finds_it():
    assert not isinstance(wants(), nn.Module)
