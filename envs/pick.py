"""Pick: grasp an object, carry it and put it down where goal images show it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, Literal, cast, get_args

import mujoco
import numpy as np
import torch
from numpy.typing import NDArray

from jepa_mpc.envs.arm import HAND_DOWN, Arm
from jepa_mpc.envs.baselines import Policy
from jepa_mpc.envs.contact import Touch, touch
from jepa_mpc.envs.costs import task_cost
from jepa_mpc.envs.handling_cost import handling, moving
from jepa_mpc.envs.handling_plant import HandlingPlant
from jepa_mpc.envs.labs import Lab
from jepa_mpc.envs.physical_table import OPEN_M, clear_of_clutter, make_physical, physical_spec, still
from jepa_mpc.envs.picking import Picker
from jepa_mpc.envs.pushing import Pusher
from jepa_mpc.envs.robots import DEFAULT
from jepa_mpc.envs.scene import Appearance, Scene
from jepa_mpc.envs.snapshot import restore, take
from jepa_mpc.envs.tabletop import TabletopEnv, apart_from, place_of
from jepa_mpc.envs.things import BODY, KINDS, Kind, Thing, sample_thing
from jepa_mpc.envs.tracing import Tracked
from jepa_mpc.interfaces import Cost
from jepa_mpc.types import Observation

Picking = Literal["images", "moved", "final"]
Protocol = Literal["images", "moved", "final", "slide"]
PICKING: tuple[Picking, ...] = get_args(Picking)
PROTOCOLS: tuple[Protocol, ...] = get_args(Protocol)
STAGES = ("grasp", "near", "place")
BUDGETS = (8, 10, 6)
SCENE_ZOOM = 1.5  # scene cameras are drawn so many times larger than what is kept of them
LARGEST_STEP_M = 0.05
HEIGHTS_M = (0.012, 0.35)
CARRIED_M = 0.10  # how far above its goal the second image shows the object, and how far the hand rises in the third
SQUEEZE_M = 0.015
NEAREST_GOAL_M, FARTHEST_GOAL_M = 0.08, 0.30
FARTHEST_SLIDE_M = 0.20
SLID_M = 0.04
BESIDE_M = (0.085, 0.12)  # from the object's middle to the closed hand before it slides it
MOVED_M = (0.04, 0.08)
SPOT_LOW_M, SPOT_HIGH_M = np.array([0.38, -0.22]), np.array([0.60, 0.22])
CLEAR_M = 0.08
UPRIGHT = np.cos(np.deg2rad(20.0))
LIFTED_M = 0.07
Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class SubGoal:
    """One image of an episode, and what it shows.

    Args:
        name: "grasp", "near" or "place", or "slide".
        frames: Pictures `(3 per camera, size, size)`, uint8.
        sensors: What the plant's sensors read there (see `handling_plant.NAMES`).
        steps: Control steps until the next one counts.
    """

    name: str
    frames: NDArray[np.uint8]
    sensors: Array
    steps: int


class PickEnv(TabletopEnv):
    """The arm of reach with open fingers, an object on the table, clutter that collides, and a camera at the wrist.

    Of an action's 7 numbers dx, dy, dz and the gripper's share are free (see `TabletopEnv`). The goal image changes
    under way: the object in the closed hand, carried 10 cm above its goal, and put down with the open hand 10 cm above
    it, for 8, 10 and 6 steps. Protocols: `images` shows these three; `moved` too, but the object was moved by 4 to
    8 cm after the first was taken; `final` shows the last one alone, for all 24 steps. `slide` shows the object at a
    place 8 to 20 cm away, too, but the gripper stays closed and the hand begins beside the object, so that it must be
    pushed. Of the scene cameras' pictures the part around the table is kept, the same part in every lab.

    Args:
        protocol: "images", "moved", "final" or "slide".
        object: Kind of the object, or "mixed" for one drawn in each episode.
        cameras: Names of the cameras: "left", "right", "wrist", or none.
        image_size: Width and height of the pictures in pixels.
        budget: Control steps per episode.
        split: Where labs come from when `reset` is not given one.
        render_mode: None or "rgb_array".
        appearance: What the arm looks like: "primitives" or "meshes".
        robot: A name of `envs.robots.ROBOTS`.

    Raises:
        UnknownName: If a camera or the robot is unknown.
        ValueError: If protocol or object are unknown, sizes are not positive, or render mode or appearance unknown.
    """

    name: ClassVar[str] = "pick-v1"
    reached_m: ClassVar[float] = 0.05
    camera_names: ClassVar[tuple[str, ...]] = ("left", "right", "wrist")
    horizon = 3
    tracked = Tracked(kind="body", name=BODY)
    describe = "Grasp an object, carry it 8 to 30 cm and put it down; placed within 5 cm, upright and released."

    def __init__(
        self,
        *,
        protocol: Protocol = "images",
        object: Kind | Literal["mixed"] = "mixed",
        cameras: tuple[str, ...] = ("left", "right", "wrist"),
        image_size: int = 64,
        budget: int = sum(BUDGETS),
        split: str = "in",
        render_mode: str | None = None,
        appearance: Appearance = "primitives",
        robot: str = DEFAULT,
    ) -> None:
        self.protocol = self._usual_protocol = _known_protocol(protocol)
        free = (0, 1, 2) if self._slides else (0, 1, 2, 6)
        if object not in (*KINDS, "mixed"):
            raise ValueError(f"object must be one of {(*KINDS, 'mixed')}, got {object!r}")
        self.kinds: tuple[Kind, ...] = KINDS if object == "mixed" else (object,)
        arm = Arm(Scene(appearance, robot=robot, make_spec=physical_spec), heights_m=HEIGHTS_M)
        super().__init__(
            arm,
            HandlingPlant(arm, box=arm.robot.box(*free)),
            cameras=cameras,
            image_size=image_size,
            budget=budget,
            split=split,
            render_mode=render_mode,
        )
        self.thing = Thing(kind=self.kinds[0])
        self.sub_goals: tuple[SubGoal, ...] = ()

    @property
    def _slides(self) -> bool:
        """Whether objects are pushed; the gripper is held then, in every episode."""
        return self._usual_protocol == "slide"

    # What the task shows and how it is judged

    def sub_goal(self) -> SubGoal:
        """The one that counts now."""
        stage = int(np.searchsorted(self._ends(), self._steps, side="right"))
        return self.sub_goals[min(stage, len(self.sub_goals) - 1)]

    def ends_sub_goal(self) -> bool:
        """Whether the next step is the last one for which it counts."""
        return self._steps + 1 in self._ends()

    def goal(self) -> Observation:
        """The goal image that counts now."""
        return Observation(frames=torch.from_numpy(self.sub_goal().frames.copy())[None, None], cameras=self.cameras)

    def goal_sensors(self) -> Array:
        """What the plant's sensors read in that image."""
        return self.sub_goal().sensors

    def object_m(self) -> Array:
        """Position of the object's middle in the base frame, in metres."""
        return self.scene.thing_in_base(BODY)

    def height_m(self) -> float:
        """How far the object's middle is above where it stands on the table, in metres."""
        return float(self.object_m()[2] - self.lab.table_height_m - self.thing.half_height_m)

    def touch(self) -> Touch:
        """Forces on the object."""
        return touch(self.scene.model, self.scene.data, self.arm.robot.fingers)

    def contact_n(self) -> NDArray[np.float32]:
        """Forces `(3,)` of left finger, right finger and all else on the object, in newtons."""
        felt = self.touch()
        return np.array([felt.left_n, felt.right_n, felt.support_n], dtype=np.float32)

    def gripper_command_m(self) -> NDArray[np.float32]:
        """Opening `(1,)` of each finger that was last commanded, in metres."""
        return np.array([self.arm.command.opening_m], dtype=np.float32)

    def grasped(self) -> bool:
        """Whether lifting the hand by 10 cm, tried out on the present state, takes the object along."""
        height = self.object_m()[2]
        with self._lifted():
            return bool(self.object_m()[2] - height > LIFTED_M)

    def carried(self) -> bool:
        """Whether the object is held, at most 5 cm from where the goal image shows it."""
        return self.touch().held and self._gap_m() < self.reached_m

    def success(self) -> bool:
        """Whether the object is placed: within 5 cm of its goal, upright, and left there by a hand that rises 10 cm.

        Slid objects are where they should be within 4 cm in the plane of the table.
        """
        if self._slides:
            return float(np.linalg.norm((self.object_m() - self.goal_m)[:2])) < SLID_M
        if not self._placed():
            return False
        with self._lifted():
            return self._placed() and not self.touch().touched

    def cost(self) -> Cost:
        """Object, hand and grip to where the goal shows them (see `handling_cost`)."""
        return task_cost(moving() if self._slides else handling(), at_end=1.0, effort=0.005)

    def oracle(self) -> Policy:
        """Grasps, carries and puts down by rule, or pushes."""
        return Pusher(self) if self._slides else Picker(self)

    def block_m(self) -> Array:
        """Position of the object's middle, for `Pusher`."""
        return self.object_m()

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Begin an episode (see `TabletopEnv.reset`).

        Further options: `object_m`, `thing` (a Thing), `in_hand`: True hands the object over at the start, and
        `protocol`: that of this episode alone.

        Raises:
            ValueError: If the protocol is unknown, or needs the gripper and this environment holds it, or holds it and
                this environment does not.
        """
        self._steps = 0
        return super().reset(seed=seed, options=options)

    # What `TabletopEnv` asks for

    def _enter(self, lab: Lab) -> None:
        super()._enter(still(lab))
        make_physical(self.scene)

    def _choose(self, options: dict[str, Any]) -> None:
        protocol = _known_protocol(options.get("protocol", self._usual_protocol))
        if (protocol == "slide") != self._slides:
            raise ValueError(f"an environment of protocol {self._usual_protocol!r} cannot play {protocol!r}")
        self.protocol = protocol
        self.thing = options.get("thing") or sample_thing(self.np_random, self.lab, kinds=self.kinds)
        self.thing.shape(self.scene.model)
        self.scene.derive()
        self._shown_m = self._object_start_m = place_of(options, "object_m", self._spot)
        farthest_m = FARTHEST_SLIDE_M if self._slides else FARTHEST_GOAL_M
        away = partial(apart_from, self._shown_m, self._spot, nearest_m=NEAREST_GOAL_M, farthest_m=farthest_m)
        self.goal_m = place_of(options, "goal_m", away)
        if self.protocol == "moved":
            self._object_start_m = self._aside(self._shown_m)
        self._in_hand = bool(options.get("in_hand"))
        begin = self._beside if self._slides else self._above
        self.start_m = place_of(options, "start_m", lambda: begin(self._object_start_m))

    def _show_goal(self) -> None:
        """Take the pictures of all goals; the last one is shown at the end."""
        up = np.array([0.0, 0.0, CARRIED_M])
        shown = {
            "grasp": (self._shown_m, self._shown_m, self.thing.half_width_m),
            "near": (self.goal_m + up, self.goal_m + up, self.thing.half_width_m),
            "place": (self.goal_m, self.goal_m + up, OPEN_M),
        }
        steps: tuple[int, ...] = BUDGETS
        if self.protocol == "final":
            shown, steps = {"place": shown["place"]}, (self.budget,)
        elif self._slides:
            shown, steps = {"slide": (self.goal_m, self.goal_m + up, 0.0)}, (self.budget,)
        goals = []
        for number, (name, count) in enumerate(zip(shown, steps, strict=True)):
            object_m, holding_m, opening_m = shown[name]
            sensors = self._show(object_m, holding_m, opening_m)
            goals.append(SubGoal(name=name, frames=self._look(-1 - number), sensors=sensors, steps=count))
        self.sub_goals = tuple(goals)

    def _begin(self) -> None:
        self._place(self.start_m)
        if self._in_hand:
            self._lay(self.start_m - np.array([0.0, 0.0, self.thing.held_at_m]), self.thing.half_width_m)
            opening_m = max(0.0, self.thing.half_width_m - SQUEEZE_M)
        else:
            opening_m = 0.0 if self._slides else OPEN_M
            self._lay(self._object_start_m, opening_m)
        self.arm.command = replace(self.arm.command, opening_m=opening_m)
        self.scene.data.ctrl[:] = self.arm.controls(self.arm.command)

    def _gap_m(self) -> float:
        return float(np.linalg.norm(self.object_m() - self.goal_sensors()[3:6]))

    def _seen(self, camera: str) -> NDArray[np.uint8]:
        """The wrist's whole picture; of a scene camera's the lower middle, where the table is."""
        if camera == "wrist":
            return self._draw(camera, self.image_size)
        wide = self._draw(camera, round(SCENE_ZOOM * self.image_size))
        top, left = len(wide) // 4, (len(wide) - self.image_size) // 2
        return wide[top : top + self.image_size, left : left + self.image_size]

    def _observe(self) -> dict[str, NDArray[Any]]:
        return {**super()._observe(), "goal": self.sub_goal().frames.copy()}

    def _info(self) -> dict[str, Any]:
        return {
            **super()._info(),
            "is_success": not self._broken and self.success(),
            "sub_goal": self.sub_goal().name,
            "object": self.thing.kind,
            "contact_n": self.contact_n(),
        }

    # Helpers

    def _ends(self) -> list[int]:
        return np.cumsum([goal.steps for goal in self.sub_goals]).tolist()

    def _placed(self) -> bool:
        gap = np.linalg.norm(self.object_m() - self.goal_m)
        turned = np.zeros(9)
        mujoco.mju_quat2Mat(turned, self.scene.data.joint(BODY).qpos[3:])
        return bool(gap < self.reached_m and turned[8] > UPRIGHT)

    @contextmanager
    def _lifted(self) -> Iterator[None]:
        """The scene after the hand has risen by 10 cm with the present grip; afterwards, as it was."""
        before = take(self.scene.model, self.scene.data, self.arm.command, self._steps)
        rise = np.zeros(7)
        for step in (LARGEST_STEP_M, LARGEST_STEP_M, 0.0):
            rise[2] = step
            self.arm.move(rise)
        yield
        self.arm.command = before.command
        restore(self.arm.robot, self.scene.model, self.scene.data, before)

    def _spot(self) -> Array:
        """A place for the object's middle on the table, free of clutter."""
        height = self.lab.table_height_m + self.thing.half_height_m
        while True:
            spot = np.array([*self.np_random.uniform(SPOT_LOW_M, SPOT_HIGH_M), height])
            if self._is_clear(spot):
                return spot

    def _is_clear(self, spot: Array) -> bool:
        return clear_of_clutter(self.lab, self.scene.to_world(spot)[:2], margin_m=CLEAR_M)

    def _aside(self, spot: Array) -> Array:
        """A place 4 to 8 cm from another one."""
        while True:
            angle, way = self.np_random.uniform(-np.pi, np.pi), self.np_random.uniform(*MOVED_M)
            moved = spot + way * np.array([np.cos(angle), np.sin(angle), 0.0])
            if (moved[:2] >= SPOT_LOW_M - 0.03).all() and (moved[:2] <= SPOT_HIGH_M + 0.03).all():
                return moved

    def _above(self, object_m: Array) -> Array:
        """A place for the hand 10 to 18 cm above the object and up to 10 cm beside it."""

        def above() -> Array:
            angle, way = self.np_random.uniform(-np.pi, np.pi), 0.10 * np.sqrt(self.np_random.uniform())
            beside = way * np.array([np.cos(angle), np.sin(angle), 0.0])
            return object_m + beside + np.array([0.0, 0.0, self.np_random.uniform(0.10, 0.18)])

        return self._reachable(above)

    def _beside(self, object_m: Array) -> Array:
        """A place for the closed hand 8.5 to 12 cm beside the object, as high as its middle."""

        def beside() -> Array:
            angle, way = self.np_random.uniform(-np.pi, np.pi), self.np_random.uniform(*BESIDE_M)
            return object_m + way * np.array([np.cos(angle), np.sin(angle), 0.0])

        return self._reachable(beside)

    def _show(self, object_m: Array, holding_m: Array, opening_m: float) -> Array:
        """Lay the object and put the hand where it would hold it at another place; what the sensors read there."""
        hand = holding_m + np.array([0.0, 0.0, self.thing.held_at_m])
        self.arm.place(hand, HAND_DOWN)
        self._lay(object_m, opening_m)
        sensors = self.plant_sensors()
        sensors[9] = opening_m if opening_m == OPEN_M else max(0.0, opening_m - SQUEEZE_M)
        return sensors

    def _lay(self, object_m: Array, opening_m: float) -> None:
        """Put the object down upright, at rest and square to the base, and the fingers apart."""
        scene, data = self.scene, self.scene.data
        scene.lay(BODY, object_m)
        data.qpos[self.arm.robot.grip] = opening_m
        data.qvel[:] = 0.0
        mujoco.mj_forward(scene.model, data)


def _known_protocol(name: Any) -> Protocol:
    if name not in PROTOCOLS:
        raise ValueError(f"protocol must be one of {PROTOCOLS}, got {name!r}")
    return cast(Protocol, name)
