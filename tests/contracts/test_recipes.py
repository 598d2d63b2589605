"""What every recipe of the shelf promises, in its smallest size."""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Mapping

import pytest
import torch
from torch.nn import functional as F

from jepa_mpc.checkpoint import load_checkpoint, load_strict, save_checkpoint
from jepa_mpc.seeding import generator
from jepa_mpc.world_model.parts.objectives.dynamics import DynamicsObjective
from jepa_mpc.world_model.parts.objectives.masked import MaskedObjective
from jepa_mpc.world_model.recipes import RECIPES
from tests import tiny

ACTION_DIM = 7
FEW = 6  # worlds of a batch from which nothing is learned
NUM_STEPS = 40  # of the 150 that the house allows: enough for the smallest sizes
SLOWER = {"act_jepa_control": 150}

WITHOUT_DRAWS = {"think_jepa", "vjepa2_ac"}
ARM = "the arm's own form"  # a recipe's other forms stand beside it


def build(name: str) -> DynamicsObjective | MaskedObjective:
    if name == ARM:
        return tiny.objective()
    actions = {"action_dim": ACTION_DIM, "action_scale": torch.full((ACTION_DIM,), 0.1)}
    taken = inspect.signature(RECIPES[name]).parameters  # a system that learns from pictures alone knows no actions
    known = {key: value for key, value in actions.items() if key in taken}
    return RECIPES[name](preset="tiny", **known, generator=generator(0))


@functools.cache
def built(name: str) -> DynamicsObjective | MaskedObjective:
    return build(name)


def make(name: str) -> DynamicsObjective | MaskedObjective:
    """An untrained objective of one's own; its weights are drawn once for all tests."""
    return copy.deepcopy(built(name))


@functools.cache
def batch(name: str, *, worlds: int = 16) -> Mapping[str, torch.Tensor]:
    """Windows `T = 4` (8 where a camera is fitted) whose pictures, clouds and sound tell of a moving blob."""
    size, channels = (tiny.SIZE, 6) if name == ARM else (28, 3)
    draw, moves = generator(1), 7 if name == "hand_points" else 3
    actions = 0.1 * torch.randn(worlds, moves, ACTION_DIM, generator=draw)
    start = torch.rand(worlds, 1, 2, generator=draw) - 0.5
    place = torch.cat([start, start + actions[..., :2].cumsum(1)], dim=1)[..., None, None]
    axis = torch.linspace(-1, 1, size)
    blob = torch.exp(-10 * ((axis - place[:, :, 0]) ** 2 + (axis[:, None] - place[:, :, 1]) ** 2))
    frames = (255 * blob).to(torch.uint8)[:, :, None].repeat(1, 1, channels, 1, 1)
    shape = 0.2 * torch.randn(worlds, 1, 32, 3, generator=draw)
    walked = torch.cat([torch.full_like(actions[:, :1], 0.1), 0.1 + actions.cumsum(1)], dim=1)
    clouds = shape * torch.rand(worlds, 1, 1, 3, generator=draw) + F.pad(place[:, :1, :, 0, 0], (0, 1))[:, :, None]
    moments = torch.arange(place.shape[1] * 200).view(-1, 200) / 2000  # s
    sound = (2 * torch.pi * (400 + 150 * place[:, :, 0, 0]) * moments).sin() * place[:, :, 1, 0]
    return {
        "frames": frames, "actions": actions, "proprio": walked.clamp(-0.9, 0.9), "clouds": clouds, "sound": sound,
        "object_felt": F.pad(0.1 * place[..., 0, 0], (0, 1)),
    }  # fmt: skip


def step(objective: DynamicsObjective | MaskedObjective, name: str, *, rate: float, number: int = 0) -> torch.Tensor:
    """One step of plain descent; zero gates let nothing through before the first one."""
    objective.zero_grad()
    loss = objective(batch(name), generator(2, number)).total
    loss.backward()
    with torch.no_grad():
        for weight in objective.parameters():
            if weight.requires_grad:
                weight.sub_(rate * weight.grad)
    return loss.detach()


@pytest.fixture(params=[*sorted(RECIPES), ARM])
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def test_the_loss_is_finite_and_its_terms_are_only_for_reading(name):
    loss = make(name)(batch(name, worlds=FEW), generator(2))
    assert loss.total.isfinite() and loss.total.dim() == 0
    assert all(term.isfinite() and not term.requires_grad for term in loss.terms.values())


def test_gradient_reaches_every_trainable_weight(name):
    objective = make(name)
    for number in range(2):
        step(objective, name, rate=0.01, number=number)
    trainable = [(key, weight) for key, weight in objective.named_parameters() if weight.requires_grad]
    assert trainable and not [key for key, weight in trainable if not weight.grad.abs().sum() > 0]


def test_no_target_receives_gradient(name):
    objective = make(name)
    step(objective, name, rate=0.0)
    target = getattr(objective, "target", None)
    if target is None:
        pytest.skip("this loss compares with no target network")
    assert all(weight.grad is None for weight in target.parameters()) or not list(target.children())


def test_the_loss_of_one_batch_falls_by_two_fifths(name):
    objective = make(name)
    optimiser = torch.optim.AdamW(objective.parameters(), lr=3e-3)
    losses = []
    for number in range(SLOWER.get(name, NUM_STEPS)):
        loss = objective(batch(name), generator(2, number)).total
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.detach())
    first, last = torch.stack(losses[:5]).mean(), torch.stack(losses[-5:]).mean()  # SIGReg draws anew at each step
    assert last < 0.6 * first


def test_a_round_trip_through_a_checkpoint_keeps_every_bit(name, tmp_path):
    objective = make(name).eval()
    save_checkpoint(tmp_path / "model", objective.state_dict(), {})
    again = copy.deepcopy(objective)
    with torch.no_grad():
        for weight in again.parameters():
            weight.zero_()
    load_strict(again, load_checkpoint(tmp_path / "model")[0], name)
    seen = batch(name, worlds=FEW)[getattr(objective, "main_input", "frames")]
    if hasattr(objective, "encode"):
        assert torch.equal(again.encode(seen), objective.encode(seen))
    few = batch(name, worlds=FEW)
    assert torch.equal(again(few, generator(2)).total, objective(few, generator(2)).total)


def test_the_same_seeds_give_the_same_loss(name):
    first, second = (build(name)(batch(name, worlds=FEW), generator(2)).total for _ in range(2))
    assert torch.equal(first, second)


def test_other_draws_give_another_loss(name):
    if name in WITHOUT_DRAWS:
        pytest.skip("nothing is drawn in this loss")
    objective = make(name)
    assert not torch.equal(*(objective(batch(name, worlds=FEW), generator(seed)).total for seed in (2, 3)))


def test_encoding_and_losses_leave_weights_and_targets_as_they_were(name):
    objective = make(name).eval()
    before = {key: value.clone() for key, value in objective.state_dict().items()}
    objective(batch(name, worlds=FEW), generator(2)).total.backward()
    assert all(torch.equal(value, before[key]) for key, value in objective.state_dict().items())
