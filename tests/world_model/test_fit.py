"""The training loop: it learns, resumes to the same bits, stops on NaN, and leaves the global stream alone."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

from core.checkpoint import load_checkpoint, pack_state, save_checkpoint, unpack_state
from core.seeding import generator
from core.types import Loss
from world_model.fit import Callbacks, FitSettings, FitState, TrainingDiverged, fit


class Line(nn.Module):
    """Fit y = 2 x with dropout, noise in the loss and a counter of steps."""

    def __init__(self, poison_at: int = -1):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Dropout(0.1), nn.Linear(8, 3))
        for weight in self.parameters():
            weight.data = torch.randn(weight.shape, generator=generator(0, "line", weight.numel())) * 0.3
        self.progress, self.poison_at, self.calls = [], poison_at, 0

    def forward(self, batch, draws):
        noise = torch.randn(batch["x"].shape, generator=draws) * 0.01
        loss = (self.net(batch["x"] + noise) - 2 * batch["x"]).square().mean()
        self.calls += 1
        if self.calls - 1 == self.poison_at:
            loss = loss * math.nan
        return Loss(total=loss, terms={"gap": loss.detach()})

    def after_step(self, progress):
        self.progress.append(progress)


def draw(stream):
    return {"x": torch.randn(16, 3, generator=stream)}


SETTINGS = FitSettings(steps=24, learning_rate=1e-2, average_decay=0.9, log_every=1, save_every=6)


def run(start=None, **overrides):
    saved, log = [], []
    callbacks = Callbacks(
        save=lambda s: saved.append(copy.deepcopy(s)), log=lambda step, n: log.append((step, dict(n)))
    )
    model = Line()
    settings = FitSettings(**{**SETTINGS.__dict__, **overrides})
    state = fit(model, draw, settings=settings, seed=5, callbacks=callbacks, start=start)
    return state, saved, log, model


def flat(state: FitState):
    return pack_state({"o": state.objective, "a": state.optimiser, "m": state.average, "step": state.step})[0]


def test_the_loss_falls():
    _, _, log, model = run(steps=300)
    assert log[-1][1]["loss"] < 0.4 * log[0][1]["loss"]
    assert model.progress[-1] == 1.0


@pytest.mark.parametrize("at", range(4))
def test_a_resumed_training_ends_in_the_same_bits(at, tmp_path):
    whole, saved, log, _ = run()
    tensors, layout = pack_state(vars(saved[at]))
    save_checkpoint(tmp_path / "state", tensors, {"layout": layout})
    tensors, config = load_checkpoint(tmp_path / "state")
    again, _, resumed_log, _ = run(start=FitState(**unpack_state(tensors, config["layout"])))
    assert all(torch.equal(value, flat(again)[name]) for name, value in flat(whole).items())
    assert resumed_log == log[(at + 1) * 6 :]


def test_a_nan_stops_the_training_and_nothing_bad_is_saved():
    saved = []
    callbacks = Callbacks(save=lambda s: saved.append(copy.deepcopy(s)))
    with pytest.raises(TrainingDiverged, match="step 11"):
        fit(Line(poison_at=10), draw, settings=SETTINGS, seed=5, callbacks=callbacks)
    assert [state.step for state in saved] == [6]
    assert all(torch.isfinite(value).all() for value in flat(saved[0]).values() if value.is_floating_point())


def test_evaluation_sees_averaged_weights_and_changes_nothing():
    seen = []

    def judge(step, model):
        torch.rand(3)
        seen.append({name: value.clone() for name, value in model.state_dict().items()})
        assert not model.training
        return {"eval/score": 1.0}

    plain, _, _, _ = run()
    model, log = Line(), []
    settings = FitSettings(**{**SETTINGS.__dict__, "evaluate_every": 5})
    callbacks = Callbacks(evaluate=judge, log=lambda step, numbers: log.append(numbers))
    state = fit(model, draw, settings=settings, seed=5, callbacks=callbacks)
    assert all(torch.equal(value, flat(state)[name]) for name, value in flat(plain).items())
    assert torch.equal(seen[-1]["net.0.weight"], state.average["net.0.weight"])
    assert {"eval/score": 1.0} in log


def test_the_global_stream_is_left_alone():
    model = Line()
    before = torch.get_rng_state()
    fit(model, draw, settings=SETTINGS, seed=5)
    assert torch.equal(before, torch.get_rng_state())


def test_the_rate_warms_up_and_falls_to_its_end():
    settings = FitSettings(steps=100, learning_rate=1.0, warmup=0.1, final_rate=0.2)
    rates = [settings.rate_at(step) for step in range(100)]
    assert rates[0] == pytest.approx(0.1) and max(rates) == pytest.approx(1.0) == pytest.approx(rates[9])
    assert rates[-1] == pytest.approx(0.2, abs=0.01)


def test_stopping_saves_the_state():
    saved = []
    ticks = []
    callbacks = Callbacks(save=saved.append, tick=ticks.append, stop=lambda: len(ticks) >= 3)
    state = fit(Line(), draw, settings=SETTINGS, seed=5, callbacks=callbacks)
    assert state.step == 4 == saved[-1].step


def test_bfloat16_trains_too():
    _, _, log, _ = run(steps=40, precision="bfloat16")
    assert log[-1][1]["loss"] < log[0][1]["loss"]


@pytest.mark.parametrize("name, value", [("steps", 0), ("learning_rate", -1.0), ("precision", "half"), ("warmup", 1.0)])
def test_settings_out_of_range_are_refused(name, value):
    with pytest.raises(ValueError, match=name):
        FitSettings(**{"steps": 5, name: value})
