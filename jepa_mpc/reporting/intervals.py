"""Intervals and tests for success rates.

Episodes of one lab are correlated, so the lab is the sampling unit: Wilson's interval is reported for comparison with
other work, the bootstrap over labs is the relevant one. If all or no episodes succeed, the bootstrap has zero width;
Wilson's interval replaces it.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
import scipy
from numpy.typing import ArrayLike, NDArray

Z_95 = 1.96
Floats = NDArray[np.float64]


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a success rate.

        centre = (p + z^2 / 2n) / (1 + z^2 / n),   half = z sqrt(p (1 - p) / n + z^2 / 4n^2) / (1 + z^2 / n)

    Args:
        successes: Number of successes k, with p = k / n.
        trials: Number of independent trials n.

    Raises:
        ValueError: If there is no trial, or not 0 <= k <= n.

    Reference: Wilson 1927, Journal of the American Statistical Association 22.
    """
    if trials < 1 or not 0 <= successes <= trials:
        raise ValueError(f"need 0 <= successes <= trials and trials >= 1, got {successes} of {trials}")
    return _wilson(successes / trials, trials)


def _wilson(rate: float, trials: float) -> tuple[float, float]:
    square = Z_95**2 / trials
    centre = (rate + square / 2) / (1 + square)
    half = Z_95 * np.sqrt(rate * (1 - rate) / trials + square / (4 * trials)) / (1 + square)
    return float(max(0.0, centre - half)), float(min(1.0, centre + half))


def clustered_wilson(successes: Sequence[bool], clusters: Sequence[Hashable]) -> tuple[float, float]:
    """Wilson's 95 % interval of a success rate with correlated trials in clusters.

        n' = p (1 - p) / v * (t[n - 1] / t[k - 1])^2,  between k and n;   v: variance of the mean over clusters

    Where the correlation is unknown (one cluster, or all trials end alike), each cluster counts as one trial.

    Args:
        successes: One per trial, n in all.
        clusters: The cluster of each trial, k distinct ones.

    Raises:
        ValueError: If there are no trials, or their number is not that of the cluster labels.

    Reference: Korn and Graubard 1998, Survey Methodology 24, section 2.
    """
    if not successes or len(successes) != len(clusters):
        raise ValueError(f"need one cluster label per trial, got {len(successes)} trials and {len(clusters)} labels")
    groups: dict[Hashable, list[bool]] = {}
    for success, cluster in zip(successes, clusters, strict=True):
        groups.setdefault(cluster, []).append(success)
    trials, count, rate = len(successes), len(groups), float(np.mean(successes))
    spread = sum((sum(group) - rate * len(group)) ** 2 for group in groups.values()) / trials**2
    effective = float(count)
    if count > 1 and spread > 0:
        few, many = scipy.stats.t.ppf(0.975, [count - 1, trials - 1])
        variance = spread * count / (count - 1)
        effective = float(np.clip(rate * (1 - rate) / variance * (many / few) ** 2, count, trials))
    return _wilson(rate, effective)


def cluster_bootstrap(
    values: ArrayLike, clusters: Sequence[Hashable], *, generator: np.random.Generator, resamples: int = 10_000
) -> tuple[float, float]:
    """95 % percentile interval of a mean of clustered values; the bootstrap resamples whole clusters.

    Args:
        values: One number per episode.
        clusters: The cluster (lab) of each episode.
        generator: Source of random numbers.
        resamples: Number of bootstrap samples.

    Raises:
        ValueError: If there are no values, or their number is not that of the cluster labels.

    Reference: Davison and Hinkley 1997, Bootstrap Methods and their Application, section 3.8.
    """
    numbers = np.asarray(values, dtype=np.float64)
    if numbers.ndim != 1 or not len(numbers) or len(numbers) != len(clusters):
        raise ValueError(f"need one cluster label per value, got {numbers.shape} values and {len(clusters)} labels")
    order = {cluster: index for index, cluster in enumerate(dict.fromkeys(clusters))}
    member = np.array([order[cluster] for cluster in clusters])
    sums = np.bincount(member, weights=numbers)
    counts = np.bincount(member).astype(np.float64)
    num_clusters = len(order)
    draws = generator.multinomial(num_clusters, np.full(num_clusters, 1 / num_clusters), size=resamples)
    means = (draws @ sums) / (draws @ counts)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def rate_interval(
    successes: Sequence[bool], clusters: Sequence[Hashable], *, generator: np.random.Generator
) -> tuple[float, float]:
    """95 % interval of a success rate: over clusters by `cluster_bootstrap`; by `wilson` where all episodes end alike.

    Args:
        successes: One per episode.
        clusters: The cluster (lab) of each episode.
        generator: Source of random numbers.

    Raises:
        ValueError: If there are no episodes, or their number is not that of the cluster labels.
    """
    if len(successes) == len(clusters) and len(set(map(bool, successes))) == 1:
        return wilson(sum(successes), len(successes))
    return cluster_bootstrap(successes, clusters, generator=generator)


def difference_interval(
    gains: Sequence[int], clusters: Sequence[Hashable], *, generator: np.random.Generator
) -> tuple[float, float]:
    """95 % interval of the difference of two success rates on the same episodes.

    Over clusters by `cluster_bootstrap`. If all pairs differ alike it has zero width; the result then uses Wilson's
    interval of the share p of differing pairs: p, -p, or +-p where no pair differs.

    Args:
        gains: 1, 0 or -1 per pair: first minus second success.
        clusters: The cluster (lab) of each pair.
        generator: Source of random numbers.
    """
    if len(gains) != len(clusters) or len(set(gains)) != 1:
        return cluster_bootstrap(gains, clusters, generator=generator)
    low, high = wilson(sum(map(abs, gains)), len(gains))
    return {1: (low, high), -1: (-high, -low), 0: (-high, high)}[int(gains[0])]


def mcnemar(first: Sequence[bool], second: Sequence[bool]) -> float:
    """Two-sided p-value of McNemar's exact test for two methods on the same episodes.

    If both are equally good, each of them is equally likely to be the one that solves a discordant episode.

    Raises:
        ValueError: If the two lists differ in length.

    Reference: McNemar 1947, Psychometrika 12.
    """
    if len(first) != len(second):
        raise ValueError(f"paired lists must have one length, got {len(first)} and {len(second)}")
    only_first = sum(a and not b for a, b in zip(first, second, strict=True))
    only_second = sum(b and not a for a, b in zip(first, second, strict=True))
    if only_first + only_second == 0:
        return 1.0
    return float(scipy.stats.binomtest(only_first, only_first + only_second, 0.5).pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust the p-values of a family of tests, such as all rows of one table (Holm 1979)."""
    adjusted, highest = [1.0] * len(p_values), 0.0
    for rank, index in enumerate(np.argsort(p_values, kind="stable")):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted


def quantiles(values: ArrayLike, shares: ArrayLike) -> Floats:
    """Quantiles along the first axis; infinite values are allowed, and so are infinite quantiles.

    Plain linear interpolation would turn `inf * 0` into NaN.
    """
    numbers = np.sort(np.asarray(values, dtype=np.float64), axis=0)
    places = np.asarray(shares, dtype=np.float64) * (len(numbers) - 1)
    below = np.floor(places).astype(int)
    part = (places - below).reshape(-1, *[1] * (numbers.ndim - 1))
    low, high = numbers[below], numbers[np.minimum(below + 1, len(numbers) - 1)]
    with np.errstate(invalid="ignore"):
        return np.where((part == 0) | (low == high), low, low + part * (high - low))


def success_curve(final_distances_m: ArrayLike, thresholds_m: ArrayLike) -> Floats:
    """Share of episodes whose final distance is within each threshold; a non-finite distance never is."""
    distances = np.asarray(final_distances_m, dtype=np.float64)
    limits = np.asarray(thresholds_m, dtype=np.float64)
    return (distances[None, :] <= limits[:, None]).mean(axis=1)  # (thresholds,)


def area_under_curve(final_distances_m: ArrayLike, *, limit_m: float = 0.20) -> float:
    """Area under the success curve between 0 and `limit_m`, divided by `limit_m`: 1 is perfect.

    area = mean of max(0, 1 - d / limit), exactly, because each episode adds a step at its own distance d.
    """
    distances = np.asarray(final_distances_m, dtype=np.float64)
    share = np.where(np.isfinite(distances), 1 - distances / limit_m, 0.0)
    return float(np.clip(share, 0.0, 1.0).mean())
