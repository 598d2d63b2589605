"""A simulation that breaks down says so, and the next episode knows nothing of it."""

from __future__ import annotations

import os
from contextlib import contextmanager

import numpy as np
import pytest

from jepa_mpc.envs.labs import sample_lab

TOUCHED = ("actuator_gainprm", "actuator_gear", "actuator_ctrllimited")
ACTION = np.full(7, 0.03, dtype=np.float32)


def nan_action(env, patch):
    return np.full(7, np.nan)


def infinite_action(env, patch):
    return np.array([np.inf, 0, 0, 0, 0, 0, 0])


def nan_position(env, patch):
    env.scene.data.qpos[2] = np.nan
    return ACTION


def exploding_velocity(env, patch):
    env.scene.data.qvel[2] = 1e12
    return ACTION


def exploding_control(env, patch):
    patch.setattr(env.scene.model, "actuator_ctrllimited", np.zeros(env.scene.model.nu, dtype=np.uint8))
    patch.setattr(env.arm, "ramp", lambda start, end: np.full((60, 9), 1e12))
    return ACTION


def absurd_gain(env, patch):
    patch.setattr(env.scene.model, "actuator_gainprm", env.scene.model.actuator_gainprm * 1e6)
    return ACTION


def absurd_gear(env, patch):
    patch.setattr(env.scene.model, "actuator_gear", env.scene.model.actuator_gear * 1e6)
    return ACTION


def huge_timestep(env, patch):
    patch.setattr(env.scene.model.opt, "timestep", 1.0)
    return ACTION


def penetrating_start(env, patch):
    env.reset(seed=1, options={"lab": sample_lab(0), "start_m": (0.5, 0.0, -0.2)})
    return ACTION


TRIGGERS = [
    nan_action,
    infinite_action,
    nan_position,
    exploding_velocity,
    exploding_control,
    absurd_gain,
    absurd_gear,
    huge_timestep,
    penetrating_start,
]


@contextmanager
def patches(env):
    """Like pytest's monkeypatch; arrays of the model, which are written in place, are put back as well."""
    model = env.scene.model
    kept = {name: getattr(model, name).copy() for name in TOUCHED}
    with pytest.MonkeyPatch.context() as patch:
        yield patch
    for name, values in kept.items():
        getattr(model, name)[:] = values


@pytest.fixture
def patch(env):
    with patches(env) as patch:
        yield patch


@pytest.mark.parametrize("trigger", TRIGGERS, ids=lambda trigger: trigger.__name__)
def test_a_breakdown_ends_the_episode_and_says_why(env, patch, trigger):
    observation, reward, terminated, truncated, info = env.step(trigger(env, patch))
    assert terminated and not truncated and reward < 0
    assert isinstance(info["sim_error"], str) and info["sim_error"]
    assert env.observation_space.contains(observation)
    assert not info["is_success"] and not env.success()


@pytest.mark.parametrize("trigger", TRIGGERS, ids=lambda trigger: trigger.__name__)
def test_the_episode_after_a_breakdown_is_as_any_other(env, trigger):
    def episode():
        first, _ = env.reset(seed=1, options={"lab": sample_lab(0)})
        second, reward, *_, info = env.step(ACTION)
        assert "sim_error" not in info
        return [*first.values(), *second.values(), reward, env.state()]

    before = episode()
    with patches(env) as patch:
        env.step(trigger(env, patch))
    assert all(np.array_equal(one, other) for one, other in zip(before, episode(), strict=True))


def test_mujoco_leaves_no_log_file(env, patch, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert env.step(exploding_velocity(env, patch))[2]
    assert os.listdir(tmp_path) == []


def test_no_breakdown_is_seen_in_ordinary_episodes(env):
    for index in range(4):
        env.reset(seed=index, options={"lab": sample_lab(index, split="all" if index % 2 else "train")})
        for _ in range(6):
            assert "sim_error" not in env.step(env.action_space.sample())[4]
