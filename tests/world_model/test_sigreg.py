"""SIGReg: low on a Gaussian, high on anything else."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
import torch
from torch import distributed, multiprocessing

from jepa_mpc.seeding import generator
from jepa_mpc.world_model.parts.regularisers.sigreg import PooledOverTime, SIGReg


def gaussian(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=generator(0))


def test_a_gaussian_costs_least() -> None:
    regulariser, normal = SIGReg(num_directions=128), gaussian(1, 256, 8)
    line = normal * torch.eye(8)[0]
    others = {"line": line, "point": 0 * normal, "shifted": normal + 1, "wide": 3 * normal}
    costs = {name: float(regulariser(x, generator(1))) for name, x in others.items()}
    assert min(costs.values()) > 1.5 * float(regulariser(normal, generator(1)))
    assert costs["point"] > 10


def test_chunks_of_directions_change_nothing() -> None:
    latents = gaussian(3, 32, 8)
    whole, parts = SIGReg(num_directions=50), SIGReg(num_directions=50, chunk=7)
    torch.testing.assert_close(whole(latents, generator(1)), parts(latents, generator(1)))


def test_sample_sets_are_averaged_and_pooling_makes_one_set() -> None:
    latents, regulariser = gaussian(3, 32, 8), SIGReg(num_directions=16)
    each = torch.stack([regulariser(part, generator(1)) for part in latents])
    torch.testing.assert_close(regulariser(latents, generator(1)), each.mean())
    torch.testing.assert_close(
        PooledOverTime(regulariser)(latents, generator(1)), regulariser(latents.flatten(0, 1), generator(1))
    )


def test_the_gradient_is_the_slope() -> None:
    regulariser = SIGReg(num_directions=4)
    for name in ("knots", "normal", "weights"):
        setattr(regulariser, name, getattr(regulariser, name).double())
    projected = gaussian(6, 3).double().requires_grad_()
    assert torch.autograd.gradcheck(regulariser._statistic, projected)


def test_nonsense_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="num_knots >= 2"):
        SIGReg(num_knots=1)


def _worker(rank: int, folder: str) -> None:
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    latents = gaussian(2, 16, 4)[:, 8 * rank : 8 * rank + 8].clone().requires_grad_()
    cost = SIGReg(num_directions=8)(latents, generator(rank))
    cost.backward()
    torch.save({"cost": cost.detach(), "grad": latents.grad}, f"{folder}/{rank}.pt")
    distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes_judge_all_their_samples_together() -> None:
    latents = gaussian(2, 16, 4).requires_grad_()
    cost = SIGReg(num_directions=8)(latents, generator(0))
    cost.backward()
    with tempfile.TemporaryDirectory() as folder:
        multiprocessing.spawn(_worker, args=(folder,), nprocs=2)
        parts = [torch.load(Path(folder) / f"{rank}.pt", weights_only=True) for rank in range(2)]
    for part in parts:
        torch.testing.assert_close(part["cost"], cost.detach())
    # each process holds the gradient of the sum of both equal costs, which data-parallel averaging halves
    torch.testing.assert_close(torch.cat([part["grad"] for part in parts], dim=1) / 2, latents.grad)
