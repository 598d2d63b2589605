"""Chunk policies on the reaching task: alone, and as proposals for a planner."""

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

ASKED = (1, 3, 8)  # numbers of steps in which the planner's candidates reach the goal, the best guess first


@dataclass(frozen=True, kw_only=True)
class ChunkMethod:
    """How one method acts.

    Args:
        policy: Folder of the chunk policy, or None for the planner alone.
        search: Planner settings, or None for the policy alone.
        execute: Actions of a chunk that the policy alone executes before the next prediction.
    """

    policy: Path | None = None
    search: PlanSettings | None = None
    execute: int = 1


@dataclass(frozen=True, kw_only=True)
class ChunkMethods(Methods):
    """Builds agents with chunk policies by method name.

    Args:
        ways: Method name -> how it acts.
    """

    ways: Mapping[str, ChunkMethod] = field(default_factory=dict)

    def names(self) -> tuple[str, ...]:
        """All method names."""
        return tuple(self.ways)

    def agent(self, name: str, env: ReachEnv, *, stream: int) -> Agent:
        """An agent for one episode; `stream` selects its random numbers."""
        way = choose(self.ways, name, "method")
        policy = None if way.policy is None else policy_for(env, way.policy, self.device)
        if way.search is None:
            if policy is None:
                raise ValueError(f"{name!r} needs a policy or a search")
            return ChunkAgent(policy, execute=way.execute, budget=policy.max_steps)
        proposal = None if policy is None else ChunkProposal(policy, within=ASKED)
        model = world_model_at(self.checkpoint, self.device)
        planner = planning_agent(model, env, way.search, seed=self.seed + stream, proposal=proposal)
        return planner if policy is None else SeededAgent(planner, policy=policy)


def policy_for(env: ReachEnv, folder: Path, device: str) -> ChunkPolicy:
    """A published chunk policy for a robot, cached per process.

    Raises:
        BadCheckpoint: If it cannot be read, or was trained with other cameras.
    """
    box = env.action_box
    policy = _policy_at(folder, device, tuple(box.low.tolist()), tuple(box.high.tolist()))
    known = tuple(getattr(policy.perception, "cameras", env.cameras))
    if known != tuple(env.cameras):
        raise BadCheckpoint(f"the policy in {folder} expects the cameras {known}, the robot has {tuple(env.cameras)}")
    return policy


@lru_cache(maxsize=8)
def _policy_at(folder: Path, device: str, low: tuple[float, ...], high: tuple[float, ...]) -> ChunkPolicy:
    box = ActionBox(low=torch.tensor(low), high=torch.tensor(high))
    return load_chunk_policy(folder, box=box, device=device)
