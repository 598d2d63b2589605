"""What the arm looks like with the maker's own surfaces, borrowed from an installed package, for pictures only.

The primitives stay in the model, unseen: contacts, masses and motion are the same to the last bit.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import mujoco

from jepa_mpc.errors import MissingPackage

PACKAGE = "gymnasium_robotics"
FOLDER = "envs/assets/kitchen_franka/franka_assets/meshes"
UNSEEN_GROUP = 4
FINGER_SCALE = (1.75, 1.0, 1.75)
MATERIALS = {"hand": "hand", "left_finger": "finger", "right_finger": "finger"}
SURFACES = {
    "base": "visual/link0.stl",
    **{f"link{number}": f"visual/link{number}.stl" for number in range(1, 8)},
    "hand": "visual/hand.stl",
    "left_finger": "collision/finger.stl",
    "right_finger": "collision/finger.stl",
}


def arm_meshes() -> dict[str, Path]:
    """The surface file of each body of the arm.

    Raises:
        MissingPackage: If no installed package has them.
    """
    found = find_spec(PACKAGE)
    folder = Path(found.origin).parent / FOLDER if found and found.origin else None
    if folder is None or not all((folder / name).exists() for name in SURFACES.values()):
        raise MissingPackage("gymnasium-robotics", "jepa_mpc.envs.meshes")
    return {body: folder / name for body, name in SURFACES.items()}


def attach_meshes(spec: mujoco.MjSpec) -> None:
    """Show these surfaces in place of the primitives.

    Args:
        spec: A model with the bodies of `assets/reach.xml`, not yet compiled.

    Raises:
        MissingPackage: If no installed package has the surfaces.
    """
    for name, file in arm_meshes().items():
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
            material=MATERIALS.get(name, "link"),
            contype=0,
            conaffinity=0,
            mass=0,
        )
