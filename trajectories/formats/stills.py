"""Folders of pictures and nothing else: what systems that learn from single pictures can be trained on.

stills/a.jpg  stills/b.png  stills/more/c.jpg         the pictures of one folder are an episode, in the order of names
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np

from jepa_mpc.interfaces import Field
from jepa_mpc.trajectories.episode import IMAGES
from jepa_mpc.trajectories.formats.base import LogReader, fault
from jepa_mpc.trajectories.formats.clips import CAMERA
from jepa_mpc.trajectories.formats.pictures import decode_picture, picture_size
from jepa_mpc.trajectories.pictures import PictureFit

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png")


class StillsReader(LogReader):
    """Pictures of a folder and its subfolders; each folder that holds some is an episode of one camera.

    Pictures of several sizes are cut to centred squares and shrunk to the shortest of all sides. There is no time
    between them: a step counts as one second.

    Args:
        path: The folder.

    Raises:
        BadEpisode: If there is no picture, or all are damaged.
    """

    format: ClassVar[str] = "stills"

    def __init__(self, path: str | Path) -> None:
        super().__init__(path)
        self._folders = find_stills(self.path)
        if not self._folders:
            remedy = f"looked for {', '.join(PICTURE_SUFFIXES)}"
            raise fault(self.path, field="pictures", problem="holds no picture", remedy=remedy)
        self._sizes: set[tuple[int, int]] = set()
        self.lengths = self.count_steps(len(self._folders), self._length)
        several = len(self._sizes) > 1
        self._fit = PictureFit(size=min(map(min, self._sizes)) if several else None)
        self.dt_s = 1.0
        picture = (*self._fit.shape(*next(iter(self._sizes))), 3)
        self.fields = {IMAGES + CAMERA: Field(picture, "uint8", "RGB", 1.0)}
        self.cameras = (CAMERA,)

    def sources(self, index: int) -> tuple[Path, ...]:
        """The pictures of one episode."""
        return tuple(self._folders[index])

    def metadata(self, index: int) -> dict[str, str]:
        """Which folder it is."""
        return {"folder": self._folders[index][0].parent.relative_to(self.path).as_posix()}

    def columns(self, episode: int, start: int, stop: int, names: Sequence[str]) -> dict[str, np.ndarray]:
        """Pictures start..stop-1, if they are asked for."""
        return {name: np.stack([self._picture(file) for file in self._folders[episode][start:stop]]) for name in names}

    def _picture(self, file: Path) -> np.ndarray:
        data = file.read_bytes()
        fitted: np.ndarray = self._fit(decode_picture(data, picture_size(data))[None])[0]
        return fitted

    def _length(self, index: int) -> int:
        sizes = [picture_size(self.check_file(file).read_bytes()) for file in self._folders[index]]
        self._sizes |= {(height, width) for height, width, _ in sizes}
        return len(sizes)


def find_stills(path: Path) -> list[list[Path]]:
    """The pictures of each folder below a path, in the order of their names; hidden ones are passed over."""
    folders: dict[Path, list[Path]] = {}
    for file in sorted(path.rglob("*")):
        hidden = any(part.startswith(".") for part in file.relative_to(path).parts)
        if file.suffix.lower() in PICTURE_SUFFIXES and not hidden and not file.is_dir():
            folders.setdefault(file.parent, []).append(file)
    return [folders[folder] for folder in sorted(folders)]
