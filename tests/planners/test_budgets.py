"""Planners sized for a budget of evaluations, and the meter that counts what a search spends."""

from __future__ import annotations

import pytest
import torch

from jepa_mpc.planners import PLANNERS, build_planner
from jepa_mpc.planners.budgets import evaluations_of, free_request, needs_gradients, sized
from jepa_mpc.planners.meter import Metered
from jepa_mpc.types import ActionBox

BOX = ActionBox(low=-torch.ones(2), high=torch.ones(2))


@pytest.mark.parametrize("name", sorted(PLANNERS))
@pytest.mark.parametrize("budget", [150, 600])
def test_a_sized_planner_spends_its_budget_and_no_more(name: str, budget: int) -> None:
    arguments = sized(name, {}, budget=budget, box=BOX, horizon=5)
    spent = evaluations_of(build_planner(name, arguments), box=BOX, horizon=5)
    assert 0.8 * budget <= spent <= budget  # rounds cannot be cut: 16 starts or 32 plans at a time


def test_a_budget_that_no_round_fits_is_refused() -> None:
    with pytest.raises(ValueError, match="needs at least .* evaluations, got budget=3"):
        sized("cma", {}, budget=3, box=BOX, horizon=5)


def test_planners_that_need_gradients_are_told_apart() -> None:
    needing = {name for name in PLANNERS if needs_gradients(build_planner(name, {}), box=BOX, horizon=5)}
    assert needing == {"gradient", "cem_gradient", "grad_cem", "lifted"}


def test_the_meter_changes_no_plan_and_counts_every_candidate() -> None:
    planner = build_planner("icem", {"num_samples": 32, "num_elites": 4, "num_iterations": 3})
    metered = Metered(planner)
    alone, measured = (each.plan(free_request(box=BOX, horizon=5)) for each in (planner, metered))
    assert torch.equal(alone.actions, measured.actions)
    reading = metered.readings[0]
    assert reading.curve[-1][0] == reading.evaluations == alone.evaluations
    assert [best for _, best, _ in reading.curve] == pytest.approx(alone.trace[:, 0].tolist())
    assert reading.wall_s >= reading.curve[-1][2] > 0
