"""Two processes train like one: same losses, same weights, and a state that either can go on from."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed, multiprocessing, nn

from jepa_mpc.checkpoint import load_checkpoint, pack_state, save_checkpoint, unpack_state
from jepa_mpc.processes import Share, draw
from jepa_mpc.seeding import generator
from jepa_mpc.world_model.parts.regularisers.sigreg import SIGReg
from jepa_mpc.world_model.parts.regularisers.vicreg import VICReg
from jepa_mpc.world_model.recipes.leworldmodel import build
from jepa_mpc.world_model.training.layouts import Alone, Copies, Layout, Pieces
from jepa_mpc.world_model.training.loop import Callbacks, FitSettings, FitState, fit
from jepa_mpc.world_model.training.norms import share_norms
from jepa_mpc.world_model.training.schedules import WarmupCosine
from tests import tiny

LAYOUTS = {"alone": Alone, "copies": Copies, "pieces": Pieces}
STEPS = 50
SLOW = partial(pytest.param, marks=pytest.mark.slow)


def pictures(stream: torch.Generator) -> dict[str, torch.Tensor]:
    """Eight windows whose brightness follows the actions."""
    actions = torch.randn(8, 3, 7, generator=stream) * torch.tensor([0.05] * 3 + [1.0] * 4)
    level = 400 * torch.cat([torch.zeros(8, 1, 7), actions.cumsum(1)], dim=1)[..., :3].mean(-1)
    noise = 70 * torch.rand(8, 4, 6, tiny.SIZE, tiny.SIZE, generator=stream)
    frames = (90 + level[:, :, None, None, None] + noise).clamp(0, 255)
    return {"frames": frames.to(torch.uint8), "actions": actions}


def own_form() -> tuple[nn.Module, Any]:
    """The shipped system with narrow parts, in float64."""
    return tiny.objective().double(), pictures


def published_form() -> tuple[nn.Module, Any]:
    """LeWorldModel as published, with its batch norms, in float64."""
    model: nn.Module = build(preset="tiny", action_dim=7, generator=generator(0)).double()

    def small(stream: torch.Generator) -> dict[str, torch.Tensor]:
        batch = pictures(stream)
        return {"frames": batch["frames"][:, :, :3, :28, :28].double(), "actions": batch["actions"].double()}

    return model, small


FORMS = {"own": own_form, "published": published_form}
CALM = {"learning_rate": 3e-4, "epsilon": 1e-4}  # Adam does not blow up the rounding of gradients that are zero


def train(form: str, layout: Layout, start: FitState | None = None, **changes: Any) -> tuple[FitState, list[float]]:
    facts: dict[str, Any] = {
        "steps": STEPS, "learning_rate": 1e-3, "weight_decay": 1e-2, "log_every": 1, "average_decay": 0.9,
    }  # fmt: skip
    losses: list[float] = []
    callbacks = Callbacks(log=lambda step, numbers: losses.append(numbers["loss"]))
    model, batches = FORMS[form]()
    settings = FitSettings(**facts | changes)
    state = fit(model, batches, settings=settings, seed=3, callbacks=callbacks, start=start, layout=layout)
    return state, losses


def keep(folder: Path, state: FitState, losses: list[float]) -> None:
    tensors, layout = pack_state(vars(state))
    save_checkpoint(folder, tensors, {"layout": layout, "losses": losses})


def kept(folder: Path) -> tuple[FitState, list[float]]:
    tensors, config = load_checkpoint(folder)
    return FitState(**unpack_state(tensors, config["layout"])), config["losses"]


def work(rank: int, folder: str, form: str, layout: str, begin: str, changes: dict[str, Any]) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    start = kept(Path(begin))[0] if begin else None
    state, losses = train(form, LAYOUTS[layout](), start, **changes)
    if rank == 0:
        keep(Path(folder) / "state", state, losses)
    distributed.barrier()
    distributed.destroy_process_group()


def together(folder: Path, form: str, layout: str, *, begin: str = "", **changes: Any) -> tuple[FitState, list[float]]:
    """The state and losses of two processes."""
    folder.mkdir()
    arguments = (str(folder), form, layout, begin, changes)
    multiprocessing.start_processes(work, args=arguments, nprocs=2, start_method="fork")
    return kept(folder / "state")


def gap(one: FitState, other: FitState) -> float:
    """Largest difference of two weights or their averages."""
    pairs = [(one.objective, other.objective), (one.average or {}, other.average or {})]
    return max(
        float((value - theirs[name]).abs().max())
        for mine, theirs in pairs
        for name, value in mine.items()
        if value.is_floating_point()
    )


def apart(one: list[float], other: list[float]) -> float:
    """Largest difference of two logged losses."""
    return max(abs(a - b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("layout, steps", [("copies", STEPS), ("pieces", 10), SLOW("pieces", STEPS)])
def test_two_processes_train_like_one(tmp_path, layout, steps):
    one, losses = train("own", Alone(), **CALM, steps=steps)
    two, shared = together(tmp_path / "two", "own", layout, **CALM, steps=steps)
    assert gap(one, two) <= 1e-8 and apart(losses, shared) <= 1e-8
    assert abs(losses[-1] - losses[0]) > 1e-2


@pytest.mark.parametrize("layout", ["copies", SLOW("pieces")])
def test_batch_norms_and_sigreg_see_both_processes(tmp_path, layout):
    one, losses = train("published", Alone(), **CALM, steps=8)
    two, shared = together(tmp_path / "two", "published", layout, **CALM, steps=8)
    assert gap(one, two) <= 1e-8 and apart(losses, shared) <= 1e-8


def test_two_processes_that_accumulate_train_like_one_that_does(tmp_path):
    one, losses = train("own", Alone(), **CALM, steps=6, accumulate=2)
    two, shared = together(tmp_path / "two", "own", "copies", **CALM, steps=6, accumulate=2)
    assert gap(one, two) <= 1e-8 and apart(losses, shared) <= 1e-8


@pytest.mark.parametrize("first, second", [("pieces", "alone"), SLOW("alone", "pieces")])
def test_a_state_of_one_layout_goes_on_in_another(tmp_path, first, second):
    whole, losses = train("own", Alone(), **CALM, steps=8)
    part = {"schedule": _Cut(of=8), "warmup": 0.01}

    def go(layout: str, name: str, begin: str = "", **changes: Any) -> tuple[FitState, list[float]]:
        if layout != "alone":
            return together(tmp_path / name, "own", layout, begin=begin, **changes)
        done = train("own", Alone(), kept(Path(begin))[0] if begin else None, **changes)
        keep(tmp_path / name / "state", *done)
        return done

    go(first, "first", **CALM, **part, steps=4)
    state, rest = go(second, "second", begin=str(tmp_path / "first" / "state"), **CALM, steps=8)
    assert gap(whole, state) <= 1e-8 and apart(losses[4:], rest) <= 1e-8


class _Cut:
    """The rates of the first steps of a longer training."""

    def __init__(self, *, of: int) -> None:
        self.of = of

    def __call__(self, step: int, steps: int) -> float:
        return WarmupCosine()(step, self.of)


def test_rows_are_shared_out_evenly_from_one_draw():
    whole = pictures(generator(1))
    parts = [draw(pictures, generator(1), Share(index=index, count=4)) for index in range(4)]
    assert torch.equal(torch.cat([part["actions"] for part in parts]), whole["actions"])
    with pytest.raises(ValueError, match="multiple of 3"):
        draw(pictures, generator(1), Share(index=0, count=3))


def test_a_source_that_can_reads_its_own_rows_alone():
    class Rows:
        def part(self, stream, share):
            return {"share": share}

    assert draw(Rows(), generator(1), Share(index=1, count=2)) == {"share": Share(index=1, count=2)}


def _norms(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    results = {}
    for name, part in judges().items():
        share_norms(part)
        mine = samples()[:, 8 * rank : 8 * rank + 8].clone().requires_grad_()
        cost = part(mine, generator(0)) if isinstance(part, VICReg | SIGReg) else part(mine[0]).square().mean()
        cost.backward()
        results |= {f"{name}.cost": cost.detach(), f"{name}.slope": mine.grad / 2}
        results |= {f"{name}.{key}": value for key, value in part.state_dict().items()}
    save_checkpoint(f"{folder}/{rank}", results, {})
    distributed.destroy_process_group()


def samples() -> torch.Tensor:
    return torch.randn(2, 16, 4, generator=generator(0), dtype=torch.float64)


def judges() -> dict[str, nn.Module]:
    return {"vicreg": VICReg(), "sigreg": SIGReg(num_directions=8), "norm": nn.BatchNorm1d(4).double()}


def test_statistics_over_two_processes_and_their_gradients_are_those_of_all_samples(tmp_path):
    multiprocessing.start_processes(_norms, args=(str(tmp_path),), nprocs=2, start_method="fork")
    parts = [load_checkpoint(tmp_path / str(rank))[0] for rank in range(2)]
    for name, part in judges().items():
        whole = samples().requires_grad_()
        if isinstance(part, nn.BatchNorm1d):
            part(whole[0]).square().mean().backward()
        else:
            cost = part(whole, generator(0))
            cost.backward()
            assert all(torch.allclose(half[f"{name}.cost"], cost.detach(), rtol=1e-6) for half in parts)
        slope = torch.cat([half[f"{name}.slope"] for half in parts], dim=1)
        torch.testing.assert_close(slope, whole.grad, rtol=1e-5, atol=1e-9)
        for key, value in part.state_dict().items():
            assert torch.allclose(parts[0][f"{name}.{key}"], value) and torch.equal(
                parts[0][f"{name}.{key}"], parts[1][f"{name}.{key}"]
            )
