"""The one training loop: batch, loss, clip, step, schedule, log, evaluate, watch, save, resume.

Step k draws its batch, its noise and its dropout from streams that depend on (seed, k) alone. A training that is
resumed from any saved state therefore ends in the same bits (CPU, one number of threads) as one that ran through.
Several processes share out the rows of the same batch, so that they train like one.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from jepa_mpc.processes import any_process, num_processes, process_index
from jepa_mpc.world_model.training.layouts import Alone, Layout
from jepa_mpc.world_model.training.settings import Callbacks, FitSettings, FitState, TrainingDiverged
from jepa_mpc.world_model.training.step import Batches, Training

__all__ = ["Batches", "Callbacks", "FitSettings", "FitState", "TrainingDiverged", "fit"]


def fit(
    objective: nn.Module,
    batches: Batches,
    *,
    settings: FitSettings,
    seed: int,
    device: torch.device | str = "cpu",
    callbacks: Callbacks | None = None,
    start: FitState | None = None,
    layout: Layout | None = None,
) -> FitState:
    """Train an objective in place.

    Args:
        objective: An Objective that is a module: the loss with its networks; moved to `device`.
        batches: Draws a batch with the (CPU) generator that it is given; of all processes' rows, or of one share
            where it has the method `part` (`fitting.processes.SharedBatches`).
        settings: How to train.
        seed: Base seed of batches, noise and dropout.
        device: Where to train.
        callbacks: What to tell the outside.
        start: A state to go on from, in one piece, whatever layout it was saved from.
        layout: Where the weights lie; by default all in this one process.

    Returns:
        The state after the last step, in one piece.

    Raises:
        TrainingDiverged: If loss or gradient is not finite; the last saved state is still a good one.
        ValueError: If `start` is of a longer training, or a batch cannot be shared out evenly.
    """
    training = Training(objective.to(device), settings, seed=seed, layout=layout or Alone())
    told = _Told(training, callbacks or Callbacks())
    if start is not None:
        training.restore(start)
    while training.done < settings.steps:
        numbers = training.step(batches)
        done, last = training.done, training.done == settings.steps
        stopping = told.stopping()
        if _due(settings.log_every, done) or last:
            told.log(numbers)
        if settings.evaluate_every and (_due(settings.evaluate_every, done) or last):
            told.evaluate()
        saving = stopping or last or _due(settings.save_every, done)
        if settings.watch_every and (_due(settings.watch_every, done) or saving):
            told.watch()
        if saving:
            told.save()
        told.tick()
        if stopping:
            break
    return training.state()


def _due(every: int, done: int) -> bool:
    return every > 0 and done % every == 0


class _Told:
    """Tells the outside of a training, from the first process alone."""

    def __init__(self, training: Training, callbacks: Callbacks) -> None:
        self.training, self.callbacks, self.first = training, callbacks, process_index() == 0

    def stopping(self) -> bool:
        """Whether any process was asked to stop; several of them ask each other at every entry of the log."""
        training = self.training
        if num_processes() > 1 and training.done % training.settings.log_every:
            return False
        return any_process(self.callbacks.stop(), training.device)

    def log(self, numbers: dict[str, Tensor]) -> None:
        self.training.check()
        if self.first:
            self.callbacks.log(self.training.done, {name: float(value) for name, value in numbers.items()})

    def evaluate(self) -> None:
        self.training.check()
        numbers: Any = self.training.judged(self.callbacks.evaluate, averaged_weights=True)
        if self.first:
            self.callbacks.log(self.training.done, numbers)

    def watch(self) -> None:
        self.training.check()
        self.training.judged(self.callbacks.watch, averaged_weights=False)

    def save(self) -> None:
        self.training.check()
        state = self.training.state()
        if self.first:
            self.callbacks.save(state)

    def tick(self) -> None:
        if self.first:
            self.callbacks.tick(self.training.done)
