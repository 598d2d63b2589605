"""Agents of other systems in `pick-v1`: they see the same images, and most have no heads for hand, object and grip.

A world model plans with the planner of all others by its own distance to the goal image, as it was trained, or handles
if it has learned that; ACT-JEPA acts by its policy.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from jepa_mpc.envs.pick import PickEnv
from jepa_mpc.errors import BadCheckpoint
from jepa_mpc.face.agents import planning_agent
from jepa_mpc.face.handling.seeing_agents import handling_agent
from jepa_mpc.face.handling.state_agents import Planning
from jepa_mpc.face.planning import PlanSettings
from jepa_mpc.reading import open_checkpoint
from jepa_mpc.seeding import generator
from jepa_mpc.world_model.agents.chunk import ChunkAgent
from jepa_mpc.world_model.agents.handling_eyes import OBJECT
from jepa_mpc.world_model.agents.subgoals import Aiming
from jepa_mpc.world_model.checkpoints.loader import interface_of, load_world_model
from jepa_mpc.world_model.checkpoints.policies import load_chunk_policy

POLICIES = ("act_jepa", "act_jepa_control")


@dataclass(frozen=True, kw_only=True)
class OtherSystem:
    """A trained system, and how it acts.

    Args:
        cameras: Names of the cameras that it sees.
        image_size: Width and height of its pictures, px.
        agent: Makes its agent for an environment, with the seed of the planner; it refuses another robot.
    """

    cameras: tuple[str, ...]
    image_size: int
    agent: Callable[[PickEnv, Planning, int], Aiming]


def other_system(folder: Path) -> OtherSystem:
    """Load the system of a checkpoint.

    Raises:
        BadCheckpoint: If it cannot be read, sees cameras that `pick-v1` does not have, or plans no actions.
    """
    with open_checkpoint(folder) as opened:
        config = opened.config
    if isinstance(system := config.get("system"), dict) and system.get("_target_") in POLICIES:
        known, agent = interface_of(config), _by_policy(folder)
    else:
        model = load_world_model(folder)
        known = model.interface

        def agent(env: PickEnv, planning: Planning, seed: int) -> Aiming:
            planner, horizon = planning.planner(), planning.horizon
            if OBJECT in model.readings:
                draws = generator(seed, "agent")
                return handling_agent(model, env, generator=draws, planner=planner, horizon=horizon)
            return planning_agent(model, env, PlanSettings(planner="icem", horizon=horizon), planner=planner, seed=seed)

    foreign = [name for name in known.cameras if name not in PickEnv.camera_names]
    if foreign:
        raise BadCheckpoint(
            f"{folder} sees the camera {', '.join(foreign)}, pick-v1 has {', '.join(PickEnv.camera_names)}: train on a "
            "log of collect policy=handle"
        )
    return OtherSystem(cameras=known.cameras, image_size=known.image_size, agent=agent)


def _by_policy(folder: Path) -> Callable[[PickEnv, Planning, int], Aiming]:
    def agent(env: PickEnv, planning: Planning, seed: int) -> Aiming:
        policy = load_chunk_policy(folder, box=env.action_box)
        return ChunkAgent(policy, budget=policy.max_steps)

    return agent
