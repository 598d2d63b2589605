"""Statistics of mask samplers: ours, in their legacy form, draw from the same distributions as the public ones.

Both sides are random samples, so means, deviations, shares below a quantile and rates of coverage must agree within
five standard errors (of as many independent draws as there are batches). Block sizes of I-JEPA, whose stream is known,
must agree draw for draw.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from jepa_mpc.seeding import generator
from jepa_mpc.world_model.parts.masks import LegacyMultiBlock, LegacyTubes, RandomTubes
from jepa_mpc.world_model.parts.masks.levels import LegacyLevelBlocks
from tests.golden.cases import Case

ERRORS = 5.0
BEYOND = 20
"""Values beyond the largest of as many others: that there are more has a chance of one in a million."""
MOST_SAMPLES = 6000
"""Samples that are drawn of a case, at most; a large batch takes long to draw."""


def check_blocks(case: Case) -> None:
    meta = case.meta
    rows, columns = meta["grid"]
    sampler = LegacyMultiBlock(
        grid=(rows, columns),
        num_targets=meta["num_pred_masks"],
        target_area=_range(meta["pred_mask_scale"]),
        context_area=_range(meta["enc_mask_scale"]),
        aspect=_range(meta["aspect_ratio"]),
        least_seen=meta["min_keep"],
    )
    sizes = torch.tensor([sampler.sizes(call)[0] for call in range(meta["draws"])])
    case.check("out.pred_block_hw", sizes, (0, 0))
    batch, count = meta["batch_size"], rows * columns
    draws = min(meta["draws"], max(MOST_SAMPLES // batch, 100))
    places, lengths, seen, hidden, blocks, overlaps = generator(0), [], [], [], [], []
    for call in range(draws):
        contexts, targets = sampler.at(call, batch, generator=places, num_contexts=meta["num_enc_masks"])
        lengths.append(contexts.shape[2])
        seen.append(_marked(contexts.flatten(1), count))
        hidden.append(_marked(targets.flatten(1), count))
        blocks.append(_marked(targets.flatten(0, 1), count))
        overlaps.append(int((seen[-1] & hidden[-1]).sum()))
    area = sizes.prod(dim=1)
    union = torch.cat(hidden).sum(dim=1)
    covered = meta["num_pred_masks"] * area[:draws].repeat_interleave(batch)
    found = {
        "pred_block_h": sizes[:, 0],
        "pred_block_w": sizes[:, 1],
        "pred_block_area": area,
        "context_len": torch.tensor(lengths),
        "target_union_fraction": union / count,
        "target_blocks_mutual_overlap_patches": covered - union,
    }
    for name, stats in meta["stats"].items():
        agree(case, name, found[name], stats, (meta["draws"], draws))
    case.checked.add("out.context_len")
    check_coverage(case, "out.target_cover_rate", torch.cat(blocks), (meta["draws"], draws))
    check_coverage(case, "out.context_cover_rate", torch.cat(seen), (meta["draws"], draws))
    check_overlap(case, torch.tensor(overlaps, dtype=torch.float64), meta["context_target_overlap_patches_total"])
    edges = {"target": torch.cat(hidden), "context": torch.cat(seen)}
    for name, marked in edges.items():
        image = marked.view(-1, rows, columns).float()
        case.compare(f"last row, {name}", image[:, -1].mean(), meta[f"last_row_{name}_rate"])
        case.compare(f"last column, {name}", image[:, :, -1].mean(), meta[f"last_col_{name}_rate"])


def check_overlap(case: Case, overlaps: Tensor, total: int) -> None:
    """Overlaps are rare events of random draws: none where the reference has none, else equal within six errors."""
    if not total:
        case.compare("overlap", overlaps.sum(), 0.0)
        return
    draws, reference = len(overlaps), case.meta["draws"]
    rate, wanted = float(overlaps.mean()), total / reference
    variance = float(overlaps.var()) * (1 / draws + 1 / reference)
    case.compare("overlap", torch.tensor(0.0 if abs(rate - wanted) <= 6 * math.sqrt(variance) else rate - wanted), 0.0)


def check_tubes(case: Case) -> None:
    meta = case.meta
    grid = (int(meta["grid"][0]), int(meta["grid"][1]), int(meta["grid"][2]))
    batch, count = meta["batch_size"], math.prod(grid)
    draws = min(meta["draws"], max(MOST_SAMPLES // batch, 100))
    numbers = (meta["draws"], draws)
    for index, (facts, stats) in enumerate(zip(meta["masks"], meta["stats"], strict=True)):
        sampler = LegacyTubes(
            grid=grid,
            num_blocks=facts["num_blocks"],
            area=_range(facts["spatial_scale"]),
            duration=_range(facts["temporal_scale"]),
            aspect=_range(facts["aspect_ratio"]),
            seen_duration=facts.get("max_temporal_keep", 1.0),
            most_seen=facts.get("max_keep"),
        )
        places = generator(index)
        masks = [sampler.at(call, batch, generator=places) for call in range(draws)]
        seen = [_marked(mask.context, count) for mask in masks]
        hidden = [_marked(mask.targets[:, 0], count) for mask in masks]
        shares = {"context_fraction": seen, "target_fraction": hidden}
        for name, lists in shares.items():
            found = torch.stack([marks[0].sum() for marks in lists]) / count
            agree(case, f"{name} of {index}", found, stats[name], numbers)
        check_coverage(case, f"out.target_cover_rate.{index}", torch.cat(hidden), numbers)
        together = sum(int((one & other).sum()) for one, other in zip(seen, hidden, strict=True))
        case.compare("overlap", torch.tensor(float(together)), meta["context_target_overlap_tokens_total"])
        _rates(case, index, torch.cat(seen), torch.cat(hidden), grid)


def check_random_tubes(case: Case) -> None:
    meta = case.meta
    grid = (int(meta["grid"][0]), int(meta["grid"][1]), int(meta["grid"][2]))
    masks = RandomTubes(grid=grid, ratio=meta["ratio"])(4, generator(0))
    case.compare("context_len", torch.tensor(masks.context.shape[1]), meta["context_len"])
    case.compare("target_len", torch.tensor(masks.targets.shape[2]), meta["target_len"])
    seen = _marked(masks.context, math.prod(grid)).view(4, grid[0], -1)
    assert bool((seen == seen[:, :1]).all()), "the same cells at every time"


def check_levels(case: Case) -> None:
    meta = case.meta
    sizes = meta["input_size"] if isinstance(meta["input_size"], list) else [meta["input_size"]] * 2
    grid = (sizes[0] // meta["patch_size"], sizes[1] // meta["patch_size"])
    draws = meta["draws"]
    for config in meta["level_configs"]:
        level = config["level"]
        sampler = LegacyLevelBlocks(
            grid=grid, level=level, levels=meta["num_hierarchies"], num_targets=meta["num_target_masks"]
        )
        for mine, name in zip(sampler.areas(), ("target_scale", "context_scale"), strict=True):
            case.compare(f"{name} of level {level}", torch.tensor(mine), torch.tensor(config[name]))
        seen, targets = sampler.draw(draws, generator(level))
        stats = meta["stats"][f"level_{level}"]
        found = {
            "context_fraction": seen.float().mean(dim=1),
            "target_union_fraction": targets.any(dim=1).float().mean(dim=1),
            "block_fraction": targets.float().mean(dim=2).flatten(),
        }
        for name, values in found.items():
            agree(case, f"{name} of level {level}", values, stats[name], (draws, draws))
        case.compare("overlap", (seen & targets.any(dim=1)).sum(), stats["overlap"])
        empty = float((~seen.any(dim=1)).float().mean())
        rate = stats["empty_context_rate"]
        _within(case, f"empty context of level {level}", empty, rate, _rate_error(rate, (draws, draws)))


def agree(case: Case, name: str, found: Tensor, stats: Mapping[str, Any], draws: tuple[int, int]) -> None:
    """Means, deviations and quantiles of two random samples of as many independent draws."""
    values = found.double()
    share = sum(1 / count for count in draws)
    spread = max(float(stats["std"]), float(values.std(correction=0)))
    _within(case, f"mean of {name}", float(values.mean()), stats["mean"], ERRORS * spread * math.sqrt(share) + 1e-6)
    if "n" in stats:  # a deviation of few, heavy-tailed values is itself uncertain: four times its normal error
        allowed = 4 * ERRORS * spread * math.sqrt(share / 2) + 1e-6
        _within(case, f"deviation of {name}", float(values.std()), stats["std"], allowed)
    for level, value in zip(stats["quantile_levels"], stats["quantiles"], strict=True):
        wanted = level / 100
        allowed = ERRORS * math.sqrt(wanted * (1 - wanted) * share) + BEYOND / min(draws)
        below = float((values < value - 1e-6).double().mean())
        until = float((values <= value + 1e-6).double().mean())
        if below > wanted + allowed or until < wanted - allowed:
            case.misses.append(f"{name}: {below:.1%} to {until:.1%} lie below the reference's quantile of {level} %")


def check_coverage(case: Case, name: str, marked: Tensor, draws: tuple[int, int]) -> None:
    """How often each place of the grid is covered."""
    case.checked.add(name)
    expected = case.tensors[name].double().flatten()
    gap = (marked.double().mean(dim=0) - expected).abs()
    allowed = torch.tensor([_rate_error(float(rate), draws) for rate in expected])
    if bool((gap > allowed).any()):
        case.misses.append(f"{name}: off by {float(gap.max()):.3f}, {float((gap / allowed).max()):.1f} times too much")


def _rates(case: Case, index: int, seen: Tensor, hidden: Tensor, grid: Sequence[int]) -> None:
    """What the reference says of single samples, where lists are not cut."""
    tubes = case.meta.get("fraction_of_draws_that_are_full_time_tubes")
    if tubes is not None:
        places = hidden.view(len(hidden), grid[0], -1)
        full = (places == places[:, :1]).all(dim=2).all(dim=1).float().mean()
        case.compare(f"full tubes of {index}", full, tubes[index])
    whole = case.meta.get("fraction_context_plus_target_is_all_tokens")
    if whole is not None:
        case.compare(f"all tokens of {index}", (seen | hidden).all(dim=1).float().mean(), whole[index])


def _marked(at: Tensor, count: int) -> Tensor:
    """Token numbers `(B, L)` as marks `(B, count)`."""
    return torch.zeros(len(at), count, dtype=torch.bool).scatter(1, at, True)


def _within(case: Case, name: str, found: float, expected: float, allowed: float) -> None:
    if abs(found - expected) > allowed:
        case.misses.append(f"{name}: {found:.5g}, expected {expected:.5g} within {allowed:.2g}")


def _rate_error(rate: float, draws: tuple[int, int]) -> float:
    return ERRORS * math.sqrt(max(rate * (1 - rate), 1 / min(draws)) * sum(1 / count for count in draws))


def _range(value: Any) -> tuple[float, float]:
    return (value, value) if isinstance(value, int | float) else (float(value[0]), float(value[1]))
