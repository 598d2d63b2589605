"""The comparison cut into cells: one training or measurement each, with a file of its own."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jepa_mpc.files import write_json
from jepa_mpc.reporting.record import plain

log = logging.getLogger(__name__)

PIXELS, TWIN, TRAINED, SUPERVISED = "pixels", "twin", "trained", "supervised"
"""What is compared: the bare picture, fresh weights of the same seed, the pretraining, and training on the labels."""

PARTS = ("probe", "ceiling", "predictor", "reach")
FAILED = "failed"
"""The entry of an outcome that says why there is none."""

Outcome = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class EncoderCell:
    """One piece of work.

    Args:
        kind: "weights" (a pretraining, or its random twin), or one of `PARTS`.
        system: The encoder's name; "" for bare pixels, which belong to all.
        encoder: Which weights: `PIXELS`, `TWIN`, `TRAINED` or `SUPERVISED`.
        seed: Of all that is drawn.
    """

    kind: str
    system: str
    encoder: str
    seed: int

    @property
    def name(self) -> str:
        """What its files are called."""
        return "-".join(part for part in (self.kind, self.system, self.encoder, f"s{self.seed}") if part)

    def path(self, folder: Path) -> Path:
        """Its file in a run folder."""
        return folder / "cells" / f"{self.name}.json"


def ordered(
    systems: Sequence[str], seeds: Iterable[int], *, parts: Sequence[str], reach_seed: int | None
) -> list[EncoderCell]:
    """All cells, cheap ones first and every one after those that it builds on; a seed is finished before the next."""
    seeds, cells = list(seeds), list[EncoderCell]()
    if "probe" in parts:
        cells += [EncoderCell(kind="probe", system="", encoder=PIXELS, seed=seed) for seed in seeds]
    for seed in seeds:
        cells += _each(("weights", "probe"), TWIN, systems, seed, parts)
    for seed in seeds:
        last = ("predictor", "reach") if seed == reach_seed else ("predictor",)
        cells += _each(("ceiling",), SUPERVISED, systems, seed, parts)
        cells += _each(("weights", "probe"), TRAINED, systems, seed, parts)
        for encoder in (TRAINED, TWIN):
            cells += _each(last, encoder, systems, seed, parts)
    return cells


def _each(
    kinds: Sequence[str], encoder: str, systems: Sequence[str], seed: int, parts: Sequence[str]
) -> Iterator[EncoderCell]:
    wanted = [kind for kind in kinds if kind == "weights" or kind in parts]
    for system in systems:
        yield from (EncoderCell(kind=kind, system=system, encoder=encoder, seed=seed) for kind in wanted)


def kept(cell: EncoderCell, folder: Path, asked: Mapping[str, Any]) -> Outcome | None:
    """What came of a cell earlier with the same settings; None if there is no such file, or a damaged one."""
    path = cell.path(folder)
    if not path.exists():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        same = found["cell"] == asdict(cell) and found["asked"] == json.loads(json.dumps(asked))
        return dict(found["outcome"]) if same else None
    except (ValueError, KeyError, TypeError) as error:
        log.warning("%s is damaged (%s) and will be made again", path, error)
        return None


def keep(cell: EncoderCell, folder: Path, asked: Mapping[str, Any], outcome: Outcome) -> None:
    """Write what came of a cell."""
    write_json(cell.path(folder), plain({"cell": asdict(cell), "asked": dict(asked), "outcome": dict(outcome)}))
