"""Trainings that cannot learn are stopped in time and told why; healthy ones are let alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch

from core.seeding import generator
from experiments.training.watch import Watch
from tests import tiny
from world_model.fit import Callbacks, FitSettings, TrainingDiverged, fit
from world_model.health import LatentCollapse
from world_model.recipes.leworldmodel import build

STEPS, BATCH, TIMES = 200, 12, 4
Batch = dict[str, torch.Tensor]


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
    draw: Callable[[torch.Generator, int], Batch], *, seed: int = 0, rate: float = 1e-3, **parts: Any
) -> list[int]:
    """Train with a watch; the steps that were saved."""
    model = (
        tiny.objective(seed) if not parts else build(preset="tiny", action_dim=7, generator=generator(seed), **parts)
    )
    if parts:
        whole = draw
        draw = lambda stream, batch: (lambda b: b | {"frames": b["frames"][:, :, :3, :28, :28]})(whole(stream, batch))  # noqa: E731
    watch: Any = Watch(
        Bank(draw),
        objective=model,
        window=TIMES,
        frames=128,
        every=50,
        seed=seed,
        action="stop",  # type: ignore[arg-type]
    )
    saved: list[int] = []
    settings = FitSettings(steps=STEPS, learning_rate=rate, watch_every=50, save_every=25, betas=(0.9, 0.98))
    callbacks = Callbacks(watch=watch, save=lambda state: saved.append(state.step))
    try:
        fit(model, lambda stream: draw(stream, BATCH), settings=settings, seed=seed, callbacks=callbacks)
    except (LatentCollapse, TrainingDiverged) as error:
        raise type(error)(f"{error} [saved {saved}]") from error
    return saved


@pytest.mark.parametrize("seed", [0, *[pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 5)]])
def test_a_healthy_training_is_let_alone(seed):
    assert train(scene, seed=seed)[-1] == STEPS


def test_constant_pictures_are_told():
    with pytest.raises(LatentCollapse, match="step 50.*(cosine|deviation|rank)"):
        train(constant)


def test_pictures_that_repeat_are_told():
    with pytest.raises(LatentCollapse, match="step 50.*latents do not change from frame to frame"):
        train(repeated)


def test_a_world_model_without_a_regulariser_is_told():
    with pytest.raises(LatentCollapse, match="last good state is kept"):
        train(scene, sigreg_weight=0.0)


def test_a_rate_a_hundred_times_too_high_is_told():
    with pytest.raises((LatentCollapse, TrainingDiverged), match="last (good|saved) state"):
        train(scene, rate=0.1)
