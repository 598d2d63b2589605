"""Forces between named parts of a scene."""

from __future__ import annotations

from dataclasses import dataclass

import mujoco
import numpy as np

from jepa_mpc.envs.things import BODY

ELSE = ""
FELT_N = 0.05  # weaker contacts are ignored


@dataclass(frozen=True, kw_only=True)
class Touch:
    """Normal forces on the object, in newtons.

    Args:
        left_n: Force of the left finger.
        right_n: Force of the right finger.
        support_n: Force of everything else (table, clutter, the rest of the arm).
    """

    left_n: float
    right_n: float
    support_n: float

    @property
    def touched(self) -> bool:
        """Whether a finger touches the object."""
        return max(self.left_n, self.right_n) > FELT_N

    @property
    def gripped(self) -> bool:
        """Whether both fingers press on the object."""
        return min(self.left_n, self.right_n) > FELT_N

    @property
    def held(self) -> bool:
        """Whether only the fingers carry the object."""
        return self.gripped and self.support_n <= FELT_N


def touch(model: mujoco.MjModel, data: mujoco.MjData, fingers: tuple[str, ...]) -> Touch:
    """Contact forces of the last simulation step; `fingers` are the left and the right one."""
    handled = model.body(BODY).id
    sums = dict.fromkeys((*fingers, ELSE), 0.0)
    force = np.zeros(6)
    for number in range(data.ncon):
        bodies = [int(model.geom_bodyid[geom]) for geom in data.contact[number].geom]
        if handled not in bodies:
            continue
        mujoco.mj_contactForce(model, data, number, force)
        other = model.body(bodies[1 - bodies.index(handled)]).name
        sums[other if other in fingers else ELSE] += float(force[0])
    return Touch(left_n=sums[fingers[0]], right_n=sums[fingers[1]], support_n=sums[ELSE])
