"""Ten thousand steps on end: the agent by itself and behind the executor, in the reaching lab, on a virtual clock."""

from __future__ import annotations

import gc
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

import numpy as np
import pytest
import torch

import jepa_mpc
from jepa_mpc.envs.reach import ReachEnv
from jepa_mpc.world_model.agents.executor import RecedingHorizon
from jepa_mpc.world_model.agents.pace import Drive, Timing

EPISODE, MB = 25, 2**20
STEPS = [60, pytest.param(10_000, marks=pytest.mark.slow)]
PLANNER = {"_target_": "cem", "num_samples": 8, "num_elites": 2, "num_iterations": 1}


class LateThread:
    """A search thread on a virtual clock: each task ends after another delay, some later than a plan may be old."""

    def __init__(self, delays: np.random.Generator) -> None:
        self.delays, self.left_s = delays, 0.0
        self.task: tuple[Future, Callable, tuple] | None = None

    def submit(self, task, /, *arguments):
        future: Future = Future()
        self.task, self.left_s = (future, task, arguments), float(self.delays.exponential(0.4))
        return future

    def work(self, seconds: float) -> None:
        self.left_s -= seconds
        if self.task is not None and self.left_s <= 0:
            (future, task, arguments), self.task = self.task, None
            future.set_result(task(*arguments))


class Memory:
    """Resident bytes and living Python objects, after a warm-up and at the end."""

    def __init__(self, steps: int) -> None:
        self.warm_at, self.taken, self.long = steps // 2, [], steps >= 1000

    def look(self, step: int) -> None:
        if step == self.warm_at:
            self.taken.append(self._now())

    def growth(self) -> tuple[int, int]:
        """Bytes and objects since the warm-up."""
        (bytes_before, objects_before), (bytes_now, objects_now) = self.taken[0], self._now()
        return bytes_now - bytes_before, objects_now - objects_before

    @staticmethod
    def _now() -> tuple[int, int]:
        gc.collect()
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * 4096, len(gc.get_objects())


@pytest.fixture
def env(request):
    made = ReachEnv(split="look", image_size=getattr(request, "param", 64))
    yield made
    made.close()


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("kind, env", [("simple", 64), ("calibrated", 128)], indirect=["env"])
def test_an_agent_neither_grows_nor_leaves_its_box(env, kind, steps) -> None:
    agent = jepa_mpc.load_agent(env, kind=kind, planner=PLANNER)
    low, high, memory = env.action_box.low.numpy(), env.action_box.high.numpy(), Memory(steps)
    observation = None
    for step in range(steps):
        if step % EPISODE == 0:
            observation, _ = env.reset(seed=step)
            agent.reset(env.goal())
        action = agent.act(observation)
        assert np.isfinite(action).all() and (action >= low).all() and (action <= high).all(), f"step {step}"
        observation = env.step(action)[0]
        memory.look(step)
    _check(memory)


@pytest.mark.parametrize("steps", STEPS)
def test_the_executor_sends_no_late_action(env, steps) -> None:
    agent = jepa_mpc.load_agent(env, kind="simple", planner=PLANNER, horizon=4)
    thread, now = LateThread(np.random.default_rng(0)), [0.0]
    timing = Timing(period_s=env.dt_s, max_age_s=3 * env.dt_s)
    executor = RecedingHorizon(
        agent.agent.think,
        hold=torch.zeros(1, env.action_box.dim),
        box=env.action_box,
        timing=timing,
        pool=thread,
        clock=lambda: now[0],
    )
    sent, memory = dict.fromkeys(Drive, 0), Memory(steps)
    for step in range(steps):
        if step % EPISODE == 0:
            env.reset(seed=step)
            agent.reset(env.goal())
            executor.reset()
        thread.work(env.dt_s)
        now[0] += env.dt_s
        command = executor.tick(env.observation())
        sent[command.drive] += 1
        if command.drive is Drive.FOLLOW:
            assert 0 <= command.age_s <= timing.max_age_s, f"step {step}: {command}"
            assert command.step == round(command.age_s / env.dt_s), f"step {step}: {command}"
        assert env.action_box.contains(command.action), f"step {step}: {command}"
        env.step(command.action[0].numpy())
        memory.look(step)
    assert executor.failure is None, executor.counts
    assert min(sent[Drive.FOLLOW], sent[Drive.HOLD], executor.counts["outdated"]) > 0, (sent, executor.counts)
    _check(memory)


def _check(memory: Memory) -> None:
    grown_bytes, grown_objects = memory.growth()
    if memory.long:  # in a few steps the allocator's own pools grow by as much
        assert grown_bytes <= 8 * MB, f"grew by {grown_bytes / MB:.1f} MB"
    assert grown_objects <= 500, f"{grown_objects} more objects"
