"""Tube masks: what is hidden, what is seen, and what is done about masks of unequal size."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from jepa_mpc.seeding import generator
from jepa_mpc.world_model.parts.masks import TUBES, LegacyTubes, Tubes
from jepa_mpc.world_model.parts.masks.cutting import first_tokens, whole_tubes

GRID = (4, 8, 8)
SHORT, LONG = {"num_blocks": 8, "area": (0.15, 0.15)}, {"num_blocks": 2, "area": (0.7, 0.7)}
KINDS = [(sampler, kind) for sampler in TUBES.values() for kind in (SHORT, LONG)]


@settings(max_examples=40, deadline=None)
@given(
    sampler=st.sampled_from(sorted(TUBES)),
    grid=st.tuples(*[st.integers(1, 5), st.integers(2, 9), st.integers(2, 9)]),
    blocks=st.integers(1, 4),
    area=st.floats(0.1, 0.45),
    duration=st.floats(0.3, 1.0),
    batch=st.integers(1, 5),
    seed=st.integers(0, 99),
)
def test_seen_and_hidden_tokens_are_disjoint_sorted_and_in_range(sampler, grid, blocks, area, duration, batch, seed):
    sampler = TUBES[sampler](grid=grid, num_blocks=blocks, area=(area, area), duration=(duration, duration))
    masks = sampler(batch, generator(seed))
    count = grid[0] * grid[1] * grid[2]
    assert masks.context.shape[0] == batch and masks.targets.shape[:2] == (batch, 1)
    assert masks.context.shape[1] > 0 and masks.targets.shape[2] > 0
    for seen, hidden in zip(masks.context.tolist(), masks.targets[:, 0].tolist(), strict=True):
        assert seen == sorted(set(seen)) and hidden == sorted(set(hidden)) and not set(seen) & set(hidden)
        assert min(seen + hidden) >= 0 and max(seen + hidden) < count


@pytest.mark.parametrize(("sampler", "kind"), KINDS)
def test_a_single_sample_has_every_token_seen_or_hidden(sampler, kind):
    masks = sampler(grid=GRID, **kind)(1, generator(0))
    assert masks.context.shape[1] + masks.targets.shape[2] == 4 * 8 * 8


@pytest.mark.parametrize(("sampler", "kind"), KINDS)
def test_places_are_hidden_through_the_whole_clip(sampler, kind):
    hidden = sampler(grid=GRID, **kind)(1, generator(1)).targets[0, 0]
    places = [set((hidden[hidden // 64 == time] % 64).tolist()) for time in range(4)]
    assert all(place == places[0] for place in places)


def test_cut_lists_keep_whole_tubes_and_all_times_alike():
    masks = Tubes(grid=GRID, **SHORT)(24, generator(0))
    for tokens in (masks.context, masks.targets[:, 0]):
        counts = torch.stack([(tokens // 64 == time).sum(1) for time in range(4)], dim=1)
        assert bool((counts == counts[:, :1]).all())


def test_legacy_lists_lose_late_times():
    hidden = LegacyTubes(grid=GRID, **SHORT)(24, generator(0)).targets
    assert int((hidden // 64 == 0).sum()) > 2 * int((hidden // 64 == 3).sum())


@pytest.mark.parametrize("sampler", TUBES.values())
def test_an_empty_context_is_drawn_again(sampler):
    masks = sampler(grid=(2, 2, 2), num_blocks=4, area=(0.3, 0.3))(64, generator(0))  # four of four cells: often all
    assert masks.context.shape == (64, 2) and masks.targets.shape[2] >= 2


@pytest.mark.parametrize("sampler", TUBES.values())
def test_lists_of_a_single_token_are_welcome(sampler):
    masks = sampler(grid=(1, 1, 2), num_blocks=1, area=(0.5, 0.5))(3, generator(0))
    assert masks.context.shape == (3, 1) and masks.targets.shape == (3, 1, 1)


@pytest.mark.parametrize("sampler", TUBES.values())
def test_blocks_that_hide_everything_are_refused(sampler):
    with pytest.raises(ValueError, match="mask everything"):
        sampler(grid=(2, 2, 2), num_blocks=1, area=(1.0, 1.0), aspect=(1.0, 1.0))(2, generator(0))


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"grid": (0, 4, 4)}, "grid"),
        ({"num_blocks": 0}, "at least one block"),
        ({"area": (0.5, 0.2)}, "area"),
        ({"duration": (0.5, 1.5)}, "duration"),
    ],
)
def test_settings_that_make_no_mask_are_refused(wrong, words):
    with pytest.raises(ValueError, match=words):
        Tubes(**{"grid": GRID, **SHORT} | wrong)


@pytest.mark.parametrize(("sampler", "kind"), KINDS)
def test_the_seed_alone_decides(sampler, kind):
    first, again, other = (sampler(grid=GRID, **kind)(4, generator(seed)).context for seed in (0, 0, 1))
    assert torch.equal(first, again) and (first.shape != other.shape or not torch.equal(first, other))


def test_places_of_different_samples_differ():
    masks = Tubes(grid=GRID, **LONG)(8, generator(0))
    assert len({tuple(row) for row in masks.targets[:, 0].tolist()}) > 1


def test_cutting_keeps_wanted_tokens_alone():
    chosen = torch.rand(5, 3, 4, 4, generator=generator(0)) < 0.4
    for tokens in (whole_tubes(chosen, generator(1)), first_tokens(chosen)):
        assert tokens.shape[1] == int(chosen.flatten(1).sum(1).min())
        assert bool(chosen.flatten(1).gather(1, tokens).all())
