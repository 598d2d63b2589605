"""Slots that say where they are."""

from __future__ import annotations

import pytest
import torch

from jepa_mpc.encoders.slot_patches import over_bare_patches
from jepa_mpc.encoders.slot_places import PlacedSlots, middles
from jepa_mpc.seeding import generator


def test_the_middle_of_what_a_slot_wins_is_read_right_and_up():
    shares = torch.full((1, 3, 64, 64), 0.1)
    shares[0, 0] = 0.3
    shares[0, 1, 10:14, 30:34] = 0.9  # above the middle
    shares[0, 2, 30:34, 50:54] = 0.9  # to its right
    found = middles(shares.flatten(2))
    assert found[0, 1].tolist() == pytest.approx([0.0, 0.625], abs=1e-3)
    assert found[0, 2].tolist() == pytest.approx([0.625, 0.0], abs=1e-3)


def test_a_slot_that_wins_nothing_stands_in_the_middle():
    shares = torch.zeros(1, 2, 16)
    shares[:, 0] = 1.0
    assert torch.allclose(middles(shares), torch.zeros(1, 2, 2), atol=1e-6)


def test_tokens_that_form_no_square_are_refused():
    with pytest.raises(ValueError, match="square grid of tokens, got 12"):
        middles(torch.zeros(1, 2, 12))


def test_slots_depend_on_place_and_number_alone_and_have_spread_one():
    inner = over_bare_patches(image=16, cell=2, num_slots=3, slot_dim=8)
    placed = PlacedSlots(inner, num_slots=3, width=8, generator=generator(0)).eval()
    pictures = torch.rand(4, 3, 16, 16, generator=generator(1))
    slots = placed(pictures)
    where = middles(inner.track(pictures[:, None]).shares[:, 0])
    assert slots.shape == (4, 3, 8) and torch.equal(slots, placed.at(where))
    same = placed.at(torch.zeros(1, 3, 2))
    assert not torch.allclose(same[0, 0], same[0, 1], atol=0.05)
    anywhere = placed.at(2 * torch.rand(2000, 3, 2, generator=generator(2)) - 1)
    assert torch.allclose(anywhere.flatten(0, 1).std(dim=0), torch.ones(8), atol=0.3)
    assert not any(weight.requires_grad for weight in placed.network.parameters())
