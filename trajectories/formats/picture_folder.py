"""Folders of images alone.

pictures/a.jpg  pictures/b.png  pictures/more/c.jpeg         each image is an episode of one step
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np

from jepa_mpc.errors import BadEpisode
from jepa_mpc.interfaces import Field
from jepa_mpc.trajectories.episode import IMAGES
from jepa_mpc.trajectories.formats.clips import CAMERA
from jepa_mpc.trajectories.formats.folders import FolderReader
from jepa_mpc.trajectories.formats.image_codec import decode_picture, picture_size
from jepa_mpc.trajectories.resizing import PictureFit

UNREADABLE = (BadEpisode, OSError, ValueError, SyntaxError)


class PictureFolderReader(FolderReader):
    """Images of a folder and its subfolders.

    Images of different sizes are cropped to centred squares and scaled down to the shortest of all sides.

    Args:
        path: The folder.

    Raises:
        BadEpisode: If there is no picture, or all are damaged.
    """

    format: ClassVar[str] = "pictures"
    suffixes: ClassVar[tuple[str, ...]] = (".png", ".jpg", ".jpeg")
    held: ClassVar[str] = "picture"

    def __init__(self, path: str | Path) -> None:
        self.sizes: dict[int, tuple[int, int, int]] = {}
        super().__init__(path)
        sizes = list(self.sizes.values())
        self._fit = PictureFit(size=min(min(size[:2]) for size in sizes) if len(set(sizes)) > 1 else None)
        self.cameras = (CAMERA,)
        self.fields = {IMAGES + CAMERA: Field((*self._fit.shape(*sizes[0][:2]), 3), "uint8", "RGB", None)}

    def columns(self, episode: int, start: int, stop: int, names: Sequence[str]) -> dict[str, np.ndarray]:
        """The image, if it is requested."""
        try:
            picture = decode_picture(self.files[episode].read_bytes(), self.sizes[episode])
        except UNREADABLE as error:
            raise self.complaint(episode, error) from error
        return {name: self._fit(picture[None]) for name in names}

    def count(self, index: int) -> int:
        """Note the size of a picture."""
        try:
            self.sizes[index] = picture_size(self.files[index].read_bytes())
        except UNREADABLE as error:
            raise self.complaint(index, error) from error
        return 1
