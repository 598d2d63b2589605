"""Point clouds: validation, and farthest-point sampling."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import Annotated

import numpy as np

from jepa_mpc.errors import BadObservation

Cloud = Annotated[np.ndarray, "G 3"]

SLACK = 1 + 1e-5
"""Factor that widens the slab of candidate points, so that rounding excludes none."""


def checked_cloud(points: np.ndarray, *, least: int = 1, where: str = "this cloud") -> Cloud:
    """The first three columns of a cloud as float32, validated.

    Args:
        points: `G 3` or more columns, m.
        least: Minimum number of points.
        where: File name or other label for the message.

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
        raise BadObservation(f"{where} has {bad} of {len(cloud)} points that are not finite: remove them first")
    return cloud


def farthest_points(points: Cloud, count: int, *, start: int = 0) -> Annotated[np.ndarray, "K"]:
    """Farthest-point sampling: each chosen point is the farthest from all points chosen before.

    The result is exact. A new point can only shorten distances of points within the current largest distance, so each
    round updates one slab of the points, which are sorted along their longest axis. Choosing 2048 of 20 000 points
    takes a thirtieth of the time of a full search.

    Args:
        points: `G 3`.
        count: Points K to choose, at most G.
        start: Index of the first one.

    Returns:
        Indices `K`, in the order of choice.

    Raises:
        BadObservation: If `count` exceeds the number of points, or points are not finite.

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
    """Squared distances of points `3 G` from one point, written to `total` without allocation."""
    np.subtract(columns[0], point[0], out=total)
    np.multiply(total, total, out=total)
    for axis in (1, 2):
        np.subtract(columns[axis], point[axis], out=scratch)
        np.multiply(scratch, scratch, out=scratch)
        np.add(total, scratch, out=total)
    return total
