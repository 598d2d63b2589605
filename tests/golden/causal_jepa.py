"""Kinds of slots and Causal-JEPA: slot attention, a video slot encoder, the predictor, matching, rollout."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from jepa_mpc.costs import PlanCost, last
from jepa_mpc.encoders.adapters import videosaur
from jepa_mpc.types import Goal, Rollout
from jepa_mpc.world_model.adapters import causal_jepa
from jepa_mpc.world_model.costs.goal import GoalDistance
from jepa_mpc.world_model.dynamics.objects import MatchedGap
from jepa_mpc.world_model.parts.masks.objects import given as hide
from jepa_mpc.world_model.parts.masks.objects import hidden_grid
from jepa_mpc.world_model.parts.matching import assign, gaps, matched, matching_loss, reorder
from jepa_mpc.world_model.parts.objectives.slot_features import SlotFeatureObjective, movement_gap, similarity
from jepa_mpc.world_model.parts.objectives.slots import ObjectObjective
from jepa_mpc.world_model.parts.predictors.object_world import ObjectWorld
from tests.golden.cases import GRADIENT, Case


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


def check_predictor(case: Case) -> None:
    slots, history = case.tensors["in.slots"], int(case.meta["history_frames"])
    world = _world(case, future=slots.shape[1] - history)
    hidden = _hidden(case, slots.shape[2])
    _check_losses(case, world, states=slots, nodes=slots[:, :history], hidden=hidden)
    with torch.no_grad():
        predictor = world.slots
        case.check("out.inference_full_history", predictor.ahead(slots[:, :history]))
        if "out.inference_short_history" in case.tensors:
            case.check("out.inference_short_history", predictor.ahead(slots[:, 1:history]))
        if "out.attention_last_layer" in case.tensors:
            probe = predictor.attention_probe(slots[:, :history], hidden)
            case.check("out.attention_last_layer", probe.flatten(3).flatten(1, 2))


def check_with_nodes(case: Case) -> None:
    given, history = case.under("in."), int(case.meta["history_frames"])
    world = _world(case, future=given["slots"].shape[1] - history)
    states = world.states(given["slots"], given.get("proprio"))
    embedding = world.nodes(states, given["action"]) if "action" in given else states
    case.check("out.embedding", embedding)
    hidden = _hidden(case, given["slots"].shape[2])
    _check_losses(case, world, states=states, nodes=embedding[:, :history], hidden=hidden)


def _world(case: Case, *, future: int) -> ObjectWorld:
    return causal_jepa.world(case.under("param."), heads=int(case.meta["heads"]), future=future, dropout=0.0).eval()


def _hidden(case: Case, objects: int) -> Tensor:
    batch, history = len(case.tensors["in.slots"]), int(case.meta["history_frames"])
    masks = hide(case.tensors["in.masked_slots"].long(), batch=batch, frames=history, objects=objects)
    return hidden_grid(masks, frames=history, objects=objects)


def _check_losses(case: Case, world: ObjectWorld, *, states: Tensor, nodes: Tensor, hidden: Tensor) -> None:
    objective = ObjectObjective(encoder=nn.Identity(), predictor=world, masks=None)
    spare = hidden.new_zeros(*hidden.shape[:2], nodes.shape[2] - hidden.shape[2])
    everyone = torch.cat([hidden, spare], dim=2)
    case.check("out.input_grid", world.slots.grid(nodes, everyone))
    case.check("out.pred", world.slots(nodes, everyone))
    loss = objective.loss(nodes, states, hidden)
    for theirs, value in (
        ("loss_masked_history", loss.terms["history"]),
        ("loss_future", loss.terms["future"]),
        ("loss_proprio", loss.terms.get("proprio")),
        ("loss", loss.total),
    ):
        if f"out.{theirs}" in case.tensors:
            case.check(f"out.{theirs}", value)
    loss.total.backward()
    bare = "param.mask_token" in case.tensors
    own = {
        ("" if bare else "predictor.") + causal_jepa.spelling(name): weight.grad
        for name, weight in world.slots.named_parameters()
    }
    nodes_of = {"action": world.action, "felt": world.felt}
    for name, prefix in causal_jepa.NODES.items():
        if nodes_of[name] is not None:
            own |= {f"{prefix}{key.removeprefix('map.')}": w.grad for key, w in nodes_of[name].named_parameters()}
    for name in case.under("grad."):
        case.check(f"grad.{name}", own[name].reshape(case.tensors[f"grad.{name}"].shape), GRADIENT)


@torch.no_grad()
def check_rollout(case: Case) -> None:
    given, meta = case.under("in."), case.meta
    world = _world(case, future=int(meta["pred_frames"]))
    worlds, candidates, _, _ = given["actions"].shape
    states = world.states(given["slots_obs"], given.get("proprio_obs"))
    plans, seen = given["actions"], states.shape[1]
    many = states[:, None].expand(-1, candidates, -1, -1, -1).flatten(0, 1)
    case.check("out.predicted", world.imagine(many, plans.flatten(0, 1)).unflatten(0, (worlds, candidates)))
    goal = world.states(given["slots_goal"], given.get("proprio_goal"))[:, -1]
    cost = PlanCost(GoalDistance(distance=MatchedGap(extra=world.num_extra)), last)
    ahead = plans[:, :, seen - 1 :]
    rows = []
    for each in range(candidates):  # what leads here may differ between candidates, and a context is one world's
        latents, _ = world.rollout(states, plans[:, each, : seen - 1], ahead[:, each : each + 1])
        rows.append(cost(Rollout(latents=latents), ahead[:, each : each + 1], Goal(latents=goal)))
    case.check("out.cost", torch.cat(rows, dim=1))


def check_matching(case: Case) -> None:
    given = case.under("in.")
    predicted, target, reference = given["pred"].requires_grad_(), given["target"], given["reference"]
    loss = matching_loss(predicted, target)
    loss.backward()
    case.check("out.matching_loss", loss)
    case.check("out.matching_loss_grad", predicted.grad, GRADIENT)
    case.check("out.cost", matched(predicted, target))
    nodes = torch.cat([predicted, given["extra_nodes"]], dim=2)
    case.check("out.reordered", reorder(nodes, assign(gaps(reference, predicted[:, 0]))))
