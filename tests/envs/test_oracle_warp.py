"""MuJoCo Warp simulates what MuJoCo does, to single precision."""

from __future__ import annotations

import sys

import pytest
import torch

from jepa_mpc import envs
from jepa_mpc.envs.oracle_warp import WarpDynamics
from jepa_mpc.errors import MissingPackage, UnknownName
from jepa_mpc.seeding import generator

TOLERANCES = {"cart-pole-v1": 1e-4, "dmc-reacher-hard-v1": 1e-4, "reach-v1": 1e-4, "push-v1": 2e-3}


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "mujoco_warp", None)
    task = envs.make_task("cart-pole-v1")
    with pytest.raises(MissingPackage, match="mujoco-warp"):
        WarpDynamics(task.env)
    task.close()
    with pytest.raises(MissingPackage, match="mujoco-warp"):
        envs.make_task("cart-pole-v1", dynamics="warp")


def test_an_unknown_simulator_lists_the_known_ones():
    with pytest.raises(UnknownName, match="simulator, stepping, warp"):
        envs.make_task("cart-pole-v1", dynamics="bullet")


@pytest.mark.slow
def test_model_and_data_are_built_once_until_the_task_changes(monkeypatch):
    mujoco_warp = pytest.importorskip("mujoco_warp", reason="mujoco-warp is not installed")
    built = []
    for name in ("put_model", "make_data"):
        plain = getattr(mujoco_warp, name)
        monkeypatch.setattr(mujoco_warp, name, lambda *a, n=name, p=plain, **k: built.append(n) or p(*a, **k))
    task = envs.make_task("cart-pole-v1", dynamics="warp")
    task.reset(seed=1)
    plans = torch.linspace(-1, 1, 12).reshape(1, 3, 4, 1)
    first, again = (task.dynamics.rollout(task.context(), plans) for _ in range(2))
    assert built == ["put_model", "make_data"]
    assert torch.equal(first.latents, again.latents) and first.valid.all()
    fewer = task.dynamics.rollout(task.context(), plans[:, :2])
    assert built[2:] == ["make_data"] and torch.equal(fewer.latents, first.latents[:, :2])
    task.env.plant.model.dof_damping[0] += 5.0
    changed = task.dynamics.rollout(task.context(), plans)
    assert built[3:] == ["put_model", "make_data"]
    fresh = WarpDynamics(task.env).rollout(task.context(), plans)
    assert torch.equal(changed.latents, fresh.latents) and not torch.equal(changed.latents, first.latents)
    task.close()


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(TOLERANCES))
def test_warp_agrees_with_the_cpu(name):
    pytest.importorskip("mujoco_warp")
    task = envs.make_task(name)
    task.reset(seed=1)
    share = torch.rand(1, 4, 4, task.box.dim, generator=generator(0, "plans"))
    plans = task.box.low + share * (task.box.high - task.box.low)
    plans[0, 3, 2] = torch.nan
    exact, single = (dynamics.rollout(task.context(), plans) for dynamics in (task.dynamics, WarpDynamics(task.env)))
    task.close()
    assert exact.valid.tolist() == single.valid.tolist() == [[True, True, True, False]]
    assert exact.latents.shape == single.latents.shape
    moved = (exact.sensors[:, :3, -1] - exact.sensors[:, :3, 0]).abs().max()
    assert moved > 100 * TOLERANCES[name] or name == "push-v1"
    torch.testing.assert_close(single.sensors[:, :3], exact.sensors[:, :3], rtol=0, atol=TOLERANCES[name])
