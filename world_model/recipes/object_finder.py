"""The object that a goal image shows, found in the present image of a hand camera; learned by feel (ours)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Generator

from jepa_mpc.encoders.layers.weights import draw_weights
from jepa_mpc.encoders.object_finder import ObjectFinder
from jepa_mpc.errors import choose
from jepa_mpc.world_model.parts.augment import (
    Apart,
    Augmentation,
    ColourJitter,
    SensorNoise,
    Shapes,
    Together,
    UnevenLight,
)
from jepa_mpc.world_model.parts.finding import ObjectFindingObjective


@dataclass(frozen=True, kw_only=True)
class FinderSizes:
    """Sizes of the finder, see `ObjectFinder`."""

    widths: Sequence[int] = (16, 32, 64, 96)
    keypoints: int = 8
    hidden: int = 128


PRESETS = {"tiny": FinderSizes(widths=(8, 8, 8, 8), keypoints=2, hidden=16), "lab": FinderSizes()}


def build(
    *,
    preset: str | FinderSizes = "lab",
    generator: Generator | None = None,
) -> ObjectFindingObjective:
    """The objective with its network.

    Colours change in the same way in all images of a window, since they are what is compared, and a little in each.
    Shapes that stand for clutter are drawn into each image anew.

    Args:
        preset: "lab", "tiny", or custom sizes.
        generator: Draws the initial weights; by default the global stream is used.

    Raises:
        UnknownName: If there is no such preset.
    """
    chosen = choose(PRESETS, preset, "preset") if isinstance(preset, str) else preset
    encoder = ObjectFinder(widths=chosen.widths, keypoints=chosen.keypoints, hidden=chosen.hidden)
    objective = ObjectFindingObjective(
        encoder,
        augment=Augmentation(
            [
                Apart(Shapes(count=4, largest=0.35)),
                Together(ColourJitter()),
                ColourJitter(mixing=0.06, curve=0.1, permute=0.0),
                UnevenLight(strength=0.4, finest=8),
                SensorNoise(strongest=0.12),
            ]
        ),
    )
    if generator is not None:
        draw_weights(objective, generator)
    return objective
