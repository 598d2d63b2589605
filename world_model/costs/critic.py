"""The critic: a trainable guess of the intrinsic cost that is still to come, beyond a plan's last step.

    TC(s, g) = unit * softplus(MLP([p(z), p(z_g), p(z_g) - p(z), proprio, d / D]))        p: attention pool of tokens

Reference: LeCun 2022, A path towards autonomous machine intelligence, section 3.2 and figure 7 (trainable critic).
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class AttentionPool(nn.Module):
    """One vector of a set of tokens: a learned query weighs them; a single token passes as it is.

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
    """Expected future intrinsic cost of a state on the way to a goal, never below 0.

    States and goals are taken without their gradient history in training (see `CriticObjective`), but the answer is
    differentiable in the state, so that gradient planners can descend it.

    Args:
        width: Width of a state after `look` (D with the default pool).
        hidden: Width of the two hidden layers.
        proprio: Numbers of proprioception P that are seen beside the latents.
        max_delay: Greatest delay d that may be asked for (`delayed` targets of several delays); 0 asks for none.
        unit: Cost that counts as 1.
        state_scale: What states are divided by.
        look: Maps tokens `(..., N, D)` to vectors `(..., width)`; an attention pool by default, flattening for tokens
            whose place matters.

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
            ValueError: If proprioception is expected and missing. A delay that is not given is the greatest one.
        """
        here, there = self.look(latents) / self.state_scale, self.look(goal) / self.state_scale
        seen = [here, there, there - here]
        if self.proprio:
            if proprio is None or proprio.shape[-1] != self.proprio:
                raise ValueError(f"this critic needs {self.proprio} numbers of proprioception, got {_width(proprio)}")
            seen.append(proprio)
        if self.max_delay:
            ahead = here.new_full(here.shape[:-1], self.max_delay) if delay is None else delay.to(here.dtype)
            seen.append((ahead / self.max_delay)[..., None])
        return self.unit * F.softplus(self.network(torch.cat(seen, dim=-1))[..., 0])


def _width(proprio: Tensor | None) -> str:
    return "none" if proprio is None else str(proprio.shape[-1])
