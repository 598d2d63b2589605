"""True dynamics is the environment, step by step."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch

from jepa_mpc.envs.labs import sample_lab
from jepa_mpc.envs.oracle_cpu import SimulatorPerception, TrueDynamics, true_goal
from jepa_mpc.types import Context

HORIZON = 4


@pytest.fixture(params=[1, 2])
def dynamics(env, request):
    made = TrueDynamics(env, num_threads=request.param)
    yield made
    made.close()


@pytest.fixture(scope="module")
def plans():
    share = torch.rand(1, 6, HORIZON, 7, generator=torch.Generator().manual_seed(0))
    return 0.12 * share - 0.06  # some leave the box


def present(env) -> Context:
    return Context(latents=SimulatorPerception(env)(env.observation()), actions=torch.zeros(1, 0, 7))


@pytest.mark.parametrize("split", ["train", "all", "dynamics"])
def test_the_oracle_is_the_environment_step_by_step(env, dynamics, plans, split):
    env.reset(seed=2, options={"lab": sample_lab(3, split=split)})
    env.step(np.full(7, 0.02))
    begin, rollout = env.state(), dynamics.rollout(present(env), plans)
    for candidate in (0, 5):
        env.set_state(begin)
        for step in range(HORIZON):
            env.step(plans[0, candidate, step].numpy())
            imagined = rollout.latents[0, candidate, step, 0].numpy()
            np.testing.assert_allclose(imagined, env.state(), rtol=0, atol=1e-9)
            np.testing.assert_allclose(rollout.sensors[0, candidate, step].numpy(), env.hand_m(), rtol=0, atol=1e-9)


def test_rollouts_leave_the_environment_alone(env, dynamics, plans):
    before, frames = env.state(), env.observation().frames
    dynamics.rollout(present(env), plans)
    assert np.array_equal(env.state(), before) and torch.equal(env.observation().frames, frames)


def test_a_rollout_goes_on_from_a_rollouts_end(env, dynamics, plans):
    whole = dynamics.rollout(present(env), plans)
    half = dynamics.rollout(present(env), plans[:, :1, :2])
    rest = dynamics.rollout(Context(latents=half.latents[:, 0], actions=plans[:, 0, 1:2]), plans[:, :1, 2:])
    torch.testing.assert_close(rest.latents[:, 0], whole.latents[:, 0, 2:], rtol=0, atol=1e-12)


def test_a_candidate_without_numbers_is_marked_and_alters_no_other(env, dynamics, plans):
    clean = dynamics.rollout(present(env), plans)
    spoilt = plans.clone()
    spoilt[0, 3, 1] = torch.nan
    rollout = dynamics.rollout(present(env), spoilt)
    others = [0, 1, 2, 4, 5]
    assert rollout.valid.tolist() == [[True, True, True, False, True, True]]
    assert torch.equal(rollout.latents[:, others], clean.latents[:, others])
    assert rollout.sensors[0, 3, 0].isfinite().all() and rollout.sensors[0, 3, 1:].isnan().all()


def test_a_diverging_world_is_marked_and_alters_no_other(env, dynamics, plans):
    context = present(env)
    fast = context.latents.clone()
    fast[..., 10] = 1e11
    both = Context(latents=torch.cat([context.latents, fast]), actions=torch.zeros(2, 0, 7))
    rollout = dynamics.rollout(both, plans.expand(2, -1, -1, -1))
    assert rollout.valid[0].all() and not rollout.valid[1].any()
    assert torch.equal(rollout.latents[:1], dynamics.rollout(context, plans).latents)


def test_every_candidate_of_an_absurd_arm_is_marked(env, dynamics, plans):
    gains = env.scene.model.actuator_gainprm
    kept = gains.copy()
    gains[:, 0] *= 1e6
    rollout = dynamics.rollout(present(env), plans)
    gains[:] = kept
    assert not rollout.valid.any()
    assert dynamics.rollout(present(env), plans).valid.all()


def test_goal_sensors_are_read_where_the_goal_is(env, dynamics):
    env.arm.place(env.goal_m)
    still = torch.zeros(1, 1, 1, 7)
    context = Context(latents=torch.from_numpy(env.state())[None, None, None], actions=torch.zeros(1, 0, 7))
    gap = dynamics.rollout(context, still).sensors[0, 0, 0] - true_goal(env)[0]
    assert gap.norm() < 0.005


def test_rounded_states_are_refused(env, dynamics, plans):
    context = present(env)
    with pytest.raises(ValueError, match="float64"):
        dynamics.rollout(Context(latents=context.latents.float(), actions=context.actions), plans)


def test_more_worlds_than_there_are_cannot_be_perceived(env):
    observation = env.observation()
    doubled = type(observation)(frames=observation.frames.repeat(2, 1, 1, 1, 1), cameras=observation.cameras)
    with pytest.raises(ValueError, match="one world"):
        SimulatorPerception(env)(doubled)


def test_threads_must_be_there(env):
    with pytest.raises(ValueError, match="num_threads"):
        TrueDynamics(env, num_threads=0)


def test_hundreds_of_control_steps_fit_in_a_second_of_cpu(env, plans):
    dynamics = TrueDynamics(env)
    began = time.process_time()
    dynamics.rollout(present(env), plans)
    rate = plans.shape[1] * HORIZON / (time.process_time() - began)
    dynamics.close()
    assert rate > 150  # about 1300 on an idle core of today; a shared one may be slower by far
