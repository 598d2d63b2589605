"""Online calibration of a sensor of unknown pose from the hand's motion.

    u - mean u = A (x - mean x) + noise,     A = a candidate pose's map + a small deviation

x is the hand position in the base frame, u the sensor's reading of it: a point in a camera image, or the position read
by a world model's head. Many candidate poses are compared (for a camera: azimuth, elevation, scale). Given a candidate,
A is a Bayesian linear regression in closed form, and the marginal likelihood of the pairs (x, u) seen so far weighs the
candidates. The posterior is wide at first and narrow after a few steps in different directions.

Reference: visual servoing without a calibrated camera, Hosoda and Asada 1994; Jagersand et al. 1997.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated

import torch
from torch import Tensor

FREE = 3.0
"""Prior degrees of freedom of the noise variance."""


@dataclass(frozen=True, kw_only=True)
class SenseSettings:
    """Prior assumptions about a sensor, in its own unit (half images, metres).

    Args:
        sd: Standard deviation of a reliable reading.
        doubt: Share of a reading's squared spread that is added to its variance.
        looseness: Standard deviation of A around its candidate, as a share of the candidate's scale.
        memory: Weight of a pair relative to the next one.
        tails: Degrees of freedom of the goal residuals; small: a sensor that contradicts the others gets little weight.
    """

    sd: float
    doubt: float = 0.0
    looseness: float = 0.15
    memory: float = 0.98
    tails: float = 20.0


@dataclass(frozen=True, kw_only=True)
class Rigs:
    """Candidate poses of a sensor, before any data.

    Args:
        maps: `(H, R, 3)`, for readings of width R.
        sizes: `(H,)`.
        log_prior: `(H,)`.
    """

    maps: Tensor
    sizes: Tensor
    log_prior: Tensor


@dataclass(frozen=True, kw_only=True)
class Belief:
    """The posterior of one sensor.

    Args:
        map: Mean of A `(R, 3)`.
        covariance: Covariance of each row of A `(R, 3, 3)`.
        centre_m: Mean position `(3,)` around which the map is taken.
        reading: Mean reading `(R,)` there.
        variance: Variance of that mean reading.
        misfit: Ratio of actual to expected residuals, from 1.
        log_evidence: Log marginal likelihood of the pairs, up to a constant common to all sequences of positions.
    """

    map: Tensor
    covariance: Tensor
    centre_m: Tensor
    reading: Tensor
    variance: Tensor
    misfit: Tensor
    log_evidence: Tensor


@lru_cache(maxsize=4)
def camera_rigs(side: int | None, azimuth_deg: tuple[float, float] = (45.0, 35.0)) -> Rigs:
    """Distant cameras around a hand: 16 azimuths on each side, 5 elevations, 7 scales.

    Args:
        side: 1 for a camera on the left (positive azimuth), -1 on the right, None if unknown.
        azimuth_deg: Mean and standard deviation of the prior on |azimuth|.
    """
    if side is None:
        either, other = camera_rigs(1, azimuth_deg), camera_rigs(-1, azimuth_deg)
        return Rigs(
            maps=torch.cat([either.maps, other.maps]),
            sizes=torch.cat([either.sizes, other.sizes]),
            log_prior=torch.cat([either.log_prior, other.log_prior]) - math.log(2),
        )
    azimuth = side * torch.deg2rad(torch.arange(-30.0, 121.0, 10.0))
    elevation = torch.deg2rad(torch.tensor([15.0, 25.0, 35.0, 45.0, 55.0]))
    size = torch.exp(torch.linspace(math.log(0.8), math.log(3.5), 7))
    a, e, s = (axis.flatten() for axis in torch.meshgrid(azimuth, elevation, size, indexing="ij"))
    right = torch.stack([-a.sin(), a.cos(), torch.zeros_like(a)], dim=-1)
    down = torch.stack([e.sin() * a.cos(), e.sin() * a.sin(), -e.cos()], dim=-1)
    middle, deviation = (math.radians(angle) for angle in azimuth_deg)
    return Rigs(
        maps=torch.stack([right, down], dim=1) * s[:, None, None],
        sizes=s,
        log_prior=-0.5 * ((side * a - middle) / deviation).square(),
    )


@lru_cache(maxsize=1)
def head_rigs() -> Rigs:
    """A head that reads positions in metres, possibly underestimating motion."""
    part = torch.tensor([0.25, 0.5, 0.75, 1.0, 1.15])
    return Rigs(
        maps=part[:, None, None] * torch.eye(3), sizes=torch.ones_like(part), log_prior=-((part - 1) / 0.5).square()
    )


def calibrate(
    readings: Annotated[Tensor, "T R"],
    variances: Annotated[Tensor, "T"],
    places: Annotated[Tensor, "T 3"],
    *,
    rigs: Rigs,
    settings: SenseSettings,
) -> Belief:
    """The posterior of a sensor given the pairs so far.

    Args:
        readings: Its readings.
        variances: Variance of each reading.
        places: Hand positions (base frame, m).
        rigs: Candidate poses.
        settings: Prior assumptions.
    """
    steps, rows = readings.shape
    age = torch.arange(steps - 1, -1, -1, dtype=readings.dtype)
    noise = settings.sd**2
    weights = settings.memory**age * noise / variances
    share = weights / weights.sum()
    centre, middle = share @ places, share @ readings
    x, u = places - centre, readings - middle
    loose = (settings.looseness * rigs.sizes).square()
    precision = (x.T * weights) @ x / noise + torch.eye(3) / loose[:, None, None]  # (H, 3, 3)
    left = u - torch.einsum("hri,ti->htr", rigs.maps, x)
    pull = torch.einsum("t,ti,htr->hri", weights, x, left) / noise
    change = torch.linalg.solve(precision[:, None], pull[..., None])[..., 0]
    misses = (weights[:, None] * left.square()).sum((1, 2)) / noise - (change * pull).sum((1, 2))
    count = rows * weights.sum()
    evidence = rigs.log_prior - (count + FREE) / 2 * torch.log1p(misses / FREE)
    evidence = evidence - rows / 2 * torch.logdet(precision * loose[:, None, None])
    chance = torch.softmax(evidence, dim=0)
    found = rigs.maps + change
    mean = torch.einsum("h,hri->ri", chance, found)
    apart = found - mean
    covariance = torch.einsum("h,hri,hrj->rij", chance, apart, apart)
    covariance = covariance + torch.einsum("h,hij->ij", chance, torch.linalg.inv(precision))
    misfit = ((chance * misses).sum() + FREE) / (count + FREE)
    return Belief(
        map=mean,
        covariance=covariance,
        centre_m=centre,
        reading=middle,
        variance=noise * share.square().sum(),
        misfit=misfit.clamp_min(1),
        log_evidence=torch.logsumexp(evidence, dim=0),
    )
