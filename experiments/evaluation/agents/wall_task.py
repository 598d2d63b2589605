"""Reaching behind a wall: the straight path is blocked, and a horizon of five steps is too short to find the detour.

A point moves in the plane (`planners.walls`); the wall at x = 0 has a gap at y = 1. The latent is the position, so that
the latent distance is exact, and greedy planning still fails. A critic learns what lies beyond five steps from
random walks, with goals relabelled in hindsight.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn

from jepa_mpc.encoders.layers.weights import draw_weights
from jepa_mpc.planners import cem
from jepa_mpc.planners.walls import Wall
from jepa_mpc.seeding import generator
from jepa_mpc.types import ActionBox, Context, Observation, Plans, Rollout
from jepa_mpc.world_model.agents.configurator import AgentConfig, Configurator
from jepa_mpc.world_model.agents.modules import Modules
from jepa_mpc.world_model.agents.two_modes import TwoModeAgent
from jepa_mpc.world_model.costs.critic import Critic
from jepa_mpc.world_model.costs.goal import GoalDistance, euclidean
from jepa_mpc.world_model.costs.intrinsic import IntrinsicCost
from jepa_mpc.world_model.costs.terms import Effort
from jepa_mpc.world_model.memory.hindsight import LatentLog
from jepa_mpc.world_model.memory.replay_buffer import ReplayBuffer
from jepa_mpc.world_model.perception.images import StatePerception
from jepa_mpc.world_model.training.critic import CriticLessons, CriticObjective, Judgement
from jepa_mpc.world_model.training.loop import FitSettings, fit

REACHED_M = 0.1
LOW, HIGH = (-1.2, -0.6), (1.2, 1.6)
DISCOUNT = 0.97
WEIGHTS = {"goal": 1.0, "effort": 0.0}
BOX = ActionBox(low=torch.full((2,), -1.0), high=torch.full((2,), 1.0))
ORIGIN = torch.zeros(1, 2)
WALL = Wall(start=ORIGIN, goal=ORIGIN)


@dataclass(frozen=True, kw_only=True)
class WallSettings:
    """The sizes of the experiment.

    Args:
        walks: Random walks that the critic learns from.
        walk_steps: Steps of each.
        critic_steps: Gradient steps.
        episodes: Starts and goals on either side of the wall.
        budget: Steps of an episode.
        horizon: Steps of a plan.
    """

    walks: int = 400
    walk_steps: int = 60
    critic_steps: int = 3000
    episodes: int = 40
    budget: int = 60
    horizon: int = 5


@dataclass(frozen=True, kw_only=True)
class WallResult:
    """The result: whether each episode ended at its goal, the positions on the way `T B 2`, the goals `B 2`."""

    reached: Tensor
    places: Tensor
    goals: Tensor


class Ripples(nn.Module):
    """Random Fourier features of the plane; without them a smooth network cannot represent the jump at the wall.

        [p, sin(F p), cos(F p)]          (random Fourier features, Tancik et al. 2020, arXiv:2006.10739)

    Args:
        stream: Source of randomness for the frequencies.
        count: Number of frequencies.
        per_m: Standard deviation of the wave numbers in rad per metre.
    """

    waves: Tensor

    def __init__(self, stream: Generator, *, count: int = 16, per_m: float = 4.0) -> None:
        super().__init__()
        self.width = 2 + 2 * count
        self.register_buffer("waves", per_m * torch.randn(2, count, generator=stream))

    def forward(self, latents: Tensor) -> Tensor:
        """Positions `... 1 2` to features `... width`."""
        places = latents[..., 0, :]
        phase = places @ self.waves
        return torch.cat([places, phase.sin(), phase.cos()], dim=-1)


class WallDynamics:
    """The true motion, as a world model: latents are positions `B T 1 2`."""

    def rollout(self, context: Context, plans: Plans) -> Rollout:
        """Predict the positions for plans `B S H 2`."""
        place, places = context.latents[:, None, -1, 0].expand(-1, plans.shape[1], -1), []
        for action in plans.unbind(dim=2):
            place = WALL.move(place, action)
            places.append(place)
        return Rollout(latents=torch.stack(places, dim=2)[:, :, :, None])


def intrinsic() -> IntrinsicCost:
    """The distance from the goal in metres, and the effort."""
    return IntrinsicCost({"goal": GoalDistance(distance=euclidean), "effort": Effort()})


def aimless(settings: WallSettings, *, stream: Generator) -> LatentLog:
    """Random walks that keep their direction for a while, without a goal."""
    count, steps = settings.walks, settings.walk_steps
    place = _somewhere(count, LOW, HIGH, stream)
    heading = torch.rand(count, generator=stream) * 2 * torch.pi
    places, actions = [], []
    for _ in range(steps):
        places.append(place)
        heading = heading + 0.5 * torch.randn(count, generator=stream)
        action = torch.stack([heading.cos(), heading.sin()], dim=-1)
        low, high = torch.tensor(LOW), torch.tensor(HIGH)
        after = torch.minimum(torch.maximum(WALL.move(place, action), low), high)
        heading = torch.where((after - place).norm(dim=-1) < 0.05, heading + torch.pi / 2, heading)
        place = after
        actions.append(action)
    return LatentLog(
        latents=torch.stack(places, dim=1).flatten(0, 1)[:, None],
        actions=torch.stack(actions, dim=1).flatten(0, 1),
        offsets=torch.arange(count + 1) * steps,
        groups=torch.zeros(count, dtype=torch.int64),
    )


def trained_critic(settings: WallSettings, *, seed: int) -> Critic:
    """A critic trained on random walks: TD targets, hindsight goals, optimistic."""
    look = Ripples(generator(seed, "wall ripples"))
    critic = Critic(width=look.width, hidden=192, unit=8.0, look=look)
    draw_weights(critic, generator(seed, "wall critic"))
    judgement = Judgement(intrinsic=intrinsic(), weights=WEIGHTS, form="td", steps=2, discount=DISCOUNT)
    log = aimless(settings, stream=generator(seed, "wall walks"))
    lessons = CriticLessons(log=log, judgement=judgement, batch=512, later=0.3, max_steps=settings.walk_steps)
    objective = CriticObjective(critic, form="td", discount=DISCOUNT, expectile=0.2, momentum=0.95)
    fit(
        objective,
        lessons,
        settings=FitSettings(steps=settings.critic_steps, learning_rate=2e-3, warmup=0.05),
        seed=seed,
    )
    return critic.eval().requires_grad_(False)


@torch.no_grad()
def play(settings: WallSettings, critic: Critic | None, *, seed: int) -> WallResult:
    """All episodes in one batch: from left of the wall to right of it, below the gap."""
    stream = generator(seed, "wall episodes")
    place = _somewhere(settings.episodes, (-1.0, -0.4), (-0.4, 0.4), stream)
    goals = _somewhere(settings.episodes, (0.4, -0.4), (1.0, 0.4), stream)
    base = AgentConfig(
        weights=WEIGHTS, critic=0.0 if critic is None else 1.0, discount=DISCOUNT, horizon=settings.horizon
    )
    agent = TwoModeAgent(
        perception=StatePerception(),
        memory=ReplayBuffer(capacity=1, window=1, action_dim=2),
        dynamics=WallDynamics(),
        intrinsic=intrinsic(),
        planners={"default": cem(num_samples=128, num_elites=16, num_iterations=4, initial_std=1.0)},
        configurator=Configurator(base),
        box=BOX,
        generator=generator(seed, "wall planner"),
        modules=Modules(critic=critic),
    )
    agent.reset(_look(goals))
    places = [place]
    for _ in range(settings.budget):
        place = WALL.move(place, agent.act(_look(place)))
        places.append(place)
    gap = (place - goals).norm(dim=-1)
    return WallResult(reached=gap < REACHED_M, places=torch.stack(places), goals=goals)


def _look(places: Tensor) -> Observation:
    frames = torch.zeros(len(places), 1, 3, 1, 1, dtype=torch.uint8)
    return Observation(frames=frames, cameras=("none",), proprio=places[:, None])


def _somewhere(count: int, low: tuple[float, float], high: tuple[float, float], stream: Generator) -> Tensor:
    """Random positions in a box, `count 2`, outside of the wall."""
    start, width = torch.tensor(low), torch.tensor(high) - torch.tensor(low)
    places = start + width * torch.rand(4 * count + 16, 2, generator=stream)
    return places[WALL.block(places) < 0.01][:count]
