"""The training loop: it learns, resumes to the same bits, stops on NaN, and leaves the global stream alone."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from jepa_mpc.checkpoint import load_checkpoint, pack_state, save_checkpoint, unpack_state
from jepa_mpc.seeding import generator, seed_of
from jepa_mpc.types import Loss
from jepa_mpc.world_model.parts.predictors import precision
from jepa_mpc.world_model.training.decay import DecayMatrices
from jepa_mpc.world_model.training.loop import Callbacks, FitSettings, FitState, TrainingDiverged, fit
from jepa_mpc.world_model.training.schedules import WarmupHoldDecay


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
    expected = flat(again)
    assert all(torch.equal(value, expected[name]) for name, value in flat(whole).items())
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
    expected = flat(state)
    assert all(torch.equal(value, expected[name]) for name, value in flat(plain).items())
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


@pytest.mark.parametrize(("short_s", "chosen"), [(7.0, torch.float32), (0.9, torch.float32), (0.25, torch.bfloat16)])
def test_the_number_format_is_the_faster_one_measured_once(short_s, chosen, monkeypatch):
    measured = []

    def seconds(dtype, device):
        measured.append(dtype)
        return short_s if dtype == torch.bfloat16 else 1.0

    monkeypatch.setattr(precision, "_fastest_s", seconds)
    precision.fast_dtype.cache_clear()
    try:
        assert precision.fast_dtype("cpu") == precision.fast_dtype("cpu") == chosen
        assert len(measured) == 2
        *_, log, _ = run(steps=2, precision="auto")
        assert log
    finally:
        precision.fast_dtype.cache_clear()


def test_bfloat16_trains_too():
    _, _, log, _ = run(steps=40, precision="bfloat16")
    assert log[-1][1]["loss"] < log[0][1]["loss"]


@pytest.mark.parametrize("name, value", [("steps", 0), ("learning_rate", -1.0), ("precision", "half"), ("warmup", 1.0)])
def test_settings_out_of_range_are_refused(name, value):
    with pytest.raises(ValueError, match=name):
        FitSettings(**{"steps": 5, name: value})


def plain_loop(steps):
    """The same training written out: what `fit` must do in one process, bit for bit."""
    model = Line()
    optimiser = torch.optim.AdamW(
        model.parameters(), lr=1e-2, betas=(0.9, 0.999), weight_decay=1e-3, eps=1e-8, fused=True
    )
    rising, losses = round(0.01 * steps), []
    for step in range(steps):
        model.train()
        way = (step - rising) / (steps - rising)
        for group in optimiser.param_groups:
            group["lr"] = 1e-2 * 0.5 * (1 + math.cos(math.pi * way))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_of(5, "dropout", step))
            loss = model(draw(generator(5, "batch", step)), generator(5, "loss", step)).total
            optimiser.zero_grad()
            loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0, foreach=True)
        optimiser.step()
        losses.append(float(loss.detach()))
    return model, losses


def test_one_process_trains_to_the_bits_of_a_plain_loop():
    model, losses = plain_loop(24)
    state, _, log, _ = run()
    assert [entry["loss"] for _, entry in log] == losses
    assert all(torch.equal(value, state.objective[name]) for name, value in model.state_dict().items())


def test_accumulated_parts_have_the_gradient_of_the_whole_batch():
    class Mean(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(3))

        def forward(self, batch, draws):
            loss = (batch["x"] * self.weight).square().mean()
            return Loss(total=loss, terms={})

        def after_step(self, progress):
            pass

    settings = FitSettings(steps=5, learning_rate=1e-2, log_every=1)
    whole = fit(Mean(), draw, settings=settings, seed=1)
    parts = fit(Mean(), draw, settings=replace(settings, accumulate=4), seed=1)
    torch.testing.assert_close(whole.objective["weight"], parts.objective["weight"])
    with pytest.raises(ValueError, match="multiple of 3"):
        fit(Mean(), draw, settings=replace(settings, accumulate=3), seed=1)


def test_the_rate_can_hold_and_fall_at_the_end():
    schedule = WarmupHoldDecay(warmup=0.1, decay=0.2, initial=0.5, final=0.1)
    rates = [FitSettings(steps=100, learning_rate=2.0, schedule=schedule).rate_at(step) for step in range(100)]
    assert rates[0] == pytest.approx(1.1) and rates[9:80] == [2.0] * 71
    assert rates[80] == pytest.approx(2 * (0.1 + 0.9 * 19 / 20)) and rates[-1] == pytest.approx(0.2)
    with pytest.raises(ValueError, match="belong to the schedule"):
        FitSettings(steps=10, schedule=schedule, warmup=0.5)


def test_vectors_and_biases_can_be_spared_the_decay():
    net = nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3))
    pulled, free = DecayMatrices()(net.named_parameters(), 0.1)
    assert pulled["params"] == [net[0].weight] and pulled["weight_decay"] == 0.1
    assert len(free["params"]) == 3 and free["weight_decay"] == 0.0


def test_a_look_that_raises_stops_before_anything_is_saved():
    saved = []

    def watch(step, objective):
        if step == 9:
            raise ArithmeticError("collapsed")

    callbacks = Callbacks(save=lambda s: saved.append(s.step), watch=watch)
    with pytest.raises(ArithmeticError, match="collapsed"):
        fit(Line(), draw, settings=replace(SETTINGS, watch_every=3), seed=5, callbacks=callbacks)
    assert saved == [6]


class Aside(nn.Module):
    """Its loss depends on something that is none of its weights."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))
        self.elsewhere = [torch.ones(3, requires_grad=True)]

    def forward(self, batch: dict[str, torch.Tensor], stream: torch.Generator) -> Loss:
        total = (self.elsewhere[0] * batch["x"]).sum()
        return Loss(total=total, terms={})


def test_a_loss_that_reaches_no_weight_stops_the_training():
    with pytest.raises(RuntimeError, match="no weight has a gradient"):
        fit(Aside(), lambda stream: {"x": torch.ones(3)}, settings=FitSettings(steps=2), seed=0)
