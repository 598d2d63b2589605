"""What every task promises: gymnasium's interface, determinism, exact snapshots."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import SyncVectorEnv

from jepa_mpc import envs
from jepa_mpc.errors import UnknownName
from jepa_mpc.interfaces import RobotEnv
from jepa_mpc.types import Rollout

ROOT = Path(__file__).resolve().parents[2]
SMALL = {"image_size": 16}

pytestmark = pytest.mark.render


# Contacts between meshes; two that differ only in numbers from one that is always tested.
SLOW = {"dmc-jaco-reach-site-v1", "dmc-reacher-hard-v1", "dmc-cartpole-swingup-v1"}
NAMES = [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in sorted(envs.ENVS)]


@pytest.fixture(scope="module", params=NAMES)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def env(name):
    made = envs.make(name, **SMALL)
    yield made
    made.close()


def some_actions(env, count: int, seed: int = 0) -> np.ndarray:
    space = gymnasium.vector.utils.batch_space(env.action_space, count)
    space.seed(seed)
    return space.sample()


def same(one, other) -> bool:
    return set(one) == set(other) and all(np.array_equal(one[name], other[name]) for name in one)


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(UnknownName, match="reach-v1"):
        envs.make("reach-v0")


def test_importing_the_package_does_not_import_mujoco():
    code = "import sys, envs; print(json.dumps([n for n in ('mujoco', 'gymnasium', 'torch') if n in sys.modules]))"
    run = subprocess.run([sys.executable, "-c", f"import json; {code}"], cwd=ROOT, capture_output=True, text=True)
    assert json.loads(run.stdout) == [], run.stderr


def test_registering_twice_changes_nothing():
    envs.register()
    envs.register()
    assert set(envs.ENVS) <= set(gymnasium.registry)


def test_a_step_takes_arrays_and_tensors_with_and_without_a_batch_axis(env):
    action = torch.from_numpy(some_actions(env, 1))
    outcomes = []
    for answer in (action, action[0], action.numpy(), action[0].numpy().tolist()):
        env.reset(seed=0)
        outcomes.append(env.step(answer)[0])
    assert all(same(outcomes[0], other) for other in outcomes[1:])
    with pytest.raises(ValueError, match=r"has shape .* or .*, got \(2, "):
        env.step(action.repeat(2, 1))


def test_gymnasiums_checker_has_nothing_to_say(name, recwarn):
    envs.register()
    made = gymnasium.make(name, render_mode="rgb_array", **SMALL)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings(
            "ignore", "Setting the shape", DeprecationWarning, module="dm_control"
        )  # dm_control beside NumPy 2.5
        check_env(made.unwrapped)
    made.close()
    assert not recwarn.list


def test_the_protocol_is_met(env):
    assert isinstance(env, RobotEnv)


def test_one_seed_gives_the_same_frames(env):
    actions = some_actions(env, 3)

    def history():
        first, _ = env.reset(seed=11)
        return [first, *(env.step(action)[0] for action in actions)]

    assert all(same(one, other) for one, other in zip(history(), history(), strict=True))


def test_another_instance_gives_the_same_frames(name, env):
    other = envs.make(name, **SMALL)
    other.reset(seed=1)
    assert same(env.reset(seed=4)[0], other.reset(seed=4)[0])
    other.close()


def test_a_restored_state_goes_on_bit_for_bit(env):
    env.reset(seed=3)
    actions = some_actions(env, 7)
    for action in actions[:2]:
        env.step(action)
    kept = env.state()
    began = env.observation()
    first = [env.step(action) for action in actions[2:]]
    end = env.state()
    env.set_state(kept)
    assert np.array_equal(env.state(), kept)
    assert np.array_equal(env.observation().frames, began.frames)
    second = [env.step(action) for action in actions[2:]]
    assert all(same(one[0], other[0]) and one[1] == other[1] for one, other in zip(first, second, strict=True))
    assert np.array_equal(env.state(), end)


def test_a_state_moves_to_another_instance_of_the_same_episode(name, env):
    other = envs.make(name, **SMALL)
    env.reset(seed=3)
    other.reset(seed=3)
    actions = some_actions(env, 4)
    for action in actions[:2]:
        env.step(action)
    other.set_state(env.state())
    for action in actions[2:]:
        assert same(env.step(action)[0], other.step(action)[0])
    other.close()


def test_a_state_of_another_length_is_refused(env):
    env.reset(seed=0)
    with pytest.raises(ValueError, match="shape"):
        env.set_state(np.zeros(3))


def test_an_action_of_another_shape_is_refused(env):
    env.reset(seed=0)
    with pytest.raises(ValueError, match="shape"):
        env.step(np.zeros(5, dtype=np.float32))


def test_goal_and_observation_have_the_declared_cameras_and_sizes(env):
    env.reset(seed=0)
    for observation in (env.goal(), env.observation()):
        assert observation.cameras == env.cameras
        assert observation.frames.shape == (1, 1, 3 * len(env.cameras), env.image_size, env.image_size)


def test_vectors_of_environments_move_as_single_ones(name, env):
    vector = SyncVectorEnv([lambda: envs.make(name, **SMALL)] * 2)
    steps = np.stack([some_actions(env, 4, seed=number) for number in (0, 1)], axis=1)
    frames = [vector.reset(seed=[5, 6])[0]] + [vector.step(actions)[0] for actions in steps]
    for number in (0, 1):
        alone = [env.reset(seed=5 + number)[0]] + [env.step(actions[number])[0] for actions in steps]
        for one, many in zip(alone, frames, strict=True):
            assert same(one, {name: values[number] for name, values in many.items()})
    vector.close()


ASYNC = ["reach-v1", pytest.param("dmc-reacher-easy-v1", marks=pytest.mark.slow)]


@pytest.mark.parametrize("kind", ASYNC)
def test_processes_of_their_own_move_as_single_ones(kind):
    env = envs.make(kind, **SMALL)
    env.reset(seed=0)  # an OpenGL context is open here while the others start
    vector = envs.make_async(kind, count=2, **SMALL)
    try:
        steps = np.stack([some_actions(env, 2, seed=number) for number in (0, 1)], axis=1)
        frames = [vector.reset(seed=[5, 6])[0]] + [vector.step(actions)[0] for actions in steps]
    finally:
        vector.close()
    for number in (0, 1):
        alone = [env.reset(seed=5 + number)[0]] + [env.step(actions[number])[0] for actions in steps]
        for one, many in zip(alone, frames, strict=True):
            assert same(one, {name: values[number] for name, values in many.items()})
    env.close()


def test_render_draws_a_picture_for_people(name):
    made = envs.make(name, render_mode="rgb_array", **SMALL)
    made.reset(seed=0)
    picture = made.render()
    made.close()
    assert picture.dtype == np.uint8 and picture.shape == (384, 384, 3) and picture.std() > 10


def test_the_last_step_of_the_budget_truncates(name):
    made = envs.make(name, budget=2, cameras=())
    made.reset(seed=0)
    still = np.zeros(made.action_space.shape, dtype=np.float32)
    assert [made.step(still)[2:4] for _ in range(2)] == [(False, False), (False, True)]
    made.close()


def test_opening_and_closing_leaves_no_context_behind(name):
    from jepa_mpc.envs import render

    before = len(render._OPEN)
    for seed in range(3):
        made = envs.make(name, **SMALL)
        made.reset(seed=seed)
        made.close()
        made.close()
    assert len(render._OPEN) == before


def test_the_goal_image_shows_something_else_than_the_start(env):
    env.reset(seed=0)
    assert not np.array_equal(env.goal().frames, env.observation().frames)


def test_no_episode_begins_at_its_goal(name):
    task = envs.make_task(name)
    for seed in range(3):
        task.reset(seed=seed)
        assert not task.success() or name == "dmc-cartpole-balance-v1"  # there the goal is to stay
    task.close()


def test_pictures_do_not_alter_an_episode(name, env):
    blind = envs.make(name, cameras=())
    for one in (env, blind):
        one.reset(seed=2)
        for action in some_actions(env, 2):
            one.step(action)
    assert np.array_equal(env.state(), blind.state())
    blind.close()


def test_baselines_act_inside_the_box(name):
    task = envs.make_task(name)
    task.reset(seed=0)
    box = task.box
    for make in task.baselines.values():
        action = torch.from_numpy(make(torch.Generator().manual_seed(0)).act(task.env))
        assert action.shape == box.low.shape and torch.equal(box.clip(action), action)
    task.close()


def test_the_cost_is_lower_at_the_goal_than_at_the_start(name):
    task = envs.make_task(name)
    task.reset(seed=1)
    now, goal = task.env.plant_sensors(), task.goal()
    sensors = torch.stack([torch.from_numpy(now)[None], goal.sensors])[None, :, :, :].reshape(1, 2, 1, -1)
    still = torch.zeros(1, 2, 1, task.box.dim)
    cost = task.cost(Rollout(latents=torch.zeros(1, 2, 1, 1, 1), sensors=sensors), still, goal)
    assert cost[0, 1] < cost[0, 0] or name == "dmc-cartpole-balance-v1"
    task.close()
