"""Execution of an episode in a gymnasium environment: act, record, restore."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from jepa_mpc.envs.gym.bridge.near_side import BridgedEnv
from jepa_mpc.envs.gym.making import flat
from jepa_mpc.envs.gym.moments import Moment
from jepa_mpc.envs.gym.states import KEPT, Array, MujocoStates, States, seeded_reset

TRIED = 3
"""Number of actions for testing state restoration."""


class Course:
    """An environment with the current moment of its episode.

    Args:
        states: Saves and restores its states.
        space: Its action space; actions are clipped to it.
        repeat: Environment steps per action.
    """

    def __init__(self, states: States, *, space: gymnasium.spaces.Box, repeat: int) -> None:
        self.states, self.space, self.repeat = states, space, repeat
        self.moment = Moment(observation=np.zeros(0))
        self._row: Array | None = None
        self._moments: dict[bytes, Moment] = {}

    @property
    def own(self) -> gymnasium.Env[Any, Any]:
        """The current wrapped environment."""
        return self.states.env

    def keep_in(self, states: States) -> None:
        """Save states in another way from now on; rows saved before are forgotten."""
        self.states, self._row, self._moments = states, None, {}

    def begin(self, *, seed: int, options: dict[str, Any]) -> None:
        """Reset the environment."""
        observation, info = seeded_reset(self.own, seed=seed, options=options)
        self._row, self._moments = None, {}
        self.moment = Moment(observation=flat(self.own, observation), info=info)

    def advance(self, action: Array) -> None:
        """Execute and record one action."""
        self._row, last = None, self.moment
        observation, reward, ended, info = self._hold(action, last.observation, last.ended, last.info)
        self.moment = Moment(
            observation=observation,
            reward=reward,
            total=last.total + reward,
            ended=ended,
            steps=last.steps + 1,
            info=info,
        )

    def state(self) -> Array:
        """The current state as one row (see `envs.gym.states`); `set_state(state())` changes nothing."""
        if self._row is None:
            self._row = self.states.take(self.moment.steps)
            self._moments[self._row.tobytes()] = self.moment
            while len(self._moments) > KEPT + 2 * TRIED:
                self._moments.pop(next(iter(self._moments)))
        return self._row.copy()

    def set_state(self, state: Array) -> None:
        """Restore a row.

        Raises:
            ValueError: If it is not a row of this environment, or is no longer stored.
        """
        steps = self.states.put(state)
        self._row = np.array(state, dtype=np.float64)
        kept = self._moments.get(self._row.tobytes())
        self.moment = Moment(observation=self._read(), steps=steps) if kept is None else kept

    def try_out(self, state: Array, actions: Array) -> tuple[Array, Array]:
        """Execute actions `(H, A)` from a state, without restoring: states `(H, D)` and sensors `(H, Q)`."""
        self.set_state(state)
        self._row = None
        if isinstance(self.own, BridgedEnv) and not self.moment.ended:
            sensors = self.own.play(self._clipped(actions), repeat=self.repeat)
            return np.stack(
                [self.states.passing(self.moment.steps + step + 1) for step in range(len(actions))]
            ), sensors
        observation, ended, info = self.moment.observation, self.moment.ended, self.moment.info
        rows, sensors = [], np.empty((len(actions), len(observation) + 2))
        for step, action in enumerate(actions):
            observation, reward, ended, info = self._hold(action, observation, ended, info)
            rows.append(self.states.passing(self.moment.steps + step + 1))
            sensors[step, :-2], sensors[step, -2:] = observation, (reward, ended)
        return np.stack(rows), sensors

    def tried(self) -> tuple[Array, Array, Array] | None:
        """Start, actions and states of a few test steps; None if restoring does not reproduce the same future."""
        generator = np.random.default_rng(0)
        actions = generator.uniform(self.space.low, self.space.high, (TRIED, len(self.space.low)))
        actions = actions.astype(np.float32).astype(np.float64)
        with self.undisturbed():
            begin = self.state()
            (_, first), (states, second) = (self.try_out(begin, actions) for _ in range(2))
        return (begin, actions, states) if np.array_equal(first, second, equal_nan=True) else None

    @contextmanager
    def undisturbed(self) -> Iterator[None]:
        """Restores the environment at the end of the block."""
        present, moment = self.state(), self.moment
        try:
            yield
        finally:
            self.set_state(present)
            self.moment = moment

    def _hold(
        self, action: Array, observation: Array, ended: bool, info: Mapping[str, Any]
    ) -> tuple[Array, float, bool, Mapping[str, Any]]:
        """Hold one action for its repeats; nothing moves after the end of the episode."""
        reward, own, clipped = 0.0, self.own, self._clipped(action)
        for _ in range(self.repeat):
            if ended:
                break
            seen, gained, over, _, info = own.step(clipped)
            observation, reward, ended = flat(own, seen), reward + float(gained), bool(over)
        return observation, reward, ended, info

    def _clipped(self, actions: Array) -> NDArray[Any]:
        """Actions `(..., A)` within the box, in its type."""
        return np.clip(actions, self.space.low, self.space.high).astype(self.space.dtype)

    def _read(self) -> Array:
        """The observation of a predicted state, if the environment can compute it from its physics."""
        own: Any = self.own.unwrapped
        if isinstance(self.states, MujocoStates) and not self.states.whole:
            return flat(self.own, own._get_obs())
        return self.moment.observation
