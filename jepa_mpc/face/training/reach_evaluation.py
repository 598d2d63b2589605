"""Evaluation by planning: the current world model reaches goals in simulated labs of the validation ranges."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch._dynamo  # before the first OpenGL context: loading it later crashes some drivers
from omegaconf import DictConfig, OmegaConf
from torch import nn

from jepa_mpc.envs.labs import labs_hash, sample_lab
from jepa_mpc.envs.reach import ReachEnv
from jepa_mpc.face.agents import planning_agent
from jepa_mpc.face.evaluation.lab_episodes import LabJob, play_episode
from jepa_mpc.face.evaluation.methods import WORLD_MODEL
from jepa_mpc.face.evaluation.reach_task import reach_env
from jepa_mpc.face.planning import PlanSettings
from jepa_mpc.interfaces import Agent
from jepa_mpc.planners import planner_choice
from jepa_mpc.world_model.dynamics.model import Interface
from jepa_mpc.world_model.parts.objectives.dynamics import DynamicsObjective
from jepa_mpc.world_model.recipes import as_world_model


@dataclass(frozen=True)
class LiveModel:
    """Builds agents around a network in training; replaces `Methods` of the experiment."""

    objective: DynamicsObjective
    interface: Interface
    settings: PlanSettings
    seed: int

    checkpoint = Path()

    def agent(self, name: str, env: ReachEnv, *, stream: int) -> Agent:
        """An agent for one episode."""
        model = as_world_model(self.objective, self.interface)
        return planning_agent(model, env, self.settings, seed=self.seed + stream)


class ReachEvaluation:
    """Plays the same episodes at each evaluation.

    Args:
        cfg: Labs, episodes, budget and planner (configs/evaluate/reach.yaml).
        objective: The world model in training.
        interface: Its inputs and actions.
        stop: Called between episodes; True skips the rest.

    Raises:
        BadCheckpoint: If the world model was not trained for this robot.
        ValueError: If an option is out of range.
    """

    def __init__(
        self,
        cfg: DictConfig,
        *,
        objective: nn.Module,
        interface: Interface,
        stop: Callable[[], bool] = lambda: False,
    ) -> None:
        if not isinstance(objective, DynamicsObjective):
            raise ValueError(f"evaluate=reach needs a world model with actions, got a {type(objective).__name__}")
        for name in ("labs", "episodes", "budget", "horizon"):
            if type(cfg[name]) is not int or cfg[name] < 1:
                raise ValueError(f"evaluate.{name} must be a whole number from 1, got {cfg[name]!r}")
        name, arguments = planner_choice(OmegaConf.to_container(cfg.planner, resolve=True))  # type: ignore[arg-type]
        self.cfg, self.interface, self.stop = cfg, interface, stop
        self.settings = PlanSettings(planner=name, arguments=arguments, horizon=cfg.horizon, effort=cfg.effort)
        self.settings.build()
        self.labs = [
            sample_lab(index, split=cfg.split, seed=cfg.lab_seed, level="validation") for index in range(cfg.labs)
        ]
        self.env = reach_env(interface, budget=cfg.budget)
        as_world_model(objective, interface).check_robot(
            box=self.env.action_box, cameras=self.env.cameras, image_size=self.env.image_size, dt_s=self.env.dt_s
        )

    def protocol(self) -> dict[str, Any]:
        """The fixed evaluation protocol."""
        settings: Any = OmegaConf.to_container(self.cfg, resolve=True)
        return {"task": "reach", "level": "validation", "labs_hash": labs_hash(self.labs), **settings}

    def __call__(self, step: int, objective: nn.Module) -> Mapping[str, float]:
        """Success rate and median final distance, under `reach/`; empty if stopped early."""
        assert isinstance(objective, DynamicsObjective)
        live: Any = LiveModel(objective, self.interface, self.settings, int(self.cfg.seed))
        records = []
        for index, lab in enumerate(self.labs):
            job = LabJob(
                lab=lab, index=index, split=self.cfg.split, episodes=self.cfg.episodes, seed=self.cfg.lab_seed,
                budget=self.cfg.budget, cameras=self.interface.cameras, image_size=self.interface.image_size,
                methods=live, names=(WORLD_MODEL,),
            )  # fmt: skip
            for episode in range(self.cfg.episodes):
                if self.stop():
                    return {}
                with torch.enable_grad():
                    records.append(play_episode(job, WORLD_MODEL, episode, self.env, None))
        ends = [record.distances_m[-1] for record in records]
        return {
            "reach/success_5cm": statistics.fmean(float(record.success_5cm) for record in records),
            "reach/median_cm": 100 * statistics.median(end if end == end else float("inf") for end in ends),
        }

    def close(self) -> None:
        """Close the simulator."""
        self.env.close()
