"""Mask samplers: what an encoder sees of its input, and what a predictor has to fill in."""

from __future__ import annotations

from world_model.masks.tubes import LegacyTubes, Tubes

__all__ = ["LegacyTubes", "Tubes"]
