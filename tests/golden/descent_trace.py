"""Kind `gd_planner_trace`: descent of one plan through a written-out model, step by step, under four settings.

Each setting has an optimiser of actions in their own unit, most with a cosine that leads its rate to zero, and a cost
on the last imagined frame or, with growing weights, on all of them. The plan begins at zero.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR

from jepa_mpc.planners import GradientPlanner
from jepa_mpc.seeding import generator
from jepa_mpc.types import ActionBox, Costs, PlanRequest, Plans
from tests.golden.cases import Case
from tests.golden.planner_parts import NO_LIMIT, InUnits

OPTIMISERS = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}
Settings = dict[str, Any]


def check(case: Case) -> None:
    for name, settings in case.meta["runs"].items():
        _check_run(case, name, settings)


def _check_run(case: Case, name: str, settings: Settings) -> None:
    seen: list[tuple[Plans, Costs]] = []

    def evaluate(plans: Plans) -> Costs:
        costs = _cost(plans, case.under("in."), **settings["objective"])
        seen.append((plans.detach(), costs.detach()))
        return costs

    steps, dim = settings["opt_steps"], case.meta["action_dim"]
    planner = GradientPlanner(
        optimiser=partial(InUnits, make=partial(_optimiser, settings=settings), half=NO_LIMIT, clip=None),
        num_starts=1,
        num_iterations=steps + 1,
        initial_std=0.0,
    )
    box = ActionBox(low=torch.full((dim,), -NO_LIMIT), high=torch.full((dim,), NO_LIMIT))
    worlds = len(case.tensors["in.z0"])
    planner.plan(
        PlanRequest(evaluate=evaluate, box=box, batch=worlds, horizon=case.meta["horizon"], generator=generator(0))
    )
    plans, costs = (torch.stack(each) for each in zip(*seen, strict=True))  # (I, B, 1, H, A) and (I, B, 1)
    case.check(f"out.{name}.actions", plans[1:, :, 0])
    case.check(f"out.{name}.final", plans[-1, :, 0])
    case.compare(f"{name} losses", costs[:-1].sum(dim=(1, 2)), torch.tensor(settings["losses"]))


def _optimiser(actions: list[Tensor], *, settings: Settings) -> Optimizer:
    optimiser = OPTIMISERS[settings["optimizer"]](actions, lr=settings["lr"])
    if settings.get("use_cosine_scheduler", True):
        schedule = CosineAnnealingLR(optimiser, settings["opt_steps"])
        optimiser.register_step_post_hook(lambda *_: schedule.step())
    return optimiser


def _cost(plans: Plans, model: dict[str, Tensor], *, mode: str, alpha: float, base: float) -> Costs:
    """How far latents z and places p end from the goal's: z <- tanh(z W + a U), p <- p + a Wp."""
    latents, places = model["z0"].expand(-1, plans.shape[1], -1), model["p0"].expand(-1, plans.shape[1], -1)
    gaps = [_gap(latents, places, model, alpha)]
    for actions in plans.unbind(2):
        latents, places = torch.tanh(latents @ model["W"] + actions @ model["U"]), places + actions @ model["Wp"]
        gaps.append(_gap(latents, places, model, alpha))
    if mode == "last":
        return gaps[-1]
    weights = base ** torch.arange(len(gaps), dtype=plans.dtype)
    return (torch.stack(gaps, dim=-1) * weights / weights.sum()).mean(dim=-1)


def _gap(latents: Tensor, places: Tensor, model: dict[str, Tensor], alpha: float) -> Costs:
    apart = (latents - model["z_goal"]).square().mean(dim=-1)
    return apart + alpha * (places - model["p_goal"]).square().mean(dim=-1)
