"""True dynamics of any environment: it executes each candidate plan itself and is restored."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch

from jepa_mpc.envs.plant import Array
from jepa_mpc.interfaces import Dynamics
from jepa_mpc.shapes import check_shape
from jepa_mpc.types import ActionBox, Context, Plans, Rollout


class Stepped(Protocol):
    """An environment that can execute candidate plans."""

    @property
    def action_box(self) -> ActionBox:
        """Bounds of one action."""

    def state(self) -> Array:
        """The current state as one row."""

    def set_state(self, state: Array) -> None:
        """Restore a row."""

    def try_out(self, state: Array, actions: Array) -> tuple[Array, Array]:
        """States `(H, D)` and sensors `(H, Q)` of the actions `(H, A)` from a state."""


class SteppingDynamics:
    """Executes plans one after another in the environment itself and restores it.

    Latents are states of one token, float64; sensors are the environment's. A candidate with a non-finite observation
    or reward is invalid. Not differentiable, single-threaded.

    Args:
        env: The environment.
    """

    def __init__(self, env: Stepped) -> None:
        self.env = env

    def rollout(self, context: Context, plans: Plans) -> Rollout:
        """Execute candidate plans `B S H A`, clipped to the box, from the last state of the context.

        Raises:
            ValueError: If shapes do not fit.
        """
        sizes = check_shape(plans, "B S H A", A=self.env.action_box.dim)
        check_shape(context.latents, "B T N D", B=sizes["B"], N=1)
        begin = context.latents[:, -1, 0].detach().cpu().double().numpy()
        actions = self.env.action_box.clip(plans.detach().cpu().float()).double().numpy()
        present = self.env.state()
        try:
            tried = [self.env.try_out(begin[b], plan) for b in range(sizes["B"]) for plan in actions[b]]
        finally:
            self.env.set_state(present)
        states, sensors = (np.stack(part) for part in zip(*tried, strict=True))
        shape = (sizes["B"], sizes["S"], sizes["H"])
        return Rollout(
            latents=torch.from_numpy(states).reshape(*shape, 1, states.shape[-1]),
            sensors=torch.from_numpy(sensors).reshape(*shape, sensors.shape[-1]),
            valid=torch.from_numpy(np.isfinite(sensors).all(axis=(1, 2))).reshape(shape[:2]),
        )


class SideBySideDynamics:
    """True dynamics of environments side by side: each world's plans are carried out in its own.

    Args:
        worlds: The dynamics of each; the first B of them are asked.
    """

    def __init__(self, worlds: Sequence[Dynamics]) -> None:
        self.worlds = worlds

    def rollout(self, context: Context, plans: Plans) -> Rollout:
        """Simulate candidate plans `B S H A` from the last states of the context.

        Raises:
            ValueError: If shapes do not fit.
        """
        check_shape(context.latents, "B T N D", B=len(plans))
        parts = []
        for b, world in enumerate(self.worlds[: len(plans)]):
            own = slice(b, b + 1)
            parts.append(world.rollout(Context(latents=context.latents[own], actions=context.actions[own]), plans[own]))
        sensors, valid = ([getattr(part, name) for part in parts] for name in ("sensors", "valid"))
        return Rollout(
            latents=torch.cat([part.latents for part in parts]), sensors=torch.cat(sensors), valid=torch.cat(valid)
        )

    def close(self) -> None:
        """End their threads."""
        for world in self.worlds:
            close = getattr(world, "close", None)
            if close is not None:
                close()
