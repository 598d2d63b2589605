"""Any gymnasium environment as a task for planning.

    env = envs.make("gym:Pendulum-v1")
    env = GymEnv(my_env, goal=GymGoal(observation=[0.0, None], success=near([0.0, None], 0.05)), budget=100)
    task = task_of("mine", env)  # true dynamics, cost, baselines

MuJoCo environments are simulated by `mujoco.rollout` and their states are exact; all others execute plans in copies.
Both are tested once, when the adapter is made.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from jepa_mpc.envs.baselines import Policy
from jepa_mpc.envs.closing import close_at_exit
from jepa_mpc.envs.gym.course import Course
from jepa_mpc.envs.gym.episode_goal import EpisodeGoal
from jepa_mpc.envs.gym.goals import GOALS, GymGoal
from jepa_mpc.envs.gym.lanes import SharedStates
from jepa_mpc.envs.gym.making import box_of, budget_of, kept, made, name_of
from jepa_mpc.envs.gym.moments import Moment
from jepa_mpc.envs.gym.physics import moves_alike, plant_of
from jepa_mpc.envs.gym.states import CopiedStates, MujocoStates, States, aim, unshadow
from jepa_mpc.envs.gym.view import RENDER, View, drawn, renders_nothing
from jepa_mpc.envs.plant import Array, DirectPlant
from jepa_mpc.interfaces import Cost
from jepa_mpc.types import Observation

SEEDS = 2**31
"""Maximum seed; other packages accept no larger ones."""


class GymEnv(gymnasium.Env[dict[str, NDArray[Any]], NDArray[np.float32]]):
    """A gymnasium environment behind the interface of our tasks.

    Observations: `proprio`, the environment's own observation as one row; `frames` `(3, size, size)` if the camera
    "render" is named, and `goal` if the goal has an image. Sensors: the observation, the reward of the step, and
    whether the environment ended the episode. An ended episode stays in its last state.

    Args:
        env: A gymnasium id, or an environment; its time limits are removed.
        goal: The goal; by default that in `envs.gym.goals.GOALS`, else the environment's own reward.
        picture: The goal image, uint8 `(h, w, 3)`, or None.
        cameras: ("render",) for images, or none.
        image_size: Width and height of the images in pixels.
        budget: Actions per episode; by default the environment's own limit.
        render_mode: None or "rgb_array"; images need the latter.
        python: Another Python interpreter that runs the environment (see `envs.gym.bridge`), for packages that are
            incompatible with those of this one.
        shadows: Whether the images of a MuJoCo environment have shadows, mirrors and multisampling, which take most of
            the time without a GPU.
        viewpoint: Where the images of a MuJoCo environment are seen from (see `envs.gym.states.aim`).
        **settings: Arguments of `gymnasium.make`.

    Raises:
        UnknownName: If gymnasium has no such id.
        ValueError: If it cannot be made, its action space is not a finite box, or it is a vector of environments.
        MissingPackage: If a package for rendering is missing.
        BrokenBridge: If the other Python cannot make it.
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
        python: str | Path | None = None,
        shadows: bool = True,
        viewpoint: Mapping[str, Any] | None = None,
        **settings: Any,
    ) -> None:
        if tuple(cameras) not in ((), (RENDER,)):
            raise ValueError(f"a gymnasium environment has the camera {RENDER!r} or none, got {tuple(cameras)}")
        self.cameras, self.image_size = tuple(cameras), image_size
        self.render_mode = "rgb_array" if cameras else render_mode
        settings |= {} if self.render_mode is None else {"render_mode": self.render_mode}
        seen: dict[str, Any] = {"shadows": shadows, "viewpoint": viewpoint}
        chosen = made(env, settings, python=python, **seen) if isinstance(env, str) else env
        self._closing = weakref.finalize(self, chosen.close) if isinstance(env, str) else None
        self.name = name_of(chosen)
        if cameras and not isinstance(env, str) and chosen.render_mode != "rgb_array":
            raise renders_nothing(self.name)
        self.embodiment = f"gym:{self.name}"
        self.wanted = goal or GOALS.get(self.name) or GymGoal()
        self.horizon = self.wanted.horizon
        self.describe = self.wanted.describe or f"Reach what is wanted in {self.name}, or collect reward."
        self.action_box = box_of(chosen, self.name)
        self.budget = budget_of(chosen, self.name, self.wanted.repeat) if budget is None else budget
        assert isinstance(chosen.action_space, gymnasium.spaces.Box)  # box_of has checked it
        self.course = Course(kept(chosen), space=chosen.action_space, repeat=self.wanted.repeat)
        self.view = View(self.course, name=self.name, cameras=self.cameras, image_size=image_size)
        own = self.own.unwrapped
        per_step_s = getattr(own, "dt", None) or 1 / own.metadata.get("render_fps", 1)
        self.dt_s = float(per_step_s) * self.wanted.repeat
        self.action_space = chosen.action_space
        self.episode_goal = EpisodeGoal(self.wanted, self.view, picture=picture)
        self.course.begin(seed=0, options=dict(self.wanted.options))
        if not shadows and python is None:
            unshadow(self.own)
        if viewpoint and python is None:
            aim(self.own, viewpoint)
        if not isinstance(self.states, SharedStates):
            self.view.frames()  # refuses an environment that renders nothing
        if self._closing is not None:
            self._closing.atexit = False
            if self.cameras:
                close_at_exit(self._closing)  # it has drawn
        self.observation_space: gymnasium.Space[Any] = self.view.space(goal=self.episode_goal.shown)
        self._try_myself()

    @property
    def own(self) -> gymnasium.Env[Any, Any]:
        """The current wrapped environment."""
        return self.course.own

    @property
    def states(self) -> States:
        """Saves and restores its states."""
        return self.course.states

    @property
    def moment(self) -> Moment:
        """The current moment of the episode."""
        return self.course.moment

    @property
    def plant(self) -> DirectPlant:
        """The plant for `mujoco.rollout`.

        Raises:
            ValueError: If this is not a MuJoCo environment with actuator signals as actions, or the goal is only its
                reward.
        """
        if self._plant is None:
            raise ValueError(
                f"{self.name} cannot be planned in by mujoco.rollout: that takes a MuJoCo environment whose actions "
                "are its actuator signals, and a goal with observation=; plan with dynamics=stepping"
            )
        return self._plant

    @property
    def usual_dynamics(self) -> str:
        """Default name in `envs.true_dynamics.DYNAMICS`: "simulator" if available."""
        return "stepping" if self._plant is None else "simulator"

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Begin an episode; the options are the environment's own."""
        super().reset(seed=seed)
        drawn_seed = int(self.np_random.integers(SEEDS)) if seed is None else seed % SEEDS
        self.episode_goal.begin(drawn_seed, {**self.wanted.options, **(options or {})})
        return self._observe(), self._info()

    def step(self, action: NDArray[np.float32]) -> tuple[dict[str, NDArray[Any]], float, bool, bool, dict[str, Any]]:
        """Execute one action, clipped to the box; terminates only if an observation is not finite.

        Raises:
            ValueError: If the action has another shape.
        """
        if np.shape(action) != self.action_space.shape:
            raise ValueError(f"an action has shape {self.action_space.shape}, got {np.shape(action)}")
        self.course.advance(np.asarray(action, dtype=np.float64))
        broken = not np.isfinite(self.moment.observation).all()
        over = self.moment.ended or self.moment.steps >= self.budget
        return self._observe(), self.moment.reward, broken, over, self._info()

    def state(self) -> Array:
        """The current state as one row (see `envs.gym.states`); `set_state(state())` changes nothing.

        Raises:
            ValueError: If the environment does not reproduce the same future from a restored state.
        """
        if not self.returns and not isinstance(self.states, SharedStates):
            raise ValueError(
                f"{self.name} does not reproduce the same future from a copy of itself: its true dynamics cannot be "
                "planned in; collect a log in it and plan in a learned model"
            )
        return self.course.state()

    def set_state(self, state: Array) -> None:
        """Restore a state row.

        Raises:
            ValueError: If it is not a row of this environment, or is no longer stored.
        """
        self.course.set_state(state)

    def try_out(self, state: Array, actions: Array) -> tuple[Array, Array]:
        """Execute actions `(H, A)` from a state, without restoring: states `(H, D)` and sensors `(H, Q)`."""
        return self.course.try_out(state, actions)

    def undisturbed(self) -> AbstractContextManager[None]:
        """Restores the environment at the end of the block."""
        return self.course.undisturbed()

    def plant_sensors(self) -> Array:
        """The current sensors `(Q,)`: observation, reward, whether the episode has ended."""
        return np.array([*self.moment.observation, self.moment.reward, self.moment.ended], dtype=np.float64)

    def goal_sensors(self) -> Array:
        """The sensors at the goal `(Q,)`; zero on axes that are ignored."""
        return self.episode_goal.sensors()

    def success(self) -> bool:
        """Whether the goal is currently reached.

        Raises:
            ValueError: If neither the goal nor the environment defines success.
        """
        return self.episode_goal.success()

    def cost(self) -> Cost:
        """Distance of the observation to the goal's; without one, the negative reward, mean over the plan."""
        return self.episode_goal.cost()

    def oracle(self) -> Policy | None:
        """None: there is no oracle."""
        return None

    def observation(self) -> Observation:
        """The current observation, for an agent."""
        return self.view.observation(self.view.frames(), self.moment.observation)

    def goal(self) -> Observation:
        """The goal image, and the observation at the goal.

        Raises:
            ValueError: If there are image observations but no goal image.
        """
        return self.episode_goal.image()

    @property
    def ended(self) -> bool:
        """Whether the environment has ended the episode; it then stays in its last state."""
        return self.moment.ended

    def render(self) -> NDArray[np.uint8] | None:
        """The environment's own image, None if it does not render.

        Raises:
            MissingPackage: If a package is missing.
        """
        return drawn(self.own, self.name)

    def close(self) -> None:
        """Release all resources."""
        if self._closing is not None:
            self._closing.detach()
        self.own.close()

    def _try_myself(self) -> None:
        """Test whether states can be restored exactly, and whether a plant reproduces the environment."""
        tried = None if isinstance(self.states, SharedStates) else self.course.tried()
        if tried is None and isinstance(self.states, MujocoStates):
            others: list[States] = [] if self.states.whole else [MujocoStates(self.own, whole=True)]
            for states in (*others, CopiedStates(self.own)):
                self.course.keep_in(states)
                if (tried := self.course.tried()) is not None:
                    break
        self.returns = tried is not None
        self._plant = plant_of(self)
        if tried is not None and self._plant is not None and not moves_alike(self, *tried):
            self._plant = None

    def _observe(self) -> dict[str, NDArray[Any]]:
        seen: dict[str, NDArray[Any]] = {"proprio": np.nan_to_num(self.moment.observation).astype(np.float32)}
        if self.cameras:
            seen["frames"] = self.view.frames().copy()
            if self.episode_goal.picture is not None:
                seen["goal"] = self.episode_goal.picture.copy()
        return seen

    def _info(self) -> dict[str, Any]:
        return {**self.moment.info, "ended": self.moment.ended, "total": self.moment.total}
