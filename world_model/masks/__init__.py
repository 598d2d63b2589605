"""Mask samplers: what an encoder sees of its input, and what a predictor has to fill in."""

from __future__ import annotations

from world_model.masks.tubes import LegacyTubes, Tubes

TUBES: dict[str, type[Tubes]] = {"tubes": Tubes, "legacy_tubes": LegacyTubes}
"""Name -> sampler of tube masks."""

__all__ = ["TUBES", "LegacyTubes", "Tubes"]
