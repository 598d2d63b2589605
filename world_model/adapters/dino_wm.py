"""Released DINO-WM: a frozen DINOv2 and a frame-causal predictor with the action in the channels of its tokens.

Two layouts are read: one state dict with `backbone.`, `predictor.` and `extra_encoders.action.` (stable-worldmodel),
and a trainer's file with the tables `predictor` and `action_encoder` (jepa-wms), whose encoder is DINOv2's own file.
Only models without proprioception are supported: a goal image has none.

Reference: Zhou et al. 2024, arXiv:2411.04983.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from jepa_mpc.checkpoint import load_strict
from jepa_mpc.encoders.adapters import dinov2
from jepa_mpc.encoders.adapters.files import Released, read_released, sort_hugging_face
from jepa_mpc.encoders.adapters.hub import resolve
from jepa_mpc.encoders.adapters.plain import is_table, read_plain
from jepa_mpc.encoders.layers.pixels import IMAGENET_MEAN, IMAGENET_STD, NormalisePixels
from jepa_mpc.encoders.vit import VisionTransformer, ViTSizes
from jepa_mpc.errors import BadCheckpoint
from jepa_mpc.world_model.adapters.lewm import weight_file
from jepa_mpc.world_model.parts.actions import ActionMap, ActionScale
from jepa_mpc.world_model.parts.objectives.dynamics import DynamicsObjective
from jepa_mpc.world_model.parts.predictors.causal import CausalPredictor
from jepa_mpc.world_model.parts.predictors.frame_positions import WindowPositions
from jepa_mpc.world_model.parts.predictors.trunk import ConcatenatedTransformer, TrunkSizes

WINDOW = 3
HEAD_DIM = 64
HALF = (0.5, 0.5, 0.5)
"""Pixel mean and std of DINO-WM's own training and of jepa-wms."""

ACTION = "extra_encoders.action.patch_embed."
NAMES = (
    (r"^pos_embedding$", "positions.table"),
    (r"^transformer\.norm\.", "trunk.norm."),
    (r"^transformer\.layers\.(\d+)\.0\.norm\.", r"trunk.blocks.\1.attention.norm."),
    (r"^transformer\.layers\.(\d+)\.0\.to_qkv\.", r"trunk.blocks.\1.attention.to_qkv."),
    (r"^transformer\.layers\.(\d+)\.0\.to_out\.0\.", r"trunk.blocks.\1.attention.output.0."),
    (r"^transformer\.layers\.(\d+)\.1\.net\.0\.", r"trunk.blocks.\1.mlp.norm."),
    (r"^transformer\.layers\.(\d+)\.1\.net\.1\.", r"trunk.blocks.\1.mlp.up."),
    (r"^transformer\.layers\.(\d+)\.1\.net\.4\.", r"trunk.blocks.\1.mlp.down."),
)
MASK = re.compile(r"transformer\.layers\.\d+\.0\.bias$")
"""The causal mask, which some files contain."""


class LinearActions(nn.Module):
    """Actions, standardised if necessary, through one linear map.

    Args:
        action_dim: Width of an action, or of a block of actions.
        width: Width of the result.
        action_map: Standardises the actions; by default they are already standardised.
    """

    def __init__(self, action_dim: int, *, width: int, action_map: nn.Module | None = None) -> None:
        super().__init__()
        self.action_map = action_map or nn.Identity()
        self.linear = nn.Linear(action_dim, width)

    def forward(self, actions: Tensor) -> Tensor:
        """Encode `(..., A)` to `(..., width)`."""
        return self.linear(self.action_map(actions).to(self.linear.weight.dtype))


def encoder(*, sizes: ViTSizes) -> VisionTransformer:
    """A DINOv2 with random weights: outputs all patch tokens; a summary token takes part in attention."""
    return VisionTransformer(sizes, pool="dense")


def build(
    *,
    encoder: VisionTransformer,
    trunk: TrunkSizes,
    action_dim: int,
    side: int,
    window: int = WINDOW,
    action_scale: Sequence[float] | None = None,
    action_mean: Sequence[float] | None = None,
    pixel_mean: Sequence[float] = IMAGENET_MEAN,
    pixel_std: Sequence[float] = IMAGENET_STD,
) -> DynamicsObjective:
    """The network with random weights.

    Args:
        encoder: The frozen encoder.
        trunk: Sizes of the predictor; its width beyond the encoder's is the action's.
        action_dim: Width of an action, or of a block of actions.
        side: Patches per side of an image.
        window: Number of context frames of one prediction.
        action_scale: Standard deviation of the training's actions; without it, they must be standardised.
        action_mean: Their mean.
        pixel_mean: Mean of the training's pixels, red, green and blue on the scale 0 to 1.
        pixel_std: Their standard deviation.
    """
    room = trunk.width - encoder.width
    scale = None if action_scale is None else torch.tensor(action_scale)
    mean = None if action_mean is None else torch.tensor(action_mean)
    predictor = CausalPredictor(
        trunk=ConcatenatedTransformer(encoder.width, sizes=trunk),
        action_encoder=LinearActions(
            action_dim, width=room, action_map=None if scale is None else ActionMap(scale, mean=mean)
        ),
        positions=WindowPositions(window=window, width=encoder.width, num_tokens=side**2, room=room),
    )
    pixels = NormalisePixels(mean=tuple(pixel_mean), std=tuple(pixel_std))
    return DynamicsObjective(encoder=encoder.requires_grad_(False), predictor=predictor, preprocess=pixels)


def load_released(
    path: str | Path,
    *,
    encoder: str | Path | None = None,
    heads: int | None = None,
    encoder_heads: int | None = None,
    window: int = WINDOW,
    actions: ActionScale | None = None,
) -> tuple[DynamicsObjective, dict[str, Any]]:
    """A released model, and its configuration for `assemble`.

    Args:
        path: The file, or a folder that holds `weights.pt` or `model.safetensors`.
        encoder: Location of DINOv2, if the file holds none: a file, folder or name of the Hugging Face Hub.
        heads: Attention heads of the predictor; by default 64 channels each, as released.
        encoder_heads: Attention heads of the encoder; by default those of DINOv2 of its width.
        window: Number of context frames of one prediction, which the file does not contain.
        actions: Mean and std of the training's actions; without them, actions must be standardised.

    Raises:
        BadCheckpoint: If the file is damaged, another model's, or takes proprioception.
    """
    content = read_plain(weight_file(Path(path)))
    parts = _state_dict(content, str(path)) if is_table(_opened(content)) else _trainer(content, str(path))
    if parts.backbone is None and encoder is None:
        raise BadCheckpoint(f"{path} holds no encoder: give the DINOv2 that it was trained with, encoder=FILE")
    source = parts.backbone or read_released(resolve(str(encoder), wanted_by="DINO-WM"))
    described = dinov2.describe(source, heads=encoder_heads)
    assert isinstance(described.sizes, ViTSizes)
    system = _system(parts, described.sizes, heads=heads, window=window, actions=actions)
    objective = _assembled(system)
    network = dinov2.build(source, described, title="DINOv2")
    objective.encoder.load_state_dict(network.state_dict())
    constants = {name: x for name, x in objective.predictor.state_dict().items() if ".action_map." in name}  # type: ignore[attr-defined]
    own = predictor_names(parts.predictor, window=window)
    own |= {"action_encoder.linear.weight": parts.action_weight, "action_encoder.linear.bias": parts.action_bias}
    load_strict(objective.predictor, own | constants, f"the predictor of {path}")  # type: ignore[arg-type]
    return objective.eval().requires_grad_(False), system


def predictor_names(tensors: Mapping[str, Tensor], *, window: int) -> dict[str, Tensor]:
    """Our names and shapes for the weights of a released predictor; the causal mask of some files is dropped.

    Args:
        tensors: With the authors' names, without prefixes.
        window: Number of context frames of one prediction.

    Raises:
        BadCheckpoint: If a name does not belong to such a predictor.
    """
    own = {_ours(name): value for name, value in tensors.items() if not MASK.search(name)}
    table = own.get("positions.table")
    return own if table is None else own | {"positions.table": table.unflatten(1, (window, -1))}


@dataclass(frozen=True, kw_only=True)
class _Parts:
    """Parts of a file: the predictor, the action's linear map, and the encoder if present."""

    predictor: Mapping[str, Tensor]
    action_weight: Tensor
    action_bias: Tensor
    backbone: Released | None
    pixels: tuple[Sequence[float], Sequence[float]]


def _opened(content: Mapping[Any, Any]) -> Any:
    return next((content[name] for name in ("state_dict", "model") if name in content), content)


def _state_dict(content: Mapping[Any, Any], source: str) -> _Parts:
    """The layout of stable-worldmodel: everything in one table."""
    tensors = {name.removeprefix("model."): value for name, value in _opened(content).items()}
    others = sorted({name.split(".")[1] for name in tensors if name.startswith("extra_encoders.")} - {"action"})
    if others:
        raise _proprioceptive(source, ", ".join(others))
    spelled = {re.sub(r"^(backbone\.)+", "", name): value for name, value in tensors.items() if "backbone." in name}
    backbone = sort_hugging_face(spelled, {}, source=source) if spelled else None
    return _Parts(
        predictor={
            name.removeprefix("predictor."): value for name, value in tensors.items() if name.startswith("predictor.")
        },
        action_weight=_need(tensors, f"{ACTION}weight", source)[..., 0],
        action_bias=_need(tensors, f"{ACTION}bias", source),
        backbone=backbone,
        pixels=(IMAGENET_MEAN, IMAGENET_STD),
    )


def _trainer(content: Mapping[Any, Any], source: str) -> _Parts:
    """The layout of jepa-wms: a table for each part, DDP's prefixes before the names."""
    tables = {name: value for name, value in content.items() if is_table(value)}
    if "predictor" not in tables or "action_encoder" not in tables:
        raise BadCheckpoint(
            f"{source} is no DINO-WM: expected the tables predictor and action_encoder, it holds "
            f"{', '.join(list(map(str, content))[:8]) or 'nothing'}"
        )
    if "proprio_encoder" in tables:
        raise _proprioceptive(source, "proprio_encoder")
    plain = {
        part: {name.removeprefix("module."): value for name, value in tables[part].items()}
        for part in ("predictor", "action_encoder")
    }
    return _Parts(
        predictor=plain["predictor"],
        action_weight=_need(plain["action_encoder"], "patch_embed.weight", source)[..., 0],
        action_bias=_need(plain["action_encoder"], "patch_embed.bias", source),
        backbone=None,
        pixels=(HALF, HALF),
    )


def _proprioceptive(source: str, parts: str) -> BadCheckpoint:
    return BadCheckpoint(
        f"{source} also takes proprioception ({parts}), which a goal image does not tell: take a model trained without "
        "(jepa-wms: the files named noprop)"
    )


def _system(
    parts: _Parts, vit: ViTSizes, *, heads: int | None, window: int, actions: ActionScale | None
) -> dict[str, Any]:
    table = _need(parts.predictor, "pos_embedding", "DINO-WM")
    width, tokens = table.shape[2], table.shape[1] // window
    side = math.isqrt(tokens)
    if side**2 * window != table.shape[1]:
        raise BadCheckpoint(f"{table.shape[1]} positions are not those of {window} square frames: give window=")
    inner = _need(parts.predictor, "transformer.layers.0.0.to_qkv.weight", "DINO-WM").shape[0] // 3
    action_dim = parts.action_weight.shape[1]
    room = parts.action_weight.shape[0]
    if width - vit.width != room:
        raise BadCheckpoint(
            f"tokens of {width} channels are not {vit.width} of the encoder and {room} of the action: another DINOv2?"
        )
    heads = heads or max(1, inner // HEAD_DIM)
    trunk = TrunkSizes(
        width=width,
        depth=1 + max(int(match[1]) for name in parts.predictor if (match := re.search(r"layers\.(\d+)\.", name))),
        heads=heads,
        head_dim=inner // heads,
        mlp_dim=_need(parts.predictor, "transformer.layers.0.1.net.1.weight", "DINO-WM").shape[0],
    )
    scale = {} if actions is None else actions.repeated(action_dim).arguments()
    return {
        "_target_": "dino_wm",
        "encoder": {"_target_": "dinov2_encoder", "sizes": {"_target_": "vit_sizes", **asdict(vit)}},
        "trunk": {"_target_": "trunk_sizes", **asdict(trunk)},
        "action_dim": action_dim,
        "side": side,
        "window": window,
        "pixel_mean": list(parts.pixels[0]),
        "pixel_std": list(parts.pixels[1]),
        **scale,
    }


def _assembled(system: Mapping[str, Any]) -> DynamicsObjective:
    """The result of `assemble` for the configuration."""
    named = {name: value for name, value in system.items() if name not in ("_target_", "encoder", "trunk")}
    vit = {name: value for name, value in system["encoder"]["sizes"].items() if name != "_target_"}
    trunk = {name: value for name, value in system["trunk"].items() if name != "_target_"}
    return build(encoder=encoder(sizes=ViTSizes(**vit)), trunk=TrunkSizes(**trunk), **named)


def _ours(name: str) -> str:
    for pattern, ours in NAMES:
        renamed, hits = re.subn(pattern, ours, name)
        if hits:
            return renamed
    raise BadCheckpoint(f"{name} is no weight of a DINO-WM predictor: another model's file?")


def _need(tensors: Mapping[str, Tensor], name: str, source: str) -> Tensor:
    if name not in tensors:
        raise BadCheckpoint(f"{source} is no DINO-WM: {name} is missing among {len(tensors)} weights")
    return tensors[name]
