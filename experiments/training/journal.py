"""The run folder of a training: settings, versions, metrics (lines of JSON, and TensorBoard), one writer at a time."""

from __future__ import annotations

import json
import platform
import subprocess
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from core.errors import Busy as Busy
from core.files import only_writer as only_writer
from core.files import write_json, write_text

METRICS = "metrics.jsonl"
PACKAGES = ("torch", "numpy", "safetensors")


class Journal:
    """Metrics of a run; entries after the step that a training goes on from are dropped, for they will come again.

    Args:
        folder: The run folder.
        done: Steps that were done before.
    """

    def __init__(self, folder: Path, *, done: int) -> None:
        self.path = folder / METRICS
        kept = [line for line in self._lines() if json.loads(line)["step"] <= done]
        write_text(self.path, "".join(line + "\n" for line in kept))
        self.stream = self.path.open("a", encoding="utf-8")
        self.board = SummaryWriter(str(folder / "tensorboard"), purge_step=done + 1 if done else None)

    def __call__(self, step: int, numbers: Mapping[str, float]) -> None:
        """Note the numbers of a step."""
        if not numbers:
            return
        self.stream.write(json.dumps({"step": step, **numbers}) + "\n")
        self.stream.flush()
        for name, value in numbers.items():
            self.board.add_scalar(name, value, step)

    def close(self) -> None:
        """Finish both files."""
        self.stream.close()
        self.board.close()

    def _lines(self) -> list[str]:
        """Whole lines of an earlier run; a line that a kill cut short is left out."""
        if not self.path.exists():
            return []
        text = self.path.read_text(encoding="utf-8")
        return text[: text.rfind("\n") + 1].splitlines()


def note_origin(folder: Path, settings: str) -> None:
    """Write what is needed to run it again: the resolved settings, the commit and the versions."""
    write_text(folder / "config.yaml", settings)
    versions = {name: version(name) for name in PACKAGES} | {"python": platform.python_version()}
    write_json(folder / "origin.json", {"commit": commit(), "versions": versions, "machine": platform.machine()})


def commit() -> str:
    """The commit of the checkout, with a plus if files were changed since; "unknown" outside of one."""
    root = Path(__file__).resolve().parent.parent.parent
    try:
        named = subprocess.run(
            ["git", "describe", "--always", "--abbrev=12", "--dirty=+", "--exclude=*"],
            cwd=root, capture_output=True, text=True, check=True, timeout=10,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return named.stdout.strip()
