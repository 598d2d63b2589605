"""Rollouts that mix members over one encoder, their disagreement, and costs under doubt."""

from __future__ import annotations

import pytest
import torch

from jepa_mpc.costs import PlanCost, last
from jepa_mpc.seeding import generator
from jepa_mpc.types import Context, Goal, Rollout
from jepa_mpc.world_model.costs.goal import GoalDistance
from jepa_mpc.world_model.dynamics.predictor_ensemble import OverParticles, PredictorEnsemble, spread

B, S, H = 2, 5, 4
PLANS = torch.ones(B, S, H, 1)
START = Context(latents=torch.zeros(B, 1, 1, 1), actions=torch.zeros(B, 0, 1))
GOAL = Goal(latents=torch.zeros(B, 1, 1))


class Walker:
    """z' = z + pace * a: a member that believes in a pace of its own."""

    def __init__(self, pace: float) -> None:
        self.pace = pace

    def rollout(self, context, plans):
        way = (self.pace * plans).cumsum(dim=2)[..., None, :]
        return Rollout(latents=context.latents[:, None, -1:] + way)


def ensemble(*paces: float, **arguments) -> PredictorEnsemble:
    return PredictorEnsemble([Walker(pace) for pace in paces], generator=generator(0, "members"), **arguments)


def test_the_mean_goes_on_from_the_mean():
    rollout = ensemble(1.0, 2.0, mixing="mean").rollout(START, PLANS)
    torch.testing.assert_close(rollout.latents[0, 0, :, 0, 0], 1.5 * torch.arange(1.0, 5.0))


def test_one_member_alone_is_that_member_in_every_mixing():
    alone = Walker(1.5).rollout(START, PLANS).latents
    for mixing in ("mean", "ts1", "tsinf"):
        rollout = ensemble(1.5, mixing=mixing).rollout(START, PLANS)
        torch.testing.assert_close(rollout.latents, alone)
        assert (rollout.disagreement == 0).all()


def test_a_particle_keeps_its_member_with_tsinf_and_changes_it_with_ts1():
    steps = {}
    for mixing in ("tsinf", "ts1"):
        latents = ensemble(1.0, 3.0, mixing=mixing, particles=8).rollout(START, PLANS).latents[..., 0, 0]
        paces = latents.diff(dim=2, prepend=torch.zeros(B, S * 8, 1))
        assert set(paces.flatten().tolist()) == {1.0, 3.0}
        steps[mixing] = (paces == paces[:, :, :1]).all(dim=2).float().mean()
    assert steps["tsinf"] == 1.0 and steps["ts1"] < 0.5


@pytest.mark.parametrize("mixing", ["ts1", "tsinf"])
def test_particles_are_shared_out_evenly(mixing):
    latents = ensemble(1.0, 2.0, 3.0, mixing=mixing, particles=6).rollout(START, PLANS).latents[..., 0, 0, 0]
    assert torch.equal(latents.view(B, S, 6).sort(dim=2).values, torch.tensor([1.0, 1, 2, 2, 3, 3]).expand(B, S, 6))


def test_the_disagreement_is_the_variance_of_one_step():
    rollout = ensemble(1.0, 2.0, 3.0, mixing="mean", variance=2.0).rollout(START, PLANS)
    torch.testing.assert_close(rollout.disagreement, torch.full((B, S, H), (2 / 3) / 2.0))


def test_costs_of_particles_are_averaged_or_their_worst_count():
    cost = PlanCost(GoalDistance(), last)
    rollout = ensemble(1.0, 3.0, mixing="tsinf", particles=2).rollout(START, PLANS)
    each = torch.tensor([4.0, 12.0]).square()
    mean = OverParticles(cost=cost)(rollout, PLANS, GOAL)
    worst = OverParticles(cost=cost, alpha=0.5)(rollout, PLANS, GOAL)
    torch.testing.assert_close(mean, each.mean().expand(B, S))
    torch.testing.assert_close(worst, each.max().expand(B, S))


def test_the_same_stream_draws_the_same_members():
    first, second = (ensemble(1.0, 3.0, mixing="ts1").rollout(START, PLANS).latents for _ in range(2))
    assert torch.equal(first, second)


def test_gradients_pass_through_every_mixing():
    for mixing in ("mean", "ts1", "tsinf"):
        plans = PLANS.clone().requires_grad_()
        ensemble(1.0, 3.0, mixing=mixing).rollout(START, plans).latents.sum().backward()
        assert (plans.grad > 0).all()


def test_odd_ensembles_are_refused():
    with pytest.raises(ValueError, match="at least one"):
        PredictorEnsemble([])
    with pytest.raises(ValueError, match="'best'"):
        ensemble(1.0, mixing="best")
    with pytest.raises(ValueError, match="give a generator"):
        PredictorEnsemble([Walker(1.0)], mixing="ts1")
    with pytest.raises(ValueError, match="1 with 'mean'"):
        ensemble(1.0, particles=2)
    with pytest.raises(ValueError, match="not divisible"):
        OverParticles(cost=PlanCost(GoalDistance()))(Rollout(latents=torch.zeros(B, 3, H, 1, 1)), PLANS[:, :2], GOAL)


def test_the_spread_is_the_variance_of_states():
    latents = torch.randn(400, 3, 2, 5, generator=generator(0)) * 2
    assert abs(spread(latents) - 4.0) < 0.3
