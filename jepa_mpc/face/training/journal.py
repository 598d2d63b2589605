"""The run folder of a training: settings, versions and metrics, with one writer at a time."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

from jepa_mpc.errors import choose
from jepa_mpc.face.training.recorders import RECORDERS
from jepa_mpc.files import write_json, write_text
from jepa_mpc.runs.origin import commit

CONFIG = "config.yaml"
USUAL = ("jsonl", "tensorboard")
PACKAGES = ("torch", "numpy", "safetensors")


class Journal:
    """Passes the metrics of a run to each of its recorders.

    Args:
        folder: The run folder.
        done: Steps finished before this process.
        recorders: Names of `RECORDERS`.

    Raises:
        UnknownName: If a recorder is unknown.
        MissingPackage: If one needs a package that is not installed.
    """

    def __init__(self, folder: Path, *, done: int, recorders: Sequence[str] = USUAL) -> None:
        kinds = [choose(RECORDERS, name, "recorder") for name in recorders]
        self.recorders = [kind(folder, done=done) for kind in kinds]

    def __call__(self, step: int, numbers: Mapping[str, float]) -> None:
        """Record the metrics of a step."""
        if numbers:
            for recorder in self.recorders:
                recorder(step, numbers)

    def close(self) -> None:
        """Close all recorders."""
        for recorder in self.recorders:
            recorder.close()


def note_origin(folder: Path, settings: str) -> None:
    """Write what is needed to reproduce the run: resolved settings, commit and versions."""
    write_text(folder / CONFIG, settings)
    versions = {name: version(name) for name in PACKAGES} | {"python": platform.python_version()}
    write_json(folder / "origin.json", {"commit": commit(), "versions": versions, "machine": platform.machine()})
