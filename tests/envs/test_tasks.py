"""Every task can be planned in: its true dynamics is the environment, its cost and baselines mean what they say."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest
import torch

from jepa_mpc import envs
from jepa_mpc.envs.dmc import DmcEnv
from jepa_mpc.envs.oracle_cpu import TrueDynamics, rows_at_once
from jepa_mpc.envs.push import BLOCK, PushEnv
from jepa_mpc.errors import UnknownName
from jepa_mpc.planners import PLANNERS
from jepa_mpc.seeding import generator
from jepa_mpc.types import Context, PlanRequest

SLOW = {"dmc-jaco-reach-site-v1"}
NAMES = [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in sorted(envs.ENVS)]
HORIZON = 4


@pytest.fixture(scope="module", params=NAMES)
def task(request):
    made = envs.make_task(request.param)
    yield made
    made.close()


def some_plans(task, count=5, horizon=HORIZON, seed=0):
    share = torch.rand(1, count, horizon, task.box.dim, generator=generator(seed, "plans"))
    return task.box.low + share * (task.box.high - task.box.low)


def test_the_oracle_is_the_environment_step_by_step(task):
    task.reset(seed=2)
    plans = some_plans(task)
    task.step(plans[0, 0, 0])
    begin, rollout = task.env.state(), task.dynamics.rollout(task.context(), plans)
    for candidate in (0, 4):
        task.env.set_state(begin)
        for step in range(HORIZON):
            task.step(plans[0, candidate, step])
            now, imagined = task.env.state(), rollout.latents[0, candidate, step, 0].numpy()
            size = now.size - task.env.plant.model.nv  # all but the solver's first guess
            np.testing.assert_allclose(imagined[:size], now[:size], rtol=0, atol=1e-9)
            felt = rollout.sensors[0, candidate, step].numpy()
            np.testing.assert_allclose(felt, task.env.plant_sensors(), rtol=0, atol=1e-9)


def test_rollouts_leave_the_environment_alone(task):
    task.reset(seed=0)
    before = task.env.state()
    task.dynamics.rollout(task.context(), some_plans(task))
    assert np.array_equal(task.env.state(), before)


def test_a_small_memory_and_many_threads_change_nothing(task):
    task.reset(seed=0)
    plans = some_plans(task, 7)
    whole = task.dynamics.rollout(task.context(), plans)
    small = TrueDynamics(task.env, num_threads=2, memory_mib=1e-3)
    assert rows_at_once(task.env.plant, HORIZON, small.memory_mib) < 7
    parts = small.rollout(task.context(), plans)
    small.close()
    assert torch.equal(parts.latents, whole.latents) and torch.equal(parts.sensors, whole.sensors)


def test_a_candidate_without_numbers_costs_infinity_and_alters_no_other(task):
    task.reset(seed=0)
    plans = some_plans(task)
    spoilt = plans.clone()
    spoilt[0, 3, 1] = torch.nan
    clean, costs = task.objective()(plans), task.objective()(spoilt)
    assert costs[0, 3] == torch.inf
    others = [0, 1, 2, 4]
    assert costs.isfinite()[0, others].all() and torch.equal(costs[:, others], clean[:, others])


def test_a_diverging_world_is_marked_and_alters_no_other(task):
    task.reset(seed=0)
    plans = some_plans(task)
    context = task.context()
    fast = context.latents.clone()
    fast[..., 1 + task.env.plant.model.nq] = 1e12
    both = Context(latents=torch.cat([context.latents, fast]), actions=torch.zeros(2, 0, task.box.dim))
    rollout = task.dynamics.rollout(both, plans.expand(2, -1, -1, -1))
    assert rollout.valid[0].all() and not rollout.valid[1].any()
    assert torch.equal(rollout.latents[:1], task.dynamics.rollout(context, plans).latents)


def test_more_than_one_thread_may_be_asked_for_without_a_number():
    task = envs.make_task("cart-pole-v1", num_threads=None)
    assert task.dynamics.num_threads >= 1
    task.close()


def test_an_unknown_task_lists_the_known_ones():
    with pytest.raises(UnknownName, match="push-v1"):
        envs.make_task("push-v0")
    with pytest.raises(UnknownName, match="reacher-easy"):
        DmcEnv(task="reacher")


@pytest.mark.parametrize("name", ["reach-v1", "push-v1", "cart-pole-v1"])
def test_knowing_everything_succeeds_where_doing_nothing_fails(name):
    task = envs.make_task(name)
    wins = {}
    for kind in ("nothing", "oracle"):
        task.reset(seed=1)
        policy = task.baselines[kind](generator(0, kind))
        for _ in range(task.budget):
            info = task.step(policy.act(task.env))
        assert "sim_error" not in info
        wins[kind] = task.success()
    task.close()
    assert wins == {"nothing": False, "oracle": True}


def steps_until_solved(name, limit, num_samples):
    """Steps of a short cross-entropy search, replanned at each of them, until the task is solved; None if it is not."""
    task = envs.make_task(name)
    task.reset(seed=0)
    planner = PLANNERS["cem"](num_samples=num_samples, num_elites=num_samples // 6, num_iterations=3)
    guess, solved = None, None
    for step in range(limit):
        request = PlanRequest(
            evaluate=task.objective(),
            box=task.box,
            batch=1,
            horizon=task.horizon,
            generator=generator(0, step),
            warm_start=guess,
        )
        plan = planner.plan(request).actions
        guess = torch.cat([plan[:, 1:], plan[:, -1:]], dim=1)
        task.step(plan[0, 0])
        if task.success():
            solved = step + 1
            break
    task.close()
    return solved


@pytest.mark.parametrize(
    ("name", "limit"),
    [
        ("dmc-reacher-hard-v1", 40),
        pytest.param("cart-pole-v1", 80, marks=pytest.mark.slow),
        pytest.param("push-v1", 40, marks=pytest.mark.slow),
    ],
)
def test_planning_on_true_dynamics_solves_it(name, limit):
    assert steps_until_solved(name, limit, num_samples=48)


def test_the_yaw_of_a_block_is_that_in_the_frame_of_the_base():
    env = PushEnv(cameras=())
    env.reset(seed=1)
    assert abs(env.block_yaw()) < 1e-6, "it begins aligned with the base"
    pose, spin = env.scene.data.joint(BLOCK).qpos, np.zeros(4)
    mujoco.mju_mulQuat(spin, np.array([np.cos(0.2), 0.0, 0.0, np.sin(0.2)]), pose[3:7])
    pose[3:7] = spin
    assert env.block_yaw() == pytest.approx(0.4)
