"""The methods that are compared: agents with a learned or the true world, and policies that plan nothing."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from jepa_mpc.envs.arm import DT_S
from jepa_mpc.envs.baselines import DoNothing, OracleIK, RandomActions
from jepa_mpc.envs.reach import ReachEnv
from jepa_mpc.errors import BadCheckpoint
from jepa_mpc.experiments.reaching.calibrated import CalibratedAgent, CalibratedPlayer
from jepa_mpc.experiments.reaching.full_agent import FullAgent
from jepa_mpc.experiments.reaching.players import (
    FullPlayer,
    ModelPlayer,
    PlanSettings,
    Player,
    PolicyPlayer,
    TruePlayer,
)
from jepa_mpc.experiments.reaching.reactive import ReactivePlayer
from jepa_mpc.seeding import generator
from jepa_mpc.world_model.adapters.vjepa2_ac_files import load_released
from jepa_mpc.world_model.checkpoints.loader import WorldModel, load_world_model
from jepa_mpc.world_model.checkpoints.policies import load_policy
from jepa_mpc.world_model.policies.goal import GoalPolicy

WORLD_MODEL = "world model"
TRUE_DYNAMICS = "true dynamics"
FROZEN = "frozen random encoder"
POLICY = "policy alone"
SEEDED = "seeded by the policy"
BASELINES = ("do nothing", "random", "oracle")


@lru_cache(maxsize=4)
def world_model_at(folder: Path, device: str) -> WorldModel:
    """A published world model, or the authors' file of V-JEPA 2-AC (`.pt`), read once per process."""
    if folder.suffix == ".pt":
        return load_released(folder, cameras=("left",), dt_s=DT_S, device=device)
    return load_world_model(folder, device=device)


@lru_cache(maxsize=4)
def policy_at(folder: Path, checkpoint: Path, device: str) -> GoalPolicy:
    """A published policy for the world model at `checkpoint`, read once per process."""
    return load_policy(folder, world_model_at(checkpoint, device))


@dataclass(frozen=True, kw_only=True)
class Methods:
    """Builds players by the name of their method.

    Args:
        checkpoint: Folder of the world model.
        frozen: Folder of the control whose encoder was never trained, or None.
        settings: How the agents plan.
        sampling: How the agent with true dynamics plans.
        device: Where the networks run.
        seed: Seed of planners and of the random policy.
        policy: Folder of a policy for the world model, or None.
        seeded: How the agent plans that the policy proposes plans to; as the others by default.
        full: What the agent of six modules is built of, if it is to play in place of the simple one.
        calibrated: Likewise what the agent that checks its readings is made of.
    """

    checkpoint: Path
    frozen: Path | None
    settings: PlanSettings
    sampling: PlanSettings
    device: str = "cpu"
    seed: int = 0
    policy: Path | None = None
    seeded: PlanSettings | None = None
    full: FullAgent | None = None
    calibrated: CalibratedAgent | None = None

    def names(self) -> tuple[str, ...]:
        """Every method that can be played, the world model first."""
        frozen = () if self.frozen is None else (FROZEN,)
        learned = () if self.policy is None else (SEEDED, POLICY)
        return (WORLD_MODEL, *learned, *frozen, TRUE_DYNAMICS, *BASELINES)

    def player(self, name: str, env: ReachEnv, *, stream: int) -> Player:
        """A player for one episode; `stream` tells its random numbers from other episodes'."""
        seed = self.seed + stream
        match name:
            case "world model" if self.full is not None:
                return FullPlayer(self.full, self.checkpoint, env, self.settings, seed=seed, device=self.device)
            case "world model" if self.calibrated is not None:
                model = world_model_at(self.checkpoint, self.device)
                return CalibratedPlayer(self.calibrated, model, env, self.settings, seed=seed)
            case "world model":
                return ModelPlayer(world_model_at(self.checkpoint, self.device), env, self.settings, seed=seed)
            case "frozen random encoder":
                if self.frozen is None:
                    raise BadCheckpoint("no checkpoint of the control with a frozen random encoder was given")
                return ModelPlayer(world_model_at(self.frozen, self.device), env, self.settings, seed=seed)
            case "policy alone" | "seeded by the policy":
                return self._with_policy(name, env, seed=seed)
            case "true dynamics":
                return TruePlayer(env, self.sampling, seed=seed)
            case "do nothing":
                return PolicyPlayer(DoNothing())
            case "random":
                return PolicyPlayer(RandomActions(generator(seed, "random policy")))
            case "oracle":
                return PolicyPlayer(OracleIK(env))
        raise ValueError(f"unknown method {name!r}; known: {', '.join(self.names())}")

    def _with_policy(self, name: str, env: ReachEnv, *, seed: int) -> Player:
        if self.policy is None:
            raise BadCheckpoint(f"'{name}' needs a policy, and none was given: train one with train_policy.py")
        model = world_model_at(self.checkpoint, self.device)
        policy = policy_at(self.policy, self.checkpoint, self.device)
        if name == POLICY:
            return ReactivePlayer(policy, model, env)
        return ModelPlayer(model, env, self.seeded or self.settings, seed=seed, policy=policy)


def timed_act(player: Player, env: ReachEnv) -> tuple[NDArray[np.float32], float]:
    """The player's action and the milliseconds that it took."""
    start = time.perf_counter()
    action = player.act(env)
    return action, 1000 * (time.perf_counter() - start)
