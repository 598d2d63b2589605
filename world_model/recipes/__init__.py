"""One file per named system: recipes choose and size parts."""

from __future__ import annotations

from collections.abc import Callable

from jepa_mpc.errors import BadCheckpoint
from jepa_mpc.world_model.dynamics.model import Interface, WorldModel, latent_world_model
from jepa_mpc.world_model.parts.finding import ObjectFindingObjective
from jepa_mpc.world_model.parts.objectives.chunk import ChunkObjective
from jepa_mpc.world_model.parts.objectives.dynamics import DynamicsObjective
from jepa_mpc.world_model.parts.objectives.legacy_pyramid import LegacyPyramidObjective
from jepa_mpc.world_model.parts.objectives.masked import MaskedObjective
from jepa_mpc.world_model.parts.objectives.motion import MotionContentObjective
from jepa_mpc.world_model.parts.objectives.points import HandPointsObjective
from jepa_mpc.world_model.parts.objectives.slot_features import SlotFeatureObjective
from jepa_mpc.world_model.parts.objectives.slots import ObjectObjective
from jepa_mpc.world_model.parts.objectives.think import ThinkObjective
from jepa_mpc.world_model.parts.objectives.views import ViewsObjective
from jepa_mpc.world_model.recipes import (
    act_jepa,
    audio_jepa,
    causal_jepa,
    hand_points,
    hjepa_pyramid,
    ijepa,
    jepa_3d,
    lejepa,
    leworldmodel,
    mc_jepa,
    object_finder,
    point_jepa,
    think_jepa,
    video_slots,
    vjepa,
    vjepa2,
    vjepa2_1,
    vjepa2_ac,
)
from jepa_mpc.world_model.recipes.variants import hjepa_legacy, mc_jepa_factored

Objective = (
    DynamicsObjective
    | MaskedObjective
    | LegacyPyramidObjective
    | ChunkObjective
    | MotionContentObjective
    | SlotFeatureObjective
    | ThinkObjective
    | ViewsObjective
    | HandPointsObjective
    | ObjectFindingObjective
)

RECIPES: dict[str, Callable[..., Objective]] = {
    "act_jepa": act_jepa.build,
    "act_jepa_control": act_jepa.build_control,
    "audio_jepa": audio_jepa.build,
    "causal_jepa": causal_jepa.build,
    "hand_points": hand_points.build,
    "hjepa_legacy": hjepa_legacy.build,
    "hjepa_pyramid": hjepa_pyramid.build,
    "ijepa": ijepa.build,
    "jepa_3d": jepa_3d.build,
    "lejepa": lejepa.build,
    "leworldmodel": leworldmodel.build,
    "mc_jepa": mc_jepa.build,
    "mc_jepa_factored": mc_jepa_factored.build,
    "object_finder": object_finder.build,
    "point_jepa": point_jepa.build,
    "think_jepa": think_jepa.build,
    "video_slots": video_slots.build,
    "vjepa": vjepa.build,
    "vjepa2": vjepa2.build,
    "vjepa2_1": vjepa2_1.build,
    "vjepa2_ac": vjepa2_ac.build,
}
"""Name of a system -> builder of its training loss."""

WorldModelBuilder = Callable[..., WorldModel]

WORLD_MODELS: dict[type[Objective], WorldModelBuilder] = {
    ObjectObjective: causal_jepa.world_model,
    DynamicsObjective: latent_world_model,
}
"""Kind of training loss -> builder of perception, dynamics and goal cost; special kinds first."""


def as_world_model(
    objective: Objective, interface: Interface, *, context: int = 1, fingerprint: str = ""
) -> WorldModel:
    """The parts of an agent from a trained objective.

    Args:
        objective: The trained objective.
        interface: Its inputs and actions.
        context: Number of context frames of the predictor.
        fingerprint: Short hash of the weights.

    Raises:
        BadCheckpoint: If it does not predict the effects of actions, or its image preprocessing is unknown.
        ValueError: If `context` exceeds the predictor's window.
    """
    for kind, build in WORLD_MODELS.items():
        if isinstance(objective, kind):
            return build(objective, interface, context=context, fingerprint=fingerprint)
    raise BadCheckpoint(
        f"a {type(objective).__name__} does not predict the effects of actions: it is not a world model"
    )
