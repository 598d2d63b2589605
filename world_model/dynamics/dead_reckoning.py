"""Dead reckoning: proprioception predicted from the commands.

    p_h = p_0 + sum over k <= h of G a_k

Exact for a hand that executes its commands; entries that no action moves keep their value.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

from torch import Tensor

from jepa_mpc.interfaces import Bounded, Dynamics
from jepa_mpc.shapes import check_shape
from jepa_mpc.types import Context, Plans, Rollout


class DeadReckoning:
    """Adds predicted proprioception to the rollouts of other dynamics.

    Args:
        dynamics: Predict everything else; they do not receive the proprioception.
        gain: G, the change of each proprioception entry per unit of each action axis and step, `P A`.

    Raises:
        ValueError: If the gain is not a matrix.
    """

    def __init__(self, dynamics: Dynamics, *, gain: Annotated[Tensor, "P A"]) -> None:
        check_shape(gain, "P A")
        self.dynamics, self.gain = dynamics, gain

    def rollout(self, context: Context, plans: Plans) -> Rollout:
        """Roll out plans `B S H A`; adds proprioception `B S H P` if the context has it.

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
        """Candidates per world within the memory limit of the dynamics."""
        return self.dynamics.at_once(context, horizon) if isinstance(self.dynamics, Bounded) else 2**20
