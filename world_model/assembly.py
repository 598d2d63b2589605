"""Systems built from plain configuration: the same nested `_target_` form that hydra uses, limited to our own parts.

A checkpoint carries such a configuration, and a stranger's checkpoint must not be able to call anything else: only
names of `PARTS` are ever looked up.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from core.errors import choose
from encoders.convnet import KeypointEncoder
from encoders.layers.clouds import UnitSphere, Workspace
from encoders.layers.pixels import NormalisePixels
from encoders.preprocessing import EvaluationPixels, RobotPixels
from encoders.pyramid import PyramidEncoder, PyramidSizes
from encoders.released import network
from encoders.video import VideoSizes, VideoTransformer
from encoders.vit import VisionTransformer, ViTSizes
from world_model.augment import Augmentation, ColourJitter, Patches, SensorNoise, ViewJitter
from world_model.cloud_changes import CloudChanges, Scale, Subsample, Turn
from world_model.critic import Critic
from world_model.crops import RandomCrop
from world_model.displacement import HindsightDisplacement, TokenPlaces
from world_model.distances import CosineDistance, SmoothAbsoluteError
from world_model.fitting.decay import DecayAll, DecayMatrices
from world_model.fitting.schedules import WarmupCosine, WarmupHoldDecay
from world_model.masks.objects import LegacyObjectMask, ObjectMask, TokenMask, TubeMask
from world_model.objectives.autoregression import Autoregression
from world_model.objectives.dynamics import OpenLoop
from world_model.objectives.motion_terms import MotionWeights
from world_model.objectives.think_standin import DepthTokens, OthersThoughts
from world_model.objectives.think_views import ClipViews, cut
from world_model.objectives.views import ToCentre, Views
from world_model.photometric import Blur, Grey, Solarise, Sometimes, StandardJitter
from world_model.policy import GoalPolicy
from world_model.poses import ArmPose, GivenPose
from world_model.recipes import (
    act_jepa,
    causal_jepa,
    hand_points,
    jepa_3d,
    lejepa,
    leworldmodel,
    mc_jepa,
    mc_jepa_factored,
    point_jepa,
    think_jepa,
    video_slots,
    vjepa2,
    vjepa2_1,
    vjepa2_ac,
)
from world_model.regularisers.sigreg import SIGReg
from world_model.regularisers.two_views import TwoViews
from world_model.regularisers.vicreg import VICReg

TARGET = "_target_"
_PARTS: tuple[Callable[..., Any], ...] = (
    act_jepa.build,
    act_jepa.build_control,
    causal_jepa.build,
    hand_points.build,
    jepa_3d.build,
    lejepa.build,
    leworldmodel.build,
    mc_jepa.build,
    mc_jepa_factored.build,
    point_jepa.build,
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
    Sometimes,
    StandardJitter,
    Grey,
    Blur,
    Solarise,
    Views,
    ToCentre,
    UnitSphere,
    Workspace,
    CloudChanges,
    Subsample,
    Scale,
    Turn,
    SmoothAbsoluteError,
    CosineDistance,
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
