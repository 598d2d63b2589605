"""Assembly of LeWorldModel's predictors: the published form, and our own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from jepa_mpc.encoders import ViTSizes
from jepa_mpc.encoders.layers.blocks import GatedModulation, ProjectionHead
from jepa_mpc.interfaces import Regulariser
from jepa_mpc.world_model.parts.actions import ActionEncoder
from jepa_mpc.world_model.parts.predictors.causal import CausalPredictor, DirectOutput, ProprioStream, ResidualOutput
from jepa_mpc.world_model.parts.predictors.frame_positions import RotaryPositions, WindowPositions
from jepa_mpc.world_model.parts.predictors.trunk import ConditionedTransformer, TrunkSizes
from jepa_mpc.world_model.parts.regularisers.sigreg import SIGReg


@dataclass(frozen=True, kw_only=True)
class LeWMSizes:
    """Sizes of a LeWorldModel.

    Args:
        encoder: Sizes of the encoder, if none is given.
        latent_dim: Width D of the states.
        projector_dim: Width inside the projector.
        output_head_dim: Width inside the head after the predictor (published form).
        trunk: Sizes of the predictor.
        window: Number of context frames of one prediction.
        form: Builds the predictor.
        sigreg: Builds the regulariser.
        smoothed: Width after the action encoder's first map.
        expansion: Width inside the action encoder, as a multiple of its output.
        cond_dim: Width of the action encoder's output, by default D.
        raw_dim: Width of the trunk's output, by default D.
    """

    encoder: ViTSizes
    latent_dim: int
    projector_dim: int
    output_head_dim: int
    trunk: TrunkSizes
    window: int
    smoothed: int = 10
    expansion: int = 4
    cond_dim: int | None = None
    raw_dim: int | None = None
    form: Callable[..., CausalPredictor]
    sigreg: Callable[[], Regulariser]


def published(
    sizes: LeWMSizes, *, action_dim: int, action_map: nn.Module | None, proprio_scale: Tensor | None, num_tokens: int
) -> CausalPredictor:
    """The published predictor: learned positions that restart in each window, zero gates, a projection head."""
    if proprio_scale is not None:
        raise ValueError("the published form takes no proprioception; use the preset 'lab'")
    width, cond, raw = sizes.latent_dim, sizes.cond_dim or sizes.latent_dim, sizes.raw_dim or sizes.latent_dim
    return CausalPredictor(
        trunk=ConditionedTransformer(width, sizes=sizes.trunk, cond_dim=cond, output_dim=raw),
        action_encoder=_action_encoder(sizes, action_dim, width=cond, action_map=action_map),
        positions=WindowPositions(window=sizes.window, width=width, num_tokens=num_tokens),
        output=DirectOutput(ProjectionHead(raw, hidden=sizes.output_head_dim, output=width)),
    )


def published_sizes(**sizes: Any) -> LeWMSizes:
    """Sizes of the published form: entries of `LeWMSizes`."""
    return LeWMSizes(**sizes, form=published, sigreg=SIGReg)


def rotary(
    sizes: LeWMSizes, *, action_dim: int, action_map: nn.Module | None, proprio_scale: Tensor | None, num_tokens: int
) -> CausalPredictor:
    """Our predictor: rotary frame positions, half-open gates, residual output, optional proprioception."""
    state, width = sizes.latent_dim, sizes.trunk.width
    trunk = ConditionedTransformer(
        state, sizes=sizes.trunk, cond_dim=width, output_dim=width, modulation_init=GatedModulation()
    )
    proprio = None if proprio_scale is None else ProprioStream(proprio_scale, cond_dim=width, raw_dim=width)
    return CausalPredictor(
        trunk=trunk,
        action_encoder=_action_encoder(sizes, action_dim, width=width, action_map=action_map),
        positions=RotaryPositions(
            window=sizes.window, head_dim=sizes.trunk.head_dim, width=state, num_tokens=num_tokens
        ),
        output=ResidualOutput(width, state_dim=state),
        proprio=proprio,
    )


def _action_encoder(sizes: LeWMSizes, action_dim: int, *, width: int, action_map: nn.Module | None) -> ActionEncoder:
    return ActionEncoder(
        action_dim, width=width, smoothed=sizes.smoothed, expansion=sizes.expansion, action_map=action_map
    )
