"""Former names of parts in older checkpoints: their module paths at that time.

This table only grows. A part that moves keeps its public name; a part that is renamed gets an alias here.
"""

from __future__ import annotations

from collections.abc import Mapping

ALIASES: Mapping[str, str] = {
    "encoders.convnet.KeypointEncoder": "keypoint_encoder",
    "encoders.layers.pixels.NormalisePixels": "normalise_pixels",
    "encoders.preprocessing.EvaluationPixels": "evaluation_pixels",
    "encoders.preprocessing.RobotPixels": "robot_pixels",
    "encoders.pyramid.PyramidEncoder": "pyramid_encoder",
    "encoders.pyramid.PyramidSizes": "pyramid_sizes",
    "encoders.released.network": "released_encoder",
    "encoders.video.VideoSizes": "video_sizes",
    "encoders.video.VideoTransformer": "video_transformer",
    "encoders.vit.ViTSizes": "vit_sizes",
    "encoders.vit.VisionTransformer": "vision_transformer",
    "world_model.augment.Augmentation": "augmentation",
    "world_model.augment.ColourJitter": "colour_jitter",
    "world_model.augment.Patches": "patches",
    "world_model.augment.SensorNoise": "sensor_noise",
    "world_model.augment.ViewJitter": "view_jitter",
    "world_model.critic.Critic": "critic",
    "world_model.crops.RandomCrop": "random_crop",
    "world_model.displacement.HindsightDisplacement": "hindsight_displacement",
    "world_model.displacement.TokenPlaces": "token_places",
    "world_model.fitting.decay.DecayAll": "decay_all",
    "world_model.fitting.decay.DecayMatrices": "decay_matrices",
    "world_model.fitting.schedules.WarmupCosine": "warmup_cosine",
    "world_model.fitting.schedules.WarmupHoldDecay": "warmup_hold_decay",
    "world_model.masks.objects.LegacyObjectMask": "legacy_object_mask",
    "world_model.masks.objects.ObjectMask": "object_mask",
    "world_model.masks.objects.TokenMask": "token_mask",
    "world_model.masks.objects.TubeMask": "tube_mask",
    "world_model.objectives.autoregression.Autoregression": "autoregression",
    "world_model.objectives.dynamics.OpenLoop": "open_loop",
    "world_model.objectives.motion_terms.MotionWeights": "motion_weights",
    "world_model.objectives.think_standin.DepthTokens": "depth_tokens",
    "world_model.objectives.think_standin.OthersThoughts": "others_thoughts",
    "world_model.objectives.think_views.ClipViews": "clip_views",
    "world_model.objectives.think_views.cut": "clip_views_cut",
    "world_model.policy.GoalPolicy": "goal_policy",
    "world_model.poses.ArmPose": "arm_pose",
    "world_model.poses.GivenPose": "given_pose",
    "world_model.recipes.act_jepa.build": "act_jepa",
    "world_model.recipes.act_jepa.build_control": "act_jepa_control",
    "world_model.recipes.causal_jepa.build": "causal_jepa",
    "world_model.recipes.hand_points.build": "hand_points",
    "world_model.recipes.leworldmodel.build": "leworldmodel",
    "world_model.recipes.mc_jepa.build": "mc_jepa",
    "world_model.recipes.mc_jepa_factored.build": "mc_jepa_factored",
    "world_model.recipes.think_jepa.build": "think_jepa",
    "world_model.recipes.video_slots.build": "video_slots",
    "world_model.recipes.vjepa2.build": "vjepa2",
    "world_model.recipes.vjepa2_1.build": "vjepa2_1",
    "world_model.recipes.vjepa2_ac.build": "vjepa2_ac",
    "world_model.regularisers.sigreg.SIGReg": "sigreg",
    "world_model.regularisers.two_views.TwoViews": "two_views",
    "world_model.regularisers.vicreg.VICReg": "vicreg",
}
"""Former name -> public name."""


def public_name(name: str) -> str:
    """The public name of a part, given any name it ever had in a checkpoint."""
    return ALIASES.get(name, name)
