"""What is read of places: by probes off frozen features and bare pixels, and by a network trained on the labels."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from jepa_mpc.encoders.layers.weights import draw_weights
from jepa_mpc.experiments.evaluation.encoders.encoder_cells import PIXELS, SUPERVISED, TWIN, EncoderCell, Outcome
from jepa_mpc.experiments.evaluation.encoders.encoder_trainings import base_training, weights_of
from jepa_mpc.experiments.evaluation.encoders.training_time import planned_steps, spending, step_seconds
from jepa_mpc.experiments.evaluation.objects.kept_training import fit_shown
from jepa_mpc.face.evaluation.feature_probes import READERS, AttentiveReader, Samples, judge, places_of, samples
from jepa_mpc.face.evaluation.feature_sources import PLAIN, Encode, of_checkpoint
from jepa_mpc.face.training.distributed import device_of
from jepa_mpc.face.training.training_run import Data, load_data
from jepa_mpc.interfaces import Batch
from jepa_mpc.seeding import generator
from jepa_mpc.types import Frames, Loss
from jepa_mpc.world_model.checkpoints.restore import load_network
from jepa_mpc.world_model.checkpoints.token_forms import encoder_of
from jepa_mpc.world_model.training.loop import FitSettings

CHUNK = 128
"""Frames at a time."""


def probed(cfg: DictConfig, cell: EncoderCell) -> Outcome:
    """Every probe on every place that the log knows: a row of scores each."""
    data, device = data_of(cfg, torch.device("cpu")), device_of(str(cfg.device))
    encode = PLAIN["frames"] if cell.encoder == PIXELS else of_checkpoint(weights_of(cfg, cell), device=device).trained
    inner, outer = sides(cfg, data, cell.seed, encode)
    rows = []
    for reader in cfg.readers:
        for place, known in inner.items():
            predict = READERS[reader](known, generator=generator(cell.seed, "probe", reader))
            rows.append({"place": place, "probe": reader, **judge(predict, outer[place])})
    return {"rows": rows}


def sides(cfg: DictConfig, data: Data, seed: int, encode: Encode) -> tuple[dict[str, Samples], dict[str, Samples]]:
    """Encoded frames of the training labs and of those kept out; the same ones for every encoder."""
    train = samples(data.train, encode, int(cfg.train), seed=seed, side="train")
    held = samples(data.held, encode, int(cfg.held), seed=seed, side="held")
    return train, held


def data_of(cfg: DictConfig, device: torch.device) -> Data:
    """The log, cut into labs as in the pretrainings."""
    return load_data(base_training(cfg, {"batch": int(cfg.ceiling.batch), "window": 1, "max_stride": 1}), device)


class PlaceObjective(nn.Module):
    """An encoder and a reader of places, trained together on the labels.

        loss = smooth L1((read - middle) / scale)

    Args:
        system: The training loss of the encoder's own system, for its encoder and its way of preparing frames.
        frames: Some frames `B 1 C h w` of the log.
        known: Every place in them `B 3`, for mean and spread.
        stream: Draws the reader's weights.
    """

    middle: Tensor
    scale: Tensor

    def __init__(self, system: Any, frames: Frames, known: Mapping[str, Tensor], *, stream: Generator) -> None:
        super().__init__()
        self.system = system.requires_grad_(False)
        encoder_of(system=system)
        self.names = tuple(known)
        with torch.no_grad():
            count, width = system.encode(frames[:1]).shape[2:]
        self.reader = AttentiveReader(count, width, outputs=3 * len(known))
        draw_weights(self.reader, stream)
        places = torch.stack(list(known.values()), dim=1)  # (B, P, 3)
        self.register_buffer("middle", places.mean(0))
        self.register_buffer("scale", places.std(0))

    def forward(self, batch: Batch, generator: Generator) -> Loss:
        """The loss of frames `B 1 C h w` whose places the batch knows."""
        known = places_of(batch)
        wanted = torch.stack([known[name] for name in self.names], dim=1)
        gap = F.smooth_l1_loss(self._answers(batch["frames"]), (wanted - self.middle) / self.scale, beta=0.1)
        return Loss(total=gap, terms={"places": gap.detach()})

    def after_step(self, progress: float) -> None:
        """Nothing follows."""

    @torch.no_grad()
    def read(self, frames: Tensor) -> Tensor:
        """Places `G P 3` (m) of frames `G C h w`."""
        self.eval()
        device = self.middle.device
        parts = [self._answers(part[:, None].to(device)) * self.scale + self.middle for part in frames.split(CHUNK)]
        return torch.cat(parts).cpu()

    def _answers(self, frames: Frames) -> Tensor:
        return self.reader(self.system.encode(frames)[:, 0]).unflatten(1, (len(self.names), 3))


def supervised(cfg: DictConfig, cell: EncoderCell) -> Outcome:
    """The same network, trained end to end on the labels of the log: what there is to be had at its size."""
    device = device_of(str(cfg.device))
    data = data_of(cfg, device)
    begin = EncoderCell(kind="weights", system=cell.system, encoder=TWIN, seed=cell.seed)
    objective = _untrained(cfg, begin, data)
    given = {name: value for name, value in cfg.ceiling.items() if name != "batch"}
    settings = FitSettings(steps=1, **given)
    draw = lambda stream: data.train.sample(data.batch, 1, generator=stream)  # noqa: E731
    count = planned_steps(
        Path(cfg.out), f"ceiling-{cell.system}", minutes=float(cfg.ceiling_minutes), steps=cfg.ceiling_steps,
        trial=lambda: step_seconds(_untrained(cfg, begin, data), draw, settings, seed=cell.seed, device=device),
    )  # fmt: skip
    settings = FitSettings(steps=count, **given)
    with spending(Path(cfg.out) / "runs" / f"{cell.name}.time.json") as spent:
        fit_shown(objective, draw, settings, seed=cell.seed, title=f"{cell.system} on labels", device=device)
    answers = samples(data.held, objective.read, int(cfg.held), seed=cell.seed, side="held")
    rows = [
        {"place": name, "probe": SUPERVISED, **judge(lambda tokens, at=at: tokens[:, at], answers[name])}
        for at, name in enumerate(objective.names)
    ]
    return {"rows": rows, "steps": count, **spent()}


def _untrained(cfg: DictConfig, begin: EncoderCell, data: Data) -> PlaceObjective:
    system: Any = load_network(weights_of(cfg, begin), kind="system", form=nn.Module)[0]
    some = data.train.sample(int(cfg.train), 1, generator=generator(begin.seed, "ceiling", "places"))
    known = {name: places.cpu() for name, places in places_of(some).items()}
    return PlaceObjective(system, some["frames"].cpu(), known, stream=generator(begin.seed, "ceiling"))
