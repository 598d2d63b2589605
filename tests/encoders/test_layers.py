"""Attention, positions, blocks and weight drawing."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from jepa_mpc.encoders.layers.attention import Attention
from jepa_mpc.encoders.layers.blocks import AdaLNBlock, FeedForward, GatedModulation, ProjectionHead, ZeroModulation
from jepa_mpc.encoders.layers.pixels import NormalisePixels, ScenePixels
from jepa_mpc.encoders.layers.positions import Rotary, resize_grid, sincos_1d, sincos_2d
from jepa_mpc.encoders.layers.weights import draw_weights
from jepa_mpc.seeding import generator


def test_attention_equals_the_written_out_formula() -> None:
    attention = draw_weights(Attention(12, heads=3), generator(0))
    x = torch.randn(2, 5, 12, generator=generator(1))
    query, key, value = (part.unflatten(-1, (3, 4)).transpose(1, 2) for part in attention.to_qkv(x).chunk(3, dim=-1))
    weights = (query @ key.mT / 4**0.5).softmax(dim=-1)
    torch.testing.assert_close(attention(x), attention.output((weights @ value).transpose(1, 2).flatten(2)))


def test_queries_for_the_last_tokens_alone_are_the_last_queries() -> None:
    attention = draw_weights(Attention(12, heads=3), generator(0))
    x = torch.randn(2, 5, 12, generator=generator(1))
    whole, last = attention.project(x), attention.project_last(x, 2)
    torch.testing.assert_close(last[0], whole[0][:, :, -2:])
    torch.testing.assert_close(last[1:], whole[1:])


def test_rotary_scores_depend_on_differences_alone() -> None:
    rotary = Rotary(8)
    query, key = torch.randn(2, 1, 8, generator=generator(0)), torch.randn(2, 1, 8, generator=generator(1))

    def score(query_at: int, key_at: int) -> torch.Tensor:
        turned = [
            rotary.turn(x, rotary.table(torch.tensor([place]))) for x, place in ((query, query_at), (key, key_at))
        ]
        return (turned[0] * turned[1]).sum()

    torch.testing.assert_close(score(7, 3), score(104, 100), atol=1e-4, rtol=1e-4)
    assert not torch.isclose(score(7, 3), score(7, 5))


def test_places_of_a_sine_cosine_table_are_all_different() -> None:
    table = sincos_2d(4, 5, 16)
    assert table.shape == (20, 16)
    assert torch.pdist(table).min() > 0.1
    with pytest.raises(ValueError, match="even width"):
        sincos_1d(torch.arange(3), 5)


def test_a_position_table_keeps_its_size_untouched_and_resizes_smoothly() -> None:
    table = torch.randn(1, 16, 3, generator=generator(0))
    assert resize_grid(table, (4, 4), (4, 4)) is table
    assert resize_grid(torch.ones(1, 16, 3), (4, 4), (6, 5)).sub(1).abs().max() < 1e-6
    assert resize_grid(table, (4, 4), (6, 5)).shape == (1, 30, 3)


def test_a_zero_modulated_block_starts_as_the_identity_and_a_gated_one_does_not() -> None:
    x, condition = torch.randn(2, 3, 4, 8, generator=generator(0)), torch.randn(2, 3, 8, generator=generator(1))
    for init, starts_as_identity in ((ZeroModulation(), True), (GatedModulation(), False)):
        block = AdaLNBlock(8, attention=Attention(8, heads=2), mlp=FeedForward(8, hidden=16), modulation_init=init)
        out = block(x, block.modulation(condition), lambda attention, y: attention(y.flatten(1, 2)).view_as(y))
        assert torch.equal(out, x) == starts_as_identity


def test_a_projection_head_takes_its_statistics_over_all_rows() -> None:
    head = ProjectionHead(6, hidden=8, output=4)
    x = torch.randn(3, 5, 6, generator=generator(0))
    torch.testing.assert_close(head(x).flatten(0, 1), head(x.flatten(0, 1)))


def test_the_same_seed_draws_the_same_weights() -> None:
    first, second = (draw_weights(FeedForward(8, hidden=16), generator(3)).state_dict() for _ in range(2))
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_pixels_of_several_cameras_share_the_colour_constants() -> None:
    frames = torch.randint(0, 256, (2, 6, 4, 4), dtype=torch.uint8, generator=generator(0))
    normalise = NormalisePixels(mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))
    torch.testing.assert_close(normalise(frames)[:, 3:], normalise(frames[:, 3:]))
    assert F.mse_loss(normalise(frames)[:, 1] * 0.6 + 0.2, frames[:, 1] / 255) < 1e-10


def test_a_still_scene_vanishes_and_what_moves_in_it_stays() -> None:
    pixels = ScenePixels(size=(3, 4, 4))
    frames = torch.full((4, 3, 4, 4), 200, dtype=torch.uint8)
    for index in range(4):
        frames[index, :, index, 0] = 0  # a dark dot in another row of each frame
    plain = pixels(frames)
    pixels.measure(frames)
    seen = pixels(frames)
    assert (plain[..., 1:] == plain[0, 0, 0, 1]).all() and plain[0, 0, 0, 1] != 0
    assert seen[..., 1:].abs().max() == 0 and seen[2, 0, 2, 0] == seen[..., 0].min()
    torch.testing.assert_close(seen.square().mean(), torch.tensor(1.0))
    still = ScenePixels(size=(3, 4, 4))
    still.measure(frames[:1])
    assert still.spread == 1
