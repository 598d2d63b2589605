"""Faults of a simulation are found in the tasks with direct actuation, one by one and in rows (see test_breakdown)."""

from __future__ import annotations

import os

import mujoco
import numpy as np
import pytest
import torch

from jepa_mpc import envs
from jepa_mpc.envs.breakdown import unbroken
from jepa_mpc.envs.costs import apart, task_cost
from jepa_mpc.types import Context, Goal, Rollout

DISABLED = mujoco.mjtDisableBit.mjDSBL_AUTORESET


@pytest.fixture
def task():
    made = envs.make_task("cart-pole-v1")
    made.reset(seed=0)
    yield made
    made.close()


def exploding_control(task):
    task.env.plant.gain = 1e15
    task.env.plant.model.actuator_ctrllimited[:] = 0


def absurd_gear(task):
    task.env.plant.model.actuator_gear[:] *= 1e15


def huge_timestep(task):
    task.env.plant.model.opt.timestep = 0.1
    task.env.plant.model.jnt_stiffness[:] = -1e9


def nan_position(task):
    task.env.data.qpos[0] = np.nan


def exploding_velocity(task):
    task.env.data.qvel[1] = 1e13


def frozen_explosion(task):
    task.env.plant.model.opt.disableflags |= DISABLED
    task.env.plant.model.actuator_gear[:] *= 1e15


TRIGGERS = [exploding_control, absurd_gear, huge_timestep, nan_position, exploding_velocity, frozen_explosion]


@pytest.mark.parametrize("trigger", TRIGGERS, ids=lambda trigger: trigger.__name__)
def test_a_breakdown_ends_the_episode_and_says_why(task, trigger, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    trigger(task)
    info = {}
    for _ in range(5):
        observation, reward, terminated, truncated, info = task.env.step(np.ones(1, np.float32))
        if terminated:
            break
    assert terminated and not truncated and reward < -1 and info["sim_error"]
    assert task.env.observation_space.contains(observation)
    assert not info["is_success"] and not task.success()
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("trigger", TRIGGERS, ids=lambda trigger: trigger.__name__)
def test_every_row_that_breaks_down_is_marked(task, trigger):
    trigger(task)
    plans = torch.ones(1, 4, 5, 1)
    rollout = task.dynamics.rollout(task.context(), plans)
    assert not rollout.valid.any() and rollout.sensors[:, :, -1].isnan().all()
    assert (task.objective()(plans) == torch.inf).all()


def test_the_episode_after_a_breakdown_is_as_any_other(task):
    def episode():
        task.reset(seed=4)
        return [task.step(np.ones(1))["distance"] for _ in range(3)]

    before = episode()
    task.env.data.qvel[1] = 1e13
    assert task.step(np.ones(1))["terminated"]
    assert episode() == before


def test_a_block_inside_the_table_is_refused_in_both():
    task = envs.make_task("push-v1")
    task.reset(seed=0)
    state = task.env.state()
    state[1 + 9 + 2] -= 0.05
    task.env.set_state(state)
    latents = torch.from_numpy(state)[None, None, None]
    rollout = task.dynamics.rollout(Context(latents=latents, actions=torch.zeros(1, 0, 7)), torch.zeros(1, 3, 2, 7))
    assert not rollout.valid.any()
    assert "inside each other" in task.step(np.zeros(7))["sim_error"]
    task.close()


def test_a_clock_that_goes_back_or_stands_still_is_seen():
    """A row that is frozen after a step had its warning in that step."""
    time = np.array([[0.1, 0.2, 0.3, 0.4], [0.1, 0.1, 0.2, 0.3], [0.1, 0.2, 0.3, 0.3]])
    physics = np.stack([time, np.zeros_like(time)], axis=-1)
    assert unbroken(physics, np.zeros(3), 0.1).tolist() == [[True] * 3, [False] * 3, [True, True, False]]


def test_invalid_candidates_cost_infinity_whatever_their_sensors():
    sensors = torch.zeros(1, 2, 3, 2)
    rollout = Rollout(latents=torch.zeros(1, 2, 3, 1, 1), sensors=sensors, valid=torch.tensor([[True, False]]))
    goal = Goal(latents=torch.zeros(1, 1, 1), sensors=torch.ones(1, 2))
    cost = task_cost(apart((0, 1)))(rollout, torch.zeros(1, 2, 3, 1), goal)
    assert torch.allclose(cost[0, 0], torch.tensor(2.0).sqrt()) and cost[0, 1] == torch.inf


def test_a_cost_without_sensors_says_what_it_needs():
    rollout = Rollout(latents=torch.zeros(1, 2, 3, 1, 1))
    with pytest.raises(ValueError, match="true dynamics"):
        task_cost(apart((0,)))(rollout, torch.zeros(1, 2, 3, 1), Goal(latents=torch.zeros(1, 1, 1)))
