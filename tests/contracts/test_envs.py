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
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import SyncVectorEnv

import envs
from core.errors import UnknownName
from core.interfaces import RobotEnv

ROOT = Path(__file__).resolve().parents[2]
SMALL = {"image_size": 16}

pytestmark = pytest.mark.render


@pytest.fixture(params=sorted(envs.ENVS))
def env(request):
    made = envs.make(request.param, **SMALL)
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


@pytest.mark.parametrize("name", sorted(envs.ENVS))
def test_gymnasiums_checker_has_nothing_to_say(name, recwarn):
    envs.register()
    made = gymnasium.make(name, render_mode="rgb_array", **SMALL)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
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


def test_another_instance_gives_the_same_frames(env):
    other = envs.make(env.spec.id if env.spec else "reach-v1", **SMALL)
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


def test_a_state_moves_to_another_instance_of_the_same_lab(env):
    other = envs.make("reach-v1", **SMALL)
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
        env.step(np.zeros(3, dtype=np.float32))


def test_goal_and_observation_have_the_declared_cameras_and_sizes(env):
    env.reset(seed=0)
    for observation in (env.goal(), env.observation()):
        assert observation.cameras == env.cameras
        assert observation.frames.shape == (1, 1, 3 * len(env.cameras), env.image_size, env.image_size)


def test_vectors_of_environments_move_as_single_ones(env):
    vector = SyncVectorEnv([lambda: envs.make("reach-v1", **SMALL)] * 2)
    steps = np.stack([some_actions(env, 4, seed=number) for number in (0, 1)], axis=1)
    frames = [vector.reset(seed=[5, 6])[0]] + [vector.step(actions)[0] for actions in steps]
    for number in (0, 1):
        alone = [env.reset(seed=5 + number)[0]] + [env.step(actions[number])[0] for actions in steps]
        for one, many in zip(alone, frames, strict=True):
            assert same(one, {name: values[number] for name, values in many.items()})
    vector.close()


def test_processes_of_their_own_move_as_single_ones(env):
    env.reset(seed=0)  # an OpenGL context is open here while the others start
    vector = envs.make_async("reach-v1", count=2, **SMALL)
    try:
        steps = np.stack([some_actions(env, 2, seed=number) for number in (0, 1)], axis=1)
        frames = [vector.reset(seed=[5, 6])[0]] + [vector.step(actions)[0] for actions in steps]
    finally:
        vector.close()
    for number in (0, 1):
        alone = [env.reset(seed=5 + number)[0]] + [env.step(actions[number])[0] for actions in steps]
        for one, many in zip(alone, frames, strict=True):
            assert same(one, {name: values[number] for name, values in many.items()})


def test_render_draws_a_picture_for_people():
    made = envs.make("reach-v1", render_mode="rgb_array", **SMALL)
    made.reset(seed=0)
    picture = made.render()
    made.close()
    assert picture.dtype == np.uint8 and picture.shape == (384, 384, 3) and picture.std() > 10


def test_the_last_step_of_the_budget_truncates():
    made = envs.make("reach-v1", budget=2, **SMALL)
    made.reset(seed=0)
    still = np.zeros(7, dtype=np.float32)
    assert [made.step(still)[2:4] for _ in range(2)] == [(False, False), (False, True)]
    made.close()


def test_opening_and_closing_leaves_no_context_behind():
    from envs import render

    before = len(render._OPEN)
    for seed in range(3):
        made = envs.make("reach-v1", **SMALL)
        made.reset(seed=seed)
        made.close()
        made.close()
    assert len(render._OPEN) == before
