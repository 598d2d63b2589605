"""What a camera of unknown pose shows of the hand's motion, learned while the hand moves.

    u - mean u = A (x - mean x) + noise,     A = s [right; down](azimuth, elevation) + anything, small

u is a point of the picture, x the hand's place in the base frame, A a 2 x 3 map.  Many rigs (azimuth, elevation, size)
are tried at once; given a rig, A is a Bayesian linear regression in closed form, and the evidence of the pairs (x, u)
seen so far weighs the rigs.  After a few steps in different directions little doubt is left; before, the doubt is
known and kept.

Reference: visual servoing without a calibrated camera, Hosoda and Asada 1994; Jagersand et al. 1997.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class CalibrationSettings:
    """What is assumed of cameras and points; points count in half pictures.

    Args:
        point_sd: Deviation of a point that was surely found.
        doubt: How much of the heat's squared scatter is added to the point's variance.
        memory: Weight of a pair against that of the next.
        looseness: Deviation of A from its rig, as a share of the size s.
        azimuth_deg: Where the left camera is thought to stand (the right one at minus that), and its deviation.
        tails: Degrees of freedom of misses; small: outliers count little.
    """

    point_sd: float = 0.04
    doubt: float = 0.5
    memory: float = 0.98
    looseness: float = 0.15
    azimuth_deg: tuple[float, float] = (45.0, 35.0)
    tails: float = 20.0


@dataclass(frozen=True, kw_only=True)
class CameraBelief:
    """What is known of one camera.

    Args:
        map: Mean of A `(2, 3)`.
        covariance: Of each row of A `(2, 3, 3)`.
        centre_m: Mean place `(3,)` that the map is taken around.
        point: Mean point `(2,)` there.
        variance: Of that mean point.
        misfit: How much worse than expected the pairs fit, from 1.
    """

    map: Tensor
    covariance: Tensor
    centre_m: Tensor
    point: Tensor
    variance: Tensor
    misfit: Tensor


@lru_cache(maxsize=4)
def rigs(side: int, azimuth_deg: tuple[float, float]) -> tuple[Tensor, Tensor, Tensor]:
    """Maps `(H, 2, 3)` of cameras all around, their sizes `(H,)` and log priors `(H,)`.

    Args:
        side: 1 for a camera on the left (positive azimuth), -1 on the right.
        azimuth_deg: Middle and deviation of the prior on |azimuth|.
    """
    azimuth = side * torch.deg2rad(torch.arange(-30.0, 121.0, 10.0))
    elevation = torch.deg2rad(torch.tensor([15.0, 25.0, 35.0, 45.0, 55.0]))
    size = torch.exp(torch.linspace(math.log(0.8), math.log(3.5), 7))
    a, e, s = (axis.flatten() for axis in torch.meshgrid(azimuth, elevation, size, indexing="ij"))
    right = torch.stack([-a.sin(), a.cos(), torch.zeros_like(a)], dim=-1)
    down = torch.stack([e.sin() * a.cos(), e.sin() * a.sin(), -e.cos()], dim=-1)
    middle, deviation = (math.radians(angle) for angle in azimuth_deg)
    return torch.stack([right, down], dim=1) * s[:, None, None], s, -0.5 * ((side * a - middle) / deviation).square()


def calibrate(
    points: Annotated[Tensor, "T 2"],
    variances: Annotated[Tensor, "T"],
    places: Annotated[Tensor, "T 3"],
    *,
    side: int,
    settings: CalibrationSettings,
) -> CameraBelief:
    """What the pairs seen so far tell about a camera.

    Args:
        points: Where the hand was seen.
        variances: Of each point.
        places: Where the hand was (base frame, m).
        side: 1 for a left, -1 for a right camera.
        settings: What is assumed.
    """
    maps, sizes, prior = rigs(side, settings.azimuth_deg)
    age = torch.arange(len(points) - 1, -1, -1, dtype=points.dtype)
    noise = settings.point_sd**2
    weights = settings.memory**age * noise / variances
    share = weights / weights.sum()
    centre, point = share @ places, share @ points
    x, u = places - centre, points - point
    loose = (settings.looseness * sizes).square()
    precision = (x.T * weights) @ x / noise + torch.eye(3) / loose[:, None, None]  # (H, 3, 3)
    left = u - torch.einsum("hri,ti->htr", maps, x)
    pull = torch.einsum("t,ti,htr->hri", weights, x, left) / noise
    change = torch.linalg.solve(precision[:, None], pull[..., None])[..., 0]
    misses = (weights[:, None] * left.square()).sum((1, 2)) / noise - (change * pull).sum((1, 2))
    free, count = 3.0, 2 * weights.sum()
    evidence = prior - (count + free) / 2 * torch.log1p(misses / free)
    chance = torch.softmax(evidence - torch.logdet(precision * loose[:, None, None]), dim=0)
    found = maps + change
    mean = torch.einsum("h,hri->ri", chance, found)
    apart = found - mean
    covariance = torch.einsum("h,hri,hrj->rij", chance, apart, apart)
    covariance = covariance + torch.einsum("h,hij->ij", chance, torch.linalg.inv(precision))
    misfit = ((chance * misses).sum() + free) / (count + free)
    return CameraBelief(
        map=mean,
        covariance=covariance,
        centre_m=centre,
        point=point,
        variance=noise * share.square().sum(),
        misfit=misfit.clamp_min(1),
    )
