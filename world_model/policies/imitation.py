"""The loss of a policy that imitates: the actions of a log in hindsight, and the plans of a planner.

loss = mean over the moved axes of |plan - wanted| / scale
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn

from jepa_mpc.interfaces import Batch
from jepa_mpc.types import Loss
from jepa_mpc.world_model.policies.goal import GoalPolicy


class Imitation(nn.Module):
    """Absolute error of a policy's chunks, in units of its action scale; axes that it never moves do not count.

    The median of what was done, which the absolute error asks for, is not drawn aside by the detours of a log.

    Args:
        policy: The policy to train.
    """

    def __init__(self, policy: GoalPolicy) -> None:
        super().__init__()
        self.policy = policy

    def forward(self, batch: Batch, generator: Generator) -> Loss:
        """The loss of a batch.

        Args:
            batch: state `B N D`, goal `B N D`, steps `B`, actions `B H A` (physical units), planned `B` (bool: by a
                planner, not from the log).
            generator: Not needed.

        Returns:
            Total, and the error of either source by itself (those that the batch has).
        """
        moved = self.policy.scale > 0
        gap = (self.policy(batch["state"], batch["goal"], batch["steps"]) - batch["actions"])[..., moved]
        each = (gap / self.policy.scale[moved]).abs().mean(dim=(1, 2))  # (B,)
        return Loss(total=each.mean(), terms=_by_source(each.detach(), batch["planned"]))

    def after_step(self, progress: float) -> None:
        """Nothing follows."""


def _by_source(errors: Tensor, planned: Tensor) -> dict[str, Tensor]:
    """Mean error over the samples of each source; 0 for one that has none."""
    return {
        name: torch.where(chosen, errors, 0.0).sum() / chosen.sum().clamp(min=1)
        for name, chosen in (("planner", planned), ("log", ~planned))
    }
