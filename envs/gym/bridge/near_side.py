"""The parent side of a bridge: an environment in another Python, with gymnasium's own interface.

    env = BridgedEnv("gymnasium_robotics:FetchPush-v4", python="/opt/robotics/bin/python")

Nothing is pickled. A child that ends, hangs or sends invalid messages is killed, with a one-line error.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import gymnasium
import numpy as np
from gymnasium.envs.registration import EnvSpec
from numpy.typing import NDArray

from jepa_mpc.envs.gym.bridge import wire
from jepa_mpc.envs.gym.bridge.process import BrokenBridge, ChildProcess
from jepa_mpc.envs.gym.states import Array
from jepa_mpc.envs.gym.versions import version_advice

BEGIN_S = 180.0
"""Time limit for making an environment (s): some compile or load meshes."""


class BridgedEnv(gymnasium.Env[Array, NDArray[Any]]):
    """An environment in its own process, run by another Python; its observations are one row `(n,)` float64.

    Args:
        env: Gymnasium id there, as `module:id` if a module registers it.
        python: The Python interpreter; it needs gymnasium 1.x and nothing of this package.
        patience_s: Time limit of one step (s).
        render_mode: None or "rgb_array".
        shadows: Whether the images of a MuJoCo environment have shadows, mirrors and multisampling.
        viewpoint: Another viewpoint of those images (see `envs.gym.states.aim`).
        **settings: Arguments of `gymnasium.make`, JSON values.

    Raises:
        BrokenBridge: If the interpreter does not exist, or cannot make the environment.
        ValueError: If its action space is not a box.
    """

    def __init__(
        self,
        env: str,
        *,
        python: str | Path,
        patience_s: float = 30.0,
        render_mode: str | None = None,
        shadows: bool = True,
        viewpoint: Mapping[str, Any] | None = None,
        **settings: Any,
    ) -> None:
        self.name, self.render_mode, self.patience_s = env, render_mode, patience_s
        drawn = {} if render_mode is None else {"render_mode": render_mode}
        asked = {"id": env, "settings": {**drawn, **settings}, "shadows": shadows, "viewpoint": viewpoint}
        self._child = ChildProcess(env, Path(python))
        self._line = self._child.line
        try:
            facts = self._ask(wire.MAKE, asked, patience_s=BEGIN_S)
            self._understand(facts)
        except BaseException:
            self._child.end()
            raise
        self._line.settimeout(patience_s)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Array, dict[str, Any]]:
        """Begin an episode."""
        told = self._ask(wire.RESET, {"seed": seed, "options": options or None})
        goal = {wire.RENDERED_GOAL: self._picture.copy()} if told.get(wire.RENDERED_GOAL) else {}
        return self._observation.copy(), {**told.get("info", {}), **goal}

    def step(self, action: NDArray[Any]) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        """Carry out one action."""
        self._action[:] = np.ravel(action)
        told = self._ask(wire.STEP, {})
        return self._observation.copy(), float(told["reward"]), bool(told["ended"]), False, dict(told.get("info", {}))

    def play(self, actions: NDArray[Any], *, repeat: int) -> Array:
        """Carry out a plan in one message.

        Args:
            actions: `(H, A)`.
            repeat: Environment steps per action.

        Returns:
            The outcome of each action `(H, n + 2)`: observation, reward, whether the episode has ended; nothing moves
            after that.
        """
        outcomes: list[Array] = []
        for part in np.split(actions, range(wire.PLAN, len(actions), wire.PLAN)):
            if outcomes and outcomes[-1][-1, -1]:
                outcomes.append(np.tile([*outcomes[-1][-1, :-2], 0.0, 1.0], (len(part), 1)))
                continue
            self._plan[: len(part)] = part
            patience_s = self.patience_s * len(part) * repeat
            self._ask(wire.PLAY, {"steps": len(part), "repeat": repeat}, patience_s=patience_s)
            self._line.settimeout(self.patience_s)
            outcomes.append(self._outcome[: len(part)].copy())
        return np.concatenate(outcomes)

    def render(self) -> NDArray[np.uint8] | None:
        """The environment's image `(h, w, 3)`, None if it does not render."""
        if not self._picture.size:
            return None
        self._ask(wire.RENDER, {})
        return self._picture.copy()

    def take(self, steps: int) -> Array:
        """The current state as one row `(D,)` (see `envs.gym.states`)."""
        self._ask(wire.TAKE, {"steps": steps})
        return self._state.copy()

    def put(self, row: Array) -> int:
        """Restore a row; returns its step count.

        Raises:
            ValueError: If it is not a row of this environment, or is no longer stored.
        """
        if np.shape(row) != self._state.shape:
            raise ValueError(f"state must have shape {self._state.shape}, got {np.shape(row)}")
        self._state[:] = row
        told = self._ask(wire.PUT, {})
        if "refused" in told:
            raise ValueError(told["refused"])
        return int(told["steps"])

    def close(self) -> None:
        """End the process."""
        self._child.end()

    def _understand(self, facts: dict[str, Any]) -> None:
        """Read the child's facts about the environment, and map the memory."""
        if facts.get("version") != wire.VERSION:
            self._fail(f"speaks version {facts.get('version')} of the bridge, expected {wire.VERSION}")
        bounds = facts["actions"]
        if not isinstance(bounds, dict):
            raise ValueError(f"{self.name} takes actions of {bounds}: a planner needs a box of numbers (A,)")
        layout = wire.Layout.of(facts["layout"])
        *starts, drawn, end = layout.starts
        if os.fstat(self._child.memory.fileno()).st_size != max(end, 1):
            self._fail("shares memory of another size than declared")
        view = memoryview(mmap.mmap(self._child.memory.fileno(), max(end, 1)))
        self._action, self._observation, self._state, plan, outcome = (
            np.frombuffer(view[begin:stop], np.float64)
            for begin, stop in zip(starts, [*starts[1:], drawn], strict=True)
        )
        self._plan, self._outcome = plan.reshape(wire.PLAN, -1), outcome.reshape(wire.PLAN, -1)
        self._picture = np.frombuffer(view[drawn:end], np.uint8).reshape(layout.picture)
        low, high = (np.asarray(bounds[name], dtype=np.float32) for name in ("low", "high"))
        self.action_space = gymnasium.spaces.Box(low, high, dtype=np.float32)
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (layout.observation,), np.float64)
        self.dt = float(facts["dt_s"])
        self.spec = EnvSpec(id=str(facts["id"]), max_episode_steps=facts["budget"])

    def _ask(self, kind: int, content: dict[str, Any], *, patience_s: float | None = None) -> dict[str, Any]:
        """Send a request and return its answer."""
        if patience_s is not None:
            self._line.settimeout(patience_s)
        try:
            wire.send(self._line, kind, content)
            answer, told = wire.receive(self._line)
        except TimeoutError:
            self._fail(f"did not answer within {self._line.gettimeout():.0f} s and was killed")
        except (EOFError, OSError):
            self._fail(f"ended{self._child.last_words()}")
        except wire.Garbled as error:
            self._fail(f"does not follow the bridge protocol: {error}")
        if answer == wire.FAULT:
            self._child.end()
            versions = ", ".join(f"{name} {one}" for name, one in dict(told.get("versions", {})).items())
            said = f"{told.get('kind')}: {told.get('words')}"
            raise BrokenBridge(
                f"{self.name} in {self._child.python}: {said} (with {versions}){version_advice(self.name)}"
            )
        if answer != wire.DONE:
            self._fail(f"answered with {answer}")
        return told

    def _fail(self, what: str) -> NoReturn:
        self._child.end()
        raise BrokenBridge(f"the process of {self.name} ({self._child.python}) {what}{version_advice(self.name)}")


class BridgedStates:
    """States of an environment behind a bridge: the rows of the child process.

    Args:
        env: The environment.
    """

    def __init__(self, env: BridgedEnv) -> None:
        self.env: Any = env
        self._nowhere: Array | None = None

    def take(self, steps: int) -> Array:
        """The current state as one row."""
        row: Array = self.env.take(steps)
        self._nowhere = np.full_like(row, -1.0)
        return row

    def passing(self, steps: int) -> Array:
        """A row that cannot be restored."""
        return self.take(steps) if self._nowhere is None else self._nowhere

    def put(self, row: Array) -> int:
        """Restore a row; returns its step count."""
        return int(self.env.put(row))
