"""Checkpoints: a folder of weights, configuration and checksums, without any code.

    model.safetensors   the tensors, and the SHA-256 of config.json
    config.json         format version, versions of the programs that wrote it, SHA-256 of each part of the tensors, the
                        caller's configuration
    manifest.json       size and SHA-256 of every other file
    ...                 files for people, if any (README.md, images)

A checkpoint is published as a whole (`files.atomic_folder`) and every byte is verified before use. Weights and
configuration contain each other's hash, so neither can be swapped. Wherever a folder is read, `hf://owner/name` reads a
repository of the Hugging Face Hub. The state needed to resume a training uses the same format:

    tensors, layout = pack_state({"model": ..., "optimiser": ..., "step": 120})
    save_checkpoint(folder, tensors, {"layout": layout})
    tensors, config = load_checkpoint(folder)
    state = unpack_state(tensors, config["layout"])
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from jepa_mpc import __version__
from jepa_mpc.errors import BadCheckpoint
from jepa_mpc.files import atomic_folder, keep
from jepa_mpc.packing import pack_state as pack_state
from jepa_mpc.packing import unpack_state as unpack_state
from jepa_mpc.plain_json import parse_json
from jepa_mpc.reading import CONFIG as CONFIG
from jepa_mpc.reading import FORMAT_VERSION as FORMAT_VERSION
from jepa_mpc.reading import LARGEST_FILE, OURS, from_json, is_plain_name, manifest_of
from jepa_mpc.reading import MANIFEST as MANIFEST
from jepa_mpc.reading import MODEL as MODEL
from jepa_mpc.reading import checkpoint_hash as checkpoint_hash
from jepa_mpc.reading import open_checkpoint as open_checkpoint
from jepa_mpc.reading import place_of as place_of
from jepa_mpc.strict import load_part as load_part
from jepa_mpc.strict import load_strict as load_strict
from jepa_mpc.weights import part_hashes as part_hashes
from jepa_mpc.weights import to_bytes


def save_checkpoint(
    folder: str | Path,
    tensors: Mapping[str, Tensor],
    config: Mapping[str, Any],
    *,
    files: Mapping[str, bytes] | None = None,
) -> None:
    """Publish a checkpoint; an older one at the same path stays until the new one is complete.

    Files added by others to an older checkpoint's folder stay; they are not part of the checkpoint.

    Args:
        folder: The destination; missing parents are created, a link is followed.
        tensors: Weights by name, on any device.
        config: What is needed to rebuild the network; plain JSON values.
        files: Further files for people, by name, of at most 64 MiB each.

    Raises:
        TypeError: If `config` holds a value that JSON cannot represent.
        ValueError: If `config` holds NaN, an infinity or what could not be read again, or a further file is too large
            or its name is taken or not plain.
        Busy: If another writer holds the folder.
        FileExistsError: If `folder` holds files other than a checkpoint, or one with the name of a further file.
        OSError: If the disk is full or the path cannot be written.
    """
    folder = Path(folder)
    plain = {name: _plain(tensor) for name, tensor in tensors.items()}
    contents = {name: data for name, data in (files or {}).items() if _check_file(name, data)}
    contents[CONFIG] = _to_json(
        {
            "format_version": FORMAT_VERSION,
            "versions": {"jepa-mpc": __version__, "torch": torch.__version__},
            "parts": part_hashes(plain),
            "config": dict(config),
        }
    )
    contents[MODEL] = to_bytes(plain, {CONFIG: hashlib.sha256(contents[CONFIG]).hexdigest()})
    contents[MANIFEST] = _to_json(manifest_of(contents))
    with atomic_folder(folder) as draft:
        for entry in _others(folder, contents):
            keep(entry, draft)
        for name, data in contents.items():
            (draft / name).write_bytes(data)


def load_checkpoint(folder: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Verify and read a checkpoint.

    Args:
        folder: A folder, or `hf://owner/name` of the Hugging Face Hub.

    Returns:
        The tensors (on the CPU) and the caller's configuration.

    Raises:
        BadCheckpoint: If a file is missing, damaged, cut short or of another checkpoint, or the format is newer than
            this program.
        MissingPackage: If a Hub repository is named and huggingface_hub is not installed.
    """
    with open_checkpoint(folder) as opened:
        return opened.tensors(), opened.config


def _others(folder: Path, contents: Mapping[str, bytes]) -> list[Path]:
    """Entries of a folder that are not part of the checkpoint."""
    entries = sorted(folder.iterdir()) if folder.is_dir() else []
    if entries and not _is_checkpoint(folder):
        raise FileExistsError(f"{folder} holds files other than a checkpoint: choose a new folder")
    others = [entry for entry in entries if entry.name not in (*OURS, *_listed(folder))]
    taken = [entry.name for entry in others if entry.name in contents]
    if taken:
        raise FileExistsError(
            f"{folder / taken[0]} is not part of the checkpoint there: move it, or choose a new folder"
        )
    return others


def _is_checkpoint(folder: Path) -> bool:
    """Whether a folder has the manifest of a checkpoint, or one that is damaged beside a checkpoint's model."""
    listed = _listed(folder)
    return MODEL in listed or (not listed and (folder / MANIFEST).is_file() and (folder / MODEL).exists())


def _listed(folder: Path) -> list[str]:
    """The files listed in a checkpoint's manifest; a damaged manifest lists none."""
    path = folder / MANIFEST
    try:
        return list(from_json(path.read_bytes(), path)) if path.is_file() else []
    except BadCheckpoint:
        return []


def _check_file(name: str, data: bytes) -> bool:
    """True; refuses a further file that could not be read back."""
    if name in OURS:
        raise ValueError(f"the name {name} is reserved: rename the further file")
    if not is_plain_name(name):
        raise ValueError(f"a further file needs a plain name, got {name!r}")
    if len(data) > LARGEST_FILE:
        raise ValueError(f"the further file {name} has {len(data)} bytes, the limit is {LARGEST_FILE}")
    return True


def _to_json(value: Any) -> bytes:
    data = (json.dumps(value, indent=2, allow_nan=False) + "\n").encode()
    if len(data) > LARGEST_FILE:
        raise ValueError(f"the configuration has {len(data)} bytes, the limit is {LARGEST_FILE}")
    try:
        parse_json(data)
    except ValueError as error:
        raise ValueError(f"the configuration could not be read again: {error}") from error
    return data


def _plain(tensor: Tensor) -> Tensor:
    """A separate copy on the CPU: safetensors refuses tensors that share memory."""
    return tensor.detach().to("cpu", copy=True).contiguous()
