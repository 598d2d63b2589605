"""Worlds side by side, one random stream each, and nothing that makes the device wait."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from jepa_mpc.planners import PLANNERS
from jepa_mpc.planners.problems import double_integrator, request_for
from jepa_mpc.seeding import generator
from jepa_mpc.types import PlanRequest

SAMPLING = ("random_shooting", "cem", "icem", "mppi", "cma", "slope")
WAITING = {"_local_scalar_dense", "nonzero", "is_nonzero", "equal", "masked_select", "unique2"}


def mass(worlds: int):
    start = torch.tensor([[1.0, -0.5, 0.2, 0.0]]) * torch.linspace(0.5, 2, worlds)[:, None]
    return double_integrator(start, torch.zeros(worlds, 2), horizon=5)


def request_of(worlds: list[int], total: int = 16) -> PlanRequest:
    """A request for some worlds of a larger problem, with each world's own stream."""
    whole = mass(total)
    part = dataclasses.replace(whole, start=whole.start[worlds])
    request = request_for(part, generator(0))
    return dataclasses.replace(request, generator=[generator(0, "world", world) for world in worlds])


@pytest.mark.parametrize("name", SAMPLING)
def test_sixteen_worlds_in_one_call_get_the_plans_of_sixteen_calls(name):
    """Sums over another batch may round differently: hence a tolerance, and not bits."""
    planner = PLANNERS[name](num_samples=64)
    together = planner.plan(request_of(list(range(16))))
    for world in (0, 5, 15):
        alone = planner.plan(request_of([world]))
        torch.testing.assert_close(together.actions[world], alone.actions[0], rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(together.cost[world], alone.cost[0], rtol=1e-4, atol=1e-5)


def test_a_worlds_stream_is_its_own():
    """The order of the worlds does not matter to any of them."""
    forward, backward = PLANNERS["cem"]().plan(request_of([3, 7])), PLANNERS["cem"]().plan(request_of([7, 3]))
    torch.testing.assert_close(forward.actions, backward.actions.flip(0))


def test_streams_must_be_as_many_as_worlds():
    with pytest.raises(ValueError, match="one per world"):
        dataclasses.replace(request_of([0, 1]), generator=[generator(0)])


class Waits(TorchDispatchMode):
    """Notes every operation whose result the host must wait for."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name in WAITING:
            self.seen.append(name)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", SAMPLING)
def test_no_round_waits_for_the_device(name, monkeypatch):
    """Between the first call of the model and the last, nothing is read back: no number, list or index of hits."""
    waits, calls, noted = Waits(), [], []
    for reader in ("item", "tolist", "cpu", "numpy", "__bool__", "__float__", "__int__"):
        original = getattr(torch.Tensor, reader)

        def spied(self: torch.Tensor, *args: Any, _original: Any = original, _name: str = reader, **kw: Any) -> Any:
            waits.seen.append(_name)
            return _original(self, *args, **kw)

        monkeypatch.setattr(torch.Tensor, reader, spied)
    problem = mass(2)

    def evaluate(plans: torch.Tensor) -> torch.Tensor:
        calls.append(len(waits.seen))
        return problem.evaluate(plans)

    planner = PLANNERS[name](num_samples=32) if name == "random_shooting" else PLANNERS[name](num_iterations=4)
    with waits:
        planner.plan(dataclasses.replace(request_for(problem, generator(0)), evaluate=evaluate))
        noted.extend(waits.seen[calls[0] : calls[-1]])
        assert bool(torch.ones(1).item()) and "item" in waits.seen  # the spy is awake
    assert noted == []
