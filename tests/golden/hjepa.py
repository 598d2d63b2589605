"""Kind `hjepa`: the public hierarchical JEPA, its levels, losses, gradients, target and normality statistics."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from jepa_mpc.encoders.vit import VisionTransformer, ViTSizes
from jepa_mpc.world_model.adapters.hjepa import encoder_spelling, fill_objective
from jepa_mpc.world_model.parts.distances import SmoothAbsoluteError, SquaredError
from jepa_mpc.world_model.parts.masks.levels import LegacyLevelBlocks
from jepa_mpc.world_model.parts.objectives.legacy_pyramid import (
    BorrowedPlaces,
    LegacyPyramidObjective,
    RunPyramid,
    shortened,
)
from jepa_mpc.world_model.parts.predictors.masked import MaskedSizes
from jepa_mpc.world_model.parts.regularisers.scale_free import KernelNormality, StandardisedSIGReg
from jepa_mpc.world_model.parts.regularisers.two_views import TwoViews
from jepa_mpc.world_model.parts.targets import EMATarget, linear_momentum
from tests.golden.cases import GRADIENT, Case

BASES = {"mse": SquaredError(), "smoothl1": SmoothAbsoluteError(), "huber": SmoothAbsoluteError()}


def check(case: Case) -> None:
    if "level1" in case.meta.get("config", {}):
        pytest.skip("a planning hierarchy over actions goes by the same name; it is not built")
    images, hidden = case.tensors["in.images"], case.tensors["in.mask"].bool()
    model = _model(case)
    predicted, wanted, real = model.levels(images, hidden)
    case.check("out.context_features", model.seen(images, hidden))
    target = model.target.encoder
    assert isinstance(target, VisionTransformer)
    case.check("out.target_features", target.tokens(images))
    for level, (one, other) in enumerate(zip(predicted, wanted, strict=True)):
        case.check(f"out.prediction.{level}", one)
        case.check(f"out.target.{level}", other)
        if case.meta["use_fpn"]:  # the public code sends these through learned layers, which means nothing
            case.checked.add(f"out.valid.{level}")
        else:
            case.check(f"out.valid.{level}", shortened(real[..., None].float(), level) > 0.5)
    for level, features in enumerate(model.pyramid(target(images))):
        case.check(f"out.extract_features.{level}", features)
    _check_losses(case, model, predicted, wanted, real)
    _check_combined(case, model, images, hidden)
    _check_target(case, model)
    if case.meta.get("sig"):
        _check_normality(case)


def _model(case: Case) -> LegacyPyramidObjective:
    meta, eps = case.meta, case.meta["layer_norm_eps"]
    width = meta["embed_dim"]
    hidden = int(width * meta.get("mlp_ratio", 4.0))
    sizes = ViTSizes(
        image=meta["img_size"], patch=meta["patch_size"], width=width, depth=meta["depth"], heads=meta["num_heads"],
        mlp_dim=hidden, eps=eps["vit"],
    )  # fmt: skip
    encoder = VisionTransformer(sizes, pool="dense")
    predictor = BorrowedPlaces(
        MaskedSizes(
            inputs=width, outputs=width, width=width, depth=meta["pred_depth"], heads=meta["pred_heads"],
            mlp_dim=hidden, mask_tokens=1, eps=eps["predictor"],
        )
    )  # fmt: skip
    pyramid = RunPyramid(
        width,
        levels=meta["levels"],
        fusion=meta["fusion"] if meta["use_fpn"] else "none",
        fusion_width=meta["fpn_dim"] or width,
    )
    side = meta["img_size"] // meta["patch_size"]
    model = LegacyPyramidObjective(
        encoder=encoder,
        predictor=predictor,
        pyramid=pyramid,
        target=EMATarget(encoder, momentum=linear_momentum(meta["ema_momentum"], meta["ema_momentum_end"])),
        sampler=LegacyLevelBlocks(grid=(side, side)),
        distance=SquaredError(),
        weights=meta["hierarchy_weights"],
        still=torch.nn.Identity(),
    )
    fill_objective(model, case.under("param."))
    return model.eval()


def _check_losses(case: Case, model: LegacyPyramidObjective, predicted: Any, wanted: Any, real: Tensor) -> None:
    for name in {key.split(".")[0] for key in case.under("out.loss.")}:
        for normed in (False, True):
            model.distance, model.normed = BASES[name], normed
            place = f"out.loss.{name}.norm{int(normed)}"
            pairs = model.compare(predicted, wanted)
            case.check(place, _total(pairs))
            for level, (_, distance) in enumerate(pairs):
                case.check(f"{place}.h{level}", distance)
            if f"{place}.masked" in case.tensors:
                case.check(f"{place}.masked", _total(model.compare(predicted, wanted, real)))


def _check_combined(case: Case, model: LegacyPyramidObjective, images: Tensor, hidden: Tensor) -> None:
    """Unit-length smooth L1 plus a tenth of VICReg between the two halves of the batch: different pictures."""
    if len(images) < 2:  # there are no two halves
        return
    model.distance, model.normed = BASES["smoothl1"], True
    predicted, wanted, _ = model.levels(images, hidden)
    pairs = model.compare(predicted, wanted)
    seen = model.seen(images, hidden)
    half, width = len(seen) // 2, seen.shape[-1]
    views = TwoViews(covariance=0.5 / (width - 1), eps=1e-8)  # the public code takes means over pairs and views
    terms = views.terms(seen[:half].flatten(0, 1), seen[half : 2 * half].flatten(0, 1))
    weights = {"invariance": 1.0, "variance": 1.0, "covariance": views.covariance}
    for name, (_, term) in terms.items():
        case.check(f"out.combined.vicreg_{name}", weights[name] * term)
    spread = sum((weight * term for weight, term in terms.values()), start=seen.new_zeros(()))
    case.check("out.combined.vicreg_encoder", spread)
    case.check("out.combined.vicreg_loss", 0.1 * spread)
    case.check("out.combined.jepa_loss", _total(pairs))
    for level, (_, distance) in enumerate(pairs):
        case.check(f"out.combined.loss_h{level}", distance)
    case.check("out.combined.loss_unweighted", torch.stack([distance for _, distance in pairs]).mean())
    total = _total(pairs) + 0.1 * spread
    case.check("out.combined.loss", total)
    model.zero_grad()
    total.backward()
    parts = {
        "context_encoder": model.encoder,
        "predictor": model.predictor,
        "hierarchy_projections": model.pyramid.heads,
    }
    for name, module in parts.items():
        grads = [weight.grad for weight in module.parameters() if weight.grad is not None]
        norm = torch.stack([grad.double().square().sum() for grad in grads]).sum().sqrt()
        case.check(f"out.grad_norm.{name}", norm, GRADIENT)


def _check_target(case: Case, model: LegacyPyramidObjective) -> None:
    meta = case.meta
    progress = min(1.0, meta["ema_step"] / meta["ema_warmup_steps"])
    case.check("out.ema.momentum", torch.tensor(model.target.momentum(progress)))
    model.after_step(progress)
    moved = {encoder_spelling(name): value for name, value in model.target.encoder.state_dict().items()}
    for name in case.under("out.ema.vit."):
        case.check(f"out.ema.vit.{name}", moved[name])


def _check_normality(case: Case) -> None:
    given = case.under("out.sig.")
    case.checked |= {"out.sig.z", "out.sig.directions"}  # inputs
    directions = given["directions"].T
    case.check("out.sig.reference_points", KernelNormality().along(given["z"], directions))
    case.check("out.sig.char_function", StandardisedSIGReg().along(given["z"], directions))


def _total(pairs: list[tuple[float, Tensor]]) -> Tensor:
    return torch.stack([weight * distance for weight, distance in pairs]).sum()
