"""Point-JEPA: a point-cloud encoder trained to predict masked neighbourhoods along an ordering of the cloud.

    loss = smooth L1(g(f(x seen), places), LN(f_ema(x))[places])          per run of masked neighbourhoods

Reference: Saito et al. 2024, arXiv:2404.16432.  "paper" has the released sizes and scales clouds to the unit sphere;
"small" and "tiny" are ours, for one CPU core, and keep metric positions (`Workspace`), which a planner needs.  One draw
of masks serves the whole batch, as published; masks="legacy_runs" also reveals a masked token if nothing else is
visible.  The predictor is initialised as in V-JEPA 2, where the released code uses the framework's default.
"""

from __future__ import annotations

from typing import Any

from torch import Generator, nn

from jepa_mpc.encoders.layers.clouds import UnitSphere, Workspace
from jepa_mpc.encoders.layers.drops import Drops
from jepa_mpc.encoders.points import PointSizes
from jepa_mpc.errors import choose
from jepa_mpc.world_model.parts.cloud_changes import CloudChanges, Subsample, published_changes
from jepa_mpc.world_model.parts.distances import Distance, SmoothAbsoluteError
from jepa_mpc.world_model.parts.masks.points import POINT_RUNS, pair
from jepa_mpc.world_model.parts.objectives.cloud_pretraining import CloudSizes, cloud_pretraining
from jepa_mpc.world_model.parts.objectives.clouds import CloudObjective
from jepa_mpc.world_model.parts.predictors.cloud_places import CloudPlaces
from jepa_mpc.world_model.parts.predictors.masked import MaskedPredictor, MaskedSizes
from jepa_mpc.world_model.parts.targets import linear_momentum

LAB = Workspace(centre=(0.6, 0.0, 0.2), half=0.6)
"""Bounds of the lab's table in the base frame, m."""


PRESETS = {
    "paper": CloudSizes(
        encoder=PointSizes(
            width=384, depth=12, heads=6, mlp_dim=1536, drops=Drops(features=0.1, attention=0.05, path=0.25)
        ),
        predictor=MaskedSizes(
            inputs=384, outputs=384, width=192, depth=6, heads=6, mlp_dim=768, mask_tokens=1, eps=1e-5
        ),
        momentum=linear_momentum(0.9995, 0.99999),
        frame=UnitSphere(),
        augment=published_changes(points=1024),
    ),
    "small": CloudSizes(
        encoder=PointSizes(width=96, depth=4, heads=3, mlp_dim=384, groups=48, group_size=24, net=(32, 64, 96)),
        predictor=MaskedSizes(inputs=96, outputs=96, width=64, depth=3, heads=2, mlp_dim=256, mask_tokens=1),
        momentum=linear_momentum(0.99, 1.0),
        frame=LAB,
        augment=CloudChanges([Subsample(512)]),
    ),
    "tiny": CloudSizes(
        encoder=PointSizes(width=32, depth=2, heads=2, mlp_dim=64, groups=16, group_size=8, net=(8, 16, 32), place=16),
        predictor=MaskedSizes(inputs=32, outputs=32, width=24, depth=2, heads=2, mlp_dim=48, mask_tokens=1),
        momentum=linear_momentum(0.99, 1.0),
        frame=nn.Identity(),
        augment=CloudChanges([Subsample()]),
    ),
}


def build(
    *,
    preset: str | CloudSizes = "paper",
    masks: str = "runs",
    target: tuple[float, float] = (0.15, 0.2),
    context: tuple[float, float] = (0.4, 0.75),
    distance: Distance | None = None,
    generator: Generator | None = None,
    **parts: Any,
) -> CloudObjective:
    """Assemble the training loss; other systems use its `published` encoder.

    Args:
        preset: A name of `PRESETS`, or custom sizes.
        masks: Name of the sampler in `POINT_RUNS`.
        target: Smallest and largest share of the tokens in one masked run.
        context: Smallest and largest visible share of the others.
        distance: Between predicted and true tokens; by default smooth L1 with beta 2.
        generator: Draws all initial weights; by default the global stream is used.
        **parts: Further parts of `cloud_pretraining`.

    Raises:
        UnknownName: If there is no such preset or sampler.
        ValueError: If a share is out of range.
    """
    sizes = choose(PRESETS, preset, "preset") if isinstance(preset, str) else preset
    runs = choose(POINT_RUNS, masks, "mask sampler")
    sampler = runs(num_tokens=sizes.encoder.groups, target=pair("target", target), context=pair("context", context))
    predictor = MaskedPredictor(sizes.predictor, CloudPlaces(sizes.predictor.width, hidden=sizes.encoder.place))
    return cloud_pretraining(
        sizes, predictor, sampler=sampler, distance=distance or SmoothAbsoluteError(beta=2.0), generator=generator,
        **parts,
    )  # fmt: skip
