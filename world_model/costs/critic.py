"""The critic: a trained estimate of the future intrinsic cost beyond a plan's last step.

    TC(s, g) = unit * softplus(MLP([p(z), p(z_g), p(z_g) - p(z), proprio, d / D]))        p: attention pool of tokens

Reference: LeCun 2022, A path towards autonomous machine intelligence, section 3.2 and figure 7 (trainable critic).
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class AttentionPool(nn.Module):
    """Attention pooling: a learned query weights the tokens; a single token passes unchanged.

        p = sum over n of softmax_n(q . z_n / sqrt(D)) z_n

    Args:
        width: Width D of the tokens.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.zeros(width))

    def forward(self, tokens: Annotated[Tensor, "... N D"]) -> Annotated[Tensor, "... D"]:
        """Tokens `(..., N, D)` to vectors `(..., D)`."""
        weights = (tokens @ self.query / tokens.shape[-1] ** 0.5).softmax(dim=-1)
        return (weights[..., None] * tokens).sum(dim=-2)


class Critic(nn.Module):
    """Expected future intrinsic cost of a state on the way to a goal, never negative.

    In training, states and goals carry no gradient (see `CriticObjective`), but the output is differentiable in the
    state, so that gradient planners can use it.

    Args:
        width: Width of a state after `look` (D with the default pool).
        hidden: Width of the two hidden layers.
        proprio: Width P of the proprioception input, in addition to the latents.
        max_delay: Maximum delay d of `delayed` targets with several delays; 0 for none.
        unit: Cost that counts as 1.
        state_scale: Divisor of states.
        look: Maps tokens `(..., N, D)` to vectors `(..., width)`; attention pooling by default, flattening for tokens
            whose position matters.

    Raises:
        ValueError: If a size is out of range.
    """

    def __init__(
        self,
        *,
        width: int,
        hidden: int = 512,
        proprio: int = 0,
        max_delay: int = 0,
        unit: float = 1.0,
        state_scale: float = 1.0,
        look: nn.Module | None = None,
    ) -> None:
        super().__init__()
        if min(width, hidden) < 1 or min(proprio, max_delay) < 0 or not min(unit, state_scale) > 0:
            raise ValueError(
                "need width and hidden from 1, proprio and max_delay from 0, unit and state_scale above 0, got "
                f"{width}, {hidden}, {proprio}, {max_delay}, {unit} and {state_scale}"
            )
        self.proprio, self.max_delay, self.unit, self.state_scale = proprio, max_delay, unit, state_scale
        self.look = look or AttentionPool(width)
        inputs = 3 * width + proprio + (1 if max_delay else 0)
        self.network = nn.Sequential(
            *(nn.Linear(inputs, hidden), nn.LayerNorm(hidden), nn.GELU()),
            *(nn.Linear(hidden, hidden), nn.LayerNorm(hidden), nn.GELU()),
            nn.Linear(hidden, 1),
        )

    def forward(
        self,
        latents: Annotated[Tensor, "... N D"],
        goal: Annotated[Tensor, "... N D"],
        proprio: Annotated[Tensor, "... P"] | None = None,
        delay: Annotated[Tensor, "..."] | None = None,
    ) -> Tensor:
        """States and goals `... N D` (and proprioception, and the delay in steps) -> expected cost `...`.

        Raises:
            ValueError: If proprioception is expected and missing. The default delay is the largest one.
        """
        here, there = self.look(latents) / self.state_scale, self.look(goal) / self.state_scale
        seen = [here, there, there - here]
        if self.proprio:
            if proprio is None or proprio.shape[-1] != self.proprio:
                raise ValueError(f"this critic needs proprioception of width {self.proprio}, got {_width(proprio)}")
            seen.append(proprio)
        if self.max_delay:
            ahead = here.new_full(here.shape[:-1], self.max_delay) if delay is None else delay.to(here.dtype)
            seen.append((ahead / self.max_delay)[..., None])
        return self.unit * F.softplus(self.network(torch.cat(seen, dim=-1))[..., 0])


def _width(proprio: Tensor | None) -> str:
    return "none" if proprio is None else str(proprio.shape[-1])
