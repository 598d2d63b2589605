"""The LeWorldModel recipe, its loss, and the released layout."""

from __future__ import annotations

import json
import re

import pytest
import torch
from torch import nn

from jepa_mpc.encoders import VIT_MINI, VisionTransformer
from jepa_mpc.errors import BadCheckpoint, UnknownName
from jepa_mpc.seeding import generator
from jepa_mpc.world_model.adapters.lewm import load_released, released_config, save_released, to_released
from jepa_mpc.world_model.parts.distances import NormalisedTarget, SquaredError
from jepa_mpc.world_model.parts.objectives.dynamics import DynamicsObjective, OpenLoop
from jepa_mpc.world_model.parts.targets import EMATarget, FrozenTarget
from jepa_mpc.world_model.recipes import RECIPES
from jepa_mpc.world_model.recipes.leworldmodel import as_world_model, build


def tiny(**parts) -> DynamicsObjective:
    return build(preset="tiny", action_dim=7, action_scale=torch.full((7,), 0.1), generator=generator(0), **parts)


def lab(**parts) -> DynamicsObjective:
    scale = torch.full((7,), 0.1)
    encoder = VisionTransformer(VIT_MINI, pool="cls")
    return build(preset="lab", encoder=encoder, action_dim=7, action_scale=scale, generator=generator(0), **parts)


def batch(worlds: int = 6, frames: int = 4) -> dict[str, torch.Tensor]:
    draw = generator(1)
    return {
        "frames": torch.randint(0, 256, (worlds, frames, 3, 28, 28), dtype=torch.uint8, generator=draw),
        "actions": 0.1 * torch.randn(worlds, frames - 1, 7, generator=draw),
        "proprio": torch.randn(worlds, frames, 3, generator=draw),
    }


class Straightness(nn.Module):
    """An extra term with a weight of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.ones(()))

    def forward(self, latents, actions, generator):
        assert latents.shape[1] == actions.shape[1] + 1
        return self.factor * latents.diff(n=2, dim=1).square().mean()


@pytest.mark.parametrize("make", [tiny, lab])
def test_gradient_reaches_every_weight(make) -> None:
    objective = make(extra=[("straight", 0.1, Straightness())], open_loop=OpenLoop(weight=0.5))
    for _ in range(2):  # zero gates let nothing through at first
        loss = objective(batch(), generator(2))
        objective.zero_grad()
        loss.total.backward()
        with torch.no_grad():
            for weight in objective.parameters():
                weight.sub_(0.01 * weight.grad)
    silent = [name for name, weight in objective.named_parameters() if not weight.grad.abs().sum() > 0]
    assert not silent


def test_the_total_is_the_weighted_sum_of_its_terms() -> None:
    objective = lab(
        extra=[("straight", 0.1, Straightness())],
        open_loop=OpenLoop(weight=0.5, steps=2),
        proprio_scale=torch.ones(3),
        sigreg_weight=0.3,
    )
    loss = objective(batch(), generator(2))
    weights = {"prediction": 1, "proprio": 1, "open_loop": 0.5, "sigreg": 0.3, "straight": 0.1}
    assert loss.terms.keys() == {*weights, "total"}
    torch.testing.assert_close(loss.total.detach(), sum(w * loss.terms[name] for name, w in weights.items()))
    assert not any(term.requires_grad for term in loss.terms.values())


@pytest.mark.parametrize("make", [tiny, lab])
def test_the_loss_of_one_batch_falls(make) -> None:
    objective = make()
    optimiser = torch.optim.AdamW(objective.parameters(), lr=3e-3)
    losses = []
    for step in range(40):
        loss = objective(batch(worlds=16), generator(2, step))
        optimiser.zero_grad()
        loss.total.backward()
        optimiser.step()
        losses.append(loss.total.detach())
    assert sum(losses[-5:]) < 0.6 * sum(losses[:5])


def test_the_same_seeds_give_the_same_bits() -> None:
    first, second = (tiny()(batch(), generator(2)).total for _ in range(2))
    assert torch.equal(first, second)


def test_the_target_side_receives_gradient_when_shared_and_none_when_frozen() -> None:
    shared = tiny(sigreg_weight=0.0)
    x = shared.preprocess(batch()["frames"].flatten(0, 1))
    online = shared.encoder(x)
    assert shared.target(x, online) is online
    frozen = FrozenTarget(shared.encoder)
    assert not frozen(x, online).requires_grad
    assert not frozen.train().encoder.training


def test_a_slow_target_moves_in_after_step_alone() -> None:
    encoder = VisionTransformer(VIT_MINI)
    objective = tiny(encoder=encoder)
    target = EMATarget(objective.encoder)
    objective.target = target
    before = [weight.clone() for weight in target.encoder.parameters()]
    objective(batch(), generator(2)).total.backward()
    with torch.no_grad():
        for weight in objective.encoder.parameters():
            weight.add_(1)
    assert all(torch.equal(a, b) for a, b in zip(before, target.encoder.parameters(), strict=True))
    objective.after_step(0.0)
    moved = [(b - a).mean() for a, b in zip(before, target.encoder.parameters(), strict=True)]
    torch.testing.assert_close(torch.stack(moved), torch.full((len(moved),), 0.004), rtol=1e-2, atol=1e-5)


def test_frames_are_augmented_in_training_alone() -> None:
    seen = []
    objective = tiny(augment=lambda frames, generator: seen.append(frames.dtype) or frames)
    objective(batch(), generator(2))
    objective.eval()(batch(), generator(2))
    assert seen == [torch.uint8]


def test_a_normalised_target_forgets_scale_and_shift() -> None:
    distance = NormalisedTarget(SquaredError())
    x, y = torch.randn(2, 4, 16, generator=generator(0)), torch.randn(2, 4, 16, generator=generator(1))
    torch.testing.assert_close(distance(x, y), distance(x, 5 * y + 3), atol=1e-4, rtol=1e-4)


def test_misuse_gets_a_clear_sentence() -> None:
    with pytest.raises(UnknownName, match="known: lab, paper, tiny"):
        build(preset="huge", action_dim=7)
    with pytest.raises(ValueError, match="no proprioception"):
        tiny(proprio_scale=torch.ones(3))
    with pytest.raises(ValueError, match="a name of its own"):
        tiny(extra=[("sigreg", 1.0, Straightness())])
    with pytest.raises(ValueError, match="positive"):
        build(preset="lab", action_dim=7, action_scale=torch.zeros(7))
    bad = batch() | {"actions": torch.zeros(6, 4, 7)}
    with pytest.raises(ValueError, match="T=3"):
        tiny()(bad, generator(0))


def test_the_published_size_is_the_published_one() -> None:
    with torch.device("meta"):
        state = to_released(build(preset="paper", action_dim=10).state_dict())
    assert len(state) == 303
    assert sum(tensor.numel() for tensor in state.values()) == 18_042_672


def newer(key: str) -> str:
    pairs = {
        "attention.attention.query": "attention.q_proj",
        "attention.attention.key": "attention.k_proj",
        "attention.attention.value": "attention.v_proj",
        "attention.output.dense": "attention.o_proj",
        "intermediate.dense": "mlp.fc1",
        "output.dense": "mlp.fc2",
    }
    for old, new in pairs.items():
        key = key.replace(old, new) if key.startswith("encoder.") else key
    return re.sub(r"^encoder\.encoder\.layer\.", "encoder.layers.", key)


@pytest.mark.parametrize("spell", [str, newer, "model.{}".format], ids=["released", "newer", "prefixed"])
def test_released_weights_load_in_each_spelling(tmp_path, spell) -> None:
    objective = build(preset="tiny", action_dim=7, generator=generator(0)).eval()
    state = {spell(key): value.clone() for key, value in to_released(objective.state_dict()).items()}
    torch.save(state, tmp_path / "weights.pt")
    (tmp_path / "config.json").write_text(json.dumps(released_config(objective)))
    loaded = load_released(tmp_path)
    frames = batch()["frames"]
    assert torch.equal(loaded.encode(frames), objective.encode(frames))
    latents, actions = objective.encode(frames)[:, :3], batch()["actions"]
    assert torch.equal(loaded.predictor(latents, actions), objective.predictor(latents, actions))


def test_released_weights_written_and_read_again_are_the_same_bits(tmp_path) -> None:
    objective = build(preset="tiny", action_dim=7, generator=generator(0))
    save_released(objective, tmp_path / "model")
    again = load_released(tmp_path / "model").state_dict()
    assert all(torch.equal(again[key], value) for key, value in objective.state_dict().items())


def test_weights_that_do_not_fit_are_refused_with_their_names(tmp_path) -> None:
    objective = build(preset="tiny", action_dim=7)
    state = to_released(objective.state_dict())
    state.pop("projector.net.1.running_mean")
    torch.save({**state, "decoder.weight": torch.zeros(3)}, tmp_path / "weights.pt")
    (tmp_path / "config.json").write_text(json.dumps(released_config(objective)))
    with pytest.raises(BadCheckpoint, match=r"1 missing: projector\.net\.1\.running_mean; 1 unexpected: decoder"):
        load_released(tmp_path)
    (tmp_path / "weights.pt").write_bytes(b"no weights at all")
    with pytest.raises(BadCheckpoint, match="cannot be read as weights"):
        load_released(tmp_path)
    with pytest.raises(BadCheckpoint, match="no weights in"):
        load_released(tmp_path / "nowhere")
    torch.save({"something": torch.zeros(2)}, tmp_path / "weights.pt")
    with pytest.raises(BadCheckpoint, match="not LeWorldModel weights"):
        load_released(tmp_path)


def test_own_form_has_no_place_in_the_released_layout() -> None:
    with pytest.raises(BadCheckpoint, match="published form"):
        to_released(lab().state_dict())


def test_every_recipe_becomes_a_world_model() -> None:
    assert as_world_model(RECIPES["leworldmodel"](preset="tiny", action_dim=7)).max_context == 3
