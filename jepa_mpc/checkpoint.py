"""Checkpoints: a folder of weights, configuration and checksums, without a line of code in it.

    model.safetensors   the tensors, and the SHA-256 of config.json
    config.json         format version, versions of the programs that wrote it, SHA-256 of each part of the tensors, the
                        caller's configuration
    manifest.json       size and SHA-256 of every other file
    ...                 files for people, if any (README.md, pictures)

A checkpoint is published whole (`files.atomic_folder`) and verified byte for byte before it is used. Weights and
configuration name each other, so that neither passes for that of another model. Wherever a folder is read,
`hf://owner/name` reads a repository of the Hugging Face Hub. Everything that a training needs to go on travels the same
way:

    tensors, layout = pack_state({"model": ..., "optimiser": ..., "step": 120})
    save_checkpoint(folder, tensors, {"layout": layout})
    tensors, config = load_checkpoint(folder)
    state = unpack_state(tensors, config["layout"])
"""

from __future__ import annotations

import hashlib
import json
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from jepa_mpc import __version__
from jepa_mpc.errors import BadCheckpoint
from jepa_mpc.files import atomic_folder, published
from jepa_mpc.hub import fetch, hub_name
from jepa_mpc.packing import pack_state as pack_state
from jepa_mpc.packing import unpack_state as unpack_state
from jepa_mpc.strict import kind_of
from jepa_mpc.strict import load_part as load_part
from jepa_mpc.strict import load_strict as load_strict

FORMAT_VERSION = 2  # 1: weights and configuration did not name each other
MODEL, CONFIG, MANIFEST = "model.safetensors", "config.json", "manifest.json"
OURS = (MODEL, CONFIG, MANIFEST)
LARGEST_JSON = 64 * 2**20


def save_checkpoint(
    folder: str | Path,
    tensors: Mapping[str, Tensor],
    config: Mapping[str, Any],
    *,
    files: Mapping[str, bytes] | None = None,
) -> None:
    """Publish a checkpoint; an older one at the same place survives until the new one is complete.

    Args:
        folder: Where it shall appear; missing parents are made.
        tensors: Weights by name, on any device.
        config: What is needed to build the same network again; plain JSON values.
        files: Further files by name, for people.

    Raises:
        TypeError: If `config` holds something that JSON does not know.
        ValueError: If `config` holds NaN or an infinity, or a further file has no plain name of its own.
        Busy: If another process is writing the same folder.
        FileExistsError: If `folder` holds other files than a checkpoint, which would be lost.
        OSError: If the disk is full or the place cannot be written.
    """
    folder = Path(folder)
    plain = {name: _plain(tensor) for name, tensor in tensors.items()}
    contents = {name: data for name, data in (files or {}).items() if _check_name(name)}
    contents[CONFIG] = _to_json(
        {
            "format_version": FORMAT_VERSION,
            "versions": {"jepa-mpc": __version__, "torch": torch.__version__},
            "parts": part_hashes(plain),
            "config": dict(config),
        }
    )
    contents[MODEL] = safetensors.torch.save(plain, metadata={CONFIG: hashlib.sha256(contents[CONFIG]).hexdigest()})
    contents[MANIFEST] = _to_json(_manifest(contents))
    if folder.exists() and not (folder / MANIFEST).exists() and any(folder.iterdir()):
        raise FileExistsError(f"{folder} holds other files than a checkpoint: name a new folder")
    with atomic_folder(folder) as temporary:
        for name, data in contents.items():
            (temporary / name).write_bytes(data)


def load_checkpoint(folder: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Verify and read a checkpoint.

    Args:
        folder: A folder, or `hf://owner/name` of the Hugging Face Hub.

    Returns:
        The tensors (on the CPU) and the caller's configuration.

    Raises:
        BadCheckpoint: If a file is missing, damaged, cut short or of another checkpoint, or the format is newer than
            this program.
        MissingPackage: If a repository of the Hub is named and huggingface_hub is not installed.
    """
    while True:
        place = place_of(folder)
        number = _folder_number(place)
        try:
            return _load(place)
        except BadCheckpoint:
            if _folder_number(place_of(folder)) == number:  # else a writer published a newer one meanwhile
                raise


def place_of(folder: str | Path) -> Path:
    """Where the files of a checkpoint lie on this machine: the folder itself, or what was fetched from the Hub.

    Raises:
        BadCheckpoint: If a repository of the Hub cannot be fetched.
        MissingPackage: If huggingface_hub is not installed.
    """
    name = hub_name(folder)
    return published(folder) if name is None else fetch(name)


def checkpoint_hash(folder: str | Path) -> str:
    """Twelve hexadecimal digits that name the exact content of a checkpoint.

    Raises:
        BadCheckpoint: If there is no manifest in `folder`.
    """
    return hashlib.sha256(_read(place_of(folder) / MANIFEST)).hexdigest()[:12]


def part_hashes(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """SHA-256 of each part (`encoder`, `predictor`, ...: names up to the first dot): names, shapes, dtypes, values."""
    parts: dict[str, Any] = {}
    for name, tensor in sorted(tensors.items()):
        seal = parts.setdefault(name.partition(".")[0], hashlib.sha256())
        seal.update(f"{name} {kind_of(tensor)};".encode())
        seal.update(_plain(tensor).reshape(-1).view(torch.uint8).numpy().data)
    return {name: seal.hexdigest() for name, seal in parts.items()}


def _load(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    described = _read(folder / CONFIG, most=LARGEST_JSON)
    config = _from_json(described, folder / CONFIG)
    version = _check_format(config.get("format_version"), folder)
    manifest = _from_json(_read(folder / MANIFEST, most=LARGEST_JSON), folder / MANIFEST)
    weights = _read(folder / MODEL, most=_noted_size(manifest, MODEL, folder))
    others = {name for name in manifest if _check_name(name, folder / MANIFEST) and name not in OURS}
    contents = {name: _read(folder / name, most=_noted_size(manifest, name, folder)) for name in sorted(others)}
    _check_manifest(manifest, {**contents, CONFIG: described, MODEL: weights}, folder)
    try:
        tensors = safetensors.torch.load(weights)
    except (safetensors.SafetensorError, KeyError, RuntimeError, ValueError) as error:
        raise BadCheckpoint(f"{folder / MODEL} is not a safetensors file: {error}") from error
    if version >= 2:
        _check_identity(tensors, weights, described, config.get("parts"), folder)
    if not isinstance(config.get("config"), dict):
        raise BadCheckpoint(f"{folder / CONFIG} is damaged: it holds no configuration")
    return tensors, config["config"]


def _check_identity(tensors: Mapping[str, Tensor], weights: bytes, described: bytes, parts: Any, folder: Path) -> None:
    """Weights and configuration must name each other."""
    length = int.from_bytes(weights[:8], "little")
    named = json.loads(weights[8 : 8 + length]).get("__metadata__", {}).get(CONFIG)
    if named != hashlib.sha256(described).hexdigest():
        raise BadCheckpoint(
            f"{folder / CONFIG} is not the configuration that {MODEL} was saved with: encoder, scaling and actions may "
            "be those of another model"
        )
    found = part_hashes(tensors)
    if not isinstance(parts, dict) or parts != found:
        noted = parts if isinstance(parts, dict) else {}
        other = sorted(name for name in noted.keys() | found.keys() if noted.get(name) != found.get(name))
        raise BadCheckpoint(f"{folder / MODEL} holds parts of another model: {', '.join(other)}")


def _check_name(name: str, told_by: Path | None = None) -> bool:
    """True; a name that leads out of the folder is refused."""
    if name in OURS and told_by is None:
        raise ValueError(f"the name {name} is taken: a further file needs one of its own")
    if not name or name in (".", "..") or "/" in name or "\\" in name or "\0" in name:
        if told_by is None:
            raise ValueError(f"a further file needs a plain name, got {name!r}")
        raise BadCheckpoint(f"{told_by} is damaged: it lists the file {name[:80]!r}, which is not in its folder")
    return True


def _noted_size(manifest: Mapping[str, Any], name: str, folder: Path) -> int:
    entry = manifest.get(name)
    size = entry.get("bytes") if isinstance(entry, dict) else None
    if not isinstance(size, int):
        raise BadCheckpoint(f"{folder / MANIFEST} is damaged: it has no size and SHA-256 of {name}")
    return size


def _read(path: Path, *, most: int = LARGEST_JSON) -> bytes:
    """The bytes of a file that is no longer than `most`, which is told before it is read."""
    try:
        facts = path.stat()
        if not stat.S_ISREG(facts.st_mode):
            raise BadCheckpoint(f"{path} is no file")
        if facts.st_size > most:
            raise BadCheckpoint(f"{path} is cut short or too long: {facts.st_size} bytes, at most {most} were expected")
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        if not path.parent.is_dir():
            raise BadCheckpoint(f"there is no checkpoint at {path.parent}") from error
        raise BadCheckpoint(f"the checkpoint {path.parent} is incomplete: {path.name} is missing") from error


def _from_json(data: bytes, path: Path) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise BadCheckpoint(f"{path} is damaged: it is not JSON ({error})") from error
    if not isinstance(value, dict):
        raise BadCheckpoint(f"{path} is damaged: it holds no JSON object")
    return value


def _to_json(value: Any) -> bytes:
    return (json.dumps(value, indent=2, allow_nan=False) + "\n").encode()


def _check_format(version: Any, folder: Path) -> int:
    if not isinstance(version, int) or version < 1:
        raise BadCheckpoint(f"{folder / CONFIG} names no format version (got {version!r}): it is no checkpoint of ours")
    if version > FORMAT_VERSION:
        raise BadCheckpoint(
            f"{folder} was written in checkpoint format {version}, and this program reads up to format "
            f"{FORMAT_VERSION}: use a newer release"
        )
    return version


def _manifest(contents: Mapping[str, bytes]) -> dict[str, Any]:
    return {
        name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        for name, data in sorted(contents.items())
    }


def _check_manifest(manifest: Mapping[str, Any], contents: Mapping[str, bytes], folder: Path) -> None:
    for name, entry in _manifest(contents).items():
        noted = manifest.get(name)
        if not isinstance(noted, dict) or noted.keys() != entry.keys():
            raise BadCheckpoint(f"{folder / MANIFEST} is damaged: it has no size and SHA-256 of {name}")
        if noted["bytes"] != entry["bytes"]:
            raise BadCheckpoint(
                f"{folder / name} is cut short or too long: {entry['bytes']} bytes, the manifest says {noted['bytes']}"
            )
        if noted["sha256"] != entry["sha256"]:
            raise BadCheckpoint(f"{folder / name} is damaged: its SHA-256 differs from the manifest")


def _folder_number(folder: Path) -> int | None:
    """The number by which the file system knows this very folder; None if it does not exist."""
    try:
        return folder.stat().st_ino
    except FileNotFoundError:
        return None


def _plain(tensor: Tensor) -> Tensor:
    """A copy of its own on the CPU: safetensors refuses tensors that share memory."""
    return tensor.detach().to("cpu", copy=True).contiguous()
