"""3D-JEPA: a point-cloud encoder trained to predict masked balls of neighbourhoods.

    loss = 1 - cos(g(wanted places | f(x seen)), LN(f_ema(x))[places])          the context enters every layer of g

A re-implementation from the description in Hu et al. 2024, arXiv:2409.15803; no code or weights were published, and the
hyper-parameters are ours.  It differs from Point-JEPA in its masks (balls in space, not runs along an ordering), its
decoder and its distance; neighbourhoods and encoder are the same.  Meta's scene encoder of the same name (Locate 3D) is
another system.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Generator

from jepa_mpc.errors import choose
from jepa_mpc.world_model.parts.distances import CosineDistance, Distance
from jepa_mpc.world_model.parts.masks.points import Balls, pair
from jepa_mpc.world_model.parts.objectives.cloud_pretraining import CloudSizes, cloud_pretraining
from jepa_mpc.world_model.parts.objectives.clouds import BallStream, CloudObjective
from jepa_mpc.world_model.parts.predictors.cloud_places import CloudPlaces
from jepa_mpc.world_model.parts.predictors.context_aware import ContextAwarePredictor
from jepa_mpc.world_model.recipes import point_jepa


def _without_walk(sizes: CloudSizes, *, depth: int) -> CloudSizes:
    """The sizes of Point-JEPA without its token ordering, and with a decoder of another depth."""
    return replace(sizes, encoder=replace(sizes.encoder, order=None), predictor=replace(sizes.predictor, depth=depth))


PRESETS = {
    "paper": _without_walk(point_jepa.PRESETS["paper"], depth=4),
    "small": _without_walk(point_jepa.PRESETS["small"], depth=2),
    "tiny": _without_walk(point_jepa.PRESETS["tiny"], depth=1),
}


def build(
    *,
    preset: str | CloudSizes = "paper",
    target: tuple[float, float] = (0.15, 0.2),
    context: tuple[float, float] = (0.85, 1.0),
    distance: Distance | None = None,
    generator: Generator | None = None,
    **parts: Any,
) -> CloudObjective:
    """Assemble the training loss; other systems use its `published` encoder.

    Args:
        preset: A name of `PRESETS`, or custom sizes.
        target: Smallest and largest share of the tokens in one masked ball.
        context: Smallest and largest share of the visible ball, from which masked tokens are removed.
        distance: Between predicted and true tokens; by default 1 - cos.
        generator: Draws all initial weights; by default the global stream is used.
        **parts: Further parts of `cloud_pretraining`.

    Raises:
        UnknownName: If there is no such preset.
        ValueError: If a share is out of range.
    """
    sizes = choose(PRESETS, preset, "preset") if isinstance(preset, str) else preset
    places = CloudPlaces(sizes.predictor.width, hidden=sizes.encoder.place)
    return cloud_pretraining(
        sizes,
        ContextAwarePredictor(sizes.predictor, places),
        sampler=Balls(target=pair("target", target), context=pair("context", context)),  # type: ignore[arg-type]
        stream=BallStream,
        distance=distance or CosineDistance(scale=1.0),
        generator=generator,
        **parts,
    )
