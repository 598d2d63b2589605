"""Distillation of a planner (Mode-2) into a policy (Mode-1), on the states that the policy itself visits.

    loss = mean of w |pi(z, g) - a*| / scale  +  beta mean E(pi(z, g)),      w = exp(-(E(a*) - E_least) / T)

The first term imitates the planner's plans a*, weighted towards cheap ones; the second improves the policy by the
gradient of the energy through the frozen world model. Acting by the policy alternates with labelling by the planner
(DAgger, Ross et al. 2011, arXiv:1011.0686). Reference: LeCun 2022, A path towards autonomous machine intelligence,
section 3.1.3.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated

import torch
from torch import Generator, Tensor, nn

from jepa_mpc.interfaces import Batch, Dynamics
from jepa_mpc.types import ActionBox, Context, Costs, Loss, Plan, Plans, State
from jepa_mpc.world_model.policies.goal import GoalPolicy

EnergyOf = Callable[[State, State, Plans], Costs]
"""States and goals `B N D` and plans `B S H A` -> energy `B S`, differentiable in the plans."""

Teacher = Callable[[State, State], Plan]
"""States and goals `B N D` -> a planner's plans `B H A`."""

Fit = Callable[[Mapping[str, Tensor], int], None]
"""Trains the policy on all samples so far (state, goal `G N D`, steps `G`, actions `G H A`); the round, from 0."""


class Distillation(nn.Module):
    """The loss of a policy trained on a planner's plans and on the energy.

    Args:
        policy: The policy to train.
        energy: The planner's objective; its weights are frozen.
        slope: beta, in units of 1 / energy; 0 means imitation only.
        temperature: T, in units of energy; None weighs all plans equally.

    Raises:
        ValueError: If a number is out of range.
    """

    def __init__(
        self, policy: GoalPolicy, energy: EnergyOf | None, *, slope: float = 0.0, temperature: float | None = None
    ) -> None:
        super().__init__()
        if slope < 0 or (temperature is not None and not temperature > 0):
            raise ValueError(f"need slope >= 0 and temperature > 0, got {slope} and {temperature}")
        if energy is None and (slope > 0 or temperature is not None):
            raise ValueError("slope and temperature need an energy, none was given")
        self.policy, self.slope, self.temperature = policy, slope, temperature
        self._energy = energy

    def forward(self, batch: Batch, generator: Generator) -> Loss:
        """The loss of a batch.

        Args:
            batch: state and goal `B N D`, steps `B`, actions `B H A` (the planner's).
            generator: Unused.
        """
        state, goal = batch["state"].detach(), batch["goal"].detach()
        made, moved = self.policy(state, goal, batch["steps"]), self.policy.scale > 0
        gap = ((made - batch["actions"])[..., moved] / self.policy.scale[moved]).abs().mean(dim=(1, 2))
        imitation = (self._weights(state, goal, batch["actions"]) * gap).mean()
        terms = {"imitation": imitation.detach()}
        if self.slope == 0 or self._energy is None:
            return Loss(total=imitation, terms=terms)
        energy = self._energy(state, goal, made[:, None])[:, 0].mean()
        return Loss(total=imitation + self.slope * energy, terms={**terms, "energy": energy.detach()})

    def after_step(self, progress: float) -> None:
        """Does nothing."""

    @torch.no_grad()
    def _weights(self, state: State, goal: State, plans: Plan) -> Annotated[Tensor, "B"]:
        """Weight of each plan; 1 on average."""
        if self.temperature is None or self._energy is None:
            return plans.new_ones(len(plans))
        energies = self._energy(state, goal, plans[:, None])[:, 0]
        weights = torch.exp(-(energies - energies.min()) / self.temperature)
        return weights / weights.mean()


@torch.no_grad()
def visited(
    policy: GoalPolicy, dynamics: Dynamics, *, box: ActionBox, state: State, goal: State, steps: int
) -> Annotated[Tensor, "T B N D"]:
    """The states that a policy visits in the world model: the first one, and those after each of its actions."""
    states = [state]
    soon = torch.ones(len(state), device=state.device)
    for _ in range(1, steps):
        action = box.clip(policy(states[-1], goal, soon)[:, :1])
        context = Context(latents=states[-1][:, None], actions=action[:, :0])
        states.append(dynamics.rollout(context, action[:, None]).latents[:, 0, 0])
    return torch.stack(states)


def dagger(
    policy: GoalPolicy,
    teacher: Teacher,
    dynamics: Dynamics,
    *,
    box: ActionBox,
    starts: Callable[[int], tuple[State, State]],
    fit: Fit,
    rounds: int,
    steps: int,
) -> dict[str, Tensor]:
    """Alternate between acting by the policy, labelling visited states by the planner, and training on all labels.

    The first round labels only the starts, since the policy is untrained.

    Args:
        policy: The policy; `fit` trains it in place.
        teacher: Plans from states to goals.
        dynamics: The frozen world model in which the policy acts.
        box: The actions that the robot accepts.
        starts: Draws states and goals `B N D` of a round.
        fit: Trains the policy.
        rounds: Number of rounds.
        steps: States per policy rollout.

    Returns:
        All samples: state and goal `G N D`, steps `G`, actions `G H A`.

    Raises:
        ValueError: If a count is below 1.
    """
    if rounds < 1 or steps < 1:
        raise ValueError(f"need rounds >= 1 and steps >= 1, got {rounds} and {steps}")
    lessons: dict[str, Tensor] = {}
    for index in range(rounds):
        state, goal = starts(index)
        length = 1 if index == 0 else steps
        states = visited(policy, dynamics, box=box, state=state, goal=goal, steps=length)
        new = _labelled(teacher, states.flatten(0, 1), goal.repeat(length, 1, 1))
        lessons = {name: torch.cat([lessons[name], more]) if lessons else more for name, more in new.items()}
        fit(lessons, index)
    return lessons


def _labelled(teacher: Teacher, state: State, goal: State) -> dict[str, Tensor]:
    plans = teacher(state, goal).detach()
    return {"state": state, "goal": goal, "steps": torch.ones(len(state), device=state.device), "actions": plans}
