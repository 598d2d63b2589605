"""LeWorldModel on the same recording: the baseline with one vector per image."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Generator, Tensor

from jepa_mpc.encoders.convnet import KeypointEncoder
from jepa_mpc.envs.pucks import LARGEST_STEP_M
from jepa_mpc.experiments.evaluation.objects.kept_training import fit_shown, trained_once
from jepa_mpc.experiments.evaluation.objects.puck_recording import Episodes
from jepa_mpc.seeding import generator
from jepa_mpc.world_model.parts.objectives.dynamics import DynamicsObjective, OpenLoop
from jepa_mpc.world_model.recipes import leworldmodel
from jepa_mpc.world_model.training.loop import FitSettings

WIDTH = 64
WINDOW = 5
CHANNELS = (8, 16, 32, 32)


def trained_pixels(
    folder: Path, episodes: Episodes, settings: FitSettings, *, batch: int, seed: int
) -> DynamicsObjective:
    """The trained model: loaded if it exists, else trained and saved.

    Raises:
        BadCheckpoint: If the existing one has other settings.
    """
    objective = leworldmodel.build(
        preset="lab",
        action_dim=2,
        action_scale=[LARGEST_STEP_M / 2] * 2,
        encoder=KeypointEncoder(num_cameras=1, width=WIDTH, widths=CHANNELS, keypoints=16),
        open_loop=OpenLoop(weight=1.0, steps=3),
        generator=generator(seed, "weights"),
    )
    steps = episodes.frames.shape[1]

    def draw(stream: Generator) -> dict[str, Tensor]:
        rows = torch.randint(len(episodes), (batch, 1), generator=stream)
        times = torch.randint(steps - WINDOW + 1, (batch, 1), generator=stream) + torch.arange(WINDOW)
        return {"frames": episodes.frames[rows, times], "actions": episodes.actions[rows, times[:, :-1]]}

    def train() -> None:
        fit_shown(objective, draw, settings, seed=seed, title="LeWorldModel")

    trained_once(folder, objective, {"lesson": str((settings, batch, seed))}, train)
    return objective
