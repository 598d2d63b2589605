"""Environments of gymnasium behind our interface: exact states, true dynamics, and what is refused in a sentence."""

from __future__ import annotations

import gc
import itertools
import subprocess
import sys
import threading
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.envs.mujoco.inverted_pendulum_v5 import InvertedPendulumEnv

from jepa_mpc import envs
from jepa_mpc.envs.gym.adapter import GymEnv
from jepa_mpc.envs.gym.goals import GOALS, GymGoal
from jepa_mpc.envs.gym.later import Later
from jepa_mpc.envs.gym.moments import near
from jepa_mpc.envs.gym.motions import HeldActions
from jepa_mpc.envs.gym.states import MujocoStates, simulated
from jepa_mpc.envs.gym.stepping import SteppingDynamics
from jepa_mpc.envs.task import task_of
from jepa_mpc.errors import MissingPackage, UnknownName
from jepa_mpc.planners import build_planner
from jepa_mpc.types import PlanRequest

MUJOCO = ("InvertedPendulum-v5", "Reacher-v5")
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module", params=sorted(GOALS))
def task(request):
    made = envs.make_task(f"gym:{request.param}")
    yield made
    made.close()


def actions_for(task, count: int, seed: int = 0) -> torch.Tensor:
    """Actions `count H A` drawn from the box."""
    low, high = task.box.low, task.box.high
    share = torch.rand(count, 5, task.box.dim, generator=torch.Generator().manual_seed(seed))
    return low + share * (high - low)


def test_a_state_that_is_put_back_goes_on_bit_for_bit(task):
    task.reset(seed=1)
    plan = actions_for(task, 1)[0]
    task.step(plan[0])
    kept, moment = task.env.state(), task.env.moment
    futures = []
    for _ in range(2):
        futures.append([(task.step(action), task.env.plant_sensors())[1] for action in plan])
        task.env.set_state(kept)
        assert np.array_equal(task.env.state(), kept)
        assert np.array_equal(task.env.moment.observation, moment.observation)
        assert task.env.moment.steps == 1
    assert np.array_equal(futures[0], futures[1])


@pytest.mark.parametrize("dynamics", ["usual", "stepping"])
def test_true_dynamics_are_the_environment_step_by_step(task, dynamics):
    task.reset(seed=2)
    plans = actions_for(task, 3)[None]
    world = task.dynamics if dynamics == "usual" else SteppingDynamics(task.env)
    before = task.env.state()
    imagined = world.rollout(task.context(), plans)
    assert np.array_equal(task.env.state(), before) and bool(imagined.valid.all())
    exact = isinstance(world, SteppingDynamics)
    for candidate in range(3):
        task.env.set_state(before)
        for step in range(5):
            task.step(plans[0, candidate, step])
            if task.env.moment.ended and not exact:
                break  # a rollout goes on where the environment ended the episode
            if exact:
                assert np.array_equal(imagined.sensors[0, candidate, step], task.env.plant_sensors())
            if not exact:  # the solver's first guess is part of the row and not of a rollout
                size = task.env.own.model.nq + task.env.own.model.nv + 1
                got = imagined.latents[0, candidate, step, 0, :size].numpy()
                assert np.array_equal(got, task.env.state()[:size])
    task.env.set_state(before)


def test_mujoco_environments_are_simulated_by_rollout_without_code_of_the_user(task):
    mujoco = task.name.removeprefix("gym:") in MUJOCO
    assert task.env.usual_dynamics == ("simulator" if mujoco else "stepping")
    if not mujoco:
        with pytest.raises(ValueError, match="cannot be planned in by mujoco.rollout"):
            envs.make_task(task.name, dynamics="simulator")


def test_an_episode_depends_on_its_seed_alone(task):
    def history(seed):
        task.reset(seed=seed)
        first = task.env.observation().proprio
        return [first, *(task.env.observation().proprio for action in actions_for(task, 1)[0] if task.step(action))]

    one, same, other = history(5), history(5), history(6)
    assert all(torch.equal(a, b) for a, b in zip(one, same, strict=True))
    assert not torch.equal(one[0], other[0])


def test_a_plan_is_better_than_standing_still(task):
    task.reset(seed=3)
    request = PlanRequest(
        evaluate=task.objective(),
        box=task.box,
        batch=1,
        horizon=6,
        generator=torch.Generator().manual_seed(0),
    )
    planner = build_planner("cem", {"num_samples": 24, "num_elites": 4, "num_iterations": 2})
    found = planner.plan(request)
    still = task.box.clip(torch.zeros(1, 1, 6, task.box.dim))
    assert bool(torch.isfinite(found.cost).all()) and found.cost[0] <= task.objective()(still)[0, 0] + 1e-6


class Cart(gymnasium.Env):
    """Ten lines of somebody's environment: push a cart to 1."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)

    def __init__(self):
        self.window = threading.Lock()  # like a window, it cannot be copied

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.at = np.array([self.np_random.uniform(-0.1, 0.1), 0.0])
        return self.at.astype(np.float32), {}

    def step(self, action):
        self.at = self.at + 0.1 * np.array([self.at[1], action[0]])
        return self.at.astype(np.float32), -abs(self.at[0] - 1), False, False, {}


AT_ONE = (1.0, None)


@pytest.mark.parametrize("observation", [AT_ONE, None], ids=["distance", "reward"])
def test_an_environment_of_ones_own_is_planned_in(observation):
    from jepa_mpc.envs.true_dynamics import true_dynamics
    from jepa_mpc.episode import run_episode
    from jepa_mpc.face.agents import true_dynamics_agent
    from jepa_mpc.face.loading import plan_settings

    env = GymEnv(Cart(), goal=GymGoal(observation=observation, success=near(AT_ONE, 0.1)), budget=30)
    settings = plan_settings(
        {"_target_": "cem", "num_samples": 24, "num_elites": 4, "num_iterations": 2}, horizon=12, execute=4
    )
    agent = true_dynamics_agent(env, settings, seed=0, dynamics=true_dynamics(env), cost=env.cost())
    env.reset(seed=0)
    played = run_episode(env, agent)
    assert any(played.reached) and not played.reached[0]


def test_an_agent_does_not_think_for_an_episode_that_has_ended():
    from types import SimpleNamespace

    from jepa_mpc.episode import run_episode

    env = GymEnv("InvertedPendulum-v5", goal=GymGoal(observation=(0.0, None, None, None), success=near((5.0,), 0.1)))
    thoughts = []
    push = SimpleNamespace(
        reset=lambda goal: None,
        act=lambda observation: thoughts.append(observation) or torch.full((1, 1), 3.0),
        last=None,
    )
    env.reset(seed=0)
    played = run_episode(env, push)
    assert played.ended and not played.broken and not played.success
    assert len(thoughts) == len(played.actions) < 50 < env.budget


def test_an_environment_that_was_made_by_its_id_is_closed_when_nobody_needs_it(monkeypatch):
    gc.collect()
    closed = []
    monkeypatch.setattr(InvertedPendulumEnv, "close", lambda self: closed.append(self))
    own = gymnasium.make("InvertedPendulum-v5")
    for made_of in ("InvertedPendulum-v5", own):
        GymEnv(made_of)
        gc.collect()
        assert len(closed) == 1  # the second is its maker's


@pytest.mark.render
def test_a_process_that_drew_a_lab_and_another_environment_ends_quietly():
    code = (
        "import jepa_mpc\n"
        "labs = jepa_mpc.make_env('reach-v1'), jepa_mpc.make_env('gym:InvertedPendulum-v5', cameras=('render',))\n"
        "for env in labs: env.reset(seed=0), env.observation()\n"
        "jepa_mpc.make_env('dmc-cartpole-swingup-v1')  # its package has an EGL of its own"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0 and "Traceback" not in run.stderr, run.stderr


def test_a_state_later_is_planned_to_in_the_simulator():
    from jepa_mpc.episode import run_episode
    from jepa_mpc.face.agents import true_dynamics_agent
    from jepa_mpc.face.loading import plan_settings

    later = Later(steps=6, axes=[8, 9], tolerance=0.02)
    env = GymEnv("Reacher-v5", goal=GymGoal(later=later), budget=8)
    settings = plan_settings(
        {"_target_": "cem", "num_samples": 32, "num_elites": 6, "num_iterations": 4}, horizon=3, execute=1
    )
    agent = true_dynamics_agent(env, settings, seed=0, cost=env.cost())
    env.reset(seed=0)
    played = run_episode(env, agent)
    assert env.usual_dynamics == "simulator" and any(played.reached) and not played.reached[0]


class Aside(HeldActions):
    """Always the same action."""

    def __call__(self, proprio, generator):
        return self.high


def test_a_policy_leads_to_a_state_later():
    def aside(own: Any) -> Aside:
        return Aside(low=own.action_space.low, high=own.action_space.high)

    later = Later(steps=3, tolerance=1e-4, axes=[0], policy=aside)
    env = GymEnv("Pendulum-v1", goal=GymGoal(later=later), budget=8)
    env.reset(seed=3)
    for _ in range(3):
        assert not env.success()
        env.step(env.action_space.high)
    assert env.success()
    still = Later(steps=3, tolerance=10.0, axes=[0], policy=aside)
    with pytest.raises(ValueError, match="3 actions of the policy do not lead out of the tolerance"):
        GymEnv("Pendulum-v1", goal=GymGoal(later=still), budget=8).reset(seed=3)


def test_a_copy_that_is_forgotten_is_refused_and_the_newest_are_kept():
    env = GymEnv(Cart(), goal=GymGoal(success=lambda moment: False), budget=200)
    env.reset(seed=0)
    rows = [env.state() for _ in range(100) if env.step(np.ones(1, np.float32))]
    env.set_state(rows[-60])
    assert env.moment.steps == 41
    with pytest.raises(ValueError, match="no longer stored"):
        env.set_state(rows[0])


class Forgetful(Cart):
    """Its future depends on something that no copy reaches."""

    steps = itertools.count()

    def step(self, action):
        self.at = self.at + next(Forgetful.steps)
        return self.at.astype(np.float32), 0.0, False, False, {}


class Scaled(Cart):
    action_space = gymnasium.spaces.Box(-np.inf, np.inf, (1,), np.float32)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: GymEnv("CartPole-v1"), "a planner needs a box"),
        (lambda: GymEnv(gymnasium.make_vec("Pendulum-v1", num_envs=2)), "make a single one"),
        (lambda: GymEnv(Cart), "expected an id of gymnasium or an environment"),
        (lambda: GymEnv(Cart()), "has no time limit: pass budget="),
        (lambda: GymEnv(Scaled(), budget=5), "have no bounds"),
        (lambda: task_of("mine", GymEnv(Forgetful(), budget=5)), "does not reproduce the same future"),
        (lambda: GymEnv(Cart(), budget=5, cameras=("left",)), "has the camera 'render' or none"),
        (lambda: GymEnv(Cart(), budget=5, goal=GymGoal(observation=(1.0,))).cost(), "the goal gives 1"),
        (lambda: GymEnv(Cart(), budget=5, picture=np.zeros((4, 4)), cameras=()), "uint8"),
        (lambda: task_of("mine", gymnasium.make("Pendulum-v1")), "wrap a gymnasium environment"),
        (lambda: envs.make_task("cart-pole-v1", dynamics="stepping"), "uses dynamics=simulator"),
    ],
)  # fmt: skip
def test_what_cannot_be_had_is_refused_in_one_sentence(make, words):
    with pytest.raises(ValueError, match=words) as refusal:
        make()
    assert "\n" not in str(refusal.value)


def test_success_that_nobody_defined_is_asked_for():
    env = GymEnv(Cart(), budget=5)
    env.reset(seed=0)
    env.step(np.zeros(1, np.float32))
    with pytest.raises(ValueError, match="does not define success"):
        env.success()


def test_an_unknown_id_lists_what_may_have_been_meant():
    with pytest.raises(UnknownName, match="Pendulum"):
        envs.make("gym:Pendulun-v1")


@pytest.mark.skipif(find_spec("pygame") is not None, reason="pygame is installed")
def test_a_missing_drawing_package_is_named():
    with pytest.raises(MissingPackage, match="pip install pygame"):
        envs.make("gym:Pendulum-v1", cameras=("render",)).reset(seed=0)


def test_actions_that_are_no_actuator_signals_are_noticed():
    from gymnasium.envs.mujoco.inverted_pendulum_v5 import InvertedPendulumEnv

    class Backwards(InvertedPendulumEnv):
        def step(self, action):
            return super().step(-action)

    env = GymEnv(Backwards(), goal=GOALS["InvertedPendulum-v5"], budget=10)
    assert env.usual_dynamics == "stepping"
    env.close()


@pytest.mark.render
def test_pictures_and_goal_pictures_come_in_the_size_asked_for():
    goal = np.zeros((30, 40, 3), np.uint8)
    goal[:, 20:] = 255
    env = envs.make("gym:Reacher-v5", cameras=("render",), image_size=32, picture=goal)
    observation, _ = env.reset(seed=0)
    assert observation["frames"].shape == (3, 32, 32) and observation["frames"].std() > 5
    assert observation["goal"].mean() == pytest.approx(127.5, abs=6) and observation["goal"][:, :, :12].max() == 0
    assert env.goal().frames.shape == env.observation().frames.shape == (1, 1, 3, 32, 32)
    assert env.observation_space.contains(observation)
    env.close()
    with pytest.raises(ValueError, match="renders no images: make it with render_mode='rgb_array'"):
        GymEnv(gymnasium.make("Reacher-v5"), cameras=("render",))


class Stacked(InvertedPendulumEnv):
    """Observes the moment before as well, and counts its steps: neither is known to MuJoCo."""

    def __init__(self, **settings):
        self._before, self.count, self.memo = np.zeros(4), 0, "text"
        super().__init__(**settings)
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (9,), np.float64)

    def step(self, action):
        now, *rest = super().step(action)
        self.count += 1
        seen = np.concatenate([now, self._before, [self.count]])
        self._before = now
        return seen, *rest

    def reset_model(self):
        now = super().reset_model()
        self._before, self.count = now.copy(), 0
        return np.concatenate([now, now, [0]])


def test_what_an_environment_remembers_in_numbers_belongs_to_its_state():
    env = GymEnv(Stacked(), goal=GymGoal(success=lambda moment: not moment.ended), budget=10)
    env.reset(seed=3)
    begin = env.state()
    plan = np.array([[1.0], [-2.0]])
    first, _, second = (env.try_out(begin, one)[1] for one in (plan, -plan, plan))
    assert env.returns and env.usual_dynamics == "stepping" and isinstance(env.states, MujocoStates)
    assert np.array_equal(first, second) and first[-1, 8] == 2
    assert type(env.own.unwrapped.count) is int
    env.close()


@pytest.mark.render
def test_shadows_can_be_left_out_of_mujocos_images_and_of_no_others():
    drawn = []
    for shadows in (True, False):
        env = GymEnv("Pusher-v5", cameras=("render",), shadows=shadows)
        model = simulated(env.own)[0]
        drawn.append((int(model.light_castshadow.sum()), model.vis.quality.offsamples))
        env.close()
    assert drawn[0][0] > 0 and drawn[0][1] > 0 and drawn[1] == (0, 0)
    with pytest.raises(ValueError, match="shadows=False is for MuJoCo environments"):
        GymEnv("Pendulum-v1", shadows=False)


@pytest.mark.render
def test_mujocos_images_can_be_seen_from_another_place_and_no_others():
    above = {"distance": 2.0, "azimuth": 90.0, "elevation": -90.0, "lookat": [0.0, 0.0, 0.0]}
    pictures = []
    for settings in ({}, {"viewpoint": above}, {"viewpoint": above, "python": sys.executable}):
        env = GymEnv("Reacher-v5", cameras=("render",), image_size=32, width=64, height=64, **settings)
        env.reset(seed=0)
        pictures.append(env.observation().frames.float())
        env.close()
    assert (pictures[0] - pictures[1]).abs().mean() > 3 and (pictures[1] - pictures[2]).abs().mean() < 1
    with pytest.raises(ValueError, match="viewpoint takes azimuth, distance, elevation, lookat, got zoom"):
        GymEnv("Reacher-v5", viewpoint={"zoom": 2})
    with pytest.raises(ValueError, match="draw by gymnasium's MuJoCo renderer"):
        GymEnv("Pendulum-v1", viewpoint=above)


class Deaf(Stacked):
    """Draws its starts from its own stream, and ignores the seed of a reset."""

    def reset(self, *, seed=None, options=None):
        return super().reset(options=options)


def test_equal_seeds_give_equal_starts_where_a_reset_ignores_them():
    env = GymEnv(Deaf(), goal=GymGoal(success=lambda moment: not moment.ended), budget=10)
    first, other, again = (env.reset(seed=seed)[0]["proprio"] for seed in (1, 2, 1))
    assert np.array_equal(first, again) and not np.array_equal(first, other)
    env.close()
