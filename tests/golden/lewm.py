"""Kind `lewm`: the published network, its rollout, its goal cost, its losses, gradients and one training step."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from jepa_mpc.types import Context
from jepa_mpc.world_model.adapters.lewm import fill, released_spelling, sizes_of, to_released
from jepa_mpc.world_model.dynamics.learned import LearnedDynamics
from jepa_mpc.world_model.parts.objectives.dynamics import DynamicsObjective
from jepa_mpc.world_model.parts.regularisers.sigreg import SIGReg
from jepa_mpc.world_model.recipes.leworldmodel import build
from tests.golden.cases import GRADIENT, OUTPUT, Case


def check(case: Case) -> None:
    objective = load(case)
    objective.eval()
    with torch.no_grad():
        _check_network(case, objective)
    for context in case.meta["contexts"]:
        _check_planning(case, objective, context)
    objective.train()
    _check_training(case, objective)


def load(case: Case) -> DynamicsObjective:
    tensors = case.under("param.")
    action_dim = released_spelling(tensors)["action_encoder.patch_embed.weight"].shape[1]
    sizes = sizes_of(released_spelling(tensors), case.meta)
    objective = build(preset=sizes, action_dim=action_dim, preprocess=nn.Identity())
    fill(objective, tensors)
    return objective


def _encode(objective: DynamicsObjective, pixels: Tensor) -> Tensor:
    return objective.encoder(pixels.flatten(0, 1)).unflatten(0, pixels.shape[:2])


def _check_network(case: Case, objective: DynamicsObjective) -> None:
    pixels, actions = case.tensors["in.pixels"], case.tensors["in.action"]
    predictor: Any = objective.predictor
    case.check("out.encoder_last_hidden", objective.encoder.encoder.tokens(pixels.flatten(0, 1)))
    latents = _encode(objective, pixels)
    condition = predictor.condition(actions)
    case.check("out.emb", latents)
    case.check("out.act_emb", condition)
    past = latents[:, :-1]
    case.check("out.pred_raw", predictor.look(past, condition[:, : past.shape[1]]))
    case.check("out.pred", predictor(past, actions[:, : past.shape[1]]))


def _check_planning(case: Case, objective: DynamicsObjective, length: int) -> None:
    given, wanted = f"in.ctx{length}.", f"out.ctx{length}."
    with torch.no_grad():
        latents = _encode(objective, case.tensors[given + "pixels"])
        goal = _encode(objective, case.tensors[given + "goal"])
    candidates = case.tensors[given + "candidates"].requires_grad_()
    history = case.tensors.get(given + "action_history", candidates.new_zeros(len(candidates), 0, candidates.shape[-1]))
    dynamics = LearnedDynamics(objective.predictor, max_context=length)
    imagined = dynamics.rollout(Context(latents=latents, actions=history), candidates).latents
    shared = latents[:, None].expand(-1, candidates.shape[1], -1, -1, -1)
    case.check(wanted + "predicted_emb", torch.cat([shared, imagined], dim=2))
    case.check(wanted + "goal_emb", goal)
    gap = (imagined[:, :, -1] - goal).square()  # (B, S, 1, D)
    cost = gap.sum(dim=(-1, -2))
    case.check(wanted + "cost", cost)
    control = 0.05 * candidates.square().sum(dim=(-1, -2))
    case.check(wanted + "cost_mean_plus_0.05_control", gap.mean(dim=(-1, -2)) + control)
    if wanted + "cost_grad_candidates" in case.tensors:
        (gradient,) = torch.autograd.grad(cost.sum(), candidates)
        case.check(wanted + "cost_grad_candidates", gradient, GRADIENT)


class _GivenDirections(nn.Module):
    """SIGReg along the directions of the case."""

    def __init__(self, case: Case) -> None:
        super().__init__()
        sizes = case.meta["sigreg"]
        self.inner = SIGReg(num_directions=sizes["num_proj"], num_knots=sizes["knots"])
        self.directions = case.tensors["in.sigreg_directions"]

    def forward(self, latents: Tensor, generator: torch.Generator) -> Tensor:
        return self.inner.along(latents, self.directions).mean()


def _check_training(case: Case, objective: DynamicsObjective) -> None:
    weight = case.meta["sigreg_weight"]
    objective = DynamicsObjective(
        encoder=objective.encoder,
        predictor=objective.predictor,
        preprocess=nn.Identity(),
        regularisers=[("sigreg", weight, _GivenDirections(case))],
    )
    seen: dict[str, Tensor] = {}
    objective.encoder.register_forward_hook(lambda *call: seen.update(emb=call[-1]))
    objective.predictor.output.register_forward_hook(lambda *call: seen.update(pred=call[-1]))
    pixels = case.tensors["in.pixels"]
    batch = {"frames": pixels, "actions": case.tensors["in.action"][:, : pixels.shape[1] - 1]}
    loss = objective(batch, torch.Generator())
    case.check("out.train_emb", seen["emb"].unflatten(0, pixels.shape[:2]))
    case.check("out.train_pred", seen["pred"])
    scalars = case.meta["scalars"]
    for name, value in (
        ("loss", loss.total),
        ("pred_loss", loss.terms["prediction"]),
        ("sigreg_loss", loss.terms["sigreg"]),
    ):
        case.check(f"out.{name}", value)
        case.compare(name, value, scalars[name])
    loss.total.backward()
    _check_gradients(case, objective)
    _check_step(case, objective)


def _check_gradients(case: Case, objective: DynamicsObjective) -> None:
    own = {name: weight.grad for name, weight in objective.named_parameters()}
    gradients = to_released({name: gradient for name, gradient in own.items() if gradient is not None})
    for name in case.under("out.grad."):
        case.check(f"out.grad.{name}", gradients[name], GRADIENT)
    for name, norm in case.meta["grad_norms"].items():
        case.compare(f"norm of {name}", gradients[name].norm(), norm, GRADIENT)
    assert gradients.keys() == case.meta["grad_norms"].keys()
    state = to_released(objective.state_dict())
    for name in case.under("out.bn_after."):
        case.check(f"out.bn_after.{name}", state[name])


def _check_step(case: Case, objective: DynamicsObjective) -> None:
    """Gradients clipped to norm 1, then one AdamW step (lr 5e-5, weight decay 1e-3)."""
    weights = list(objective.parameters())
    total = nn.utils.clip_grad_norm_(weights, 1.0)
    case.compare("total gradient norm", total, case.meta["scalars"]["grad_norm_total"], GRADIENT)
    torch.optim.AdamW(weights, lr=5e-5, weight_decay=1e-3, betas=(0.9, 0.999)).step()
    state = to_released(objective.state_dict())
    for name in case.under("out.after_step."):
        case.check(f"out.after_step.{name}", state[name], OUTPUT)
