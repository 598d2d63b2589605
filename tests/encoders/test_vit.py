"""The vision Transformer."""

from __future__ import annotations

import pytest
import torch

from jepa_mpc.encoders import VIT_MINI, VIT_TINY, VisionTransformer
from jepa_mpc.encoders.layers.weights import draw_weights
from jepa_mpc.errors import BadObservation
from jepa_mpc.seeding import generator


def test_pooling_gives_one_token_or_all_patches() -> None:
    images = torch.randn(2, 3, 28, 28, generator=generator(0))
    assert VisionTransformer(VIT_MINI, pool="cls")(images).shape == (2, 1, 32)
    assert VisionTransformer(VIT_MINI, pool="patches")(images).shape == (2, 16, 32)


def test_hidden_patches_do_not_reach_the_kept_ones() -> None:
    encoder = draw_weights(VisionTransformer(VIT_MINI, pool="patches"), generator(0))
    images = torch.randn(1, 3, 28, 28, generator=generator(1))
    keep = torch.tensor([[0, 5, 6]])
    before = encoder(images, keep)
    images[:, :, :7, 7:] += 1  # patches 1 to 3
    torch.testing.assert_close(encoder(images, keep), before)
    assert before.shape == (1, 3, 32)


def test_other_image_sizes_are_welcome_if_patches_fill_them() -> None:
    encoder = VisionTransformer(VIT_MINI)
    assert encoder(torch.zeros(1, 3, 42, 35)).shape == (1, 1, 32)
    with pytest.raises(BadObservation, match="sides divisible by 7"):
        encoder(torch.zeros(1, 3, 30, 28))
    with pytest.raises(BadObservation, match="expected images"):
        encoder(torch.zeros(1, 4, 28, 28))


def test_the_published_encoder_has_the_published_size() -> None:
    with torch.device("meta"):
        encoder = VisionTransformer(VIT_TINY)
    assert sum(weight.numel() for weight in encoder.parameters()) == 5_501_376
