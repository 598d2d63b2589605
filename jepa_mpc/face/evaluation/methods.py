"""The compared methods: agents with learned or true dynamics, and policies without planning."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from jepa_mpc.encoders.hand_points import HandPoints
from jepa_mpc.envs.arm import DT_S
from jepa_mpc.envs.baselines import DoNothing, OracleIK, PolicyAgent, RandomActions
from jepa_mpc.envs.reach import ReachEnv
from jepa_mpc.envs.true_dynamics import SIMULATOR, true_dynamics
from jepa_mpc.errors import BadCheckpoint
from jepa_mpc.face.agents import (
    CalibratedSettings,
    calibrated_agent,
    calibrated_goal,
    planning_agent,
    reactive_agent,
    servo_agent,
    true_dynamics_agent,
)
from jepa_mpc.face.planning import PlanSettings
from jepa_mpc.face.two_modes import TwoModeSettings
from jepa_mpc.interfaces import Agent, GoalReader
from jepa_mpc.seeding import generator
from jepa_mpc.world_model.adapters.vjepa2_ac_files import load_released
from jepa_mpc.world_model.checkpoints.keypoints import load_hand_points
from jepa_mpc.world_model.checkpoints.loader import load_world_model
from jepa_mpc.world_model.checkpoints.policies import load_policy
from jepa_mpc.world_model.dynamics.model import WorldModel
from jepa_mpc.world_model.policies.goal import GoalPolicy

WORLD_MODEL = "world model"
TRUE_DYNAMICS = "true dynamics"
FROZEN = "frozen random encoder"
POLICY = "policy alone"
SEEDED = "seeded by the policy"
SERVO = "servo"
LEARNED = (WORLD_MODEL, FROZEN, SEEDED, POLICY, SERVO)
"""Methods whose networks may be incompatible with the robot."""
BASELINES = ("do nothing", "random", "oracle")


@lru_cache(maxsize=4)
def world_model_at(folder: Path, device: str) -> WorldModel:
    """A published world model, or the authors' file of V-JEPA 2-AC (`.pt`), cached per process."""
    if folder.suffix == ".pt":
        return load_released(folder, cameras=("left",), dt_s=DT_S, device=device)
    return load_world_model(folder, device=device)


@lru_cache(maxsize=4)
def policy_at(folder: Path, checkpoint: Path, device: str) -> GoalPolicy:
    """A published policy for the world model at `checkpoint`, cached per process."""
    return load_policy(folder, world_model_at(checkpoint, device))


@lru_cache(maxsize=2)
def keypoints_at(folder: Path, device: str) -> HandPoints:
    """The hand keypoint detector, cached per process."""
    return load_hand_points(folder, device=device)


@dataclass(frozen=True, kw_only=True)
class Methods:
    """Builds agents by method name.

    Args:
        checkpoint: Folder of the world model.
        frozen: Folder of the control with an untrained encoder, or None.
        settings: Planner settings of the agents.
        sampling: Planner settings with true dynamics.
        device: Device of the networks.
        seed: Seed of planners and of the random policy.
        policy: Folder of a policy for the world model, or None.
        seeded: Planner settings of the agent that uses the policy's proposals; by default `settings`.
        full: Settings of the full (two-mode) agent, if it plays instead of the simple one.
        calibrated: Settings of the calibrated agent, if it plays instead of the simple one.
        keypoints: Folder of the hand keypoint detector.
        dynamics: Simulator of the agent with true dynamics.
    """

    checkpoint: Path
    frozen: Path | None
    settings: PlanSettings
    sampling: PlanSettings
    device: str = "cpu"
    seed: int = 0
    policy: Path | None = None
    seeded: PlanSettings | None = None
    full: TwoModeSettings | None = None
    calibrated: CalibratedSettings | None = None
    keypoints: Path | None = None
    dynamics: str = SIMULATOR

    def names(self) -> tuple[str, ...]:
        """All method names, the world model first."""
        frozen = () if self.frozen is None else (FROZEN,)
        learned = () if self.policy is None else (SEEDED, POLICY)
        servo = (SERVO,) if world_model_at(self.checkpoint, self.device).position_head is not None else ()
        return (WORLD_MODEL, *learned, *frozen, *servo, TRUE_DYNAMICS, *BASELINES)

    def agent(self, name: str, env: ReachEnv, *, stream: int) -> Agent:
        """An agent for one episode; `stream` selects its random numbers."""
        seed = self.seed + stream
        match name:
            case "world model" if self.full is not None:
                return self.full.build(self.checkpoint, env, self.settings, seed=seed, device=self.device)
            case "world model" if self.calibrated is not None:
                return self._calibrated(self.calibrated, env, seed=seed)
            case "world model":
                return planning_agent(world_model_at(self.checkpoint, self.device), env, self.settings, seed=seed)
            case "frozen random encoder":
                if self.frozen is None:
                    raise BadCheckpoint("the control with a frozen random encoder needs its checkpoint")
                return planning_agent(world_model_at(self.frozen, self.device), env, self.settings, seed=seed)
            case "policy alone" | "seeded by the policy":
                return self._with_policy(name, env, seed=seed)
            case "servo":
                model = world_model_at(self.checkpoint, self.device)
                return servo_agent(model, env, goals=self._goals(model, env))
            case "true dynamics":
                return true_dynamics_agent(env, self.sampling, seed=seed, dynamics=true_dynamics(env, self.dynamics))
            case "do nothing":
                return PolicyAgent(DoNothing(), env)
            case "random":
                return PolicyAgent(RandomActions(generator(seed, "random policy")), env)
            case "oracle":
                return PolicyAgent(OracleIK(env), env)
        raise ValueError(f"unknown method {name!r}; known: {', '.join(self.names())}")

    def _calibrated(self, calibrated: CalibratedSettings, env: ReachEnv, *, seed: int) -> Agent:
        if self.keypoints is None:
            raise BadCheckpoint("agent=calibrated needs hand keypoints: train system=hand_points")
        return calibrated_agent(
            calibrated,
            world_model_at(self.checkpoint, self.device),
            keypoints_at(self.keypoints, self.device),
            env,
            self.settings,
            seed=seed,
            position_axes=env.arm.robot.place_axes,
        )

    def _goals(self, model: WorldModel, env: ReachEnv) -> GoalReader | None:
        """The goal reader of the agent, or None for the default encoding."""
        if self.calibrated is None or self.keypoints is None:
            return None
        keypoints = keypoints_at(self.keypoints, self.device)
        return calibrated_goal(self.calibrated, model, keypoints, position_axes=env.arm.robot.place_axes)

    def _with_policy(self, name: str, env: ReachEnv, *, seed: int) -> Agent:
        if self.policy is None:
            raise BadCheckpoint(f"'{name}' needs a policy: train one with train_policy.py")
        model = world_model_at(self.checkpoint, self.device)
        policy = policy_at(self.policy, self.checkpoint, self.device)
        if name == POLICY:
            return reactive_agent(policy, model, env)
        return planning_agent(model, env, self.seeded or self.settings, seed=seed, policy=policy)
