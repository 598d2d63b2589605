"""Comparing a random sampler with the statistics of another: by the errors that so many draws have."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from tests.golden.cases import Case

SIGMAS = 5.0  # of the difference between two means of as many draws: one in two million by chance


def check_statistic(case: Case, name: str, values: Tensor, facts: Mapping[str, Any]) -> None:
    """Mean and spread of our draws, and their quantiles against the distribution in the facts."""
    draws = case.meta["draws"]
    error = math.sqrt((float(values.var()) + facts["std"] ** 2) / draws)
    _near(case, f"{name} mean", float(values.mean()), facts["mean"], SIGMAS * error)
    _near(case, f"{name} std", float(values.std()), facts["std"], SIGMAS * facts["std"] / math.sqrt(draws) + 1e-6)
    for level, quantile in zip(facts["quantile_levels"], facts["quantiles"], strict=True):
        if 0 < level < 100:
            below, upto = (
                float((values < quantile - 1e-6).double().mean()),
                float((values <= quantile + 1e-6).double().mean()),
            )
            slack = SIGMAS * math.sqrt(2 * 0.25 / draws)
            if not below - slack <= level / 100 <= upto + slack:
                case.misses.append(f"{name}: {level} % of the draws reach {quantile}, ours {below:.1%} to {upto:.1%}")


def check_rate(case: Case, name: str, hits: Tensor) -> None:
    """How often each place is hit (draws, places), against the rates of the case."""
    case.checked.add(name)
    expected, rate, draws = case.tensors[name].double().flatten(), hits.double().mean(dim=0), case.meta["draws"]
    spread = (2 * torch.maximum(expected * (1 - expected), rate * (1 - rate)) / draws).sqrt()
    wrong = (rate - expected).abs() > SIGMAS * spread + 1e-6
    if bool(wrong.any()):
        worst = int(((rate - expected).abs() - SIGMAS * spread).argmax())
        case.misses.append(f"{name}: place {worst} is hit in {rate[worst]:.1%}, expected {expected[worst]:.1%}")


def _near(case: Case, name: str, actual: float, expected: float, slack: float) -> None:
    if abs(actual - expected) > slack + 1e-6:
        case.misses.append(f"{name} {actual:.4f}, expected {expected:.4f} within {slack:.4f}")
