"""Recorders of training metrics: JSON lines, TensorBoard, Weights & Biases."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from torch.utils.tensorboard import SummaryWriter

from jepa_mpc.errors import MissingPackage
from jepa_mpc.files import write_text

METRICS = "metrics.jsonl"
SPEED = "speed/"
"""Prefix of metrics that depend on machine and time; they are shown and not stored."""


class Recorder(Protocol):
    """Records the metrics of a step."""

    def __call__(self, step: int, numbers: Mapping[str, float]) -> None:
        """Record them."""

    def close(self) -> None:
        """Close the recorder."""


class JsonLines:
    """One JSON line per entry; on resume, lines after the resumed step are dropped, since they are written again.

    Args:
        folder: The run folder.
        done: Steps finished before this process.
    """

    def __init__(self, folder: Path, *, done: int) -> None:
        self.path = folder / METRICS
        kept = [line for line in self._lines() if json.loads(line)["step"] <= done]
        write_text(self.path, "".join(line + "\n" for line in kept))
        self.stream = self.path.open("a", encoding="utf-8")

    def __call__(self, step: int, numbers: Mapping[str, float]) -> None:
        """Write a line."""
        kept = {name: value for name, value in numbers.items() if not name.startswith(SPEED)}
        if kept:
            self.stream.write(json.dumps({"step": step, **kept}) + "\n")
            self.stream.flush()

    def close(self) -> None:
        """Close the file."""
        self.stream.close()

    def _lines(self) -> list[str]:
        """Complete lines of an earlier run; skips a line cut short by a kill."""
        if not self.path.exists():
            return []
        text = self.path.read_text(encoding="utf-8")
        return text[: text.rfind("\n") + 1].splitlines()


class TensorBoard:
    """Curves for TensorBoard: `tensorboard --logdir runs`.

    Args:
        folder: The run folder.
        done: Steps finished before this process.
    """

    def __init__(self, folder: Path, *, done: int) -> None:
        self.board = SummaryWriter(str(folder / "tensorboard"), purge_step=done + 1 if done else None)

    def __call__(self, step: int, numbers: Mapping[str, float]) -> None:
        """Add a point to each curve."""
        for name, value in numbers.items():
            self.board.add_scalar(name, value, step)

    def close(self) -> None:
        """Close the file."""
        self.board.close()


class WeightsAndBiases:
    """A run of Weights & Biases, named after the run folder; WANDB_MODE=offline keeps it on this machine.

    Args:
        folder: The run folder.
        done: Steps finished before this process.

    Raises:
        MissingPackage: If wandb is not installed.
    """

    def __init__(self, folder: Path, *, done: int) -> None:
        try:
            import wandb
        except ImportError as error:
            raise MissingPackage("wandb", "recorders=[wandb]") from error
        place = folder.resolve()
        self.run: Any = wandb.init(
            project="jepa-mpc", name=place.name, id=f"{place.parent.name}-{place.name}", dir=str(place), resume="allow"
        )

    def __call__(self, step: int, numbers: Mapping[str, float]) -> None:
        """Add a point to each curve."""
        self.run.log(dict(numbers), step=step)

    def close(self) -> None:
        """Finish the W&B run."""
        self.run.finish()


RECORDERS: dict[str, Callable[..., Recorder]] = {
    "jsonl": JsonLines,
    "tensorboard": TensorBoard,
    "wandb": WeightsAndBiases,
}
