"""Any gymnasium environment as a task that can be planned in.

    env = envs.make("gym:Pendulum-v1")
    env = GymEnv(my_env, goal=GymGoal(observation=[0.0, None], success=near([0.0, None], 0.05)), budget=100)
    task = task_of("mine", env)  # true dynamics, cost, baselines

MuJoCo environments are simulated by `mujoco.rollout` and their states are exact; in all others plans are carried out in
copies. Both are tried out once, when the adapter is made.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import gymnasium
import numpy as np
import torch
from numpy.typing import NDArray

from jepa_mpc.envs.baselines import Policy
from jepa_mpc.envs.costs import apart, task_cost
from jepa_mpc.envs.gym.making import bare, box_of, budget_of, flat, made, name_of
from jepa_mpc.envs.gym.moments import GOALS, GymGoal, Moment, told
from jepa_mpc.envs.gym.physics import moves_alike, plant_of
from jepa_mpc.envs.gym.pictures import drawn, fitted
from jepa_mpc.envs.gym.states import MujocoStates, States, states_of
from jepa_mpc.envs.plant import Array, DirectPlant
from jepa_mpc.interfaces import Cost
from jepa_mpc.types import Observation

RENDER = "render"
TRIED = 3
"""Actions with which an adapter is tried out."""


class GymEnv(gymnasium.Env[dict[str, NDArray[Any]], NDArray[np.float32]]):
    """A gymnasium environment behind the interface of our tasks.

    Observations: `proprio`, the environment's own observation as one row; `frames` `(3, size, size)` if the camera
    "render" is named, and `goal` if the goal has a picture. Sensors: the observation, the reward of the step, and
    whether the environment ended the episode. An episode that the environment ends stays where it is.

    Args:
        env: An id of gymnasium, or an environment; time limits around it are taken off.
        goal: What is wanted; by default what `envs.gym.moments.GOALS` knows, else the environment's own reward.
        picture: The goal image, uint8 `(h, w, 3)`, or None.
        cameras: ("render",) for pictures, or none.
        image_size: Width and height of the pictures in pixels.
        budget: Actions per episode; by default the environment's own limit.
        render_mode: None or "rgb_array"; pictures need the second.
        **settings: Arguments of `gymnasium.make`.

    Raises:
        UnknownName: If gymnasium has no such id.
        ValueError: If it cannot be made, its actions are no finite box, it is a vector of environments, or going back
            does not work.
        MissingPackage: If it cannot draw for want of a package.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"]}
    tracked = None

    def __init__(
        self,
        env: str | gymnasium.Env[Any, Any],
        *,
        goal: GymGoal | None = None,
        picture: NDArray[np.uint8] | None = None,
        cameras: tuple[str, ...] = (),
        image_size: int = 64,
        budget: int | None = None,
        render_mode: str | None = None,
        **settings: Any,
    ) -> None:
        if tuple(cameras) not in ((), (RENDER,)):
            raise ValueError(f"a gymnasium environment has the camera {RENDER!r} or none, got {tuple(cameras)}")
        self.cameras, self.image_size = tuple(cameras), image_size
        self.render_mode = "rgb_array" if cameras else render_mode
        chosen = made(env, {"render_mode": self.render_mode, **settings}) if isinstance(env, str) else env
        self.name = name_of(chosen)
        if cameras and chosen.render_mode != "rgb_array":
            raise ValueError(f"{self.name} draws nothing: make it with render_mode='rgb_array', or name no cameras")
        self.wanted = goal or GOALS.get(self.name) or GymGoal()
        self.horizon = self.wanted.horizon
        self.describe = self.wanted.describe or f"Collect reward in {self.name}."
        self.action_box = box_of(chosen, self.name)
        self.budget = budget_of(chosen, self.name, self.wanted.repeat) if budget is None else budget
        self.states: States = states_of(bare(chosen))
        own = self.states.env.unwrapped
        per_step_s = getattr(own, "dt", None) or 1 / own.metadata.get("render_fps", 1)
        self.dt_s = float(per_step_s) * self.wanted.repeat
        self.action_space = chosen.action_space
        self._bounds: Any = chosen.action_space
        self._row: Array | None = None
        self._picture = None if picture is None else fitted(picture, image_size)
        self._begin(chosen.reset(seed=0))
        self.observation_space = self._spaces()
        self._plant = plant_of(self)
        self._try_myself()

    @property
    def own(self) -> gymnasium.Env[Any, Any]:
        """The environment itself, as it is now."""
        return self.states.env

    @property
    def plant(self) -> DirectPlant:
        """What `mujoco.rollout` simulates.

        Raises:
            ValueError: If this is no MuJoCo environment that holds its actions on its actuators, or only its reward is
                wanted.
        """
        if self._plant is None:
            raise ValueError(
                f"{self.name} cannot be planned in by mujoco.rollout: that takes a MuJoCo environment whose actions "
                "are its actuator signals, and a goal with observation=; plan with dynamics=stepping"
            )
        return self._plant

    @property
    def usual_dynamics(self) -> str:
        """The name in `envs.true_dynamics.DYNAMICS` that suits it: "simulator" where that can be had."""
        return "stepping" if self._plant is None else "simulator"

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Begin an episode; the arguments are the environment's own."""
        super().reset(seed=seed)
        self._begin(self.own.reset(seed=seed, options=options))
        return self._observe(), self._info()

    def step(self, action: NDArray[np.float32]) -> tuple[dict[str, NDArray[Any]], float, bool, bool, dict[str, Any]]:
        """Carry out one action, clipped to the box; it terminates only if an observation is not finite.

        Raises:
            ValueError: If the action has another shape.
        """
        if np.shape(action) != self.action_space.shape:
            raise ValueError(f"an action has shape {self.action_space.shape}, got {np.shape(action)}")
        self._row = None
        self._advance(np.asarray(action, dtype=np.float64))
        broken = not np.isfinite(self.moment.observation).all()
        over = self.moment.ended or self.moment.steps >= self.budget
        return self._observe(), self.moment.reward, broken, over, self._info()

    def state(self) -> Array:
        """The present as one row (see `envs.gym.states`); `set_state(state())` changes nothing."""
        if self._row is None:
            self._row = self.states.take(self.moment.steps)
            self._moments[_key(self._row)] = self.moment
            while len(self._moments) > 2 * TRIED + 64:
                self._moments.pop(next(iter(self._moments)))
        return self._row.copy()

    def set_state(self, state: Array) -> None:
        """Go back to a row.

        Raises:
            ValueError: If it is none of this environment's rows, or forgotten.
        """
        steps = self.states.put(state)
        self._row = np.array(state, dtype=np.float64)
        kept = self._moments.get(_key(self._row))
        self.moment = Moment(observation=self._read_own(), steps=steps) if kept is None else kept

    def try_out(self, state: Array, actions: Array) -> tuple[Array, Array]:
        """Carry out actions `(H, A)` from a state on and stay there: states `(H, D)` and sensors `(H, Q)`."""
        self.set_state(state)
        self._row = None
        observation, ended, info = self.moment.observation, self.moment.ended, self.moment.info
        rows, sensors = [], np.empty((len(actions), len(observation) + 2))
        for step, action in enumerate(actions):
            observation, reward, ended, info = self._hold(action, observation, ended, info)
            rows.append(self.states.passing(self.moment.steps + step + 1))
            sensors[step, :-2], sensors[step, -2:] = observation, (reward, ended)
        return np.stack(rows), sensors

    def plant_sensors(self) -> Array:
        """What the sensors read now `(Q,)`: observation, reward, whether the episode has ended."""
        return np.array([*self.moment.observation, self.moment.reward, self.moment.ended], dtype=np.float64)

    def goal_sensors(self) -> Array:
        """What they read at the goal `(Q,)`; zero on axes that do not matter."""
        wanted = self.wanted.observation or [None] * len(self.moment.observation)
        if len(wanted) != len(self.moment.observation):
            raise ValueError(
                f"{self.name} observes {len(self.moment.observation)} numbers, the goal gives {len(wanted)}: None for "
                "those that do not matter"
            )
        return np.array([0.0 if value is None else value for value in [*wanted, None, None]], dtype=np.float64)

    def success(self) -> bool:
        """Whether the goal is reached now.

        Raises:
            ValueError: If neither the goal nor the environment says what success is.
        """
        return (self.wanted.success or told)(self.moment)

    def cost(self) -> Cost:
        """Distance of the observation from the goal's; without one, minus the reward, mean over the plan."""
        if self.wanted.observation is None:
            return task_cost(lambda now, goal: -now[..., -2])
        self.goal_sensors()
        return task_cost(apart([axis for axis, value in enumerate(self.wanted.observation) if value is not None]))

    def oracle(self) -> Policy | None:
        """None: nothing is known of it."""
        return None

    def observation(self) -> Observation:
        """What it shows now, as an agent takes it."""
        return self._as_seen(self._look(), self.moment.observation)

    def goal(self) -> Observation:
        """The goal image, and the observation at the goal.

        Raises:
            ValueError: If pictures are taken and the goal has none.
        """
        if self.cameras and self._picture is None:
            raise ValueError(f"{self.name} has no goal image: give GymEnv picture=, uint8 (h, w, 3)")
        frames = np.zeros((0, self.image_size, self.image_size), np.uint8) if self._picture is None else self._picture
        return self._as_seen(frames if self.cameras else frames[:0], self.goal_sensors()[:-2])

    def render(self) -> NDArray[np.uint8] | None:
        """The environment's own picture, None if it does not draw.

        Raises:
            MissingPackage: If a package is missing.
        """
        return drawn(self.own, self.name)

    def close(self) -> None:
        """Free everything."""
        self.own.close()

    def _begin(self, begun: tuple[Any, dict[str, Any]]) -> None:
        self._row, self._moments = None, dict[bytes, Moment]()
        self.moment = Moment(observation=flat(self.own, begun[0]), info=begun[1])

    def _advance(self, action: Array) -> None:
        """Carry out one action and take note."""
        last = self.moment
        observation, reward, ended, info = self._hold(action, last.observation, last.ended, last.info)
        self.moment = Moment(
            observation=observation,
            reward=reward,
            total=last.total + reward,
            ended=ended,
            steps=last.steps + 1,
            info=info,
        )

    def _hold(
        self, action: Array, observation: Array, ended: bool, info: Mapping[str, Any]
    ) -> tuple[Array, float, bool, Mapping[str, Any]]:
        """Hold one action for its repeats; after the end nothing moves any more."""
        reward, own, space = 0.0, self.own, self._bounds
        clipped = np.clip(action, space.low, space.high).astype(space.dtype)
        for _ in range(self.wanted.repeat):
            if ended:
                break
            seen, gained, over, _, info = own.step(clipped)
            observation, reward, ended = flat(own, seen), reward + float(gained), bool(over)
        return observation, reward, ended, info

    def _read_own(self) -> Array:
        own: Any = self.own.unwrapped
        return flat(self.own, own._get_obs()) if isinstance(self.states, MujocoStates) else self.moment.observation

    @contextmanager
    def undisturbed(self) -> Iterator[None]:
        """Whatever is done to the environment meanwhile, it is put back at the end."""
        present, moment = self.state(), self.moment
        try:
            yield
        finally:
            self.set_state(present)
            self.moment = moment

    def _try_myself(self) -> None:
        """Refuse an environment that does not come back to the same future; give up a plant that moves otherwise."""
        generator = np.random.default_rng(0)
        low, high = self.action_box.low.numpy(), self.action_box.high.numpy()
        actions = generator.uniform(low, high, (TRIED, self.action_box.dim)).astype(np.float32).astype(np.float64)
        with self.undisturbed():
            begin = self.state()
            (_, first), (states, second) = (self.try_out(begin, actions) for _ in range(2))
        if not np.array_equal(first, second, equal_nan=True):
            raise ValueError(
                f"{self.name} does not come back to the same future from a copy of itself: its true dynamics cannot be "
                "planned in; collect a log in it and plan in a learned model"
            )
        if self._plant is not None and not moves_alike(self, begin, actions, states):
            self._plant = None

    def _look(self) -> NDArray[np.uint8]:
        if not self.cameras:
            return np.zeros((0, self.image_size, self.image_size), np.uint8)
        picture = self.render()
        assert picture is not None
        return fitted(picture, self.image_size)

    def _as_seen(self, frames: NDArray[np.uint8], row: Array) -> Observation:
        return Observation(
            frames=torch.from_numpy(frames.copy())[None, None],
            cameras=self.cameras,
            proprio=torch.from_numpy(np.nan_to_num(row).astype(np.float32))[None, None],
        )

    def _observe(self) -> dict[str, NDArray[Any]]:
        seen: dict[str, NDArray[Any]] = {"proprio": np.nan_to_num(self.moment.observation).astype(np.float32)}
        if self.cameras:
            seen["frames"] = self._look()
            if self._picture is not None:
                seen["goal"] = self._picture.copy()
        return seen

    def _info(self) -> dict[str, Any]:
        return {**self.moment.info, "ended": self.moment.ended, "total": self.moment.total}

    def _spaces(self) -> gymnasium.Space[Any]:
        picture = gymnasium.spaces.Box(0, 255, (3, self.image_size, self.image_size), np.uint8)
        row = gymnasium.spaces.Box(-np.inf, np.inf, self.moment.observation.shape, np.float32)
        shown = ["frames", *(["goal"] if self._picture is not None else [])] if self.cameras else []
        return gymnasium.spaces.Dict({"proprio": row, **dict.fromkeys(shown, picture)})


def _key(row: Array) -> bytes:
    return row.tobytes()
