"""Perception networks: one modality in, tokens out."""

from __future__ import annotations

from encoders.vit import VisionTransformer, ViTSizes

VIT_TINY = ViTSizes(image=224, patch=14, width=192, depth=12, heads=3, mlp_dim=768, eps=1e-12)
"""The published encoder of LeWorldModel."""

VIT_MINI = ViTSizes(image=28, patch=7, width=32, depth=2, heads=2, mlp_dim=64)
"""A toy for tests."""

__all__ = ["VIT_MINI", "VIT_TINY", "ViTSizes", "VisionTransformer"]
