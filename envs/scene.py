"""The MuJoCo scene of a lab: one compiled model, into which a lab's parameters are written in place."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Literal, get_args

import mujoco
import numpy as np
from numpy.typing import NDArray

from jepa_mpc.envs.labs import SURFACES, WORKSPACE_HIGH, WORKSPACE_LOW, CameraPose, Distractor, Lab
from jepa_mpc.envs.meshes import attach_meshes
from jepa_mpc.envs.robots import DEFAULT, HOME, ROBOTS, Robot
from jepa_mpc.envs.textures import paint
from jepa_mpc.errors import choose

Appearance = Literal["primitives", "meshes"]
MakeSpec = Callable[[Appearance, Robot], mujoco.MjSpec]
NUM_CLUTTER = 6
NUM_LIGHTS = 4
CENTRE_IN_BASE = (np.array(WORKSPACE_LOW) + np.array(WORKSPACE_HIGH)) / 2
SHAPES = {
    "box": mujoco.mjtGeom.mjGEOM_BOX,
    "cylinder": mujoco.mjtGeom.mjGEOM_CYLINDER,
    "sphere": mujoco.mjtGeom.mjGEOM_SPHERE,
    "capsule": mujoco.mjtGeom.mjGEOM_CAPSULE,
    "ellipsoid": mujoco.mjtGeom.mjGEOM_ELLIPSOID,
    "mesh": mujoco.mjtGeom.mjGEOM_MESH,
}


def model_spec(appearance: Appearance, robot: Robot) -> mujoco.MjSpec:
    """The description of robot, table and lab, not yet compiled."""
    spec = mujoco.MjSpec.from_file(str(robot.path))
    if appearance == "meshes":
        attach_meshes(spec, robot)
    return spec


@lru_cache(maxsize=4)
def _nominal(appearance: Appearance, robot: Robot, make_spec: MakeSpec) -> mujoco.MjModel:
    return _compiled(make_spec(appearance, robot))


def _compiled(spec: mujoco.MjSpec) -> mujoco.MjModel:
    """The model; up to MuJoCo 3.5 several contact points of a cylinder have to be asked for."""
    model = spec.compile()
    model.opt.enableflags |= int(getattr(mujoco.mjtEnableBit, "mjENBL_MULTICCD", 0))
    return model


class Scene:
    """Model and data of one simulated lab.

    Args:
        appearance: Look of the arm; its motion does not depend on it.
        robot: A name of `envs.robots.ROBOTS`.
        make_spec: Describes the model, which may contain more after the arm.

    Attributes:
        robot: The robot.
        model, data: The MuJoCo model and state; every scene has its own.
        lab: The current lab, or None before the first `apply`.

    Raises:
        ValueError: If the appearance is unknown, or the robot has no meshes.
        UnknownName: If there is no such robot; lists the known ones.
        MissingPackage: If meshes are requested and no package has them.
    """

    def __init__(
        self, appearance: Appearance = "primitives", *, robot: str = DEFAULT, make_spec: MakeSpec = model_spec
    ) -> None:
        if appearance not in get_args(Appearance):
            raise ValueError(f"appearance must be one of {get_args(Appearance)}, got {appearance!r}")
        self.robot = choose(ROBOTS, robot, "robot")
        self.nominal = _nominal(appearance, self.robot, make_spec)
        self.model = _compiled(make_spec(appearance, self.robot))
        self.robot.check(self.model)
        self.data = mujoco.MjData(self.model)
        self.lab: Lab | None = None
        self.base_in_world = np.zeros(3)
        self.base_rotation = np.eye(3)

    def apply(self, lab: Lab) -> None:
        """Set up a lab: robot base, table, cameras, lights, textures, colours, clutter and dynamics."""
        self.lab = lab
        self._place_base(lab)
        for name, pose in lab.cameras.items():
            self._place_camera(name, pose)
        self._light(lab)
        self._paint(lab)
        for number in range(NUM_CLUTTER):
            self._place_clutter(number, lab.distractors[number] if number < len(lab.distractors) else None)
        self._tune_dynamics(lab)
        self.derive()
        mujoco.mj_resetDataKeyframe(self.model, self.data, self.model.key(HOME).id)
        mujoco.mj_forward(self.model, self.data)

    def derive(self) -> None:
        """Recompute the model's constants, such as inverse weights, after masses or poses were changed in place.

        The extent stays, which scales the near plane of the cameras.
        """
        stat = self.model.stat
        extent, center = stat.extent, stat.center.copy()
        mujoco.mj_setConst(self.model, self.data)
        stat.extent, stat.center[:] = extent, center  # up to MuJoCo 3.5 it replaces them

    def drift(self, time_s: float) -> None:
        """Move the drifting distractors: their position is a function of the simulated time alone."""
        if self.lab is None:
            return
        for number, item in enumerate(self.lab.distractors):
            if any(item.drift_m_s):
                body = self.model.body(f"clutter{number}").id
                self.model.body_pos[body, :2] = np.array(item.at_m) + time_s * np.array(item.drift_m_s)

    def thing_in_base(self, joint: str) -> NDArray[np.float64]:
        """Position of a free body in the base frame, in metres."""
        return (self.data.joint(joint).qpos[:3] - self.base_in_world) @ self.base_rotation

    def yaw_in_base(self, joint: str) -> float:
        """Turn of a free body about the vertical of the base frame, in radians."""
        turn = np.zeros(9)
        mujoco.mju_quat2Mat(turn, self.data.joint(joint).qpos[3:7])
        ahead = self.base_rotation.T @ turn.reshape(3, 3)[:, 0]
        return float(np.arctan2(ahead[1], ahead[0]))

    def lay(self, joint: str, at_m: NDArray[np.float64]) -> None:
        """Place a free body at rest, aligned with the base; `at_m` is in the base frame (m)."""
        turn = np.zeros(4)
        mujoco.mju_mat2Quat(turn, np.ascontiguousarray(self.base_rotation).ravel())
        self.data.joint(joint).qpos = [*self.to_world(at_m), *turn]
        self.data.joint(joint).qvel = 0.0

    def to_world(self, point_in_base: np.ndarray) -> np.ndarray:
        """Points `(..., 3)` of the robot's base frame in world coordinates."""
        return point_in_base @ self.base_rotation.T + self.base_in_world

    def project(self, points_in_base: np.ndarray, camera: str) -> np.ndarray:
        """Image coordinates `(..., 2)` in [0, 1] (x right, y down) of points `(..., 3)` in the base frame."""
        number = self.model.camera(camera).id
        rotation = self.data.cam_xmat[number].reshape(3, 3)
        seen = (self.to_world(points_in_base) - self.data.cam_xpos[number]) @ rotation
        scale = 0.5 / np.tan(np.deg2rad(self.model.cam_fovy[number]) / 2)
        depth = np.maximum(-seen[..., 2:], 1e-6)
        return np.array([0.5, 0.5]) + scale * seen[..., :2] * np.array([1.0, -1.0]) / depth

    def _place_base(self, lab: Lab) -> None:
        angle = np.deg2rad(lab.base_yaw_deg)
        base = int(self.model.site_bodyid[self.model.site(self.robot.base).id])
        self.model.body_pos[base] = [*lab.base_xy_m, 0.0]
        self.model.body_quat[base] = [np.cos(angle / 2), 0, 0, np.sin(angle / 2)]
        self.base_in_world = np.array([*lab.base_xy_m, 0.0])
        cos, sin = np.cos(angle), np.sin(angle)
        self.base_rotation = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1.0]])
        table = self.model.body("table").id
        self.model.body_pos[table, 2] = self.nominal.body_pos[table, 2] + lab.table_height_m

    def _place_camera(self, name: str, pose: CameraPose) -> None:
        """Aim at the workspace centre plus an offset; the azimuth is in world coordinates, so base yaw is visible."""
        azimuth, elevation, roll = np.deg2rad([pose.azimuth_deg, pose.elevation_deg, pose.roll_deg])
        cos, sin = np.cos(azimuth), np.sin(azimuth)
        outward = np.array([np.cos(elevation) * cos, np.cos(elevation) * sin, np.sin(elevation)])
        target = self.to_world(CENTRE_IN_BASE) + np.array(pose.look_at_offset_m)
        right = np.cross([0.0, 0.0, 1.0], outward)
        right /= np.linalg.norm(right)
        up = np.cross(outward, right)
        right, up = np.cos(roll) * right + np.sin(roll) * up, np.cos(roll) * up - np.sin(roll) * right
        camera = self.model.camera(name).id
        self.model.cam_pos[camera] = target + pose.distance_m * outward
        mujoco.mju_mat2Quat(self.model.cam_quat[camera], np.stack([right, up, outward], axis=1).ravel())
        self.model.cam_fovy[camera] = pose.fovy_deg

    def _light(self, lab: Lab) -> None:
        for number in range(NUM_LIGHTS):
            lamp = lab.lamps[number] if number < len(lab.lamps) else None
            self.model.light_active[number] = lamp is not None
            if lamp is None:
                continue
            azimuth, elevation = np.deg2rad([lamp.azimuth_deg, lamp.elevation_deg])
            outward = [np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth), np.sin(elevation)]
            self.model.light_dir[number] = -np.array(outward)
            self.model.light_pos[number] = 3.0 * np.array(outward)
            self.model.light_diffuse[number] = lamp.rgb
            self.model.light_specular[number] = 0.3 * np.array(lamp.rgb)

    def _paint(self, lab: Lab) -> None:
        for surface in SURFACES:
            texture = self.model.texture(surface).id
            start = self.model.tex_adr[texture]
            size = int(self.model.tex_width[texture])
            self.model.tex_data[start : start + size * size * 3] = paint(lab.textures[surface], size).ravel()
        brightness = np.array(lab.link_rgb) / 0.80
        for material in self.robot.painted:
            number = self.model.material(material).id
            self.model.mat_rgba[number, :3] = np.clip(self.nominal.mat_rgba[number, :3] * brightness, 0, 1)

    def _place_clutter(self, number: int, item: Distractor | None) -> None:
        geom, body = self.model.geom(f"clutter{number}").id, self.model.body(f"clutter{number}").id
        if item is None:
            self.model.geom_rgba[geom, 3] = 0.0
            return
        height = self.lab.table_height_m if self.lab else 0.0
        half_height = item.size_m[0] if item.shape in ("sphere", "capsule") else item.size_m[2]
        if item.shape == "sphere":
            half_height = item.size_m[2]
        size = {
            "sphere": (item.size_m[2], 0, 0),
            "cylinder": (item.size_m[0], item.size_m[2], 0),
            "capsule": (item.size_m[2], item.size_m[0], 0),
        }.get(item.shape, item.size_m)
        lying = item.shape == "capsule"
        half_height = item.size_m[2] if lying else half_height
        shape = SHAPES[item.shape]
        self.model.geom_type[geom] = int(shape)
        self.model.geom_dataid[geom] = self.model.mesh("rock").id if item.shape == "mesh" else -1
        self.model.geom_size[geom] = size
        self.model.geom_rbound[geom] = 0.2
        self.model.geom_rgba[geom] = [*item.rgb, 1.0]
        self.model.body_pos[body] = [*item.at_m, height + half_height]
        yaw = np.array([np.cos(item.yaw_rad / 2), 0, 0, np.sin(item.yaw_rad / 2)])
        tilt = np.array([np.sqrt(0.5), np.sqrt(0.5), 0, 0]) if lying else np.array([1.0, 0, 0, 0])
        mujoco.mju_mulQuat(self.model.body_quat[body], yaw, tilt)

    def _tune_dynamics(self, lab: Lab) -> None:
        dynamics, model, nominal = lab.dynamics, self.model, self.nominal
        model.dof_damping[:] = nominal.dof_damping * dynamics.damping
        model.dof_frictionloss[:] = 0.5 * dynamics.friction
        model.actuator_gainprm[:] = nominal.actuator_gainprm
        model.actuator_biasprm[:] = nominal.actuator_biasprm
        model.actuator_gainprm[self.robot.arm, 0] *= dynamics.servo
        model.actuator_biasprm[self.robot.arm, 1:3] *= dynamics.servo
        payload = model.body(self.robot.payload).id
        model.body_mass[payload] = nominal.body_mass[payload] + dynamics.payload_kg
