"""Collapse monitors: healthy latents pass, and each kind of collapse is seen."""

from __future__ import annotations

import pytest
import torch

from jepa_mpc.seeding import generator
from jepa_mpc.world_model.training.health import CollapseMonitor, LatentCollapse, effective_rank, rankme

LATENTS = torch.randn(512, 1, 16, generator=generator(0, "latents"))
MONITOR = CollapseMonitor(LATENTS)


def test_healthy_latents_show_no_sign():
    health = MONITOR(torch.randn(512, 16, generator=generator(1)))
    assert not health.collapsed
    assert 14 < health.effective_rank <= 16 and abs(health.cosine) < 0.05 and 0.8 < health.std_ratio < 1.2


@pytest.mark.parametrize(
    "latents, sign",
    [
        (LATENTS * 0.01, "deviation"),
        (LATENTS[..., :1] * torch.ones(16), "effective rank"),
        (LATENTS + 1000.0, "same way"),
        (LATENTS * torch.nan, "not finite"),
    ],
)
def test_each_kind_of_collapse_is_named(latents, sign):
    health = MONITOR(latents)
    assert any(sign in text for text in health.signs)
    with pytest.raises(LatentCollapse, match=sign):
        health.raise_if_collapsed()


def test_rankme_alone_misses_shrinking():
    small = LATENTS[:, 0] * 1e-6
    assert rankme(small) == pytest.approx(rankme(LATENTS[:, 0]), rel=1e-3)
    assert MONITOR(small).collapsed


def test_effective_rank_counts_the_directions():
    basis = torch.zeros(900, 8)
    basis[:, :3] = torch.randn(900, 3, generator=generator(2))
    assert effective_rank(basis) == pytest.approx(3.0, abs=0.1)
