"""V-JEPA 2-AC: a frozen video encoder, and a block-causal predictor of the effects of actions.

    loss = |g(z_<=t, a_<=t, s_<=t) - z_t+1| + |g fed back - z|        mean L1 on layer-normed latents

Reference: Assran et al. 2025, arXiv:2506.09985, section 3.  The preset "giant" has the released sizes; its targets are
the output of the same frozen encoder (`SharedTarget`: equal to a second copy, at half the cost).  "small" trains on one
CPU core on images of 64 px: motions and poses are standardised, since a short training cannot learn their scale, heads
have 32 channels, and the predictor outputs changes (`ChangePredictor`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Generator, Tensor, nn

from jepa_mpc.encoders.frozen import FrozenFrames
from jepa_mpc.encoders.layers.pixels import IMAGENET_MEAN, IMAGENET_STD, NormalisePixels
from jepa_mpc.encoders.layers.weights import draw_weights
from jepa_mpc.encoders.video import VideoSizes, VideoTransformer
from jepa_mpc.errors import choose
from jepa_mpc.world_model.dynamics.learned import LearnedDynamics
from jepa_mpc.world_model.parts.actions import ActionMap
from jepa_mpc.world_model.parts.distances import AbsoluteError
from jepa_mpc.world_model.parts.objectives.autoregression import Autoregression, Fed
from jepa_mpc.world_model.parts.objectives.dynamics import DynamicsObjective
from jepa_mpc.world_model.parts.poses import POSE_DIM, PoseReader
from jepa_mpc.world_model.parts.predictors.block_causal import BlockCausalPredictor, BlockCausalSizes, ChangePredictor

POSE_MEAN = (0.45, 0.0, 0.25, 0.0, 0.0, 0.0, 0.5)
POSE_SCALE = (0.15, 0.2, 0.15, 1.0, 1.0, 1.0, 0.5)
"""Mean and spread of an arm's hand pose, in the units of a pose."""


@dataclass(frozen=True, kw_only=True)
class ActionConditionedSizes:
    """Sizes of a V-JEPA 2-AC.

    Args:
        encoder: Sizes of the frozen encoder.
        predictor: Sizes of the predictor.
        form: Builds the predictor.
    """

    encoder: VideoSizes
    predictor: BlockCausalSizes
    form: type[BlockCausalPredictor] = BlockCausalPredictor


PRESETS = {
    "giant": ActionConditionedSizes(
        encoder=VideoSizes(width=1408, depth=40, heads=22, mlp_dim=6144),
        predictor=BlockCausalSizes(state_dim=1408, rows=16, columns=16, width=1024, depth=24, heads=16, mlp_dim=4096),
    ),
    "small": ActionConditionedSizes(
        encoder=VideoSizes(width=96, depth=4, heads=3, mlp_dim=384, patch=8),
        predictor=BlockCausalSizes(state_dim=96, rows=8, columns=8, width=128, depth=4, heads=4, mlp_dim=512),
        form=ChangePredictor,
    ),
    "tiny": ActionConditionedSizes(
        encoder=VideoSizes(width=32, depth=2, heads=2, mlp_dim=64, patch=7),
        predictor=BlockCausalSizes(state_dim=32, rows=4, columns=4, width=48, depth=2, heads=2, mlp_dim=96),
    ),
}


def build(
    *,
    preset: str | ActionConditionedSizes = "giant",
    action_dim: int = POSE_DIM,
    action_scale: Tensor | Sequence[float] | None = None,
    pose_scale: Sequence[float] | None = None,
    pose_mean: Sequence[float] = POSE_MEAN,
    encoder: nn.Module | None = None,
    state_dim: int | None = None,
    grid: Sequence[int] | None = None,
    reader: PoseReader | None = None,
    steps: int = 2,
    fed: Fed = "first",
    generator: Generator | None = None,
    **parts: Any,
) -> DynamicsObjective:
    """Assemble the training loss; `as_world_model` turns the trained result into a Dynamics.

    Args:
        preset: A name of `PRESETS`, or custom sizes.
        action_dim: Width of an action: 7.
        action_scale: Typical motion per axis; without it motions are in metres and radians, as released.
        pose_scale: Spread of poses per axis; without it poses are not standardised, as released.
        pose_mean: Mean pose; used only with `pose_scale`.
        encoder: The frozen encoder; by default one of the preset's sizes.
        state_dim: Width of the encoder's tokens, if not the preset's.
        grid: Their rows and columns, if not the preset's.
        reader: Reads poses from proprioception and motions from actions; by default they are used unchanged.
        steps: Steps of the roll-out loss.
        fed: See `Autoregression`; "second" is the published training of the released weights.
        generator: Draws all initial weights, including the encoder's; by default the global stream is used.
        **parts: Further parts of `DynamicsObjective`: preprocess, augment, extra, open_loop.

    Raises:
        UnknownName: If there is no such preset.
        ValueError: If actions have another width, or the encoder's tokens another one than the predictor expects.
    """
    sizes = choose(PRESETS, preset, "preset") if isinstance(preset, str) else preset
    if action_dim != POSE_DIM:
        raise ValueError(f"V-JEPA 2-AC takes actions of width {POSE_DIM} (x y z, rotation, gripper), got {action_dim}")
    rows, columns = grid or (sizes.predictor.rows, sizes.predictor.columns)
    inner = replace(sizes.predictor, state_dim=state_dim or sizes.predictor.state_dim, rows=rows, columns=columns)
    frozen = FrozenFrames(VideoTransformer(sizes.encoder, pairing="tiled") if encoder is None else encoder)
    if frozen.width != inner.state_dim:
        raise ValueError(f"the encoder gives tokens of width {frozen.width}, the predictor expects {inner.state_dim}")
    predictor = sizes.form(
        inner,
        reader=reader,
        motion_map=None if action_scale is None else ActionMap(torch.as_tensor(action_scale)),
        pose_map=None if pose_scale is None else ActionMap(torch.tensor(pose_scale), mean=torch.tensor(pose_mean)),
    )
    parts.setdefault("preprocess", NormalisePixels(mean=IMAGENET_MEAN, std=IMAGENET_STD))
    parts.setdefault("open_loop", Autoregression(steps=steps, fed=fed))
    objective = DynamicsObjective(encoder=frozen, predictor=predictor, distance=AbsoluteError(), **parts)
    if generator is not None:
        draw_weights(objective, generator)
    return objective


def as_world_model(objective: DynamicsObjective, *, max_bytes: int = 512 * 2**20) -> LearnedDynamics:
    """The trained predictor as a Dynamics, with its whole window as context."""
    return LearnedDynamics(objective.predictor, max_context=objective.predictor.window, max_bytes=max_bytes)
