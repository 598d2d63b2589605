"""Systems built from plain configuration: the same nested `_target_` form that hydra uses, limited to our own parts.

A checkpoint carries such a configuration, and a stranger's checkpoint must not be able to call anything else: only
names of `PARTS` are ever looked up.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from jepa_mpc.encoders.convnet import KeypointEncoder
from jepa_mpc.encoders.layers.pixels import NormalisePixels
from jepa_mpc.encoders.preprocessing import EvaluationPixels, RobotPixels
from jepa_mpc.encoders.pyramid import PyramidEncoder, PyramidSizes
from jepa_mpc.encoders.released import network
from jepa_mpc.encoders.video import VideoSizes, VideoTransformer
from jepa_mpc.encoders.vit import VisionTransformer, ViTSizes
from jepa_mpc.errors import choose
from jepa_mpc.world_model.costs.critic import Critic
from jepa_mpc.world_model.parts.augment import Augmentation, ColourJitter, Patches, SensorNoise, ViewJitter
from jepa_mpc.world_model.parts.crops import RandomCrop
from jepa_mpc.world_model.parts.masks.objects import LegacyObjectMask, ObjectMask, TokenMask, TubeMask
from jepa_mpc.world_model.parts.objectives.autoregression import Autoregression
from jepa_mpc.world_model.parts.objectives.dynamics import OpenLoop
from jepa_mpc.world_model.parts.objectives.motion_terms import MotionWeights
from jepa_mpc.world_model.parts.objectives.think_standin import DepthTokens, OthersThoughts
from jepa_mpc.world_model.parts.objectives.think_views import ClipViews, cut
from jepa_mpc.world_model.parts.poses import ArmPose, GivenPose
from jepa_mpc.world_model.parts.position_head import HindsightDisplacement, TokenPlaces
from jepa_mpc.world_model.parts.regularisers.sigreg import SIGReg
from jepa_mpc.world_model.parts.regularisers.two_views import TwoViews
from jepa_mpc.world_model.parts.regularisers.vicreg import VICReg
from jepa_mpc.world_model.policies.goal import GoalPolicy
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
from jepa_mpc.world_model.training.decay import DecayAll, DecayMatrices
from jepa_mpc.world_model.training.schedules import WarmupCosine, WarmupHoldDecay

TARGET = "_target_"
_PARTS: tuple[Callable[..., Any], ...] = (
    act_jepa.build,
    act_jepa.build_control,
    causal_jepa.build,
    hand_points.build,
    leworldmodel.build,
    mc_jepa.build,
    mc_jepa_factored.build,
    think_jepa.build,
    video_slots.build,
    vjepa2.build,
    vjepa2_1.build,
    vjepa2_ac.build,
    Autoregression,
    ArmPose,
    GivenPose,
    VideoSizes,
    VideoTransformer,
    network,
    RobotPixels,
    EvaluationPixels,
    KeypointEncoder,
    NormalisePixels,
    VisionTransformer,
    ViTSizes,
    HindsightDisplacement,
    TokenPlaces,
    GoalPolicy,
    Critic,
    OpenLoop,
    SIGReg,
    WarmupCosine,
    WarmupHoldDecay,
    DecayAll,
    DecayMatrices,
    VICReg,
    TwoViews,
    MotionWeights,
    ClipViews,
    cut,
    DepthTokens,
    OthersThoughts,
    RandomCrop,
    PyramidEncoder,
    PyramidSizes,
    ObjectMask,
    LegacyObjectMask,
    TubeMask,
    TokenMask,
    Augmentation,
    ColourJitter,
    ViewJitter,
    Patches,
    SensorNoise,
)
PARTS: dict[str, Callable[..., Any]] = {f"{part.__module__}.{part.__qualname__}": part for part in _PARTS}


def assemble(spec: Any, **arguments: Any) -> Any:
    """Build what a configuration describes.

    Args:
        spec: Mappings with a `_target_` become the part of that name, called with the other entries; other mappings,
            lists and plain values stay what they are, their entries assembled.
        **arguments: Further arguments of the outermost part.

    Raises:
        UnknownName: If a `_target_` is none of `PARTS`.
        TypeError: If a part does not take an argument; the message names the part.
    """
    if isinstance(spec, Mapping):
        entries = {str(key): assemble(value) for key, value in spec.items() if key != TARGET}
        if TARGET not in spec:
            return entries
        part = choose(PARTS, str(spec[TARGET]), "part")
        try:
            return part(**entries, **arguments)
        except TypeError as error:
            raise TypeError(f"{spec[TARGET]}: {error}") from error
    if isinstance(spec, list | tuple):
        return [assemble(entry) for entry in spec]
    return spec
