"""Environments of gymnasium from log to score: collect, train and evaluate by the same commands as our own tasks."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hydra import compose, initialize_config_dir

from jepa_mpc.checkpoint import load_checkpoint
from jepa_mpc.envs.gym.adapter import GymEnv
from jepa_mpc.envs.gym.goals import GymGoal, goal_of
from jepa_mpc.envs.gym.later import Later
from jepa_mpc.envs.gym.moments import Moment, ended
from jepa_mpc.errors import UnknownName
from jepa_mpc.experiments.commands import evaluate
from jepa_mpc.face.collection.gym_recording import record_gym
from jepa_mpc.face.collection.lab_recording import Collection, record_one
from jepa_mpc.face.training.monitor import knows_hand
from jepa_mpc.face.training.training_run import run_training
from jepa_mpc.places import CONFIGS
from jepa_mpc.trajectories.actions import CommandedActions
from jepa_mpc.trajectories.bank import load_bank
from jepa_mpc.trajectories.episode import EE_POSE
from jepa_mpc.trajectories.formats.npz import read_episode
from jepa_mpc.trajectories.recording import publish_staged

DOT = '''
import gymnasium
import numpy as np


class Dot(gymnasium.Env):
    """A bright square that goes where it is pushed; leaving the picture ends the episode."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}
    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = gymnasium.spaces.Box(-0.2, 0.2, (2,), np.float32)

    def __init__(self, render_mode=None):
        self.render_mode = render_mode

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.at = self.np_random.uniform(-0.5, 0.5, 2)
        return self.at.astype(np.float32), {}

    def step(self, action):
        self.at = self.at + action
        ended = bool(np.abs(self.at).max() > 1.2)
        return self.at.astype(np.float32), -float(np.abs(self.at).sum()), ended, False, {}

    def render(self):
        picture = np.full((32, 32, 3), 30, np.uint8)
        x, y = np.clip(((self.at + 1) * 14 + 2).astype(int), 0, 28)
        picture[y : y + 4, x : x + 4] = (250, 200, 40)
        return picture


gymnasium.register("Dot-v0", Dot, max_episode_steps=20)
'''
FUNCTIONS = """
import numpy as np


class Homing:
    def start(self, proprio, generator):
        pass

    def __call__(self, proprio, generator):
        return np.clip(-proprio, -0.2, 0.2)


def homing(env):
    assert env.own.unwrapped.__class__.__name__ == "Dot"
    return Homing()


def at_home(moment):
    return bool(np.abs(moment.observation).max() < 0.1)


def picture_of_home(env):
    env.unwrapped.at = np.zeros(2)
    return env.render()
"""
PLAN = Collection(
    labs=1, episodes=6, steps=8, image_size=32, cameras=("render",), split="train", lab_seed=0, seed=0,
    task="gym:dot_world:Dot-v0", policy="held",
)  # fmt: skip


@pytest.fixture(scope="module")
def module(tmp_path_factory):
    folder = tmp_path_factory.mktemp("package")
    (folder / "dot_world.py").write_text(DOT)
    (folder / "dot_functions.py").write_text(FUNCTIONS)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        yield folder / "dot_functions.py"


@pytest.fixture(scope="module")
def log(module, tmp_path_factory):
    folder = tmp_path_factory.mktemp("log")
    for index in range(PLAN.total):
        assert record_one(PLAN, folder, index) == index
    assert publish_staged(folder, 0) == PLAN.total
    return folder


def composed(command, *words):
    with initialize_config_dir(str(CONFIGS), version_base=None):
        return compose(command, list(words))


@pytest.fixture(scope="module")
def checkpoint(log, tmp_path_factory):
    run = tmp_path_factory.mktemp("runs") / "dot"
    small = ["++system.encoder.widths=[8,8,8,8]", "++system.encoder.keypoints=4", "++system.encoder.hidden=16"]
    sizes = ["fit.steps=4", "fit.evaluate_every=4", "fit.save_every=4", "batch=4", "window=4", "max_stride=1"]
    probed = ["probe=16", "validation=0.34", "watch.frames=16", "recorders=[jsonl]"]
    cfg = composed(
        "train", "system=environment", "actions=commanded", *small, *sizes, *probed, f"data={log}", f"out={run}"
    )
    return run_training(cfg).folder


def test_a_log_holds_what_was_seen_and_done_and_no_hand(module, log):
    episode = read_episode(log / "episode_000000.npz")
    assert episode.cameras == ("render",) and EE_POSE not in episode.arrays
    state, action = episode.arrays["observation.state"], episode.arrays["action"]
    assert np.allclose(state[1:], state[:-1] + action[:-1], atol=1e-6)
    assert episode.metadata["robot"] == "gym:Dot-v0"
    again = record_gym(PLAN, 0)
    assert all(np.array_equal(array, episode.arrays[name]) for name, array in again.arrays.items())
    assert not knows_hand(load_bank(log, actions=CommandedActions()))


def test_a_world_model_keeps_the_mean_image_of_its_log(checkpoint, log):
    weights, _ = load_checkpoint(checkpoint)
    frames = load_bank(log, actions=CommandedActions()).frames.float()
    assert (weights["preprocess.scene"] - frames.mean(0)).abs().mean() < 5
    assert 1 <= weights["preprocess.spread"] < frames.std()


def test_an_episode_ends_where_the_environment_ends_it(module):
    long = replace(PLAN, steps=200, policy="uniform", env={"render_mode": "rgb_array"})
    lengths = [record_gym(long, index).length for index in range(3)]
    assert max(lengths) < 200


def test_a_policy_of_ones_own_is_recorded(module):
    for place in (f"{module}:homing", "dot_functions:homing"):
        episode = record_gym(replace(PLAN, policy=place), 0)
        assert np.abs(episode.arrays["observation.state"][-1]).max() < 1e-6


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"env": {"copies": 2}}, "workers= in place of copies="),
        ({"policy": "walk"}, "unknown policy 'walk'; known: held, uniform, file.py:function"),
        ({"policy": "nowhere.py:f"}, "nowhere.py cannot be imported"),
        ({"policy": "dot_world:nothing"}, "dot_world has no function nothing"),
    ],
)
def test_a_policy_that_cannot_be_had_is_refused(module, changes, words):
    with pytest.raises(ValueError, match=words):
        record_gym(replace(PLAN, **changes), 0)


def test_own_tasks_take_no_arguments_of_gymnasium():
    with pytest.raises(ValueError, match="task=gym:ID"):
        replace(PLAN, task="reach", policy="wander", env={"width": 3})


def test_all_methods_play_the_same_episodes_and_a_run_goes_on(module, log, checkpoint, tmp_path, capsys):
    def run(episodes):
        cfg = composed(
            "evaluate", f"task={PLAN.task}", f"checkpoint={checkpoint}", f"policy={module}:homing", "films=1", "seed=3",
            f"episodes={episodes}", f"out={tmp_path}/run", "planner=cem_short", "planner.num_samples=16",
            "planner.num_iterations=3", "execute=2", "env={budget: 10}",
            "goal={later: {steps: 6, tolerance: 0.15}, horizon: 4}",
        )  # fmt: skip
        evaluate.main.__wrapped__(cfg)
        return json.loads((tmp_path / "run/report.json").read_text())

    run(1)
    first = (tmp_path / "run/episodes/world_model-000.json").stat().st_mtime_ns
    report = run(2)
    assert (tmp_path / "run/episodes/world_model-000.json").stat().st_mtime_ns == first
    assert list(report["summary"]) == ["world model", "policy", "true dynamics", "random", "do nothing"]
    truth, nothing = report["summary"]["true dynamics"], report["summary"]["do nothing"]
    assert truth["success"] == 1.0 and nothing["success"] == 0.0 and truth["wilson_95"][1] == pytest.approx(1.0)
    assert all(one["success"] == (one["gap"] <= 1) for one in report["episodes"])
    assert {one["seed"] for one in report["episodes"] if one["episode"] == 1} == {
        one["seed"] for one in report["episodes"] if one["method"] == "random" and one["episode"] == 1
    }
    assert (tmp_path / "run/videos/world_model-000.mp4").stat().st_size > 1000
    assert "| world model | 2 |" in (tmp_path / "run/table.md").read_text()


def test_copies_play_the_episodes_that_are_played_one_by_one(module, checkpoint, tmp_path):
    reports = []
    for copies in (1, 3):
        cfg = composed(
            "evaluate", f"task={PLAN.task}", f"checkpoint={checkpoint}", f"policy={module}:homing", "films=2", "seed=3",
            "episodes=4", f"copies={copies}", f"out={tmp_path}/{copies}", "planner=cem_short", "planner.num_samples=16",
            "planner.num_iterations=2", "execute=2", "env={budget: 6}",
            "goal={later: {steps: 6, tolerance: 0.15}, horizon: 4}",
        )  # fmt: skip
        evaluate.main.__wrapped__(cfg)
        report = json.loads((tmp_path / str(copies) / "report.json").read_text())
        for one in report["episodes"]:
            one.pop("ms_per_decision")
        reports.append({(one["method"], one["episode"]): one for one in report["episodes"]})
    assert len(reports[0]) == 20 and reports[0].keys() == reports[1].keys()
    for key, one in reports[0].items():
        for name, slack in (("return", 1e-3), ("gap", 1e-2)):  # gaps are in tolerances of 0.15
            gained = one.pop(name), reports[1][key].pop(name)
            assert gained[0] == pytest.approx(gained[1], abs=slack if key[0] == "world model" else 0)
        assert one == reports[1][key]
    assert sorted(path.name for path in (tmp_path / "3/videos").iterdir()) == [
        "world_model-000.mp4", "world_model-001.mp4",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("words", "error", "match"),
    [
        (["methods=[dance]"], UnknownName, "unknown method 'dance'"),
        (["methods=[policy]"], ValueError, "needs policy=FILE.py:NAME"),
        (["methods=[random,random]"], ValueError, "methods must be a list of different names"),
        (["device=nope"], ValueError, "device=nope is unknown: use auto, cpu"),
        (["methods=[]"], ValueError, "methods must be a list of different names"),
        (["episodes=0"], ValueError, "episodes must be a whole number from 1"),
        (["context=3"], ValueError, "context must be a whole number from 1 to 2"),
        (["copies=0"], ValueError, "copies must be a whole number from 1"),
        (["task=cart-pole-v1", "copies=2"], ValueError, "are for environments of gymnasium"),
        (["env={copies: 2}"], ValueError, "is an option of its own"),
        (["goal={colour: red}"], ValueError, "a goal takes observation, success"),
    ],
)
def test_what_cannot_be_played_is_refused(module, words, error, match):
    cfg = composed("evaluate", f"task={PLAN.task}", *words)
    with pytest.raises(error, match=match):
        evaluate.methods_of(evaluate.options_of(cfg))


def test_a_later_goal_is_what_the_environment_shows_then(module):
    later = Later(steps=5, tolerance=0.1)
    env = GymEnv("dot_world:Dot-v0", goal=GymGoal(later=later), cameras=("render",), image_size=32)
    env.reset(seed=4)
    start, goal = env.moment.observation, env.goal()
    assert not env.success() and env.moment.steps == 0
    assert np.abs(start - goal.proprio[0, 0].numpy()).max() > 0.1
    env.own.unwrapped.at = goal.proprio[0, 0].double().numpy() - 0.05
    env.step(np.full(2, 0.05, np.float32))
    assert env.success() and np.array_equal(env.observation().frames, goal.frames)
    env.reset(seed=4)
    assert np.array_equal(env.moment.observation, start) and np.array_equal(env.goal().frames, goal.frames)


def test_the_goal_of_a_picture_and_a_predicate_of_ones_own(module):
    goal = goal_of("Dot-v0", {"success": f"{module}:at_home", "photograph": f"{module}:picture_of_home"})
    env = GymEnv("dot_world:Dot-v0", goal=goal, cameras=("render",), image_size=32)
    env.reset(seed=1)
    start = env.moment.observation
    assert not env.success() and env.goal().frames.max() > 200
    for _ in range(5):
        env.step(np.clip(-env.moment.observation, -0.2, 0.2).astype(np.float32))
    assert env.success() and np.array_equal(env.goal().frames, env.observation().frames)
    assert not np.array_equal(start, env.moment.observation)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Later(steps=0, tolerance=1.0), "steps and longest must be at least 1"),
        (lambda: Later(steps=1, tolerance=0.0), "tolerance must be above 0"),
        (lambda: Later(steps=1, tolerance=1.0, axes=[5]).observation(np.zeros(2)), "axes must name some of the 2"),
        (lambda: GymGoal(later=Later(steps=1, tolerance=1.0), success=ended), "either by later"),
        (lambda: goal_of("Dot-v0", {"observation": [0.0, 1.0], "tolerance": [1, 2, 3]}), "one for each of the 2 axes"),
    ],
)
def test_goals_that_make_no_sense_are_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_a_goal_is_made_of_plain_values():
    goal = goal_of("dot_world:Dot-v0", {"observation": [0.0, None], "tolerance": 0.5, "repeat": 2})
    assert goal.repeat == 2 and goal.success is not None
    assert goal.success(Moment(observation=np.array([0.4, 9.0]))) and not goal.success(
        Moment(observation=np.array([0.6, 0.0]))
    )
    known = goal_of("Reacher-v5", {"later": {"steps": 5, "tolerance": 0.1}})
    assert known.later == Later(steps=5, tolerance=0.1) and known.success is None and known.observation is None
    assert goal_of("Reacher-v5", {}).success is not None
    assert goal_of("gym:Dot-v0", {"success": "ended"}).success is ended


def test_goals_too_near_are_not_shown(module):
    env = GymEnv("dot_world:Dot-v0", goal=GymGoal(later=Later(steps=1, tolerance=9.0)))
    with pytest.raises(ValueError, match="do not lead out of the tolerance in 50 attempts, at most [0-9]+ % of it"):
        env.reset(seed=0)
