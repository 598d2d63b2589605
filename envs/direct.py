"""Base class of tasks whose actions are actuator signals: images, exact states, divergence checks."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any

import gymnasium
import mujoco
import numpy as np
import torch
from numpy.typing import NDArray

from jepa_mpc.envs.baselines import Policy
from jepa_mpc.envs.breakdown import broken, unfit, warnings
from jepa_mpc.envs.plant import GUESS, PHYSICS, Array, DirectPlant, layout_of
from jepa_mpc.envs.render import Drawer, make_renderer
from jepa_mpc.envs.stepping import one_action
from jepa_mpc.envs.tracing import Tracked
from jepa_mpc.types import ActionBox, Observation

PROPRIO_LIMIT = 1e3
BREAKDOWN_REWARD = -10.0


class DirectEnv(gymnasium.Env[dict[str, NDArray[Any]], NDArray[np.float32]], ABC):
    """A MuJoCo task whose actions are held actuator signals, with a goal image.

    Observations: `frames` and `goal`, uint8 `(3 per camera, size, size)`, and `proprio`: positions and velocities.
    The reward is the negative distance to the goal, in the task's own measure.

    Args:
        plant: The simulated plant.
        cameras: Names of cameras of the model, in the order of their channels; none without image observations.
        view: The camera of `render`.
        image_size: Width and height of the images in pixels.
        budget: Control steps per episode.
        render_mode: None or "rgb_array".

    Raises:
        ValueError: If a camera is not in the model, sizes are not positive, or the render mode is unknown.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"]}
    tracked: Tracked | None = None
    """The tracked part of the task, for videos that draw its predicted path; None draws no path."""

    def __init__(
        self,
        plant: DirectPlant,
        *,
        cameras: tuple[str, ...],
        view: str,
        image_size: int,
        budget: int,
        render_mode: str | None,
    ) -> None:
        known = [plant.model.camera(number).name for number in range(plant.model.ncam)]
        if not set(cameras) <= set(known):
            raise ValueError(f"cameras must be of {known}, got {cameras}")
        if not image_size >= 8 or not 1 <= budget < math.inf:
            raise ValueError(f"need image_size >= 8 and budget >= 1, got {image_size} and {budget}")
        if render_mode not in (None, "rgb_array"):
            raise ValueError(f"render_mode must be None or 'rgb_array', got {render_mode!r}")
        self.plant = plant
        self.cameras, self.view, self.image_size, self.budget = tuple(cameras), view, image_size, budget
        self.render_mode = render_mode
        self.dt_s = float(plant.model.opt.timestep * plant.substeps)
        self.metadata = {**self.metadata, "render_fps": round(1 / self.dt_s)}
        self._renderer: Drawer | None = None
        low, high = plant.box.low.numpy(), plant.box.high.numpy()
        self.action_space = gymnasium.spaces.Box(low, high, dtype=np.float32)
        shape = (3 * len(cameras), image_size, image_size)
        size = plant.model.nq + plant.model.nv
        self.observation_space: gymnasium.Space[Any] = gymnasium.spaces.Dict(
            {
                "frames": gymnasium.spaces.Box(0, 255, shape, np.uint8),
                "goal": gymnasium.spaces.Box(0, 255, shape, np.uint8),
                "proprio": gymnasium.spaces.Box(-PROPRIO_LIMIT, PROPRIO_LIMIT, (size,), np.float32),
            }
        )
        self._low, self._high = low.astype(np.float64), high.astype(np.float64)
        self._steps, self._broken = 0, False
        self._frames = self._goal_frames = np.zeros(shape, np.uint8)
        self._adopt()

    @abstractmethod
    def _start(self, options: dict[str, Any]) -> tuple[Array, Array]:
        """Initial positions and velocities of an episode; may replace the plant's model."""

    @abstractmethod
    def _goal_positions(self) -> Array:
        """Positions at the goal."""

    @abstractmethod
    def goal_sensors(self) -> Array:
        """The plant's sensors at the goal `(Q,)`."""

    @abstractmethod
    def distance_of(self, sensors: Array) -> float:
        """Distance of a state with these sensors `(Q,)` to the goal, in the task's own measure."""

    @abstractmethod
    def success(self) -> bool:
        """Whether the goal is currently reached."""

    @property
    def action_box(self) -> ActionBox:
        """Bounds of one action, in physical units."""
        return self.plant.box

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Begin an episode.

        Args:
            seed: Seed of the start (and of the goal, if it varies).
            options: `start`: positions and velocities in one row, instead of random ones.
        """
        super().reset(seed=seed)
        options = options or {}
        positions, velocities = self._start(options)
        self._adopt()
        if "start" in options:
            positions, velocities = np.split(np.asarray(options["start"], dtype=np.float64), [self.plant.model.nq])
        self._steps, self._broken = 0, False
        self._put(self._goal_positions(), np.zeros_like(velocities))
        self._goal_frames = self._look()
        self._put(positions, velocities)
        self._frames = self._look()
        return self._observe(), self._info()

    def step(self, action: Any) -> tuple[dict[str, NDArray[Any]], float, bool, bool, dict[str, Any]]:
        """Hold one action for a control step; actions outside of the bounds are clipped.

        The episode terminates with `info["sim_error"]` if the simulation diverges; images then stay unchanged.

        Raises:
            ValueError: If the action, an array or a tensor, has another shape than `(A,)` or `(1, A)`.
        """
        wanted = one_action(action, self._low.shape, task=type(self).__name__)
        sim_error = self._move(wanted)
        self._steps += 1
        self._broken = sim_error is not None
        info = self._info()
        if self._broken:
            return self._observe(), BREAKDOWN_REWARD, True, False, {**info, "sim_error": sim_error}
        self._frames = self._look()
        return self._observe(), -float(info["distance"]), False, self._steps >= self.budget, info

    def state(self) -> Array:
        """The full state as one row (see `envs.plant`); `set_state(state())` changes nothing."""
        layout = layout_of(self.plant.model, 0)
        physics, guess = np.empty(layout.physics_dim), np.empty(layout.guess_dim)
        mujoco.mj_getState(self.plant.model, self.data, physics, PHYSICS)
        mujoco.mj_getState(self.plant.model, self.data, guess, GUESS)
        return np.concatenate([physics, [self._steps], guess])

    def set_state(self, state: Array) -> None:
        """Restore a recorded state of the same episode's model.

        Raises:
            ValueError: If the state has another length.
        """
        layout = layout_of(self.plant.model, 0)
        if np.shape(state) != (layout.dim,):
            raise ValueError(f"state must have shape ({layout.dim},), got {np.shape(state)}")
        physics, _, steps, guess = layout.split(np.array(state, dtype=np.float64))
        mujoco.mj_setState(self.plant.model, self.data, physics, PHYSICS)
        mujoco.mj_forward(self.plant.model, self.data)
        mujoco.mj_setState(self.plant.model, self.data, guess, GUESS)
        self._steps, self._broken = int(steps[0]), False
        self._frames = self._look()

    def plant_sensors(self) -> Array:
        """The plant's current sensors `(Q,)`."""
        physics = self.state()[None, None, : layout_of(self.plant.model, 0).physics_dim]
        sensordata = np.zeros((1, 1, self.plant.model.nsensordata))
        if self.plant.model.nsensordata:
            mujoco.mj_setState(self.plant.model, self._judge, physics[0, 0], PHYSICS)
            mujoco.mj_forward(self.plant.model, self._judge)
            sensordata[0, 0] = self._judge.sensordata
        return self.plant.read(physics, sensordata)[0, 0]

    def distance(self) -> float:
        """Distance to the goal, in the task's own measure; infinite after a divergence."""
        return float("inf") if self._broken else self.distance_of(self.plant_sensors())

    def goal(self) -> Observation:
        """The goal image."""
        return Observation(frames=torch.from_numpy(self._goal_frames.copy())[None, None], cameras=self.cameras)

    def observation(self) -> Observation:
        """Current camera images and joints, for an agent."""
        return Observation(
            frames=torch.from_numpy(self._frames.copy())[None, None],
            cameras=self.cameras,
            proprio=torch.from_numpy(self._felt())[None, None],
        )

    def oracle(self) -> Policy | None:
        """An oracle policy, if there is one; None here."""
        return None

    def picture(self, camera: str, size: int) -> NDArray[np.uint8]:
        """A current image `(size, size, 3)`."""
        if self._renderer is None:
            self._renderer = make_renderer(self.plant.model)
        return self._renderer.draw(self.data, camera, size)

    def render(self) -> NDArray[np.uint8] | None:
        """A 384 px image for viewers, with render mode "rgb_array"."""
        return self.picture(self.view, 384) if self.render_mode == "rgb_array" else None

    def close(self) -> None:
        """Free the OpenGL context."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None

    def _adopt(self) -> None:
        """Read the plant's model, which a reset may have replaced."""
        model = self.plant.model
        if getattr(self, "_adopted", None) is model:
            return
        self.close()
        self._adopted = model
        global_, quality = model.vis.global_, model.vis.quality
        global_.offwidth, global_.offheight = max(global_.offwidth, 768), max(global_.offheight, 768)
        quality.shadowsize, quality.offsamples = min(quality.shadowsize, 1024), 0
        self.data, self._judge = mujoco.MjData(model), mujoco.MjData(model)

    def _put(self, positions: Array, velocities: Array) -> None:
        mujoco.mj_resetData(self.plant.model, self.data)
        self.data.qpos[:], self.data.qvel[:] = positions, velocities
        mujoco.mj_forward(self.plant.model, self.data)
        mujoco.mj_setState(self.plant.model, self.data, np.zeros(self.plant.model.nv), GUESS)

    def _move(self, action: Array) -> str | None:
        """Simulate one control step; None, or the reason for a divergence."""
        model, data = self.plant.model, self.data
        reason = unfit(action, data, self.plant.deepest_overlap_m)
        if reason is not None:
            return reason
        before, due_s = warnings(data), data.time + self.plant.substeps * model.opt.timestep
        data.ctrl[:] = np.clip(action, self._low, self._high) * self.plant.gain
        mujoco.mj_step(model, data, self.plant.substeps)
        reason = broken(data, before, due_s)
        mujoco.mj_kinematics(model, data)
        mujoco.mj_camlight(model, data)
        return reason

    def _look(self) -> NDArray[np.uint8]:
        pictures = [np.zeros((0, self.image_size, self.image_size), np.uint8)]
        pictures += [self.picture(camera, self.image_size).transpose(2, 0, 1) for camera in self.cameras]
        return np.concatenate(pictures)

    def _felt(self) -> NDArray[np.float32]:
        felt = np.nan_to_num(np.concatenate([self.data.qpos, self.data.qvel]))
        return np.clip(felt, -PROPRIO_LIMIT, PROPRIO_LIMIT).astype(np.float32)

    def _observe(self) -> dict[str, NDArray[Any]]:
        return {"frames": self._frames.copy(), "goal": self._goal_frames.copy(), "proprio": self._felt()}

    def _info(self) -> dict[str, Any]:
        return {"distance": self.distance(), "is_success": not self._broken and self.success()}
