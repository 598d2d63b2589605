"""Objects for manipulation: a box, a solid cylinder and a hollow cup, as one body that can become any of them.

The model holds the geoms of all three; `Thing.shape` enables one of them, and sets mass, inertia, friction and colour
in place, so that the model is compiled once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import mujoco
import numpy as np
from numpy.random import Generator

from jepa_mpc.envs.labs import Lab, hsv
from jepa_mpc.envs.ranges import CLUTTER, Span

Kind = Literal["box", "cylinder", "cup"]
KINDS: tuple[Kind, ...] = get_args(Kind)
BODY = "object"
HALF_SIZES_M: dict[Kind, tuple[float, float]] = {"box": (0.025, 0.03), "cylinder": (0.03, 0.04), "cup": (0.03, 0.035)}
NUM_WALLS = 8
HALF_WALL_M = 0.002  # half the thickness of a cup's walls and bottom
PALM_M = 0.03  # from an object's top down to the hand that holds it; the palm is 4 cm above the hand position
SLIDING, MASS_KG = 0.6, 0.08


@dataclass(frozen=True, kw_only=True)
class Thing:
    """One object.

    Args:
        kind: "box" (5 x 5 x 6 cm), "cylinder" (6 x 8 cm) or "cup" (6 x 7 cm, open above).
        mass_kg: Its mass.
        friction: Sliding friction of its surface; the fingers' own applies to finger contacts.
        rgb: Its colour, each channel in [0, 1].
    """

    kind: Kind
    mass_kg: float = MASS_KG
    friction: float = SLIDING
    rgb: tuple[float, float, float] = (0.85, 0.25, 0.15)

    @property
    def half_width_m(self) -> float:
        """Half its width, across the fingers."""
        return HALF_SIZES_M[self.kind][0]

    @property
    def half_height_m(self) -> float:
        """Height of its centre when it stands."""
        return HALF_SIZES_M[self.kind][1]

    @property
    def held_at_m(self) -> float:
        """Height of the hand above its centre when held: as low as the palm allows, since the pads are short."""
        return self.half_height_m - PALM_M

    def shape(self, model: mujoco.MjModel) -> None:
        """Make the model's object this one; the caller must run `mj_setConst`."""
        body = model.body(BODY).id
        first = int(model.body_geomadr[body])
        for geom in range(first, first + int(model.body_geomnum[body])):
            mine = model.geom(geom).name.startswith(f"{BODY}_{self.kind}")
            model.geom_contype[geom] = model.geom_conaffinity[geom] = int(mine)
            model.geom_rgba[geom] = [*self.rgb, float(mine)]
            model.geom_friction[geom, 0] = self.friction
        model.body_mass[body] = self.mass_kg
        model.body_inertia[body] = self.mass_kg * _inertia(self.kind)


def sample_thing(rng: Generator, lab: Lab, *, kinds: tuple[Kind, ...] = KINDS) -> Thing:
    """An object for a lab, with a colour in the hue range of the lab's table.

    Args:
        rng: Source of the randomness.
        lab: Its lab.
        kinds: Possible kinds.
    """
    hue = CLUTTER["hue"]
    assert isinstance(hue, Span)
    low, high = next(
        (interval for level in (hue.train, hue.validation, hue.held) for interval in level if _within(lab, interval)),
        hue.train[0],
    )
    red, green, blue = hsv(rng.uniform(low, high), rng.uniform(0.6, 0.9), rng.uniform(0.5, 0.95)).tolist()
    return Thing(kind=kinds[int(rng.integers(len(kinds)))], rgb=(red, green, blue))


def _within(lab: Lab, interval: tuple[float, float]) -> bool:
    return interval[0] <= lab.textures["table"].hue <= interval[1]


def add_object(spec: mujoco.MjSpec) -> None:
    """Add the body with the geoms of every kind, free to move."""
    body = spec.worldbody.add_body(name=BODY, pos=[0.5, 0.0, 0.03])
    body.add_freejoint(name=BODY)
    body.explicitinertial, body.ipos, body.iquat = True, [0.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0]
    body.mass, body.inertia = MASS_KG, MASS_KG * _inertia("box")
    half, height = HALF_SIZES_M["box"]
    _add_geom(body, "box", mujoco.mjtGeom.mjGEOM_BOX, size=[half, half, height])
    half, height = HALF_SIZES_M["cylinder"]
    _add_geom(body, "cylinder", mujoco.mjtGeom.mjGEOM_CYLINDER, size=[half, height, 0])
    half, height = HALF_SIZES_M["cup"]
    bottom = [0.0, 0.0, HALF_WALL_M - height]
    _add_geom(body, "cup_bottom", mujoco.mjtGeom.mjGEOM_CYLINDER, size=[half, HALF_WALL_M, 0], pos=bottom)
    for number in range(NUM_WALLS):
        angle = 2 * np.pi * number / NUM_WALLS
        out = half - HALF_WALL_M
        _add_geom(
            body,
            f"cup_wall{number}",
            mujoco.mjtGeom.mjGEOM_BOX,
            size=[HALF_WALL_M, out * np.tan(np.pi / NUM_WALLS), height],
            pos=[out * np.cos(angle), out * np.sin(angle), 0.0],
            quat=[np.cos(angle / 2), 0, 0, np.sin(angle / 2)],
        )


def _add_geom(body: mujoco.MjsBody, name: str, kind: mujoco.mjtGeom, **place: list[float]) -> None:
    """A geom with the contact settings of every object."""
    friction = [SLIDING, 0.005, 0.0001]
    body.add_geom(
        name=f"{BODY}_{name}", type=kind, contype=1, conaffinity=1, condim=4, priority=1, friction=friction, **place
    )


def _inertia(kind: Kind) -> np.ndarray:
    """Principal moments `(3,)` of inertia for a mass of 1 kg; a cup counts as a thin tube."""
    half, height = HALF_SIZES_M[kind]
    if kind == "box":
        across, around = (half**2 + height**2) / 3, 2 * half**2 / 3
    elif kind == "cylinder":
        across, around = half**2 / 4 + height**2 / 3, half**2 / 2
    else:
        across, around = half**2 / 2 + height**2 / 3, half**2
    return np.array([across, across, around])
