"""Online training of a critic while its agent acts, from the replay buffer."""

from __future__ import annotations

import torch
from torch import Generator

from jepa_mpc.world_model.memory.replay_buffer import ReplayBuffer
from jepa_mpc.world_model.training.critic import CriticLessons, CriticObjective, Judgement


class CriticLearner:
    """Takes a few gradient steps on stored trajectories every `every` steps of the agent.

    Only observed states are used, never predictions. Goals are set in hindsight.

    Args:
        objective: The critic's loss; its form and discount are those of `judgement`.
        judgement: The critic's prediction target.
        generator: Draws the batches.
        every: Agent steps between two updates (M).
        steps: Gradient steps per update.
        batch: Batch size.
        later: Share of goals that are later states of the same episode.
        learning_rate: Learning rate of Adam.

    Raises:
        ValueError: If a count is below 1, or loss and judgement differ.
    """

    def __init__(
        self,
        objective: CriticObjective,
        judgement: Judgement,
        *,
        generator: Generator,
        every: int = 10,
        steps: int = 4,
        batch: int = 128,
        later: float = 0.5,
        learning_rate: float = 1e-3,
    ) -> None:
        if min(every, steps, batch) < 1:
            raise ValueError(f"need every, steps and batch from 1, got {every}, {steps} and {batch}")
        if (objective.form, objective.discount) != (judgement.form, judgement.discount):
            raise ValueError(
                f"the loss has form {objective.form} and discount {objective.discount}, the target has "
                f"{judgement.form} and {judgement.discount}"
            )
        self.objective, self.judgement, self.generator = objective, judgement, generator
        self.every, self.steps, self.batch, self.later = every, steps, batch, later
        self.optimiser = torch.optim.Adam(objective.critic.parameters(), lr=learning_rate)
        self._ticks = 0

    def tick(self, experience: ReplayBuffer) -> dict[str, float]:
        """Count one step of the agent; returns the metrics of an update if one was due and there is enough data."""
        self._ticks += 1
        log = experience.log() if self._ticks % self.every == 0 else None
        if log is None or int(log.offsets.diff().max()) <= self.judgement.steps:
            return {}
        lessons = CriticLessons(log=log, judgement=self.judgement, batch=self.batch, later=self.later)
        with torch.enable_grad():
            for _ in range(self.steps):
                loss = self.objective(lessons(self.generator), self.generator)
                self.optimiser.zero_grad()
                loss.total.backward()
                self.optimiser.step()
                self.objective.after_step(1.0)
        return {name: float(value) for name, value in loss.terms.items()} | {"loss": float(loss.total.detach())}
