"""Robot records, beside their MJCF in `assets`; no other module counts joints.

A robot's MJCF includes `lab.xml` and follows a few rules (`Robot.check` tests the first):

- joints, actuators and degrees of freedom start with the arm's hinges from base to hand, followed by the fingers'
slides;
- the site of the hand is between the fingertips, z out of the fingers and y along their opening;
- the keyframe `home` is the rest posture of the arm, and the body `payload` is the load in the hand.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path

import mujoco
import numpy as np
import torch

from jepa_mpc.types import ActionBox

ASSETS = Path(__file__).parent / "assets"
HOME = "home"


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Column layout of a row.

    Args:
        joints: Joint angles (rad).
        opening: Finger opening, each side (m).
        rotation: Orientation of the hand in the base frame.
        place: Position of the hand in the base frame (m); empty if absent.
    """

    joints: slice
    opening: slice
    rotation: slice
    place: slice = field(default_factory=lambda: slice(0, 0))

    @property
    def dim(self) -> int:
        """Length of a row."""
        return max(part.stop for part in (self.joints, self.opening, self.rotation, self.place))


@dataclass(frozen=True, kw_only=True, eq=False)
class Robot:
    """An arm with a gripper, as tasks, kinematics and logs use it.

    Args:
        name: Its name in commands.
        model: File name of its MJCF.
        joints: The arm's hinges from base to hand; each has an actuator of the same name.
        fingers: The gripper's slides, likewise; all get the same opening command.
        largest_opening_m: Opening, each side, at which an action of 1 closes the gripper altogether.
        action_scale: Largest command per control step: three displacements (m), three rotations (rad), gripper share.
        hand: Site between the fingertips.
        base: Site at the robot's base, the frame of all commands.
        payload: Body whose mass the labs change.
        painted: Materials whose brightness the labs change.
        surfaces: The manufacturer's mesh of each body, a file in the package of `envs.meshes`; may be empty.
        surface_materials: Materials of meshes that do not use the material `link`.
    """

    name: str
    model: str
    joints: tuple[str, ...]
    fingers: tuple[str, ...] = ("left_finger", "right_finger")
    largest_opening_m: float
    action_scale: tuple[float, ...] = (0.05, 0.05, 0.05, 0.25, 0.25, 0.25, 1.0)
    hand: str = "ee"
    base: str = "base"
    payload: str = "payload"
    painted: tuple[str, ...] = ("link", "joint", "hand", "finger")
    surfaces: Mapping[str, str] = field(default_factory=dict)
    surface_materials: Mapping[str, str] = field(default_factory=dict)

    @property
    def path(self) -> Path:
        """Its MJCF."""
        return ASSETS / self.model

    @property
    def num_joints(self) -> int:
        """Number of the arm's joints."""
        return len(self.joints)

    @property
    def arm(self) -> slice:
        """Slice of the arm in the model's positions, degrees of freedom and actuators."""
        return slice(0, self.num_joints)

    @property
    def grip(self) -> slice:
        """Slice of the fingers in the model's positions, degrees of freedom and actuators."""
        return slice(self.num_joints, self.num_joints + len(self.fingers))

    @property
    def felt(self) -> Columns:
        """Proprioception; its rotation is a rotation vector (rad) relative to the hand pointing down."""
        return _columns(joints=self.num_joints, opening=1, place=3, rotation=3)

    @property
    def place_axes(self) -> tuple[int, ...]:
        """Columns of the hand's position in the proprioception."""
        return tuple(range(self.felt.place.start, self.felt.place.stop))

    @property
    def told(self) -> Columns:
        """A command (`envs.arm.ArmCommand`); its rotation is a matrix, row by row."""
        return _columns(joints=self.num_joints, rotation=9, opening=1)

    def home(self, model: mujoco.MjModel) -> np.ndarray:
        """Home posture `(joints,)` in rad."""
        return np.array(model.key(HOME).qpos[self.arm])

    def home_opening_m(self, model: mujoco.MjModel) -> float:
        """Finger opening (each side) at home, in metres."""
        return float(model.key(HOME).qpos[self.grip][0])

    def box(self, *axes: int) -> ActionBox:
        """Bounds of actions that move these of the seven axes and hold the others."""
        scale = torch.tensor(self.action_scale)
        held = torch.ones(len(scale), dtype=torch.bool)
        held[list(axes)] = False
        high = scale.masked_fill(held, 0.0)
        return ActionBox(low=-high, high=high)

    def targets(self, joints: np.ndarray, opening_m: np.ndarray) -> np.ndarray:
        """Actuator targets `(..., actuators)` of joints `(..., joints)` and openings `(..., 1)`."""
        return np.concatenate([joints, *[opening_m] * len(self.fingers)], axis=-1)

    def check(self, model: mujoco.MjModel) -> None:
        """Refuse a model that violates the rules above.

        Raises:
            ValueError: Names the violated rule.
        """
        wanted = (*self.joints, *self.fingers)
        count = len(wanted)
        joints = tuple(model.joint(number).name for number in range(min(count, model.njnt)))
        actuators = tuple(model.actuator(number).name for number in range(min(count, model.nu)))
        if joints != wanted or actuators != wanted:
            raise ValueError(
                f"the model of {self.name} must begin with the joints and actuators {wanted}, got {joints} and "
                f"{actuators}"
            )
        kinds = tuple(int(kind) for kind in model.jnt_type[:count])
        hinge, slide = int(mujoco.mjtJoint.mjJNT_HINGE), int(mujoco.mjtJoint.mjJNT_SLIDE)
        if kinds != (hinge,) * self.num_joints + (slide,) * len(self.fingers):
            raise ValueError(f"the arm of {self.name} must have hinges, and its fingers slides")


def _columns(**widths: int) -> Columns:
    """Parts of these widths, one after another."""
    ends = accumulate(widths.values())
    return Columns(**{name: slice(end - width, end) for (name, width), end in zip(widths.items(), ends, strict=True)})


PANDA = Robot(
    name="panda",
    model="panda.xml",
    joints=tuple(f"joint{number}" for number in range(1, 8)),
    largest_opening_m=0.04,
    surfaces={
        "base": "visual/link0.stl",
        **{f"link{number}": f"visual/link{number}.stl" for number in range(1, 8)},
        "hand": "visual/hand.stl",
        "left_finger": "collision/finger.stl",
        "right_finger": "collision/finger.stl",
    },
    surface_materials={"hand": "hand", "left_finger": "finger", "right_finger": "finger"},
)
UR5E = Robot(
    name="ur5e",
    model="ur5e.xml",
    joints=("shoulder_pan", "shoulder_lift", "elbow", "wrist1", "wrist2", "wrist3"),
    largest_opening_m=0.0425,
)
ROBOTS: Mapping[str, Robot] = {robot.name: robot for robot in (PANDA, UR5E)}
DEFAULT = PANDA.name
