"""Batched point clouds: sampling, neighbourhoods, and orderings that keep neighbours close."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import torch
from torch import Tensor, nn

Clouds = Annotated[Tensor, "B G 3"]
Centres = Annotated[Tensor, "B N 3"]
Order = Callable[[Centres], Annotated[Tensor, "B N"]]

MORTON_BITS = 22
MORTON_CELLS = 256


def farthest(clouds: Clouds, count: int, *, start: Annotated[Tensor, "B"] | None = None) -> Annotated[Tensor, "B N"]:
    """Farthest-point sampling of every cloud in a batch; for one large cloud see `jepa_mpc.clouds.farthest_points`.

    Args:
        clouds: `B G 3`.
        count: Number of points N to choose from each, at most G.
        start: Index of the first one; by default the first point of the cloud.

    Returns:
        Indices `B N`, in the order of choice.
    """
    batch = torch.arange(len(clouds), device=clouds.device)
    at = torch.zeros_like(batch) if start is None else start
    nearest = clouds.new_full(clouds.shape[:2], torch.inf)
    chosen = [at]
    for _ in range(count - 1):
        squares = (clouds - clouds[batch, at][:, None]).square().sum(dim=-1)
        nearest = torch.minimum(nearest, squares)
        at = nearest.argmax(dim=1)
        chosen.append(at)
    return torch.stack(chosen, dim=1)


def neighbours(centres: Centres, clouds: Clouds, count: int) -> Annotated[Tensor, "B N K"]:
    """Indices of the `count` points nearest to each centre, the nearest first."""
    return distances(centres, clouds).topk(count, dim=-1, largest=False).indices


def distances(first: Centres, second: Clouds) -> Annotated[Tensor, "B N G"]:
    """Euclidean distances, from differences (the product formula suffers from cancellation)."""
    return torch.cdist(first, second, compute_mode="donot_use_mm_for_euclid_dist")


def picked(x: Annotated[Tensor, "B G D"], at: Annotated[Tensor, "B ..."]) -> Annotated[Tensor, "B ... D"]:
    """The rows of each sample at indices `B ...`."""
    batch = torch.arange(len(x), device=x.device).view(-1, *(1,) * (at.dim() - 1))
    return x[batch, at]


def nearest_from_corner(centres: Centres) -> Annotated[Tensor, "B N"]:
    """An ordering that goes to the nearest unvisited centre, from the one with the smallest x + y + z."""
    return _walk(centres, centres.sum(dim=-1).argmin(dim=1))


def nearest_from_first(centres: Centres) -> Annotated[Tensor, "B N"]:
    """The same ordering from the first centre."""
    return _walk(centres, torch.zeros(len(centres), dtype=torch.int64, device=centres.device))


def morton(centres: Centres) -> Annotated[Tensor, "B N"]:
    """Ordering along a space-filling curve: cells of 1/256 by their interleaved bits, x lowest (Morton 1966)."""
    lowest = (centres.flatten(1).amin(dim=1) - 0.5).abs()[:, None, None]
    cells = (2 ** (MORTON_BITS - 1) - MORTON_CELLS * (centres + lowest)).round().to(torch.int64)
    code = torch.zeros_like(cells[..., 0])
    for bit in range(MORTON_BITS - 1):
        for axis in range(3):
            code |= ((cells[..., axis] >> bit) & 1) << (3 * bit + axis)
    return code.argsort(dim=1, stable=True)


ORDERS: dict[str, Order] = {
    "nearest_from_corner": nearest_from_corner,
    "nearest_from_first": nearest_from_first,
    "morton": morton,
}
"""Name -> ordering of the centres of a cloud."""


class UnitSphere(nn.Module):
    """Centres each cloud at its centroid and scales it to the unit sphere; position and size are lost."""

    def forward(self, clouds: Clouds) -> Clouds:
        """Clouds `B G 3` in any unit."""
        centred = clouds - clouds.mean(dim=1, keepdim=True)
        return centred / centred.norm(dim=-1).amax(dim=1)[:, None, None].clamp_min(1e-9)


class Workspace(nn.Module):
    """Applies the same shift and scale to all clouds, so that metric positions are kept.

        out = (x - centre) / half

    Args:
        centre: Centre of the region of interest, m.
        half: Half its side, m.

    Raises:
        ValueError: If `half` is not positive.
    """

    centre: Tensor

    def __init__(self, *, centre: tuple[float, float, float] = (0.0, 0.0, 0.0), half: float = 1.0) -> None:
        super().__init__()
        if half <= 0:
            raise ValueError(f"half the side of the workspace must be positive, got {half} m")
        self.reach = half
        self.register_buffer("centre", torch.tensor(centre, dtype=torch.float32), persistent=False)

    def forward(self, clouds: Clouds) -> Clouds:
        """Clouds `B G 3`, m."""
        return (clouds - self.centre) / self.reach


def _walk(centres: Centres, start: Annotated[Tensor, "B"]) -> Annotated[Tensor, "B N"]:
    batch = torch.arange(len(centres), device=centres.device)
    away = distances(centres, centres)
    order, at = [start], start
    for _ in range(centres.shape[1] - 1):
        away[batch, :, at] = torch.inf  # exclude chosen points
        at = away[batch, at].argmin(dim=1)
        order.append(at)
    return torch.stack(order, dim=1)
