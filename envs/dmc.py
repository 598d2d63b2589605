"""dm_control's tasks, of the suite and of manipulation, with the interface of our own tasks.

Models, starts and targets are dm_control's; MuJoCo steps them bit for bit as dm_control's own `step` does, with the
same state rows and true dynamics as all other tasks.
"""

from __future__ import annotations

from typing import Any

import mujoco
import numpy as np
import torch

from jepa_mpc.envs.closing import close_first
from jepa_mpc.envs.direct import DirectEnv
from jepa_mpc.envs.dmc_tasks import DMC_TASKS, DmcTask
from jepa_mpc.envs.plant import Array, DirectPlant
from jepa_mpc.errors import choose
from jepa_mpc.interfaces import Cost
from jepa_mpc.types import ActionBox

MANIPULATION = "manipulation"


class DmcEnv(DirectEnv):
    """A task of dm_control.

    Actions are dm_control's own, each held for `DmcTask.repeat` of its control steps; axes with a range beyond 1 are
    scaled by their largest value. Starts are dm_control's own, too, except those already at the goal.

    Args:
        task: A name of `DMC_TASKS`.
        cameras: Names of cameras of its model; None for the task's own.
        image_size: Width and height of the images in pixels.
        budget: Control steps per episode; None for the task's own.
        render_mode: None or "rgb_array".

    Raises:
        UnknownName: If there is no such task; lists the known ones.
    """

    def __init__(
        self,
        *,
        task: str,
        cameras: tuple[str, ...] | None = None,
        image_size: int = 64,
        budget: int | None = None,
        render_mode: str | None = None,
    ) -> None:
        self.task: DmcTask = choose(DMC_TASKS, task, "dm_control task")
        self.horizon, self.describe, self.tracked = self.task.horizon, self.task.describe, self.task.tracked
        self._source = _load(self.task)
        super().__init__(
            self._made_plant(),
            cameras=(self.task.camera,) if cameras is None else cameras,
            view=self.task.camera,
            image_size=image_size,
            budget=self.task.budget if budget is None else budget,
            render_mode=render_mode,
        )

    def goal_sensors(self) -> Array:
        """The task's sensors at its target."""
        return self.task.goal_sensors(self.plant.model)

    def distance_of(self, sensors: Array) -> float:
        """Distance to the target, in the task's own measure."""
        return self.task.distance(sensors, self.goal_sensors())

    def success(self) -> bool:
        """Whether the target is currently reached."""
        return not self._broken and self.task.reached(self.plant_sensors(), self.goal_sensors())

    def cost(self) -> Cost:
        """The task's cost."""
        return self.task.cost()

    def _start(self, options: dict[str, Any]) -> tuple[Array, Array]:
        """Start an episode of dm_control, repeated until it does not start at its goal."""
        random = self._source.random_state if self.task.domain == MANIPULATION else self._source.task.random
        random.seed(int(self.np_random.integers(2**31)))
        while True:
            self._source.reset()
            if self._source.physics.model.ptr is not self.plant.model:  # manipulation tasks rebuild the model
                self.plant = self._made_plant()
            data = self._source.physics.data
            self._began, velocities = np.array(data.qpos), np.array(data.qvel)
            row = np.concatenate([[0.0], self._began, velocities])[None, None]
            now = self.plant.read(row, np.array(data.sensordata)[None, None])[0, 0]
            if self.task.holds or not self.task.reached(now, self.goal_sensors()):
                return self._began, velocities

    def _goal_positions(self) -> Array:
        return self.task.goal_positions(self.plant.model, self._began)

    def _made_plant(self) -> DirectPlant:
        model: mujoco.MjModel = self._source.physics.model.ptr
        spec = self._source.action_spec()
        low, high = (np.broadcast_to(bound, spec.shape) for bound in (spec.minimum, spec.maximum))
        gain = np.maximum(1.0, np.maximum(-low, high))
        per_step = round(self._source.control_timestep() / model.opt.timestep)
        return DirectPlant(
            model,
            box=ActionBox(
                low=torch.tensor(low / gain, dtype=torch.float32), high=torch.tensor(high / gain, dtype=torch.float32)
            ),
            gain=gain,
            substeps=per_step * self.task.repeat,
            sensors=self.task.sensors,
            reading=self.task.read(model),
        )


def _load(task: DmcTask) -> Any:
    if task.domain == MANIPULATION:
        from dm_control import manipulation

        source = manipulation.load(task.task, seed=0)
        source.reset()  # completes the model of a manipulation task
    else:
        from dm_control import suite

        source = suite.load(task.domain, task.task, task_kwargs={"random": 0})
    close_first()  # dm_control has registered the end of its EGL
    return source
