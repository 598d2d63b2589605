"""Records of an experiment: every episode, the protocol, and their summary."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from jepa_mpc.files import write_text
from jepa_mpc.plain_json import read_json_file

FORMAT = "reach-report-v1"
HELD_STEPS = 3
BUSY = "machine was busy"
"""Hardware note of a protocol that ran beside other work, so that its times are unreliable."""


@dataclass(frozen=True, kw_only=True)
class EpisodeRecord:
    """One episode of one method; all tables and figures can be recomputed from these.

    Args:
        method: Name of the method, e.g. "world model" or "random".
        lab: Name of the lab.
        lab_index: Its index in the list of labs.
        split: Ranges that the lab was drawn from: "in", "look", "all" or the name of one factor.
        seed: Seed of the episode (start and goal).
        start_m: Gripper position at the start (x, y, z).
        goal_m: Gripper position at the goal (x, y, z).
        distances_m: Distance from gripper to goal at every step, including the start; NaN after a diverged simulation.
        imagined_m: The model's own estimate of the distance, per step, or None.
        success_5cm: Whether the final pose is within 5 cm.
        success_2cm: Whether the final pose is within 2 cm.
        held_success_5cm: Whether each of the last three poses is within 5 cm.
        ms_per_step: Time of each decision (ms).
        clipped_share: Share of actions clipped by the robot's limits, or None if not measured.
        statuses: Planner status per decision.
        video: Path of the video relative to the run folder, or None.

    Raises:
        ValueError: If there is no distance.
    """

    method: str
    lab: str
    lab_index: int
    split: str
    seed: int
    start_m: tuple[float, ...]
    goal_m: tuple[float, ...]
    distances_m: tuple[float, ...]
    imagined_m: tuple[float, ...] | None = None
    success_5cm: bool
    success_2cm: bool
    held_success_5cm: bool
    ms_per_step: tuple[float, ...] = ()
    clipped_share: float | None = None
    statuses: tuple[str, ...] = ()
    video: str | None = None

    def __post_init__(self) -> None:
        if not len(self.distances_m):
            raise ValueError(f"episode {self.seed} of {self.lab} has no distance, need at least that of the start")

    @classmethod
    def judged(
        cls,
        *,
        distances_m: Sequence[float],
        imagined_m: Sequence[float] | None = None,
        ms_per_step: Sequence[float] = (),
        **rest: Any,
    ) -> EpisodeRecord:
        """A record whose success flags are computed from the distances; `rest` are the other fields.

        Curves may be any sequence of numbers; they are rounded to micrometres and microseconds.
        """
        distances = _rounded(distances_m, digits=6)
        return cls(
            distances_m=distances,
            imagined_m=None if imagined_m is None else _rounded(imagined_m, digits=6),
            ms_per_step=_rounded(ms_per_step, digits=3),
            success_5cm=all(distance <= 0.05 for distance in distances[-1:]),
            success_2cm=all(distance <= 0.02 for distance in distances[-1:]),
            held_success_5cm=all(distance <= 0.05 for distance in distances[-HELD_STEPS:]),
            **rest,
        )

    @property
    def final_distance_m(self) -> float:
        """Final distance; infinite if the simulation diverged, so that the episode ranks as the worst."""
        last = self.distances_m[-1]
        return last if math.isfinite(last) else math.inf

    @property
    def key(self) -> tuple[str, str, int, int]:
        """Key of an episode for paired comparisons: split, lab and seed."""
        return (self.split, self.lab, self.lab_index, self.seed)


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """The experimental protocol, fixed before the first episode.

    Args:
        method: The headline method.
        split: Ranges of the headline's labs.
        labs: Number of labs.
        episodes_per_lab: Episodes in each.
        lab_seed: Seed of the list of labs.
        seeds: Seeds of the episodes, or of the pooled training runs.
        budget_steps: Actions per episode.
        cameras: Names of the model's cameras.
        planner: Name and settings of the planner.
        lab_list_hash: SHA-256 of the list of labs.
        checkpoint_hash: SHA-256 of the weights.
        level: Source of the split's factors: "held" for scores, "validation" for choosing settings.
        control_hash: SHA-256 of the weights of the control with a frozen random encoder, if it plays.
        thresholds_m: Distances that count as success; the first is the primary one.
        versions: Versions of the relevant packages and of Python.
        commit: Commit of the code.
        command: The command line.
        hardware: Machine description; holds `BUSY` where other work ran on it.
    """

    method: str
    split: str
    labs: int
    episodes_per_lab: int
    lab_seed: int
    seeds: tuple[int, ...]
    budget_steps: int
    cameras: tuple[str, ...]
    planner: Mapping[str, Any]
    lab_list_hash: str
    checkpoint_hash: str
    level: str = "held"
    control_hash: str = ""
    thresholds_m: tuple[float, ...] = (0.05, 0.02)
    versions: Mapping[str, str] = field(default_factory=dict)
    commit: str = ""
    command: str = ""
    hardware: str = ""


@dataclass(frozen=True, kw_only=True)
class Report:
    """The complete result, as in `report.json`.

    Args:
        protocol: The protocol.
        summary: Metrics of the headline (see `summarise`).
        baselines: The same metrics for each other method on the same episodes.
        factors: The same metrics for each single factor out of range, or empty.
        comparisons: Headline method against each baseline, on paired episodes (see `compare`).
        episodes: Every episode of every method.
    """

    protocol: Protocol
    summary: Mapping[str, Any]
    baselines: Mapping[str, Mapping[str, Any]]
    factors: Mapping[str, Mapping[str, Any]]
    comparisons: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    episodes: tuple[EpisodeRecord, ...]

    def of(self, method: str) -> tuple[EpisodeRecord, ...]:
        """Episodes of one method on the headline's split."""
        return tuple(e for e in self.episodes if e.method == method and e.split == self.protocol.split)

    def to_json(self, path: Path | str) -> None:
        """Write the report atomically; non-finite numbers become null.

        Raises:
            OSError: If the disk is full or the path cannot be written.
        """
        content = {"format": FORMAT, **plain(asdict(self))}
        episodes = content.pop("episodes")
        head = json.dumps(content, indent=1, allow_nan=False, ensure_ascii=False).removesuffix("\n}")
        lines = ",\n".join(json.dumps(episode, allow_nan=False, ensure_ascii=False) for episode in episodes)
        write_text(path, f'{head},\n "episodes": [\n{lines}\n]}}\n')

    @classmethod
    def from_json(cls, path: Path | str) -> Report:
        """Read a report; a null distance or time becomes NaN.

        Raises:
            ValueError: If the file is damaged, of another format or lacks a field; the message names the file.
        """
        try:
            content = read_json_file(path)
            if content.pop("format", None) != FORMAT:
                raise ValueError(f"format is not {FORMAT}")
            content["protocol"] = revive(Protocol, content["protocol"])
            content["episodes"] = tuple(revive(EpisodeRecord, episode) for episode in content["episodes"])
            return cls(**content)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"{path} is not a readable report: {error}") from error


def split_name(split: str) -> str:
    """Display name of a split."""
    return {"in": "all in range", "all": "all factors at once"}.get(split, split.replace("_", " "))


def plain(value: Any) -> Any:
    """The data as JSON types: tuples and arrays as lists, non-finite numbers as None."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _rounded(values: Sequence[float], *, digits: int) -> tuple[float, ...]:
    return tuple(round(float(value), digits) for value in values)


def revive(record: type[Any], content: dict[str, Any]) -> Any:
    """A record from its JSON form (`plain`): lists become tuples, null numbers NaN."""
    known = {item.name: str(item.type) for item in fields(record)}
    revived = {
        name: _tuple(item) if known.get(name, "").startswith("tuple") else item for name, item in content.items()
    }
    return record(**revived)


def _tuple(items: Sequence[Any] | None) -> tuple[Any, ...] | None:
    return None if items is None else tuple(math.nan if item is None else item for item in items)
