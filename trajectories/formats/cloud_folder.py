"""Folders of point clouds alone: shapes to learn from without robot data.

clouds/a.npz  clouds/b.ply  clouds/more/c.npy         each cloud is an episode of one step
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np

from jepa_mpc.cloud_files import SUFFIXES, read_cloud
from jepa_mpc.clouds import Cloud, farthest_points
from jepa_mpc.errors import BadObservation
from jepa_mpc.interfaces import Field
from jepa_mpc.trajectories.episode import CLOUDS, IMAGES
from jepa_mpc.trajectories.formats.folders import FolderReader

CAMERA = "above"
MOST_POINTS = 2048
SIDE = 64


class CloudFolderReader(FolderReader):
    """Clouds of a folder and its subfolders.

    All are subsampled evenly to the number of points of the smallest, at most 2048. Each has a small rendered top view,
    so
    that viewers of the log have an image to show.

    Args:
        path: The folder.

    Raises:
        BadEpisode: If there is no cloud, or all are damaged.
    """

    format: ClassVar[str] = "clouds"
    suffixes: ClassVar[tuple[str, ...]] = SUFFIXES
    held: ClassVar[str] = CLOUDS

    def __init__(self, path: str | Path) -> None:
        self.points = MOST_POINTS
        super().__init__(path)
        self.cameras = (CAMERA,)
        self.fields = {
            IMAGES + CAMERA: Field((SIDE, SIDE, 3), "uint8", "RGB", None),
            CLOUDS: Field((self.points, 3), "float32", "m", None),
        }

    def columns(self, episode: int, start: int, stop: int, names: Sequence[str]) -> dict[str, np.ndarray]:
        """The requested ones of the cloud and its image."""
        cloud = self._cloud(episode)
        thin = cloud[farthest_points(cloud, self.points)] if len(cloud) > self.points else cloud
        return {name: (thin if name == CLOUDS else from_above(thin))[None] for name in names}

    def count(self, index: int) -> int:
        """Note how many points a cloud has."""
        self.points = min(self.points, len(self._cloud(index)))
        return 1

    def _cloud(self, index: int) -> Cloud:
        try:
            return read_cloud(self.files[index])
        except BadObservation as error:
            raise self.complaint(index, error) from error


def from_above(cloud: Cloud) -> np.ndarray:
    """Top view `h w 3` of a cloud, x to the right and y up; higher points are brighter."""
    low, size = cloud.min(axis=0), np.maximum(np.ptp(cloud, axis=0), 1e-9)
    column, row = ((cloud[:, :2] - low[:2]) / size[:2].max() * (SIDE - 1)).round().astype(int).T
    bright = (55 + 200 * (cloud[:, 2] - low[2]) / size[2]).astype(np.uint8)
    picture = np.zeros((SIDE, SIDE), dtype=np.uint8)
    np.maximum.at(picture, (SIDE - 1 - row, column), bright)
    return np.repeat(picture[..., None], 3, axis=2)
