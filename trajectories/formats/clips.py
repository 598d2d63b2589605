"""Folders of videos alone: images to learn from without robot data.

clips/a.mp4  clips/b.mp4  clips/more/c.webm         each video is an episode of one camera
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np

from jepa_mpc.interfaces import Field
from jepa_mpc.trajectories.episode import IMAGES
from jepa_mpc.trajectories.formats.base import LogReader, fault
from jepa_mpc.trajectories.formats.films import FILM_SUFFIXES
from jepa_mpc.trajectories.formats.videos import VideoFile
from jepa_mpc.trajectories.guards import time_step
from jepa_mpc.trajectories.resizing import PictureFit

CAMERA = "camera"
SAME_RATE = 1.01


class ClipsReader(LogReader):
    """Videos of a folder and its subfolders, in the order of their paths.

    Videos of different sizes are cropped to centred squares and scaled down to the shortest of all sides. Videos of
    different rates have no common time step (`dt_s` is 0), so that the caller must give one.

    Args:
        path: The folder.

    Raises:
        BadEpisode: If there is no video, or all are damaged.
    """

    format: ClassVar[str] = "clips"

    def __init__(self, path: str | Path) -> None:
        super().__init__(path)
        self._paths = find_clips(self.path)
        if not self._paths:
            remedy = f"looked for {', '.join(FILM_SUFFIXES)}"
            raise fault(self.path, field="video", problem="holds no video", remedy=remedy)
        self.films: dict[int, VideoFile] = {}
        self.lengths = self.count_steps(len(self._paths), self._length)
        sizes, rates = {film.size for film in self.films.values()}, [film.fps for film in self.films.values()]
        self._fit = PictureFit(size=min(map(min, sizes)) if len(sizes) > 1 else None)
        if min(rates) > 0 and max(rates) <= SAME_RATE * min(rates):
            self.dt_s = time_step(rates[0], where=self.path, field="fps")
        picture = (*self._fit.shape(*next(iter(self.films.values())).size), 3)
        self.fields = {IMAGES + CAMERA: Field(picture, "uint8", "RGB", 1.0 / self.dt_s if self.dt_s > 0 else None)}
        self.cameras = (CAMERA,)

    def sources(self, index: int) -> tuple[Path, ...]:
        """The video of one episode."""
        return (self._paths[index],)

    def metadata(self, index: int) -> dict[str, str]:
        """Which video it is."""
        return {"film": self._paths[index].relative_to(self.path).as_posix()}

    def columns(self, episode: int, start: int, stop: int, names: Sequence[str]) -> dict[str, np.ndarray]:
        """Frames start..stop-1, if they are asked for."""
        return {name: self._fit(self.films[episode].read(start, stop)) for name in names}

    def _length(self, index: int) -> int:
        film = self.films[index] = VideoFile(self.check_file(self._paths[index]))
        return len(film)


def find_clips(path: Path) -> list[Path]:
    """The videos of a folder and its subfolders; hidden files are skipped."""
    found = (film for film in path.rglob("*") if film.suffix.lower() in FILM_SUFFIXES and not film.is_dir())
    return sorted(f for f in found if not any(part.startswith(".") for part in f.relative_to(path).parts))
