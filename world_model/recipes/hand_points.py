"""Points that follow the hand in any camera, learned from logs without labels (ours)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Generator

from jepa_mpc.encoders.hand_points import HandPoints
from jepa_mpc.encoders.layers.weights import draw_weights
from jepa_mpc.world_model.parts.augment import Augmentation, ColourJitter, Patches, SensorNoise, Tilt, ViewJitter
from jepa_mpc.world_model.parts.objectives.points import HandPointsObjective


def build(
    *,
    widths: Sequence[int] = (16, 32, 64, 96),
    points: int = 4,
    sizes: Sequence[int] = (64, 96, 128),
    generator: Generator | None = None,
) -> HandPointsObjective:
    """The objective with its encoder.

    Args:
        widths: Channels of the trunk at 1/2, 1/4, 1/8 and 1/16 of the resolution.
        points: Heat maps.
        sizes: Sizes of the pictures (px), a different one for every step; none takes them as logged.
        generator: Draws the first weights; by default the global stream does.
    """
    objective = HandPointsObjective(
        HandPoints(widths=widths, points=points),
        bends=Augmentation([Tilt()]),
        colours=Augmentation([ColourJitter()]),
        moves=ViewJitter(shift=0.25, scale=1.8, turn_rad=0.25, stretch=1.3, shrink=1.1),
        disturbs=Augmentation([Patches(count=4, largest=0.25), SensorNoise(strongest=0.1)]),
        sizes=sizes,
    )
    if generator is not None:
        draw_weights(objective, generator)
    return objective
