"""Causal-JEPA: object slots over time; masked objects are inferred from the others.

    loss = |p - s|^2 on hidden objects of the past + |p - s|^2 on all objects of the future (+ proprioception)

Reference: Nam et al. 2026, arXiv:2602.11389.  Presets "pusht" and "clevrer" have the published sizes; their frozen
slots are VideoSAUR's over patches of 14 px.  "lab" and "tiny" are our own, narrower and without dropout, with slots of
the presets of the same names of `video_slots`, for images of 64 and 28 px.  Masks are redrawn for every batch; the
released training masks the same slots throughout (`LegacyObjectMask`).  Dropout applies to the output of attention, not
to its weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Generator, Tensor, nn

from jepa_mpc.costs import PlanCost, last
from jepa_mpc.encoders.layers.pixels import IMAGENET_MEAN, IMAGENET_STD, NormalisePixels
from jepa_mpc.encoders.layers.weights import draw_weights
from jepa_mpc.errors import choose
from jepa_mpc.interfaces import MaskSampler
from jepa_mpc.world_model.costs.goal import GoalDistance
from jepa_mpc.world_model.dynamics.model import Interface, WorldModel, checked_context
from jepa_mpc.world_model.dynamics.objects import AlignedDynamics, MatchedGap, SlotPerception
from jepa_mpc.world_model.parts.actions import ActionMap
from jepa_mpc.world_model.parts.masks.objects import ObjectMask
from jepa_mpc.world_model.parts.objectives.slots import ObjectObjective
from jepa_mpc.world_model.parts.predictors.object_world import NumbersNode, ObjectWorld
from jepa_mpc.world_model.parts.predictors.slots import SlotPredictor, SlotSizes
from jepa_mpc.world_model.recipes import video_slots
from jepa_mpc.world_model.recipes.video_slots import VideoSlotSizes


@dataclass(frozen=True, kw_only=True)
class CausalJepaSizes:
    """Sizes of a Causal-JEPA.

    Args:
        slots: Sizes of the frozen slot encoder.
        predictor: Sizes of the predictor; as wide as the slots.
        hidden: Number of masked objects in training.
    """

    slots: VideoSlotSizes
    predictor: SlotSizes
    hidden: int


_PATCHES = video_slots.PRESETS["videosaur"]
_PAPER = SlotSizes(width=128, depth=6, heads=16, mlp_dim=2048, history=3, future=1, dropout=0.1)
PRESETS = {
    "pusht": CausalJepaSizes(slots=_PATCHES, predictor=_PAPER, hidden=1),
    "clevrer": CausalJepaSizes(
        slots=replace(_PATCHES, num_slots=7), predictor=replace(_PAPER, history=6, future=10), hidden=4
    ),
    "lab": CausalJepaSizes(
        slots=video_slots.PRESETS["lab"],
        predictor=SlotSizes(width=64, depth=4, heads=4, mlp_dim=256, history=3),
        hidden=1,
    ),
    "tiny": CausalJepaSizes(
        slots=video_slots.PRESETS["tiny"],
        predictor=SlotSizes(width=16, depth=2, heads=2, mlp_dim=32, history=3),
        hidden=1,
    ),
}


def build(
    *,
    preset: str | CausalJepaSizes = "pusht",
    action_dim: int | None,
    action_scale: Tensor | Sequence[float] | None = None,
    proprio_dim: int | None = None,
    proprio_scale: Sequence[float] | None = None,
    encoder: nn.Module | None = None,
    masks: MaskSampler | None = None,
    generator: Generator | None = None,
    **parts: Any,
) -> ObjectObjective:
    """Assemble the training loss; `as_world_model` turns the trained result into a Dynamics.

    Args:
        preset: A name of `PRESETS`, or custom sizes.
        action_dim: Width of an action, or of a block of actions; None without actions.
        action_scale: Typical action size per axis, in its unit; without it, actions must be standardised.
        proprio_dim: Width of the proprioception node; None for none.
        proprio_scale: Spread of each entry; without it, proprioception must be standardised.
        encoder: The frozen slot encoder; by default the preset's, to be filled with trained weights. Any other encoder
            of several tokens gets the preset's slots over its tokens.
        masks: Draws masked objects; by default `ObjectMask` with the preset's number.
        generator: Draws all initial weights, including the encoder's; by default the global stream is used.
        **parts: Further parts of `ObjectObjective`: preprocess, augment, future_gap.

    Raises:
        UnknownName: If there is no such preset.
        ValueError: If slots and predictor differ in width.
    """
    sizes = choose(PRESETS, preset, "preset") if isinstance(preset, str) else preset
    seen = video_slots.slots_of(sizes.slots, encoder)
    width = sizes.predictor.width
    if seen.width != width:
        raise ValueError(f"the encoder gives slots of width {seen.width}, the predictor expects {width}")
    world = ObjectWorld(
        SlotPredictor(sizes.predictor),
        action=_node(action_dim, action_scale, width=width),
        felt=_node(proprio_dim, proprio_scale, width=width),
    )
    masks = masks or ObjectMask(frames=sizes.predictor.history, objects=sizes.slots.num_slots, hidden=sizes.hidden)
    parts.setdefault("preprocess", NormalisePixels(mean=IMAGENET_MEAN, std=IMAGENET_STD))
    objective = ObjectObjective(encoder=seen, predictor=world, masks=masks, **parts)
    if generator is not None:
        draw_weights(objective, generator)
    return objective


def as_world_model(objective: ObjectObjective, *, max_bytes: int = 512 * 2**20) -> AlignedDynamics:
    """The trained predictor as a Dynamics, with its whole history as context."""
    return AlignedDynamics(objective.predictor, max_bytes=max_bytes)


def world_model(
    objective: ObjectObjective, interface: Interface, *, context: int = 1, fingerprint: str = ""
) -> WorldModel:
    """Perception, dynamics and goal cost of a trained object world model; its context is the whole history.

    Args:
        objective: The trained objective.
        interface: Its inputs and actions.
        context: Number of context frames; 1 for the whole history.
        fingerprint: Short hash of the weights.
    """
    world = objective.predictor
    return WorldModel(
        members=(objective,),
        interface=interface,
        perception=SlotPerception(objective, cameras=interface.cameras, image_size=interface.side),
        dynamics=AlignedDynamics(world, max_context=None if context == 1 else checked_context(context, world)),
        goal_cost=goal_cost(objective),
        proprio_dim=0 if world.felt is None else world.felt.inputs,
        fingerprint=fingerprint,
    )


def goal_cost(objective: ObjectObjective) -> PlanCost:
    """Distance of predicted objects to the goal's after matching, plus the proprioception node if there is one."""
    return PlanCost(GoalDistance(distance=MatchedGap(extra=objective.predictor.num_extra)), reduction=last)


def _node(inputs: int | None, scale: Tensor | Sequence[float] | None, *, width: int) -> NumbersNode | None:
    if inputs is None:
        return None
    return NumbersNode(inputs, width=width, scaling=None if scale is None else ActionMap(torch.as_tensor(scale)))
