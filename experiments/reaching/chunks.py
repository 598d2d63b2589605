"""Chunk policies on the reaching task: played alone, and as what a planner begins with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from jepa_mpc.envs.reach import ReachEnv
from jepa_mpc.errors import BadCheckpoint, choose
from jepa_mpc.experiments.reaching.methods import Methods, world_model_at
from jepa_mpc.experiments.reaching.players import ModelPlayer, PlanSettings, Player
from jepa_mpc.interfaces import Agent
from jepa_mpc.types import ActionBox, Observation
from jepa_mpc.world_model.policies.chunk import ChunkAgent, ChunkPolicy, ChunkProposal, SeededAgent, load_chunk_policy

ASKED = (1, 3, 8)  # steps within which the planner's candidates arrive, the best guess first


@dataclass(frozen=True, kw_only=True)
class ChunkMethod:
    """One way of playing.

    Args:
        policy: Folder of the chunk policy, or None for the planner alone.
        search: How the planner searches, or None for the policy alone.
        execute: Actions of a chunk that the policy alone carries out before it asks again.
    """

    policy: Path | None = None
    search: PlanSettings | None = None
    execute: int = 1


@dataclass(frozen=True, kw_only=True)
class ChunkMethods(Methods):
    """Builds players of chunk policies by the name of their method.

    Args:
        ways: Name -> way of playing.
    """

    ways: Mapping[str, ChunkMethod] = field(default_factory=dict)

    def names(self) -> tuple[str, ...]:
        """Every method that can be played."""
        return tuple(self.ways)

    def player(self, name: str, env: ReachEnv, *, stream: int) -> Player:
        """A player for one episode; `stream` tells its random numbers from other episodes'."""
        way = choose(self.ways, name, "method")
        if way.search is None:
            if way.policy is None:
                raise ValueError(f"{name!r} has neither a policy nor a search: nothing could act")
            policy = policy_for(env, way.policy, self.device)
            return ChunkPlayer(ChunkAgent(policy, execute=way.execute, budget=policy.max_steps), device=self.device)
        model = world_model_at(self.checkpoint, self.device)
        planner = ModelPlayer(model, env, way.search, seed=self.seed + stream)
        if way.policy is None:
            return planner
        policy = policy_for(env, way.policy, self.device)
        planner.agent.proposal = ChunkProposal(policy, within=ASKED)
        return ChunkPlayer(SeededAgent(planner.agent, policy=policy), device=self.device)


class ChunkPlayer:
    """An agent that is given the pictures and the joints.

    Args:
        agent: The agent.
        device: Where its networks run.
    """

    def __init__(self, agent: Agent, *, device: str) -> None:
        self.agent, self.device = agent, device

    def begin(self, env: ReachEnv) -> None:
        """Show the goal picture."""
        self.agent.reset(self._here(env.goal()))

    def act(self, env: ReachEnv) -> NDArray[np.float32]:
        """Show the observation, and answer `(7,)`."""
        return self.agent.act(self._here(env.observation()))[0].cpu().numpy().astype(np.float32)

    def believes_m(self) -> float:
        """No opinion."""
        return float("nan")

    def status(self) -> str:
        """Nothing to tell."""
        return ""

    def _here(self, observation: Observation) -> Observation:
        felt = observation.proprio
        return replace(
            observation,
            frames=observation.frames.to(self.device),
            proprio=None if felt is None else felt.to(self.device, torch.float32),
        )


def policy_for(env: ReachEnv, folder: Path, device: str) -> ChunkPolicy:
    """A published chunk policy for a robot, read once per process.

    Raises:
        BadCheckpoint: If it cannot be read, or was trained with other cameras.
    """
    box = env.action_box
    policy = _policy_at(folder, device, tuple(box.low.tolist()), tuple(box.high.tolist()))
    known = tuple(getattr(policy.perception, "cameras", env.cameras))
    if known != tuple(env.cameras):
        raise BadCheckpoint(f"the policy in {folder} knows the cameras {known}, the robot has {tuple(env.cameras)}")
    return policy


@lru_cache(maxsize=8)
def _policy_at(folder: Path, device: str, low: tuple[float, ...], high: tuple[float, ...]) -> ChunkPolicy:
    box = ActionBox(low=torch.tensor(low), high=torch.tensor(high))
    return load_chunk_policy(folder, box=box, device=device)
