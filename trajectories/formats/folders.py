"""Folders of single files, each an episode of one step: the common base of the readers of images and of clouds."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from jepa_mpc.errors import BadEpisode
from jepa_mpc.trajectories.formats.base import LogReader, fault

DT_S = 1.0
"""Seconds between two steps; episodes have one step, so the value has no effect."""


class FolderReader(LogReader):
    """Files of a folder and its subfolders, in the order of their paths; hidden files are skipped.

    Damaged files are noted in `damaged`, and reading them raises.

    Args:
        path: The folder.

    Raises:
        BadEpisode: If it holds no file of this kind, or all are damaged.
    """

    suffixes: ClassVar[tuple[str, ...]]
    held: ClassVar[str]
    """What a file holds, for error messages."""

    def __init__(self, path: str | Path) -> None:
        super().__init__(path)
        self.files = files_below(self.path, self.suffixes)
        if not self.files:
            looked = f"looked for {', '.join(self.suffixes)}"
            raise fault(self.path, field=self.held, problem="has no file", remedy=looked)
        self.dt_s = DT_S
        self.lengths = self.count_steps(len(self.files), self._opened)

    @abstractmethod
    def count(self, index: int) -> int:
        """Look at a file, certainly plain, for the first time; returns its steps.

        Raises:
            BadEpisode: If it is damaged.
        """

    def sources(self, index: int) -> tuple[Path, ...]:
        """The file of one episode."""
        return (self.files[index],)

    def metadata(self, index: int) -> dict[str, str]:
        """The path of the file, for the metadata."""
        return {"file": self.files[index].relative_to(self.path).as_posix()}

    def _opened(self, index: int) -> int:
        self.check_file(self.files[index])
        return self.count(index)

    def complaint(self, index: int, error: Exception) -> BadEpisode:
        """The error for an unreadable file."""
        remedy = "restore it or move it away"
        return fault(self.files[index], field=self.held, problem=f"is damaged ({error})", remedy=remedy, episode=index)


def files_below(path: Path, suffixes: Sequence[str]) -> list[Path]:
    """Files with these suffixes in a folder and its subfolders; hidden files are skipped."""
    found = (file for file in path.rglob("*") if file.suffix.lower() in suffixes)
    return sorted(f for f in found if not any(part.startswith(".") for part in f.relative_to(path).parts))
