"""Masks of point clouds: runs along an order, and balls in space."""

from __future__ import annotations

import pytest
import torch

from jepa_mpc.seeding import generator
from jepa_mpc.world_model.parts.masks.points import POINT_RUNS, Balls, LegacyRuns, Runs

CENTRES = torch.randn(6, 64, 3, generator=generator(0, "centres"))


@pytest.mark.parametrize("name", sorted(POINT_RUNS))
def test_runs_are_contiguous_and_nothing_hidden_is_seen(name):
    sampler, draw = POINT_RUNS[name](num_tokens=64), generator(1)
    for _ in range(200):
        masks = sampler(3, draw)
        assert masks.targets.shape[:2] == (3, 4) and 9 <= masks.targets.shape[2] <= 12
        assert (masks.targets.diff(dim=-1) == 1).all() and masks.targets.min() >= 0 and masks.targets.max() < 64
        hidden, seen = set(masks.targets[0].flatten().tolist()), set(masks.context[0].tolist())
        assert seen and not hidden & seen
        between = set(range(min(seen), max(seen) + 1)) - seen
        assert between <= hidden  # a run of what is left: it jumps over hidden ones alone
        assert (masks.context == masks.context[:1]).all()


def test_where_nothing_is_left_one_draws_again_and_the_published_code_shows_a_hidden_token():
    shares = {"num_tokens": 8, "num_targets": 6, "target": (0.5, 0.5)}
    draw = generator(2)
    legacy = [LegacyRuns(**shares)(1, draw) for _ in range(200)]
    assert any(set(m.context[0].tolist()) & set(m.targets.flatten().tolist()) for m in legacy)
    ours = [Runs(**shares)(1, draw) for _ in range(200)]
    assert not any(set(m.context[0].tolist()) & set(m.targets.flatten().tolist()) for m in ours)
    with pytest.raises(ValueError, match="leave too few visible tokens in 200 draws"):
        Runs(num_tokens=8, target=(1.0, 1.0))(1, draw)


def test_a_hidden_ball_is_what_lies_nearest_to_its_middle():
    masks = Balls()(CENTRES, generator(3))
    away = torch.cdist(CENTRES, CENTRES)
    for sample, balls in enumerate(masks.targets):
        for ball in balls:
            radius = away[sample][ball][:, ball].amax(dim=1)  # of a ball about each of its tokens
            inside = (away[sample][ball] <= radius[:, None]).sum(dim=1)
            assert int(inside.min()) == len(ball)  # about its seed, it holds no other token


def test_balls_and_context_are_disjoint_and_each_cloud_has_its_own():
    draw = generator(4)
    for _ in range(100):
        masks = Balls()(CENTRES, draw)
        assert masks.context.shape[1] >= 4 and (masks.context.diff(dim=1) > 0).all()
        for seen, hidden in zip(masks.context, masks.targets, strict=True):
            assert not set(seen.tolist()) & set(hidden.flatten().tolist())
    assert not (masks.targets == masks.targets[:1]).all()


def test_balls_that_hide_everything_are_refused():
    with pytest.raises(ValueError, match="leave too few visible tokens"):
        Balls(target=(1.0, 1.0))(CENTRES, generator(5))


@pytest.mark.parametrize("make", [lambda **shares: Runs(num_tokens=64, **shares), Balls])
@pytest.mark.parametrize("share", [(0.0, 0.2), (0.3, 0.2), (0.5, 1.5), (-0.1, 0.2)])
def test_ratios_out_of_range_are_told_in_one_sentence(make, share):
    for name in ("target", "context"):
        with pytest.raises(ValueError, match=rf"{name} must be a range \(low, high\) of shares above 0 and up to 1"):
            make(**{name: share})


def test_counts_without_sense_are_refused():
    with pytest.raises(ValueError, match="need at least one token and one masked block, got 0 and 4"):
        Runs(num_tokens=0)
