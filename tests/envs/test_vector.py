"""Vectors of gymnasium environments: N episodes at once are the episodes of N single environments."""

from __future__ import annotations

import time
from functools import partial

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv

import jepa_mpc
from jepa_mpc import envs
from jepa_mpc.envs.baselines import PolicyAgent, RandomActions, SideBySideAgent
from jepa_mpc.envs.gym.adapter import GymEnv
from jepa_mpc.envs.gym.bridge.process import BrokenBridge
from jepa_mpc.envs.gym.goals import GymGoal
from jepa_mpc.envs.gym.later import Later
from jepa_mpc.envs.gym.motions import HeldActions
from jepa_mpc.envs.gym.vector import GymVector
from jepa_mpc.envs.true_dynamics import true_dynamics
from jepa_mpc.episode import run_episode, run_episodes
from jepa_mpc.face.agents import planning_agent, true_dynamics_agent
from jepa_mpc.face.loading import plan_settings
from jepa_mpc.seeding import generator, generators, numpy_generator
from jepa_mpc.step_log import StepLog
from jepa_mpc.trajectories.recording import record_episode, record_side_by_side
from jepa_mpc.world_model.checkpoints.loader import load_world_model, save_world_model
from tests import tiny

SEEDS = [3, 8, 5, 11]
LIMIT = 12


class Dot(gymnasium.Env):
    """A bright square that goes where it is pushed; leaving the picture ends the episode."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}
    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = gymnasium.spaces.Box(-0.2, 0.2, (2,), np.float32)

    def __init__(self, render_mode=None, fault=None):
        self.render_mode, self.fault = render_mode, fault

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.at = self.np_random.uniform(-0.5, 0.5, 2)
        return self.at.astype(np.float32), {
            "start": self.at.copy(),
            "near": {"home": bool(np.abs(self.at).max() < 0.2)},
        }

    def step(self, action):
        self.at = self.at + action
        if self.fault is not None and self.at[0] > 0.55:
            self.fault(self)
        ended = bool(np.abs(self.at).max() > 0.7)
        info = {"success": bool(self.at[0] > 0.6)} | ({"left": 1.5} if ended else {})
        return self.at.astype(np.float32), -float(np.abs(self.at).sum()), ended, False, info

    def render(self):
        picture = np.full((32, 32, 3), 30, np.uint8)
        x, y = np.clip(((self.at + 1) * 14 + 2).astype(int), 0, 28)
        picture[y : y + 4, x : x + 4] = (250, 200, 40)
        return picture


def raises(env):
    raise ArithmeticError("the motor is off")


def dies(env):
    import os

    os._exit(7)


def breaks(env):
    env.at = env.at * np.nan


def limited(**settings):
    return gymnasium.wrappers.TimeLimit(Dot(**settings), LIMIT)


def several(kind, make=limited, mode=AutoresetMode.NEXT_STEP):
    if kind == "copies":
        return [make() for _ in SEEDS]
    return {"sync": SyncVectorEnv, "async": AsyncVectorEnv}[kind]([make] * len(SEEDS), autoreset_mode=mode)


class Homeward:
    """A fixed policy of what is observed, for any number of worlds."""

    last: StepLog | None = None

    def reset(self, goal):
        self.goal = goal

    def act(self, observation):
        felt = observation.proprio[:, -1]
        return torch.tanh(torch.stack([3 * felt[:, 0] + 0.3, -2 * felt[:, 1] + 0.1], dim=1)) * 0.15


def history(played, observations):
    return [np.stack(played.actions), played.reached, np.stack(observations), played.broken]


def alone(env, seed, agent):
    env.reset(seed=seed)
    seen = [env.moment.observation]
    played = run_episode(env, agent, moved=lambda _: seen.append(env.moment.observation))
    return [*history(played, seen), env.moment.total, env.moment.info]


def together(env, seeds, agent):
    env.reset(seed=seeds)
    seen = [[one.moment.observation] for one in env.playing]

    def moved(episodes):
        for rows, one, played in zip(seen, env.playing, episodes, strict=True):
            if len(rows) <= len(played.actions):
                rows.append(one.moment.observation)

    episodes = run_episodes(env, agent, moved=moved)
    return [
        [*history(played, rows), one.moment.total, one.moment.info]
        for played, rows, one in zip(episodes, seen, env.playing, strict=True)
    ]


def same(one, other):
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, np.ndarray):
        return np.array_equal(one, other, equal_nan=True)
    return one == other


def expected_start(seed):
    return Dot().reset(seed=seed)[1]["start"].tolist()


KINDS = [
    ("copies", None), ("sync", AutoresetMode.SAME_STEP), ("async", AutoresetMode.NEXT_STEP),
    ("async", AutoresetMode.DISABLED),
]  # fmt: skip


@pytest.mark.parametrize("repeat", [1, 3])
@pytest.mark.parametrize(("kind", "mode"), KINDS)
def test_episodes_at_once_are_those_of_single_environments(kind, mode, repeat):
    goal, budget = GymGoal(repeat=repeat), LIMIT // repeat
    single = GymEnv(limited(), goal=goal, budget=budget)
    expected = [alone(single, seed, Homeward()) for seed in SEEDS]
    lengths = [int(np.argmax((np.abs(rows) > 0.7).any(axis=1))) for _, _, rows, *_ in expected]
    assert len(set(lengths)) > 1, "some end early, others later or never"
    env = GymVector(several(kind, mode=mode), goal=goal, budget=budget)
    for _ in range(2):  # and again after all of them have ended
        found = together(env, SEEDS, Homeward())
        for one, other in zip(found, expected, strict=True):
            assert all(same(a, b) for a, b in zip(one, other, strict=True))
    env.reset(seed=3)
    assert [one.moment.info["start"].tolist() for one in env.playing][0] == expected_start(SEEDS[0])
    fewer = together(env, SEEDS[:3], Homeward())
    assert all(
        same(a, b) for one, other in zip(fewer, expected[:3], strict=True) for a, b in zip(one, other, strict=True)
    )
    env.close()


@pytest.mark.parametrize("kind", ["copies", "async"])
def test_mujoco_environments_at_once_are_single_ones(kind):
    single = envs.make("gym:Reacher-v5", budget=6)
    policies = [PolicyAgent(RandomActions(generator(seed)), single) for seed in SEEDS]
    expected = [alone(single, seed, policy) for seed, policy in zip(SEEDS, policies, strict=True)]
    if kind == "copies":
        env = envs.make("gym:Reacher-v5", copies=len(SEEDS), budget=6)
    else:
        env = GymVector(gymnasium.make_vec("Reacher-v5", num_envs=4, vectorization_mode="async"), budget=6)
    assert (env.name, env.dt_s, env.horizon, env.cameras) == (single.name, single.dt_s, single.horizon, ())
    agent = SideBySideAgent([PolicyAgent(RandomActions(generator(seed)), env.copies[0]) for seed in SEEDS])
    for one, other in zip(together(env, SEEDS, agent), expected, strict=True):
        assert all(same(a, b) for a, b in zip(one, other, strict=True))
    env.close()


def test_a_world_that_breaks_down_ends_and_the_others_go_on():
    make = partial(limited, fault=breaks)
    single = GymEnv(make(), goal=GymGoal(success=lambda moment: False), budget=LIMIT)
    expected = [alone(single, seed, Homeward()) for seed in SEEDS]
    assert {broken for _, _, _, broken, *_ in expected} == {True, False}
    for kind in ("copies", "async"):
        env = GymVector(several(kind, make), goal=single.wanted, budget=LIMIT)
        for one, other in zip(together(env, SEEDS, Homeward()), expected, strict=True):
            assert all(same(a, b) for a, b in zip(one[:4], other[:4], strict=True))
        env.close()


@pytest.mark.parametrize("dynamics", ["simulator", "stepping"])
def test_plans_at_once_are_those_made_alone(dynamics):
    """With a generator of its own, each world gets the plans that it gets alone: true dynamics are exact."""
    settings = plan_settings("cem_short", horizon=4, execute=2)
    settings.arguments.update(num_samples=24, num_iterations=2)
    single = envs.make("gym:Reacher-v5", budget=4)
    env = envs.make("gym:Reacher-v5", copies=2, budget=4)

    def planner(env, seed):
        world = true_dynamics(env, dynamics)
        return true_dynamics_agent(env, settings, seed=seed, dynamics=world, cost=env.cost())

    expected = [alone(single, seed, planner(single, seed)) for seed in SEEDS[:2]]
    found = together(env, SEEDS[:2], planner(env, SEEDS[:2]))
    for one, other in zip(found, expected, strict=True):
        assert all(same(a, b) for a, b in zip(one, other, strict=True))
    assert not np.array_equal(found[0][0], found[1][0])


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "dot"
    encoder = tiny.SYSTEM["encoder"] | {"num_cameras": 1}
    system = tiny.system(action_dim=2, action_scale=[0.2, 0.2], encoder=encoder, extra=[])
    made = tiny.assemble(tiny.copy.deepcopy(system))
    tiny.draw_weights(made, generator(0))
    interface = tiny.interface(cameras=("render",), actions=("action 0", "action 1"), dt_s=0.1)
    save_world_model(folder, made, system=system, interface=interface)
    return load_world_model(folder)


@pytest.mark.parametrize("kind", ["copies", "async"])
def test_a_world_model_is_planned_in_for_all_copies_in_one_decision(model, kind):
    """Products of another batch round differently, so plans agree to the rounding and not bit for bit."""
    seen = {"cameras": ("render",), "image_size": tiny.SIZE, "budget": 5}
    goal = GymGoal()
    picture = np.full((32, 32, 3), 90, np.uint8)
    make = partial(limited, render_mode="rgb_array")
    settings = plan_settings("cem_short", horizon=3)
    settings.arguments.update(num_samples=32, num_iterations=2)
    single = GymEnv(make(), goal=goal, picture=picture, **seen)
    env = GymVector(several(kind, make), goal=goal, picture=picture, **seen)
    expected = [alone(single, seed, planning_agent(model, single, settings, seed=seed)) for seed in SEEDS]
    agent = planning_agent(model, env, settings, seed=SEEDS)
    calls = []
    act, agent.act = agent.act, lambda observation: (calls.append(observation), act(observation))[1]
    found = together(env, SEEDS, agent)
    assert [tuple(one.frames.shape) for one in calls] == [(4, 1, 3, 32, 32)] * 5
    for one, other in zip(found, expected, strict=True):
        assert np.allclose(one[0], other[0], atol=1e-4) and np.allclose(one[2], other[2], atol=1e-3)
    env.close()


@pytest.mark.parametrize("kind", ["copies", "async"])
def test_the_last_picture_of_an_episode_stays(kind):
    make = partial(limited, render_mode="rgb_array")
    seen = {"cameras": ("render",), "image_size": 32, "budget": LIMIT // 3, "goal": GymGoal(repeat=3)}
    single, env = GymEnv(make(), **seen), GymVector(several(kind, make), **seen)
    env.reset(seed=SEEDS)
    push = np.array([0.19, 0.05], np.float32)
    for _ in range(4):
        env.step([push] * len(SEEDS))
    for seed, one in zip(SEEDS, env.playing, strict=True):
        single.reset(seed=seed)
        for _ in range(4):
            single.step(push)
        assert one.moment.ended and torch.equal(one.observation().frames, single.observation().frames)
        assert torch.equal(one.observation().proprio, single.observation().proprio)
    env.close()


def test_goals_of_copies_are_those_of_single_environments():
    later = GymGoal(later=Later(steps=4, tolerance=0.1))
    single = GymEnv(limited(), goal=later, budget=LIMIT)
    env = GymVector([limited() for _ in SEEDS], goal=later, budget=LIMIT)
    env.reset(seed=SEEDS)
    for row, seed in zip(env.goal().proprio, SEEDS, strict=True):
        single.reset(seed=seed)
        assert torch.equal(row[None], single.goal().proprio)


@pytest.mark.parametrize("kind", ["copies", "async"])
def test_logs_of_copies_are_those_of_single_environments(kind):
    make = partial(limited, render_mode="rgb_array")
    seen = {"cameras": ("render",), "image_size": 32, "budget": LIMIT, "goal": GymGoal(success=lambda moment: False)}
    single, env = GymEnv(make(), **seen), GymVector(several(kind, make), **seen)

    def motion(env):
        return HeldActions(low=env.action_space.low, high=env.action_space.high)

    facts = {"env": "dot"}
    found = record_side_by_side(
        env, motion, indices=range(4), steps=10, seeds=SEEDS, metadata=facts,
        generators=[numpy_generator(seed) for seed in SEEDS],
    )  # fmt: skip
    for index, seed in enumerate(SEEDS):
        expected = record_episode(
            single, partial(motion, single), index=index, steps=10, seed=seed, options={}, metadata=facts,
            generator=numpy_generator(seed), hand=False,
        )  # fmt: skip
        assert found[index].metadata == expected.metadata
        assert found[index].arrays.keys() == expected.arrays.keys()
        for name, array in expected.arrays.items():
            assert np.array_equal(found[index].arrays[name], array)
    assert len({episode.length for episode in found}) > 1
    env.close()


def test_evaluate_plays_as_many_seeds_at_once_as_there_are_copies():
    single, env = GymEnv(limited(), budget=LIMIT), GymVector([limited(), limited()], budget=LIMIT)
    expected = jepa_mpc.evaluate(single, Homeward(), seeds=range(5))
    found = jepa_mpc.evaluate(env, Homeward(), seeds=range(5))
    assert [one.reached for one in found] == [one.reached for one in expected]


def running(vector):
    deadline = time.monotonic() + 10
    while any(process.is_alive() for process in vector.processes) and time.monotonic() < deadline:
        time.sleep(0.05)
    return [process for process in vector.processes if process.is_alive()]


@pytest.mark.parametrize(
    ("fault", "error", "words"),
    [(raises, ArithmeticError, "the motor is off"), (dies, BrokenBridge, "a process of AsyncVectorEnv has ended")],
)
@pytest.mark.filterwarnings("ignore:.*ERROR")
def test_an_error_in_a_process_leaves_none_running(fault, error, words):
    vector = several("async", partial(limited, fault=fault))
    env = GymVector(vector, budget=LIMIT)
    env.reset(seed=SEEDS)
    with pytest.raises(error, match=words):
        run_episodes(env, Homeward())
    assert not running(vector) and vector.closed
    env.close()


def test_an_interrupt_in_the_midst_of_a_step_leaves_no_process_running(monkeypatch):
    vector = several("async")
    env = GymVector(vector, budget=LIMIT)
    env.reset(seed=SEEDS)

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(vector, "step_wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        env.step([np.zeros(2, np.float32)] * 4)
    assert not running(vector)


def refused(vector, **settings):
    try:
        GymVector(vector, **settings)
    finally:
        assert not isinstance(vector, AsyncVectorEnv) or not running(vector)


def state_of(vector):
    env = GymVector(vector, budget=5)
    try:
        true_dynamics(env)
    finally:
        env.close()


def over_the_limit(vector):
    env = GymVector(vector, budget=LIMIT + 3)
    env.reset(seed=SEEDS)
    try:
        for _ in range(LIMIT + 1):
            env.step([np.zeros(2, np.float32)] * 4)
    finally:
        env.close()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: refused(several("async", mode=AutoresetMode.SAME_STEP), budget=5), "so that the end is not seen"),
        (lambda: refused(several("async")), "AsyncVectorEnv has no time limit: pass budget="),
        (
            lambda: refused(several("async"), budget=5, goal=GymGoal(later=Later(steps=2, tolerance=0.1))),
            "goals with later= and photograph= are sought in one environment after another",
        ),
        (lambda: state_of(several("async")), "moved together and cannot go back, so that true dynamics cannot be had"),
        (lambda: over_the_limit(several("async")), "cuts episodes off before their budget is spent"),
        (lambda: refused([limited(), gymnasium.make("Pendulum-v1")], budget=5), "copies must be alike to be one batch"),
        (lambda: refused(gymnasium.make_vec("CartPole-v1", num_envs=2)), "no seed for each of its copies"),
        (lambda: refused(gymnasium.make_vec("CartPole-v1", 2, vectorization_mode="sync")), "a planner needs a box"),
        (lambda: refused(gymnasium.make_vec("CartPole-v1", 2, vectorization_mode="async")), "a planner needs a box"),
        (lambda: refused([]), "at least one copy"),
        (lambda: refused("Pendulum-v1"), "copies= is the number of copies of an id"),
        (lambda: GymVector([limited()], budget=5).reset(seed=[1, 2]), "1 copies take 1 to 1 seeds, got 2"),
        (lambda: jepa_mpc.evaluate(several("sync"), Homeward()), "evaluate GymVector.env, goal=...."),
        (lambda: jepa_mpc.evaluate(GymVector([limited()], budget=5), Homeward(), view="x.rrd"), "one episode after"),
    ],
)  # fmt: skip
def test_what_cannot_be_had_is_refused_in_one_sentence(make, words):
    with pytest.raises(ValueError, match=words) as refusal:
        make()
    assert "\n" not in str(refusal.value)


def test_streams_are_one_per_seed():
    one, two = generators([4, 5], "planner")
    assert torch.equal(torch.rand(3, generator=one), torch.rand(3, generator=generators(4, "planner")))
    assert not torch.equal(torch.rand(3, generator=one), torch.rand(3, generator=two))
