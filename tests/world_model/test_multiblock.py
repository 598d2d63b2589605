"""Block masks of pictures and levels: what is hidden, what is seen, where blocks may lie, and bad ranges."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from jepa_mpc.encoders.levels import TokenPyramid
from jepa_mpc.seeding import generator
from jepa_mpc.world_model.parts.masks import BLOCKS, LegacyMultiBlock, LegacyTubes, MultiBlock, RandomTubes, Tubes
from jepa_mpc.world_model.parts.masks.levels import LegacyLevelBlocks, LevelBlocks, doubling


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(4, 12),
    columns=st.integers(4, 12),
    targets=st.integers(1, 4),
    area=st.floats(0.05, 0.2),
    batch=st.integers(1, 6),
    seed=st.integers(0, 99),
)
def test_seen_and_hidden_tokens_are_disjoint_sorted_and_in_range(rows, columns, targets, area, batch, seed):
    sampler = MultiBlock(
        grid=(rows, columns), num_targets=targets, target_area=(area, area), least_seen=max(rows * columns // 8, 1)
    )
    masks = sampler(batch, generator(seed))
    assert masks.context.shape[0] == batch and masks.targets.shape[:2] == (batch, targets)
    assert masks.context.shape[1] >= sampler.least_seen
    for seen, blocks in zip(masks.context.tolist(), masks.targets.tolist(), strict=True):
        hidden = {token for block in blocks for token in block}
        assert seen == sorted(set(seen)) and not set(seen) & hidden
        assert min([*seen, *hidden]) >= 0 and max([*seen, *hidden]) < rows * columns
        assert all(block == sorted(set(block)) for block in blocks)


def test_a_target_is_a_whole_rectangle():
    masks = MultiBlock(grid=(9, 7))(5, generator(0))
    for block in masks.targets.flatten(0, 1):
        rows, columns = block // 7, block % 7
        height, width = (int(axis.max() - axis.min()) + 1 for axis in (rows, columns))
        assert height * width == len(block)


def covered(sampler, count: int, *, draws: int = 60, batch: int = 16) -> tuple[torch.Tensor, torch.Tensor]:
    """How often each token is seen and hidden."""
    stream, seen, hidden = generator(0), torch.zeros(count), torch.zeros(count)
    for _ in range(draws):
        masks = sampler(batch, stream)
        seen += torch.bincount(masks.context.flatten(), minlength=count)
        hidden += torch.bincount(masks.targets.flatten(), minlength=count)
    return seen / (draws * batch), hidden / (draws * batch)


def test_our_blocks_reach_every_border_and_lists_are_cut_without_preference():
    seen, hidden = (rate.view(8, 8) for rate in covered(MultiBlock(grid=(8, 8)), 64))
    assert float(hidden[-1].min()) > 0.03 and float(hidden[:, -1].min()) > 0.03
    top, bottom = seen[:4].mean(), seen[4:].mean()
    assert abs(float(top - bottom)) < 0.03  # mirror images of each other; sixty draws of sixteen


def test_legacy_blocks_never_reach_the_last_row_and_column_and_lose_the_bottom():
    seen, hidden = (rate.view(8, 8) for rate in covered(LegacyMultiBlock(grid=(8, 8), least_seen=4), 64))
    assert float(hidden[-1].max()) == float(hidden[:, -1].max()) == float(seen[-1].max()) == 0.0
    assert float(seen[1:3].mean()) > 2 * float(seen[5:7].mean())


def test_legacy_area_and_aspect_come_from_one_draw():
    sampler = LegacyMultiBlock(grid=(16, 16))
    sizes = torch.tensor([sampler.sizes(call)[0] for call in range(400)]).double()
    shape, area = sizes[:, 0] / sizes[:, 1], sizes.prod(dim=1)
    assert float(torch.corrcoef(torch.stack([shape, area]))[0, 1]) > 0.7


@pytest.mark.parametrize("sampler", BLOCKS.values(), ids=BLOCKS)
def test_the_same_seed_gives_the_same_masks_and_another_one_others(sampler):
    first, same, other = (sampler(grid=(12, 12))(4, generator(seed)) for seed in (0, 0, 1))
    assert torch.equal(first.context, same.context) and torch.equal(first.targets, same.targets)
    assert first.context.shape != other.context.shape or not torch.equal(first.context, other.context)


@pytest.mark.parametrize("sampler", BLOCKS.values(), ids=BLOCKS)
def test_masks_that_leave_too_little_to_see_are_refused_in_one_sentence(sampler):
    with pytest.raises(ValueError, match="leave fewer than 10 visible tokens of a grid of 3 x 3: use fewer or smaller"):
        sampler(grid=(3, 3))(2, generator(0))


@pytest.mark.parametrize(
    "wrong",
    [{"target_area": (0.2, 1.2)}, {"target_area": (0.3, 0.2)}, {"context_area": (0.0, 1.0)}, {"aspect": (0, 1)}],
)
def test_shares_outside_of_0_and_1_are_refused(wrong):
    with pytest.raises(ValueError, match=rf"{next(iter(wrong))} must be a range"):
        MultiBlock(grid=(8, 8), **wrong)


def test_levels_are_means_of_the_tokens_that_exist():
    pyramid = TokenPyramid((5, 6), levels=3)
    tokens = torch.randn(2, 30, 4, generator=generator(0))
    levels = pyramid(tokens)
    assert pyramid.grids == ((5, 6), (3, 3), (2, 2)) and levels.shape == (2, 30 + 9 + 4, 4)
    image = tokens.view(2, 5, 6, 4)
    assert torch.allclose(levels[:, 30], image[:, :2, :2].mean(dim=(1, 2)), atol=1e-6)
    assert torch.allclose(levels[:, 38], image[:, 4:, 4:].mean(dim=(1, 2)), atol=1e-6)  # a cell of two tokens
    assert torch.allclose(levels[:, 42], image[:, 4:, 4:].mean(dim=(1, 2)), atol=1e-6)


def test_every_cell_knows_the_cell_above_it():
    pyramid = TokenPyramid((4, 4), levels=2)
    assert pyramid.parents[:16].view(4, 4).tolist() == [[16, 16, 17, 17]] * 2 + [[18, 18, 19, 19]] * 2
    assert pyramid.parents[16:].tolist() == [16, 17, 18, 19]  # the coarsest cells have none above


def test_a_pyramid_that_would_end_in_one_cell_is_refused():
    with pytest.raises(ValueError, match="3 levels do not fit a grid of 4 x 4 tokens"):
        TokenPyramid((4, 4), levels=3)


@pytest.mark.parametrize("level", [0, 1, 2])
def test_no_token_is_seen_that_lies_in_a_hidden_cell(level):
    pyramid = TokenPyramid((8, 8), levels=3)
    masks = doubling(pyramid, level)(6, generator(level))
    low, high = pyramid.starts[level], pyramid.starts[level] + pyramid.grids[level][0] * pyramid.grids[level][1]
    assert bool(((masks.targets >= low) & (masks.targets < high)).all())
    cells = pyramid.cells(level)
    for seen, hidden in zip(masks.context, masks.targets, strict=True):
        assert not set(cells[seen].tolist()) & set((hidden - low).flatten().tolist())
    with pytest.raises(ValueError, match="there is no level 3 of 3"):
        LevelBlocks(pyramid, 3, MultiBlock(grid=(2, 2), least_seen=1))


def test_the_public_levels_hide_what_they_name_and_see_the_rest_of_a_block():
    masks = LegacyLevelBlocks(grid=(14, 14), level=1)(3, generator(0))
    for seen, hidden in zip(masks.context.tolist(), masks.targets[:, 0].tolist(), strict=True):
        assert not set(seen) & set(hidden)
    context, blocks = LegacyLevelBlocks(grid=(14, 14), level=1).draw(20, generator(0))
    assert not bool((context & blocks.any(dim=1)).any()) and blocks.shape == (20, 4, 196)


def test_random_tubes_see_the_same_places_at_every_time():
    masks = RandomTubes(grid=(3, 4, 5), ratio=0.7)(2, generator(0))
    count = int(20 * (1 - 0.7))
    assert masks.context.shape == (2, 3 * count) and masks.targets.shape == (2, 1, 60 - 3 * count)
    for row in masks.context.tolist():
        times = [{token % 20 for token in row if token // 20 == time} for time in range(3)]
        assert times[0] == times[1] == times[2] and len(times[0]) == count
    with pytest.raises(ValueError, match="0 < share < 1"):
        RandomTubes(grid=(3, 4, 5), ratio=1.0)


@pytest.mark.parametrize("sampler", [Tubes, LegacyTubes])
def test_tubes_may_show_only_the_beginning_and_at_most_so_many_tokens(sampler):
    made = sampler(grid=(4, 8, 8), num_blocks=2, area=(0.15, 0.15), seen_duration=0.5, most_seen=30)
    masks = made(5, generator(0))
    assert masks.context.shape == (5, 30) and int(masks.context.max()) < 2 * 64
    assert all(set(range(128, 256)) <= set(row) for row in made(1, generator(1)).targets[:, 0].tolist())
    with pytest.raises(ValueError, match="0 < seen_duration <= 1"):
        sampler(grid=(4, 8, 8), num_blocks=2, area=(0.15, 0.15), seen_duration=0.0)
