"""What every planner promises, however small its budget: how near it comes to an optimum is tested elsewhere."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from functools import partial

import pytest
import torch

from jepa_mpc.planners import PLANNERS, NoValidPlan, hand_cem
from jepa_mpc.planners.problems import Detour, double_integrator, memoryless, request_for
from jepa_mpc.seeding import generator
from jepa_mpc.types import ActionBox, PlanRequest, PlanStatus

Evaluate = Callable[[torch.Tensor], torch.Tensor]

BOX = ActionBox(low=torch.tensor([-1.0, -0.01, 0.0, 0.3]), high=torch.tensor([0.5, 0.02, 0.0, 0.3]))


def mass(worlds: int = 3, horizon: int = 6):
    start = torch.tensor([[1.0, -0.5, 0.2, 0.0]]) * torch.linspace(1, 2, worlds)[:, None]
    return double_integrator(start, torch.zeros(worlds, 2), horizon=horizon)


def towards(target: torch.Tensor, *, worlds: int = 2, horizon: int = 4, seed: int = 0, **changes) -> PlanRequest:
    """A request in a box of unequal units with two fixed axes."""

    def evaluate(plans: torch.Tensor) -> torch.Tensor:
        return (plans - target).square().sum(dim=(-2, -1))

    request = PlanRequest(
        evaluate=evaluate,
        steps=memoryless(evaluate, torch.zeros(worlds, horizon, len(target))),
        box=BOX,
        batch=worlds,
        horizon=horizon,
        generator=generator(seed, "planner"),
        fallback=BOX.clip(torch.zeros(worlds, horizon, 4)),
    )
    return dataclasses.replace(request, **changes)


def storm(share: float, value: float, seed: int = 0) -> Callable[[Evaluate], Evaluate]:
    """Spoil a share of all costs, at random."""
    stream = generator(seed, "storm")

    def wrap(evaluate: Evaluate) -> Evaluate:
        def spoiled(plans: torch.Tensor) -> torch.Tensor:
            hit = torch.rand(plans.shape[:2], generator=stream) < share
            return torch.where(hit, value, evaluate(plans))

        return spoiled

    return wrap


def in_box(actions: torch.Tensor, box: ActionBox) -> bool:
    return bool((actions >= box.low).all() and (actions <= box.high).all())


@pytest.fixture(params=sorted(PLANNERS))
def planner(request: pytest.FixtureRequest):
    return PLANNERS[request.param]()


def test_a_plan_beats_standing_still(planner):
    detour = Detour(start=torch.tensor([[-1.0, 0.1]]), goal=torch.ones(1, 2), obstacle=torch.zeros(2))
    for problem in (mass(), detour):
        still = problem.evaluate(torch.zeros(problem.batch, 1, problem.horizon, 2))[:, 0]
        assert (planner.plan(request_for(problem, generator(0, "planner"))).cost < still).all()


def test_the_cost_is_that_of_the_returned_plan(planner):
    problem = mass()
    result = planner.plan(request_for(problem, generator(0, "planner")))
    torch.testing.assert_close(problem.evaluate(result.actions[:, None])[:, 0], result.cost)


def test_the_trace_never_rises_and_ends_at_the_cost(planner):
    result = planner.plan(request_for(mass(), generator(0, "planner")))
    assert (result.trace.diff(dim=0) <= 0).all()
    assert torch.equal(result.trace[-1], result.cost)
    assert len(result.trace) == result.iterations


def test_plans_stay_in_the_box_and_fixed_axes_stay_fixed(planner):
    seen = []
    request = towards(torch.tensor([5.0, -5.0, 5.0, 5.0]))

    def evaluate(plans: torch.Tensor) -> torch.Tensor:
        seen.append(plans.detach())
        return request.evaluate(plans)

    result = planner.plan(dataclasses.replace(request, evaluate=evaluate))
    assert all(in_box(plans, BOX) for plans in [*seen, result.actions])
    assert (result.actions[..., 2:] == torch.tensor([0.0, 0.3])).all()
    assert result.actions.shape == (2, 4, 4) and result.actions.dtype == BOX.low.dtype


def test_the_same_seed_gives_the_same_plan(planner):
    first, second = (planner.plan(request_for(mass(), generator(3, "planner"))) for _ in range(2))
    assert torch.equal(first.actions, second.actions)
    assert torch.equal(first.trace, second.trace)


def test_another_worlds_goal_never_alters_a_plan(planner):
    problem = mass()
    moved = dataclasses.replace(problem, start=problem.start * torch.tensor([1.0, 1.0, -7.0])[:, None])
    plain, other = (planner.plan(request_for(p, generator(0, "planner"))) for p in (problem, moved))
    assert torch.equal(plain.actions[:2], other.actions[:2])
    assert not torch.equal(plain.actions[2], other.actions[2])


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_another_worlds_broken_costs_never_alter_a_plan(planner, value):
    def poison(evaluate: Evaluate) -> Evaluate:
        def poisoned(plans: torch.Tensor) -> torch.Tensor:
            return evaluate(plans) * torch.tensor([1.0, value, 1.0])[:, None]

        return poisoned

    fallback = torch.full((3, 6, 2), 0.25)
    clean = planner.plan(request_for(mass(), generator(0, "planner")))
    request = dataclasses.replace(request_for(mass(), generator(0, "planner"), wrap=poison), fallback=fallback)
    result = planner.plan(request)
    assert torch.equal(result.actions[[0, 2]], clean.actions[[0, 2]])
    assert torch.equal(result.actions[1], fallback[1])
    assert result.status[1] is PlanStatus.NO_VALID and math.isnan(result.cost[1])
    assert PlanStatus.NO_VALID not in (result.status[0], result.status[2])


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("share", [0.01, 0.33, 0.9, 0.97])
def test_invalid_candidates_never_win(planner, share, value):
    problem = mass()
    fallback = torch.zeros(3, 6, 2)
    request = request_for(problem, generator(0, "planner"), wrap=storm(share, value))
    result = planner.plan(dataclasses.replace(request, fallback=fallback))
    assert in_box(result.actions, request.box)
    for world, state in enumerate(result.status):
        if state is PlanStatus.NO_VALID:
            assert torch.equal(result.actions[world], fallback[world])
        else:
            assert state is PlanStatus.DEGRADED
            torch.testing.assert_close(problem.evaluate(result.actions[:, None])[world, 0], result.cost[world])
    assert (result.num_valid < result.evaluations).all()


def test_without_a_valid_candidate_the_fallback_is_returned(planner):
    fallback = torch.full((3, 6, 2), 9.0)
    request = request_for(mass(), generator(0, "planner"), wrap=storm(1.1, math.nan))
    result = planner.plan(dataclasses.replace(request, fallback=fallback))
    assert set(result.status) == {PlanStatus.NO_VALID}
    assert torch.equal(result.actions, torch.full((3, 6, 2), 3.0))
    assert result.cost.isnan().all() and (result.num_valid == 0).all()
    with pytest.raises(NoValidPlan, match="worlds"):
        planner.plan(request_for(mass(), generator(0, "planner"), wrap=storm(1.1, math.nan)))


def test_a_model_that_breaks_halfway_leaves_the_best_plan_so_far(planner):
    calls = []

    def breaking(evaluate: Evaluate) -> Evaluate:
        def spoiled(plans: torch.Tensor) -> torch.Tensor:
            calls.append(1)
            return evaluate(plans) * (math.nan if len(calls) > 1 else 1.0)

        return spoiled

    result = planner.plan(request_for(mass(), generator(0, "planner"), wrap=breaking))
    assert result.cost.isfinite().all()
    torch.testing.assert_close(mass().evaluate(result.actions[:, None])[:, 0], result.cost)


def test_costs_of_double_precision_are_searched_as_well(planner):
    target = torch.tensor([0.3, 0.005, 0.0, 0.3])
    single = towards(target)
    double = dataclasses.replace(single, evaluate=lambda plans: single.evaluate(plans).double())
    result = planner.plan(double)
    assert result.actions.dtype == torch.float32 and in_box(result.actions, BOX)
    assert (result.cost < single.evaluate(torch.zeros(2, 1, 4, 4))[:, 0]).all()


@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e30])
def test_flat_tiny_and_huge_costs_are_survived(planner, scale):
    request = towards(torch.full((4,), 0.3))
    result = planner.plan(dataclasses.replace(request, evaluate=lambda plans: scale * request.evaluate(plans)))
    assert in_box(result.actions, BOX) and result.cost.isfinite().all()
    assert (result.num_valid == result.evaluations).all()


def test_one_step_and_no_action_axes_are_survived(planner):
    assert planner.plan(towards(torch.zeros(4), horizon=1)).actions.shape == (2, 1, 4)
    empty = ActionBox(low=torch.zeros(0), high=torch.zeros(0))
    request = towards(torch.zeros(0), box=empty, fallback=None)
    assert planner.plan(request).actions.shape == (2, 4, 0)


def test_a_warm_start_and_candidates_are_tried_as_they_are(planner):
    needle = BOX.clip(torch.tensor([0.1234567, -0.0071234, 0.0, 0.3]).expand(2, 4, 4))

    def evaluate(plans: torch.Tensor) -> torch.Tensor:
        found = (plans == needle[:, None]).all(dim=-1).all(dim=-1)
        return torch.where(found, -1.0, 1.0) + 0.0 * plans.sum(dim=(-2, -1))

    spoiled = torch.cat([torch.full((2, 1, 4, 4), math.nan), needle[:, None]], dim=1)
    for given in ({"warm_start": needle}, {"candidates": spoiled}):
        result = planner.plan(towards(torch.zeros(4), evaluate=evaluate, **given))
        assert torch.equal(result.actions, needle)


def test_a_spent_budget_is_told_and_the_warm_start_is_never_worsened(planner):
    """A clock that runs 5 ms per call of the model: no call begins after the deadline."""
    problem, now = mass(), [0.0]

    def slow(plans: torch.Tensor) -> torch.Tensor:
        now[0] += 0.005
        return problem.evaluate(plans)

    warm = problem.optimum()[0].clamp(-3, 3) * 0.9
    least = problem.evaluate(warm[:, None])[:, 0]
    for budget in (0.004, 0.02, 0.05):
        request = dataclasses.replace(
            request_for(problem, generator(0, "planner")),
            evaluate=slow,
            warm_start=warm,
            deadline_s=budget,
            clock=lambda: now[0],
        )
        result = planner.plan(request)
        assert result.seconds <= budget + 0.005 + 1e-9
        assert (result.cost <= least * (1 + 1e-6)).all()  # kernels sum in another order for another number of plans
        told = any("time ran out" in warning for warning in result.warnings)
        assert told == (set(result.status) == {PlanStatus.DEADLINE})


def test_a_deadline_that_passed_before_the_first_call_gives_the_fallback(planner):
    request = towards(torch.zeros(4), deadline_s=0.0)
    result = planner.plan(request)
    assert set(result.status) == {PlanStatus.NO_VALID} and result.evaluations == 0
    assert torch.equal(result.actions, request.fallback)


def test_a_deadline_below_one_call_ends_the_search_after_one_call(planner):
    """Calls of the cost and of the step model are counted alike: each costs a pass of the model."""
    problem, calls = mass(), []

    def counted(function):
        def call(*arguments):
            calls.append(function)
            return function(*arguments)

        return call

    steps = problem.steps()
    request = dataclasses.replace(
        request_for(problem, generator(0, "planner"), wrap=counted),
        steps=dataclasses.replace(
            steps, follow=counted(steps.follow), imagine=counted(steps.imagine), judge=counted(steps.judge)
        ),
        deadline_s=0.5,
        clock=lambda: float(len(calls)),
    )
    result = planner.plan(request)
    assert len(calls) == 1 and result.cost.isfinite().all()


@pytest.mark.parametrize("deadline_s", [-1.0, math.nan])
def test_a_negative_or_undefined_deadline_is_refused(deadline_s):
    with pytest.raises(ValueError, match="deadline_s must be 0 or more seconds"):
        towards(torch.zeros(4), deadline_s=deadline_s)


BOXES = {
    "bounds of every kind": ActionBox(
        low=torch.tensor([0.2, -1.0, 0.3, 0.0, 1e-6, -1e-30, -1e4, -1e15]),
        high=torch.tensor([1.0, -0.5, 0.3, 0.0, 2e-6, 1e-30, 3e4, 1e15]),
    ),
    "a single point": ActionBox(low=torch.full((7,), 0.2), high=torch.full((7,), 0.2)),
    "nearly all numbers": ActionBox(low=torch.full((7,), -3e38), high=torch.full((7,), 3e38)),
    "least numbers": ActionBox(low=torch.full((7,), -1e-45), high=torch.full((7,), 1e-45)),
}
GRIPPERS = {
    "hand_cem, gripper closes": partial(hand_cem, gripper=6, close_from=1),
    "hand_cem, mean answered": partial(hand_cem, gripper=6, answer="mean"),
}


@pytest.mark.parametrize("where", ["inside", "corner", "outside"])
@pytest.mark.parametrize("bounds", sorted(BOXES))
@pytest.mark.parametrize("name", sorted({**PLANNERS, **GRIPPERS}))
def test_every_plan_lies_in_any_box(name, bounds, where):
    """Fixed axes, boxes without zero, tiny and huge ones; the cheapest action inside, in a corner and outside."""
    box, seen = BOXES[bounds], []
    half = box.high / 2 - box.low / 2
    unit = torch.where(half > 0, half, 1.0)
    share = {"inside": 0.3, "corner": 1.0, "outside": 1.5}[where]

    def cost(plans: torch.Tensor) -> torch.Tensor:
        return ((plans - (box.low + half)) / unit - share).square().sum(dim=(-2, -1))

    def evaluate(plans: torch.Tensor) -> torch.Tensor:
        seen.append(plans.detach())
        return cost(plans)

    still = box.clip(torch.zeros(1, 2, box.dim))
    steps = memoryless(cost, still)
    request = towards(
        torch.zeros(box.dim), worlds=1, horizon=2, box=box, fallback=still, evaluate=evaluate, steps=steps
    )
    result = {**PLANNERS, **GRIPPERS}[name]().plan(request)
    assert all(in_box(plans, box) for plans in [*seen, result.actions])
    assert result.cost.isfinite().all()


def test_a_box_without_bounds_is_refused():
    with pytest.raises(ValueError, match="action bounds must be finite"):
        ActionBox(low=torch.tensor([-math.inf]), high=torch.tensor([1.0]))


def test_costs_of_a_wrong_shape_are_refused(planner):
    with pytest.raises(ValueError, match="shape"):
        planner.plan(towards(torch.zeros(4), evaluate=lambda plans: plans.sum(dim=-1)))
