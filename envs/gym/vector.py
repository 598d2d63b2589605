"""Copies of a gymnasium environment side by side: N episodes at once, one decision of the agent per step.

env = envs.make("gym:Reacher-v5", copies=4)
env = GymVector(gymnasium.make_vec("Reacher-v5", num_envs=4, vectorization_mode="async"))
env.reset(seed=[0, 1, 2, 3])
episodes = run_episodes(env, agent)
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import gymnasium
import numpy as np
import torch
from numpy.typing import NDArray

from jepa_mpc.envs.gym.adapter import SEEDS, GymEnv
from jepa_mpc.envs.gym.goals import GOALS, GymGoal
from jepa_mpc.envs.gym.lanes import Lanes
from jepa_mpc.envs.gym.states import Array
from jepa_mpc.episode import Outcome
from jepa_mpc.interfaces import Cost
from jepa_mpc.types import Observation

Vector = gymnasium.vector.VectorEnv[Any, Any, Any]


class GymVector:
    """N copies of an environment, each a `GymEnv`, played as one batch.

    Copies of an id, and those of a `SyncVectorEnv`, are stepped one by one in this process and can all that a single
    environment can. Those of any other vector environment (an `AsyncVectorEnv`, one within vector wrappers) are moved
    together: what asks for going back in one of them alone is refused. The copies are taken over, and closed if they
    are refused.

    Args:
        env: An id of gymnasium, a vector environment, or single environments.
        copies: How many copies of an id.
        goal: As in `GymEnv`.
        cameras: As in `GymEnv`.
        **settings: Further arguments of `GymEnv`.

    Raises:
        UnknownName: If gymnasium has no such id.
        ValueError: If there is no copy, the copies differ, they are no environments that can be planned in, or a vector
            cannot do what the goal asks for or hides how episodes end.
    """

    def __init__(
        self,
        env: str | Vector | Sequence[gymnasium.Env[Any, Any]],
        *,
        copies: int | None = None,
        goal: GymGoal | None = None,
        cameras: tuple[str, ...] = (),
        **settings: Any,
    ) -> None:
        if isinstance(env, str) != (copies is not None):
            raise ValueError("copies= is the number of copies of an id, and of nothing else")
        self.lanes: Lanes | None = None
        settings |= {"goal": goal, "cameras": tuple(cameras)}
        with ExitStack() as undo:
            self.copies: list[GymEnv] = []
            for one in self._singles(env, copies, settings, undo):
                self.copies.append(GymEnv(one, **settings))
                undo.callback(self.copies[-1].close)
            self._check()
            undo.pop_all()
        self.playing = list(self.copies)
        first = self.copies[0]
        self.name, self.embodiment = first.name, first.embodiment
        self.describe, self.wanted = first.describe, first.wanted
        self.cameras, self.image_size, self.dt_s = first.cameras, first.image_size, first.dt_s
        self.action_space, self.action_box = first.action_space, first.action_box
        self.budget, self.horizon = first.budget, first.horizon

    def reset(
        self, *, seed: int | Sequence[int], options: dict[str, Any] | None = None
    ) -> list[tuple[dict[str, NDArray[Any]], dict[str, Any]]]:
        """Begin an episode for each seed, the one that a single environment begins with it; the other copies idle.

        One seed stands for as many as there are copies, each one higher than the last.

        Raises:
            ValueError: If there are more seeds than copies, or none.
        """
        if isinstance(seed, int):
            seed = range(seed, seed + len(self.copies))
        if not 1 <= len(seed) <= len(self.copies):
            raise ValueError(f"{len(self.copies)} copies take 1 to {len(self.copies)} seeds, got {len(seed)}")
        self.playing = self.copies[: len(seed)]
        if self.lanes is not None:
            self.lanes.reset([one % SEEDS for one in seed], {**self.wanted.options, **(options or {})})
        return [env.reset(seed=one, options=options) for env, one in zip(self.playing, seed, strict=True)]

    def step(self, actions: Sequence[NDArray[np.float32] | None]) -> list[Outcome | None]:
        """Carry out an action `(A,)` in each copy that plays; None leaves it alone.

        Raises:
            ValueError: If their number or shape is another one, or a time limit cuts an episode off.
        """
        pairs = list(zip(self.playing, actions, strict=True))
        if self.lanes is not None:
            self.lanes.step(actions, repeat=self.wanted.repeat)
        return [None if action is None else env.step(action) for env, action in pairs]

    def observation(self) -> Observation:
        """What the copies show now, as one batch."""
        return joined([env.observation() for env in self.playing])

    def goal(self) -> Observation:
        """Their goals, as one batch.

        Raises:
            ValueError: If pictures are taken and the goal has none.
        """
        return joined([env.goal() for env in self.playing])

    def success(self) -> list[bool]:
        """Whether the goal is reached now, in each copy."""
        return [env.success() for env in self.playing]

    def state(self) -> Array:
        """Their states `(B, D)`.

        Raises:
            ValueError: If they cannot go back to one.
        """
        return np.stack([env.state() for env in self.playing])

    def goal_sensors(self) -> Array:
        """What their sensors read at the goal `(B, Q)`."""
        return np.stack([env.goal_sensors() for env in self.playing])

    def cost(self) -> Cost:
        """The cost of imagined futures, the same in all copies."""
        return self.copies[0].cost()

    def close(self) -> None:
        """Free everything."""
        for env in self.copies:
            env.close()

    def _singles(
        self, env: str | Vector | Sequence[gymnasium.Env[Any, Any]], copies: int | None, settings: Any, undo: ExitStack
    ) -> Sequence[str | gymnasium.Env[Any, Any]]:
        """The copies as `GymEnv` takes them."""
        if isinstance(env, str):
            return [env] * (copies or 0)
        if not isinstance(env, gymnasium.vector.VectorEnv):
            return env
        undo.callback(env.close)
        if isinstance(env, gymnasium.vector.SyncVectorEnv):
            return env.envs
        goal = settings["goal"] or GOALS.get(env.spec.id if env.spec else "") or GymGoal()
        if goal.later is not None or goal.photograph is not None:
            raise ValueError(
                "goals with later= and photograph= are sought in one environment after another, and the copies of "
                f"{type(env.unwrapped).__name__} are moved together: name the environment by its id with copies="
            )
        self.lanes = Lanes(env, shown=bool(settings["cameras"]), options=goal.options)
        return self.lanes.lanes

    def _check(self) -> None:
        """Refuse copies that cannot be one batch."""
        if not self.copies:
            raise ValueError("there must be at least one copy")
        for one in self.copies[1:]:
            for fact in ("action_space", "observation_space", "dt_s"):
                mine, other = getattr(self.copies[0], fact), getattr(one, fact)
                if mine != other:
                    raise ValueError(f"copies must be alike to be one batch, their {fact} is {mine} and {other}")


def joined(observations: Sequence[Observation]) -> Observation:
    """Observations of single worlds as one batch."""
    proprio = [one.proprio for one in observations if one.proprio is not None]
    return Observation(
        frames=torch.cat([one.frames for one in observations]),
        cameras=observations[0].cameras,
        proprio=torch.cat(proprio) if len(proprio) == len(observations) else None,
    )
