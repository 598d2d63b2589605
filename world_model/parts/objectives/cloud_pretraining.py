"""Shared parts of masked pretrainings on point clouds: sizes, target, assembly."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

from torch import Generator, nn

from jepa_mpc.encoders.layers.weights import draw_weights
from jepa_mpc.encoders.points import PointSizes, PointTokens, PointTransformer
from jepa_mpc.interfaces import MaskSampler
from jepa_mpc.world_model.parts.cloud_changes import Change
from jepa_mpc.world_model.parts.objectives.clouds import CloudObjective, CloudStream, mean_of_normed
from jepa_mpc.world_model.parts.objectives.masked import MaskTask
from jepa_mpc.world_model.parts.predictors.masked import MaskedSizes
from jepa_mpc.world_model.parts.targets import EMATarget, Momentum


@dataclass(frozen=True, kw_only=True)
class CloudSizes:
    """Sizes of a masked pretraining on clouds.

    Args:
        encoder: Sizes of the encoder.
        predictor: Sizes of the predictor.
        momentum: Momentum of the target over the training progress.
        frame: Shifts and scales clouds before they are cut into neighbourhoods.
        augment: Augments clouds in training.
    """

    encoder: PointSizes
    predictor: MaskedSizes
    momentum: Momentum
    frame: nn.Module
    augment: Change


def cloud_pretraining(
    sizes: CloudSizes,
    predictor: nn.Module,
    *,
    sampler: MaskSampler,
    stream: type[CloudStream] = CloudStream,
    generator: Generator | None = None,
    frame: nn.Module | None = None,
    augment: Change | None = None,
    **parts: Any,
) -> CloudObjective:
    """A masked loss on clouds; the target is the last block of an EMA copy, normalised without weights.

    Args:
        sizes: All sizes.
        predictor: Predicts the masked tokens.
        sampler: Draws the masks.
        stream: Kind of stream; defines the input of the sampler.
        generator: Draws all initial weights; None keeps them.
        frame: Shifts and scales clouds, if not the preset's.
        augment: Augments clouds in training, if not the preset's.
        **parts: Further parts of `MaskedObjective`: distance, regularisers.
    """
    tokens = PointTokens(sizes.encoder, frame=copy.deepcopy(frame or sizes.frame))
    trunk = PointTransformer(sizes.encoder)
    if generator is not None:
        for part in (tokens, trunk, predictor):
            draw_weights(part, generator)
    target = EMATarget(trunk, momentum=sizes.momentum, look=mean_of_normed([-1]))  # copied after initialisation
    clouds = stream([MaskTask(name="hidden", sampler=sampler)], tokens=tokens, augment=augment or sizes.augment)
    return CloudObjective(encoder=trunk, predictor=predictor, streams=[clouds], target=target, **parts)
