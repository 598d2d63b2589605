"""Mask samplers: the visible tokens of an encoder and the masked tokens that a predictor has to predict."""

from __future__ import annotations

from jepa_mpc.world_model.parts.masks.factored import RandomTubes
from jepa_mpc.world_model.parts.masks.multiblock import LegacyMultiBlock, MultiBlock
from jepa_mpc.world_model.parts.masks.objects import LegacyObjectMask, ObjectMask, TokenMask, TubeMask
from jepa_mpc.world_model.parts.masks.tubes import LegacyTubes, Tubes

TUBES: dict[str, type[Tubes]] = {"tubes": Tubes, "legacy_tubes": LegacyTubes}
"""Name -> sampler of tube masks."""

BLOCKS: dict[str, type[MultiBlock]] = {"blocks": MultiBlock, "legacy_blocks": LegacyMultiBlock}
"""Name -> sampler of multi-block image masks."""

OBJECTS: dict[str, type[ObjectMask]] = {
    "object": ObjectMask,
    "legacy_object": LegacyObjectMask,
    "tube": TubeMask,
    "random_token": TokenMask,
}
"""Name -> sampler of slot masks; `ObjectMask(hidden=0)` masks nothing."""

__all__ = [
    "BLOCKS",
    "OBJECTS",
    "TUBES",
    "LegacyMultiBlock",
    "LegacyObjectMask",
    "LegacyTubes",
    "MultiBlock",
    "ObjectMask",
    "RandomTubes",
    "TokenMask",
    "TubeMask",
    "Tubes",
]
