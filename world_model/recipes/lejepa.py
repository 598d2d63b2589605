"""LeJEPA: views of a picture agree, and their projections look standard normal from every direction.

    loss = (1 - w) mean (z_v - mean_v z)^2 + w SIGReg(z_v)          no predictor, no teacher, no stop-gradient

Reference: Balestriero and LeCun 2025, arXiv:2511.08544.  "paper" is the method's own small example (ViT-S/8, 128 px,
four views), "imagenet" its large one (two global crops make the centre of eight views).  "small" and "tiny" are ours,
for one processor core and pictures of a robot: their views change colours, add noise and cover parts, but never crop
or mirror, since an encoder that is told to ignore where the picture was cut forgets where the hand is.
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
        encoder: Of the backbone.
        hidden: Width of the projector's inner layers.
        output: Width of what is compared.
        views: The kinds of views.
        centre: Views that make the centre; None takes all of them.
        weight: Of SIGReg; the agreement has one less this.
        directions: Random directions of SIGReg per step.
        summary: Compare the summary token; else the mean of the patches, and there is none.
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
    """A random crop of some share of the picture, and what photographs usually get."""
    colours = [Sometimes(0.8, StandardJitter()), Sometimes(0.2, Grey())]
    return Augmentation(
        [RandomCrop(area=area, size=size), *colours, Sometimes(0.5, Blur()), Sometimes(0.2, Solarise())]
    )


IN_PLACE = Augmentation([ColourJitter(), SensorNoise(), Patches()])
"""Other colours, noise and covered parts; everything stays where it is."""

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
    """Assemble the training loss; its `published` encoder is what other systems build on.

    Args:
        preset: A name of `PRESETS`, or sizes of your own.
        weight: Of SIGReg, if not the preset's; 0 leaves nothing that keeps the views of different pictures apart.
        generator: Draws all initial weights; by default the global stream does.
        **parts: Further parts of `ViewsObjective`: views, agreement, prepare.

    Raises:
        UnknownName: If there is no such preset.
        ValueError: If the weight is not from 0 to 1.
    """
    sizes = choose(PRESETS, preset, "preset") if isinstance(preset, str) else preset
    weight = sizes.weight if weight is None else weight
    if not 0 <= weight <= 1:
        raise ValueError(f"the weight of SIGReg is a share from 0 to 1, got {weight}")
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
