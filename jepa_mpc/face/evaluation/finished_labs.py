"""Results of finished labs, stored one by one, so that an interrupted run resumes with the next lab."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from jepa_mpc.face.evaluation.lab_episodes import LabJob, LabResult
from jepa_mpc.files import atomic_file
from jepa_mpc.reporting.contact_sheet import Tile
from jepa_mpc.reporting.record import EpisodeRecord, plain, revive

FOLDER = "labs"


class FinishedLabs:
    """The results of a run, one atomically written file per lab.

    Args:
        run: The run folder.
    """

    def __init__(self, run: Path) -> None:
        self.folder = run / FOLDER

    def read(self, job: LabJob) -> LabResult | None:
        """The result of a finished lab, with its video; None if it has not been played."""
        path = self._path(job.split, job.index)
        if not path.exists() or (job.film is not None and not job.film.exists()):
            return None
        try:
            with np.load(path, allow_pickle=False) as arrays:
                facts = json.loads(bytes(arrays["facts"]))
                pictures = {name: arrays[name] for name in ("final", "goal") if name in arrays}
            records = tuple(revive(EpisodeRecord, content) for content in facts["records"])
            tile = None if facts["tile"] is None else Tile(**_lost_again(facts["tile"]), **pictures)
        except (BadZipFile, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path} is damaged ({error}): delete it to replay the lab") from error
        return LabResult(index=job.index, records=records, tile=tile)

    def keep(self, result: LabResult) -> None:
        """Write the result of a lab.

        Raises:
            OSError: If the disk is full.
        """
        tile, pictures = None, {}
        if result.tile is not None:
            tile = asdict(result.tile)
            pictures = {name: tile.pop(name) for name in ("final", "goal")}
        facts = json.dumps(plain({"records": [asdict(record) for record in result.records], "tile": tile}))
        with (
            atomic_file(self._path(result.records[0].split, result.index)) as draft,
            draft.open("wb") as file,
        ):
            np.savez_compressed(file, facts=np.frombuffer(facts.encode(), np.uint8), **pictures)

    def _path(self, split: str, index: int) -> Path:
        return self.folder / f"{split}-{index:03d}.npz"


def _lost_again(tile: dict[str, Any]) -> dict[str, Any]:
    """Restore the infinite distance of a diverged simulation, which JSON stores as null."""
    return {**tile, "distance_m": float("nan") if tile["distance_m"] is None else tile["distance_m"]}
