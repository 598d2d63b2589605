"""The one training loop: batch, loss, clip, step, schedule, log, evaluate, save, resume.

Step k draws its batch, its noise and its dropout from streams that depend on (seed, k) alone. A training that is
resumed from any saved state therefore ends in the same bits (CPU, one number of threads) as one that ran through.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from torch import Generator, Tensor, nn

from core.interfaces import Batch, Objective
from core.seeding import generator, seed_of
from world_model.average import WeightAverage

Batches = Callable[[Generator], Batch]


class TrainingDiverged(ArithmeticError):
    """The loss or its gradient is not finite any more; nothing was saved since it was."""


@dataclass(frozen=True, kw_only=True)
class FitSettings:
    """How to train; the defaults are those of LeWorldModel (Maes et al. 2026, arXiv:2603.19312).

    Args:
        steps: Optimiser steps.
        learning_rate: Peak of the schedule.
        weight_decay: Of AdamW, on all parameters.
        betas: Of AdamW.
        warmup: Share of the steps in which the rate rises linearly; a cosine follows.
        final_rate: Where the cosine ends, as a share of the peak.
        clip_norm: Largest norm of the whole gradient.
        precision: "bfloat16" runs the forward pass under autocast.
        average_decay: Keeps a running average of the weights with this decay, used for evaluation; None keeps none.
        log_every: Steps between two entries of the log.
        evaluate_every: Steps between two evaluations (and one at the end); 0 never evaluates.
        save_every: Steps between two saved states (and one at the end); 0 saves at the end alone.

    Raises:
        ValueError: If a number is out of range; says which.
    """

    steps: int
    learning_rate: float = 5e-5
    weight_decay: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    warmup: float = 0.01
    final_rate: float = 0.0
    clip_norm: float = 1.0
    precision: Literal["float32", "bfloat16"] = "float32"
    average_decay: float | None = None
    log_every: int = 50
    evaluate_every: int = 0
    save_every: int = 0

    def __post_init__(self) -> None:
        rules = {
            "steps": self.steps >= 1,
            "learning_rate": 0 < self.learning_rate < math.inf,
            "weight_decay": self.weight_decay >= 0,
            "warmup": 0 <= self.warmup < 1,
            "final_rate": 0 <= self.final_rate <= 1,
            "clip_norm": self.clip_norm > 0,
            "precision": self.precision in ("float32", "bfloat16"),
            "average_decay": self.average_decay is None or 0 <= self.average_decay < 1,
            "log_every": self.log_every >= 1,
            "evaluate_every": self.evaluate_every >= 0,
            "save_every": self.save_every >= 0,
        }
        for name, holds in rules.items():
            if not holds:
                raise ValueError(f"{name} is out of range: {getattr(self, name)!r}")

    def rate_at(self, step: int) -> float:
        """The learning rate of step `step`, counted from 0: linear warm-up, then a cosine."""
        rising = round(self.warmup * self.steps)
        if step < rising:
            return self.learning_rate * (step + 1) / rising
        way = (step - rising) / max(self.steps - rising, 1)
        return self.learning_rate * (self.final_rate + (1 - self.final_rate) * 0.5 * (1 + math.cos(math.pi * way)))


@dataclass(frozen=True, kw_only=True)
class FitState:
    """All that a training needs to go on: steps done, weights, optimiser, and the average of the weights if kept."""

    step: int
    objective: Mapping[str, Tensor]
    optimiser: Mapping[str, Any]
    average: Mapping[str, Tensor] | None = None


@dataclass(frozen=True, kw_only=True)
class Callbacks:
    """What the loop tells the outside; steps are counted as done.

    Args:
        log: Gets (step, numbers) each `log_every` steps and after each evaluation.
        evaluate: Gets (step, objective with averaged weights if kept, in evaluation mode) and returns numbers to log.
        save: Gets the state each `save_every` steps and at the end; it must copy or write it before it returns.
        tick: Gets the step after each step (a progress bar).
        stop: Asked after each step; True saves the state and ends the training early.
    """

    log: Callable[[int, Mapping[str, float]], None] = lambda step, numbers: None
    evaluate: Callable[[int, nn.Module], Mapping[str, float]] = lambda step, objective: {}
    save: Callable[[FitState], None] = lambda state: None
    tick: Callable[[int], None] = lambda step: None
    stop: Callable[[], bool] = lambda: False


def fit(
    objective: nn.Module,
    batches: Batches,
    *,
    settings: FitSettings,
    seed: int,
    device: torch.device | str = "cpu",
    callbacks: Callbacks | None = None,
    start: FitState | None = None,
) -> FitState:
    """Train an objective in place.

    Args:
        objective: An Objective that is a module: the loss with its networks; moved to `device`.
        batches: Draws a batch with the (CPU) generator that it is given.
        settings: How to train.
        seed: Base seed of batches, noise and dropout.
        device: Where to train.
        callbacks: What to tell the outside.
        start: A state to go on from.

    Returns:
        The state after the last step.

    Raises:
        TrainingDiverged: If loss or gradient is not finite; the last saved state is still a good one.
        ValueError: If `start` is of a longer training.
    """
    training = _Training(objective.to(device), settings, seed=seed, device=torch.device(device))
    callbacks = callbacks or Callbacks()
    if start is not None:
        training.restore(start)
    while training.done < settings.steps:
        numbers = training.step(batches)
        done, last = training.done, training.done == settings.steps
        stopping = callbacks.stop()
        if done % settings.log_every == 0 or last:
            training.check()
            callbacks.log(done, {name: float(value) for name, value in numbers.items()})
        if settings.evaluate_every and (done % settings.evaluate_every == 0 or last):
            training.check()
            callbacks.log(done, training.evaluate(callbacks.evaluate))
        if stopping or last or (settings.save_every and done % settings.save_every == 0):
            training.check()
            callbacks.save(training.state())
        callbacks.tick(done)
        if stopping:
            break
    return training.state()


class _Training:
    """The moving parts of one training: optimiser, average, number of steps done, and whether all was finite."""

    def __init__(self, objective: nn.Module, settings: FitSettings, *, seed: int, device: torch.device) -> None:
        self.objective, self.settings, self.seed, self.device = objective, settings, seed, device
        self.weights = [weight for weight in objective.parameters() if weight.requires_grad]
        self.optimiser = torch.optim.AdamW(
            self.weights, lr=settings.learning_rate, betas=settings.betas, weight_decay=settings.weight_decay,
            fused=device.type in ("cpu", "cuda"),
        )  # fmt: skip
        decay = settings.average_decay
        self.average = None if decay is None else WeightAverage(objective, decay=decay)
        self.done = 0
        self.finite = torch.ones((), dtype=torch.bool, device=device)

    def restore(self, start: FitState) -> None:
        """Go on from a saved state."""
        if start.step > self.settings.steps:
            raise ValueError(f"the saved state has {start.step} steps, more than the {self.settings.steps} to do")
        self.objective.load_state_dict(dict(start.objective), strict=True)
        self.optimiser.load_state_dict(dict(start.optimiser))
        if self.average is not None:
            if start.average is None:
                raise ValueError("the saved state has no average of the weights; train without average_decay")
            self.average.load(start.average)
        self.done = start.step

    def step(self, batches: Batches) -> dict[str, Tensor]:
        """One optimiser step; returns the numbers to log, still on the device."""
        self.objective.train()
        for group in self.optimiser.param_groups:
            group["lr"] = self.settings.rate_at(self.done)
        batch = {k: v.to(self.device, non_blocking=True) for k, v in batches(self._stream("batch", "cpu")).items()}
        with _own_dropout(seed_of(self.seed, "dropout", self.done), self.device):
            with self._precision():
                loss = cast(Objective, self.objective)(batch, self._stream("loss", self.device))
            self.optimiser.zero_grad(set_to_none=True)
            loss.total.backward()
        norm = nn.utils.clip_grad_norm_(self.weights, self.settings.clip_norm, foreach=True)
        self.finite = self.finite & torch.isfinite(loss.total.detach()) & torch.isfinite(norm)
        if self.device.type == "cpu":
            self.check()
        self.optimiser.step()
        self.done += 1
        cast(Objective, self.objective).after_step(self.done / self.settings.steps)
        if self.average is not None:
            self.average.update(self.objective)
        rate = torch.tensor(self.settings.rate_at(self.done - 1))
        return {"loss": loss.total.detach(), **loss.terms, "gradient_norm": norm.detach(), "learning_rate": rate}

    def check(self) -> None:
        """Stop here if anything was not finite since the start."""
        if not bool(self.finite):
            raise TrainingDiverged(
                f"loss or gradient is not finite at or before step {self.done + 1}: the last saved state is good; "
                "lower the learning rate or look at the data"
            )

    def evaluate(self, judge: Callable[[int, nn.Module], Mapping[str, float]]) -> Mapping[str, float]:
        """Let the outside judge the (averaged) weights; training is as before afterwards."""
        averaged = self.average.in_place_of(self.objective) if self.average is not None else nullcontext()
        with averaged, torch.no_grad(), _own_dropout(0, self.device):
            self.objective.eval()
            return judge(self.done, self.objective)

    def state(self) -> FitState:
        """What is needed to go on; tensors are shared with the training, not copied."""
        return FitState(
            step=self.done,
            objective=self.objective.state_dict(),
            optimiser=self.optimiser.state_dict(),
            average=None if self.average is None else self.average.tensors,
        )

    def _stream(self, name: str, device: torch.device | str) -> Generator:
        return generator(self.seed, name, self.done, device=device)

    def _precision(self) -> Any:
        if self.settings.precision == "float32":
            return nullcontext()
        return torch.autocast(self.device.type, dtype=torch.bfloat16)


@contextmanager
def _own_dropout(seed: int, device: torch.device) -> Iterator[None]:
    """Give layers that know only the global stream one of their own, and leave the global one as it was."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.random.default_generator.manual_seed(seed)
        for gpu in devices:
            with torch.cuda.device(gpu):
                torch.cuda.manual_seed(seed)
        yield
