"""The imitation loss of a policy: actions of a log in hindsight, and plans of a planner.

loss = mean over the moved axes of |plan - wanted| / scale
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn

from jepa_mpc.interfaces import Batch
from jepa_mpc.types import Loss
from jepa_mpc.world_model.policies.goal import GoalPolicy


class Imitation(nn.Module):
    """Absolute error of a policy's chunks, in units of its action scale; axes that it never moves are ignored.

    The absolute error asks for the median, which is robust to detours in the log.

    Args:
        policy: The policy to train.
    """

    def __init__(self, policy: GoalPolicy) -> None:
        super().__init__()
        self.policy = policy

    def forward(self, batch: Batch, generator: Generator) -> Loss:
        """The loss of a batch.

        Args:
            batch: state `B N D`, goal `B N D`, steps `B`, actions `B H A` (physical units), planned `B` (bool: from a
                planner, not from the log).
            generator: Unused.

        Returns:
            Total, and the error of each source in the batch.
        """
        moved = self.policy.scale > 0
        gap = (self.policy(batch["state"], batch["goal"], batch["steps"]) - batch["actions"])[..., moved]
        each = (gap / self.policy.scale[moved]).abs().mean(dim=(1, 2))  # (B,)
        return Loss(total=each.mean(), terms=_by_source(each.detach(), batch["planned"]))

    def after_step(self, progress: float) -> None:
        """Does nothing."""


def _by_source(errors: Tensor, planned: Tensor) -> dict[str, Tensor]:
    """Mean error over the samples of each source; 0 for an absent one."""
    return {
        name: torch.where(chosen, errors, 0.0).sum() / chosen.sum().clamp(min=1)
        for name, chosen in (("planner", planned), ("log", ~planned))
    }
