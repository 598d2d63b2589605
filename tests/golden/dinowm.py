"""Kind `dinowm_predictor`: frame-causal attention over several tokens per frame, and the planning objective."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from jepa_mpc.encoders.layers.attention import Attention
from jepa_mpc.encoders.layers.blocks import FeedForward
from jepa_mpc.world_model.parts.predictors.frame_positions import WindowPositions
from jepa_mpc.world_model.parts.predictors.trunk import frame_causal_mask
from tests.golden.cases import Case


class Layer(nn.Module):
    """Attention and feed-forward part, each with its own norm and a residual."""

    def __init__(self, meta: dict[str, int]) -> None:
        super().__init__()
        width, inner = meta["dim"], meta["heads"] * meta["dim_head"]
        single = meta["heads"] == 1 and inner == width
        self.attention = Attention(
            width,
            heads=meta["heads"],
            head_dim=meta["dim_head"],
            qkv_bias=False,
            norm=nn.LayerNorm(width),
            output=nn.Identity() if single else nn.Linear(inner, width),
        )
        self.mlp = FeedForward(width, hidden=meta["mlp_dim"], norm=nn.LayerNorm(width))

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        x = x + self.attention(x, mask)
        return x + self.mlp(x)


NAMES = (
    ("attention.norm.", "0.norm."),
    ("attention.to_qkv.", "0.to_qkv."),
    ("attention.output.", "0.to_out.0."),
    ("mlp.norm.", "1.net.0."),
    ("mlp.up.", "1.net.1."),
    ("mlp.down.", "1.net.4."),
)


def check(case: Case) -> None:
    meta, weights = case.meta, case.under("param.")
    positions = WindowPositions(window=meta["num_frames"], width=meta["dim"], num_tokens=meta["num_patches"])
    positions.load_state_dict({"table": weights["pos_embedding"].view_as(positions.table)})
    layers = [Layer(meta) for _ in range(meta["depth"])]
    for index, layer in enumerate(layers):
        own = {key: weights[f"transformer.layers.{index}.{_their(key)}"] for key in layer.state_dict()}
        layer.load_state_dict(own)
    norm = nn.LayerNorm(meta["dim"])
    norm.load_state_dict({key: weights[f"transformer.norm.{key}"] for key in ("weight", "bias")})
    states = case.tensors["in.x"].unflatten(1, (-1, meta["num_patches"]))

    def run(frames: Tensor) -> Tensor:
        mask = frame_causal_mask(*frames.shape[1:3], window=positions.window, device=frames.device)
        x = positions.embed(frames).flatten(1, 2)
        for layer in layers:
            x = layer(x, mask)
        return norm(x)

    with torch.no_grad():
        case.check("out.y", run(states))
        case.check("out.y_short", run(states[:, : meta["short_frames"]]))
    _check_objective(case)


def _their(key: str) -> str:
    for ours, theirs in NAMES:
        if key.startswith(ours):
            return key.replace(ours, theirs)
    raise AssertionError(key)


def _check_objective(case: Case) -> None:
    """Squared error of the looks plus alpha times that of proprioception: on the last frame, or on weighted frames."""
    errors = {}
    for part in ("visual", "proprio"):
        gap = (case.tensors[f"in.obj.{part}_pred"] - case.tensors[f"in.obj.{part}_goal"]).square()
        errors[part] = gap.flatten(2).mean(dim=-1)  # (S, T)
    weights = float(case.meta["objective_base"]) ** torch.arange(errors["visual"].shape[1])
    weights = weights / weights.sum()
    for key in case.under("out.obj."):
        steps, alpha = key.split("_alpha")
        total = errors["visual"] + float(alpha) * errors["proprio"]
        case.check(f"out.obj.{key}", total[:, -1] if steps == "last" else (weights * total).mean(dim=1))
