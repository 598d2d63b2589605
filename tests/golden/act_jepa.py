"""Kind `act_jepa`: the published network, its losses, its gradients and one step of its target."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from jepa_mpc.encoders.layers.interleaved import alternating_grid
from jepa_mpc.world_model.adapters.act_jepa import fill, from_released, picture_encoder, renamed, sizes_of
from jepa_mpc.world_model.parts.objectives.chunk import ChunkObjective
from jepa_mpc.world_model.parts.objectives.lessons import ChunkLesson
from jepa_mpc.world_model.parts.targets import EMATarget, constant_momentum
from jepa_mpc.world_model.recipes.act_jepa import ActJepaSizes, build
from tests.golden.cases import GRADIENT, Case


def check(case: Case) -> None:
    objective = load(case)
    objective.eval()
    lesson, images = lesson_of(case), case.tensors["in.image"]
    images = images[:, None] if images.dim() == 4 else images
    _check_network(case, objective, lesson, images)
    loss = objective.loss(lesson, objective.encoder(images.flatten(0, 1)).unflatten(0, images.shape[:2]))
    for name, value in (
        ("loss", loss.total),
        ("reconstruction_loss", loss.terms["action"]),
        ("abstract_loss", loss.terms["latent"]),
    ):
        case.check(f"out.{name}", value)
    loss.total.backward()
    own = {name: weight.grad for name, weight in objective.named_parameters()}
    for name in case.under("grad."):
        gradient = own[renamed(name)]
        assert gradient is not None
        case.check(f"grad.{name}", gradient, GRADIENT)
    assert all(gradient is None for name, gradient in own.items() if name.startswith("target."))
    _check_target(case, objective)


def load(case: Case) -> ChunkObjective:
    tensors, meta = case.under("param."), case.meta
    networks = sizes_of(tensors, heads=int(meta["num_attention_heads"]), dropout=float(meta.get("dropout", 0.0)))
    objective = build(
        preset=ActJepaSizes.demonstrations(networks),
        encoder=picture_encoder(tensors),
        action_dim=int(meta["action_dim"]),
        state_dim=int(meta["state_dim"]),
        preprocess=nn.Identity(),
    )
    fill(objective, tensors)
    return objective


def lesson_of(case: Case) -> ChunkLesson:
    given = case.tensors
    return ChunkLesson(
        task=given["in.task_index"],
        frames=given["in.image"],
        states=given["in.state"],
        actions=given["in.action"],
        padded_states=given.get("in.state_is_pad"),
        padded_actions=given.get("in.action_is_pad"),
    )


@torch.no_grad()
def _check_network(case: Case, objective: Any, lesson: ChunkLesson, images: Tensor) -> None:
    pictures = objective.encoder(images.flatten(0, 1)).unflatten(0, images.shape[:2])
    _check_if(case, "out.img_tokens", pictures[:, 0])
    if "out.img_pos_emb" in case.tensors:
        rows, columns = case.tensors["out.img_pos_emb"].shape[-2:]
        table = alternating_grid(rows, columns, objective.context.width)
        case.check("out.img_pos_emb", table.T.unflatten(1, (rows, columns)))
    context = objective.context(lesson.task, lesson.states[:, 0], pictures)
    _check_if(case, "out.encoder_hidden_states", context)
    seen, there = (None if padded is None else ~padded for padded in (lesson.padded_actions, lesson.padded_states))
    _check_if(case, "out.action_pred", objective.decoder(context, seen))
    _check_if(case, "out.action_pred_without_pad_mask", objective.decoder(context))
    _check_if(case, "out.abstract_pred", objective.latents(context, there))
    _check_if(case, "out.abstract_labels", objective.target.encoder.over_time(lesson.task, lesson.states, there))


def _check_if(case: Case, name: str, actual: Tensor) -> None:
    if name in case.tensors:
        case.check(name, actual)


def _check_target(case: Case, objective: Any) -> None:
    """One step of the target towards the encoder, which stands where it stood."""
    rule = EMATarget(objective.context, momentum=constant_momentum(float(case.meta["ema_momentum_in_example"])))
    rule.encoder.load_state_dict(objective.target.encoder.state_dict())
    rule.update(objective.context, 0.0)
    moved = rule.encoder.state_dict()
    names = case.under("out.ema.")
    for name in names:
        ours = next(iter(from_released({f"jepa.target_encoder.{name}": names[name]})))
        case.check(f"out.ema.{name}", moved[ours.removeprefix("target.encoder.")])
