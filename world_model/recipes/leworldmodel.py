"""LeWorldModel: one encoder, one predictor, two loss terms.

    loss = |g(z_<=t, a_<=t) - z_t+1|^2 + w * SIGReg(z)         no EMA, no stop-gradient

Reference: Maes et al. 2026, arXiv:2603.19312.  Presets "paper" and "tiny" have the published form; the weight 0.09 is
that of the released training, the paper's text says 0.1.  Preset "lab" is our own form: rotary positions by the
absolute frame index and a residual output, so that keys and values of a rollout can be cached exactly; gates that start
half open, since the trainings are short; SIGReg over all frames of the batch at once, since the batches are small;
optional proprioception and several tokens per state.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Generator, Tensor, nn

from jepa_mpc.encoders import VIT_MINI, VIT_TINY, VisionTransformer, ViTSizes
from jepa_mpc.encoders.layers.blocks import ProjectionHead
from jepa_mpc.encoders.layers.pixels import IMAGENET_MEAN, IMAGENET_STD, NormalisePixels
from jepa_mpc.encoders.layers.weights import draw_weights
from jepa_mpc.encoders.projected import Projected
from jepa_mpc.errors import choose
from jepa_mpc.interfaces import Regulariser
from jepa_mpc.world_model.dynamics.learned import LearnedDynamics
from jepa_mpc.world_model.parts.actions import ActionMap
from jepa_mpc.world_model.parts.objectives.dynamics import DynamicsObjective
from jepa_mpc.world_model.parts.predictors.forms import LeWMSizes, published, rotary
from jepa_mpc.world_model.parts.predictors.trunk import TrunkSizes
from jepa_mpc.world_model.parts.regularisers.sigreg import PooledOverTime, SIGReg


def _pooled() -> Regulariser:
    return PooledOverTime(SIGReg(num_directions=256))


PRESETS = {
    "paper": LeWMSizes(
        encoder=VIT_TINY,
        latent_dim=192,
        projector_dim=2048,
        output_head_dim=2048,
        trunk=TrunkSizes(width=192, depth=6, heads=16, head_dim=64, mlp_dim=2048, dropout=0.1),
        window=3,
        form=published,
        sigreg=SIGReg,
    ),
    "tiny": LeWMSizes(
        encoder=VIT_MINI,
        latent_dim=16,
        projector_dim=32,
        output_head_dim=32,
        trunk=TrunkSizes(width=16, depth=2, heads=2, head_dim=8, mlp_dim=32),
        window=3,
        form=published,
        sigreg=SIGReg,
    ),
    "lab": LeWMSizes(
        encoder=ViTSizes(image=96, patch=12, width=96, depth=4, heads=3, mlp_dim=384),
        latent_dim=64,
        projector_dim=256,
        output_head_dim=256,
        trunk=TrunkSizes(width=128, depth=2, heads=4, head_dim=32, mlp_dim=256),
        window=8,
        expansion=1,
        form=rotary,
        sigreg=_pooled,
    ),
}


def build(
    *,
    preset: str | LeWMSizes = "paper",
    action_dim: int,
    action_scale: Tensor | Sequence[float] | None = None,
    action_mean: Tensor | Sequence[float] | None = None,
    proprio_scale: Tensor | None = None,
    encoder: nn.Module | None = None,
    num_tokens: int = 1,
    sigreg_weight: float = 0.09,
    generator: Generator | None = None,
    **parts: Any,
) -> DynamicsObjective:
    """Assemble the training loss; `as_world_model` turns the trained result into a Dynamics.

    Args:
        preset: "paper", "tiny", "lab", or custom sizes.
        action_dim: Width of an action, or of a block of actions.
        action_scale: Typical action size per axis, in its unit; without it, actions must be standardised.
        action_mean: Mean action per axis, zero by default; used only with `action_scale`.
        proprio_scale: Spread of each proprioception entry; without it, proprioception is not used.
        encoder: The encoder; by default the preset's. It gets a projection head, except in our own form if it is as
            wide as the latent.
        num_tokens: Number of tokens of one state.
        sigreg_weight: Weight of SIGReg.
        generator: Draws all initial weights; by default the global stream is used.
        **parts: Further parts of `DynamicsObjective`: preprocess, augment, target, distance, extra, open_loop,
            readings, finder.

    Raises:
        UnknownName: If there is no such preset.
        ValueError: If the preset's form does not support proprioception.
    """
    sizes = choose(PRESETS, preset, "preset") if isinstance(preset, str) else preset
    encoder = VisionTransformer(sizes.encoder) if encoder is None else encoder
    width: Any = encoder.width
    if sizes.form is published or width != sizes.latent_dim:
        head = ProjectionHead(width, hidden=sizes.projector_dim, output=sizes.latent_dim)
        encoder = Projected(encoder, head, width=sizes.latent_dim)
    predictor = sizes.form(
        sizes,
        action_dim=action_dim,
        action_map=None
        if action_scale is None
        else ActionMap(
            torch.as_tensor(action_scale), mean=None if action_mean is None else torch.as_tensor(action_mean)
        ),
        proprio_scale=proprio_scale,
        num_tokens=num_tokens,
    )
    parts.setdefault("preprocess", NormalisePixels(mean=IMAGENET_MEAN, std=IMAGENET_STD))
    objective = DynamicsObjective(
        encoder=encoder, predictor=predictor, regularisers=[("sigreg", sigreg_weight, sizes.sigreg())], **parts
    )
    if generator is not None:
        draw_weights(objective, generator)
    return objective


def as_world_model(objective: DynamicsObjective, *, max_bytes: int = 512 * 2**20) -> LearnedDynamics:
    """The trained predictor as a Dynamics, with its whole window as context."""
    return LearnedDynamics(objective.predictor, max_context=objective.predictor.window, max_bytes=max_bytes)
