"""Acting by chunks: one pass through ACT-JEPA answers the next actions, alone (Mode-1) or as where a planner begins.

The networks were told how many steps were left until a goal was reached. A policy therefore asks for a goal within so
many steps, and carries out as much of the answer as it likes before it asks again.
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
    """Chunks of actions towards a goal picture, for B worlds side by side.

    Args:
        objective: The trained networks; they take two pictures, the present and the goal.
        perception: Frames to the tokens of the networks' picture encoder.
        box: The actions that the robot accepts.

    Raises:
        ValueError: If the networks take no goal, or actions of another length than the robot.
    """

    def __init__(self, objective: ChunkObjective, *, perception: Perception, box: ActionBox) -> None:
        if objective.context.pictures != 2:
            raise ValueError(
                f"this policy needs networks that see the present and a goal; these see {objective.context.pictures} "
                "picture: train with HindsightGoals"
            )
        if objective.decoder.action_dim != box.dim:
            raise ValueError(
                f"these networks answer actions of {objective.decoder.action_dim} numbers, the robot takes {box.dim}"
            )
        self.objective, self.perception, self.box = objective, perception, box
        self.present: State | None = None
        self.goal: State | None = None
        self._felt: Tensor | None = None

    @property
    def max_steps(self) -> int:
        """Most steps within which a goal can be asked for."""
        return self.objective.context.task.num_embeddings - 1

    def reset(self, goal: Observation) -> None:
        """Take up a goal: its last frame counts."""
        self.goal, self.present, self._felt = self.perception(goal)[:, -1], None, None

    def see(self, observation: Observation) -> None:
        """Take in the present: the last frame and the last proprioception.

        Raises:
            BadObservation: If there is no proprioception, one of another length, or another number of worlds than in
                the goal.
            RuntimeError: If `reset` was not called.
        """
        if self.goal is None:
            raise RuntimeError("the policy has no goal yet: call reset(goal) before it sees anything")
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
        """The actions `B H A` from what was seen last to the goal, arriving within so many steps; inside the box.

        More steps than the networks know count as the most that they know.

        Raises:
            RuntimeError: If nothing was seen yet.
            ValueError: If `steps` is not positive.
        """
        if steps < 1:
            raise ValueError(f"a goal can be reached within 1 step or more, got {steps}")
        if self.present is None or self.goal is None or self._felt is None:
            raise RuntimeError("the policy has seen nothing yet: call see(observation) first")
        told = torch.full((len(self.present),), min(steps, self.max_steps), device=self.present.device)
        pictures = torch.stack([self.present, self.goal], dim=1)  # (B, 2, N, D)
        return self.box.clip(self.objective.chunk(told, self._felt, pictures))


class ChunkProposal:
    """Candidate plans by a chunk policy, from what it saw last: one for each number of steps to arrive in.

    After the chunk the plan stands still: by then the goal is reached. Context and goal of the world model are not
    looked at, so that policy and planner may see the world in different ways.

    Args:
        policy: Answers chunks; whoever runs the agent shows it goal and observations (`SeededAgent` does).
        within: Steps that are asked for, the best guess first.

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
