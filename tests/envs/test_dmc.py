"""dm_control's tasks move as dm_control moves them."""

from __future__ import annotations

import numpy as np
import pytest

from jepa_mpc.envs.dmc import DmcEnv
from jepa_mpc.envs.dmc_tasks import DMC_TASKS

TASKS = [pytest.param(name, marks=[pytest.mark.slow] if name.startswith("jaco") else []) for name in sorted(DMC_TASKS)]


@pytest.fixture(params=TASKS)
def env(request):
    made = DmcEnv(task=request.param, cameras=())
    made.reset(seed=1)
    yield made
    made.close()


def test_a_step_is_dm_controls_own(env):
    source, rng = env._source, np.random.default_rng(0)
    for _ in range(3):
        action = rng.uniform(env._low, env._high).astype(np.float32)
        env.step(action)
        for _ in range(env.task.repeat):
            source.step(action.astype(np.float64) * env.plant.gain)
        assert np.array_equal(source.physics.data.qpos, env.data.qpos)


def test_the_goal_image_is_taken_at_the_goal(env):
    env.reset(seed=3)
    env._put(env._goal_positions(), np.zeros(env.plant.model.nv))
    assert env.success()


def test_targets_change_with_the_seed_and_come_back_with_it(env):
    def begin(seed):
        env.reset(seed=seed)
        return np.concatenate([env.goal_sensors(), env.data.qpos])

    first, other, again = (begin(seed) for seed in (1, 2, 1))
    assert np.array_equal(first, again) and not np.array_equal(first, other)
