"""Base class of the tabletop tasks: labs, cameras, commands, exact states."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import gymnasium
import mujoco
import numpy as np
import torch
from numpy.typing import NDArray

from jepa_mpc.envs.arm import DT_S, HAND_DOWN, Arm
from jepa_mpc.envs.image_effects import degrade
from jepa_mpc.envs.labs import SIDES, Lab, sample_lab
from jepa_mpc.envs.plant import EVERYTHING, Plant
from jepa_mpc.envs.render import Drawer, make_renderer
from jepa_mpc.envs.snapshot import from_vector, restore, take
from jepa_mpc.envs.stepping import one_action
from jepa_mpc.envs.tracing import Tracked
from jepa_mpc.errors import choose
from jepa_mpc.seeding import numpy_generator
from jepa_mpc.types import ActionBox, Observation

PROPRIO_LIMIT = 10.0  # far beyond any angle (rad) or length (m) of the arm
BREAKDOWN_REWARD = -1.0  # farther than any position in the workspace
REACHED_M = 0.003  # a position is reachable if inverse kinematics comes this close
HELD_AXIS = 1e-6  # gymnasium needs a positive width on every axis; sampled values are clipped

Draw = Callable[[], NDArray[np.float64]]


class TabletopEnv(gymnasium.Env[dict[str, NDArray[Any]], NDArray[np.float32]], ABC):
    """An arm on a table in a lab, commanded by 7 numbers per control step of 0.24 s.

    Actions are (dx, dy, dz) in metres in the robot's base frame, a rotation vector in radians, and the share by which
    the gripper closes; axes of zero width in `action_box` are held, and every action is clipped to that box.
    Observations: `frames` and `goal`, uint8 `(3 per camera, size, size)`, and `proprio` (see `Robot.felt`).

    Args:
        arm: A robot in its scene.
        plant: The plant of the true dynamics.
        cameras: Names of the cameras, in the order of their channels: "left", "right"; none without image observations,
            which is fast and needs no OpenGL.
        image_size: Width and height of the images in pixels.
        budget: Control steps per episode.
        split: Split of the labs if `reset` is not given a lab.
        render_mode: None or "rgb_array" (a 384 px image from a third camera).

    Raises:
        UnknownName: If a camera is unknown.
        ValueError: If sizes are not positive, or the render mode is unknown.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": round(1 / DT_S)}  # type: ignore[misc]
    name: ClassVar[str]
    tracked: Tracked | None = None
    reached_m: ClassVar[float]
    camera_names: ClassVar[tuple[str, ...]] = tuple(SIDES)

    def __init__(
        self,
        arm: Arm,
        plant: Plant,
        *,
        cameras: tuple[str, ...],
        image_size: int,
        budget: int,
        split: str,
        render_mode: str | None,
    ) -> None:
        for camera in cameras:
            choose(dict.fromkeys(self.camera_names), camera, "camera")
        if not image_size >= 8 or not 1 <= budget < math.inf:
            raise ValueError(f"need image_size >= 8 and budget >= 1, got {image_size} and {budget}")
        if render_mode not in (None, "rgb_array"):
            raise ValueError(f"render_mode must be None or 'rgb_array', got {render_mode!r}")
        self.cameras, self.image_size, self.budget, self.split = tuple(cameras), image_size, budget, split
        self.render_mode = render_mode
        self.dt_s = DT_S
        self.scene, self.arm, self.plant = arm.scene, arm, plant
        self._renderer: Drawer | None = None
        self._judge = mujoco.MjData(arm.scene.model)
        self._state = np.empty(mujoco.mj_stateSize(arm.scene.model, EVERYTHING))
        self._box = plant.box
        self._low, self._high = self._box.low.double().numpy(), self._box.high.double().numpy()
        width = np.maximum(self._box.high.numpy(), np.float32(HELD_AXIS))
        self.action_space = gymnasium.spaces.Box(-width, width, dtype=np.float32)
        shape = (3 * len(cameras), image_size, image_size)
        self.observation_space: gymnasium.Space[Any] = gymnasium.spaces.Dict(
            {
                "frames": gymnasium.spaces.Box(0, 255, shape, np.uint8),
                "goal": gymnasium.spaces.Box(0, 255, shape, np.uint8),
                "proprio": gymnasium.spaces.Box(-PROPRIO_LIMIT, PROPRIO_LIMIT, (arm.robot.felt.dim,), np.float32),
            }
        )
        self._steps = 0
        self._broken = False
        self._noise_seed = 0
        self.start_m = self.goal_m = np.zeros(3)
        self._goal_frames = np.zeros(shape, np.uint8)
        self._frames = self._late_frames = self._goal_frames

    @abstractmethod
    def _choose(self, options: dict[str, Any]) -> None:
        """Choose start and goal of this episode."""

    @abstractmethod
    def _show_goal(self) -> None:
        """Set the scene to the goal."""

    @abstractmethod
    def _begin(self) -> None:
        """Set the scene to the start."""

    @abstractmethod
    def _gap_m(self) -> float:
        """Distance of the current scene to the goal, in metres."""

    @property
    def lab(self) -> Lab:
        """The lab of this episode."""
        if self.scene.lab is None:
            raise RuntimeError("call reset() first: there is no lab yet")
        return self.scene.lab

    @property
    def embodiment(self) -> str:
        """Name of the robot."""
        return self.arm.robot.name

    @property
    def action_box(self) -> ActionBox:
        """Bounds of one action, in physical units."""
        return self._box

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Begin an episode.

        Args:
            seed: Seed of start, goal and image noise (and of the lab, if none is given).
            options: `lab` (a Lab) and positions `(3,)` in the base frame (`start_m`, `goal_m`), all optional.
        """
        super().reset(seed=seed)
        options = options or {}
        lab = options.get("lab") or sample_lab(int(self.np_random.integers(2**31)), split=self.split)
        self._enter(lab)
        self._noise_seed = int(self.np_random.integers(2**62))
        self._choose(options)
        self._steps, self._broken = 0, False
        self._show_goal()
        self._goal_frames = self._look(-1)
        self._begin()
        self._frames = self._late_frames = self._look(0)
        return self._observe(), self._info()

    def step(self, action: Any) -> tuple[dict[str, NDArray[Any]], float, bool, bool, dict[str, Any]]:
        """Execute one command; actions outside of the bounds are clipped.

        The episode terminates with `info["sim_error"]` if the simulation diverges; images then stay unchanged.

        Raises:
            ValueError: If the action, an array or a tensor, has another shape than `(7,)` or `(1, 7)`.
        """
        wanted = one_action(action, self._low.shape, task=self.name)
        allowed = np.clip(wanted, self._low, self._high) if np.isfinite(wanted).all() else wanted
        sim_error = self.arm.move(allowed)
        self._steps += 1
        self._broken = sim_error is not None
        info = self._info()
        if self._broken:
            return self._observe(), BREAKDOWN_REWARD, True, False, {**info, "sim_error": sim_error}
        self._late_frames, self._frames = self._frames, self._look(self._steps)
        return self._observe(), -float(info["distance_m"]), False, self._steps >= self.budget, info

    def state(self) -> NDArray[np.float64]:
        """Physics, last command and step count (see `envs.snapshot`); `set_state(state())` changes nothing."""
        return take(self.scene.model, self.scene.data, self.arm.command, self._steps).vector()

    def set_state(self, state: NDArray[np.float64]) -> None:
        """Restore a recorded state of the same lab.

        A delayed camera then shows the current frame, since the previous one is not part of the state.

        Raises:
            ValueError: If the state has another length.
        """
        snapshot = from_vector(self.arm.robot, self.scene.model, state)
        self.arm.command, self._steps, self._broken = snapshot.command, snapshot.steps, False
        self.scene.drift(float(snapshot.physics[0]))
        restore(self.arm.robot, self.scene.model, self.scene.data, snapshot)
        self._frames = self._late_frames = self._look(self._steps)

    def goal(self) -> Observation:
        """The goal image: this lab and its cameras, with everything at the goal."""
        return Observation(frames=torch.from_numpy(self._goal_frames.copy())[None, None], cameras=self.cameras)

    def observation(self) -> Observation:
        """Current camera images and joints, for an agent."""
        frames = self._late_frames if self.lab.image.latency else self._frames
        return Observation(
            frames=torch.from_numpy(frames.copy())[None, None],
            cameras=self.cameras,
            proprio=torch.from_numpy(self.arm.proprio())[None, None],
        )

    def plant_sensors(self) -> NDArray[np.float64]:
        """The plant's current sensors `(Q,)`."""
        model = self.scene.model
        mujoco.mj_getState(model, self.scene.data, self._state, EVERYTHING)
        mujoco.mj_setState(model, self._judge, self._state, EVERYTHING)
        mujoco.mj_forward(model, self._judge)
        return self.plant.read(np.zeros((1, 1, 0)), self._judge.sensordata[None, None])[0, 0]

    def hand_m(self) -> NDArray[np.float64]:
        """Position of the hand in the base frame, in metres."""
        return self.arm.hand_pose()[0]

    def distance_m(self) -> float:
        """Distance to the goal, in metres; infinite after a divergence."""
        return float("inf") if self._broken else self._gap_m()

    def success(self) -> bool:
        """Whether the goal is currently reached."""
        return self.distance_m() < self.reached_m

    def picture(self, camera: str, size: int) -> NDArray[np.uint8]:
        """A clean image `(size, size, 3)` for viewers, without the lab's image effects."""
        return self._draw(camera, size)

    def render(self) -> NDArray[np.uint8] | None:
        """A 384 px image for viewers, with render mode "rgb_array"."""
        return self.picture("view", 384) if self.render_mode == "rgb_array" else None

    def close(self) -> None:
        """Free the OpenGL context."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None

    def _enter(self, lab: Lab) -> None:
        if self.scene.lab == lab:
            return
        self.scene.apply(lab)
        if self._renderer is not None:
            self._renderer.upload_textures()

    def _place(self, position_m: NDArray[np.float64]) -> float:
        error = self.arm.place(position_m, HAND_DOWN)
        self.scene.drift(0.0)
        return error

    def _reachable(self, draw: Draw | None = None) -> NDArray[np.float64]:
        """A reachable position of the hand: redrawn until there is one, by default from the whole workspace."""
        low, high = self.arm.workspace()
        while True:
            spot = self.np_random.uniform(low, high) if draw is None else draw()
            if (spot >= low).all() and (spot <= high).all() and self._place(spot) < REACHED_M:
                return spot

    def _draw(self, camera: str, size: int) -> NDArray[np.uint8]:
        if self._renderer is None:
            self._renderer = make_renderer(self.scene.model)
        return self._renderer.draw(self.scene.data, camera, size)

    def _seen(self, camera: str) -> NDArray[np.uint8]:
        """The image of a camera of the task `(size, size, 3)`, before image effects."""
        return self._draw(camera, self.image_size)

    def _look(self, moment: int) -> NDArray[np.uint8]:
        pictures = [np.zeros((0, self.image_size, self.image_size), np.uint8)]
        for camera in self.cameras:
            rng = numpy_generator(self._noise_seed, camera, moment)
            pictures.append(degrade(self._seen(camera), self.lab.image, rng).transpose(2, 0, 1))
        return np.concatenate(pictures)

    def _observe(self) -> dict[str, NDArray[Any]]:
        frames = self._late_frames if self.lab.image.latency else self._frames
        return {"frames": frames.copy(), "goal": self._goal_frames.copy(), "proprio": self._felt()}

    def _felt(self) -> NDArray[np.float32]:
        """Proprioception; after a divergence only guaranteed to be finite and in range."""
        felt = self.arm.proprio()
        return np.clip(np.nan_to_num(felt), -PROPRIO_LIMIT, PROPRIO_LIMIT) if self._broken else felt

    def _info(self) -> dict[str, Any]:
        distance = self.distance_m()
        return {"distance_m": distance, "is_success": distance < self.reached_m, "lab": self.lab.name}


def place_of(options: Mapping[str, Any], name: str, draw: Draw) -> NDArray[np.float64]:
    """A position of an episode (m): the one given to `reset`, else a random one."""
    given = options.get(name)
    return draw() if given is None else np.asarray(given, dtype=np.float64)


def apart_from(start_m: NDArray[np.float64], draw: Draw, *, nearest_m: float, farthest_m: float) -> NDArray[np.float64]:
    """A position neither too near to the start nor too far from it, redrawn until there is one."""
    while True:
        spot = draw()
        if nearest_m <= np.linalg.norm(spot - start_m) <= farthest_m:
            return spot
