"""Reading released files: a trainer's `.pt` or `.pth.tar`, or a folder with `model.safetensors` and `config.json`."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from jepa_mpc.encoders.adapters.names import from_hugging_face, without_prefixes
from jepa_mpc.encoders.adapters.plain import is_table, read_plain
from jepa_mpc.errors import BadCheckpoint
from jepa_mpc.plain_json import read_json_file
from jepa_mpc.reading import is_plain_name

logger = logging.getLogger(__name__)

ENCODER_SECTIONS = ("ema_encoder", "target_encoder", "encoder")
"""Keys under which a trainer's file may hold the encoder, the released one first."""

OTHER_HEADS = ("pooler.", "classifier.")
"""Parts of Hugging Face files that are neither encoder nor predictor: probes of single tasks."""


@dataclass(frozen=True, kw_only=True)
class Released:
    """The contents of a released file, with the authors' key names and without prefixes.

    Args:
        source: The file, for messages.
        section: Key of the encoder in the file.
        encoder: Weights of the encoder.
        predictor: Weights of the predictor; empty if the file has none.
        config: `config.json` of the Hugging Face layout, or empty.
    """

    source: str
    section: str
    encoder: Mapping[str, Tensor]
    predictor: Mapping[str, Tensor] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)


def read_released(path: str | Path, *, section: str | None = None) -> Released:
    """Read a released file of either layout. No code of the file is executed; the tensors have memory of their own.

    Args:
        path: A `.pt`, `.pth.tar` or `.safetensors` file, or a folder that holds one.
        section: Key of the encoder in a trainer's file; by default the first of `ENCODER_SECTIONS` that exists, but
            `encoder` in a file with an action-conditioned predictor.

    Raises:
        BadCheckpoint: If there is no such file, it is damaged, or it holds no encoder.
    """
    files = _weight_files(Path(path))
    source = str(files[0])
    if files[0].suffix == ".safetensors":
        tensors: dict[str, Tensor] = {}
        for file in files:
            tensors |= read_plain(file)
        beside = files[0].parent / "config.json"
        released = sort_hugging_face(tensors, _read_json(beside) if beside.is_file() else {}, source=source)
    else:
        mapped = sort_trainer(read_plain(files[0]), source=source, section=section)
        released = replace(mapped, encoder=_copies(mapped.encoder), predictor=_copies(mapped.predictor))
    logger.info("%s: encoder of %d tensors from %r", source, len(released.encoder), released.section)
    return released


def sort_trainer(content: Mapping[str, Any], *, source: str, section: str | None = None) -> Released:
    """The content of a trainer's dictionary; optimiser state and counters are ignored.

    Raises:
        BadCheckpoint: If there is no encoder, or not the requested one.
    """
    sections = {str(name): value for name, value in content.items() if is_table(value)}
    if not sections and is_table(content):
        sections = {"encoder": content}
    predictor = without_prefixes(sections.get("predictor", {}), source)
    present = [name for name in ENCODER_SECTIONS if name in sections]
    if "action_encoder.weight" in predictor and "encoder" in present:
        present.insert(0, "encoder")
    wanted = section or next(iter(present), None)
    if wanted is None or wanted not in sections:
        top = ", ".join(list(map(str, content))[:8]) or "nothing"
        known = section or f"one of {', '.join(ENCODER_SECTIONS)}"
        raise BadCheckpoint(f"{source} holds no encoder: expected {known} at the top level, got {top}")
    encoder = without_prefixes(sections[wanted], source)
    return Released(source=source, section=wanted, encoder=encoder, predictor=predictor)


def sort_hugging_face(tensors: Mapping[str, Tensor], config: Mapping[str, Any], *, source: str) -> Released:
    """The content of a Hugging Face state dictionary, renamed; the heads of `OTHER_HEADS` are ignored.

    Raises:
        BadCheckpoint: If there is no encoder.
    """
    plain = {name: value for name, value in tensors.items() if not name.startswith(OTHER_HEADS)}
    spelled = from_hugging_face(plain)
    predictor = {name: value for name, value in spelled.items() if name.startswith(("predictor", "mask_tokens."))}
    encoder = {name: value for name, value in spelled.items() if name not in predictor}
    if not encoder:
        raise BadCheckpoint(f"{source} holds no encoder among its {len(tensors)} tensors")
    return Released(source=source, section="encoder", encoder=encoder, predictor=predictor, config=config)


def _copies(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in tensors.items()}


def _weight_files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise BadCheckpoint(f"there is no file or folder {path}")
    index = path / "model.safetensors.index.json"
    if index.is_file():
        parts = _read_json(index).get("weight_map")
        listed = list(parts.values()) if isinstance(parts, dict) else []
        if not listed or not all(isinstance(name, str) and is_plain_name(name) for name in listed):
            raise BadCheckpoint(f"{index} should map tensors to files beside it")
        return [path / name for name in sorted(set(listed))]
    if (path / "model.safetensors").is_file():
        return [path / "model.safetensors"]
    found = sorted({*path.glob("*.pt"), *path.glob("*.pth.tar")})
    if len(found) != 1:
        names = ", ".join(file.name for file in found) or "none"
        raise BadCheckpoint(
            f"expected model.safetensors or one .pt or .pth.tar file in {path}, found {names}: pass the file itself"
        )
    return found


def _read_json(file: Path) -> dict[str, Any]:
    try:
        value = read_json_file(file)
    except (OSError, ValueError) as error:
        raise BadCheckpoint(f"{file} is not readable JSON: {error}") from error
    if not isinstance(value, dict):
        raise BadCheckpoint(f"{file} should hold a JSON object, got {type(value).__name__}")
    return value
