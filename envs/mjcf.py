"""A task from any MJCF model: reach a goal configuration with the model's own actuators."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
import torch

from jepa_mpc.envs.costs import apart, task_cost
from jepa_mpc.envs.direct import DirectEnv
from jepa_mpc.envs.plant import TIME_DIM, Array, DirectPlant
from jepa_mpc.interfaces import Cost
from jepa_mpc.types import ActionBox


class MjcfEnv(DirectEnv):
    """Bring the model's sensors to their values at a goal configuration.

    Actions are the actuator signals within their `ctrlrange`. The distance is the Euclidean distance between the
    sensors `(Q,)` and the goal's, in the unit of the sensors. Override `goal_sensors`, `distance_of`, `success` or
    `cost` for another task.

    Args:
        mjcf: Path of an XML file, or the XML itself; actuators need a `ctrlrange`. Its `<sensor>` elements are compared
            with the goal; without any, the joint positions are.
        goal: Joint positions at the goal `(nq,)`.
        start: Joint positions at the start `(nq,)`; by default those of the model.
        noise: Half width of the uniform noise on the start, in the unit of each joint.
        tolerance: Maximum distance to the goal for success.
        substeps: Physics steps per action.
        horizon: Recommended planning horizon in steps.
        cameras: Names of cameras of the model; none by default.
        image_size: Width and height of the images (px).
        budget: Actions per episode.
        render_mode: None or "rgb_array", which renders the first camera of the model.

    Raises:
        ValueError: If the model cannot be read, an actuator has no range, start or goal have another length or are not
            finite, or tolerance or noise is out of range.
    """

    describe = "Bring the sensors to what they read at the goal configuration."

    def __init__(
        self,
        mjcf: str | Path,
        *,
        goal: Sequence[float] | Array,
        start: Sequence[float] | Array | None = None,
        noise: float = 0.0,
        tolerance: float = 0.05,
        substeps: int = 1,
        horizon: int = 10,
        cameras: tuple[str, ...] = (),
        image_size: int = 64,
        budget: int = 50,
        render_mode: str | None = None,
    ) -> None:
        model = _read(mjcf)
        self.horizon, self.tolerance, self._noise = horizon, tolerance, noise
        if not 0 < tolerance < math.inf or not 0 <= noise < math.inf:
            raise ValueError(f"need tolerance > 0 and noise >= 0, both finite, got {tolerance} and {noise}")
        self._goal = _positions(model, "goal", goal)
        self._first = _positions(model, "start", model.qpos0 if start is None else start)
        plant = DirectPlant(model, box=_box(model), substeps=substeps, sensors=_sensors(model), reading=_reading(model))
        super().__init__(
            plant,
            cameras=cameras,
            view=model.camera(0).name if model.ncam else "",
            image_size=image_size,
            budget=budget,
            render_mode=render_mode,
        )

    def goal_sensors(self) -> Array:
        """The sensors at the goal, at rest `(Q,)`."""
        model, data = self.plant.model, self._judge
        mujoco.mj_resetData(model, data)
        data.qpos[:] = self._goal
        mujoco.mj_forward(model, data)
        return self.plant.read(np.concatenate([[0.0], self._goal])[None, None], data.sensordata[None, None])[0, 0]

    def distance_of(self, sensors: Array) -> float:
        """Euclidean distance to the goal's sensors."""
        return float(np.linalg.norm(sensors - self.goal_sensors()))

    def success(self) -> bool:
        """Whether the distance is at most the tolerance."""
        return self.distance() <= self.tolerance

    def cost(self) -> Cost:
        """The same distance, mean over the plan."""
        return task_cost(apart(range(len(self.plant.sensors))))

    def _start(self, options: dict[str, Any]) -> tuple[Array, Array]:
        noise = self.np_random.uniform(-self._noise, self._noise, self.plant.model.nq)
        return self._first + noise, np.zeros(self.plant.model.nv)

    def _goal_positions(self) -> Array:
        return self._goal


def _read(mjcf: str | Path) -> mujoco.MjModel:
    text = str(mjcf)
    if text.lstrip().startswith("<"):
        return mujoco.MjModel.from_xml_string(text)
    return mujoco.MjModel.from_xml_path(text)


def _positions(model: mujoco.MjModel, name: str, value: Sequence[float] | Array) -> Array:
    found = np.asarray(value, dtype=np.float64)
    if found.shape != (model.nq,) or not np.isfinite(found).all():
        raise ValueError(f"{name} needs {model.nq} finite joint positions, got {value!r}")
    return found


def _box(model: mujoco.MjModel) -> ActionBox:
    names = [model.actuator(number).name or str(number) for number in range(model.nu)]
    free = [name for name, limited in zip(names, model.actuator_ctrllimited, strict=True) if not limited]
    if free or not names:
        raise ValueError(f"every actuator needs a ctrlrange; without: {', '.join(free) or 'there is no actuator'}")
    low, high = torch.from_numpy(model.actuator_ctrlrange.copy()).float().unbind(dim=1)
    return ActionBox(low=low, high=high)


def _sensors(model: mujoco.MjModel) -> tuple[str, ...]:
    if not model.nsensor:
        return tuple(f"position {number}" for number in range(model.nq))
    found = [model.sensor(number) for number in range(model.nsensor)]
    return tuple(f"{one.name} {axis}" for one in found for axis in range(int(one.dim[0])))


def _reading(model: mujoco.MjModel) -> Any:
    if model.nsensor:
        return lambda physics, sensordata: sensordata
    return lambda physics, sensordata: physics[..., TIME_DIM : TIME_DIM + model.nq]
