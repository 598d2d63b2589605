"""Settings, state and callbacks of a training."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn

from jepa_mpc.world_model.training.decay import DecayAll, DecayRule
from jepa_mpc.world_model.training.schedules import Schedule, WarmupCosine


class TrainingDiverged(ArithmeticError):
    """The loss or its gradient is not finite; nothing was saved since."""


@dataclass(frozen=True, kw_only=True)
class FitSettings:
    """Training settings; the defaults are those of LeWorldModel (Maes et al. 2026, arXiv:2603.19312).

    Args:
        steps: Optimiser steps.
        learning_rate: Peak of the schedule.
        weight_decay: Weight decay of AdamW, on the weights selected by `decayed`.
        betas: Betas of AdamW.
        epsilon: Epsilon of AdamW: gradients far below it have no effect. At the usual 1e-8 a weight without any
            influence (a bias before a norm) still drifts with the rounding of its gradient.
        warmup: Share of the steps in which the rate rises linearly; a cosine follows.
        final_rate: Final rate of the cosine, as a share of the peak.
        clip_norm: Maximum norm of the whole gradient.
        precision: "bfloat16" runs the forward pass under autocast, "auto" does so if a measurement at the start finds
            it faster (a resumed training ends in the same bits only if the choice is the same).
        average_decay: Decay of an exponential moving average of the weights, used for evaluation; None keeps none.
        log_every: Steps between two log entries.
        evaluate_every: Steps between two evaluations (and one at the end); 0 never evaluates.
        save_every: Steps between two saved states (and one at the end); 0 saves only at the end.
        watch_every: Steps between two collapse checks (and one before each save); 0 never checks.
        accumulate: Number of parts of a batch that are processed one after another; the gradient is that of their mean.
        schedule: Learning-rate schedule, replacing `warmup` and `final_rate`.
        decayed: Weights with decay; all by default.
        decay_schedule: Schedule of the weight decay as a share of `weight_decay`; None keeps it constant.

    Raises:
        ValueError: If a number is out of range; names it.
    """

    steps: int
    learning_rate: float = 5e-5
    weight_decay: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: float = 1e-8
    warmup: float = 0.01
    final_rate: float = 0.0
    clip_norm: float = 1.0
    precision: Literal["float32", "bfloat16", "auto"] = "float32"
    average_decay: float | None = None
    log_every: int = 50
    evaluate_every: int = 0
    save_every: int = 0
    watch_every: int = 0
    accumulate: int = 1
    schedule: Schedule | None = None
    decayed: DecayRule = DecayAll()
    decay_schedule: Schedule | None = None

    def __post_init__(self) -> None:
        counts = {"steps": 1, "log_every": 1, "accumulate": 1, "evaluate_every": 0, "save_every": 0, "watch_every": 0}
        shares = ("learning_rate", "weight_decay", "epsilon", "warmup", "final_rate", "clip_norm")
        for name, least in counts.items():
            if type(getattr(self, name)) is not int or getattr(self, name) < least:
                raise ValueError(f"{name} must be a whole number from {least}, got {getattr(self, name)!r}")
        for name in shares:
            if type(getattr(self, name)) not in (int, float):
                raise ValueError(f"{name} must be a number, got {getattr(self, name)!r}")
        for name, holds in self._rules().items():
            if not holds:
                raise ValueError(f"{name} is out of range: {getattr(self, name)!r}")
        if self.schedule is not None and (self.warmup, self.final_rate) != (0.01, 0.0):
            raise ValueError("warmup and final_rate belong to the schedule where one is given: set them there")

    def rate_at(self, step: int) -> float:
        """The learning rate of step `step`, from 0."""
        schedule = self.schedule or WarmupCosine(self.warmup, self.final_rate)
        return self.learning_rate * schedule(step, self.steps)

    def decay_share_at(self, step: int) -> float:
        """The weight decay of step `step`, from 0, as a share of `weight_decay`."""
        return 1.0 if self.decay_schedule is None else self.decay_schedule(step, self.steps)

    def _rules(self) -> dict[str, bool]:
        decay, betas = self.average_decay, self.betas
        return {
            "learning_rate": 0 < self.learning_rate < math.inf,
            "weight_decay": 0 <= self.weight_decay < math.inf,
            "betas": len(betas) == 2 and all(type(beta) in (int, float) and 0 <= beta < 1 for beta in betas),
            "epsilon": 0 < self.epsilon < math.inf,
            "warmup": 0 <= self.warmup < 1,
            "final_rate": 0 <= self.final_rate <= 1,
            "clip_norm": self.clip_norm > 0,
            "precision": self.precision in ("float32", "bfloat16", "auto"),
            "average_decay": decay is None or (type(decay) in (int, float) and 0 <= decay < 1),
            "schedule": self.schedule is None or callable(self.schedule),
            "decayed": callable(self.decayed),
            "decay_schedule": self.decay_schedule is None or callable(self.decay_schedule),
        }


@dataclass(frozen=True, kw_only=True)
class FitState:
    """All state needed to resume a training: steps done, weights, optimiser, and the averaged weights if there are any.

    Batches, noise and dropout of a step are determined by the seed and the step index, so no generator state and no
    data position is stored.
    """

    step: int
    objective: Mapping[str, Tensor]
    optimiser: Mapping[str, Any]
    average: Mapping[str, Tensor] | None = None


@dataclass(frozen=True, kw_only=True)
class Callbacks:
    """Callbacks of the loop; steps are counted after completion. Only the first of several processes calls them.

    Args:
        log: Called with (step, metrics) each `log_every` steps and after each evaluation.
        evaluate: Called with (step, objective with averaged weights if there are any, in evaluation mode); returns
            metrics to log.
        watch: Called with (step, objective with its own weights, in evaluation mode) each `watch_every` steps and
            before each save; may raise to stop the training before anything is overwritten.
        save: Called with the state each `save_every` steps and at the end; it must copy or write it before it returns.
        tick: Called with the step after each step (a progress bar).
        stop: Called after each step; True saves the state and ends the training early.
    """

    log: Callable[[int, Mapping[str, float]], None] = lambda step, numbers: None
    evaluate: Callable[[int, nn.Module], Mapping[str, float]] = lambda step, objective: {}
    watch: Callable[[int, nn.Module], None] = lambda step, objective: None
    save: Callable[[FitState], None] = lambda state: None
    tick: Callable[[int], None] = lambda step: None
    stop: Callable[[], bool] = lambda: False
