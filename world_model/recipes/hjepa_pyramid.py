"""H-JEPA as an image pyramid: masked blocks are predicted at three levels, from patches to quarters of the image.

    loss = sum_l w_l mean over blocks of |g(f(x seen), cells of level l) - LN(mean of f_ema(x) over each cell)|^2  + w R

A cell of level l is a square of 2^l x 2^l tokens, w_l = 1 / 2^l; each level has its own masks.  The community system of
J. Wiggins (github.com/jonwiggins/H-JEPA, no paper, no benchmark), not the planning system of the same name.  Unlike the
public code, which `hjepa_legacy` reproduces: masked tokens are dropped, not zeroed; cells are squares of the image, not
runs of masked tokens; all levels are masked; targets have no learned heads; the target is updated after the step.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Generator, nn

from jepa_mpc.encoders.layers.normed import LatentNorm
from jepa_mpc.encoders.layers.pixels import NormalisePixels
from jepa_mpc.encoders.levels import TokenPyramid
from jepa_mpc.encoders.placed import PlacedForm, column_first
from jepa_mpc.errors import choose
from jepa_mpc.interfaces import Regulariser
from jepa_mpc.world_model.parts.distances import SquaredError
from jepa_mpc.world_model.parts.masks.levels import doubling
from jepa_mpc.world_model.parts.objectives.masked import Change, MaskedObjective, MaskTask, Stream, each_frame
from jepa_mpc.world_model.parts.predictors.masked import MaskedPredictor
from jepa_mpc.world_model.parts.predictors.pyramid import LevelPlaces, TopDownPredictor
from jepa_mpc.world_model.parts.regularisers.sigreg import SIGReg
from jepa_mpc.world_model.parts.regularisers.vicreg import VICReg
from jepa_mpc.world_model.recipes import ijepa
from jepa_mpc.world_model.recipes.vjepa2 import PretrainingSizes, pretraining


@dataclass(frozen=True, kw_only=True)
class LevelSizes(PretrainingSizes):
    """Sizes of the pyramid.

    Args:
        levels: Number of levels.
        fusion: How coarser predictions join finer ones: "none", "add" or "concat".
        fusion_width: Width of the joined features.
    """

    levels: int = 3
    fusion: str = "none"
    fusion_width: int = 64


def _of(name: str, **options: Any) -> LevelSizes:
    """The sizes of I-JEPA of that name."""
    base = ijepa.PRESETS[name]
    shared = {key: getattr(base, key) for key in ("encoder", "predictor", "image", "frames", "momentum")}
    return LevelSizes(**shared | options)


PRESETS: Mapping[str, LevelSizes] = {
    "base": replace(_of("base"), fusion_width=384),
    "base_fpn": replace(_of("base"), fusion="add", fusion_width=384),
    "small": _of("small"),
    "small_fpn": _of("small", fusion="add"),
    "small_concat": _of("small", fusion="concat"),
    "tiny": _of("tiny", levels=2),
    "tiny_fpn": _of("tiny", levels=2, fusion="concat", fusion_width=16),
}
APART = {"none": (), "vicreg": ("vicreg",), "sigreg": ("sigreg",), "combined": ("vicreg", "sigreg")}
SHARES = {"vicreg": 0.01, "sigreg": 0.02}


def build(
    *,
    preset: str | LevelSizes = "base",
    image: int | None = None,
    momentum: tuple[float, float] | None = None,
    apart: str = "none",
    augment: Change | None = None,
    generator: Generator | None = None,
    **parts: Any,
) -> MaskedObjective:
    """Assemble the training loss; its `published` encoder gives the tokens of the finest level.

    Args:
        preset: A name of `PRESETS`, or custom sizes.
        image, momentum: See `ijepa.build`.
        apart: Name of a regulariser in `APART` against collapse, in addition to the target rule.
        augment: Augments raw frames `B 1 C h w` in training, or None.
        generator: Draws all initial weights; by default the global stream is used.
        **parts: Further parts of `MaskedObjective`.

    Raises:
        UnknownName: If there is no such preset or regulariser.
        ValueError: If the image is not divisible into patches, or its grid is too small for the levels.
    """
    sizes = choose(PRESETS, preset, "preset") if isinstance(preset, str) else preset
    sizes = sizes.with_clips(image=image, frames=1, momentum=momentum)
    pyramid, pixels = TokenPyramid(sizes.grid[1:], levels=sizes.levels), NormalisePixels()
    hints = [{} if sizes.fusion == "none" else {"level": level} for level in range(sizes.levels)]
    tasks = [
        MaskTask(name=f"level_{level}", sampler=doubling(pyramid, level), weight=0.5**level, hints=hint)
        for level, hint in enumerate(hints)
    ]
    taken: dict[str, Any] = {"prepare": pixels, "augment": augment, "num_tokens": pyramid.num_tokens}
    pictures = Stream("images", tasks, otherwise=each_frame, **taken)
    made: dict[str, Regulariser] = {"vicreg": VICReg(), "sigreg": SIGReg(num_directions=64)}
    chosen = [(name, SHARES[name], made[name]) for name in choose(APART, apart, "regulariser")]
    parts.setdefault("distance", SquaredError())
    parts.setdefault("regularisers", chosen)
    return pretraining(
        PlacedForm(image=sizes.image)(sizes.encoder), _predictor(sizes, pyramid), streams=[pictures],
        momentum=sizes.momentum, finish=nn.Sequential(pyramid, LatentNorm()), still=pixels, generator=generator,
        **parts,
    )  # fmt: skip


def _predictor(sizes: LevelSizes, pyramid: TokenPyramid) -> nn.Module:
    places = LevelPlaces(pyramid, column_first(sizes.grid, sizes.predictor.width))
    plain = MaskedPredictor(sizes.predictor, places)
    if sizes.fusion == "none":
        return plain
    return TopDownPredictor(plain, pyramid, width=sizes.fusion_width, fusion=sizes.fusion)  # type: ignore[arg-type]
