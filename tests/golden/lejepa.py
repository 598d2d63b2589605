"""Kind `lejepa_loss`: agreement of views, the regulariser of each view, their sum and its gradient."""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn

from jepa_mpc.encoders.layers.pixels import NormalisePixels
from jepa_mpc.world_model.parts.objectives.views import ToCentre, Views, ViewsObjective
from jepa_mpc.world_model.parts.regularisers.sigreg import SIGReg
from tests.golden.cases import GRADIENT, Case


class Along(nn.Module):
    """The regulariser along the directions of the case."""

    def __init__(self, regulariser: SIGReg, directions: Tensor) -> None:
        super().__init__()
        self.regulariser, self.directions = regulariser, directions

    def forward(self, latents: Tensor, generator: Generator) -> Tensor:
        return self.regulariser.along(latents, self.directions).mean()


def check(case: Case) -> None:
    meta, given = case.meta, case.tensors["out.directions"]
    regulariser = SIGReg(num_directions=meta["num_slices"], num_knots=meta["n_points"], span=meta["t_max"])
    for name, value in {"t": regulariser.knots, "phi": regulariser.normal, "weights": regulariser.weights}.items():
        case.check(f"out.{name}", value)
    projected = case.tensors["in.proj"].requires_grad_()
    case.check("out.epps_pulley_per_view_slice", regulariser.along(projected, given))
    _check_total(case, projected, Along(regulariser, given))
    _check_agreement(case, projected)
    for name, samples in case.under("out.sample.").items():
        case.checked.add(f"out.sample.{name}")  # made by the reference: an input here
        case.check(f"out.sigreg.{name}", regulariser.along(samples, given).mean())
    for step in case.under("out.sliced_step"):
        case.check(f"out.sliced_step{step}", regulariser(projected, Generator().manual_seed(int(step))))
    for step in case.under("out.directions_step"):
        drawn = regulariser.directions(projected, Generator().manual_seed(int(step)))
        case.check(f"out.directions_step{step}", drawn)
    case.check("out.directions", given / given.norm(dim=0))


def _check_total(case: Case, projected: Tensor, regulariser: nn.Module) -> None:
    weight = case.meta["lamb"]
    objective = ViewsObjective(
        encoder=nn.Identity(), projector=nn.Identity(), views=[Views(change=_same, count=2)], agreement=ToCentre(),
        weight=1 - weight, regularisers=[("sigreg", weight, regulariser)], prepare=NormalisePixels(),
    )  # fmt: skip
    terms = objective.terms(projected, Generator())
    case.check("out.invariance", terms["agreement"][1])
    case.check("out.sigreg", terms["sigreg"][1])
    total = sum((weight * term for weight, term in terms.values()), start=torch.zeros(()))
    case.check("out.total", total)
    (gradient,) = torch.autograd.grad(total, projected)
    case.check("out.grad_proj", gradient, GRADIENT)


def _check_agreement(case: Case, projected: Tensor) -> None:
    first = case.meta["num_global_views"]
    case.check("out.invariance_to_global_centroid_all_views", ToCentre(first=first)(projected))
    case.check("out.invariance_to_global_centroid_local_views", ToCentre(first=first, others=True)(projected))


def _same(frames: Tensor, generator: Generator) -> Tensor:
    return frames
