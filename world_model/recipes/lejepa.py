"""LeJEPA: views of an image agree, and their projections are standard normal along every direction.

    loss = (1 - w) mean (z_v - mean_v z)^2 + w SIGReg(z_v)          no predictor, no teacher, no stop-gradient

Reference: Balestriero and LeCun 2025, arXiv:2511.08544.  "paper" is the method's own small example (ViT-S/8, 128 px,
four views), "imagenet" its large one (two global crops define the centre of eight views).  "small" and "tiny" are ours,
for one CPU core and robot images: their views change colours, add noise and occlude parts, but never crop or mirror,
since an encoder trained to ignore the crop position loses the hand position.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Generator

from jepa_mpc.encoders.layers.pixels import IMAGENET_MEAN, IMAGENET_STD, NormalisePixels
from jepa_mpc.encoders.layers.weights import draw_weights
from jepa_mpc.encoders.vit import VisionTransformer, ViTSizes
from jepa_mpc.errors import choose
from jepa_mpc.world_model.parts.augment import Augmentation, ColourJitter, Patches, SensorNoise
from jepa_mpc.world_model.parts.crops import RandomCrop
from jepa_mpc.world_model.parts.objectives.motion import expander
from jepa_mpc.world_model.parts.objectives.views import ToCentre, Views, ViewsObjective, mean_of_tokens, summary_token
from jepa_mpc.world_model.parts.photometric import Blur, Grey, Solarise, Sometimes, StandardJitter
from jepa_mpc.world_model.parts.regularisers.sigreg import SIGReg


@dataclass(frozen=True, kw_only=True)
class ViewSizes:
    """Sizes and weights of a LeJEPA.

    Args:
        encoder: Sizes of the backbone.
        hidden: Width of the projector's inner layers.
        output: Width of the projections.
        views: The kinds of views.
        centre: Number of views that define the centre; None for all.
        weight: Weight w of SIGReg; the agreement has 1 - w.
        directions: Random directions of SIGReg per step.
        summary: Compare the summary token; otherwise the mean of the patches, without a summary token.
    """

    encoder: ViTSizes
    hidden: int
    output: int
    views: tuple[Views, ...]
    centre: int | None = None
    weight: float = 0.02
    directions: int = 256
    summary: bool = True


def cropped(area: tuple[float, float], size: int) -> Augmentation:
    """A random crop with this area range, and standard photometric augmentation."""
    colours = [Sometimes(0.8, StandardJitter()), Sometimes(0.2, Grey())]
    return Augmentation(
        [RandomCrop(area=area, size=size), *colours, Sometimes(0.5, Blur()), Sometimes(0.2, Solarise())]
    )


IN_PLACE = Augmentation([ColourJitter(), SensorNoise(), Patches()])
"""Colour changes, noise and occlusions; no geometric changes."""

PRESETS = {
    "paper": ViewSizes(
        encoder=ViTSizes(image=128, patch=8, width=384, depth=12, heads=6, mlp_dim=1536),
        hidden=2048, output=16, views=(Views(change=cropped((0.08, 1.0), 128), count=4),),
    ),
    "imagenet": ViewSizes(
        encoder=ViTSizes(image=224, patch=14, width=1024, depth=24, heads=16, mlp_dim=4096),
        hidden=2048, output=64, centre=2, weight=0.05, directions=1024,
        views=(Views(change=cropped((0.3, 1.0), 224), count=2), Views(change=cropped((0.05, 0.3), 98), count=6)),
    ),
    "small": ViewSizes(
        encoder=ViTSizes(image=64, patch=8, width=96, depth=4, heads=3, mlp_dim=384),
        hidden=256, output=32, views=(Views(change=IN_PLACE, count=2),), weight=0.05, summary=False,
    ),
    "tiny": ViewSizes(
        encoder=ViTSizes(image=28, patch=7, width=32, depth=2, heads=2, mlp_dim=64),
        hidden=32, output=16, views=(Views(change=IN_PLACE, count=2),), weight=0.05, directions=64, summary=False,
    ),
}  # fmt: skip


def build(
    *,
    preset: str | ViewSizes = "paper",
    weight: float | None = None,
    generator: Generator | None = None,
    **parts: Any,
) -> ViewsObjective:
    """Assemble the training loss; other systems use its `published` encoder.

    Args:
        preset: A name of `PRESETS`, or custom sizes.
        weight: Weight of SIGReg, if not the preset's; with 0 nothing prevents collapse.
        generator: Draws all initial weights; by default the global stream is used.
        **parts: Further parts of `ViewsObjective`: views, agreement, prepare.

    Raises:
        UnknownName: If there is no such preset.
        ValueError: If the weight is not from 0 to 1.
    """
    sizes = choose(PRESETS, preset, "preset") if isinstance(preset, str) else preset
    weight = sizes.weight if weight is None else weight
    if not 0 <= weight <= 1:
        raise ValueError(f"the weight of SIGReg must be from 0 to 1, got {weight}")
    parts.setdefault("prepare", NormalisePixels(mean=IMAGENET_MEAN, std=IMAGENET_STD))
    parts.setdefault("views", sizes.views)
    parts.setdefault("agreement", ToCentre(first=sizes.centre))
    objective = ViewsObjective(
        encoder=VisionTransformer(sizes.encoder, pool="dense" if sizes.summary else "patches"),
        projector=expander(sizes.encoder.width, hidden=sizes.hidden, output=sizes.output),
        pool=summary_token if sizes.summary else mean_of_tokens,
        weight=1 - weight,
        regularisers=[("sigreg", weight, SIGReg(num_directions=sizes.directions))],
        **parts,
    )
    return objective if generator is None else draw_weights(objective, generator)  # type: ignore[return-value]
