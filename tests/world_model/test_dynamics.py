"""Learned dynamics: the memory ceiling, short numbers, nothing that waits for the device, and long service."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from jepa_mpc.costs import PlanCost, WeightedSum, last
from jepa_mpc.encoders.layers.blocks import GatedModulation
from jepa_mpc.encoders.layers.weights import draw_weights
from jepa_mpc.planners import cem
from jepa_mpc.seeding import generator
from jepa_mpc.types import ActionBox, Context, Goal, PlanRequest
from jepa_mpc.world_model.costs.goal import GoalDistance, absolute, euclidean
from jepa_mpc.world_model.costs.terms import ActionRate, Effort
from jepa_mpc.world_model.dynamics.captured import CapturedDynamics
from jepa_mpc.world_model.dynamics.learned import LearnedDynamics
from jepa_mpc.world_model.memory.replay_buffer import ReplayBuffer
from jepa_mpc.world_model.parts.actions import ActionEncoder, ActionMap
from jepa_mpc.world_model.parts.predictors.causal import CausalPredictor, ProprioStream, ResidualOutput
from jepa_mpc.world_model.parts.predictors.frame_positions import RotaryPositions, WindowPositions
from jepa_mpc.world_model.parts.predictors.kept import Kept
from jepa_mpc.world_model.parts.predictors.precision import lowered
from jepa_mpc.world_model.parts.predictors.trunk import ConditionedTransformer, TrunkSizes
from tests.rounding import rounding

D, A, P = 12, 7, 3
STATM = Path("/proc/self/statm")


def make(*, window: int = 4, restarts: bool = False, num_tokens: int = 1, proprio: bool = False) -> CausalPredictor:
    sizes = TrunkSizes(width=16, depth=2, heads=2, head_dim=8, mlp_dim=32)
    predictor = CausalPredictor(
        trunk=ConditionedTransformer(D, sizes=sizes, output_dim=16, modulation_init=GatedModulation()),
        action_encoder=ActionEncoder(A, width=D, action_map=ActionMap(torch.full((A,), 0.5))),
        positions=WindowPositions(window=window, width=D, num_tokens=num_tokens)
        if restarts
        else RotaryPositions(window=window, head_dim=8, width=D, num_tokens=num_tokens),
        output=ResidualOutput(16, state_dim=D, scale=1.0),
        proprio=ProprioStream(torch.ones(P), cond_dim=D, raw_dim=16) if proprio else None,
    )
    draw_weights(predictor, generator(0))
    return predictor.eval().requires_grad_(False)


def context(frames: int = 3, *, worlds: int = 2, num_tokens: int = 1, proprio: bool = False) -> Context:
    draw = generator(1, frames)
    return Context(
        latents=torch.randn(worlds, frames, num_tokens, D, generator=draw),
        actions=torch.randn(worlds, frames - 1, A, generator=draw),
        proprio=torch.randn(worlds, frames, P, generator=draw) if proprio else None,
    )


def plans(worlds: int = 2, candidates: int = 5, horizon: int = 4) -> torch.Tensor:
    return torch.randn(worlds, candidates, horizon, A, generator=generator(2))


def recomputed(predictor: CausalPredictor, known: Context, candidates: torch.Tensor) -> torch.Tensor:
    """Each step runs all frames of the context and all imagined ones anew (the last window where positions restart)."""
    number = candidates.shape[1]
    latents, past = (x.repeat_interleave(number, dim=0) for x in (known.latents, known.actions))
    actions, frames = torch.cat([past, candidates.flatten(0, 1)], dim=1), latents.shape[1]
    view = predictor.window if predictor.positions.restarts else 10**6
    for now in range(frames, frames + candidates.shape[2]):
        start = max(0, now - view)
        latents = torch.cat([latents, predictor(latents[:, start:], actions[:, start:now])[:, -1:]], dim=1)
    return latents[:, frames:].unflatten(0, candidates.shape[:2])


class Waits(TorchDispatchMode):
    """Counts operations that bring a number of the device to the host."""

    KINDS = ("_local_scalar_dense", "nonzero", "is_nonzero", "equal", "masked_select", "_unique2")

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if any(str(func).startswith(f"aten.{kind}.") for kind in self.KINDS):
            self.found.append(str(func))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("restarts", [False, True])
@pytest.mark.parametrize("proprio", [False, True])
def test_a_memory_ceiling_changes_nothing(restarts: bool, proprio: bool, dtype: torch.dtype) -> None:
    predictor = make(restarts=restarts, num_tokens=2, proprio=proprio).to(dtype)
    known, candidates = context(num_tokens=2, proprio=proprio), plans().to(dtype)
    known = Context(**{name: None if x is None else x.to(dtype) for name, x in vars(known).items()})
    close = rounding(products=4 * 2 * 6, terms=32, dtype=dtype)  # steps, blocks, products in a block
    whole = LearnedDynamics(predictor, max_context=3).rollout(known, candidates)
    for fits in (1, 2, 3, 7):
        ceiling = fits * predictor.bytes_per_candidate(2, 4)
        pieces = LearnedDynamics(predictor, max_context=3, max_bytes=ceiling).rollout(known, candidates)
        torch.testing.assert_close(pieces.latents, whole.latents, **close)
        if proprio:
            torch.testing.assert_close(pieces.proprio, whole.proprio, **close)


def test_never_more_candidates_at_once_than_fit() -> None:
    predictor = make()
    rows: list[int] = []
    predictor.trunk.input_proj.register_forward_hook(lambda part, given, out: rows.append(out.shape[0]))
    LearnedDynamics(predictor, max_bytes=3 * predictor.bytes_per_candidate(1, 4)).rollout(context(), plans())
    assert max(rows) <= 3


def test_a_candidate_that_cannot_fit_is_refused_before_anything_runs() -> None:
    predictor = make()
    predictor.trunk.register_forward_pre_hook(lambda *_: pytest.fail("the predictor ran"))
    with pytest.raises(ValueError, match="one candidate of 4 steps needs about .* bytes, max_bytes is 1000"):
        LearnedDynamics(predictor, max_bytes=1000).rollout(context(), plans())


@pytest.mark.parametrize("restarts", [False, True])
def test_planning_never_waits_for_the_device(restarts: bool) -> None:
    predictor = make(restarts=restarts, num_tokens=2)
    known, candidates = context(num_tokens=2), plans()
    dynamics = LearnedDynamics(predictor, max_context=3, max_bytes=4 * predictor.bytes_per_candidate(2, 4))
    terms = {
        "near": (1.0, PlanCost(GoalDistance(distance=euclidean))),
        "end": (1.0, PlanCost(GoalDistance(distance=absolute), last)),
        "effort": (0.1, PlanCost(Effort(scale=torch.ones(A)))),
        "smooth": (0.1, PlanCost(ActionRate())),
    }
    cost, goal = WeightedSum(terms), Goal(latents=known.latents[:, -1])
    with torch.no_grad(), Waits() as waits:
        cost(dynamics.rollout(known, candidates), candidates, goal)
    assert waits.found == []
    with Waits() as waits:
        assert torch.ones(1).item() == 1
    assert waits.found  # the count can count


@pytest.mark.parametrize("restarts", [False, True])
@pytest.mark.parametrize("proprio", [False, True])
def test_short_numbers_give_nearly_the_same_future(restarts: bool, proprio: bool) -> None:
    predictor = make(restarts=restarts, proprio=proprio)
    known, candidates = context(proprio=proprio), plans()
    long = LearnedDynamics(predictor, max_context=3).rollout(known, candidates)
    short = LearnedDynamics(lowered(predictor), max_context=3).rollout(known, candidates)
    assert short.latents.dtype == torch.float32 and predictor.trunk.dtype == torch.float32
    # 8 bits of mantissa are 0.4 % per operation; two blocks and four steps add up to a few of those
    assert (short.latents - long.latents).norm() < 0.03 * long.latents.norm()
    if proprio:
        assert short.proprio.dtype == torch.float32
        assert (short.proprio - long.proprio).norm() < 0.03 * long.proprio.norm()


def test_short_weights_leave_constants_alone() -> None:
    short = lowered(make())
    assert short.trunk.dtype == torch.bfloat16 and short.positions.rotary.frequencies.dtype == torch.float32
    assert short.action_encoder.action_map.scale.dtype == torch.float32
    with pytest.raises(ValueError, match="floating type"):
        lowered(make(), torch.int8)


def test_the_gradient_in_the_plan_survives_short_numbers() -> None:
    candidates = plans().requires_grad_()
    LearnedDynamics(lowered(make()), max_context=3).rollout(context(), candidates).latents.sum().backward()
    assert candidates.grad is not None and candidates.grad.isfinite().all() and candidates.grad.abs().sum() > 0


def cycles(count: int, *, restarts: bool) -> None:
    """Observe, plan, advance, trim: what is kept gives what running everything anew gives, each time."""
    predictor, draw = make(window=5, restarts=restarts), generator(3)
    dynamics = {frames: LearnedDynamics(predictor, max_context=frames) for frames in range(1, 6)}
    memory = ReplayBuffer(capacity=5, window=5, action_dim=A)
    state = torch.randn(1, 1, D, generator=draw)
    for cycle in range(count):
        memory.see(state)
        frames = int(torch.randint(1, 6, (), generator=draw))
        known, candidates = memory.read(), torch.randn(1, 4, 3, A, generator=draw)
        assert known.latents.shape[1] == min(cycle % 40 + 1, 5)
        imagined = dynamics[frames].rollout(known, candidates).latents
        recent = Context(
            latents=known.latents[:, -frames:],
            actions=known.actions[:, known.actions.shape[1] - min(frames, known.latents.shape[1]) + 1 :],
        )
        with torch.no_grad():
            torch.testing.assert_close(imagined, recomputed(predictor, recent, candidates), atol=1e-5, rtol=1e-5)
        memory.did(candidates[:, 0, 0])
        state = imagined[:, 0, 0] + 0.01 * torch.randn(1, 1, D, generator=draw)
        state = state / state.norm() * D**0.5
        if cycle % 40 == 39:
            memory.clear()


@pytest.mark.parametrize("restarts", [False, True])
def test_a_receding_horizon_loop_equals_running_everything_anew(restarts: bool) -> None:
    cycles(60, restarts=restarts)


@pytest.mark.slow
@pytest.mark.parametrize("restarts", [False, True])
def test_two_hundred_cycles_equal_running_everything_anew(restarts: bool) -> None:
    cycles(200, restarts=restarts)


def test_what_is_kept_never_grows_beyond_its_limit() -> None:
    kept, joined = Kept(limit=4, room=8), Kept(limit=4)
    for step in range(50):
        new = torch.full((2, 3, 1, 5), float(step))
        key, value = kept.extend(new, -new)
        assert torch.equal(key[0, 0, :, 0], torch.arange(max(0, step - 3), step + 1).float())
        assert torch.equal(value, -key) and torch.equal(key, joined.extend(new, -new)[0])
        assert key.untyped_storage().nbytes() <= 8 * new.nbytes


def test_many_steps_one_by_one_equal_the_rollout() -> None:
    predictor, known, candidates = make(window=3), context(), plans(horizon=20)
    unrolling = predictor.start(known.latents, known.actions, candidates=5)
    steps = torch.stack([unrolling.step(candidates[:, :, h]) for h in range(20)], dim=2)
    torch.testing.assert_close(steps, predictor.rollout(known.latents, known.actions, candidates)[0])
    torch.testing.assert_close(steps, recomputed(predictor, known, candidates), atol=1e-5, rtol=1e-5)


def resident_bytes() -> int:
    gc.collect()
    return int(STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def growth(warm_up: int, count: int) -> float:
    """By what share the process grows over `count` plans, each of another number of candidates."""
    predictor, draw = make(), generator(4)
    dynamics, known = LearnedDynamics(predictor, max_context=3), context(worlds=1)
    box, goal, cost = (
        ActionBox(low=-torch.ones(A), high=torch.ones(A)),
        Goal(latents=known.latents[:, -1]),
        PlanCost(GoalDistance()),
    )

    def plan(number: int) -> None:
        cem(num_samples=16 + number % 16, num_elites=4, num_iterations=1).plan(
            PlanRequest(
                evaluate=lambda candidates: cost(dynamics.rollout(known, candidates), candidates, goal),
                box=box,
                batch=1,
                horizon=2,
                generator=draw,
            )
        )

    for number in range(warm_up):
        plan(number)
    before = resident_bytes()
    for number in range(count):
        plan(number)
    return resident_bytes() / before - 1


@pytest.mark.skipif(not STATM.exists(), reason="needs /proc")
def test_plan_after_plan_takes_no_more_memory() -> None:
    assert growth(50, 200) < 0.02


@pytest.mark.slow
@pytest.mark.skipif(not STATM.exists(), reason="needs /proc")
def test_ten_thousand_plans_take_no_more_memory() -> None:
    assert growth(500, 10_000) < 0.02


def test_a_graph_is_refused_where_it_cannot_be_recorded() -> None:
    captured = CapturedDynamics(LearnedDynamics(make()))
    with pytest.raises(ValueError, match="CUDA device, got cpu"):
        captured.rollout(context(), plans())
    with pytest.raises(ValueError, match="max_graphs"):
        CapturedDynamics(LearnedDynamics(make()), max_graphs=0)


@pytest.mark.gpu
@pytest.mark.parametrize("restarts", [False, True])
def test_a_replayed_rollout_equals_an_eager_one(restarts: bool) -> None:
    dynamics = LearnedDynamics(make(restarts=restarts).cuda(), max_context=3)
    captured = CapturedDynamics(dynamics, max_graphs=2)
    for candidates in (5, 3, 5, 4):
        known, tried = context(), plans(candidates=candidates).cuda()
        known = Context(latents=known.latents.cuda(), actions=known.actions.cuda())
        with torch.no_grad():
            expected = dynamics.rollout(known, tried).latents
        torch.testing.assert_close(captured.rollout(known, tried).latents, expected, atol=1e-5, rtol=1e-5)
