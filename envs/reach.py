"""Reach: bring the hand to its position in a goal image, in labs unlike those of training."""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from jepa_mpc.envs.arm import Arm
from jepa_mpc.envs.arm_plant import ArmPlant
from jepa_mpc.envs.baselines import OracleIK, Policy
from jepa_mpc.envs.costs import apart, task_cost
from jepa_mpc.envs.robots import DEFAULT
from jepa_mpc.envs.scene import Appearance, Scene
from jepa_mpc.envs.tabletop import TabletopEnv, apart_from, place_of
from jepa_mpc.envs.tracing import Tracked
from jepa_mpc.interfaces import Cost

NEAREST_GOAL_M, FARTHEST_GOAL_M = 0.10, 0.35


class ReachEnv(TabletopEnv):
    """An arm on a table that should bring its hand to the position shown in the goal image.

    `reach-v1` moves the position only: in `action_box` the other axes have zero width. See `TabletopEnv` for actions,
    observations and arguments.

    Args:
        cameras: Names of the cameras: "left", "right", both or none.
        image_size: Width and height of the images in pixels.
        budget: Control steps per episode.
        split: Split of the labs if `reset` is not given a lab.
        render_mode: None or "rgb_array".
        appearance: Look of the arm: "primitives", or "meshes" of an installed package (see `envs.meshes`).
        robot: A name of `envs.robots.ROBOTS`.

    Raises:
        UnknownName: If a camera or the robot is unknown.
        ValueError: If sizes are not positive, or render mode or appearance are unknown.
        MissingPackage: If meshes are requested and no package has them.
    """

    name: ClassVar[str] = "reach-v1"
    reached_m: ClassVar[float] = 0.05
    horizon = 8
    describe = "Bring the hand to a place 10 to 35 cm away; reached within 5 cm."

    def __init__(
        self,
        *,
        cameras: tuple[str, ...] = ("left", "right"),
        image_size: int = 64,
        budget: int = 20,
        split: str = "in",
        render_mode: str | None = None,
        appearance: Appearance = "primitives",
        robot: str = DEFAULT,
    ) -> None:
        arm = Arm(Scene(appearance, robot=robot))
        self.tracked = Tracked(kind="site", name=arm.robot.hand)
        super().__init__(
            arm,
            ArmPlant(arm, box=arm.robot.box(0, 1, 2), read_out=("ee_in_base",)),
            cameras=cameras,
            image_size=image_size,
            budget=budget,
            split=split,
            render_mode=render_mode,
        )

    def goal_sensors(self) -> NDArray[np.float64]:
        """Goal position of the hand, in the base frame (m)."""
        return self.goal_m

    def cost(self) -> Cost:
        """Distance of the hand to the goal (m), mean over the plan."""
        return task_cost(apart((0, 1, 2)))

    def oracle(self) -> Policy:
        """Moves straight to the goal."""
        return OracleIK(self)

    def _choose(self, options: dict[str, Any]) -> None:
        self.start_m = place_of(options, "start_m", self._reachable)
        away = partial(apart_from, self.start_m, self._reachable, nearest_m=NEAREST_GOAL_M, farthest_m=FARTHEST_GOAL_M)
        self.goal_m = place_of(options, "goal_m", away)

    def _show_goal(self) -> None:
        self._place(self.goal_m)

    def _begin(self) -> None:
        self._place(self.start_m)

    def _gap_m(self) -> float:
        return float(np.linalg.norm(self.hand_m() - self.goal_m))
