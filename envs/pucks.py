"""Pucks on a table, pushed by a round hand and seen from above: a small multi-object world.

Hand and pucks slide in the plane. An action is the hand's displacement in one control step, (dx, dy) in metres,
executed at constant speed. Pucks glide, collide, and stop by friction; invisible walls keep them in view. Any puck may
be absent. Body 0 is the hand, body 1 + k the puck of colour k.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import mujoco
import numpy as np
import torch
from numpy.typing import NDArray

from jepa_mpc.actions import ActionBox
from jepa_mpc.envs.flow import exact_flow
from jepa_mpc.envs.render import Drawer, make_renderer

Places = Annotated[NDArray[np.float64], "N 2"]
Meetings = Annotated[NDArray[np.bool_], "N N"]

COLOURS: Mapping[str, tuple[float, float, float]] = {
    "red": (0.85, 0.10, 0.10),
    "green": (0.10, 0.65, 0.15),
    "blue": (0.10, 0.25, 0.90),
    "yellow": (0.95, 0.80, 0.05),
}
NUM_PUCKS = len(COLOURS)
NUM_BODIES = 1 + NUM_PUCKS
HAND_RADIUS_M, PUCK_RADIUS_M = 0.045, 0.06
WALL_M = 0.3  # from the middle of the table to each wall
LARGEST_STEP_M = 0.05
DT_S = 0.1
SUBSTEPS = 20
PUCK_KG, SLIDING_N = 0.1, 0.15
VIEW_M = 0.64  # of the table, across the image
HEIGHT_M = 3.0  # of the camera: high enough for nearly orthographic images


class PuckTable:
    """The simulation, its images and its ground truth.

    Args:
        size: Width and height of the images in pixels.
    """

    def __init__(self, *, size: int = 64) -> None:
        self.size = size
        self.model = mujoco.MjModel.from_xml_string(table_xml())
        self.data = mujoco.MjData(self.model)
        self.present: NDArray[np.bool_] = np.ones(NUM_BODIES, dtype=np.bool_)
        self._drawer: Drawer | None = None
        self._balls = [self.model.geom(f"ball{body}").id for body in range(NUM_BODIES)]
        self._discs = [self.model.geom(f"disc{body}").id for body in range(NUM_BODIES)]
        self._owner = np.zeros(self.model.ngeom + 1, dtype=np.uint8)  # the last one is read for "nothing": -1
        self._owner[self._discs] = np.arange(1, NUM_BODIES + 1)

    @property
    def action_box(self) -> ActionBox:
        """Bounds of one action: (dx, dy) of the hand in metres."""
        step = torch.full((2,), LARGEST_STEP_M)
        return ActionBox(low=-step, high=step)

    def lay(self, places_m: Places, present: NDArray[np.bool_] | None = None) -> None:
        """Place hand and pucks at rest.

        Args:
            places_m: Positions of all bodies `(5, 2)`; those of absent pucks are ignored.
            present: Mask of the present bodies `(5,)`; by default all. The hand is always present.

        Raises:
            ValueError: If the shapes differ, the hand is absent, or a body is outside the walls.
        """
        there = np.ones(NUM_BODIES, dtype=np.bool_) if present is None else np.asarray(present, dtype=np.bool_)
        places = np.asarray(places_m, dtype=np.float64)
        if places.shape != (NUM_BODIES, 2) or there.shape != (NUM_BODIES,) or not there[0]:
            raise ValueError(
                f"expected places ({NUM_BODIES}, 2) and presence ({NUM_BODIES},) with the hand, got {places.shape} and "
                f"{there.tolist()}"
            )
        if (np.abs(places[there]) > WALL_M).any():
            raise ValueError(f"bodies stand within {WALL_M} m of the middle, got {places[there].tolist()}")
        mujoco.mj_resetData(self.model, self.data)
        self.present = there
        self.data.qpos[:] = np.where(there[:, None], places, 0.0).ravel()
        touching = there.astype(np.int32)
        self.model.geom_contype[self._balls] = touching
        self.model.geom_conaffinity[self._balls] = touching
        self.model.geom_rgba[self._discs, 3] = there  # geoms with zero opacity are neither rendered nor hit by rays
        mujoco.mj_forward(self.model, self.data)

    def step(self, action: NDArray[np.floating]) -> Meetings:
        """Move the hand by (dx, dy) metres in one control step; returns which bodies touched `(5, 5)`, symmetric."""
        way = np.clip(np.asarray(action, dtype=np.float64), -LARGEST_STEP_M, LARGEST_STEP_M)
        limit = WALL_M - HAND_RADIUS_M
        self.data.ctrl[:] = (np.clip(self.data.qpos[:2] + way, -limit, limit) - self.data.qpos[:2]) / DT_S
        met = np.zeros((NUM_BODIES, NUM_BODIES), dtype=np.bool_)
        for _ in range(SUBSTEPS):
            mujoco.mj_step(self.model, self.data)
            if self.data.ncon:
                bodies = self.model.geom_bodyid[self.data.contact.geom] - 1  # walls belong to the world: -1
                pairs = bodies[(bodies >= 0).all(axis=1)]
                met[pairs[:, 0], pairs[:, 1]] = met[pairs[:, 1], pairs[:, 0]] = True
        mujoco.mj_forward(self.model, self.data)
        return met

    def places_m(self) -> Places:
        """Centre of every body `(5, 2)` in metres; those of absent ones are meaningless."""
        return self.data.qpos.reshape(NUM_BODIES, 2).copy()

    def state(self) -> NDArray[np.float64]:
        """Positions and velocities `(20,)`; `set_state(state())` changes nothing."""
        return np.concatenate([self.data.qpos, self.data.qvel])

    def set_state(self, state: NDArray[np.float64]) -> None:
        """Restore a state; the set of present bodies is unchanged."""
        self.data.qpos[:], self.data.qvel[:] = np.split(np.asarray(state, dtype=np.float64), 2)
        mujoco.mj_forward(self.model, self.data)

    def picture(self) -> NDArray[np.uint8]:
        """The image of the camera above: uint8 `(3, h, w)`.

        Raises:
            NoOpenGL: If rendering is not available.
        """
        if self._drawer is None:
            self._drawer = make_renderer(self.model)
        return np.ascontiguousarray(self._drawer.draw(self.data, "top", self.size).transpose(2, 0, 1))

    def owners(self) -> NDArray[np.uint8]:
        """The body hit by each pixel's ray `(h, w)`: 0 the table, 1 + n body n."""
        geoms = exact_flow(self.model, self.data, self.data, camera="top", size=self.size).geom
        return self._owner[geoms]

    def close(self) -> None:
        """Free the renderer."""
        if self._drawer is not None:
            self._drawer.close()
            self._drawer = None


def scattered(rng: np.random.Generator, present: NDArray[np.bool_], *, gap_m: float = 0.01) -> Places:
    """Random positions of hand and present pucks with gaps of at least `gap_m`; absent ones at 0."""
    places = np.zeros((NUM_BODIES, 2))
    radii = radii_m()
    done: list[int] = []
    while len(done) < int(present.sum()):
        body = int(np.flatnonzero(present)[len(done)])
        for _ in range(100):
            places[body] = rng.uniform(-1, 1, 2) * (WALL_M - radii[body] - gap_m)
            apart = np.linalg.norm(places[done] - places[body], axis=1) - radii[done] - radii[body]
            if (apart > gap_m).all():
                done.append(body)
                break
        else:
            done.clear()
    return places


def radii_m() -> NDArray[np.float64]:
    """Radius of every body in metres."""
    return np.array([HAND_RADIUS_M] + [PUCK_RADIUS_M] * NUM_PUCKS)


def table_xml() -> str:
    """The model; collision balls have the same radius and height as the rendered discs."""
    rgb = [(0.12, 0.12, 0.12), *COLOURS.values()]
    bodies = [
        f"""<body name="body{body}" pos="0 0 0.05">
          <joint name="x{body}" axis="1 0 0"/><joint name="y{body}" axis="0 1 0"/>
          <geom name="ball{body}" type="sphere" size="{radius}" mass="{1.0 if body == 0 else PUCK_KG}" group="3"/>
          <geom name="disc{body}" type="cylinder" size="{radius} 0.01" pos="0 0 {0.02 if body == 0 else 0.0}" mass="0"
                contype="0" conaffinity="0" rgba="{" ".join(map(str, rgb[body]))} 1"/>
        </body>"""
        for body, radius in enumerate(radii_m())
    ]
    walls = [
        f'<geom type="plane" size="1 1 0.1" pos="{-x * WALL_M} {-y * WALL_M} 0" zaxis="{x} {y} 0" group="3"/>'
        for x, y in ((1, 0), (-1, 0), (0, 1), (0, -1))
    ]
    free = '<exclude body1="world" body2="body0"/>'  # the hand is kept in by its commands
    drives = "".join(f'<velocity joint="{axis}0" kv="400"/>' for axis in "xy")
    fovy = np.rad2deg(2 * np.arctan(VIEW_M / 2 / HEIGHT_M))
    return f"""<mujoco model="pucks">
      <option timestep="{DT_S / SUBSTEPS}" gravity="0 0 0" integrator="implicitfast"/>
      <visual><headlight ambient="0.55 0.55 0.55" diffuse="0.45 0.45 0.45" specular="0 0 0"/>
        <global offwidth="512" offheight="512"/><quality shadowsize="0" offsamples="0"/></visual>
      <default><joint type="slide" damping="0.1" frictionloss="{SLIDING_N}"/><geom friction="0.2 0 0"/></default>
      <worldbody><camera name="top" pos="0 0 {HEIGHT_M}" fovy="{fovy}"/>
        <geom name="table" type="box" size="0.5 0.5 0.01" rgba="0.8 0.8 0.8 1" contype="0" conaffinity="0"/>
        {"".join(walls)}{"".join(bodies)}
      </worldbody>
      <contact>{free}</contact><actuator>{drives}</actuator>
    </mujoco>"""
