"""A vector environment of gymnasium as single ones: what its steps give is handed out copy by copy.

Only its public interface is used (`reset`, `step`, `render`): copies may live in other processes or on a device.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NoReturn

import gymnasium
import numpy as np
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector.utils import iterate
from numpy.typing import NDArray

from jepa_mpc.envs.gym.bridge.process import BrokenBridge
from jepa_mpc.envs.gym.states import Array

NEXT_STEP, DISABLED = "NextStep", "Disabled"
"""Modes of autoreset in which the end of an episode is seen."""

Answer = tuple[Any, float, bool, bool, Mapping[str, Any]]


class Lane(gymnasium.Env[Any, NDArray[Any]]):
    """One copy of a vector environment: answers with what the vector gave it last.

    Args:
        lanes: The vector.
        index: Which copy.
    """

    def __init__(self, lanes: Lanes, index: int) -> None:
        vector = lanes.vector
        self.lanes, self.index = lanes, index
        self.action_space, self.observation_space = vector.single_action_space, vector.single_observation_space
        self.metadata, self.render_mode, self.spec = vector.metadata, vector.render_mode, lanes.spec
        self.dt = lanes.dt_s
        self.begun: tuple[Any, dict[str, Any]] = (None, {})
        self.waiting: deque[Answer] = deque()
        self.last_picture: NDArray[np.uint8] | None = None
        self._cut = False

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """What the vector's reset gave."""
        self._cut = False
        return self.begun

    def step(self, action: NDArray[Any]) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """What the vector's step gave.

        Raises:
            ValueError: If a time limit has cut the episode off before.
        """
        if self._cut:
            raise ValueError(
                f"a time limit within {self.spec.id if self.spec else 'the vector'} cuts episodes off before their "
                "budget is spent: give a smaller budget="
            )
        seen, reward, ended, self._cut, info = self.waiting.popleft()
        return seen, reward, ended, self._cut, dict(info)

    def render(self) -> Any:
        """Its picture, that of its end if its episode is over."""
        return self.lanes.pictures()[self.index] if self.last_picture is None else self.last_picture

    def close(self) -> None:
        """Close the vector."""
        self.lanes.close()


class Lanes:
    """A vector environment, and its copies as single environments; an error in it closes it.

    Args:
        vector: Any vector environment of gymnasium.
        shown: Whether pictures of its copies will be asked for.
        options: Of its first reset.

    Raises:
        ValueError: If it hides how episodes end, or its copies cannot be given seeds.
    """

    def __init__(self, vector: gymnasium.vector.VectorEnv[Any, Any, Any], *, shown: bool, options: Any) -> None:
        self.vector, self.shown = vector, shown
        self.spec: EnvSpec = vector.spec or EnvSpec(id=type(vector.unwrapped).__name__)
        mode = vector.metadata.get("autoreset_mode")
        self.mode = getattr(mode, "value", mode)
        if self.mode not in (NEXT_STEP, DISABLED):
            raise ValueError(
                f"{self.spec.id} begins anew in the step that ends an episode (autoreset {self.mode}), so that the end "
                "is not seen: make it with autoreset_mode NEXT_STEP or DISABLED"
            )
        with self._unbroken():
            self.dt_s = self._dt_s()
        self.lanes = [Lane(self, index) for index in range(vector.num_envs)]
        try:
            self.reset([0] * vector.num_envs, dict(options))
        except (TypeError, gymnasium.error.Error) as error:
            raise ValueError(f"{self.spec.id} takes no seed for each of its copies in reset: {error}") from error

    def reset(self, seeds: Sequence[int], options: dict[str, Any]) -> None:
        """Begin an episode in each copy; copies beyond the seeds repeat the last one."""
        padded = [*seeds, *[seeds[-1]] * (len(self.lanes) - len(seeds))]
        with self._unbroken():
            observations, infos = self.vector.reset(seed=padded, options=options or None)  # type: ignore[arg-type]  # one each
        self._over = np.zeros(len(self.lanes), dtype=bool)
        self._idle = self._over.copy()
        self._pictures: Sequence[Any] | None = None
        for lane, seen in zip(self.lanes, self._apart(observations), strict=True):
            lane.begun, lane.last_picture = (seen, of_copy(infos, lane.index)), None
            lane.waiting.clear()

    def step(self, actions: Sequence[NDArray[Any] | None], *, repeat: int) -> None:
        """Carry an action out in each copy so many times; without one a copy gets zeros and its answer is not read."""
        space: Any = self.vector.single_action_space
        batch = np.zeros((len(self.lanes), *space.shape))
        for index, action in enumerate(actions):
            batch[index] = 0.0 if action is None else action
        batch = np.clip(batch, space.low, space.high).astype(space.dtype)
        for lane in self.lanes:
            lane.waiting.clear()
        for _ in range(repeat):
            with self._unbroken():
                self._step(batch)

    def pictures(self) -> Sequence[Any]:
        """The picture of each copy as it is now.

        Raises:
            ValueError: If the vector does not draw one for each.
        """
        if self._pictures is None:
            with self._unbroken():
                drawn = self.vector.render()
            if drawn is None or len(drawn) != len(self.lanes):
                raise ValueError(f"{self.spec.id} does not render one picture for each of its copies")
            self._pictures = drawn
        return self._pictures

    def close(self) -> None:
        """End the vector."""
        self.vector.close()

    def _step(self, batch: NDArray[Any]) -> None:
        if self.mode == DISABLED and self._idle.any():
            self.vector.reset(options={"reset_mask": self._idle.copy()})
        observations, rewards, ended, cut, infos = self.vector.step(batch)
        self._pictures = None
        self._idle = np.asarray(ended | cut, dtype=bool)
        answers = zip(self.lanes, self._apart(observations), rewards, ended, cut, strict=True)
        for lane, seen, reward, end, limit in answers:
            lane.waiting.append((seen, float(reward), bool(end), bool(limit), of_copy(infos, lane.index)))
        for index in np.flatnonzero(self._idle & ~self._over).tolist() if self.shown else ():
            self.lanes[index].last_picture = np.array(self.pictures()[index])
        self._over |= self._idle

    def _apart(self, observations: Any) -> Iterator[Any]:
        return iter(iterate(self.vector.observation_space, observations))

    def _dt_s(self) -> float | None:
        """Seconds per step, where the copies say it."""
        call = getattr(self.vector.unwrapped, "call", None)
        if call is None or not all(call("has_wrapper_attr", "dt")):
            return None
        return float(call("dt")[0])

    @contextmanager
    def _unbroken(self) -> Iterator[None]:
        """Whatever goes wrong in the vector, none of its processes is left running."""
        try:
            yield
        except (EOFError, BrokenPipeError, ConnectionError) as error:
            self._end()
            raise BrokenBridge(f"a process of {self.spec.id} has ended in the midst of an episode") from error
        except BaseException:
            self._end()
            raise

    def _end(self) -> None:
        inner: Any = self.vector.unwrapped
        processes = getattr(inner, "processes", ())
        if not processes:
            with suppress(Exception):
                self.vector.close()
        for process in processes:  # its own way of closing would ask processes that are gone
            process.kill()
        for process in processes:
            process.join()
        for pipe in getattr(inner, "parent_pipes", ()):
            if pipe is not None:
                pipe.close()
        inner.closed = True


class SharedStates:
    """States of a copy that is moved with all others of its vector: there are none to go back to.

    Args:
        env: The copy.
    """

    def __init__(self, env: Lane) -> None:
        self.env: gymnasium.Env[Any, Any] = env

    def take(self, steps: int) -> Array:
        """None can be had.

        Raises:
            ValueError: Always.
        """
        self._refuse()

    def passing(self, steps: int) -> Array:
        """Likewise."""
        self._refuse()

    def put(self, row: Array) -> int:
        """Likewise."""
        self._refuse()

    def _refuse(self) -> NoReturn:
        name = self.env.spec.id if self.env.spec else "the vector"
        raise ValueError(
            f"the copies of {name} are moved together and cannot go back, so that true dynamics cannot be had: name "
            "the environment by its id with copies=, or plan in a learned model"
        )


def of_copy(infos: Mapping[str, Any], index: int) -> dict[str, Any]:
    """What a vector's info says of one copy."""
    own = {}
    for name, value in infos.items():
        mask = name.startswith("_") and name[1:] in infos
        if mask or not infos.get(f"_{name}", np.ones(index + 1))[index]:
            continue
        if isinstance(value, Mapping):
            own[name] = of_copy(value, index)
        else:
            own[name] = value[index] if np.ndim(value) else value
    return own
