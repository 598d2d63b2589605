"""Pushing a puck to its position in a goal image: one agent over slots, over one vector per image, or idle."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from jepa_mpc.envs.pucks import NUM_BODIES, WALL_M, PuckTable
from jepa_mpc.experiments.evaluation.objects.puck_recording import Episodes
from jepa_mpc.experiments.evaluation.objects.slot_logs import TrueSlots
from jepa_mpc.interfaces import Cost, Dynamics, Perception
from jepa_mpc.planners import cem
from jepa_mpc.seeding import generator
from jepa_mpc.types import Latents, MpcSettings, Observation
from jepa_mpc.world_model.agents.planning import PlanningAgent
from jepa_mpc.world_model.memory.replay_buffer import ReplayBuffer

CAMERAS = ("top",)
FARTHEST_M = 0.25
RESTS_M = 0.001


@dataclass(frozen=True, kw_only=True)
class Push:
    """One task from a recorded episode.

    Args:
        episode: Its number.
        start: The frame in which the agent starts.
        goal: The goal frame.
        body: The puck that was pushed between them.
    """

    episode: int
    start: int
    goal: int
    body: int


@dataclass(frozen=True, kw_only=True)
class PushSearch:
    """The planner settings of all agents.

    Args:
        samples: Candidates per round.
        rounds: Number of rounds.
        elites: Number of elites.
        horizon: Steps of a plan.
        execute: Steps of it that are executed.
        budget: Steps of an episode.
    """

    samples: int
    rounds: int
    elites: int
    horizon: int
    execute: int
    budget: int


@dataclass(frozen=True, kw_only=True)
class Mind:
    """Perception, world model and cost of an agent."""

    perception: Perception
    dynamics: Dynamics
    cost: Cost


@dataclass(frozen=True, kw_only=True)
class Played:
    """The results of the episodes.

    Args:
        gaps_m: Final distance of the pushed puck from its goal, `B`.
        finals: Last image of each, uint8 `B 3 h w`.
        plan_s: Median seconds of one plan in a single world; 0 for the idle agent.
    """

    gaps_m: NDArray[np.float64]
    finals: NDArray[np.uint8]
    plan_s: float


class PlacesPerception:
    """Slots from simulator state: proprioception `B T N*2` holds the positions of these bodies.

    Args:
        network: Computes the slots.
        bodies: `B N`, of the episodes in the batch.
    """

    def __init__(self, network: TrueSlots, bodies: Tensor) -> None:
        self.network, self.bodies = network, bodies

    @torch.no_grad()
    def __call__(self, observation: Observation) -> Latents:
        """Positions to slots `B T N D`."""
        assert observation.proprio is not None
        places = observation.proprio.unflatten(-1, (NUM_BODIES, 2))
        at = self.bodies[:, None, :, None].expand(-1, places.shape[1], -1, 2)
        return self.network(places.gather(2, at), self.bodies[:, None])


def choose_pushes(
    episodes: Episodes, *, pucks: int, count: int, history: int, ahead: int, least_m: float
) -> list[Push]:
    """The first episodes with that many pucks in which a puck at rest is pushed far enough; one task each."""
    tasks: list[Push] = []
    places = episodes.places_m
    for episode in episodes.counted(pucks).tolist():
        for start in range(history - 1, places.shape[1] - ahead):
            if float((places[episode, start] - places[episode, start - 1]).norm(dim=-1)[1:].max()) > RESTS_M:
                continue
            way = (places[episode, start + ahead] - places[episode, start]).norm(dim=-1)[1:]
            body = int(way.argmax())
            others = torch.cat([way[:body], way[body + 1 :]])
            if least_m <= float(way[body]) <= FARTHEST_M and float(others.max()) < 0.01:
                tasks.append(Push(episode=episode, start=start, goal=start + ahead, body=1 + body))
                break
    if len(tasks) < count:
        raise ValueError(f"{count} pushes were asked for and the recording has {len(tasks)}: record more episodes")
    return tasks[:count]


def play(
    mind: Mind | None, episodes: Episodes, tasks: list[Push], search: PushSearch, *, history: int, size: int, title: str
) -> Played:
    """Play all tasks in one batch; None is the idle agent. The agent knows the history before the start."""
    worlds = SideBySide(episodes, tasks, size=size)
    agent = None if mind is None else _briefed(mind, worlds, search, history)
    for _ in tqdm(range(search.budget), desc=title, unit="step"):
        worlds.step(torch.zeros(len(tasks), 2) if agent is None else agent.act(worlds.seen()))
    goals = np.stack([episodes.places_m[task.episode, task.goal, task.body].numpy() for task in tasks])
    ends = np.stack(
        [state[2 * task.body : 2 * task.body + 2] for state, task in zip(worlds.states, tasks, strict=True)]
    )
    finals = worlds.seen().frames[:, 0].numpy()
    worlds.table.close()
    seconds = 0.0 if mind is None else _plan_seconds(mind, episodes, tasks[:1], search, history=history, size=size)
    return Played(gaps_m=np.linalg.norm(ends - goals, axis=1), finals=finals, plan_s=seconds)


class SideBySide:
    """All tasks in one simulation, which restores one state after the other.

    Args:
        episodes: The recording.
        tasks: Start of each episode.
        size: Side of the images in pixels.
    """

    def __init__(self, episodes: Episodes, tasks: list[Push], *, size: int) -> None:
        self.table, self.episodes, self.tasks = PuckTable(size=size), episodes, tasks
        self.states = [episodes.states[task.episode, task.start].numpy() for task in tasks]

    def step(self, actions: Tensor) -> None:
        """One control step of every task."""
        for number, action in enumerate(actions.numpy()):
            self._take_up(number)
            self.table.step(action)
            self.states[number] = self.table.state()

    def seen(self) -> Observation:
        """Current observations of all tasks. Proprioception holds all positions; only `PlacesPerception` reads them."""
        frames = []
        for number in range(len(self.tasks)):
            self._take_up(number)
            frames.append(torch.from_numpy(self.table.picture()))
        places = torch.from_numpy(np.stack(self.states)[:, : 2 * NUM_BODIES]).float()
        return Observation(frames=torch.stack(frames)[:, None], cameras=CAMERAS, proprio=places[:, None])

    def _take_up(self, number: int) -> None:
        state = self.states[number]
        present = self.episodes.present[self.tasks[number].episode].numpy()
        self.table.lay(np.clip(state[: 2 * NUM_BODIES].reshape(-1, 2), -WALL_M, WALL_M), present)
        self.table.set_state(state)


def _plan_seconds(
    mind: Mind, episodes: Episodes, task: list[Push], search: PushSearch, *, history: int, size: int
) -> float:
    """Median time of three plans in one world."""
    if isinstance(mind.perception, PlacesPerception):
        alone: Perception = PlacesPerception(mind.perception.network, mind.perception.bodies[:1])
        mind = Mind(perception=alone, dynamics=mind.dynamics, cost=mind.cost)
    worlds = SideBySide(episodes, task, size=size)
    observation, times = worlds.seen(), []
    worlds.table.close()
    for _ in range(3):
        agent = _briefed(mind, worlds, search, history)
        begun = time.perf_counter()
        agent.act(observation)
        times.append(time.perf_counter() - begun)
    return sorted(times)[1]


def _briefed(mind: Mind, worlds: SideBySide, search: PushSearch, history: int) -> PlanningAgent:
    """An agent that has its goals and the history before the start."""
    episodes, tasks = worlds.episodes, worlds.tasks
    memory = ReplayBuffer(capacity=history, window=history, action_dim=2)
    agent = PlanningAgent(
        perception=mind.perception,
        memory=memory,
        dynamics=mind.dynamics,
        cost=mind.cost,
        planner=cem(num_samples=search.samples, num_iterations=search.rounds, num_elites=search.elites),
        box=worlds.table.action_box,
        settings=MpcSettings(horizon=search.horizon, execute=search.execute),
        generator=generator(0, "pushing"),
    )
    agent.reset(_recorded(episodes, [(task.episode, task.goal) for task in tasks]))
    for back in range(history - 1, 0, -1):
        at = [(task.episode, task.start - back) for task in tasks]
        seen = _recorded(episodes, at)
        memory.see(mind.perception(seen)[:, -1], _told(seen))
        memory.did(torch.stack([episodes.actions[episode, frame] for episode, frame in at]))
    return agent


def _told(observation: Observation) -> Tensor | None:
    return None if observation.proprio is None else observation.proprio[:, -1]


def _recorded(episodes: Episodes, at: list[tuple[int, int]]) -> Observation:
    frames = torch.stack([episodes.frames[episode, frame] for episode, frame in at])
    places = torch.stack([episodes.places_m[episode, frame] for episode, frame in at])
    return Observation(frames=frames[:, None], cameras=CAMERAS, proprio=places.flatten(1)[:, None])
