"""The training loop: batch, loss, clip, step, schedule, log, evaluate, check for collapse, save, resume.

Step k draws its batch, noise and dropout from streams that depend on (seed, k) alone. A training resumed from any saved
state therefore ends in the same bits (on a CPU with the same number of threads) as an uninterrupted one. Several
processes split the rows of the same batch and so match a single one.
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
        batches: Draws a batch with the given (CPU) generator; the rows of all processes, or of one share if it has the
            method `part` (`fitting.processes.SharedBatches`).
        settings: Training settings.
        seed: Base seed of batches, noise and dropout.
        device: Device to train on.
        callbacks: Callbacks of the loop.
        start: A complete state to resume from, saved from any layout.
        layout: Layout of the weights; by default all in this process.

    Returns:
        The complete state after the last step.

    Raises:
        TrainingDiverged: If loss or gradient is not finite; the last saved state is still good.
        ValueError: If `start` has more steps than the training, or a batch is not divisible.
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
    """Runs the callbacks, on the first process only."""

    def __init__(self, training: Training, callbacks: Callbacks) -> None:
        self.training, self.callbacks, self.first = training, callbacks, process_index() == 0

    def stopping(self) -> bool:
        """Whether any process was asked to stop; several processes synchronise this at every log entry."""
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
