"""Attentive probes as the authors of V-JEPA release them: a table `classifier` with weights of one probe."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from jepa_mpc.encoders.adapters.filling import fill
from jepa_mpc.encoders.adapters.names import respell
from jepa_mpc.encoders.attentive import AttentiveProbe
from jepa_mpc.errors import BadCheckpoint

_BLOCK = r"pooler.cross_attention_block."
RULES = (
    (r"^query$", "pooler.query_tokens"),
    (r"^norm\.", _BLOCK + "norm1."),
    (r"^attention\.to_qkv\.", _BLOCK + "xattn.qkv."),
    (r"^norm_mlp\.", _BLOCK + "norm2."),
    (r"^mlp\.up\.", _BLOCK + "mlp.fc1."),
    (r"^mlp\.down\.", _BLOCK + "mlp.fc2."),
    (r"^read\.", "linear."),
)
UNUSED = tuple(f"{_BLOCK}xattn.proj.{kind}" for kind in ("weight", "bias"))
"""Weights that the released code creates and never uses."""


def probe_of(tensors: Mapping[str, Tensor], *, heads: int) -> AttentiveProbe:
    """A probe with released weights, in evaluation mode.

    Args:
        tensors: Weights by the authors' names.
        heads: Attention heads, those of the encoder.

    Raises:
        BadCheckpoint: If these are not the weights of such a probe.
    """
    for name in ("linear.weight", f"{_BLOCK}mlp.fc1.weight"):
        if name not in tensors:
            raise BadCheckpoint(f"these are not the weights of an attentive probe: {name} is missing")
    outputs, width = tensors["linear.weight"].shape
    hidden = tensors[f"{_BLOCK}mlp.fc1.weight"].shape[0]
    with torch.device("meta"):
        probe = AttentiveProbe(width, heads=heads, outputs=outputs, mlp_dim=hidden)
    fill(probe, _joined(tensors), spelling=lambda name: respell(name, RULES), title="a probe", ignored=UNUSED)
    return probe.eval()


def _joined(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Queries and key-values in one map, as in ours."""
    weights = dict(tensors)
    for kind in ("weight", "bias"):
        parts = [weights.pop(f"{_BLOCK}xattn.{part}.{kind}", None) for part in ("q", "kv")]
        if all(part is not None for part in parts):
            weights[f"{_BLOCK}xattn.qkv.{kind}"] = torch.cat(parts)  # type: ignore[arg-type]
    return weights
