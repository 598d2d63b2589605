"""One client's episode: converts requests to observations and plans to answers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from jepa_mpc.errors import BadObservation
from jepa_mpc.interfaces import Agent
from jepa_mpc.types import Observation

START, TIME, DEADLINE = "episode/start", "observation/time_s", "plan/deadline_ms"
LEAST_S = 0.001
Request = Mapping[str, Any]
Fit = Callable[[np.ndarray], np.ndarray]
"""Resizes images `T h w 3` (uint8) to the size of the cameras."""


class ServedAgent(Agent, Protocol):
    """The served agent: it accepts new goals and deadlines."""

    def aim(self, goal: Observation) -> None:
        """Continue towards another goal."""

    def limit(self, deadline_s: float) -> None:
        """Limit each following search to this many seconds."""


@dataclass(frozen=True, kw_only=True)
class Keys:
    """Names of the entries of a request.

    Args:
        cameras: The cameras of the agent.
        images: Entry of each camera's image, in their order.
        goals: Entry of each goal image, in the same order.
        state: Entries that are concatenated to the proprioception; none for an agent that needs none.

    Raises:
        ValueError: If the number of entries is not that of the cameras.
    """

    cameras: tuple[str, ...]
    images: tuple[str, ...]
    goals: tuple[str, ...]
    state: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not len(self.cameras) == len(self.images) == len(self.goals):
            raise ValueError(
                f"need one entry in images= and in goals= for each of the cameras {', '.join(self.cameras)}, got "
                f"{list(self.images)} and {list(self.goals)}"
            )


class Session:
    """The episode of one connection.

    A request holds one image per camera; `goal/...` changes the goal, `episode/start` begins a new episode.
    `observation/time_s` (the client's clock, s) must increase; a request is stale if, by that clock, it arrives more
    than `max_age_s` later than the fastest one of the connection. `plan/deadline_ms` shortens the search.

    Args:
        agent: The agent of this episode only.
        keys: Names of the entries.
        fit: Resizes images to the cameras' size.
        goal: Goal unless a request brings one, or None.
        deadline_s: Time from a request's arrival to the end of its search, unless it asks for less; at least one call
            of the world model is made.
        max_age_s: See above.
    """

    def __init__(
        self,
        agent: ServedAgent,
        keys: Keys,
        *,
        fit: Fit,
        goal: Observation | None = None,
        deadline_s: float = math.inf,
        max_age_s: float = math.inf,
    ) -> None:
        self.agent, self.keys, self.fit, self.goal = agent, keys, fit, goal
        self.deadline_s, self.max_age_s = deadline_s, max_age_s
        self._begun = False
        self._last_s = -math.inf
        self._quickest_s = math.inf

    def admit(self, request: Request, now_s: float) -> None:
        """Refuse an observation that is out of order or too old.

        Raises:
            BadObservation: Names its age.
        """
        if TIME not in request:
            return
        taken_s = _number(request, TIME)
        if taken_s <= self._last_s and not request.get(START):
            raise BadObservation(
                f"stale observation: {TIME}={taken_s:.3f} is not later than the last one, {self._last_s:.3f}"
            )
        self._quickest_s = min(self._quickest_s, now_s - taken_s)
        late_s = now_s - taken_s - self._quickest_s
        if late_s > self.max_age_s:
            raise BadObservation(
                f"stale observation: it came {1000 * late_s:.0f} ms late, at most {1000 * self.max_age_s:.0f} ms are "
                "accepted"
            )
        self._last_s = taken_s

    def answer(self, request: Request, *, waited_s: float = 0.0) -> dict[str, Any]:
        """Plan one step.

        Args:
            request: The client's map.
            waited_s: Seconds since its arrival; they count against the deadline.

        Returns:
            `actions` `1 A`, to be executed before the next request; `plan` `H A` and `plan/status` if the agent
            planned; `goal/distance_m` if it can estimate it.

        Raises:
            BadObservation: If an entry is missing or does not fit the agent.
        """
        observation = self._observation(request)
        self._take_goal(request)
        limit_s = self.deadline_s
        if DEADLINE in request:
            limit_s = min(limit_s, _number(request, DEADLINE, least=0.0) / 1000)
        self.agent.limit(max(limit_s - waited_s, LEAST_S))
        with torch.no_grad():
            action = self.agent.act(observation)
        return {"actions": _rows(action), **self._told()}

    def _observation(self, request: Request) -> Observation:
        frames = [self._picture(request, key) for key in self.keys.images]
        felt = [_vector(request, key) for key in self.keys.state]
        return Observation(
            frames=torch.cat(frames, dim=2),
            cameras=self.keys.cameras,
            proprio=torch.from_numpy(np.concatenate(felt))[None, None] if felt else None,
        )

    def _take_goal(self, request: Request) -> None:
        """Begin an episode, or continue towards another goal."""
        given = [key for key in self.keys.goals if key in request]
        if given:
            frames = torch.cat([self._picture(request, key) for key in self.keys.goals], dim=2)
            if self.goal is None or not torch.equal(frames, self.goal.frames):
                self.goal = Observation(frames=frames, cameras=self.keys.cameras)
                if self._begun and not request.get(START):
                    self.agent.aim(self.goal)
        if self.goal is None:
            raise BadObservation(
                f"there is no goal: send {' and '.join(self.keys.goals)}, or start the server with goal="
            )
        if request.get(START) or not self._begun:
            self.agent.reset(self.goal)
            self._begun = True

    def _picture(self, request: Request, key: str) -> torch.Tensor:
        """An image as frames `1 1 3 h w`."""
        picture = request.get(key)
        if not isinstance(picture, np.ndarray):
            raise BadObservation(f"the request lacks the image {key}: uint8 (h, w, 3)")
        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or 0 in picture.shape:
            raise BadObservation(f"{key} must be uint8 (h, w, 3), got {picture.dtype} {picture.shape}")
        return torch.from_numpy(self.fit(picture[None]).copy()).permute(0, 3, 1, 2)[None]

    def _told(self) -> dict[str, Any]:
        last = self.agent.last
        if last is None:
            return {}
        told: dict[str, Any] = {"plan/status": last.status} if last.status else {}
        if last.plan is not None:
            told["plan"] = _rows(last.plan.actions[0])
        if last.goal_distance is not None:
            told["goal/distance_m"] = float(last.goal_distance[0])
        return told


def _rows(actions: torch.Tensor) -> np.ndarray:
    return actions.detach().cpu().numpy().astype(np.float32)


def _number(request: Request, key: str, *, least: float = -math.inf) -> float:
    value = request[key]
    if isinstance(value, bool) or not isinstance(value, int | float | np.number) or not least <= value < math.inf:
        raise BadObservation(f"{key} must be a finite number{'' if least else ' from 0'}, got {repr(value)[:40]}")
    return float(value)


def _vector(request: Request, key: str) -> np.ndarray:
    value = request.get(key)
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "iuf" or value.ndim != 1:
        raise BadObservation(f"the request lacks {key}: a numeric array (n,)")
    if not np.isfinite(value).all():
        raise BadObservation(f"{key} holds values that are not finite")
    return value.astype(np.float32)
