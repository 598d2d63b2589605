"""Kind `dinowm_predictor`: frame-causal attention over several tokens per frame, and the planning objective."""

from __future__ import annotations

import torch
from torch import nn

from jepa_mpc.world_model.adapters.dino_wm import predictor_names
from jepa_mpc.world_model.parts.predictors.causal import CausalPredictor
from jepa_mpc.world_model.parts.predictors.frame_positions import WindowPositions
from jepa_mpc.world_model.parts.predictors.trunk import ConcatenatedTransformer, TrunkSizes
from tests.golden.cases import Case


def check(case: Case) -> None:
    meta = case.meta
    sizes = TrunkSizes(
        width=meta["dim"],
        depth=meta["depth"],
        heads=meta["heads"],
        head_dim=meta["dim_head"],
        mlp_dim=meta["mlp_dim"],
    )
    predictor = CausalPredictor(
        trunk=ConcatenatedTransformer(meta["dim"], sizes=sizes),  # the case's tokens hold their action already
        action_encoder=nn.Identity(),
        positions=WindowPositions(window=meta["num_frames"], width=meta["dim"], num_tokens=meta["num_patches"]),
    )
    predictor.load_state_dict(predictor_names(case.under("param."), window=meta["num_frames"]))
    states = case.tensors["in.x"].unflatten(1, (-1, meta["num_patches"]))
    nothing = states.new_zeros(*states.shape[:2], 0)
    short = meta["short_frames"]
    with torch.no_grad():
        case.check("out.y", predictor.look(states, nothing).flatten(1, 2))
        case.check("out.y_short", predictor.look(states[:, :short], nothing[:, :short]).flatten(1, 2))
    _check_objective(case)


def _check_objective(case: Case) -> None:
    """Squared error of the looks plus alpha times that of proprioception: on the last frame, or on weighted frames."""
    errors = {}
    for part in ("visual", "proprio"):
        gap = (case.tensors[f"in.obj.{part}_pred"] - case.tensors[f"in.obj.{part}_goal"]).square()
        errors[part] = gap.flatten(2).mean(dim=-1)  # (S, T)
    weights = float(case.meta["objective_base"]) ** torch.arange(errors["visual"].shape[1])
    weights = weights / weights.sum()
    for key in case.under("out.obj."):
        steps, alpha = key.split("_alpha")
        total = errors["visual"] + float(alpha) * errors["proprio"]
        case.check(f"out.obj.{key}", total[:, -1] if steps == "last" else (weights * total).mean(dim=1))
