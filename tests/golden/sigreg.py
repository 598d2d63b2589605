"""Kind `sigreg`: values, gradients and per-direction statistics of the regulariser."""

from __future__ import annotations

import re

from jepa_mpc.world_model.parts.regularisers.sigreg import SIGReg
from tests.golden.cases import GRADIENT, Case


def check(case: Case) -> None:
    regulariser = SIGReg(num_directions=case.meta["num_proj"], num_knots=case.meta["knots"], span=case.meta["t_max"])
    case.check("out.t", regulariser.knots)
    case.check("out.phi", regulariser.normal)
    case.check("out.weights", regulariser.weights)
    for name, facts in case.meta["cases"].items():
        latents = case.tensors[f"in.{name}.z"].requires_grad_()
        statistic = regulariser.along(latents, case.tensors[f"in.{name}.directions"])
        value = statistic.mean()
        value.backward()
        case.check(f"out.{name}.per_direction", statistic)
        case.check(f"out.{name}.sigreg", value)
        case.compare(f"{name} value", value, facts["value"])
        case.check(f"out.{name}.grad_z", latents.grad, GRADIENT)
    for key in case.under("out.uni."):
        _check_univariate(case, key)


def _check_univariate(case: Case, key: str) -> None:
    """Keys are `<sample>.knots<K>[_tmax<span>]`."""
    sample, rule = key.rsplit(".knots", 1)
    match = re.fullmatch(r"(\d+)(?:_tmax([\d.]+))?", rule)
    assert match, f"unknown integration rule {rule!r}"
    span = float(match.group(2) or case.meta["t_max"])
    regulariser = SIGReg(num_directions=1, num_knots=int(match.group(1)), span=span)
    samples = case.tensors[f"in.uni.{sample}"][:, None]
    case.check(f"out.uni.{key}", regulariser.along(samples, samples.new_ones(1, 1)).mean())
