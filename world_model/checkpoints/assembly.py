"""Builds systems from plain configuration: nested mappings whose `_target_` is the public name of a part.

A checkpoint contains such a configuration, and an untrusted checkpoint must not be able to call anything else: only
names of `PARTS` are looked up. Names are stable, source locations are not; checkpoints written with module paths are
read through `names.ALIASES`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from jepa_mpc.encoders.convnet import KeypointEncoder
from jepa_mpc.encoders.feature_grid import resnet_grid
from jepa_mpc.encoders.hand_eye import HandEyeEncoder
from jepa_mpc.encoders.layers.clouds import UnitSphere, Workspace
from jepa_mpc.encoders.layers.pixels import NormalisePixels, ScenePixels
from jepa_mpc.encoders.preprocessing import EvaluationPixels, RobotPixels
from jepa_mpc.encoders.pyramid import PyramidEncoder, PyramidSizes
from jepa_mpc.encoders.released import network
from jepa_mpc.encoders.remembered import Remembered
from jepa_mpc.encoders.video import VideoSizes, VideoTransformer
from jepa_mpc.encoders.vit import VisionTransformer, ViTSizes
from jepa_mpc.errors import choose
from jepa_mpc.world_model.adapters import dino_wm
from jepa_mpc.world_model.checkpoints.names import public_name
from jepa_mpc.world_model.checkpoints.token_forms import encoder_of
from jepa_mpc.world_model.costs.critic import Critic
from jepa_mpc.world_model.parts.augment import (
    Augmentation,
    ColourJitter,
    OfCameras,
    Patches,
    SensorNoise,
    Shapes,
    UnevenLight,
    ViewJitter,
)
from jepa_mpc.world_model.parts.cloud_changes import CloudChanges, Scale, Subsample, Turn
from jepa_mpc.world_model.parts.crops import RandomCrop
from jepa_mpc.world_model.parts.distances import CosineDistance, SmoothAbsoluteError
from jepa_mpc.world_model.parts.masks.objects import LegacyObjectMask, ObjectMask, TokenMask, TubeMask
from jepa_mpc.world_model.parts.objectives.autoregression import Autoregression
from jepa_mpc.world_model.parts.objectives.dynamics import OpenLoop
from jepa_mpc.world_model.parts.objectives.motion_terms import MotionWeights
from jepa_mpc.world_model.parts.objectives.think_standin import DepthTokens, OthersThoughts
from jepa_mpc.world_model.parts.objectives.think_views import ClipViews, cut
from jepa_mpc.world_model.parts.objectives.views import ToCentre, Views
from jepa_mpc.world_model.parts.photometric import Blur, Grey, Solarise, Sometimes, StandardJitter
from jepa_mpc.world_model.parts.poses import ArmPose, GivenPose, HandPose
from jepa_mpc.world_model.parts.position_head import FirstToken, HindsightDisplacement, MeasuredPosition, TokenPlaces
from jepa_mpc.world_model.parts.predictors.block_causal import BlockCausalSizes
from jepa_mpc.world_model.parts.predictors.forms import published_sizes
from jepa_mpc.world_model.parts.predictors.trunk import TrunkSizes
from jepa_mpc.world_model.parts.readouts import HindsightReading, PlaceReading
from jepa_mpc.world_model.parts.regularisers.sigreg import SIGReg
from jepa_mpc.world_model.parts.regularisers.two_views import TwoViews
from jepa_mpc.world_model.parts.regularisers.vicreg import VICReg
from jepa_mpc.world_model.policies.goal import GoalPolicy
from jepa_mpc.world_model.recipes import RECIPES
from jepa_mpc.world_model.recipes.vjepa2_ac import ActionConditionedSizes
from jepa_mpc.world_model.training.decay import DecayAll, DecayMatrices
from jepa_mpc.world_model.training.schedules import CosineRise, Stretched, WarmupCosine, WarmupHoldDecay

TARGET = "_target_"

PARTS: dict[str, Callable[..., Any]] = {
    **RECIPES,
    "arm_pose": ArmPose,
    "augmentation": Augmentation,
    "autoregression": Autoregression,
    "block_causal_sizes": BlockCausalSizes,
    "blur": Blur,
    "clip_views": ClipViews,
    "clip_views_cut": cut,
    "cloud_changes": CloudChanges,
    "cloud_scale": Scale,
    "cloud_subsample": Subsample,
    "cloud_turn": Turn,
    "colour_jitter": ColourJitter,
    "cosine_distance": CosineDistance,
    "cosine_rise": CosineRise,
    "critic": Critic,
    "decay_all": DecayAll,
    "decay_matrices": DecayMatrices,
    "depth_tokens": DepthTokens,
    "encoder_of": encoder_of,
    "dino_wm": dino_wm.build,
    "dinov2_encoder": dino_wm.encoder,
    "evaluation_pixels": EvaluationPixels,
    "given_pose": GivenPose,
    "goal_policy": GoalPolicy,
    "first_token": FirstToken,
    "grey": Grey,
    "hand_pose": HandPose,
    "hand_eye_encoder": HandEyeEncoder,
    "hindsight_displacement": HindsightDisplacement,
    "hindsight_reading": HindsightReading,
    "keypoint_encoder": KeypointEncoder,
    "leworldmodel_sizes": published_sizes,
    "legacy_object_mask": LegacyObjectMask,
    "measured_position": MeasuredPosition,
    "motion_weights": MotionWeights,
    "normalise_pixels": NormalisePixels,
    "object_mask": ObjectMask,
    "of_cameras": OfCameras,
    "open_loop": OpenLoop,
    "others_thoughts": OthersThoughts,
    "patches": Patches,
    "place_reading": PlaceReading,
    "pyramid_encoder": PyramidEncoder,
    "pyramid_sizes": PyramidSizes,
    "random_crop": RandomCrop,
    "released_encoder": network,
    "resnet_grid": resnet_grid,
    "remembered": Remembered,
    "robot_pixels": RobotPixels,
    "scene_pixels": ScenePixels,
    "sensor_noise": SensorNoise,
    "shapes": Shapes,
    "sigreg": SIGReg,
    "smooth_absolute_error": SmoothAbsoluteError,
    "solarise": Solarise,
    "sometimes": Sometimes,
    "standard_jitter": StandardJitter,
    "stretched": Stretched,
    "to_centre": ToCentre,
    "token_mask": TokenMask,
    "token_places": TokenPlaces,
    "trunk_sizes": TrunkSizes,
    "tube_mask": TubeMask,
    "two_views": TwoViews,
    "uneven_light": UnevenLight,
    "unit_sphere": UnitSphere,
    "vicreg": VICReg,
    "video_sizes": VideoSizes,
    "video_transformer": VideoTransformer,
    "view_jitter": ViewJitter,
    "views": Views,
    "vjepa2_ac_sizes": ActionConditionedSizes,
    "vision_transformer": VisionTransformer,
    "vit_sizes": ViTSizes,
    "warmup_cosine": WarmupCosine,
    "warmup_hold_decay": WarmupHoldDecay,
    "workspace": Workspace,
}
"""Public name -> builder: the systems, and the parts that their configurations may name."""


def assemble(spec: Any, **arguments: Any) -> Any:
    """Build a part from its configuration.

    Args:
        spec: Mappings with a `_target_` become the part of that name, called with the other entries; other mappings,
            lists and plain values are kept, with their entries assembled.
        **arguments: Further arguments of the outermost part.

    Raises:
        UnknownName: If a `_target_` is not in `PARTS`.
        TypeError: If a part does not accept an argument; the message names the part.
    """
    if isinstance(spec, Mapping):
        entries = {str(key): assemble(value) for key, value in spec.items() if key != TARGET}
        if TARGET not in spec:
            return entries
        part = choose(PARTS, public_name(str(spec[TARGET])), "part")
        try:
            return part(**entries, **arguments)
        except TypeError as error:
            raise TypeError(f"{spec[TARGET]}: {error}") from error
    if isinstance(spec, list | tuple):
        return [assemble(entry) for entry in spec]
    return spec
