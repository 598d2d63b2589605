"""Features of a point cloud in a file, in one call."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from jepa_mpc.cloud_files import read_cloud
from jepa_mpc.clouds import farthest_points
from jepa_mpc.encoders.points import PointEncoder
from jepa_mpc.types import State

USUAL_POINTS = 2048


def encode_cloud(file: str | Path, encoder: PointEncoder, *, points: int = USUAL_POINTS) -> State:
    """The tokens of the cloud in a file.

    Args:
        file: See `jepa_mpc.cloud_files.read_cloud`.
        encoder: An encoder of clouds: of a trained system (`published`), or a released one
            (`encoders.adapters.points.load`).
        points: Larger clouds are thinned to so many, evenly (farthest-point sampling).

    Returns:
        `1 N D`, on the encoder's device; `encoders.points.summary` makes one vector of them.

    Raises:
        BadObservation: If the file cannot be read, or holds fewer points than the encoder has groups.
    """
    sizes = encoder.tokens.sizes
    cloud = read_cloud(file, least=max(sizes.groups, sizes.group_size))
    if len(cloud) > points:
        cloud = np.ascontiguousarray(cloud[farthest_points(cloud, max(points, sizes.groups, sizes.group_size))])
    weight = next(encoder.parameters())
    mode = encoder.training
    try:
        with torch.no_grad():
            return encoder.eval()(torch.from_numpy(cloud)[None].to(weight.device))
    finally:
        encoder.train(mode)
