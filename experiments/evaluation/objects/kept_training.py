"""Trains a network once: loads saved weights if they exist, else trains with a progress bar and saves them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Generator, nn
from tqdm import tqdm

from jepa_mpc.checkpoint import MANIFEST, load_checkpoint, load_strict, save_checkpoint
from jepa_mpc.errors import BadCheckpoint
from jepa_mpc.interfaces import Batch
from jepa_mpc.world_model.training.loop import Callbacks, FitSettings, fit


def trained_once(folder: Path, network: nn.Module, wanted: Mapping[str, Any], train: Callable[[], None]) -> float:
    """Give a network its trained weights, and return the CPU seconds of their training; it is left in evaluation mode.

    Args:
        folder: Folder of the weights.
        network: Receives the weights.
        wanted: The training settings, as plain JSON values.
        train: Trains it, where no weights are saved.

    Raises:
        BadCheckpoint: If the saved weights have other settings.
    """
    if (folder / MANIFEST).exists():
        tensors, config = load_checkpoint(folder)
        if {name: config[name] for name in wanted} != dict(wanted):
            raise BadCheckpoint(f"{folder} was trained with other settings: name another folder")
        load_strict(network, tensors, str(folder))
        seconds = float(config["cpu_s"])
    else:
        begun = time.process_time()
        train()
        seconds = round(time.process_time() - begun, 1)
        save_checkpoint(folder, network.state_dict(), {**wanted, "cpu_s": seconds})
    network.eval()
    return seconds


def fit_shown(
    objective: nn.Module,
    draw: Callable[[Generator], Batch],
    settings: FitSettings,
    *,
    seed: int,
    title: str,
    device: torch.device | str = "cpu",
) -> None:
    """Train an objective on sampled batches, with a progress bar that shows the loss."""
    with tqdm(total=settings.steps, desc=title, unit="step") as bar:
        show = lambda step, numbers: bar.set_postfix(loss=f"{numbers['loss']:.4f}")  # noqa: E731
        callbacks = Callbacks(tick=lambda step: bar.update(), log=show)
        fit(objective, draw, settings=settings, seed=seed, device=device, callbacks=callbacks)
