"""Chunk policies: one forward pass of ACT-JEPA predicts the next actions, alone (Mode-1) or as a proposal.

In training the networks are conditioned on the number of steps left to the goal. At test time the policy requests the
goal within a number of steps, and may execute any part of the chunk before the next prediction.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from jepa_mpc.errors import BadObservation
from jepa_mpc.interfaces import Perception
from jepa_mpc.types import ActionBox, Context, Goal, Observation, Plan, Plans, State
from jepa_mpc.world_model.parts.objectives.chunk import ChunkObjective


class ChunkPolicy:
    """Chunks of actions towards a goal image, for B worlds in parallel.

    Args:
        objective: The trained networks; they take two images, the current one and the goal.
        perception: Frames to the tokens of the networks' image encoder.
        box: The actions that the robot accepts.

    Raises:
        ValueError: If the networks take no goal, or their actions have another width than the robot's.
    """

    def __init__(self, objective: ChunkObjective, *, perception: Perception, box: ActionBox) -> None:
        if objective.context.pictures != 2:
            raise ValueError(
                f"this policy needs networks with a current and a goal image; these take {objective.context.pictures} "
                "image: train with HindsightGoals"
            )
        if objective.decoder.action_dim != box.dim:
            raise ValueError(
                f"these networks predict actions of width {objective.decoder.action_dim}, the robot has {box.dim}"
            )
        self.objective, self.perception, self.box = objective, perception, box
        self.present: State | None = None
        self.goal: State | None = None
        self._felt: Tensor | None = None

    @property
    def max_steps(self) -> int:
        """Largest number of steps in which a goal can be requested."""
        return self.objective.context.task.num_embeddings - 1

    def reset(self, goal: Observation) -> None:
        """Set the goal; only its last frame is used."""
        self.goal, self.present, self._felt = self.perception(goal)[:, -1], None, None

    def see(self, observation: Observation) -> None:
        """Set the current state: the last frame and the last proprioception.

        Raises:
            BadObservation: If proprioception is missing or has another width, or the number of worlds differs from the
                goal's.
            RuntimeError: If `reset` was not called.
        """
        if self.goal is None:
            raise RuntimeError("the policy has no goal yet: call reset(goal) before see(observation)")
        wanted, felt = self.objective.context.state_dim, observation.proprio
        if felt is None or felt.dim() != 3 or felt.shape[-1] != wanted:
            got = "none" if felt is None else f"shape {tuple(felt.shape)}"
            raise BadObservation(f"this policy needs proprioception (B, T, {wanted}), got {got}")
        present = self.perception(observation)[:, -1]
        if present.shape != self.goal.shape:
            raise BadObservation(
                f"the observation gives tokens {tuple(present.shape)} and the goal gave {tuple(self.goal.shape)}: "
                "both need the same number of worlds"
            )
        self.present, self._felt = present, felt[:, -1].to(present.device)

    def chunk(self, steps: int) -> Plan:
        """The actions `B H A` from the current state to the goal, to arrive within this many steps; inside the box.

        Larger numbers are reduced to `max_steps`.

        Raises:
            RuntimeError: If `see` was not called.
            ValueError: If `steps` is not positive.
        """
        if steps < 1:
            raise ValueError(f"need steps >= 1, got {steps}")
        if self.present is None or self.goal is None or self._felt is None:
            raise RuntimeError("the policy has no observation yet: call see(observation) first")
        told = torch.full((len(self.present),), min(steps, self.max_steps), device=self.present.device)
        pictures = torch.stack([self.present, self.goal], dim=1)  # (B, 2, N, D)
        return self.box.clip(self.objective.chunk(told, self._felt, pictures))


class ChunkProposal:
    """Candidate plans by a chunk policy from its last observation: one per number of steps.

    After the chunk the plan is zero, since the goal is then reached. The world model's context and goal are not used,
    so policy and planner may have different encoders.

    Args:
        policy: Predicts chunks; the caller passes it goal and observations (`SeededAgent` does).
        within: Numbers of steps to request, the best guess first.

    Raises:
        ValueError: If `within` is empty or not positive.
    """

    def __init__(self, policy: ChunkPolicy, *, within: Sequence[int] = (1, 3)) -> None:
        if not within or min(within) < 1:
            raise ValueError(f"within must be numbers of steps from 1, got {tuple(within)}")
        self.policy, self.within = policy, tuple(within)

    def __call__(self, context: Context, goal: Goal, *, horizon: int) -> Plans:
        """Plans `B S H A`, inside the box."""
        plans = torch.stack([self.policy.chunk(steps) for steps in self.within], dim=1)[:, :, :horizon]
        rest = plans.new_zeros(*plans.shape[:2], horizon - plans.shape[2], plans.shape[3])
        return self.policy.box.clip(torch.cat([plans, rest], dim=2))
