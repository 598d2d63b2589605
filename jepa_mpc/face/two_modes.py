"""Assembly of the two-mode agent from configs/agent/full.yaml."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from jepa_mpc.costs import StepCost
from jepa_mpc.envs.robots import Robot
from jepa_mpc.errors import UnknownName
from jepa_mpc.face.agents import check_robot, perception_for
from jepa_mpc.face.planning import PlanSettings
from jepa_mpc.seeding import generator
from jepa_mpc.types import ActionBox
from jepa_mpc.world_model.agents.arbitration import Arbitration
from jepa_mpc.world_model.agents.configurator import AgentConfig, Configurator, Mode, Rule, TaskSpec
from jepa_mpc.world_model.agents.modules import Modules
from jepa_mpc.world_model.agents.two_modes import TwoModeAgent
from jepa_mpc.world_model.checkpoints.critics import load_critic
from jepa_mpc.world_model.checkpoints.loader import load_world_model
from jepa_mpc.world_model.checkpoints.policies import load_policy
from jepa_mpc.world_model.costs.critic import Critic
from jepa_mpc.world_model.costs.goal import GoalDistance
from jepa_mpc.world_model.costs.intrinsic import IntrinsicCost
from jepa_mpc.world_model.costs.terms import ActionRate, Effort, MeasureDoubt, RangeLimit
from jepa_mpc.world_model.dynamics.dead_reckoning import DeadReckoning
from jepa_mpc.world_model.dynamics.model import WorldModel, as_ensemble
from jepa_mpc.world_model.memory.replay_buffer import ReplayBuffer
from jepa_mpc.world_model.policies.goal import GoalPolicy, PolicyProposal
from jepa_mpc.world_model.training.critic import CriticObjective, Judgement
from jepa_mpc.world_model.training.critic_learner import CriticLearner

CENTIMETRE = 0.01


@dataclass(frozen=True, kw_only=True)
class TwoModeSettings:
    """Settings of the two-mode agent; configs/agent/full.yaml explains each field."""

    policy: str | None = None
    critic: str | None = None
    members: Sequence[str] = ()
    mode: Mode = "auto"
    discount: float = 0.9
    critic_weight: float = 1.0
    weights: Mapping[str, float] = field(default_factory=lambda: {"goal": 1.0, "effort": 0.05, "workspace": 1.0})
    surprise_below: float = 0.02
    disagreement_below: float = 0.0005
    margin: float = 0.1
    patience: int = 2
    context: int = 1
    memory: int = 1024
    learn_every: int = 0
    rules: Sequence[Mapping[str, Any]] = ()

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> TwoModeSettings | None:
        """The settings in `agent=`; None for the simple agent.

        Raises:
            UnknownName: If the kind of agent or an option is unknown.
            ValueError: If a number is out of range.
        """
        given = {str(name): value for name, value in options.items()}
        kind = given.pop("kind", "simple")
        if kind not in ("simple", "full"):
            raise UnknownName("agent", str(kind), ("simple", "full", "calibrated"))
        if kind == "simple":
            return None
        for name in given.keys() - cls.__dataclass_fields__.keys():
            raise UnknownName("option of agent=full", name, cls.__dataclass_fields__)
        made = cls(**given)
        made.configuration(horizon=1, hold_below=0.0), made.arbitration()
        return made

    def world_model(self, checkpoint: Path, *, device: str) -> WorldModel:
        """The world model in a folder, as an ensemble if there are further members."""
        return _models((str(checkpoint), *map(str, self.members)), device, self.context)

    def build(self, checkpoint: Path, env: Any, settings: PlanSettings, *, seed: int, device: str) -> TwoModeAgent:
        """The agent for one episode, on its device; it also receives the pose of its own hand.

        Raises:
            BadCheckpoint: If the world model was trained for another robot.
        """
        model = self.world_model(checkpoint, device=device)
        check_robot(model, env)
        box = env.action_box.to(device)
        intrinsic = self.intrinsic(model, env)
        config = self.configuration(horizon=settings.horizon, hold_below=settings.hold_m**2, intrinsic=intrinsic)
        modules = self.modules(checkpoint, model, box, seed=seed, device=device)
        return TwoModeAgent(
            perception=perception_for(model),
            memory=ReplayBuffer(capacity=self.context, window=self.context, action_dim=box.dim),
            dynamics=DeadReckoning(model.dynamics, gain=_gain(env.arm.robot, box.dim).to(device)),
            intrinsic=intrinsic,
            planners={"default": settings.build()},
            configurator=Configurator(config, rules=[Rule(**dict(rule)) for rule in self.rules], task=_task(env)),
            box=box,
            generator=generator(seed, "planner", device=device),
            modules=modules,
            deadline_s=settings.deadline_s,
            position_head=model.position_head,
        )

    def intrinsic(self, model: WorldModel, env: Any) -> IntrinsicCost:
        """Goal distance (m^2), effort and action change (longest step), workspace violation (cm^2), doubt (m^2)."""
        scale = env.action_box.high.to(model.device)
        low, high = env.arm.workspace()
        limits = RangeLimit(
            low=tuple(low.tolist()), high=tuple(high.tolist()), axes=env.arm.robot.place_axes, unit=CENTIMETRE
        )
        terms: dict[str, StepCost] = {
            "goal": GoalDistance(metric=model.position_head),
            "effort": Effort(scale=scale),
            "rate": ActionRate(scale=scale),
            "workspace": limits,
        }
        if len(model.members) > 1:
            terms["doubt"] = doubt_of(model)
        floors = {"workspace": 1.0, "doubt": -1.0}
        return IntrinsicCost(terms, floors={name: floor for name, floor in floors.items() if name in terms})

    def configuration(self, *, horizon: int, hold_below: float, intrinsic: IntrinsicCost | None = None) -> AgentConfig:
        """The initial configuration; weights of absent terms are omitted."""
        names = self.weights if intrinsic is None else intrinsic.names
        return AgentConfig(
            weights={name: float(self.weights.get(name, 0.0)) for name in names},
            critic=0.0 if self.critic is None else float(self.critic_weight),
            discount=float(self.discount),
            horizon=horizon,
            hold_below=hold_below,
            mode=self.mode,
        )

    def arbitration(self) -> Arbitration:
        """Settings of the arbitration between modes."""
        return Arbitration(
            surprise_below=self.surprise_below,
            disagreement_below=self.disagreement_below,
            margin=self.margin,
            patience=self.patience,
        )

    def modules(
        self,
        checkpoint: Path,
        model: WorldModel,
        box: ActionBox,
        *,
        seed: int,
        device: str,
    ) -> Modules:
        """The optional modules."""
        first, count = _models((str(checkpoint),), device, self.context), len(model.members)
        policy = None if self.policy is None else _FirstShare(_policy(str(self.policy), str(checkpoint), device), count)
        critic = None if self.critic is None else load_critic(self.critic, first)
        learner = None
        if critic is not None and self.learn_every and self.memory and count == 1:
            learner = self._learner(critic.requires_grad_(True), model, seed=seed)
        return Modules(
            actor=None if policy is None else PolicyProposal(policy, dynamics=model.dynamics, box=box),
            arbitration=None if policy is None else self.arbitration(),
            critic=None if critic is None else _critic_of(critic, count),
            learner=learner,
            experience=self._experience(box),
            doubt=doubt_of(model).of if count > 1 else None,
        )

    def _experience(self, box: ActionBox) -> ReplayBuffer | None:
        if not self.memory:
            return None
        return ReplayBuffer(capacity=max(self.memory, self.context), window=self.context, action_dim=box.dim)

    def _learner(self, critic: Critic, model: WorldModel, *, seed: int) -> CriticLearner:
        """Online training of the critic: it predicts the future distance to the goal."""
        distance = IntrinsicCost({"goal": GoalDistance(metric=model.position_head)})
        judgement = Judgement(intrinsic=distance, weights={"goal": 1.0}, form="td", discount=float(self.discount))
        objective = CriticObjective(critic, form="td", discount=float(self.discount))
        return CriticLearner(objective, judgement, generator=generator(seed, "critic"), every=self.learn_every)


class _FirstShare(GoalPolicy):
    """Applies a policy to the first ensemble member's tokens."""

    def __init__(self, policy: GoalPolicy, count: int) -> None:
        nn.Module.__init__(self)
        self.policy, self.count = policy, count
        self.chunk, self.max_steps, self.width = policy.chunk, policy.max_steps, policy.width
        self.register_buffer("scale", policy.scale)

    def forward(self, state: Tensor, goal: Tensor, steps: Tensor) -> Tensor:
        """Tokens of all members to a chunk of actions."""
        return self.policy(state.chunk(self.count, dim=-2)[0], goal.chunk(self.count, dim=-2)[0], steps)


class _FirstCritic(nn.Module):
    """Applies a critic to the first ensemble member's tokens."""

    def __init__(self, critic: Critic, count: int) -> None:
        super().__init__()
        self.critic, self.count = critic, count

    def forward(self, latents: Tensor, goal: Tensor, proprio: Tensor | None = None) -> Tensor:
        """Tokens of all members to a cost."""
        return self.critic(latents.chunk(self.count, dim=-2)[0], goal.chunk(self.count, dim=-2)[0])


def _critic_of(critic: Critic, count: int) -> Critic | _FirstCritic:
    return critic if count == 1 else _FirstCritic(critic, count)


def doubt_of(model: WorldModel) -> MeasureDoubt:
    """Disagreement of the ensemble about the displacement to the goal."""
    heads = getattr(model.position_head, "heads", None)
    if heads is None:
        raise ValueError("the members of this ensemble have no position head, so their disagreement has no unit")
    return MeasureDoubt(heads=tuple(heads))


def _gain(robot: Robot, action_dim: int) -> Tensor:
    """Effect of commands on the proprioception: hand position and rotation, and the fingers."""
    felt = robot.felt
    gain = torch.zeros(felt.dim, action_dim)
    gain[felt.place, 0:3] = torch.eye(3)
    gain[felt.rotation, 3:6] = torch.eye(3)
    gain[felt.opening, 6] = -robot.largest_opening_m
    return gain


def _task(env: Any) -> TaskSpec:
    return TaskSpec(steps=float(env.budget))


@lru_cache(maxsize=4)
def _models(folders: tuple[str, ...], device: str, context: int = 1) -> WorldModel:
    models = [load_world_model(folder, context=context, device=device) for folder in folders]
    return models[0] if len(models) == 1 else as_ensemble(models, fingerprint="+".join(m.fingerprint for m in models))


@lru_cache(maxsize=2)
def _policy(folder: str, checkpoint: str, device: str) -> GoalPolicy:
    return load_policy(folder, _models((checkpoint,), device))
