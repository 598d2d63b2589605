"""Hand keypoints in any camera, learned from logs without labels (ours)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Generator

from jepa_mpc.encoders.hand_points import HandPoints
from jepa_mpc.encoders.layers.weights import draw_weights
from jepa_mpc.errors import choose
from jepa_mpc.world_model.parts.augment import Augmentation, ColourJitter, Patches, SensorNoise, Tilt, ViewJitter
from jepa_mpc.world_model.parts.objectives.points import HandPointsObjective


@dataclass(frozen=True, kw_only=True)
class KeypointSizes:
    """Sizes of the keypoint detector.

    Args:
        widths: Channels of the trunk at 1/2, 1/4, 1/8 and 1/16 of the resolution.
        points: Number of heat maps.
        sizes: Image sizes (px), a different one for every step; none uses the logged size.
    """

    widths: Sequence[int] = (16, 32, 64, 96)
    points: int = 4
    sizes: Sequence[int] = (64, 96, 128)


PRESETS = {"tiny": KeypointSizes(widths=(8, 8, 8, 8), points=2, sizes=()), "lab": KeypointSizes()}


def build(
    *,
    preset: str | KeypointSizes = "lab",
    widths: Sequence[int] | None = None,
    points: int | None = None,
    sizes: Sequence[int] | None = None,
    generator: Generator | None = None,
) -> HandPointsObjective:
    """The objective with its encoder.

    Args:
        preset: "lab", "tiny", or custom sizes.
        widths: Replaces the preset's, see `KeypointSizes`.
        points: Replaces the preset's.
        sizes: Replaces the preset's.
        generator: Draws the initial weights; by default the global stream is used.

    Raises:
        UnknownName: If there is no such preset.
    """
    chosen = choose(PRESETS, preset, "preset") if isinstance(preset, str) else preset
    encoder = HandPoints(
        widths=chosen.widths if widths is None else widths, points=chosen.points if points is None else points
    )
    objective = HandPointsObjective(
        encoder,
        bends=Augmentation([Tilt()]),
        colours=Augmentation([ColourJitter()]),
        moves=ViewJitter(shift=0.25, scale=1.8, turn_rad=0.25, stretch=1.3, shrink=1.1),
        disturbs=Augmentation([Patches(count=4, largest=0.25), SensorNoise(strongest=0.1)]),
        sizes=chosen.sizes if sizes is None else sizes,
    )
    if generator is not None:
        draw_weights(objective, generator)
    return objective
