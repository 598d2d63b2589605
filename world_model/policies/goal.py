"""Goal-conditioned policies, and their proposals to a planner.

    plan = scale * MLP([m(z), m(z_goal), m(z_goal) - m(z), k / K, 1 / k])

One forward pass replaces a search with hundreds of rollouts. It is multi-step inverse dynamics (goal-conditioned
inverse dynamics on latents: arXiv:2605.08732): from the current state, the goal and the number of remaining steps k to
the first H actions between them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from torch import Tensor, nn

from jepa_mpc.interfaces import Dynamics
from jepa_mpc.shapes import check_shape
from jepa_mpc.types import ActionBox, Context, Goal, Plan, Plans, State


class GoalPolicy(nn.Module):
    """A network from (state, goal, steps left) to a chunk of actions.

    Args:
        width: Width of a state after `look` (N times D without it).
        action_scale: Typical action size per axis `A`, in the axis's unit; axes with 0 are never moved.
        chunk: Actions predicted at once (H).
        max_steps: Maximum number of steps to the goal (K); larger numbers count as K.
        hidden: Width of the hidden layers.
        depth: Number of residual blocks.
        look: Maps states `(..., N, D)` to vectors `(..., width)`; by default flattening.

    Raises:
        ValueError: If a size is not positive, or the action scales are negative or all zero.

    Reference: goal-conditioned inverse dynamics on frozen latents, arXiv:2605.08732. Differences: it predicts chunks,
    and its input includes the difference of the states and 1 / k, which helps a narrow network if actions are
    proportional to distance.
    """

    scale: Tensor

    def __init__(
        self,
        *,
        width: int,
        action_scale: Sequence[float],
        chunk: int = 2,
        max_steps: int = 20,
        hidden: int = 128,
        depth: int = 2,
        look: nn.Module | None = None,
    ) -> None:
        super().__init__()
        if min(width, chunk, max_steps, hidden) < 1 or depth < 0:
            raise ValueError(
                f"need width, chunk, max_steps and hidden from 1 and depth from 0, got {width}, {chunk}, {max_steps}, "
                f"{hidden} and {depth}"
            )
        scale = torch.tensor([float(size) for size in action_scale])
        if not len(scale) or not bool(scale.isfinite().all() and (scale >= 0).all() and (scale > 0).any()):
            raise ValueError(f"action_scale must be finite numbers from 0, one above it, got {list(action_scale)}")
        self.width, self.chunk, self.max_steps = width, chunk, max_steps
        self.look = look or nn.Flatten(start_dim=-2)
        self.enter = nn.Linear(3 * width + 2, hidden)
        self.blocks = nn.ModuleList(_residual(hidden) for _ in range(depth))
        self.leave = nn.Sequential(nn.LayerNorm(hidden), nn.Linear(hidden, chunk * len(scale)))
        self.register_buffer("scale", scale)

    @property
    def action_dim(self) -> int:
        """Number of action axes A."""
        return int(self.scale.shape[0])

    def forward(self, state: State, goal: State, steps: Annotated[Tensor, "B"]) -> Plan:
        """The first actions `B H A` from states `B N D` towards goals `B N D` that are `steps` (B) away.

        Raises:
            ValueError: If state and goal differ in shape, or have another width than the network.
        """
        sizes = check_shape(state, "B N D")
        check_shape(goal, "B N D", **sizes)
        check_shape(steps, "B", B=sizes["B"])
        here, there = self.look(state), self.look(goal)  # (B, width)
        if here.shape[-1] != self.width:
            raise ValueError(f"this policy takes states of width {self.width}, got {here.shape[-1]}")
        left = steps.to(here.dtype).clamp(1, self.max_steps)[:, None]
        hidden = self.enter(torch.cat([here, there, there - here, left / self.max_steps, 1 / left], dim=-1))
        for block in self.blocks:
            hidden = hidden + block(hidden)
        return self.leave(hidden).unflatten(-1, (self.chunk, self.action_dim)) * self.scale


class PolicyProposal:
    """Candidate plans by a policy: one per number of steps to the goal.

    Plans longer than the policy's chunk continue from the predicted state at its end.

    Args:
        policy: The policy.
        dynamics: The world model that it was trained for.
        box: The actions that the robot accepts.
        within: Numbers of remaining steps given to the policy, one candidate each, the best guess first.

    Raises:
        ValueError: If the actions of policy and robot differ, or `within` is empty or not positive.
    """

    def __init__(
        self, policy: GoalPolicy, *, dynamics: Dynamics, box: ActionBox, within: Sequence[int] = (1, 3)
    ) -> None:
        check_actions(policy, box)
        if not within or min(within) < 1:
            raise ValueError(f"within must be numbers of steps from 1, got {tuple(within)}")
        self.policy, self.dynamics, self.box, self.within = policy, dynamics, box, tuple(within)

    @torch.no_grad()
    def __call__(self, context: Context, goal: Goal, *, horizon: int) -> Plans:
        """Plans `B S H A` from the last state of the context, inside the box."""
        plans = self._chunks(context.latents[:, -1:], goal, passed=0)
        while plans.shape[2] < horizon:
            ends = self.dynamics.rollout(context, plans).latents[:, :, -1]  # (B, S, N, D)
            plans = torch.cat([plans, self._chunks(ends, goal, passed=plans.shape[2])], dim=2)
        return plans[:, :, :horizon]

    def _chunks(self, states: Annotated[Tensor, "B S N D"], goal: Goal, *, passed: int) -> Plans:
        """A chunk per number of steps, from one state for all of them or one state each."""
        sizes = (states.shape[0], len(self.within), *states.shape[2:])
        steps = torch.tensor([max(1, count - passed) for count in self.within], device=states.device)
        chunks = self.policy(
            states.expand(sizes).flatten(0, 1),
            goal.latents[:, None].expand(sizes).flatten(0, 1),
            steps.expand(sizes[:2]).flatten(),
        )
        return self.box.clip(chunks.unflatten(0, sizes[:2]))  # (B, S, chunk, A)


def check_actions(policy: GoalPolicy, box: ActionBox) -> None:
    """Refuse a policy whose action width is not the robot's.

    Raises:
        ValueError: Names both widths.
    """
    if policy.action_dim != box.dim:
        raise ValueError(f"this policy predicts actions of width {policy.action_dim}, the robot takes width {box.dim}")


def _residual(width: int) -> nn.Sequential:
    """Norm, expansion, nonlinearity, projection."""
    return nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
