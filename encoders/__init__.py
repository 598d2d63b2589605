"""Encoders: networks that map one modality to tokens."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from jepa_mpc.encoders.convnet import KeypointEncoder
from jepa_mpc.encoders.pyramid import PyramidEncoder, PyramidSizes
from jepa_mpc.encoders.released import RELEASES
from jepa_mpc.encoders.video import VideoSizes, VideoTransformer
from jepa_mpc.encoders.vit import VisionTransformer, ViTSizes

VIT_TINY = ViTSizes(image=224, patch=14, width=192, depth=12, heads=3, mlp_dim=768, eps=1e-12)
"""The published encoder of LeWorldModel."""

VIT_MINI = ViTSizes(image=28, patch=7, width=32, depth=2, heads=2, mlp_dim=64)
"""A tiny encoder for tests."""

ENCODERS: Mapping[str, Callable[..., Any]] = {
    "keypoints": KeypointEncoder,
    "pyramid": PyramidEncoder,
    "vit": VisionTransformer,
    **RELEASES,
}
"""Name -> builder of an encoder with random weights; `encoders.adapters.vjepa2.load` loads the released ones."""

__all__ = [
    "ENCODERS",
    "VIT_MINI",
    "PyramidEncoder",
    "PyramidSizes",
    "VIT_TINY",
    "VideoSizes",
    "VideoTransformer",
    "ViTSizes",
    "VisionTransformer",
]
