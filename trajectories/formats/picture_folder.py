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
from jepa_mpc.trajectories.formats.base import MAX_SIDE
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
        BadEpisode: If there is no image, or one is damaged; names it.
    """

    format: ClassVar[str] = "pictures"
    suffixes: ClassVar[tuple[str, ...]] = (".png", ".jpg", ".jpeg")
    held: ClassVar[str] = "picture"

    def __init__(self, path: str | Path) -> None:
        super().__init__(path)
        self.sizes = [self._size(index) for index in range(len(self.files))]
        several = len(set(self.sizes)) > 1
        self._fit = PictureFit(size=min(min(size[:2]) for size in self.sizes) if several else None)
        self.cameras = (CAMERA,)
        self.fields = {IMAGES + CAMERA: Field((*self._fit.shape(*self.sizes[0][:2]), 3), "uint8", "RGB", None)}

    def columns(self, episode: int, start: int, stop: int, names: Sequence[str]) -> dict[str, np.ndarray]:
        """The image, if it is requested."""
        try:
            picture = decode_picture(self.files[episode].read_bytes(), self.sizes[episode])
        except UNREADABLE as error:
            raise self.complaint(episode, error) from error
        return {name: self._fit(picture[None]) for name in names}

    def _size(self, index: int) -> tuple[int, int, int]:
        try:
            size = picture_size(self.files[index].read_bytes())
        except UNREADABLE as error:
            raise self.complaint(index, error) from error
        if max(size) > MAX_SIDE:
            raise self.complaint(index, ValueError(f"{size[0]} x {size[1]} px"))
        return size
