"""Kinds of slots and Causal-JEPA: slot attention, a video slot encoder, the predictor, matching, rollout."""

from __future__ import annotations

import torch

from encoders.adapters import videosaur
from tests.golden.cases import Case
from world_model.objectives.slot_features import SlotFeatureObjective, movement_gap, similarity


@torch.no_grad()
def check_slot_attention(case: Case) -> None:
    meta = case.meta
    attention = videosaur.slot_attention(
        case.under("param."), iterations=int(meta["n_iters"]), eps=float(meta.get("eps", 1e-8))
    )
    given = case.under("in.")
    slots, shares = attention(given["slots"], given["features"])
    case.check("out.slots", slots)
    case.check("out.masks", shares)
    for name in case.under("out.slots_"):
        case.check(f"out.slots_{name}", attention(given["slots"], given["features"], int(name.split("_")[0]))[0])


@torch.no_grad()
def check_savi(case: Case) -> None:
    meta, weights = case.meta, case.under("param.")
    attention = videosaur.savi_attention(
        case.under("param.slot_attention."), iterations=int(meta["n_iters"]), eps=float(meta.get("eps", 1e-6))
    )
    assert any(name.startswith("transition.") for name in weights)
    step = videosaur.savi_step(case.under("param.transition."))
    recurrence = videosaur.SlotRecurrence(attention, step=step)
    tracks = recurrence(case.tensors["in.slots_init"], case.tensors["in.features"])
    for time in range(tracks.slots.shape[1]):
        for name, value in (
            (f"out.slots_frame{time}", tracks.slots[:, time]),
            (f"out.kernels_frame{time + 1}", tracks.following[:, time]),
        ):
            if name in case.tensors:
                case.check(name, value)


@torch.no_grad()
def check_videosaur(case: Case) -> None:
    meta, weights, given = case.meta, case.under("param."), case.under("in.")
    heads = int(meta.get("transition_heads", 4))
    embed = videosaur.embedding(videosaur.part(weights, "embed"))
    recurrence = videosaur.recurrence(
        weights, iterations=int(meta["n_iters"]), first=int(meta["n_iters_first_frame"]), heads=heads
    )
    decoder = videosaur.mixer(videosaur.part(weights, "decoder"), heads=int(meta.get("allocator_heads", heads)))
    features = embed(given["backbone_features"])
    case.check("out.features", features)
    tracks = recurrence(given["slots_init"], features)
    case.check("out.state", tracks.slots)
    case.check("out.state_predicted", tracks.following)
    case.check("out.masks", tracks.shares)
    rebuilt, shares = (value.unflatten(0, features.shape[:2]) for value in decoder(tracks.slots.flatten(0, 1)))
    case.check("out.reconstruction", rebuilt)
    case.check("out.decoder_masks", shares)
    target = similarity(
        given["backbone_keys"], temperature=float(meta["temperature"]), threshold=float(meta.get("threshold", 0.0))
    )
    case.check("out.similarity_target", target)
    width = given["backbone_features"].shape[-1]
    loss = SlotFeatureObjective.combine(
        rebuilt, wanted=given["backbone_features"], target=target, weight=float(meta["sim_weight"])
    )
    case.check("out.loss_featrec", loss.terms["features"])
    case.check("out.loss_timesim", movement_gap(rebuilt[:, :-1, :, width:], target))
    case.check("out.loss", loss.total)
