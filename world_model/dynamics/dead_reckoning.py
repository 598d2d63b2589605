"""Proprioception that follows from the commands: where a hand is after the steps that it was told to make.

    p_h = p_0 + sum over k <= h of G a_k

Exact for the place of a hand that carries its commands out; entries that no action moves keep their value.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

from torch import Tensor

from jepa_mpc.interfaces import Bounded, Dynamics
from jepa_mpc.shapes import check_shape
from jepa_mpc.types import Context, Plans, Rollout


class DeadReckoning:
    """Dynamics with the predicted proprioception beside what they imagine.

    Args:
        dynamics: Imagine all the rest; they are not told the proprioception.
        gain: G, how much each action axis moves each entry of the proprioception per step, `P A`.

    Raises:
        ValueError: If the gain is no matrix.
    """

    def __init__(self, dynamics: Dynamics, *, gain: Annotated[Tensor, "P A"]) -> None:
        check_shape(gain, "P A")
        self.dynamics, self.gain = dynamics, gain

    def rollout(self, context: Context, plans: Plans) -> Rollout:
        """Imagine plans `B S H A`; adds proprioception `B S H P` where the context carries it.

        Raises:
            ValueError: If the proprioception has another width than the gain.
        """
        rollout = self.dynamics.rollout(replace(context, proprio=None), plans)
        if context.proprio is None:
            return rollout
        check_shape(context.proprio, "B T P", P=self.gain.shape[0])
        moved = (plans @ self.gain.to(plans).T).cumsum(dim=2)  # (B, S, H, P)
        return replace(rollout, proprio=context.proprio[:, None, -1:] + moved)

    def at_once(self, context: Context, horizon: int) -> int:
        """Candidates per world that the dynamics have room for."""
        return self.dynamics.at_once(context, horizon) if isinstance(self.dynamics, Bounded) else 2**20
