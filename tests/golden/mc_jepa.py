"""Kind `mcjepa_reference_ops`: warping, photometric terms, correlation, variance-covariance and VICReg."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from jepa_mpc.world_model.parts.flow import (
    correlation,
    dissimilarity,
    end_point_error,
    in_view,
    roughness,
    round_trip,
    warp,
)
from jepa_mpc.world_model.parts.regularisers.two_views import TwoViews
from jepa_mpc.world_model.parts.regularisers.vicreg import VICReg
from tests.golden.cases import Case

SMALL = 0.05  # the share of their spread that "small" features keep


def check(case: Case) -> None:
    second, truth = case.tensors["in.image_t1"], case.tensors["in.flow_gt"]
    flows = {"zero": torch.zeros_like(truth), "half": truth / 2, **case.under("in.flow_")}
    first = warp(second, truth)
    _check_pictures(case, first, second, flows)
    case.check("out.valid", in_view(truth))
    case.check("out.fb_consistency", round_trip(truth, -truth))
    shifts = case.tensors["out.corr"].shape[1]
    case.check("out.corr", correlation(first, second, radius=(math.isqrt(shifts) - 1) // 2))
    _check_latents(case)


def _check_pictures(case: Case, first: Tensor, second: Tensor, flows: dict[str, Tensor]) -> None:
    truth = flows["gt"]
    losses: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
        "l1": lambda a, b: (a - b).abs(),
        "l2": lambda a, b: (a - b).square(),
        "ssim": dissimilarity,
    }
    for name in case.under("out.warp_"):
        case.check(f"out.warp_{name}", warp(second, flows[name]))
    for name in case.under("out.epe."):
        case.check(f"out.epe.{name}", end_point_error(flows[name], truth))
    for name in case.under("out.smooth_"):
        case.check(f"out.smooth_{name}", roughness(flows[name], first))
    for term, loss in losses.items():
        for name in case.under(f"out.rec_{term}."):
            case.check(f"out.rec_{term}.{name}", loss(warp(second, flows[name]), first).mean())


def _check_latents(case: Case) -> None:
    samples = case.tensors["in.feat"].permute(0, 2, 3, 1).flatten(0, -2)  # (B h w, C)
    missing, shared = VICReg().terms(samples)
    case.check("out.vc_var", missing)
    case.check("out.vc_cov", shared)
    case.check("out.vc_var_small", VICReg().terms(SMALL * samples)[0])
    first, second = case.tensors["in.z_a"], case.tensors["in.z_b"]
    loss = TwoViews()
    short = {"invariance": "inv", "variance": "var", "covariance": "cov"}
    for name, (_, term) in loss.terms(first, second).items():
        case.check(f"out.vicreg_{short[name]}", term)
    case.check("out.vicreg_total", loss(first, second))
