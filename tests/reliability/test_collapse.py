"""Trainings that cannot learn are stopped in time and told why; healthy ones are let alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from jepa_mpc.encoders.layers.normed import LatentNorm
from jepa_mpc.face.training.collapse_watch import CollapseWatch
from jepa_mpc.seeding import generator
from jepa_mpc.world_model.parts.targets import EMATarget, SharedTarget, constant_momentum
from jepa_mpc.world_model.recipes import ijepa
from jepa_mpc.world_model.training.health import LatentCollapse
from jepa_mpc.world_model.training.loop import Callbacks, FitSettings, TrainingDiverged, fit
from tests import tiny

STEPS, BATCH, TIMES = 200, 12, 4
Batch = dict[str, torch.Tensor]
Draw = Callable[[torch.Generator, int], Batch]


def scene(stream: torch.Generator, batch: int) -> Batch:
    """A bright square that moves as the actions say, before noise."""
    actions = torch.zeros(batch, TIMES - 1, 7)
    actions[..., :2] = torch.randint(-1, 2, (batch, TIMES - 1, 2), generator=stream) * 0.05
    places = torch.randint(6, 22, (batch, 1, 2), generator=stream)
    moves = torch.cat([torch.zeros(batch, 1, 2), actions[..., :2].cumsum(1)], dim=1) * 80
    places = (places + moves).round().long().clamp(0, tiny.SIZE - 6)
    frames = torch.randint(0, 60, (batch, TIMES, 6, tiny.SIZE, tiny.SIZE), generator=stream)
    for world in range(batch):
        for time in range(TIMES):
            x, y = places[world, time].tolist()
            frames[world, time, :, y : y + 6, x : x + 6] = 220
    return {"frames": frames.to(torch.uint8), "actions": actions}


def constant(stream: torch.Generator, batch: int) -> Batch:
    whole = scene(stream, batch)
    return whole | {"frames": torch.full_like(whole["frames"], 100)}


def repeated(stream: torch.Generator, batch: int) -> Batch:
    whole = scene(stream, batch)
    return whole | {"frames": whole["frames"][:, :1].expand(-1, TIMES, -1, -1, -1).contiguous()}


class Bank:
    """Stands where a log stands."""

    def __init__(self, draw: Callable[[torch.Generator, int], Batch]) -> None:
        self.draw = draw

    def sample(self, batch: int, length: int, *, generator: torch.Generator) -> Mapping[str, torch.Tensor]:
        return self.draw(generator, batch)


def train(
    draw: Callable[[torch.Generator, int], Batch],
    *,
    seed: int = 0,
    steps: int = STEPS,
    every: int = 50,
    rate: float = 1e-3,
    decay: float = 1e-3,
    system: nn.Module | None = None,
    **parts: Any,
) -> list[int]:
    """Train the tiny arm, or another system, with a watch; the steps that were saved."""
    model, bank, saved = system or tiny.objective(seed, **parts), Bank(draw), list[int]()
    watch = CollapseWatch(
        bank,  # type: ignore[arg-type]
        objective=model, window=TIMES, frames=128, every=every, seed=seed, action="stop",
    )  # fmt: skip
    settings = FitSettings(
        steps=steps, learning_rate=rate, weight_decay=decay, watch_every=every, save_every=25, betas=(0.9, 0.98)
    )
    callbacks = Callbacks(watch=watch, save=lambda state: saved.append(state.step))
    try:
        fit(model, lambda stream: draw(stream, BATCH), settings=settings, seed=seed, callbacks=callbacks)
    except (LatentCollapse, TrainingDiverged) as error:
        raise type(error)(f"{error} [saved {saved}]") from error
    return saved


@pytest.mark.parametrize("seed, steps", [(0, 60), *[pytest.param(s, STEPS, marks=pytest.mark.slow) for s in range(5)]])
def test_a_healthy_training_is_let_alone(seed, steps):
    assert train(scene, seed=seed, steps=steps)[-1] == steps


def test_constant_pictures_are_told():
    with pytest.raises(LatentCollapse, match="step 10.*same way"):
        train(constant, every=10)


def test_pictures_that_repeat_are_told():
    with pytest.raises(LatentCollapse, match="step 10.*latents do not change from frame to frame"):
        train(repeated, every=10)


def test_a_world_model_without_a_regulariser_is_told():
    with pytest.raises(LatentCollapse, match=r"cosine 0.999. is above 0.999.*last good state is kept.*saved \[25"):
        train(scene, sigreg_weight=0.0, extra=[])


def one_camera(stream: torch.Generator, batch: int) -> Batch:
    """The scene for systems that learn from pictures of 28 px of one camera."""
    return {"frames": scene(stream, batch)["frames"][:, :, :3, 2:30, 2:30].contiguous()}


def masked(target: Callable[[nn.Module], nn.Module]) -> nn.Module:
    """A tiny I-JEPA with another target, made from its encoder."""
    system = ijepa.build(preset="tiny", generator=generator(0))
    system.target = target(system.encoder)  # type: ignore[assignment]
    return system


DECAYING: dict[str, Any] = {"steps": 40, "rate": 1e-2, "decay": 20.0, "every": 20}
"""Weights that decay so fast that only what the target asks for is kept."""


def test_a_masked_system_with_its_moving_average_is_let_alone():
    system = ijepa.build(preset="tiny", generator=generator(0))
    assert train(one_camera, system=system, **DECAYING)[-1] == DECAYING["steps"]


def test_a_masked_system_whose_target_is_no_average_is_told():
    """The target's copy follows at once, without gradient: what the encoder forgets, nobody asks for any more."""
    at_once = partial(EMATarget, finish=LatentNorm(), momentum=constant_momentum(0.0))
    with pytest.raises(LatentCollapse, match=r"of the dimensions \(more than 50%\) keep less than 10%"):
        train(one_camera, system=masked(at_once), **DECAYING)


def test_a_masked_system_whose_target_is_the_encoder_itself_is_told():
    """No stop of the gradient: target and prediction meet in a constant."""
    system = masked(lambda encoder: SharedTarget())
    with pytest.raises(LatentCollapse, match=r"of the dimensions \(more than 50%\) keep less than 10%"):
        train(one_camera, system=system, steps=60, rate=1e-2, every=20)


def test_a_rate_a_thousand_times_too_high_is_told():
    with pytest.raises((LatentCollapse, TrainingDiverged), match="last (good|saved) state"):
        train(scene, rate=1.0)


def test_one_warning_instead_of_the_end_if_asked_for(caplog):
    model = tiny.objective()
    facts: dict[str, Any] = {"window": TIMES, "frames": 64, "every": 1, "seed": 0}
    watch = CollapseWatch(Bank(constant), objective=model, action="warn", **facts)  # type: ignore[arg-type]
    watch(1, model.eval())
    assert "the latents collapse" in caplog.text
    with pytest.raises(ValueError, match="on_collapse must be stop or warn"):
        CollapseWatch(Bank(constant), objective=model, action="pray", **facts)  # type: ignore[arg-type]
