"""The textbook solution of cart-pole: pump energy into the pole until it is nearly upright, then linear feedback.

far:   a = k E w cos(angle) - centring         (Astrom & Furuta 2000: the energy E of the pole goes to 0, upright)
near:  u = -K (x, angle, v, w)                 (linear-quadratic regulator of the linearised system)
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import expm, solve_discrete_are

from jepa_mpc.envs.plant import Array
from jepa_mpc.types import ActionBox

GRAVITY = 9.81
NEARLY_UP = 0.85
PUMP, CENTRING, BRAKING = 1.0, 0.5, 2.0


class CartPole(Protocol):
    """State that the policy reads."""

    dt_s: float

    @property
    def action_box(self) -> ActionBox:
        """Bounds of the force."""

    def plant_sensors(self) -> Array:
        """Cart position (m), pole angle (rad, 0 upright), and their speeds."""


class SwingUp:
    """Swings a uniform pole up and balances it.

    Args:
        env: Source of the state.
        cart_kg: Mass of the cart.
        pole_kg: Mass of the pole.
        half_length_m: From the hinge to the centre of the pole.
        newton_per_action: Force of an action of 1.
    """

    def __init__(
        self, env: CartPole, *, cart_kg: float, pole_kg: float, half_length_m: float, newton_per_action: float = 1.0
    ) -> None:
        self.env = env
        self.newton = newton_per_action
        self.mass = cart_kg + pole_kg
        self.inertia = pole_kg * half_length_m**2 * 4 / 3
        self.lever = pole_kg * half_length_m
        self._gain = self._regulator()

    def act(self, env: object = None) -> NDArray[np.float32]:
        """The force `(1,)`, in the unit of the action."""
        state = self.env.plant_sensors().copy()
        state[1] = (state[1] + np.pi) % (2 * np.pi) - np.pi
        cart, angle, speed, turning = state
        if np.cos(angle) > NEARLY_UP:
            force = float(-self._gain @ state)
        else:
            energy = 0.5 * self.inertia * turning**2 + self.lever * GRAVITY * (np.cos(angle) - 1.0)
            pumped = PUMP / self.inertia * energy * turning * np.cos(angle)
            force = self.mass * (pumped - CENTRING * cart - BRAKING * speed)
        box = self.env.action_box
        return np.clip([force / self.newton], box.low.numpy(), box.high.numpy()).astype(np.float32)

    def _regulator(self) -> Array:
        """Feedback gains `(4,)` of the upright pole: (M + m) x'' + m l t'' = u and m l x'' + I t'' = m g l t."""
        masses = np.array([[self.mass, self.lever], [self.lever, self.inertia]])
        inverse = np.linalg.inv(masses)
        a = np.zeros((4, 4))
        a[0, 2] = a[1, 3] = 1.0
        a[2:, 1] = inverse @ [0.0, self.lever * GRAVITY]
        b = np.concatenate([[0.0, 0.0], inverse @ [1.0, 0.0]])[:, None]
        cost = np.diag([1.0, 10.0, 0.5, 1.0])
        joint = expm(np.block([[a, b], [np.zeros((1, 5))]]) * self.env.dt_s)
        a, b = joint[:4, :4], joint[:4, 4:]  # the force is held for a whole control step
        effort = np.array([[0.05]])
        p = solve_discrete_are(a, b, cost, effort)
        return np.asarray(np.linalg.solve(effort + b.T @ p @ b, b.T @ p @ a))[0]
