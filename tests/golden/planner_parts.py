"""What both planner kinds need: the analytic problems of a case, and parts that replay a recorded search."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from torch.optim import Optimizer

from jepa_mpc.planners.noise import Shape
from jepa_mpc.planners.problems import Detour, Multimodal, Problem, Quadratic, double_integrator
from jepa_mpc.planners.refit import Gaussian, Refit
from jepa_mpc.types import Costs, Plans, Streams

NO_LIMIT = 2.0**20  # a power of two: shares of it are exact


def problem_of(kind: str, facts: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Problem:
    """The analytic problem of a case; `tensors` are its arrays by their short names."""
    own = dict(facts.get("constants", {}))
    match kind:
        case "quadratic":
            return Quadratic(target=tensors["target"], scale=tensors["scale"])
        case "double_integrator":
            names = {"dt": "dt_s", "w_run": "running", "w_u": "effort", "w_term": "final"}
            settings = {names[name]: value for name, value in own.items()}
            return double_integrator(tensors["x0"], tensors["goal"], horizon=facts["horizon"], **settings)
        case "multimodal":
            names = {"amp": "amplitude", "freq": "frequency"}
            return Multimodal(target=tensors["target"], **{names[name]: value for name, value in own.items()})
        case "detour":
            names = {"radius": "radius", "step": "step", "w_obs": "weight"}
            settings = {names[name]: value for name, value in own.items()}
            places = {"start": tensors["x0"], "goal": tensors["goal"], "obstacle": tensors["obstacle"]}
            return Detour(**places, horizon=facts["horizon"], **settings)
    raise ValueError(f"unknown problem {kind!r}")


@dataclass
class RecordedNoise:
    """Gives back recorded noise `B S H A`, draw by draw; missing first samples (that the search sets) are zero."""

    draws: list[Tensor]
    used: int = 0

    def __call__(self, shape: Shape, generator: Streams, like: Tensor) -> Plans:
        draw = self.draws[self.used]
        self.used += 1
        missing = draw.new_zeros(shape[0], shape[1] - draw.shape[1], *shape[2:])
        drawn = torch.cat([missing, draw], dim=1)
        assert tuple(drawn.shape) == shape, f"recorded {tuple(draw.shape)}, asked for {shape}"
        return drawn


@dataclass
class Witness:
    """A refit that writes down every round of another one."""

    refit: Refit
    rounds: list[tuple[Plans, Costs, Gaussian]] = field(default_factory=list)

    @property
    def min_samples(self) -> int:
        return self.refit.min_samples

    def __call__(self, old: Gaussian, plans: Plans, costs: Costs) -> Gaussian:
        new = self.refit(old, plans, costs)
        self.rounds.append((plans.clone(), costs.clone(), new))
        return new


class InUnits(Optimizer):
    """An optimiser of actions in their own unit behind one of shares of the box (whose middle is 0).

    Args:
        shares: The parameters of the planner.
        make: Makes the optimiser of the actions.
        half: Half the width of the box.
        clip: Largest norm of the whole gradient, or None.
    """

    def __init__(
        self, shares: Iterable[Tensor], make: Callable[[list[Tensor]], Optimizer], *, half: float, clip: float | None
    ) -> None:
        super().__init__(shares, {})
        self.shares = [share for group in self.param_groups for share in group["params"]]
        self.half, self.clip = half, clip
        self.actions = [(share.detach() * half).requires_grad_() for share in self.shares]
        self.inner = make(self.actions)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        for share, action in zip(self.shares, self.actions, strict=True):
            action.copy_(share * self.half)
            action.grad = share.grad / self.half
        if self.clip is not None:
            clip_grad_norm_(self.actions, self.clip)
        self.inner.step()
        for share, action in zip(self.shares, self.actions, strict=True):
            share.copy_(action / self.half)
