"""The released layout of LeWorldModel: `weights.pt` or safetensors with `config.json`, with both sets of key names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from jepa_mpc.checkpoint import save_checkpoint
from jepa_mpc.encoders import ViTSizes
from jepa_mpc.encoders.adapters.plain import read_table
from jepa_mpc.errors import BadCheckpoint
from jepa_mpc.plain_json import read_json_file
from jepa_mpc.strict import check_finite
from jepa_mpc.world_model.adapters.lewm_names import NEWER_TO_RELEASED, OURS_TO_RELEASED
from jepa_mpc.world_model.parts.actions import ActionScale
from jepa_mpc.world_model.parts.objectives.dynamics import DynamicsObjective
from jepa_mpc.world_model.parts.predictors.forms import LeWMSizes, published_sizes
from jepa_mpc.world_model.parts.predictors.trunk import TrunkSizes
from jepa_mpc.world_model.recipes.leworldmodel import build

WEIGHT_FILES = ("weights.pt", "model.safetensors", "weights.safetensors")
VIT_HEADS = {"tiny": 3, "small": 6, "base": 12, "large": 16}

TRAINING_ALONE = ("sigreg.", "idm.")

QKV = ("query", "key", "value")


def load_released(
    path: str | Path, *, config: Mapping[str, Any] | None = None, actions: ActionScale | None = None
) -> DynamicsObjective:
    """Build a model of the released sizes and load released weights into it.

    Args:
        path: A folder with weights and `config.json`, or a weight file; also of PLDM, which has the same network.
        config: The configuration; by default `config.json` beside the weights, if there is one.
        actions: Mean and std of the training's actions; without them, actions must be standardised.

    Returns:
        The training loss, in evaluation mode; its `encoder` and `predictor` make the world model.

    Raises:
        BadCheckpoint: If there is no weight file, it cannot be read safely, or its names or shapes do not fit.
    """
    file = weight_file(Path(path))
    tensors = released_spelling(read_table(file))
    if config is None:
        beside = file.parent / "config.json"
        config = _read_config(beside) if beside.exists() else {}
    action_dim = _tensor(tensors, "action_encoder.patch_embed.weight").shape[1]
    scale = {} if actions is None else actions.repeated(action_dim).arguments()
    objective = build(preset=sizes_of(tensors, config), action_dim=action_dim, **scale)
    fill(objective, tensors)
    return objective.eval()


def system_of(objective: DynamicsObjective) -> dict[str, Any]:
    """The configuration of a released model for `assemble`, for a checkpoint."""
    parts: Any = objective
    vit, trunk, first = parts.encoder.encoder.sizes, parts.predictor.trunk.sizes, parts.predictor.action_encoder
    sizes = {
        "_target_": "leworldmodel_sizes",
        "encoder": {"_target_": "vit_sizes", **asdict(vit)},
        "trunk": {"_target_": "trunk_sizes", **asdict(trunk)},
        "latent_dim": parts.encoder.width,
        "projector_dim": parts.encoder.projector.up.out_features,
        "output_head_dim": parts.predictor.output.head.up.out_features,
        "window": parts.predictor.window,
        "smoothed": first.smooth.out_features,
        "expansion": first.down.in_features // first.down.out_features,
        "cond_dim": first.down.out_features,
        "raw_dim": parts.predictor.output.head.up.in_features,
    }
    scale = ActionScale.of(first.action_map)
    return {
        "_target_": "leworldmodel",
        "preset": sizes,
        "action_dim": first.smooth.in_features,
        **({} if scale is None else scale.arguments()),
    }


def save_released(objective: DynamicsObjective, folder: str | Path) -> None:
    """Write a published-form model with the released names, as a checkpoint folder (safetensors and configuration).

    Raises:
        BadCheckpoint: If the model has parts that the published form lacks.
    """
    save_checkpoint(folder, to_released(objective.state_dict()), released_config(objective))


def released_config(objective: DynamicsObjective) -> dict[str, Any]:
    """Facts that the tensors do not determine: numbers of heads, norm constant, dropout."""
    parts: Any = objective
    vit, trunk = parts.encoder.encoder.sizes, parts.predictor.trunk.sizes
    return {
        "encoder": {"num_attention_heads": vit.heads, "layer_norm_eps": vit.eps},
        "predictor": {"heads": trunk.heads, "dim_head": trunk.head_dim, "dropout": trunk.dropout},
    }


def fill(objective: DynamicsObjective, tensors: Mapping[str, Tensor]) -> None:
    """Copy released weights (with any names) into a published-form model, all or nothing.

    Raises:
        BadCheckpoint: If a tensor is missing, unexpected or of another shape; lists all of them.
    """
    tensors = released_spelling(tensors)
    constants = {key: value for key, value in objective.state_dict().items() if ".action_map." in key}
    own = {key: value for key, value in objective.state_dict().items() if key not in constants}
    wanted = to_released(own)
    missing, unexpected = sorted(wanted.keys() - tensors.keys()), sorted(tensors.keys() - wanted.keys())
    misshapen = [
        f"{key} (expected {tuple(wanted[key].shape)}, got {tuple(tensors[key].shape)})"
        for key in sorted(wanted.keys() & tensors.keys())
        if wanted[key].shape != tensors[key].shape
    ]
    faults = {"missing": missing, "unexpected": unexpected, "of another shape": misshapen}
    found = [f"{len(keys)} {fault}: {', '.join(keys)}" for fault, keys in faults.items() if keys]
    if found:
        raise BadCheckpoint(f"these weights do not fit this LeWorldModel: {'; '.join(found)}")
    check_finite(tensors, "this LeWorldModel")
    objective.load_state_dict(constants | {key: _from_released(key, value, tensors) for key, value in own.items()})


def to_released(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our names (of weights or of their gradients) to the released ones; joint projections are split."""
    released: dict[str, Tensor] = {}
    for key, value in state.items():
        name = _released_name(key)
        if ".attention.qkv." in name:
            for part, piece in zip(QKV, value.chunk(3, dim=0), strict=True):
                released[name.replace(".qkv.", f".{part}.")] = piece
        else:
            released[name] = _released_shape(name, value)
    return released


def released_spelling(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Released names from either set, with or without `model.`; drops what only the training uses.

    That is SIGReg's constants and, in PLDM, the inverse dynamics head.
    """
    plain = {key.removeprefix("model."): value for key, value in tensors.items()}
    return {_older_name(key): value for key, value in plain.items() if not key.startswith(TRAINING_ALONE)}


def sizes_of(tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> LeWMSizes:
    """Sizes of a model: from its tensors where possible, numbers of heads and dropout from the configuration.

    Args:
        tensors: Weights with the released names.
        config: The released configuration; if empty, the published numbers of heads are used.

    Raises:
        BadCheckpoint: If a required tensor is missing or the numbers of heads do not fit.
    """
    predictor = _section(config, "predictor")
    table = _tensor(tensors, "predictor.pos_embedding")
    trunk_norm = _tensor(tensors, "predictor.transformer.norm.weight")
    inner = _tensor(tensors, "predictor.transformer.layers.0.attn.to_qkv.weight").shape[0] // 3
    heads = int(predictor.get("heads", 16))
    if inner % heads:
        raise BadCheckpoint(f"{heads} predictor heads do not divide an attention width of {inner}")
    head = _tensor(tensors, "pred_proj.net.0.weight")
    first, last = (
        _tensor(tensors, "action_encoder.patch_embed.weight"),
        _tensor(tensors, "action_encoder.embed.2.weight"),
    )
    return published_sizes(
        encoder=_vit_sizes(tensors, _section(config, "encoder")),
        latent_dim=table.shape[2],
        projector_dim=_tensor(tensors, "projector.net.0.weight").shape[0],
        output_head_dim=head.shape[0],
        trunk=TrunkSizes(
            width=trunk_norm.shape[0],
            depth=_count(tensors, r"^predictor\.transformer\.layers\.(\d+)\."),
            heads=heads,
            head_dim=inner // heads,
            mlp_dim=_tensor(tensors, "predictor.transformer.layers.0.mlp.net.1.weight").shape[0],
            dropout=float(predictor.get("dropout", 0.1)),
        ),
        window=table.shape[1],
        smoothed=first.shape[0],
        expansion=last.shape[1] // last.shape[0],
        cond_dim=last.shape[0],
        raw_dim=head.shape[1],
    )


def _vit_sizes(tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> ViTSizes:
    patches = _tensor(tensors, "encoder.embeddings.patch_embeddings.projection.weight")
    grid = _tensor(tensors, "encoder.embeddings.position_embeddings").shape[1] - 1
    width, patch = patches.shape[0], patches.shape[2]
    heads = config.get("num_attention_heads") or VIT_HEADS.get(str(config.get("size")), max(1, width // 64))
    if width % int(heads):
        raise BadCheckpoint(f"{heads} encoder heads do not divide a width of {width}")
    return ViTSizes(
        image=round(grid**0.5) * patch,
        patch=patch,
        width=width,
        depth=_count(tensors, r"^encoder\.encoder\.layer\.(\d+)\."),
        heads=int(heads),
        mlp_dim=_tensor(tensors, "encoder.encoder.layer.0.intermediate.dense.weight").shape[0],
        channels=patches.shape[1],
        eps=float(config.get("layer_norm_eps", 1e-12)),
    )


def _released_name(key: str) -> str:
    for pattern, name in OURS_TO_RELEASED:
        renamed, hits = re.subn(pattern, name, key)
        if hits:
            return renamed
    raise BadCheckpoint(f"{key} has no place in the released layout; only the published form can be written")


def _older_name(key: str) -> str:
    if not key.startswith("encoder."):
        return key
    key = re.sub(r"^encoder\.(?:encoder\.)?layers?\.(\d+)\.", r"encoder.encoder.layer.\1.", key)
    for pattern, name in NEWER_TO_RELEASED:
        key = re.sub(pattern, name, key)
    return key


def _released_shape(name: str, value: Tensor) -> Tensor:
    if name == "action_encoder.patch_embed.weight":
        return value.unsqueeze(-1)  # a convolution of width one: (10, A, 1)
    return value.squeeze(2) if name == "predictor.pos_embedding" else value


def _from_released(key: str, own: Tensor, tensors: Mapping[str, Tensor]) -> Tensor:
    name = _released_name(key)
    if ".attention.qkv." in name:
        return torch.cat([tensors[name.replace(".qkv.", f".{part}.")] for part in QKV], dim=0)
    return tensors[name].reshape(own.shape)


def _tensor(tensors: Mapping[str, Tensor], name: str) -> Tensor:
    if name not in tensors:
        raise BadCheckpoint(f"these are not LeWorldModel weights: {name} is missing among {len(tensors)} tensors")
    return tensors[name]


def _count(tensors: Mapping[str, Tensor], pattern: str) -> int:
    found = {int(match.group(1)) for match in (re.match(pattern, key) for key in tensors) if match}
    return max(found, default=-1) + 1


def _section(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """The first table of that name in a nested configuration."""
    section = config.get(name)
    if isinstance(section, Mapping):
        return section
    inner = (_section(value, name) for value in config.values() if isinstance(value, Mapping))
    return next((found for found in inner if found), {})


def weight_file(path: Path) -> Path:
    """The weight file at a path: the file itself, or the usual one in a folder.

    Raises:
        BadCheckpoint: If there is none.
    """
    if path.is_file():
        return path
    for name in WEIGHT_FILES:
        if (path / name).is_file():
            return path / name
    raise BadCheckpoint(f"no weights in {path}: expected one of {', '.join(WEIGHT_FILES)}")


def _read_config(file: Path) -> Mapping[str, Any]:
    try:
        config = read_json_file(file)
    except (OSError, ValueError) as error:
        raise BadCheckpoint(f"{file} is not a readable configuration: {error}") from error
    if not isinstance(config, dict):
        raise BadCheckpoint(f"{file} should hold a table, found {type(config).__name__}")
    return config
