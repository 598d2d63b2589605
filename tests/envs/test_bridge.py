"""Environments in another process: the same numbers as in this one, and every way to break is one sentence."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from pathlib import Path

import gymnasium
import numpy as np
import pytest

from jepa_mpc import envs
from jepa_mpc.envs.gym.adapter import GymEnv
from jepa_mpc.envs.gym.bridge import wire
from jepa_mpc.envs.gym.bridge.near_side import BridgedEnv
from jepa_mpc.envs.gym.bridge.process import BrokenBridge
from jepa_mpc.envs.gym.goals import GymGoal
from jepa_mpc.envs.gym.moments import ended
from tests.docs_blocks import ROOT
from tests.envs.bridge_times import times

ODD = """
import os
import time

import gymnasium
import numpy as np


class Odd(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)
    action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)
    metadata = {"render_modes": ["rgb_array"]}

    def __init__(self, render_mode=None):
        self.asked = render_mode  # some packages leave the attribute render_mode as it is

    def render(self):
        return np.full((4, 5, 3), 60, np.uint8)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        print("words on the standard output do no harm")
        info = {"goal": np.arange(3), "picture": np.zeros((9, 9, 3)), "is_success": np.bool_(True)}
        return np.zeros(2, np.float32), info | {"goal_rendered": self.render() + 1 if options else None}

    def step(self, action):
        if action[0] > 0.9:
            os._exit(7)
        if action[0] > 0.8:
            time.sleep(60)
        if action[0] > 0.7:
            raise RuntimeError("the motor\\nis off")
        return np.full(2, action[0], np.float32), 1.0, False, False, {}


class Wordy(Odd):
    def reset(self, *, seed=None, options=None):
        raise AttributeError("old function")


gymnasium.register("Odd-v0", Odd, max_episode_steps=9)
gymnasium.register("Wordy-v0", Wordy)
"""


@pytest.fixture
def odd(tmp_path, monkeypatch):
    (tmp_path / "odd_package.py").write_text(ODD)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    def make(name="odd_package:Odd-v0", **settings):
        return BridgedEnv(name, python=sys.executable, **settings)

    return make


def gone(env: BridgedEnv) -> bool:
    return env._child.process.poll() is not None


@pytest.fixture(scope="module")
def pair():
    near = envs.make("gym:Reacher-v5")
    far = envs.make("gym:Reacher-v5", python=sys.executable)
    yield near, far
    far.close()
    near.close()


def test_a_bridged_environment_gives_the_same_numbers_as_one_here(pair):
    futures = []
    for env in pair:
        env.reset(seed=5)
        env.step(np.full(2, 0.3, np.float32))
        kept = env.state()
        rows = [env.moment.observation]
        for _ in range(2):
            env.set_state(kept)
            assert env.moment.steps == 1
            rows += [(env.step(np.full(2, one, np.float32)), env.plant_sensors())[1] for one in (0.5, -1.0, 0.1)]
        futures.append((env.name, env.dt_s, env.budget, env.action_box.low.tolist(), rows))
    near, far = futures
    assert near[:4] == far[:4]
    assert all(np.array_equal(a, b) for a, b in zip(near[4], far[4], strict=True))
    assert np.array_equal(far[4][1], far[4][4])


def test_plans_are_carried_out_over_the_bridge(pair):
    near, far = pair
    assert (near.usual_dynamics, far.usual_dynamics) == ("simulator", "stepping")
    plans = np.random.default_rng(0).uniform(-1, 1, (4, 2))
    ahead = []
    for env in pair:
        env.reset(seed=6)
        with env.undisturbed():
            ahead.append(env.try_out(env.state(), plans)[1])
    assert np.array_equal(*ahead)


@pytest.mark.parametrize(
    ("name", "steps", "parts", "falls"),
    [("InvertedPendulum-v5", 3, 1, False), ("InvertedPendulum-v5", 70, 1, True), ("Reacher-v5", 70, 2, False)],
)
def test_a_plan_is_sent_at_once_and_stops_where_the_episode_ends(name, steps, parts, falls, monkeypatch):
    ahead, asked = [], []
    for python in (None, sys.executable):
        env = GymEnv(name, goal=GymGoal(success=ended, repeat=2), budget=9, python=python)
        env.reset(seed=1)
        begin, box = env.state(), env.action_space
        plans = np.random.default_rng(0).uniform(box.low, box.high, (2, steps, *box.shape))
        if python is not None:
            ask = env.own._ask
            monkeypatch.setattr(
                env.own, "_ask", lambda kind, *rest, ask=ask, **more: asked.append(kind) or ask(kind, *rest, **more)
            )
        ahead.append([env.try_out(begin, plan)[1] for plan in plans])
        env.close()
    assert np.array_equal(*ahead)
    assert asked == 2 * [wire.PUT, *parts * [wire.PLAY]]
    assert np.array(ahead)[:, :, -1, -1].all() == falls


@pytest.mark.render
def test_pictures_come_over_the_bridge():
    shown = []
    for python in (None, sys.executable):
        env = GymEnv("Reacher-v5", cameras=("render",), image_size=32, python=python)
        shown.append(env.reset(seed=0)[0]["frames"])
        env.close()
    assert shown[0].std() > 5 and np.array_equal(*shown)


def test_info_keeps_what_is_short_and_plain_and_the_picture_of_the_goal(odd):
    env = odd(render_mode="rgb_array")
    assert env.reset(seed=0)[1] == {"goal": [0, 1, 2], "is_success": True, "goal_rendered": None}
    _, info = env.reset(seed=0, options={"render_goal": True})
    assert info["goal_rendered"].shape == (4, 5, 3) and (info["goal_rendered"] == 61).all()
    assert (env.render() == 60).all()
    env.close()
    assert gone(env)


@pytest.mark.parametrize(
    ("push", "words"),
    [
        (1.0, "ended with status 7"),
        (0.85, "did not answer within 1 s and was killed"),
        (0.75, "RuntimeError: the motor is off"),
    ],
)  # fmt: skip
def test_a_child_that_ends_hangs_or_fails_is_told_of_in_one_sentence_and_leaves_nothing(odd, push, words):
    env = odd(patience_s=1.0)
    env.reset(seed=0)
    with pytest.raises(BrokenBridge, match=words) as told:
        env.step(np.array([push]))
    assert "\n" not in str(told.value) and gone(env)
    with pytest.raises(BrokenBridge):
        env.reset(seed=0)


def test_a_killed_child_is_told_of(odd):
    env = odd()
    os.kill(env._child.process.pid, signal.SIGKILL)
    with pytest.raises(BrokenBridge, match="ended by SIGKILL"):
        env.reset(seed=0)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"python": "/nowhere/python"}, "there is no Python /nowhere/python"),
        ({"python": "/bin/true"}, "ended with status 0"),
        ({"env": "odd_package:Wordy-v0"}, "AttributeError: old function .with python 3"),
        ({"env": "CartPole-v1"}, "a planner needs a box"),
        ({"env": "gymnasium_robotics:FetchPush-v4"}, "works in an environment of its own .pip install gymnasium-robot"),
    ],
)  # fmt: skip
def test_what_cannot_be_made_is_refused_in_one_sentence(odd, settings, words):
    settings = {"env": "odd_package:Odd-v0", "python": sys.executable, **settings}
    with pytest.raises((BrokenBridge, ValueError), match=words) as told:
        BridgedEnv(**settings)
    assert "\n" not in str(told.value)


def test_a_child_ends_with_its_parent(odd):
    env = odd()
    child = env._child
    env.reset(seed=0)
    env._action[:] = 0.85
    wire.send(env._line, wire.STEP, {})  # it is busy for a minute
    child.line.close()
    began = time.monotonic()
    assert child.process.wait(20) == 1 and time.monotonic() - began < 20


def test_an_environment_that_is_dropped_takes_its_process_along(odd):
    env = odd()
    process = env._child.process
    del env
    assert process.poll() is not None


def test_messages_are_bounded_and_garbage_is_refused():
    one, two = socket.socketpair()
    with one, two:
        with pytest.raises(wire.Garbled, match="longer than"):
            wire.send(one, wire.STEP, {"text": "x" * wire.MOST})
        for bad in (
            b"\xff" * wire.HEADER.size,
            wire.HEADER.pack(wire.MAGIC, wire.DONE, wire.MOST + 1),
            wire.HEADER.pack(wire.MAGIC, wire.DONE, 2) + b"[]",
            wire.HEADER.pack(wire.MAGIC, wire.DONE, 2) + b"{'",
        ):
            one.sendall(bad)
            with pytest.raises(wire.Garbled):
                wire.receive(two)
    with pytest.raises(wire.Garbled, match="at most"):
        wire.Layout.of({"action": 1, "observation": 1, "state": 1, "picture": [1 << 20, 1 << 20, 3]})


def test_a_step_with_its_picture_is_fast(monkeypatch):
    """The best of many: the machine may be busy with other things."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    walls, near, _ = times(steps=300)
    assert walls.min() <= 1.0 and near <= 1.0


def test_the_far_side_needs_nothing_of_this_package():
    bridge = Path(wire.__file__).parent
    for path in (bridge / "child.py", bridge / "wire.py", bridge.parent / "states.py"):
        assert "import jepa_mpc" not in path.read_text() and "from jepa_mpc" not in path.read_text()
        assert gymnasium.__name__ and "pickle" not in path.read_text().replace("cannot pickle", "")
