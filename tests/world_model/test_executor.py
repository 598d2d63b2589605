"""The executor under a clock of its own: late and dead planners, odd observations, jumping clocks."""

from __future__ import annotations

import math
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from jepa_mpc.costs import PlanCost
from jepa_mpc.planners import cem
from jepa_mpc.seeding import generator
from jepa_mpc.types import ActionBox, MpcSettings, Observation, PlanResult, PlanStatus, Rollout
from jepa_mpc.world_model.agents.executor import RecedingHorizon
from jepa_mpc.world_model.agents.pace import Drive, Timing, beats
from jepa_mpc.world_model.agents.planning import PlanningAgent
from jepa_mpc.world_model.costs.goal import GoalDistance
from jepa_mpc.world_model.memory.replay_buffer import ReplayBuffer
from jepa_mpc.world_model.perception.images import StatePerception

DT, H = 0.1, 8
BOX = ActionBox(low=torch.full((2,), -1e6), high=torch.full((2,), 1e6))
HOLD = torch.zeros(1, 2)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class SlowPool:
    """A worker that needs `delay_s` of work for each task; None: it never ends."""

    def __init__(self, delay_s: float | None = 0.0) -> None:
        self.delay_s = delay_s
        self.left_s = 0.0
        self.open: tuple[Future, tuple] | None = None

    def submit(self, task, /, *arguments):
        future: Future = Future()
        self.open, self.left_s = (future, (task, *arguments)), math.inf if self.delay_s is None else self.delay_s
        return future

    def work(self, seconds: float) -> None:
        self.left_s -= seconds
        if self.open is None or self.left_s > 1e-9:
            return
        future, (task, *arguments) = self.open
        self.open = None
        try:
            future.set_result(task(*arguments))
        except RuntimeError as error:
            future.set_exception(error)


def look(value: float = 0.0, worlds: int = 1) -> Observation:
    frames = torch.zeros(worlds, 1, 3, 1, 1, dtype=torch.uint8)
    return Observation(frames=frames, cameras=("none",), proprio=torch.full((worlds, 1, 2), value))


def result(actions: torch.Tensor, *status: PlanStatus) -> PlanResult:
    worlds = actions.shape[0]
    return PlanResult(
        actions=actions,
        cost=torch.zeros(worlds),
        status=status or (PlanStatus.MAX_ITER,) * worlds,
        trace=torch.zeros(1, worlds),
        iterations=1,
        evaluations=1,
        num_valid=torch.ones(worlds, dtype=torch.long),
        seconds=0.0,
    )


def telling(moments, guess) -> PlanResult:
    """A plan whose actions say which time they were made for: stamp + step * period."""
    times = moments[-1].stamp_s + DT * torch.arange(H, dtype=torch.float64)
    return result(times.float()[None, :, None].expand(1, H, 2))


class Line:
    """An executor at work: ten ticks per second of a clock that moves by hand."""

    def __init__(self, *, delay_s: float | None = 0.0, think=telling, **timing) -> None:
        self.clock = Clock()
        self.pool = SlowPool(delay_s)
        self.timing = Timing(**({"period_s": DT, "max_age_s": 0.55} | timing))
        self.executor = RecedingHorizon(
            think, hold=HOLD, box=BOX, timing=self.timing, pool=self.pool, history=3, clock=self.clock
        )

    def tick(self, observation: Observation | None = None, *, stamp_s: float | None = None):
        self.clock.now = round(self.clock.now + DT, 6)
        self.pool.work(DT)
        command = self.executor.tick(observation, stamp_s=stamp_s)
        self.pool.work(0.0)
        return command

    def run(self, ticks: int):
        return [self.tick(look()) for _ in range(ticks)]


def test_actions_are_those_meant_for_the_time_they_are_sent() -> None:
    line = Line(delay_s=0.25)
    for _ in range(30):
        command = line.tick(look())
        if command.drive is Drive.FOLLOW:
            assert command.action[0, 0].item() == pytest.approx(line.clock.now, abs=1e-3)
            assert command.age_s == pytest.approx(command.step * DT, abs=1e-6)
    assert line.executor.counts["adopted"] in (9, 10) and line.executor.counts["outdated"] == 0


def test_without_a_thread_the_search_is_part_of_the_tick() -> None:
    clock = Clock()

    def think(moments, guess):
        clock.now += 0.23
        return telling(moments, guess)

    executor = RecedingHorizon(
        think, hold=HOLD, box=BOX, timing=Timing(period_s=DT, max_age_s=0.5), clock=clock, history=2
    )
    command = executor.tick(look())
    assert command.step == 2 and command.action[0, 0].item() == pytest.approx(100.2, abs=1e-3)


def test_a_dead_planner_makes_the_robot_hold_within_one_period_and_then_stop() -> None:
    line = Line(stop_after_s=1.0)
    assert line.run(5)[-1].drive is Drive.FOLLOW
    line.pool.delay_s = None
    commands = line.run(25)
    following = [command for command in commands if command.drive is Drive.FOLLOW]
    assert max(command.age_s for command in following) <= line.timing.max_age_s
    assert [command.drive for command in commands[: len(following)]] == [Drive.FOLLOW] * len(following)
    assert 4 <= len(following) <= 6  # what is left of 0.55 s
    assert commands[len(following)].drive is Drive.HOLD and torch.equal(commands[len(following)].action, HOLD)
    assert commands[-1].drive is Drive.STOP
    line.executor.reset()
    line.pool.delay_s, line.pool.open = 0.0, None
    assert line.tick(look()).drive is Drive.HOLD  # the search that hangs is still in the way, and nothing is replayed


def test_a_stopped_robot_stays_stopped_until_reset() -> None:
    line = Line(stop_after_s=0.35)
    line.run(3)
    for _ in range(12):
        line.tick(None)
    assert line.run(5)[-1].drive is Drive.STOP
    line.executor.reset()
    assert line.run(5)[-1].drive is Drive.FOLLOW


def test_a_search_that_raises_is_counted_and_the_next_one_is_tried() -> None:
    calls = iter(range(100))

    def think(moments, guess):
        if next(calls) < 3:
            raise RuntimeError("no")
        return telling(moments, guess)

    line = Line(think=think)
    assert line.run(8)[-1].drive is Drive.FOLLOW
    assert line.executor.counts["failed"] == 3 and isinstance(line.executor.failure, RuntimeError)


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (None, "NoneType"),
        (result(torch.zeros(1, H, 3)), "(1, 8, 3)"),
        (result(torch.zeros(2, H, 2)), "(2, 8, 2)"),
        (result(torch.zeros(1, 0, 2)), "(1, 0, 2)"),
        (result(torch.zeros(1, H, 2), PlanStatus.MAX_ITER, PlanStatus.MAX_ITER), "got 2"),
    ],
)
def test_an_answer_that_is_no_plan_is_counted_and_the_next_one_is_followed(answer: object, told: str) -> None:
    calls = iter(range(100))
    line = Line(think=lambda moments, guess: answer if next(calls) < 3 else telling(moments, guess))
    commands = line.run(8)
    assert commands[2].drive is Drive.HOLD and torch.equal(commands[2].action, HOLD)
    assert commands[-1].drive is Drive.FOLLOW
    assert line.executor.counts["malformed"] == 3 and told in str(line.executor.failure)


@pytest.mark.parametrize("pool", [None, ThreadPoolExecutor(1)])
def test_a_search_that_fails_without_a_pool_or_after_its_shutdown_makes_the_robot_hold(pool) -> None:
    def think(moments, guess):
        raise RuntimeError("no")

    clock = Clock()
    timing = Timing(period_s=DT, max_age_s=0.5, stop_after_s=0.25)
    executor = RecedingHorizon(think, hold=HOLD, box=BOX, timing=timing, pool=pool, clock=clock)
    if pool is not None:
        pool.shutdown()
    drives = []
    for _ in range(5):
        clock.now += DT
        drives.append(executor.tick(look()).drive)
    assert drives == [Drive.HOLD] * 2 + [Drive.STOP] * 3
    assert executor.counts["failed"] >= 2 and isinstance(executor.failure, RuntimeError)


def test_a_plan_that_comes_after_its_information_expired_is_discarded() -> None:
    line = Line(delay_s=0.7)
    assert {command.drive for command in line.run(40)} == {Drive.HOLD}
    assert line.executor.counts["adopted"] == 0 and line.executor.counts["outdated"] >= 4


def test_duplicate_disordered_late_and_future_observations_start_no_search() -> None:
    line = Line()
    line.run(3)
    before = line.executor.counts["adopted"]
    seen = line.clock.now
    for stamp in (seen, seen - 0.05, math.nan, seen + 50):
        line.tick(look(), stamp_s=stamp)
    counts = line.executor.counts
    assert (counts["duplicate"], counts["from the future"]) == (2, 2)
    assert counts["adopted"] - before <= 1  # the search that was under way
    line.clock.now += 2
    line.tick(look(), stamp_s=line.clock.now - 1)
    assert counts["late"] == 1


def test_a_missed_observation_begins_a_new_history() -> None:
    lengths = []

    def think(moments, guess):
        assert all(moment.action is not None for moment in moments[:-1])
        lengths.append(len(moments))
        return telling(moments, guess)

    line = Line(think=think)
    line.run(4)
    line.tick(None)
    line.run(3)
    assert lengths == [1, 2, 3, 3, 1, 2, 3]


@pytest.mark.parametrize("jump_s", [-50.0, -0.3, 0.3, 50.0])
def test_a_clock_that_jumps_never_replays_an_old_action(jump_s: float) -> None:
    line = Line(delay_s=0.15)
    line.run(6)
    line.clock.now += jump_s
    for command in (*[line.tick(None) for _ in range(9)], *line.run(6)):
        if command.drive is Drive.FOLLOW:
            assert 0 <= command.age_s <= line.timing.max_age_s
    assert command.drive is Drive.FOLLOW and command.action[0, 0].item() == pytest.approx(line.clock.now, abs=1e-3)
    assert line.executor.counts["clock went back"] == (jump_s < 0)


def test_a_plan_without_a_valid_candidate_does_not_renew_the_old_one() -> None:
    valid = iter([True] * 3 + [False] * 30)

    def think(moments, guess):
        plan = telling(moments, guess)
        return plan if next(valid) else result(plan.actions, PlanStatus.NO_VALID)

    line = Line(think=think)
    assert line.run(20)[-1].drive is Drive.HOLD
    assert line.executor.counts["invalid"] > 5


def test_a_world_whose_plan_is_not_finite_holds_and_the_others_go_on() -> None:
    actions = torch.ones(3, H, 2)
    actions[1, 4, 0] = math.nan
    poisoned = result(actions, PlanStatus.MAX_ITER, PlanStatus.MAX_ITER, PlanStatus.NO_VALID)
    executor = RecedingHorizon(
        lambda moments, guess: poisoned,
        hold=torch.zeros(3, 2),
        box=BOX,
        timing=Timing(period_s=DT, max_age_s=1.0),
        clock=Clock(),
    )
    command = executor.tick(look(worlds=3))
    assert command.drive is Drive.FOLLOW and command.action[:, 0].tolist() == [1, 0, 0]


def test_the_next_search_is_told_how_the_running_plan_goes_on() -> None:
    guesses = []

    def think(moments, guess):
        guesses.append(guess)
        return telling(moments, guess)

    line = Line(think=think)
    line.run(3)
    assert guesses[0] is None
    # the second search starts one period after the first: its guess begins with step 1 and ends in standing still
    assert guesses[1][0, 0, 0].item() == pytest.approx(100.2, abs=1e-3) and guesses[1].shape == (1, H, 2)
    assert guesses[1][0, -1].tolist() == [0, 0]


def test_searches_can_be_spaced_out() -> None:
    line = Line(replan_s=0.3)
    line.run(13)
    assert line.executor.counts["adopted"] in (4, 5)


def storm(ticks: int, seed: int) -> tuple[Counter[str], int]:
    """Random faults on every side; the number of ticks that followed a plan comes back with the counts."""
    draw = generator(seed, "storm")
    line = Line(stop_after_s=3.0)
    followed, holding_since, last_stamp = 0, None, line.clock.now

    def chance() -> float:
        return float(torch.rand((), generator=draw))

    for _ in range(ticks):
        line.pool.delay_s = 0.12 if chance() < 0.7 else 0.9 * chance()
        if chance() < 0.01:
            line.pool.delay_s = 5.0
        if chance() < 0.005:
            line.clock.now += 4 * chance() - 2
        stamp = {0: None, 1: last_stamp, 2: last_stamp - 0.2, 3: line.clock.now - 0.4}.get(int(20 * chance()))
        command = line.tick(None if chance() < 0.1 else look(), stamp_s=stamp)
        last_stamp = line.clock.now
        if command.drive is Drive.FOLLOW:
            followed += 1
            assert 0 <= command.age_s <= line.timing.max_age_s
            meant_for = command.action[0, 0].item()
            assert -1e-3 <= line.clock.now - meant_for <= DT + 1e-3
            holding_since = None
        else:
            assert torch.equal(command.action, HOLD)
            holding_since = line.clock.now if holding_since is None else holding_since
            if command.drive is Drive.STOP:
                line.executor.reset()
    return line.executor.counts, followed


@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_no_action_is_older_than_allowed_in_any_weather(seed: int) -> None:
    counts, followed = storm(300, seed)
    assert followed > 60 and counts["adopted"] > 20


@pytest.mark.slow
def test_no_action_is_older_than_allowed_in_ten_thousand_ticks() -> None:
    counts, followed = storm(10_000, 0)
    assert followed > 3_000 and min(counts[kind] for kind in ("outdated", "duplicate", "clock went back")) > 10


class Points:
    """x' = x + a."""

    def rollout(self, context, plans):
        places = context.latents[:, None, -1:, 0] + plans.cumsum(dim=2)
        return Rollout(latents=places[..., None, :])


def agent(goal: float) -> PlanningAgent:
    made = PlanningAgent(
        perception=StatePerception(),
        memory=ReplayBuffer(capacity=1, window=1, action_dim=2),
        dynamics=Points(),
        cost=PlanCost(GoalDistance()),
        planner=cem(num_samples=64, num_elites=8, num_iterations=4),
        box=ActionBox(low=torch.full((2,), -0.1), high=torch.full((2,), 0.1)),
        settings=MpcSettings(horizon=H, hold_below=1e-6),
        generator=generator(0, "agent"),
    )
    made.reset(look(goal))
    return made


@pytest.mark.parametrize("delay_s", [0.0, 0.15])
def test_an_agent_arrives_though_its_plans_come_late(delay_s: float) -> None:
    made = agent(0.5)
    clock = Clock()
    pool = SlowPool(delay_s)
    executor = RecedingHorizon(
        made.think, hold=HOLD, box=made.search.box, timing=Timing(period_s=DT, max_age_s=0.6), pool=pool, clock=clock
    )
    place = torch.zeros(1, 2)
    for _ in range(30):
        observation = Observation(frames=look().frames, cameras=("none",), proprio=place[:, None])
        place = place + executor.tick(observation).action
        pool.work(0.0)
        clock.now += DT
        pool.work(DT)
    assert (place - 0.5).abs().max() < 0.03


def test_a_planning_thread_works_while_the_robot_moves() -> None:
    made = agent(0.5)
    with ThreadPoolExecutor(1) as pool:
        executor = RecedingHorizon(
            made.think, hold=HOLD, box=made.search.box, timing=Timing(period_s=0.02, max_age_s=60.0), pool=pool
        )
        executor.tick(look())
        for _ in beats(3000, period_s=0.02):
            if executor.tick(None).drive is not Drive.HOLD or executor.counts["adopted"]:
                break
    assert executor.counts["adopted"] == 1 and executor.failure is None


def test_beats_come_on_time_and_a_late_one_does_not_delay_the_next() -> None:
    clock, late = Clock(), []

    def sleep(seconds: float) -> None:
        clock.now += seconds

    for beat in beats(6, period_s=DT, clock=clock, sleep=sleep):
        late.append(round(beat.late_s, 3))
        clock.now += 0.25 if beat.index == 1 else 0.05
    assert late == [0, 0, 0.15, 0.1, 0.05, 0]


def test_settings_that_cannot_work_are_refused() -> None:
    with pytest.raises(ValueError, match="less than one period"):
        Timing(period_s=0.1, max_age_s=0.05)
    with pytest.raises(ValueError, match="period_s > 0"):
        Timing(period_s=0.0, max_age_s=0.05)
    narrow = ActionBox(low=torch.ones(2), high=torch.full((2,), 2.0))
    with pytest.raises(ValueError, match="inside the box"):
        RecedingHorizon(telling, hold=HOLD, box=narrow, timing=Timing(period_s=DT, max_age_s=1.0))
