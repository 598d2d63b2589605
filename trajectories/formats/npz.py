"""One episode per .npz file: a plain zip of .npy members, stored uncompressed, with a checksum (CRC) per member.

Such a file is never unpickled, and declared sizes are compared with the size of the file before use. Files appear
under their final name only when they are complete.
"""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from jepa_mpc.errors import BadEpisode
from jepa_mpc.files import atomic_file
from jepa_mpc.interfaces import Field
from jepa_mpc.plain_json import parse_json
from jepa_mpc.trajectories.checksums import Checksums
from jepa_mpc.trajectories.episode import (
    EPISODE_INDEX,
    IMAGES,
    TIMESTAMP,
    Episode,
    check_column,
    check_rising,
    fields_of,
    validate,
)
from jepa_mpc.trajectories.formats.base import check_pace, check_sound
from jepa_mpc.trajectories.formats.npz_members import FORMAT_VERSION as FORMAT_VERSION
from jepa_mpc.trajectories.formats.npz_members import METADATA as METADATA
from jepa_mpc.trajectories.formats.npz_members import Pictures, read_members
from jepa_mpc.trajectories.guards import plain_file, read_plain, time_step

MANIFEST = "manifest.json"
FILE_NAME = re.compile(r"episode_(\d{6,})\.npz")
LOST_STEPS = 4.0  # allowed gap between two rows: camera recordings use this format, too


def episode_path(folder: Path, index: int) -> Path:
    """Path of the episode with that number."""
    return folder / f"episode_{index:06d}.npz"


def write_episode(path: Path, episode: Episode) -> None:
    """Write one episode atomically: after a crash the file is whole or absent.

    Raises:
        BadEpisode: If the episode does not fit the schema.
        OSError: If the disk is full or the folder cannot be written.
    """
    validate(episode, path.name)
    with episode_file(path, episode.metadata) as write:
        for name, array in episode.arrays.items():
            write(name, array.shape, array.dtype, [array])


@contextmanager
def episode_file(path: Path, metadata: Mapping[str, Any]) -> Iterator[Callable[..., None]]:
    """Write the arrays of an episode one after another; the file appears when the block ends without an error.

    Args:
        path: Where it shall appear.
        metadata: JSON values.

    Yields:
        `write(name, shape, dtype, blocks)`, which writes an array whose rows come in blocks.

    Raises:
        ValueError: If the metadata hold NaN or an infinity.
        OSError: If the disk is full or the folder cannot be written.
    """
    text = json.dumps({"format_version": FORMAT_VERSION, **metadata}, sort_keys=True, allow_nan=False)
    with atomic_file(path) as draft, zipfile.ZipFile(draft, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(zipfile.ZipInfo(METADATA), text)

        def write(name: str, shape: tuple[int, ...], dtype: np.dtype, blocks: Iterable[np.ndarray]) -> None:
            header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
            with archive.open(zipfile.ZipInfo(name + ".npy"), "w", force_zip64=True) as member:
                np.lib.format.write_array_header_1_0(member, header)
                for block in blocks:
                    member.write(np.ascontiguousarray(block).data)

        yield write


def read_episode(path: Path) -> Episode:
    """Read and check a whole episode.

    Raises:
        BadEpisode: If the file is damaged or violates the schema; names file and field.
    """
    arrays, metadata = read_members(path, None)
    episode = Episode(arrays=arrays, metadata=metadata)
    validate(episode, path.name)
    return episode


class NpzStore:
    """A folder of episodes, `episode_000000.npz` onwards without a gap.

    Args:
        folder: The log; if it has a `manifest.json`, that is checked against the files.

    A damaged episode is recorded in `damaged` and has no steps; reading it raises.

    Raises:
        BadEpisode: If there is no episode, a number is missing, a count or length differs from the manifest, a file
            was renamed, or all are damaged.
    """

    format: ClassVar[str] = "npz"
    remarks: tuple[str, ...] = ()

    def __init__(self, folder: str | Path) -> None:
        self.folder = self.path = Path(folder)
        names = (FILE_NAME.fullmatch(path.name) for path in self.folder.glob("*.npz"))
        indices = sorted(int(match[1]) for match in names if match)
        if not indices:
            raise BadEpisode(f"{self.folder}: field 'episode_000000.npz': no episode in this folder")
        if indices != list(range(len(indices))):
            gap = next(i for i, index in enumerate(indices) if i != index)
            raise BadEpisode(f"{self.folder}: field 'episode_{gap:06d}.npz' is missing although later episodes exist")
        self.paths = [episode_path(self.folder, index) for index in indices]
        self.damaged: dict[int, str] = {}
        self._summed: dict[Path, tuple[tuple[int, ...], set[str]]] = {}
        self.lengths: Sequence[int] = [self._length(index) for index in indices]
        self.checksums = Checksums(self.folder)
        noted = check_manifest(self.folder, self.lengths, self.damaged)
        if noted and not self.checksums.noted:
            self.checksums.noted, self.checksums.note = noted, MANIFEST
        first = self._first()
        self.fields: Mapping[str, Field] = fields_of(first)
        self.cameras = first.cameras
        self.dt_s = _time_step(first.metadata, self.paths[0].name)

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, episode: int, start: int, stop: int, names: Sequence[str]) -> dict[str, np.ndarray]:
        """Steps start..stop-1 of the named fields, checked.

        Raises:
            BadEpisode: If the file is damaged or a field violates the schema.
            IndexError: If the range is empty or exceeds the episode.
        """
        if not 0 <= episode < len(self.lengths):
            raise IndexError(f"episode {episode} of a log with {len(self.lengths)}")
        check_sound(self.damaged, episode)
        length = self.lengths[episode]
        if not 0 <= start < stop <= length:
            raise IndexError(f"steps {start}..{stop} are not inside episode {episode} of {length} steps")
        path = self.paths[episode]
        self.checksums.check(path)
        arrays, metadata = read_members(path, names, pictures=self._pictures(path, start, stop, length))
        self._check_rate(metadata, path.name)
        for name, array in arrays.items():
            seen = stop - start if name.startswith(IMAGES) else length
            check_column(name, array, length=seen, where=path.name)
            if array.shape[1:] != self.fields[name].shape:
                raise BadEpisode(
                    f"{path.name}: field {name!r} has steps of shape {array.shape[1:]}, the log has "
                    f"{self.fields[name].shape}"
                )
        check_rising(arrays, path.name)
        if TIMESTAMP in arrays:
            check_pace(arrays[TIMESTAMP], self.dt_s, lost_steps=LOST_STEPS, where=path.name, episode=episode)
        return {name: array if name.startswith(IMAGES) else array[start:stop] for name, array in arrays.items()}

    def _pictures(self, path: Path, start: int, stop: int, steps: int) -> Pictures:
        """The rows of pictures that are wanted; what was summed up of a file counts as long as it does not change."""
        facts = plain_file(path, path.parent).stat()
        state = (facts.st_size, facts.st_mtime_ns, facts.st_ino)
        known, summed = self._summed.get(path, (state, set()))
        summed = summed if known == state else set()
        self._summed[path] = (state, summed)
        return Pictures(start, stop, steps, summed)

    def episode(self, index: int) -> Episode:
        """One whole episode with its metadata, checked.

        Raises:
            BadEpisode: If it is damaged, violates the schema or its fields differ from the first.
        """
        check_sound(self.damaged, index)
        self.checksums.check(self.paths[index])
        episode = read_episode(self.paths[index])
        self._check_rate(episode.metadata, self.paths[index].name)
        if fields_of(episode) != self.fields or episode.cameras != self.cameras:
            other = next((n for n, f in fields_of(episode).items() if self.fields.get(n) != f), "cameras")
            raise BadEpisode(f"{self.paths[index].name}: field {other!r} differs from the first episode of the log")
        return episode

    def metadata(self, index: int) -> dict[str, Any]:
        """The JSON block of one episode."""
        return read_members(self.paths[index], ())[1]

    def sources(self, index: int) -> tuple[Path, ...]:
        """The file of one episode."""
        return (self.paths[index],)

    def _first(self) -> Episode:
        """The first intact episode, which all others must match."""
        for index, path in enumerate(self.paths):
            try:
                check_sound(self.damaged, index)
                first = self._described(path, self.lengths[index])
                _time_step(first.metadata, path.name)
                return first
            except BadEpisode as error:
                self.damaged.setdefault(index, str(error))
                self.lengths = [*self.lengths[:index], 0, *self.lengths[index + 1 :]]
        raise BadEpisode(self.damaged[0])

    def _described(self, path: Path, steps: int) -> Episode:
        """A checked episode in which every image is the first one: for its fields, in little memory."""
        arrays, metadata = read_members(path, None, pictures=self._pictures(path, 0, 1, steps))
        whole = {
            name: np.broadcast_to(array, (steps, *array.shape[1:])) if name.startswith(IMAGES) else array
            for name, array in arrays.items()
        }
        episode = Episode(arrays=whole, metadata=metadata)
        validate(episode, path.name)
        return episode

    def _check_rate(self, metadata: Mapping[str, Any], where: str) -> None:
        dt_s = _time_step(metadata, where)
        if dt_s != self.dt_s:
            raise BadEpisode(f"{where}: field 'dt_s' is {dt_s} s, the log has {self.dt_s} s: leave the episode out")

    def _length(self, index: int) -> int:
        path = self.paths[index]
        try:
            arrays, _ = read_members(path, (TIMESTAMP, EPISODE_INDEX))
            length = len(arrays[TIMESTAMP]) if arrays[TIMESTAMP].ndim else 0
            if length < 1:
                raise BadEpisode(f"{path.name}: field {TIMESTAMP!r}: the episode has no steps")
        except BadEpisode as error:
            self.damaged[index] = str(error)
            return 0
        if arrays[EPISODE_INDEX].shape != (length,) or (arrays[EPISODE_INDEX] != index).any():
            raise BadEpisode(f"{path.name}: field {EPISODE_INDEX!r} is not {index}: the file was moved or renamed")
        return length


def check_manifest(folder: Path, lengths: Sequence[int], damaged: Mapping[int, str]) -> dict[str, Mapping[str, Any]]:
    """Compare the manifest, if there is one, with the files; returns its checksums by file name.

    Args:
        folder: The log.
        lengths: Steps of each episode.
        damaged: Episodes whose steps could not be counted, with the reason.

    Raises:
        BadEpisode: If the manifest is unreadable, or its episodes or lengths differ.
    """
    path = folder / MANIFEST
    if not path.exists() and not path.is_symlink():
        return {}
    try:
        noted = parse_json(read_plain(path, folder))
        if noted.get("format_version", FORMAT_VERSION) != FORMAT_VERSION:
            raise ValueError(f"format_version is {noted['format_version']!r}, this program reads {FORMAT_VERSION}")
        entries = noted["episodes"]
        listed = [_length_of(entry) for entry in entries]
        files = {episode_path(folder, index).name: entry for index, entry in enumerate(entries)}
        other = next((name for name, entry in files.items() if entry.get("file", name) != name), None)
        if other is not None:
            raise ValueError(f"{str(files[other]['file'])[:80]!r} stands in the place of {other}")
        sums = {name: {"sha256": str(entry["sha256"])} for name, entry in files.items() if "sha256" in entry}
        if sums and len(sums) < len(files):
            raise ValueError("some episodes have no sha256")
    except BadEpisode:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise BadEpisode(f"{MANIFEST}: field 'episodes' is unreadable ({error})") from error
    known = [index for index in range(len(lengths)) if index not in damaged]
    if len(listed) != len(lengths) or any(listed[index] != lengths[index] for index in known):
        raise BadEpisode(
            f"{MANIFEST}: field 'episodes' lists {len(listed)} episodes, {sum(listed)} steps; the folder has "
            f"{len(lengths)} episodes, {sum(lengths)} steps"
        )
    return dict(sums)


def _length_of(entry: Mapping[str, Any]) -> int:
    length = entry["length"]
    if type(length) is not int or not 0 < length < 2**40:
        raise ValueError(f"the length {str(length)[:80]!r}")
    return length


def _time_step(metadata: Mapping[str, Any], where: str) -> float:
    """Declared seconds between two steps of an episode, 0 if there are none."""
    declared = metadata.get("dt_s")
    if declared is not None and (isinstance(declared, bool) or not isinstance(declared, int | float)):
        raise BadEpisode(f"{where}: field 'dt_s' is {declared!r}, expected seconds")
    return time_step(declared, where=where, field="dt_s", rate=False)
