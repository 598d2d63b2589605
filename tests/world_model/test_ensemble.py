"""Ensembles: members see and imagine as they would alone, and their measures are averaged."""

from __future__ import annotations

import pytest
import torch

from jepa_mpc.checkpoint import load_checkpoint, save_checkpoint
from jepa_mpc.errors import BadCheckpoint
from jepa_mpc.types import Context, Observation
from jepa_mpc.world_model.checkpoints.loader import load_world_model, save_ensemble
from jepa_mpc.world_model.dynamics.ensemble import EnsembleDynamics, EnsemblePerception, MeanMeasure
from jepa_mpc.world_model.dynamics.model import WorldModel
from jepa_mpc.world_model.recipes import as_world_model
from tests import tiny

SEEN = Observation(frames=tiny.frames(), cameras=("left", "right"))
PLANS = torch.full((2, 3, 4, 7), 0.02)


@pytest.fixture(scope="module")
def members() -> list[WorldModel]:
    return [as_world_model(tiny.objective(seed).eval(), tiny.interface()) for seed in (0, 1, 2)]


def context(latents: torch.Tensor) -> Context:
    return Context(latents=latents[:, -1:], actions=torch.zeros(2, 0, 7))


def test_every_member_sees_and_imagines_what_it_would_alone(members):
    latents = EnsemblePerception([member.perception for member in members])(SEEN)
    futures = EnsembleDynamics([member.dynamics for member in members]).rollout(context(latents), PLANS).latents
    for index, member in enumerate(members):
        alone = member.perception(SEEN)
        assert torch.equal(latents[:, :, index : index + 1], alone)
        assert torch.equal(futures[..., index : index + 1, :], member.dynamics.rollout(context(alone), PLANS).latents)


def test_the_measure_is_the_mean_of_the_members(members):
    latents = EnsemblePerception([member.perception for member in members])(SEEN)
    alone = torch.stack([member.position_head(member.perception(SEEN)) for member in members])
    torch.testing.assert_close(MeanMeasure([member.position_head for member in members])(latents), alone.mean(dim=0))


def test_as_many_plans_at_once_as_the_member_with_the_least_room(members):
    latents = EnsemblePerception([member.perception for member in members])(SEEN)
    together = EnsembleDynamics([member.dynamics for member in members])
    assert together.at_once(context(latents), 4) == members[0].dynamics.at_once(context(latents[:, :, :1]), 4)


def test_tokens_that_cannot_be_shared_out_are_refused(members):
    together = EnsembleDynamics([member.dynamics for member in members])
    with pytest.raises(ValueError, match="2 tokens .* 3 members"):
        together.rollout(context(torch.zeros(2, 1, 2, 64)), PLANS)


def test_an_ensemble_of_nobody_is_refused():
    for empty in (EnsemblePerception, EnsembleDynamics, MeanMeasure):
        with pytest.raises(ValueError, match="at least one"):
            empty([])


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    place = tmp_path_factory.mktemp("ensemble")
    members = [tiny.save(place / str(seed), seed=seed) for seed in (0, 1)]
    save_ensemble(place / "both", members)
    return members, place / "both"


def test_a_published_ensemble_comes_back_with_the_bits_of_its_members(saved):
    members, folder = saved
    model, alone = load_world_model(folder), [load_world_model(member) for member in members]
    latents = model.perception(SEEN)
    assert torch.equal(latents, torch.cat([member.perception(SEEN) for member in alone], dim=2))
    assert len(model.members) == 2 and model.fingerprint not in {member.fingerprint for member in alone}


def test_members_of_different_robots_are_refused(saved, tmp_path):
    with pytest.raises(BadCheckpoint, match="have the same cameras, image size, actions"):
        save_ensemble(tmp_path / "both", [saved[0][0], tiny.save(tmp_path / "slow", dt_s=0.5)])
    assert not (tmp_path / "both").exists()


def test_an_ensemble_of_ensembles_is_refused(saved, tmp_path):
    with pytest.raises(BadCheckpoint, match="ensemble itself"):
        save_ensemble(tmp_path / "more", [saved[1], saved[0][0]])


@pytest.mark.parametrize("change", [lambda c: c["systems"].pop(), lambda c: c["systems"].append(c["systems"][0])])
def test_an_ensemble_with_too_few_or_too_many_weights_is_refused(saved, tmp_path, change):
    tensors, config = load_checkpoint(saved[1])
    change(config)
    save_checkpoint(tmp_path / "odd", tensors, config)
    with pytest.raises(BadCheckpoint):
        load_world_model(tmp_path / "odd")
