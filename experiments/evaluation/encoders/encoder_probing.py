"""What is read of places: by probes off frozen features and bare pixels, and by a network trained on the labels."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Generator, Tensor, nn

from jepa_mpc.encoders.layers.weights import draw_weights
from jepa_mpc.experiments.evaluation.encoders.encoder_cells import PIXELS, SUPERVISED, TWIN, EncoderCell, Outcome
from jepa_mpc.experiments.evaluation.encoders.encoder_trainings import base_training, weights_of
from jepa_mpc.experiments.evaluation.encoders.training_time import planned_steps, spending, step_seconds
from jepa_mpc.experiments.evaluation.objects.kept_training import fit_shown
from jepa_mpc.face.evaluation.feature_probes import (
    NEAR,
    READERS,
    AttentiveReader,
    Distance,
    Samples,
    judge,
    places_of,
    samples,
)
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


class ReadObjective(nn.Module):
    """An encoder and an attentive reader of its tokens, trained together on labels.

        loss = mean over what is read of distance((read - middle) / scale)

    Args:
        system: The training loss of the encoder's own system, for its encoder and its way of preparing inputs.
        seen: Some inputs `B 1 ...` of the log.
        known: What is read in them, `B Q` each, for mean and spread; rows of NaN have no label.
        stream: Draws the reader's weights.
        distances: Between read and true numbers, by name.
    """

    middle: Tensor
    scale: Tensor

    def __init__(
        self,
        system: Any,
        seen: Tensor,
        known: Mapping[str, Tensor],
        *,
        stream: Generator,
        distances: Mapping[str, Distance],
    ) -> None:
        super().__init__()
        self.system = system.requires_grad_(False)
        encoder_of(system=system)
        self.distances, self.widths = dict(distances), {name: one.shape[1] for name, one in known.items()}
        with torch.no_grad():
            count, width = system.encode(seen[:1]).shape[2:]
        self.reader = AttentiveReader(count, width, outputs=sum(self.widths.values()))
        draw_weights(self.reader, stream)
        labelled = [one[one.isfinite().all(1)] for one in known.values()]
        self.register_buffer("middle", torch.cat([one.mean(0) for one in labelled]))
        self.register_buffer("scale", torch.cat([one.std(0) for one in labelled]).clamp_min(1e-6))

    def forward(self, batch: Batch, generator: Generator) -> Loss:
        """The loss of inputs `B 1 ...` with their labels."""
        seen, known = self.take(batch)
        answers = self._split(self._answers(seen))
        wanted = self._split((torch.cat([known[name] for name in self.widths], dim=1) - self.middle) / self.scale)
        terms = {name: _labelled(self.distances[name], answers[name], wanted[name]) for name in self.widths}
        total = torch.stack(list(terms.values())).mean()
        return Loss(total=total, terms={name: term.detach() for name, term in terms.items()})

    def take(self, batch: Batch) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Inputs `B 1 ...` and labels of a batch."""
        return batch["seen"], batch

    def after_step(self, progress: float) -> None:
        """Nothing follows."""

    @torch.no_grad()
    def answers(self, seen: Tensor) -> dict[str, Tensor]:
        """What is read in inputs `G ...`: `G Q` by name."""
        self.eval()
        device = self.middle.device
        parts = [self._answers(part[:, None].to(device)) * self.scale + self.middle for part in seen.split(CHUNK)]
        return self._split(torch.cat(parts).cpu())

    def _answers(self, seen: Tensor) -> Tensor:
        return self.reader(self.system.encode(seen)[:, 0])

    def _split(self, flat: Tensor) -> dict[str, Tensor]:
        return dict(zip(self.widths, flat.split(list(self.widths.values()), dim=1), strict=True))


def _labelled(distance: Distance, answers: Tensor, wanted: Tensor) -> Tensor:
    """The mean distance over the rows that have a label; 0 where none has."""
    rows = wanted.isfinite().all(1, keepdim=True)
    gap = distance(answers.where(rows, 0.0), wanted.where(rows, 0.0))
    return gap * len(rows) / rows.sum().clamp_min(1)


class PlaceObjective(ReadObjective):
    """The same for places in frames.

    Args:
        system: The training loss of the encoder's own system.
        frames: Some frames `B 1 C h w` of the log.
        known: Every place in them `B 3`.
        stream: Draws the reader's weights.
    """

    def __init__(self, system: Any, frames: Frames, known: Mapping[str, Tensor], *, stream: Generator) -> None:
        super().__init__(system, frames, known, stream=stream, distances=dict.fromkeys(known, NEAR))
        self.names = tuple(known)

    def take(self, batch: Batch) -> tuple[Frames, Mapping[str, Tensor]]:
        """Frames `B 1 C h w` and the places in them."""
        return batch["frames"], places_of(batch)

    def read(self, frames: Tensor) -> Tensor:
        """Places `G P 3` (m) of frames `G C h w`."""
        return torch.stack(list(self.answers(frames).values()), dim=1)


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
