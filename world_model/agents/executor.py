"""Real-time execution of plans: one action per control period, independent of the planner's run time.

Plan step i is for the time from `stamp + i * period_s` on, where `stamp` is the time of the observation behind the
plan. A slow search therefore starts at its matching step; the steps for the time of the search are skipped. With a pool
of one thread the search runs in parallel with the motion, without one it runs inside `tick`.
"""

from __future__ import annotations

import logging
import math
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, replace
from typing import Protocol

import torch

from jepa_mpc.shapes import check_shape
from jepa_mpc.types import ActionBox, Observation, Plan, PlanResult, PlanStatus
from jepa_mpc.world_model.agents.pace import ROUNDING, Action, Command, Drive, Moment, Timing

logger = logging.getLogger(__name__)


class Think(Protocol):
    """Searches for a plan; `Agent.think` is one."""

    def __call__(self, moments: Sequence[Moment], guess: Plan | None) -> PlanResult:
        """A plan from the newest of the moments (oldest first) on, near the initial plan `B H A` if there is one."""


class Pool(Protocol):
    """Executor of searches: `concurrent.futures.ThreadPoolExecutor(1)`, or `Inline()`."""

    def submit(self, task: Callable[..., PlanResult], /, *arguments: object) -> Future[PlanResult]:
        """Start a task."""


class Inline:
    """Runs each task immediately in the caller's thread."""

    def submit(self, task: Callable[..., PlanResult], /, *arguments: object) -> Future[PlanResult]:
        """Run the task and return its finished future, including any exception."""
        future: Future[PlanResult] = Future()
        try:
            future.set_result(task(*arguments))
        except Exception as error:  # noqa: BLE001 -- stored in the future, as a thread pool does
            future.set_exception(error)
        return future


@dataclass(frozen=True)
class _Running:
    """A plan that is being executed."""

    actions: Plan
    stamp_s: float


@dataclass(frozen=True)
class _Search:
    """A running search and the time of its observation; the result of a void one is discarded."""

    future: Future[PlanResult]
    stamp_s: float
    void: bool = False


class RecedingHorizon:
    """Replans continuously, and returns an action per control period that is never older than allowed.

    Each `tick` stores the newest observation, adopts a finished plan, starts the next search if none is running, and
    returns the plan's action for the current time. Without a sufficiently recent plan it holds still, and after
    `stop_after_s` of that it stops. A search uses only contiguous observations and actions: a missed observation
    restarts its history.

    Discarded and counted in `counts`, by reason: observations that are "duplicate" (or out of order), "late" or "from
    the future"; plans that are "outdated" on arrival, "invalid" (not finite, or no world has a valid plan), "malformed"
    (no plan, or one of another shape), or "failed" (the search raised, or the pool rejects tasks). The last error is
    logged and kept in `failure`; the robot follows the current plan while it is recent, then holds. If the clock goes
    back, all state is reset and the running search is void.

    Args:
        think: Searches for plans. Runs in the pool's thread, one call at a time.
        hold: The action for holding still `B A`; also used for a world without a valid plan.
        box: The actions that the robot accepts.
        timing: Rates and limits.
        pool: Executor of searches; by default `tick` itself.
        history: Number of observations passed to a search.
        clock: Returns the time in seconds; observations are stamped by the same clock.

    Raises:
        ValueError: If `hold` does not fit the box or `history` is below 1.
    """

    def __init__(
        self,
        think: Think,
        *,
        hold: Action,
        box: ActionBox,
        timing: Timing,
        pool: Pool | None = None,
        history: int = 1,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        check_shape(hold, "B A", A=box.dim)
        if not torch.equal(box.clip(hold), hold):
            raise ValueError(f"the hold action must lie inside the box, got {hold.tolist()}")
        if history < 1:
            raise ValueError(f"need history >= 1, got {history}")
        self.think, self.hold, self.box, self.timing = think, hold, box, timing
        self.pool: Pool = pool or Inline()
        self.clock = clock
        self.counts: Counter[str] = Counter()
        self.failure: BaseException | None = None
        self._moments: deque[Moment] = deque(maxlen=history)
        self._search: _Search | None = None
        self.reset()

    def reset(self) -> None:
        """Reset: no plan, no history, not stopped; a running search becomes void."""
        self._forget()
        self._stopped = False
        self._now = self._followed_s = self.clock()

    def tick(self, observation: Observation | None, *, stamp_s: float | None = None) -> Command:
        """Run one control period.

        Args:
            observation: The newest one, or None if there is none.
            stamp_s: Its time, by the executor's clock; now by default.
        """
        self._read_clock()
        if observation is not None:
            self._take_in(observation, self._now if stamp_s is None else stamp_s)
        self._collect()
        self._start_search()
        self._collect()
        self._read_clock()
        command = self._command()
        if self._moments:
            self._moments[-1] = replace(self._moments[-1], action=command.action)
        return command

    def _read_clock(self) -> None:
        now = self.clock()
        if now < self._now:
            self.counts["clock went back"] += 1
            self._forget()
            self._followed_s = now
        self._now = now

    def _forget(self) -> None:
        self._running: _Running | None = None
        self._moments.clear()
        self._seen_s = self._searched_s = -math.inf
        if self._search is not None:
            self._search = replace(self._search, void=True)

    def _take_in(self, observation: Observation, stamp_s: float) -> None:
        """Store an observation, unless it is a duplicate, late or from the future."""
        slack = ROUNDING * self.timing.period_s
        if not math.isfinite(stamp_s) or stamp_s > self._now + slack:
            self.counts["from the future"] += 1
        elif stamp_s <= self._seen_s:
            self.counts["duplicate"] += 1
        elif self._now - stamp_s > self.timing.max_age_s:
            self.counts["late"] += 1
        else:
            missed = self._moments and abs(stamp_s - self._seen_s - self.timing.period_s) > self.timing.period_s / 2
            if missed:
                self._moments.clear()
            self._moments.append(Moment(observation=observation, stamp_s=stamp_s))
            self._seen_s = stamp_s

    def _start_search(self) -> None:
        """Start a search from the newest moment, unless one is running or this moment was used."""
        due_s = self._searched_s + self.timing.replan_s - ROUNDING * self.timing.period_s
        news = bool(self._moments) and self._seen_s > self._searched_s and self._seen_s >= due_s
        if self._stopped or self._search is not None or not news:
            return
        self._searched_s = self._seen_s
        try:
            future = self.pool.submit(self.think, tuple(self._moments), self._guess(self._seen_s))
        except RuntimeError as error:  # raised by standard executors after shutdown
            self._discard("failed", error)
            return
        self._search = _Search(future, self._seen_s)

    def _discard(self, reason: str, failure: BaseException) -> None:
        """Count, store and log a failed search."""
        self.counts[reason] += 1
        self.failure = failure
        logger.warning("the search returned no plan (%s): %r", reason, failure)

    def _guess(self, stamp_s: float) -> Plan | None:
        """The current plan from a time on, padded with its last action."""
        if self._running is None:
            return None
        actions = self._running.actions
        done = min(max(0, self._step_at(stamp_s)), actions.shape[1])
        return torch.cat([actions[:, done:], self.hold[:, None].expand(-1, done, -1)], dim=1)

    def _collect(self) -> None:
        """Adopt the plan of a finished search, if it is usable."""
        search = self._search
        if search is None or not search.future.done():
            return
        self._search = None
        failure = CancelledError() if search.future.cancelled() else search.future.exception()
        if failure is not None:
            self._discard("failed", failure)
        elif search.void or self._clock_reading() - search.stamp_s > self.timing.max_age_s:
            self.counts["outdated"] += 1
        else:
            self._adopt(search.future.result(), search.stamp_s)

    def _clock_reading(self) -> float:
        """The current time, never before the last reading."""
        return max(self._now, self.clock())

    def _adopt(self, result: PlanResult, stamp_s: float) -> None:
        flaw = self._flaw(result)
        if flaw:
            self._discard("malformed", ValueError(flaw))
            return
        valid = torch.tensor([status is not PlanStatus.NO_VALID for status in result.status], device=self.hold.device)
        sound = valid & result.actions.isfinite().all(dim=-1).all(dim=-1)  # (B)
        if not bool(sound.any()):
            self.counts["invalid"] += 1
            return
        actions = torch.where(sound[:, None, None], self.box.clip(result.actions), self.hold[:, None])
        self._running = _Running(actions.detach(), stamp_s)
        self.counts["adopted"] += 1

    def _flaw(self, result: object) -> str:
        """Why a search result is not a plan for this robot; empty if it is one."""
        worlds, axes = self.hold.shape
        actions, status = getattr(result, "actions", None), getattr(result, "status", ())
        if not isinstance(actions, torch.Tensor):
            return f"expected a PlanResult with a tensor of actions, got {type(result).__name__}"
        if actions.dim() != 3 or actions.shape[1] < 1 or actions.shape[::2] != (worlds, axes):
            return f"expected actions (B, H, A) = ({worlds}, 1 or more, {axes}), got {tuple(actions.shape)}"
        if len(status) != worlds:
            return f"expected a status for each of {worlds} worlds, got {len(status)}"
        return ""

    def _step_at(self, time_s: float) -> int:
        assert self._running is not None
        return math.floor((time_s - self._running.stamp_s) / self.timing.period_s + ROUNDING)

    def _command(self) -> Command:
        reason = self._reason_to_hold()
        if reason:
            self._stopped = self._stopped or self._now - self._followed_s > self.timing.stop_after_s
            drive = Drive.STOP if self._stopped else Drive.HOLD
            return Command(action=self.hold, drive=drive, age_s=math.inf, step=None, reason=reason)
        assert self._running is not None
        self._followed_s = self._now
        step, age_s = self._step_at(self._now), self._now - self._running.stamp_s
        return Command(action=self._running.actions[:, step], drive=Drive.FOLLOW, age_s=age_s, step=step)

    def _reason_to_hold(self) -> str:
        if self._stopped:
            return "stopped: call reset() once it is safe to continue"
        if self._running is None:
            return "no plan yet"
        age_s = self._now - self._running.stamp_s
        if age_s > self.timing.max_age_s:
            return f"the observation behind the plan is {age_s:.3g} s old, the limit is {self.timing.max_age_s:.3g} s"
        if self._step_at(self._now) >= self._running.actions.shape[1]:
            return f"the plan of {self._running.actions.shape[1]} steps has ended"
        return ""
