"""How to train, what a training comes to, and what it tells the outside."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn

from jepa_mpc.world_model.training.decay import DecayAll, DecayRule
from jepa_mpc.world_model.training.schedules import Schedule, WarmupCosine


class TrainingDiverged(ArithmeticError):
    """The loss or its gradient is not finite any more; nothing was saved since it was."""


@dataclass(frozen=True, kw_only=True)
class FitSettings:
    """How to train; the defaults are those of LeWorldModel (Maes et al. 2026, arXiv:2603.19312).

    Args:
        steps: Optimiser steps.
        learning_rate: Peak of the schedule.
        weight_decay: Of AdamW, on the weights that `decayed` names.
        betas: Of AdamW.
        epsilon: Of AdamW: gradients far below it count as none. At the usual 1e-8 a weight without any influence (a
            bias before a norm) still wanders with the rounding of its gradient.
        warmup: Share of the steps in which the rate rises linearly; a cosine follows.
        final_rate: Where the cosine ends, as a share of the peak.
        clip_norm: Largest norm of the whole gradient.
        precision: "bfloat16" runs the forward pass under autocast, "auto" does so where a measurement at the start
            finds it faster (a training that goes on ends in the same bits only where the choice is the same).
        average_decay: Keeps a running average of the weights with this decay, used for evaluation; None keeps none.
        log_every: Steps between two entries of the log.
        evaluate_every: Steps between two evaluations (and one at the end); 0 never evaluates.
        save_every: Steps between two saved states (and one at the end); 0 saves at the end alone.
        watch_every: Steps between two looks for signs of collapse (and one before each save); 0 never looks.
        accumulate: Parts that a batch is worked on in, one after another; the gradient is that of their mean.
        schedule: Another course of the learning rate than `warmup` and `final_rate` describe.
        decayed: Which weights decay; all by default.
        decay_schedule: Course of the weight decay as a share of `weight_decay`; None keeps it as it is.

    Raises:
        ValueError: If a number is out of range; says which.
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
        """The learning rate of step `step`, counted from 0."""
        schedule = self.schedule or WarmupCosine(self.warmup, self.final_rate)
        return self.learning_rate * schedule(step, self.steps)

    def decay_share_at(self, step: int) -> float:
        """The weight decay of step `step`, counted from 0, as a share of `weight_decay`."""
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
    """All that a training needs to go on: steps done, weights, optimiser, and the average of the weights if kept.

    Batches, noise and dropout of a step follow from the seed and the step's number, so no random stream and no position
    in the data has to be kept.
    """

    step: int
    objective: Mapping[str, Tensor]
    optimiser: Mapping[str, Any]
    average: Mapping[str, Tensor] | None = None


@dataclass(frozen=True, kw_only=True)
class Callbacks:
    """What the loop tells the outside; steps are counted as done. Only the first of several processes tells anything.

    Args:
        log: Gets (step, numbers) each `log_every` steps and after each evaluation.
        evaluate: Gets (step, objective with averaged weights if kept, in evaluation mode) and returns numbers to log.
        watch: Gets (step, objective with its own weights, in evaluation mode) each `watch_every` steps and before each
            save; it may raise to stop the training before anything is overwritten.
        save: Gets the state each `save_every` steps and at the end; it must copy or write it before it returns.
        tick: Gets the step after each step (a progress bar).
        stop: Asked after each step; True saves the state and ends the training early.
    """

    log: Callable[[int, Mapping[str, float]], None] = lambda step, numbers: None
    evaluate: Callable[[int, nn.Module], Mapping[str, float]] = lambda step, objective: {}
    watch: Callable[[int, nn.Module], None] = lambda step, objective: None
    save: Callable[[FitState], None] = lambda state: None
    tick: Callable[[int], None] = lambda step: None
    stop: Callable[[], bool] = lambda: False
