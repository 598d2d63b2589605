"""Training slots on video: what is rebuilt, where places are said to go, and what passes to a Causal-JEPA."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from jepa_mpc.errors import UnknownName
from jepa_mpc.seeding import generator
from jepa_mpc.world_model.parts.objectives.slot_features import (
    PixelPatches,
    SlotFeatureObjective,
    movement_gap,
    similarity,
)
from jepa_mpc.world_model.recipes import causal_jepa, video_slots
from tests import tiny


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=generator(seed, "noise"))


def made(**changes) -> SlotFeatureObjective:
    return video_slots.build(**{"preset": "tiny", "generator": generator(0)} | changes)


def frames() -> dict[str, torch.Tensor]:
    return {"frames": tiny.frames(2, 3, channels=3, size=28)}


def test_places_go_where_their_keys_are_found_again():
    keys = torch.eye(4)[None, None].repeat(1, 2, 1, 1)
    keys[:, 1] = keys[:, 1, [1, 2, 3, 0]]  # what was at place p is now at p - 1
    target = similarity(keys, temperature=0.05)
    assert target.argmax(dim=-1).tolist() == [[[3, 0, 1, 2]]] and torch.allclose(
        target.sum(dim=-1), torch.ones(1, 1, 4)
    )


def test_a_place_that_resembles_nothing_may_go_anywhere():
    keys = torch.ones(1, 2, 3, 2)
    keys[:, 0, 0] = -1
    target = similarity(keys, temperature=0.1)
    assert torch.allclose(target[0, 0, 0], torch.full((3,), 1 / 3))


def test_opposite_places_are_left_out():
    keys = torch.tensor([[[[1.0, 0.0]] * 2, [[1.0, 0.0], [-1.0, 0.0]]]])
    assert torch.equal(similarity(keys, temperature=10.0)[0, 0, 0], torch.tensor([1.0, 0.0]))


def test_the_right_answer_costs_the_entropy_of_the_target():
    target = noise(2, 3, 4).softmax(dim=-1)
    entropy = -(target * target.log()).sum(dim=-1).mean()
    assert torch.isclose(movement_gap(target.log(), target), entropy)
    assert movement_gap(noise(2, 3, 4, seed=1), target) > entropy


def test_patches_are_row_major_pixels():
    picture = torch.arange(16.0).view(1, 1, 4, 4)
    assert PixelPatches(patch=2)(picture)[0].tolist() == [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]


def test_the_total_is_both_terms_at_their_weights():
    loss = made()(frames(), generator(1))
    assert torch.isclose(loss.total, loss.terms["features"] + 0.1 * loss.terms["movement"])
    assert "movement" not in made(weight=0.0)(frames(), generator(1)).terms


def test_a_frozen_feature_network_is_what_is_rebuilt_and_stays_as_it_is():
    class Cells(nn.Module):
        width = 8

        def __init__(self) -> None:
            super().__init__()
            self.map = nn.Conv2d(3, 8, 4, stride=4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.map(x).flatten(2).transpose(1, 2)

    encoder = video_slots.over_patches(video_slots.PRESETS["tiny"], features=Cells())
    objective = made(encoder=encoder)
    loss = objective(frames(), generator(1))
    loss.total.backward()
    assert objective.features is None and objective.decoder.output.out_features == 8 + 49
    assert all(weight.grad is None for weight in encoder.features.parameters())
    assert encoder.embed[1].weight.grad.abs().sum() > 0


def test_the_trained_encoder_fits_the_causal_jepa_of_the_same_preset():
    slots, world = made(), causal_jepa.build(preset="tiny", action_dim=2, generator=generator(5))
    world.encoder.load_state_dict(slots.encoder.state_dict())
    assert torch.equal(world.encode(frames()["frames"]), slots.encode(frames()["frames"]))


@pytest.mark.parametrize("name", ["lab", "videosaur"])
def test_presets_have_the_slots_that_their_causal_jepa_expects(name):
    sizes = video_slots.PRESETS[name]
    other = causal_jepa.PRESETS["lab" if name == "lab" else "pusht"]
    assert (other.slots, other.predictor.width) == (sizes, sizes.slot_dim)
    assert other.hidden < sizes.num_slots and sizes.image % sizes.cell == 0


def test_an_unknown_preset_lists_the_known_ones():
    with pytest.raises(UnknownName, match="videosaur"):
        made(preset="huge")
