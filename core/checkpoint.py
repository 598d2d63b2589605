"""Checkpoints: a folder of weights, configuration and checksums, without a line of code in it.

    model.safetensors   the tensors
    config.json         format version, versions of the programs that wrote it, the caller's configuration
    manifest.json       size and SHA-256 of the other two

A checkpoint is published whole (`core.files.atomic_folder`) and verified byte for byte before it is used. Everything
that a training needs to go on travels the same way:

    tensors, layout = pack_state({"model": ..., "optimiser": ..., "step": 120})
    save_checkpoint(folder, tensors, {"layout": layout})
    tensors, config = load_checkpoint(folder)
    state = unpack_state(tensors, config["layout"])
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from core import __version__
from core.errors import BadCheckpoint
from core.files import atomic_folder, published

FORMAT_VERSION = 1
MODEL, CONFIG, MANIFEST = "model.safetensors", "config.json", "manifest.json"
NUM_NAMES_SHOWN = 8


def save_checkpoint(folder: str | Path, tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> None:
    """Publish a checkpoint; an older one at the same place survives until the new one is complete.

    Args:
        folder: Where it shall appear; missing parents are made.
        tensors: Weights by name, on any device.
        config: What is needed to build the same network again; plain JSON values.

    Raises:
        TypeError: If `config` holds something that JSON does not know.
        ValueError: If `config` holds NaN or an infinity.
        FileExistsError: If `folder` holds other files than a checkpoint, which would be lost.
        OSError: If the disk is full or the place cannot be written.
    """
    folder = Path(folder)
    versions = {"jepa-mpc": __version__, "torch": torch.__version__}
    contents = {
        MODEL: safetensors.torch.save({name: _plain(tensor) for name, tensor in tensors.items()}),
        CONFIG: _to_json({"format_version": FORMAT_VERSION, "versions": versions, "config": dict(config)}),
    }
    contents[MANIFEST] = _to_json(_manifest(contents))
    if folder.exists() and not (folder / MANIFEST).exists() and any(folder.iterdir()):
        raise FileExistsError(f"{folder} holds other files than a checkpoint: name a new folder")
    with atomic_folder(folder) as temporary:
        for name, data in contents.items():
            (temporary / name).write_bytes(data)


def load_checkpoint(folder: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Verify and read a checkpoint.

    Returns:
        The tensors (on the CPU) and the caller's configuration.

    Raises:
        BadCheckpoint: If a file is missing, damaged or cut short, or the format is newer than this program.
    """
    while True:
        place = published(folder)
        number = _folder_number(place)
        try:
            return _load(place)
        except BadCheckpoint:
            if _folder_number(published(folder)) == number:  # else a writer published a newer one meanwhile
                raise


def checkpoint_hash(folder: str | Path) -> str:
    """Twelve hexadecimal digits that name the exact content of a checkpoint.

    Raises:
        BadCheckpoint: If there is no manifest in `folder`.
    """
    return hashlib.sha256(_read(published(folder) / MANIFEST)).hexdigest()[:12]


def load_strict(module: nn.Module, tensors: Mapping[str, Tensor], name: str) -> None:
    """Copy tensors into a module if, and only if, names, shapes and dtypes agree one to one.

    Args:
        module: Takes the weights.
        tensors: Weights by the names of `module.state_dict()`.
        name: What the module is called in the error message.

    Raises:
        BadCheckpoint: If something is missing, too much or of another shape or dtype; lists all of it.
    """
    wanted = module.state_dict()
    both = sorted(wanted.keys() & tensors.keys())
    faults = {
        "missing": sorted(wanted.keys() - tensors.keys()),
        "unexpected": sorted(tensors.keys() - wanted.keys()),
        "of another shape or dtype": [
            f"{key} (expected {_kind(wanted[key])}, got {_kind(tensors[key])})"
            for key in both
            if _kind(wanted[key]) != _kind(tensors[key])
        ],
    }
    found = [f"{len(names)} {fault}: {_some(names)}" for fault, names in faults.items() if names]
    if found:
        raise BadCheckpoint(f"these weights do not fit {name}: {'; '.join(found)}")
    module.load_state_dict(dict(tensors), strict=True)


def pack_state(state: Mapping[Any, Any]) -> tuple[dict[str, Tensor], Any]:
    """Take a nested state apart into tensors and a JSON value that tells how to put it together again.

    Args:
        state: Mappings, lists and tuples of tensors, numbers, strings and None, e.g. an optimiser's `state_dict()`.

    Raises:
        TypeError: If it holds anything else; names the place.
    """
    tensors: dict[str, Tensor] = {}
    return tensors, _pack(state, "state", tensors)


def unpack_state(tensors: Mapping[str, Tensor], layout: Any) -> Any:
    """Put a state together again, bit for bit as `pack_state` found it (tensors on the CPU).

    Raises:
        BadCheckpoint: If layout and tensors do not belong together.
    """
    match layout:
        case {"tensor": str(name)} if name in tensors:
            return tensors[name]
        case {"float": str(digits)}:
            return float(digits)
        case {"mapping": list(pairs)} if all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
            return {key: unpack_state(tensors, value) for key, value in pairs}
        case {"list": list(values)}:
            return [unpack_state(tensors, value) for value in values]
        case {"tuple": list(values)}:
            return tuple(unpack_state(tensors, value) for value in values)
        case None | bool() | int() | float() | str():
            return layout
    raise BadCheckpoint(f"the layout of the saved state is damaged or its tensors are not here: {str(layout)[:80]!r}")


def _pack(value: Any, place: str, tensors: dict[str, Tensor]) -> Any:
    match value:
        case Tensor():
            name = place if place not in tensors else f"{place}#{len(tensors)}"  # "a.b" may also be b inside a
            tensors[name] = value
            return {"tensor": name}
        case None | bool() | int() | str():
            return value
        case float():
            return value if math.isfinite(value) else {"float": repr(value)}
        case Mapping():
            return {
                "mapping": [[_key(key, place), _pack(item, f"{place}.{key}", tensors)] for key, item in value.items()]
            }
        case list() | tuple():
            kind = "list" if isinstance(value, list) else "tuple"
            return {kind: [_pack(item, f"{place}.{index}", tensors) for index, item in enumerate(value)]}
    raise TypeError(f"{place} is a {type(value).__name__}: only tensors, numbers, strings, None and nests of them last")


def _key(key: Any, place: str) -> str | int:
    if not isinstance(key, str | int):
        raise TypeError(f"{place} has the key {key!r}: only strings and whole numbers last")
    return key


def _load(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    contents = {name: _read(folder / name) for name in (CONFIG, MANIFEST, MODEL)}
    config = _from_json(contents[CONFIG], folder / CONFIG)
    _check_format(config.get("format_version"), folder)
    manifest = _from_json(contents.pop(MANIFEST), folder / MANIFEST)
    _check_manifest(manifest, contents, folder)
    try:
        tensors = safetensors.torch.load(contents[MODEL])
    except safetensors.SafetensorError as error:
        raise BadCheckpoint(f"{folder / MODEL} is not a safetensors file: {error}") from error
    return tensors, config["config"]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        if not path.parent.is_dir():
            raise BadCheckpoint(f"there is no checkpoint at {path.parent}") from error
        raise BadCheckpoint(f"the checkpoint {path.parent} is incomplete: {path.name} is missing") from error


def _from_json(data: bytes, path: Path) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except ValueError as error:
        raise BadCheckpoint(f"{path} is damaged: it is not JSON ({error})") from error
    if not isinstance(value, dict):
        raise BadCheckpoint(f"{path} is damaged: it holds no JSON object")
    return value


def _to_json(value: Any) -> bytes:
    return (json.dumps(value, indent=2, allow_nan=False) + "\n").encode()


def _check_format(version: Any, folder: Path) -> None:
    if not isinstance(version, int) or version < 1:
        raise BadCheckpoint(f"{folder / CONFIG} names no format version (got {version!r}): it is no checkpoint of ours")
    if version > FORMAT_VERSION:
        raise BadCheckpoint(
            f"{folder} was written in checkpoint format {version}, and this program reads up to format "
            f"{FORMAT_VERSION}: use a newer release"
        )


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


def _kind(tensor: Tensor) -> str:
    return f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"


def _some(names: Iterable[str]) -> str:
    names = list(names)
    more = len(names) - NUM_NAMES_SHOWN
    return ", ".join(names[:NUM_NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")
