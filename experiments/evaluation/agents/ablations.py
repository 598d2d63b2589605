"""Ablations of the agent, one module at a time, on the same episodes; each cell is played once and its result saved."""

from __future__ import annotations

import hashlib
import json
import logging
import re
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from jepa_mpc.envs.labs import sample_lab
from jepa_mpc.envs.reach import ReachEnv
from jepa_mpc.episode import run_episode
from jepa_mpc.experiments.evaluation.agents.ensemble_doubt import doubts
from jepa_mpc.experiments.evaluation.agents.wall_task import WallSettings, play, trained_critic
from jepa_mpc.face.agents import planning_agent
from jepa_mpc.face.evaluation.methods import world_model_at
from jepa_mpc.face.evaluation.reach_task import reach_env
from jepa_mpc.face.planning import PlanSettings
from jepa_mpc.face.two_modes import TwoModeSettings
from jepa_mpc.files import write_json
from jepa_mpc.interfaces import Agent
from jepa_mpc.plain_json import read_json_file
from jepa_mpc.reporting.record import plain
from jepa_mpc.seeding import seed_of
from jepa_mpc.step_log import StepLog
from jepa_mpc.world_model.agents.two_modes import TwoModeStepLog

log = logging.getLogger(__name__)
FORMAT = "agent-ablation-v1"
SIMPLE = "simple agent"
WALL_WITH, WALL_WITHOUT = "wall, critic", "wall, no critic"
DOUBT = "doubt: "


def variants(full: TwoModeSettings) -> dict[str, TwoModeSettings | None]:
    """The whole agent, the agent without one module, and None for the simple agent; by name.

    An agent that has no such module has no row for it.
    """
    made: dict[str, TwoModeSettings | None] = {"full": full}
    if full.critic is not None:
        made["no critic"] = replace(full, critic=None)
    if full.memory or full.context > 1:
        made["no memory"] = replace(full, memory=0, context=1)
    if full.members:
        made["no ensemble"] = replace(full, members=())
    if full.policy is not None:
        made["Mode-2 only"] = replace(full, mode="mode2")
        made["Mode-1 only"] = replace(full, mode="mode1")
    return {**made, SIMPLE: None}


@dataclass(frozen=True, kw_only=True)
class AblationCell:
    """One episode of one variant, or one run of the wall task.

    Args:
        variant: Its name in the table.
        full: Parts of the agent, as plain values; None for the simple agent.
        settings: Planner, horizon and effort, as plain values; for the wall task its sizes.
        checkpoint: Folder of the (first) world model.
        split, level, lab_seed, lab, episode: Which episode.
        budget: Number of steps.
        seed: Of the planner; for the wall task also of the training.
    """

    variant: str
    full: Mapping[str, Any] | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    checkpoint: str = ""
    split: str = ""
    level: str = ""
    lab_seed: int = 0
    lab: int = 0
    episode: int = 0
    budget: int = 0
    seed: int = 0

    @property
    def key(self) -> str:
        """A unique name of this cell."""
        text = json.dumps({"format": FORMAT, **asdict(self)}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def path(self, folder: Path) -> Path:
        """Its file in a run folder."""
        name = re.sub(r"[^a-z0-9]+", "-", self.variant.lower()).strip("-")
        return folder / "cells" / f"{name}__{self.lab}_{self.episode}_{self.seed}__{self.key}.json"


@dataclass(frozen=True, kw_only=True)
class AblationWork:
    """A cell and the folder for its result."""

    cell: AblationCell
    folder: Path


def kept(cell: AblationCell, folder: Path) -> dict[str, Any] | None:
    """The saved result of a cell, or None if its file is missing or damaged."""
    path = cell.path(folder)
    try:
        content = read_json_file(path)
        if content["key"] != cell.key:
            raise ValueError("it is the file of another cell")
        return dict(content["outcome"])
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        log.warning("%s is damaged (%s) and will be made again", path, error)
        return None


def work_off(work: AblationWork) -> AblationWork:
    """Play a cell and write its file (in a worker process)."""
    torch.set_num_threads(1)
    cell = work.cell
    if cell.variant.startswith(DOUBT):
        outcome = _doubts(cell)
    else:
        outcome = _wall(cell) if cell.variant in (WALL_WITH, WALL_WITHOUT) else _episode(cell)
    content = {"format": FORMAT, "key": cell.key, "cell": asdict(cell), "outcome": outcome}
    write_json(cell.path(work.folder), plain(content))
    return work


def _doubts(cell: AblationCell) -> dict[str, Any]:
    assert cell.full is not None
    model = TwoModeSettings(**dict(cell.full)).world_model(Path(cell.checkpoint), device="cpu")
    sizes = cell.settings
    found = doubts(
        model, split=cell.split, labs=sizes["labs"], frames=sizes["frames"], seed=cell.lab_seed, level=cell.level
    )
    return {"disagreement": found.disagreement.tolist(), "error_m": found.error_m.tolist()}


def _wall(cell: AblationCell) -> dict[str, Any]:
    settings = WallSettings(**cell.settings)
    begun = time.process_time()
    critic = trained_critic(settings, seed=cell.seed) if cell.variant == WALL_WITH else None
    trained = time.process_time()
    result = play(settings, critic, seed=cell.seed)
    return {
        "reached": result.reached.tolist(),
        "places": [[[round(x, 3) for x in p] for p in path] for path in result.places[:, :12].transpose(0, 1).tolist()],
        "goals": result.goals[:12].tolist(),
        "train_cpu_s": trained - begun,
        "play_cpu_s": time.process_time() - trained,
    }


def _episode(cell: AblationCell) -> dict[str, Any]:
    checkpoint, plan = Path(cell.checkpoint), PlanSettings(**dict(cell.settings))
    env = _environment(checkpoint, cell.budget)
    lab = sample_lab(cell.lab, split=cell.split, seed=cell.lab_seed, level=cell.level)  # type: ignore[arg-type]
    stream = seed_of(cell.lab_seed, lab.seed, lab.index, cell.episode)
    env.reset(seed=stream, options={"lab": lab})
    agent = _agent(cell, checkpoint, env, plan, seed=cell.seed + stream)
    played = run_episode(env, agent, steps=cell.budget)
    return {
        "distances_m": played.distances,
        "cpu_ms": played.busy_ms,
        "steps": [_told(log) for log in played.logs],
    }


def _agent(cell: AblationCell, checkpoint: Path, env: ReachEnv, plan: PlanSettings, *, seed: int) -> Agent:
    if cell.full is None:
        return planning_agent(world_model_at(checkpoint, "cpu"), env, plan, seed=seed)
    return TwoModeSettings(**dict(cell.full)).build(checkpoint, env, plan, seed=seed, device="cpu")


def _told(log: StepLog | None) -> dict[str, Any]:
    """A step's log as plain numbers."""
    if not isinstance(log, TwoModeStepLog):
        return {}
    return {
        "reactive": bool(log.reactive[0]),
        "decrease": float(log.energy_before[0] - log.energy_after[0]),
        "surprise": float(log.surprise[0]),
        "disagreement": float(log.disagreement[0]),
        "evaluations": log.evaluations,
        "ms": {stage: round(ms, 3) for stage, ms in log.milliseconds.items()},
    }


@lru_cache(maxsize=1)
def _environment(checkpoint: Path, budget: int) -> ReachEnv:
    return reach_env(world_model_at(checkpoint, "cpu").interface, budget=budget)
