"""The overhead of a planner: searches with free dynamics, and many worlds in one call compared with one call each."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

from jepa_mpc.interfaces import Planner
from jepa_mpc.planners import cem, icem, mppi
from jepa_mpc.seeding import generator
from jepa_mpc.types import ActionBox, Costs, PlanRequest, Plans

HORIZON, ACTION_DIM, WIDTH = 5, 10, 16
PLANNERS: dict[str, Callable[..., Planner]] = {"cem": cem, "icem": icem, "mppi": mppi}
BOX = ActionBox(low=-torch.ones(ACTION_DIM), high=torch.ones(ACTION_DIM))


def overhead(name: str, *, samples: int, rounds: int, iterations: int = 30) -> dict[str, Any]:
    """CPU milliseconds per round of a search whose costs are computed from the plans alone.

    Args:
        name: Of the planner.
        samples: Plans per round.
        rounds: Number of searches; the result is their median.
        iterations: Rounds of each search.
    """
    planner = PLANNERS[name](num_samples=samples, num_elites=samples // 10, num_iterations=iterations)
    request = _request(lambda plans: plans[:, :, 0, 0], [0])
    planner.plan(request)
    times = [_busy_ms(lambda: planner.plan(request)) / iterations for _ in range(rounds)]
    return {"planner": name, "samples": samples, "ms per round": statistics.median(times), "fastest ms": min(times)}


def side_by_side(name: str, *, worlds: int, samples: int, rounds: int, seed: int) -> dict[str, Any]:
    """Plans per second of one call for all worlds against one call each, with a small recurrent network as model.

    Each world has its own random stream, so that its plan is the same in both.
    """
    stream = generator(seed, "model")
    into, out = torch.randn(WIDTH + ACTION_DIM, 64, generator=stream) / 5, torch.randn(64, WIDTH, generator=stream) / 5
    goals = torch.randn(worlds, WIDTH, generator=stream)
    planner, every = PLANNERS[name](num_samples=samples, num_elites=samples // 6, num_iterations=5), range(worlds)

    def model(of: Sequence[int]) -> Callable[[Plans], Costs]:
        def evaluate(plans: Plans) -> Costs:
            state = plans.new_zeros(*plans.shape[:2], WIDTH)
            for actions in plans.unbind(dim=2):
                state = state + torch.tanh(torch.cat([state, actions], dim=-1) @ into) @ out
            return (state - goals[list(of), None]).square().sum(dim=-1)

        return evaluate

    def together() -> torch.Tensor:
        return planner.plan(_request(model(every), every, seed)).actions

    def alone() -> torch.Tensor:
        return torch.cat([planner.plan(_request(model([world]), [world], seed)).actions for world in every])

    gap = float((together() - alone()).abs().max())
    times = [(_busy_ms(together), _busy_ms(alone)) for _ in range(rounds)]
    return {
        "planner": name,
        "samples": samples,
        "worlds": worlds,
        "one call ms": statistics.median(one for one, _ in times),
        "a call each ms": statistics.median(each for _, each in times),
        "ratio": statistics.median(each / one for one, each in times),
        "largest gap": gap,
    }


def _request(evaluate: Callable[[Plans], Costs], worlds: Sequence[int], seed: int = 0) -> PlanRequest:
    streams = [generator(seed, "world", world) for world in worlds]
    return PlanRequest(evaluate=evaluate, box=BOX, batch=len(worlds), horizon=HORIZON, generator=streams)


def _busy_ms(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return 1000 * (time.process_time() - start)
