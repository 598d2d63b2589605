"""Chunk policies on the reaching task: played alone, and as what a planner begins with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import torch

from jepa_mpc.envs.reach import ReachEnv
from jepa_mpc.errors import BadCheckpoint, choose
from jepa_mpc.face.agents import planning_agent
from jepa_mpc.face.evaluation.methods import Methods, world_model_at
from jepa_mpc.face.planning import PlanSettings
from jepa_mpc.interfaces import Agent
from jepa_mpc.types import ActionBox
from jepa_mpc.world_model.agents.chunk import ChunkAgent, SeededAgent
from jepa_mpc.world_model.checkpoints.policies import load_chunk_policy
from jepa_mpc.world_model.policies.chunk import ChunkPolicy, ChunkProposal

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
    """Builds agents of chunk policies by the name of their method.

    Args:
        ways: Name -> way of playing.
    """

    ways: Mapping[str, ChunkMethod] = field(default_factory=dict)

    def names(self) -> tuple[str, ...]:
        """Every method that can be played."""
        return tuple(self.ways)

    def agent(self, name: str, env: ReachEnv, *, stream: int) -> Agent:
        """An agent for one episode; `stream` tells its random numbers from other episodes'."""
        way = choose(self.ways, name, "method")
        policy = None if way.policy is None else policy_for(env, way.policy, self.device)
        if way.search is None:
            if policy is None:
                raise ValueError(f"{name!r} has neither a policy nor a search: nothing could act")
            return ChunkAgent(policy, execute=way.execute, budget=policy.max_steps)
        proposal = None if policy is None else ChunkProposal(policy, within=ASKED)
        model = world_model_at(self.checkpoint, self.device)
        planner = planning_agent(model, env, way.search, seed=self.seed + stream, proposal=proposal)
        return planner if policy is None else SeededAgent(planner, policy=policy)


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
