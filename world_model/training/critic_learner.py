"""A critic that goes on learning while its agent acts, from what the agent remembers."""

from __future__ import annotations

import torch
from torch import Generator

from jepa_mpc.world_model.memory.replay_buffer import ReplayBuffer
from jepa_mpc.world_model.training.critic import CriticLessons, CriticObjective, Judgement


class CriticLearner:
    """Every so many steps of the agent, some steps of gradient descent on the remembered courses.

    Only what was seen teaches; predictions never do. Goals are set in hindsight.

    Args:
        objective: The critic's loss; its form and discount are those of `judgement`.
        judgement: The cost that the critic predicts.
        generator: Draws the batches.
        every: Steps of the agent between two lessons (M).
        steps: Gradient steps of a lesson.
        batch: Samples of a gradient step.
        later: Share of goals that are later states of the same episode.
        learning_rate: Of Adam.

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
                f"the loss learns {objective.form} at discount {objective.discount}, the judgement is "
                f"{judgement.form} at {judgement.discount}"
            )
        self.objective, self.judgement, self.generator = objective, judgement, generator
        self.every, self.steps, self.batch, self.later = every, steps, batch, later
        self.optimiser = torch.optim.Adam(objective.critic.parameters(), lr=learning_rate)
        self._ticks = 0

    def tick(self, experience: ReplayBuffer) -> dict[str, float]:
        """Count one step of the agent; the numbers of a lesson if one was due and there is enough to learn from."""
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
