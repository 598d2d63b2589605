"""Object slots in an agent: perception, slot alignment over time, and distance to a goal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from torch import Tensor

from jepa_mpc.errors import BadObservation
from jepa_mpc.types import Context, Latents, Observation, Plans, Rollout
from jepa_mpc.world_model.dynamics.learned import LearnedDynamics
from jepa_mpc.world_model.parts.matching import assign, gaps, matched, reorder
from jepa_mpc.world_model.parts.objectives.slots import ObjectObjective
from jepa_mpc.world_model.parts.predictors.object_world import ObjectWorld
from jepa_mpc.world_model.perception.images import ImagePerception


class MatchedGap:
    """Order-invariant distance of two slot states, for `GoalDistance(distance=...)`.

        mean |s - s_goal|^2 over the cheapest assignment of slots + mean |x - x_goal|^2 of the other tokens

    Args:
        extra: Number of trailing tokens that are not objects (proprioception); they are compared without matching.
        extra_weight: Weight of their distance.
    """

    def __init__(self, *, extra: int = 0, extra_weight: float = 1.0) -> None:
        self.extra, self.extra_weight = extra, extra_weight

    def __call__(self, latents: Annotated[Tensor, "... N D"], goal: Annotated[Tensor, "... N D"]) -> Tensor:
        """States `... N D` to `...`; leading axes broadcast."""
        objects = latents.shape[-2] - self.extra
        gap = matched(latents[..., :objects, :], goal[..., :objects, :])
        if not self.extra:
            return gap
        others = (latents[..., objects:, :] - goal[..., objects:, :]).square().mean(dim=(-2, -1))
        return gap + self.extra_weight * others


class SlotPerception(ImagePerception):
    """Frames, and proprioception if the model has a node for it, to slot states.

    Slots are tracked through the frames of one observation. Separate observations start anew, so slots may be permuted
    between them; `AlignedDynamics` aligns them.

    Args:
        objective: The trained objective: encoder, image preprocessing, proprioception node.
        cameras: The cameras of its training.
        image_size: Height and width in pixels.
    """

    def __init__(self, objective: ObjectObjective, *, cameras: Sequence[str], image_size: tuple[int, int]) -> None:
        super().__init__(objective.encoder, cameras=cameras, image_size=image_size, prepare=objective.preprocess)
        self.objective = objective

    @torch.no_grad()
    def __call__(self, observation: Observation) -> Latents:
        """Encode every frame: uint8 `B T C h w` -> states `B T N D`.

        Raises:
            BadObservation: If the frames do not fit the encoder, or proprioception is missing.
        """
        self.check(observation)
        world = self.objective.predictor
        if world.felt is not None and observation.proprio is None:
            raise BadObservation(
                f"this model needs proprioception of width {world.felt.inputs} per frame: pass proprio B T P"
            )
        return world.states(self.objective.encode(observation.frames), observation.proprio)


class AlignedDynamics(LearnedDynamics):
    """Learned dynamics of objects; slots of earlier context frames are aligned with the latest frame.

    Args:
        predictor: The object predictor.
        max_context: Number of context frames; by default the predictor's window.
        max_bytes: Approximate memory limit of one chunk of candidates.
    """

    def __init__(self, predictor: ObjectWorld, *, max_context: int | None = None, max_bytes: int = 512 * 2**20) -> None:
        super().__init__(predictor, max_context=max_context or predictor.window, max_bytes=max_bytes)
        self.num_extra = predictor.num_extra

    def rollout(self, context: Context, plans: Plans) -> Rollout:
        """Roll out each candidate plan; see `LearnedDynamics.rollout`."""
        recent = self._recent(context)
        latents = aligned(recent.latents, extra=self.num_extra)
        return super().rollout(Context(latents=latents, actions=recent.actions, proprio=recent.proprio), plans)


def aligned(states: Latents, *, extra: int = 0) -> Latents:
    """Align the objects of every frame with those of the next frame; the last frame is unchanged.

    Args:
        states: `(B, T, N, D)`.
        extra: Number of trailing tokens that are not objects.
    """
    frames = list(states.split(1, dim=1))
    objects = states.shape[2] - extra
    for time in range(len(frames) - 2, -1, -1):
        order = assign(gaps(frames[time + 1][:, 0, :objects], frames[time][:, 0, :objects]))
        frames[time] = reorder(frames[time], order)
    return torch.cat(frames, dim=1)
