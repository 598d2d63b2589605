"""Kind `pldm`: the variance, covariance and smoothness terms of PLDM, in its two definitions.

The terms stand here alone until a recipe on the shelf needs them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tests.golden.cases import GRADIENT, Case


def hinge(centred: Tensor, *, over: int) -> Tensor:
    """mean max(0, 1 - sqrt(variance + 1e-4)); the variance runs over axis `over`."""
    deviation = (centred.var(dim=over, correction=1) + 1e-4).sqrt()
    return (1 - deviation).clamp(min=0).mean()


def covariance(samples: Tensor) -> Tensor:
    """Mean squared off-diagonal entry of the covariance of already centred samples `(..., G, D)`."""
    count, width = samples.shape[-2:]
    matrix = samples.mT @ samples / (count - 1)
    squares = matrix.square()
    off_diagonal = squares.sum(dim=(-1, -2)) - squares.diagonal(dim1=-2, dim2=-1).sum(dim=-1)
    return (off_diagonal / (width * width - width)).mean()


def check(case: Case) -> None:
    latents = case.tensors["in.z"].requires_grad_()  # (B, T, D)
    terms = released_terms(case, latents)
    for name, value in terms.items():
        case.check(f"out.swm.{name}", value)
        case.compare(name, value, case.meta["values"][name])
    factors = case.meta["coefficients"]
    total = case.meta["pred_coefficient"] * terms["pred_loss"]
    total = total + sum(factor * terms[f"{name}_loss"] for name, factor in factors.items())
    total.backward()
    case.check("out.swm.total", total)
    case.compare("total", total, case.meta["total"])
    case.check("out.swm.grad_z", latents.grad, GRADIENT)
    for name, value in original_terms(case, latents.detach()).items():
        case.check(f"out.pldm.{name}", value)
        case.compare(name, value, case.meta["pldm_values"][name])


def released_terms(case: Case, latents: Tensor) -> dict[str, Tensor]:
    centred = latents - latents.mean(dim=0, keepdim=True)
    steps = latents[:, 1:] - latents[:, :-1]
    return {
        "pred_loss": (case.tensors["in.pred"] - latents[:, 1:]).square().mean(),
        "std_loss": hinge(centred, over=0),
        "std_t_loss": hinge(centred, over=1),
        "cov_loss": covariance(centred.transpose(0, 1)),
        "cov_t_loss": covariance(centred),
        "temp_align_loss": steps.square().mean(),
        "temp_straight_loss": -torch.cosine_similarity(steps[:, 1:], steps[:, :-1], dim=-1).mean(),
        "idm_loss": (case.tensors["in.action_pred"] - case.tensors["in.action_target"]).square().mean(),
    }


def original_terms(case: Case, latents: Tensor) -> dict[str, Tensor]:
    first, later = latents[:, 0], latents[:, 1:]
    centred = first - first.mean(dim=0)
    own = later - later.mean(dim=1, keepdim=True)
    cov, width = covariance(centred), first.shape[-1]
    return {
        "sim": (case.tensors["in.pred"] - later).square().mean(),
        "sim_t": (latents[:, 1:] - latents[:, :-1]).square().mean(),
        "std": hinge(first, over=0),
        "std_t": hinge(later, over=1),
        "cov": cov,
        "cov_t": covariance(own),
        "cov_unadjusted": cov * (width - 1),
    }
