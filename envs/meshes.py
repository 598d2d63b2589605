"""The manufacturer's meshes of the arm from an installed package, for rendering only.

The primitives stay in the model, invisible: contacts, masses and motion are identical bit for bit.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import mujoco

from jepa_mpc.envs.robots import Robot
from jepa_mpc.errors import MissingPackage

PACKAGE = "gymnasium_robotics"
FOLDER = "envs/assets/kitchen_franka/franka_assets/meshes"
UNSEEN_GROUP = 4
FINGER_SCALE = (1.75, 1.0, 1.75)


def arm_meshes(robot: Robot) -> dict[str, Path]:
    """The mesh file of each body of an arm.

    Raises:
        ValueError: If there are none for this robot.
        MissingPackage: If no installed package has them.
    """
    if not robot.surfaces:
        raise ValueError(f"the robot {robot.name} has no meshes: use appearance=primitives")
    found = find_spec(PACKAGE)
    folder = Path(found.origin).parent / FOLDER if found and found.origin else None
    if folder is None or not all((folder / name).exists() for name in robot.surfaces.values()):
        raise MissingPackage("gymnasium-robotics", "jepa_mpc.envs.meshes")
    return {body: folder / name for body, name in robot.surfaces.items()}


def attach_meshes(spec: mujoco.MjSpec, robot: Robot) -> None:
    """Show these meshes in place of the primitives.

    Args:
        spec: The robot's model, not yet compiled.
        robot: The arm.

    Raises:
        ValueError: If there are none for this robot.
        MissingPackage: If no installed package has the meshes.
    """
    for name, file in arm_meshes(robot).items():
        body = spec.body(name)
        for geom in body.geoms:
            if geom.name != "pedestal":
                geom.group = UNSEEN_GROUP
        mesh = spec.add_mesh(name=f"{name}_surface", file=str(file))
        if name.endswith("finger"):
            mesh.scale = FINGER_SCALE
        body.add_geom(
            type=mujoco.mjtGeom.mjGEOM_MESH,
            meshname=mesh.name,
            material=robot.surface_materials.get(name, "link"),
            contype=0,
            conaffinity=0,
            mass=0,
        )
