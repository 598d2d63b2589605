"""Rotary positions in three coordinates, and the block that uses them."""

from __future__ import annotations

import math

import pytest
import torch

from jepa_mpc.encoders.layers.blocks import RotaryBlock
from jepa_mpc.encoders.layers.positions import AxialRotary, Pairing, grid_places, rotate
from jepa_mpc.encoders.layers.weights import draw_weights
from jepa_mpc.seeding import generator

PAIRINGS: tuple[Pairing, ...] = ("tiled", "interleaved")


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=generator(seed))


@pytest.mark.parametrize("pairing", PAIRINGS)
@pytest.mark.parametrize("head_dim", [6, 13, 16, 24, 32, 64, 80])
def test_rotation_equals_the_formula_written_out_channel_by_channel(pairing, head_dim):
    x, place = noise(1, 1, 1, head_dim), (3.0, 1.5, 7.0)
    turned = rotate(x, AxialRotary(head_dim, pairing=pairing).table(torch.tensor([place])))[0, 0, 0]
    segment = 2 * (head_dim // 3 // 2)
    x, wanted = x[0, 0, 0].double(), x[0, 0, 0].double().clone()
    for channel in range(3 * segment):
        inner, half = channel % segment, segment // 2
        index = inner % half if pairing == "tiled" else inner // 2
        angle = place[channel // segment] * 10_000 ** (-index / half)
        partner = -x[channel + 1] if channel % 2 == 0 else x[channel - 1]
        wanted[channel] = x[channel] * math.cos(angle) + partner * math.sin(angle)
    torch.testing.assert_close(turned.double(), wanted, atol=1e-6, rtol=1e-5)


def test_interleaved_scores_depend_on_differences_of_places_alone():
    rotary, query, key = AxialRotary(24, pairing="interleaved"), noise(1, 1, 1, 24), noise(1, 1, 1, 24, seed=1)

    def score(query_at: tuple[float, ...], key_at: tuple[float, ...]) -> torch.Tensor:
        turned = [rotate(x, rotary.table(torch.tensor([at]))) for x, at in ((query, query_at), (key, key_at))]
        return (turned[0] * turned[1]).sum()

    torch.testing.assert_close(score((5, 2, 3), (1, 7, 3)), score((9, 12, 4), (5, 17, 4)), atol=1e-4, rtol=1e-4)
    assert not torch.isclose(score((5, 2, 3), (1, 7, 3)), score((5, 2, 3), (1, 7, 5)), atol=1e-3)


@pytest.mark.parametrize("pairing", PAIRINGS)
def test_a_token_at_the_origin_is_not_turned(pairing):
    x = noise(2, 3, 1, 32)
    assert torch.equal(rotate(x, AxialRotary(32, pairing=pairing).table(torch.zeros(1, 3))), x)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_rotation_keeps_the_dtype_and_stays_near_float32(dtype):
    angles = AxialRotary(32, pairing="tiled").table(grid_places(2, 3, 4))
    x = noise(2, 3, 24, 32).to(dtype)
    turned = rotate(x, angles)
    assert turned.dtype == dtype
    torch.testing.assert_close(turned.float(), rotate(x.float(), angles), atol=2e-2, rtol=1e-2)


def test_places_of_each_sample_turn_that_sample():
    rotary, x = AxialRotary(16, pairing="tiled"), noise(2, 3, 5, 16)
    places = grid_places(2, 3, 4)[torch.tensor([[0, 3, 7, 8, 11], [23, 1, 2, 4, 9]])]
    together = rotate(x, rotary.table(places))
    for sample in range(2):
        alone = rotate(x[sample : sample + 1], rotary.table(places[sample]))
        torch.testing.assert_close(together[sample], alone[0])


def test_places_are_in_the_order_time_row_column():
    assert grid_places(2, 2, 3).tolist() == [[t, r, c] for t in range(2) for r in range(2) for c in range(3)]


def test_stretched_places_span_the_pretraining_grid_but_not_time():
    places = grid_places(3, 4, 1, span=16)
    assert places.amax(dim=0).tolist() == [2, 15, 0] and places.isfinite().all()
    torch.testing.assert_close(grid_places(1, 16, 16, span=16), grid_places(1, 16, 16))


@pytest.mark.parametrize("pairing", PAIRINGS)
def test_a_block_can_be_run_with_remembered_keys_and_values(pairing):
    block = draw_weights(RotaryBlock(24, heads=2, hidden=32), generator(0))
    rotary, x, places = AxialRotary(12, pairing=pairing), noise(2, 6, 24), grid_places(3, 1, 2)
    causal = torch.ones(6, 6, dtype=torch.bool).tril()
    whole = block(x, rotary.table(places), causal)
    _, *past = block.project(x[:, :4], rotary.table(places[:4]))
    query, *new = block.project(x[:, 4:], rotary.table(places[4:]))
    key, value = (torch.cat(parts, dim=2) for parts in zip(past, new, strict=True))
    torch.testing.assert_close(block.finish(x[:, 4:], query, key, value, causal[4:]), whole[:, 4:])


def test_a_head_too_narrow_or_an_unknown_pairing_is_refused():
    with pytest.raises(ValueError, match="at least 6 channels"):
        AxialRotary(4, pairing="tiled")
    with pytest.raises(ValueError, match="one of"):
        AxialRotary(16, pairing="halves")  # type: ignore[arg-type]
