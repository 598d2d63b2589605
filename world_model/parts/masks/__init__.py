"""Mask samplers: what an encoder sees of its input, and what a predictor has to fill in."""

from __future__ import annotations

from jepa_mpc.world_model.parts.masks.objects import LegacyObjectMask, ObjectMask, TokenMask, TubeMask
from jepa_mpc.world_model.parts.masks.tubes import LegacyTubes, Tubes

TUBES: dict[str, type[Tubes]] = {"tubes": Tubes, "legacy_tubes": LegacyTubes}
"""Name -> sampler of tube masks."""

OBJECTS: dict[str, type[ObjectMask]] = {
    "object": ObjectMask,
    "legacy_object": LegacyObjectMask,
    "tube": TubeMask,
    "random_token": TokenMask,
}
"""Name -> sampler of masks over slots; `ObjectMask(hidden=0)` hides nothing."""

__all__ = [
    "OBJECTS",
    "TUBES",
    "LegacyObjectMask",
    "LegacyTubes",
    "ObjectMask",
    "TokenMask",
    "TubeMask",
    "Tubes",
]
