"""The loss of Causal-JEPA: infer masked objects from the others, and predict the future of all of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from jepa_mpc.encoders.slots import SlotEncoder
from jepa_mpc.interfaces import Batch, MaskSampler
from jepa_mpc.shapes import check_shape
from jepa_mpc.types import Frames, Latents, Loss, State
from jepa_mpc.world_model.parts.masks.objects import hidden_grid
from jepa_mpc.world_model.parts.objectives.dynamics import DynamicsObjective, total_of
from jepa_mpc.world_model.parts.predictors.object_world import ObjectWorld

Gap = Callable[[Tensor, Tensor], Tensor]


class ObjectObjective(DynamicsObjective):
    """Masked history and future of object slots.

        loss = mean over masked objects, all of the history  |p - sg(x)|^2
             + mean over all objects of the future           |p - sg(x)|^2
             + mean over the future's proprioception nodes   |p - sg(x)|^2

    The encoder is frozen and tracks the slots through each window. Batches hold `frames` B T C h w (or precomputed
    `slots` B T N D), `actions` B T-1 A for worlds with actions, and `proprio` B T P for its node. Windows have as many
    observations as the predictor's history and future together.

    Args:
        encoder: Images to slots.
        predictor: The object predictor.
        masks: Draws masked objects; its frames are the predictor's history.
        future_gap: Distance of predicted and true future objects `B T N D`; by default mean squared
            (`world_model.parts.matching.matching_loss` matches them first).
        **parts: preprocess and augment, as in every dynamics objective.

    Reference: Nam et al. 2026, arXiv:2602.11389, section 3.
    """

    predictor: ObjectWorld
    encoder: SlotEncoder

    def __init__(
        self,
        *,
        encoder: SlotEncoder,
        predictor: ObjectWorld,
        masks: MaskSampler,
        future_gap: Gap = F.mse_loss,
        **parts: Any,
    ) -> None:
        super().__init__(encoder=encoder.requires_grad_(False).eval(), predictor=predictor, **parts)
        self.masks, self.future_gap = masks, future_gap

    def train(self, mode: bool = True) -> ObjectObjective:
        """The encoder stays in evaluation mode."""
        super().train(mode)
        self.encoder.eval()
        return self

    def forward(self, batch: Batch, generator: Generator) -> Loss:
        """The loss of one batch.

        Raises:
            ValueError: If the batch's shapes do not fit each other or the predictor.
        """
        slots = batch["slots"] if "slots" in batch else self._followed(batch["frames"], generator)
        states = self.predictor.states(slots, batch.get("proprio"))
        history, objects = self.predictor.window, slots.shape[2]
        total = history + self.predictor.slots.sizes.future
        if states.shape[1] != total:
            raise ValueError(
                f"the predictor learns windows of {total} observations ({history} seen), got {states.shape[1]}: use "
                f"window={total}"
            )
        masks = self.masks(len(states), generator)
        hidden = hidden_grid(masks, frames=history, objects=objects).to(states.device)
        past = states[:, :history]
        nodes = past if self.predictor.action is None else self.predictor.nodes(past, batch["actions"][:, :history])
        return self.loss(nodes, states, hidden)

    def loss(self, nodes: Latents, states: Latents, hidden: Annotated[Tensor, "B T N"]) -> Loss:
        """The loss of known nodes.

        Args:
            nodes: Nodes of the history, with actions: `(B, T, N + 1, D)`.
            states: States of history and future, `(B, T + future, N, D)`.
            hidden: Mask of the objects masked in the history, `(B, T, n)`.
        """
        history, objects, count = hidden.shape[1], hidden.shape[2], states.shape[2]
        spare = hidden.new_zeros(*hidden.shape[:2], nodes.shape[2] - objects)
        predicted = self.predictor.slots(nodes, torch.cat([hidden, spare], dim=2))
        wanted = states.detach()
        anchors = hidden.any(dim=1, keepdim=True) & (torch.arange(history, device=hidden.device) == 0)[None, :, None]
        weighted = {
            "history": (
                1.0,
                mean_gap(predicted[:, :history, :objects], wanted[:, :history, :objects], hidden | anchors),
            ),
            "future": (1.0, self.future_gap(predicted[:, history:, :objects], wanted[:, history:, :objects])),
        }
        if count > objects:
            felt = slice(objects, count)
            weighted["proprio"] = (1.0, F.mse_loss(predicted[:, history:, felt], wanted[:, history:, felt]))
            weighted["proprio_std"] = (0.0, wanted[:, :, felt].std(dim=(0, 1), correction=0).mean())  # 0: collapsed
        return total_of(weighted)

    def encode(self, frames: Frames) -> Latents:
        """Slots of camera frames `(B, T, C, h, w)`, tracked over time."""
        return self.follow(frames)

    def follow(self, frames: Frames, begin: State | None = None, *, generator: Generator | None = None) -> Latents:
        """As `encode`, starting at slots of an earlier time, so that a goal's slots align with the current ones."""
        sizes = check_shape(frames, "B T C h w")
        images = self.preprocess(frames.flatten(0, 1)).unflatten(0, (sizes["B"], sizes["T"]))
        with torch.no_grad():
            return self.encoder.track(images, begin=begin, generator=generator).slots

    def _followed(self, frames: Frames, generator: Generator) -> Latents:
        if self.training and self.augment is not None:
            frames = self.augment(frames, generator)
        return self.follow(frames, generator=generator)


def mean_gap(predicted: Latents, wanted: Latents, judged: Annotated[Tensor, "B T N"]) -> Tensor:
    """Mean squared difference over the selected tokens and the width; 0 if none is selected."""
    each = (predicted - wanted).square().mean(dim=-1)
    return torch.where(judged, each, 0.0).sum() / judged.sum().clamp(min=1)
