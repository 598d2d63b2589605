"""The loss of joint prediction of an action chunk and the latent states along it.

loss = |a_hat - a| + w |z_hat - sg(z)|              mean L1 over the existing steps
z = f_ema(states);   f_ema = m f_ema + (1 - m) f    after each step
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import torch
from torch import Generator, Tensor, nn

from jepa_mpc.encoders.layers.pixels import NormalisePixels
from jepa_mpc.interfaces import Batch
from jepa_mpc.shapes import check_shape
from jepa_mpc.types import Frames, Latents, Loss, Plan
from jepa_mpc.world_model.parts.objectives.dynamics import Augment, total_of
from jepa_mpc.world_model.parts.objectives.lessons import ChunkLesson, HindsightGoals, LessonRule
from jepa_mpc.world_model.parts.predictors.chunk import ActionChunk, ContextEncoder, LatentChunk
from jepa_mpc.world_model.parts.targets import EMATarget


class ChunkObjective(nn.Module):
    """Imitation of action chunks, with or without the prediction of latent states.

    Args:
        encoder: Maps prepared images `G C h w` to tokens `G N D`.
        context: Encodes task, state and images jointly.
        decoder: Predicts actions.
        latents: Predicts the target's latents; None learns actions alone (behaviour cloning).
        target: EMA copy of the context encoder; used with `latents`.
        latent_weight: Weight of the latent term.
        lessons: Turns windows into training samples.
        preprocess: Prepares frames for the encoder, in training and at test time.
        augment: Augments the raw frames in training mode, or None.
        state_map: Standardises states.
        action_map: Standardises actions; has `scale` and `mean` `A`, None if they are already standardised.

    Raises:
        ValueError: If only one of `latents` and `target` is given, or samples and context have different numbers of
            images.

    Reference: Vujinovic and Kovacevic 2025, arXiv:2501.14622.
    """

    def __init__(
        self,
        *,
        encoder: nn.Module,
        context: ContextEncoder,
        decoder: ActionChunk,
        latents: LatentChunk | None = None,
        target: EMATarget | None = None,
        latent_weight: float = 1.0,
        lessons: LessonRule | None = None,
        preprocess: Callable[[Frames], Frames] | None = None,
        augment: Augment | None = None,
        state_map: nn.Module | None = None,
        action_map: nn.Module | None = None,
    ) -> None:
        super().__init__()
        if (latents is None) != (target is None):
            raise ValueError("latents and target belong together: give both, or none to learn actions alone")
        self.lessons = lessons or HindsightGoals()
        if self.lessons.pictures != context.pictures:
            raise ValueError(
                f"the training examples have {self.lessons.pictures} images and the context takes {context.pictures}"
            )
        self.encoder, self.context, self.decoder = encoder, context, decoder
        self.latents, self.target, self.latent_weight = latents, target, latent_weight
        self.preprocess = preprocess or NormalisePixels()
        self.augment = augment
        self.state_map = state_map or nn.Identity()
        self.action_map = action_map or nn.Identity()

    def forward(self, batch: Batch, generator: Generator) -> Loss:
        """The loss of a batch of windows: frames `B T C h w`, actions `B T-1 A` and proprio `B T P`.

        Raises:
            ValueError: If the batch's shapes do not fit each other or the network.
        """
        horizon = self.latents.horizon if self.latents is not None else 1
        lesson = self.lessons(batch, generator, chunk=self.decoder.chunk, horizon=horizon)
        frames = lesson.frames
        if self.training and self.augment is not None:
            frames = self.augment(frames, generator)
        return self.loss(lesson, self.encode(frames))

    def loss(self, lesson: ChunkLesson, pictures: Annotated[Tensor, "B V N D"]) -> Loss:
        """The loss of a training sample with encoded images."""
        check_shape(lesson.actions, "B H A", H=self.decoder.chunk, A=self.decoder.action_dim)
        self._check_tasks(lesson.num_tasks)
        check_shape(lesson.states, "B T P", P=self.context.state_dim)
        states: Tensor = self.state_map(lesson.states)
        context = self.context(lesson.task, states[:, 0], pictures)
        seen = _visible(lesson.padded_actions)
        weighted = {
            "action": (1.0, gap(self.decoder(context, seen), self.action_map(lesson.actions), seen)),
        }
        if self.latents is not None and self.target is not None:
            check_shape(lesson.states, "B T P", T=self.latents.horizon)
            visible = _visible(lesson.padded_states)
            with torch.no_grad():
                wanted = self.target.encoder.over_time(lesson.task, states, visible)  # type: ignore[operator]
            predicted = self.latents(context, visible)
            weighted["latent"] = (self.latent_weight, gap(predicted, wanted, visible))
            weighted["target_std"] = (0.0, spread(wanted))  # near zero where the latents collapse
            weighted["predicted_std"] = (0.0, spread(predicted))
        return total_of(weighted)

    def encode(self, frames: Frames) -> Latents:
        """Tokens of camera frames `(B, T, C, h, w)`, each separately."""
        sizes = check_shape(frames, "B T C h w")
        return self.encoder(self.preprocess(frames.flatten(0, 1))).unflatten(0, (sizes["B"], sizes["T"]))

    @torch.no_grad()
    def chunk(
        self,
        task: Annotated[Tensor, "B"],
        state: Annotated[Tensor, "B P"],
        pictures: Annotated[Tensor, "B V N D"],
    ) -> Plan:
        """The chunk of actions `B H A` from the current state, in physical units.

        Args:
            task: Index of the task, or number of remaining steps.
            state: The current state, in its units.
            pictures: Tokens of the images, from `encode`.
        """
        actions = self.decoder(self.context(task, self.state_map(state), pictures))
        scale = getattr(self.action_map, "scale", None)
        return actions if scale is None else actions * scale + self.action_map.mean

    def _check_tasks(self, wanted: int | None) -> None:
        known = self.context.task.num_embeddings
        if wanted is not None and wanted > known:
            raise ValueError(
                f"windows of {wanted} observations have up to {wanted - 1} steps to a goal, the network supports "
                f"{known - 1}: use window={known}, or a system with more tasks"
            )

    def after_step(self, progress: float) -> None:
        """Update the target after an optimiser step; `progress` runs from 0 to 1."""
        if self.target is not None:
            self.target.update(self.context, progress)


def gap(prediction: Tensor, wanted: Tensor, visible: Annotated[Tensor, "B T"] | None) -> Tensor:
    """Mean |prediction - wanted| over the existing steps `B T`; 0 if there are none."""
    each = (prediction - wanted).abs().mean(dim=-1)  # (B, T)
    if visible is None:
        return each.mean()
    return torch.where(visible, each, 0.0).sum() / visible.sum().clamp(min=1)


def spread(latents: Annotated[Tensor, "B T D"]) -> Tensor:
    """Mean standard deviation of the channels over the batch."""
    return latents.detach().std(dim=0, correction=0).mean()


def _visible(padded: Tensor | None) -> Tensor | None:
    return None if padded is None else ~padded
