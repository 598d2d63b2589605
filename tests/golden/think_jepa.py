"""Kind `thinkjepa_guidance`: the guided predictor in each of its forms, with and without a thinker."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from jepa_mpc.world_model.adapters.think_jepa import predictor
from jepa_mpc.world_model.parts.distances import SquaredError
from jepa_mpc.world_model.parts.predictors.guidance import FilmGuidance, ThinkerFeatures
from tests.golden.cases import Case


@torch.no_grad()
def check(case: Case) -> None:
    meta, tokens = case.meta, case.tensors["in.tokens"]
    grid = _grid(meta["grid"])
    count = int(meta["context_frames"]) * grid[0] * grid[1]
    network = predictor(
        case.under("param."),
        grid=grid,
        heads=int(meta["heads"]),
        guidance_heads=meta.get("guidance_heads"),
        eps=float(meta.get("norm_eps", 1e-6)),
    ).eval()
    features = _features(case)
    at = torch.arange(tokens.shape[1]).expand(len(tokens), -1)
    seen = (tokens[:, :count], at[:, :count], at[:, count:])
    token = int(meta.get("mask_token", 1))
    predicted = network(*seen, features=features, mask_token=token)
    case.check("out.pred", predicted)
    case.check("out.pred_without_guidance", network.predictor(*seen, mask_token=token))
    case.check("out.latent_mse", SquaredError()(predicted, tokens[:, count:]))
    if "out.scale_shift" in case.tensors:
        thoughts = network.thoughts(features, len(network.guides))
        told = [
            torch.stack(guide.modulation(thought), dim=1)
            for guide, thought in zip(network.guides, thoughts, strict=True)
            if isinstance(guide, FilmGuidance)
        ]
        case.check("out.scale_shift", torch.stack(told, dim=1))  # (B, layers, 2, d)


def _features(case: Case) -> ThinkerFeatures:
    given = case.under("in.")
    old, new = given["vlm_old"], given["vlm_new"]
    return ThinkerFeatures(
        old=old,
        old_mask=_mask(given.get("vlm_old_mask"), old),
        new=new,
        new_mask=_mask(given.get("vlm_new_mask"), new),
        frames=torch.zeros(len(old), 1, dtype=torch.int64),
    )


def _mask(mask: Tensor | None, states: Tensor) -> Tensor:
    return torch.ones(len(states), states.shape[2], dtype=torch.bool) if mask is None else mask.bool()


def _grid(size: Any) -> tuple[int, int]:
    return (int(size), int(size)) if isinstance(size, int) else (int(size[0]), int(size[1]))
