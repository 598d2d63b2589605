"""LeWorldModel on the same recording: one vector for each picture, for comparison."""

from __future__ import annotations

import time
from pathlib import Path

import torch
from torch import Generator, Tensor
from tqdm import tqdm

from jepa_mpc.checkpoint import MANIFEST, load_checkpoint, load_strict, save_checkpoint
from jepa_mpc.encoders.convnet import KeypointEncoder
from jepa_mpc.envs.pucks import LARGEST_STEP_M
from jepa_mpc.errors import BadCheckpoint
from jepa_mpc.experiments.evaluation.objects.puck_recording import Episodes
from jepa_mpc.seeding import generator
from jepa_mpc.world_model.parts.objectives.dynamics import DynamicsObjective, OpenLoop
from jepa_mpc.world_model.recipes import leworldmodel
from jepa_mpc.world_model.training.loop import Callbacks, FitSettings, fit

WIDTH = 64
WINDOW = 5
CHANNELS = (8, 16, 32, 32)


def trained_pixels(
    folder: Path, episodes: Episodes, settings: FitSettings, *, batch: int, seed: int
) -> DynamicsObjective:
    """The trained model: read if it is there, else trained and kept.

    Raises:
        BadCheckpoint: If what is there was made with other settings.
    """
    objective = leworldmodel.build(
        preset="lab",
        action_dim=2,
        action_scale=[LARGEST_STEP_M / 2] * 2,
        encoder=KeypointEncoder(num_cameras=1, width=WIDTH, widths=CHANNELS, keypoints=16),
        open_loop=OpenLoop(weight=1.0, steps=3),
        generator=generator(seed, "weights"),
    )
    said = str((settings, batch, seed))
    if (folder / MANIFEST).exists():
        tensors, config = load_checkpoint(folder)
        if config["lesson"] != said:
            raise BadCheckpoint(f"{folder} was trained with other settings: name another folder")
        load_strict(objective, tensors, str(folder))
        return objective.eval()
    begun, steps = time.process_time(), episodes.frames.shape[1]

    def draw(stream: Generator) -> dict[str, Tensor]:
        rows = torch.randint(len(episodes), (batch, 1), generator=stream)
        times = torch.randint(steps - WINDOW + 1, (batch, 1), generator=stream) + torch.arange(WINDOW)
        return {"frames": episodes.frames[rows, times], "actions": episodes.actions[rows, times[:, :-1]]}

    with tqdm(total=settings.steps, desc="LeWorldModel", unit="step") as bar:
        show = lambda step, numbers: bar.set_postfix(loss=f"{numbers['loss']:.4f}")  # noqa: E731
        fit(
            objective, draw, settings=settings, seed=seed, callbacks=Callbacks(tick=lambda step: bar.update(), log=show)
        )
    save_checkpoint(folder, objective.state_dict(), {"lesson": said, "cpu_s": round(time.process_time() - begun, 1)})
    return objective.eval()
