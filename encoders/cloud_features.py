"""Features of a point cloud from a file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from torch import Tensor

from jepa_mpc.cloud_files import read_cloud
from jepa_mpc.clouds import farthest_points
from jepa_mpc.encoders.points import PointEncoder
from jepa_mpc.types import State

USUAL_POINTS = 2048


def encode_cloud(file: str | Path, encoder: PointEncoder, *, points: int = USUAL_POINTS) -> State:
    """The tokens of the cloud in a file.

    Args:
        file: See `jepa_mpc.cloud_files.read_cloud`.
        encoder: A point-cloud encoder: of a trained system (`published`), or a released one
            (`encoders.adapters.points.load`).
        points: Larger clouds are subsampled evenly to this number (farthest-point sampling).

    Returns:
        `1 N D`, on the encoder's device; `encoders.points.summary` reduces them to one vector.

    Raises:
        BadObservation: If the file cannot be read, or holds fewer points than the encoder has groups.
    """
    cloud = read_cloud(file, least=least_points(encoder))
    return encode_points(torch.from_numpy(np.ascontiguousarray(cloud)), encoder, points=points)


def least_points(encoder: PointEncoder) -> int:
    """Minimum number of points for an encoder."""
    return max(encoder.tokens.sizes.groups, encoder.tokens.sizes.group_size)


def encode_points(cloud: Annotated[Tensor, "G 3"], encoder: PointEncoder, *, points: int = USUAL_POINTS) -> State:
    """The tokens `1 N D` of a cloud `G 3`; see `encode_cloud`."""
    most = max(points, least_points(encoder))
    if len(cloud) > most:
        cloud = torch.from_numpy(np.ascontiguousarray(cloud.numpy()[farthest_points(cloud.numpy(), most)]))
    mode = encoder.training
    try:
        with torch.no_grad():
            return encoder.eval()(cloud[None].to(next(encoder.parameters()).device))
    finally:
        encoder.train(mode)
