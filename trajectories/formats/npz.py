"""One episode per .npz file: a plain zip of .npy members, stored uncompressed, with a checksum (CRC) per member.

Nothing in such a file is ever unpickled, and no size that a header claims is believed before it is compared with the
size of the file. Files appear under their final name only when they are complete.
"""

from __future__ import annotations

import ast
import io
import json
import math
import re
import struct
import zipfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from jepa_mpc.errors import BadEpisode
from jepa_mpc.files import atomic_file
from jepa_mpc.interfaces import Field
from jepa_mpc.trajectories.episode import (
    EPISODE_INDEX,
    TIMESTAMP,
    Episode,
    check_column,
    check_rising,
    fields_of,
    validate,
)

FORMAT_VERSION = 1
METADATA = "metadata.json"
MANIFEST = "manifest.json"
FILE_NAME = re.compile(r"episode_(\d{6,})\.npz")
UNREADABLE = (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, KeyError, struct.error, RuntimeError,
              NotImplementedError, OverflowError, IndexError)  # fmt: skip
MAX_HEADER = 4096


def episode_path(folder: Path, index: int) -> Path:
    """Where the episode of that number lies."""
    return folder / f"episode_{index:06d}.npz"


def write_episode(path: Path, episode: Episode) -> None:
    """Write one episode so that a crash leaves either the whole file or none.

    Raises:
        BadEpisode: If the episode does not fit the schema.
        OSError: If the disk is full or the folder cannot be written.
    """
    validate(episode, path.name)
    text = json.dumps({"format_version": FORMAT_VERSION, **episode.metadata}, sort_keys=True, allow_nan=False)

    with atomic_file(path) as draft, zipfile.ZipFile(draft, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(zipfile.ZipInfo(METADATA), text)
        for name, array in episode.arrays.items():
            with archive.open(zipfile.ZipInfo(name + ".npy"), "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, version=(1, 0), allow_pickle=False)


def read_episode(path: Path) -> Episode:
    """Read and check a whole episode.

    Raises:
        BadEpisode: If the file is damaged or breaks the schema; names file and field.
    """
    arrays, metadata = read_members(path, None)
    episode = Episode(arrays=arrays, metadata=metadata)
    validate(episode, path.name)
    return episode


def read_members(path: Path, names: Iterable[str] | None) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read the named arrays (None: all) and the metadata of one file, checked against their checksums.

    Raises:
        BadEpisode: If the file or a member is damaged or missing.
    """
    try:
        with _Bounded(path) as file, zipfile.ZipFile(file) as archive:
            metadata = _metadata(archive, path.name)
            if names is None:
                names = [info.filename.removesuffix(".npy") for info in archive.infolist() if info.filename != METADATA]
            return {name: _array(archive, name, where=path.name) for name in names}, metadata
    except FileNotFoundError as error:
        raise BadEpisode(f"{path.name}: no such file in {path.parent}") from error
    except BadEpisode:
        raise
    except UNREADABLE as error:
        raise BadEpisode(f"{path.name}: field 'file': damaged or cut short ({error})") from error


class _Bounded(io.FileIO):
    """A file whose reads never ask for more bytes than the file has left (a lying header must not allocate)."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, "rb")
        self.total = path.stat().st_size

    def read(self, size: int | None = -1, /) -> bytes:
        left = max(self.total - self.tell(), 0)
        return super().read(left if size is None or size < 0 else min(size, left))


def _bytes(archive: zipfile.ZipFile, member: str, *, field: str, where: str) -> bytes:
    """The bytes of one member; damage is told with the field's name."""
    try:
        info = archive.getinfo(member)
    except KeyError as error:
        raise BadEpisode(f"{where}: field {field!r} is missing") from error
    if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size:
        raise BadEpisode(f"{where}: field {field!r} must be stored uncompressed")
    if not 0 < info.file_size <= archive.fp.total:  # type: ignore[union-attr]
        raise BadEpisode(f"{where}: field {field!r} claims {info.file_size} bytes, more than the file holds")
    try:
        return archive.read(info)
    except UNREADABLE as error:
        raise BadEpisode(f"{where}: field {field!r} is damaged ({error})") from error


def _metadata(archive: zipfile.ZipFile, where: str) -> dict[str, Any]:
    raw = _bytes(archive, METADATA, field=METADATA, where=where)
    try:
        metadata = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise BadEpisode(f"{where}: field {METADATA!r} is not JSON ({error})") from error
    if not isinstance(metadata, dict):
        raise BadEpisode(f"{where}: field {METADATA!r} must be a JSON object")
    version = metadata.pop("format_version", None)
    if version != FORMAT_VERSION:
        raise BadEpisode(
            f"{where}: field {METADATA!r}: format_version is {version!r}, this program reads {FORMAT_VERSION}"
        )
    return metadata


def _array(archive: zipfile.ZipFile, name: str, *, where: str) -> np.ndarray:
    """Parse one .npy member without ever trusting its header: dtype from a short list, size equal to the bytes."""
    raw = _bytes(archive, name + ".npy", field=name, where=where)
    if len(raw) < 10 or raw[:8] != b"\x93NUMPY\x01\x00":
        raise BadEpisode(f"{where}: field {name!r} is not a .npy array of version 1.0")
    end = 10 + int.from_bytes(raw[8:10], "little")
    if end > min(len(raw), MAX_HEADER):
        raise BadEpisode(f"{where}: field {name!r} has a header of {end} bytes")
    try:
        header = ast.literal_eval(raw[10:end].decode("latin1").strip())
        shape, descr, fortran = tuple(header["shape"]), header["descr"], header["fortran_order"]
        sizes_sound = all(type(size) is int and size >= 0 for size in shape)
    except (ValueError, SyntaxError, TypeError, KeyError, RecursionError, MemoryError) as error:
        raise BadEpisode(f"{where}: field {name!r} has an unreadable header") from error
    if not sizes_sound or fortran is not False or descr not in ("|u1", "|b1", "<f4", "<f8", "<i8", "<i4", "<f2"):
        raise BadEpisode(f"{where}: field {name!r} has dtype {descr!r} or shape {shape!r} that no episode has")
    dtype = np.dtype(descr)
    if math.prod(shape) * dtype.itemsize != len(raw) - end:
        raise BadEpisode(f"{where}: field {name!r} claims shape {shape} but holds {len(raw) - end} bytes")
    return np.frombuffer(raw, dtype, offset=end).reshape(shape)


class NpzStore:
    """A folder of episodes, `episode_000000.npz` onwards without a gap.

    Args:
        folder: The log; a `manifest.json` in it is checked against the files if it is there.

    Raises:
        BadEpisode: If there is no episode, a number is missing, a count or length differs from the manifest, or an
            episode has other fields than the first.
    """

    format: ClassVar[str] = "npz"

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
        first = read_episode(self.paths[0])
        self.fields: Mapping[str, Field] = fields_of(first)
        self.cameras = first.cameras
        self.dt_s = float(first.metadata.get("dt_s", 0.0))
        self.lengths: Sequence[int] = [self._length(index) for index in indices]
        check_manifest(self.folder, self.lengths)

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, episode: int, start: int, stop: int, names: Sequence[str]) -> dict[str, np.ndarray]:
        """Steps start..stop-1 of the named fields, checked.

        Raises:
            BadEpisode: If the file is damaged or a field breaks the schema.
            IndexError: If the range is empty or leaves the episode.
        """
        length = self.lengths[episode]
        if not 0 <= start < stop <= length:
            raise IndexError(f"steps {start}..{stop} are not inside episode {episode} of {length} steps")
        path = self.paths[episode]
        arrays, _ = read_members(path, names)
        for name, array in arrays.items():
            check_column(name, array, length=length, where=path.name)
            if array.shape[1:] != self.fields[name].shape:
                raise BadEpisode(
                    f"{path.name}: field {name!r} has steps of shape {array.shape[1:]}, the log has "
                    f"{self.fields[name].shape}"
                )
        check_rising(arrays, path.name)
        return {name: array[start:stop] for name, array in arrays.items()}

    def episode(self, index: int) -> Episode:
        """One whole episode with its metadata, checked.

        Raises:
            BadEpisode: If it is damaged, breaks the schema or differs in its fields from the first.
        """
        episode = read_episode(self.paths[index])
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

    def _length(self, index: int) -> int:
        path = self.paths[index]
        arrays, _ = read_members(path, (TIMESTAMP, EPISODE_INDEX))
        length = len(arrays[TIMESTAMP]) if arrays[TIMESTAMP].ndim else 0
        if length < 1:
            raise BadEpisode(f"{path.name}: field {TIMESTAMP!r}: the episode has no steps")
        if arrays[EPISODE_INDEX].shape != (length,) or (arrays[EPISODE_INDEX] != index).any():
            raise BadEpisode(f"{path.name}: field {EPISODE_INDEX!r} is not {index}: the file was moved or renamed")
        return length


def check_manifest(folder: Path, lengths: Sequence[int]) -> None:
    """Compare the manifest, if there is one, with the files that are there.

    Raises:
        BadEpisode: If the manifest is unreadable or counts other episodes or lengths.
    """
    path = folder / MANIFEST
    if not path.exists():
        return
    try:
        listed = [int(entry["length"]) for entry in json.loads(path.read_bytes())["episodes"]]
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise BadEpisode(f"{MANIFEST}: field 'episodes' is unreadable ({error})") from error
    if listed != list(lengths):
        raise BadEpisode(
            f"{MANIFEST}: field 'episodes' lists {len(listed)} episodes, {sum(listed)} steps; the folder has "
            f"{len(lengths)} episodes, {sum(lengths)} steps"
        )
