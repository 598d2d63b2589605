"""Opens one version of a checkpoint: its description is verified, its weights stay on disk.

All files are opened through one folder handle, so they belong to one version even if another is published meanwhile;
the hash identifies exactly what was opened.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from torch import Tensor

from jepa_mpc.errors import BadCheckpoint
from jepa_mpc.files import published
from jepa_mpc.hub import fetch, hub_name
from jepa_mpc.places import FILES, folder_of
from jepa_mpc.plain_json import parse_json
from jepa_mpc.weights import Header, from_bytes, part_hashes, read_header

FORMAT_VERSION = 2  # 1: weights and configuration did not contain each other's hash
OURS = MANIFEST, CONFIG, MODEL = FILES
LARGEST_FILE = 64 * 2**20
"""Maximum size in bytes of any file but the weights."""


@dataclass(frozen=True, kw_only=True)
class OpenCheckpoint:
    """A checkpoint with verified description and readable weights.

    Args:
        place: The folder.
        config: The caller's configuration.
        header: Names, shapes and dtypes of the tensors.
        fingerprint: Twelve hexadecimal digits that identify the exact content.
        weights: The open file of the tensors.
        described: Format version, hash and part hashes that the weights must match.
    """

    place: Path
    config: dict[str, Any]
    header: Header
    fingerprint: str
    weights: IO[bytes]
    described: Mapping[str, Any]

    def tensors(self) -> dict[str, Tensor]:
        """Read and verify the tensors (on the CPU); temporarily needs twice the memory of the file.

        Raises:
            BadCheckpoint: If they are damaged, are another model's, or exceed the free memory.
        """
        path, free = self.place / MODEL, _free_bytes()
        if free is not None and 2 * self.header.num_bytes > free:
            needed = 2 * self.header.num_bytes / 1e9
            raise BadCheckpoint(f"{path} needs {needed:.1f} GB of memory to read, {free / 1e9:.1f} GB are free")
        self.weights.seek(0)
        content = self.weights.read()
        _check_entry(MODEL, len(content), hashlib.sha256(content).hexdigest(), self.described["entry"], self.place)
        try:
            tensors = from_bytes(content)
        except ValueError as error:
            raise BadCheckpoint(f"{path} is not a safetensors file: {error}") from error
        del content
        if self.described["version"] >= 2:
            _check_parts(part_hashes(tensors), self.described["parts"], path)
        return tensors


@contextmanager
def open_checkpoint(folder: str | Path) -> Iterator[OpenCheckpoint]:
    """Open one version of a checkpoint and verify everything but its tensors.

    Args:
        folder: See `place_of`.

    Raises:
        BadCheckpoint: If a file is missing, damaged, cut short or of another checkpoint, or the format is newer than
            this program.
        MissingPackage: If a Hub repository is named and huggingface_hub is not installed.
    """
    with ExitStack() as stack:
        place, files, manifest_bytes = _open_all(folder, stack)
        yield _verified(place, files, manifest_bytes)


def checkpoint_hash(folder: str | Path) -> str:
    """Twelve hexadecimal digits that identify the exact content of a checkpoint.

    Raises:
        BadCheckpoint: If `folder` holds no manifest.
    """
    place = place_of(folder)
    with _open_folder(place) as handle, _open(handle, MANIFEST, place) as file:
        return _fingerprint(_read(file, place / MANIFEST))


def place_of(folder: str | Path) -> Path:
    """The local folder of a checkpoint.

    Args:
        folder: A folder, the name of a shipped checkpoint (`reach_wide`), or `hf://owner/name` of the Hugging Face Hub.

    Raises:
        BadCheckpoint: If the name is not valid, or a Hub repository cannot be fetched.
        MissingPackage: If huggingface_hub is not installed.
    """
    name = hub_name(folder)
    if name is not None:
        return fetch(name)
    try:
        return folder_of(published(folder))
    except (OSError, ValueError) as error:  # an empty or endless name
        raise BadCheckpoint(f"{str(folder)[:80]!r} names no folder: {_reason(error)}") from error


def manifest_of(contents: Mapping[str, bytes]) -> dict[str, Any]:
    """Size and SHA-256 of each file."""
    return {
        name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        for name, data in sorted(contents.items())
    }


def from_json(data: bytes, path: Path) -> dict[str, Any]:
    """A dictionary from the bytes of a JSON file.

    Raises:
        BadCheckpoint: If it is not a JSON object.
    """
    try:
        value = parse_json(data)
    except ValueError as error:
        raise BadCheckpoint(f"{path} is damaged: it is not JSON ({error})") from error
    if not isinstance(value, dict):
        raise BadCheckpoint(f"{path} is damaged: it holds no JSON object")
    return value


def is_plain_name(name: str) -> bool:
    """Whether a file of that name lies directly in the folder."""
    try:
        os.fsencode(name)
    except UnicodeEncodeError:
        return False
    return name not in ("", ".", "..") and not set(name) & set("/\\\0")


def _open_all(folder: str | Path, stack: ExitStack) -> tuple[Path, dict[str, IO[bytes]], bytes]:
    """Every file of one version, opened, and the bytes of its manifest."""
    while True:
        place = place_of(folder)
        before = _number(place)
        with ExitStack() as attempt:
            try:
                handle = attempt.enter_context(_open_folder(place))
                before = os.fstat(handle).st_ino
                listed = attempt.enter_context(_open(handle, MANIFEST, place))
                manifest_bytes = _read(listed, place / MANIFEST)
                names = {*_names(manifest_bytes, place), MODEL, CONFIG}
                files = {name: attempt.enter_context(_open(handle, name, place)) for name in sorted(names)}
            except BadCheckpoint:
                if _number(place_of(folder)) == before:  # otherwise a newer version was published meanwhile
                    raise
                continue
            stack.enter_context(attempt.pop_all())
            return place, files, manifest_bytes


def _verified(place: Path, files: Mapping[str, IO[bytes]], manifest_bytes: bytes) -> OpenCheckpoint:
    described = _read(files[CONFIG], place / CONFIG)
    config = from_json(described, place / CONFIG)
    version = _check_format(config.get("format_version"), place)
    manifest = from_json(manifest_bytes, place / MANIFEST)
    for name, file in files.items():
        if name != MODEL:
            data = described if name == CONFIG else _read(file, place / name)
            _check_entry(name, len(data), hashlib.sha256(data).hexdigest(), manifest.get(name), place)
    size = os.fstat(files[MODEL].fileno()).st_size
    _check_entry(MODEL, size, None, manifest.get(MODEL), place)
    try:
        header = read_header(files[MODEL], size)
    except ValueError as error:
        raise BadCheckpoint(f"{place / MODEL} is not a safetensors file: {error}") from error
    if version >= 2 and header.notes.get(CONFIG) != hashlib.sha256(described).hexdigest():
        raise BadCheckpoint(
            f"{place / CONFIG} is not the configuration that {MODEL} was saved with: encoder, scaling and actions may "
            "be those of another model"
        )
    if not isinstance(config.get("config"), dict):
        raise BadCheckpoint(f"{place / CONFIG} is damaged: it holds no configuration")
    return OpenCheckpoint(
        place=place,
        config=config["config"],
        header=header,
        fingerprint=_fingerprint(manifest_bytes),
        weights=files[MODEL],
        described={"version": version, "entry": manifest.get(MODEL), "parts": config.get("parts")},
    )


def _fingerprint(manifest_bytes: bytes) -> str:
    return hashlib.sha256(manifest_bytes).hexdigest()[:12]


def _names(manifest_bytes: bytes, place: Path) -> list[str]:
    """The files listed in a manifest."""
    path = place / MANIFEST
    names = [name for name in from_json(manifest_bytes, path) if name != MANIFEST]
    for name in names:
        if not is_plain_name(name):
            raise BadCheckpoint(f"{path} is damaged: it lists the file {name[:80]!r}, which is not in its folder")
    return names


@contextmanager
def _open_folder(place: Path) -> Iterator[int]:
    try:
        handle = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise BadCheckpoint(f"there is no checkpoint at {place}") from error
    except (OSError, ValueError) as error:
        raise BadCheckpoint(f"{str(place)!r} cannot be read: {_reason(error)}") from error
    try:
        yield handle
    finally:
        os.close(handle)


def _open(folder: int, name: str, place: Path) -> IO[bytes]:
    try:
        handle = os.open(name, os.O_RDONLY | os.O_NONBLOCK, dir_fd=folder)  # otherwise opening a pipe would block
    except FileNotFoundError as error:
        raise BadCheckpoint(f"the checkpoint {place} is incomplete: {name} is missing") from error
    except OSError as error:
        raise BadCheckpoint(f"{place / name} cannot be read: {_reason(error)}") from error
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise BadCheckpoint(f"{place / name} is not a file")
    return os.fdopen(handle, "rb")


def _read(file: IO[bytes], path: Path) -> bytes:
    """The bytes of a file, after checking its size."""
    size = os.fstat(file.fileno()).st_size
    if size > LARGEST_FILE:
        raise BadCheckpoint(f"{path} is too long: {size} bytes, the limit is {LARGEST_FILE}")
    try:
        return file.read(LARGEST_FILE)
    except OSError as error:
        raise BadCheckpoint(f"{path} cannot be read: {_reason(error)}") from error


def _check_entry(name: str, size: int, sha256: str | None, noted: Any, place: Path) -> None:
    """Compare a file with its manifest entry; None if its hash is not known yet."""
    match noted:
        case {"bytes": int(expected), "sha256": str(seal), **more} if not more:
            pass
        case _:
            raise BadCheckpoint(f"{place / MANIFEST} is damaged: it has no size and SHA-256 of {name}")
    if size != expected:
        raise BadCheckpoint(f"{place / name} is cut short or too long: {size} bytes, the manifest says {expected}")
    if sha256 not in (None, seal):
        raise BadCheckpoint(f"{place / name} is damaged: its SHA-256 differs from the manifest")


def _check_format(version: Any, place: Path) -> int:
    if type(version) is not int or version < 1:
        raise BadCheckpoint(f"{place / CONFIG} names no format version (got {version!r}): not a checkpoint of jepa-mpc")
    if version > FORMAT_VERSION:
        raise BadCheckpoint(
            f"{place} was written in checkpoint format {version}, and this program reads up to format "
            f"{FORMAT_VERSION}: use a newer release"
        )
    return version


def _check_parts(found: Mapping[str, str], noted: Any, path: Path) -> None:
    """Check that the weights are those named by the configuration."""
    parts = noted if isinstance(noted, dict) else {}
    if noted != found:
        other = sorted(name for name in parts.keys() | found.keys() if parts.get(name) != found.get(name))
        raise BadCheckpoint(f"{path} holds parts of another model: {', '.join(other)}")


def _number(place: Path) -> int | None:
    """Inode of a folder, which stays unique while it is open; None if it does not exist."""
    try:
        return place.stat().st_ino
    except (OSError, ValueError):
        return None


def _free_bytes() -> int | None:
    """Memory available without swapping, if the system reports it."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        return None


def _reason(error: Exception) -> str:
    return error.strerror if isinstance(error, OSError) and error.strerror else str(error)
