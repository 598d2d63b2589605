"""Push: slide a block on the table to its position in a goal image."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

import mujoco
import numpy as np
from numpy.typing import NDArray

from jepa_mpc.envs.arm import HAND_DOWN, Arm
from jepa_mpc.envs.arm_plant import ArmPlant
from jepa_mpc.envs.baselines import Policy
from jepa_mpc.envs.costs import apart, task_cost, weighted
from jepa_mpc.envs.labs import Lab
from jepa_mpc.envs.pushing import BEHIND_M, PushAbout, Pusher, approach
from jepa_mpc.envs.robots import DEFAULT, HOME, Robot
from jepa_mpc.envs.scene import Appearance, Scene, model_spec
from jepa_mpc.envs.tabletop import TabletopEnv, apart_from, place_of
from jepa_mpc.envs.tracing import Tracked
from jepa_mpc.interfaces import Cost

HEIGHT_M = 0.03  # constant height of the point between the fingertips above the table
BLOCK = "block"
HALF_BLOCK_M = 0.03
BLOCK_KG = 0.15
SLIDING = 0.4
BLOCK_RGBA = (0.85, 0.25, 0.15, 1.0)
NEAREST_GOAL_M, FARTHEST_GOAL_M = 0.08, 0.20
BLOCK_LOW_M, BLOCK_HIGH_M = np.array([0.38, -0.18]), np.array([0.58, 0.18])


class PushEnv(TabletopEnv):
    """The arm of the reaching task, with closed fingers just above the table, and a block to push.

    Of an action's 7 entries only dx and dy are free (see `TabletopEnv`); the hand stays 3 cm above the table. Labs are
    those of the reaching task without clutter, which has no mass and would not resist the block.

    Args:
        cameras: Names of the cameras: "left", "right", both or none.
        image_size: Width and height of the images in pixels.
        budget: Control steps per episode.
        split: Split of the labs if `reset` is not given a lab.
        render_mode: None or "rgb_array".
        appearance: Look of the arm: "primitives" or "meshes".
        robot: A name of `envs.robots.ROBOTS`.

    Raises:
        UnknownName: If a camera or the robot is unknown.
        ValueError: If sizes are not positive, or render mode or appearance are unknown.
    """

    name: ClassVar[str] = "push-v1"
    reached_m: ClassVar[float] = 0.04
    horizon = 8
    tracked = Tracked(kind="body", name=BLOCK)
    describe = "Push a block 8 to 20 cm over the table; reached within 4 cm."

    def __init__(
        self,
        *,
        cameras: tuple[str, ...] = ("left", "right"),
        image_size: int = 64,
        budget: int = 40,
        split: str = "in",
        render_mode: str | None = None,
        appearance: Appearance = "primitives",
        robot: str = DEFAULT,
    ) -> None:
        arm = Arm(Scene(appearance, robot=robot, make_spec=push_spec), heights_m=(HEIGHT_M, HEIGHT_M))
        super().__init__(
            arm,
            ArmPlant(arm, box=arm.robot.box(0, 1), read_out=("ee_in_base", "block_in_base")),
            cameras=cameras,
            image_size=image_size,
            budget=budget,
            split=split,
            render_mode=render_mode,
        )

    def block_m(self) -> NDArray[np.float64]:
        """Position of the block's centre in the base frame, in metres."""
        return self.scene.thing_in_base(BLOCK)

    def block_yaw(self) -> float:
        """Turn of the block about the vertical, in radians; it looks the same after a quarter turn."""
        return self.scene.yaw_in_base(BLOCK)

    def goal_sensors(self) -> NDArray[np.float64]:
        """Hand behind the block at its goal, and the block's goal, in the base frame (m)."""
        return np.concatenate([self.goal_m, self.goal_m])

    def cost(self) -> Cost:
        """Distance of the block to the goal, and of the hand to the position behind the block (m)."""
        return task_cost(weighted((1.0, apart((3, 4))), (0.3, approach)), at_end=1.0)

    def oracle(self) -> Policy:
        """Moves behind the block and pushes along the line to the goal."""
        return Pusher(self)

    def motion(self) -> PushAbout:
        """A motion that pushes the block around, for logs."""
        return PushAbout(self, low_m=BLOCK_LOW_M, high_m=BLOCK_HIGH_M)

    def _enter(self, lab: Lab) -> None:
        super()._enter(replace(lab, distractors=()))

    def _choose(self, options: dict[str, Any]) -> None:
        """Random positions of block and goal, and the hand behind the block with a small offset."""
        self._block_start_m = place_of(options, "block_m", self._spot)
        away = partial(
            apart_from, self._block_start_m, self._spot, nearest_m=NEAREST_GOAL_M, farthest_m=FARTHEST_GOAL_M
        )
        self.goal_m = place_of(options, "goal_m", away)
        self.start_m = place_of(options, "start_m", lambda: self._beside(self._block_start_m))

    def _spot(self) -> NDArray[np.float64]:
        """A position for the block's centre on the table."""
        height = self.lab.table_height_m + HALF_BLOCK_M
        return np.array([*self.np_random.uniform(BLOCK_LOW_M, BLOCK_HIGH_M), height])

    def _beside(self, block_m: NDArray[np.float64]) -> NDArray[np.float64]:
        """A position for the hand at some distance from the block, in any reachable direction."""
        height = self.arm.workspace()[0][2]

        def aside() -> NDArray[np.float64]:
            angle, way = self.np_random.uniform(-np.pi, np.pi), self.np_random.uniform(1.0, 1.5) * BEHIND_M
            return np.array([*(block_m[:2] + way * np.array([np.cos(angle), np.sin(angle)])), height])

        return self._reachable(aside)

    def _show_goal(self) -> None:
        away = self.goal_m + np.array([0.0, 0.0, 0.25])
        self.arm.place(away, HAND_DOWN)
        self._lay(self.goal_m)

    def _begin(self) -> None:
        self._place(self.start_m)
        self._lay(self._block_start_m)

    def _lay(self, block_m: NDArray[np.float64]) -> None:
        """Place the block at rest, aligned with the base."""
        self.scene.lay(BLOCK, block_m)
        mujoco.mj_forward(self.scene.model, self.scene.data)

    def _gap_m(self) -> float:
        return float(np.linalg.norm((self.block_m() - self.goal_m)[:2]))


def push_spec(appearance: Appearance, robot: Robot) -> mujoco.MjSpec:
    """The model of the robot with a block on the table and a sensor of its position."""
    spec = model_spec(appearance, robot)
    body = spec.worldbody.add_body(name=BLOCK, pos=[0.5, 0.0, HALF_BLOCK_M])
    body.add_freejoint(name=BLOCK)
    body.add_geom(
        name=BLOCK,
        type=mujoco.mjtGeom.mjGEOM_BOX,
        size=[HALF_BLOCK_M] * 3,
        mass=BLOCK_KG,
        rgba=BLOCK_RGBA,
        contype=1,
        conaffinity=1,
        friction=[SLIDING, 0.005, 0.0001],
        priority=1,
        condim=4,
    )
    spec.add_sensor(
        name="block_in_base",
        type=mujoco.mjtSensor.mjSENS_FRAMEPOS,
        objtype=mujoco.mjtObj.mjOBJ_BODY,
        objname=BLOCK,
        reftype=mujoco.mjtObj.mjOBJ_SITE,
        refname=robot.base,
    )
    home = spec.key(HOME)
    home.qpos = [*list(home.qpos)[: robot.grip.stop], 0.5, 0.0, HALF_BLOCK_M, 1.0, 0.0, 0.0, 0.0]
    return spec
