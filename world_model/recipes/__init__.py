"""One file per named system: recipes choose and size parts."""

from __future__ import annotations

from collections.abc import Callable

from jepa_mpc.world_model.parts.objectives.chunk import ChunkObjective
from jepa_mpc.world_model.parts.objectives.dynamics import DynamicsObjective
from jepa_mpc.world_model.parts.objectives.masked import MaskedObjective
from jepa_mpc.world_model.parts.objectives.motion import MotionContentObjective
from jepa_mpc.world_model.parts.objectives.points import HandPointsObjective
from jepa_mpc.world_model.parts.objectives.slot_features import SlotFeatureObjective
from jepa_mpc.world_model.parts.objectives.think import ThinkObjective
from jepa_mpc.world_model.recipes import (
    act_jepa,
    causal_jepa,
    hand_points,
    leworldmodel,
    mc_jepa,
    mc_jepa_factored,
    think_jepa,
    video_slots,
    vjepa2,
    vjepa2_1,
    vjepa2_ac,
)

Objective = (
    DynamicsObjective
    | MaskedObjective
    | ChunkObjective
    | MotionContentObjective
    | SlotFeatureObjective
    | ThinkObjective
    | HandPointsObjective
)

RECIPES: dict[str, Callable[..., Objective]] = {
    "act_jepa": act_jepa.build,
    "act_jepa_control": act_jepa.build_control,
    "causal_jepa": causal_jepa.build,
    "hand_points": hand_points.build,
    "leworldmodel": leworldmodel.build,
    "mc_jepa": mc_jepa.build,
    "mc_jepa_factored": mc_jepa_factored.build,
    "think_jepa": think_jepa.build,
    "video_slots": video_slots.build,
    "vjepa2": vjepa2.build,
    "vjepa2_1": vjepa2_1.build,
    "vjepa2_ac": vjepa2_ac.build,
}
"""Name of a system -> builder of its training loss."""
