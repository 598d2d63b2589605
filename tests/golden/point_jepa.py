"""Kinds `point_jepa` and `point_jepa_sampler_stats`: neighbourhoods, orders, encoder, predictor, losses, masks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Generator, Tensor, nn

from jepa_mpc.encoders.adapters.points import fill_encoder, released_name, sizes_of
from jepa_mpc.encoders.layers.clouds import ORDERS, farthest, neighbours, picked
from jepa_mpc.encoders.points import CloudTokens, PointEncoder, PointTokens, PointTransformer, summary
from jepa_mpc.types import Masks
from jepa_mpc.world_model.adapters.point_jepa import fill_predictor
from jepa_mpc.world_model.parts.distances import SmoothAbsoluteError, SquaredError
from jepa_mpc.world_model.parts.masks.points import LegacyRuns, Runs
from jepa_mpc.world_model.parts.objectives.clouds import CloudObjective, CloudStream, mean_of_normed
from jepa_mpc.world_model.parts.objectives.masked import MaskTask
from jepa_mpc.world_model.parts.predictors.cloud_places import CloudPlaces
from jepa_mpc.world_model.parts.predictors.masked import MaskedPredictor, MaskedSizes
from jepa_mpc.world_model.parts.targets import EMATarget, constant_momentum
from tests.golden.cases import GRADIENT, Case
from tests.golden.mask_statistics import agree, check_coverage

THEIR_ORDERS = {
    "iterative_nearest": "nearest_from_first",
    "iterative_nearest_min_start": "nearest_from_corner",
    "morton": "morton",
}


class Given:
    """The masks of the case, the same for every cloud."""

    def __init__(self, context: Tensor, targets: Tensor) -> None:
        self.context, self.targets = context, targets

    def __call__(self, batch: int, generator: Generator) -> Masks:
        return Masks(context=self.context.expand(batch, -1), targets=self.targets.expand(batch, -1, -1))


def check(case: Case) -> None:
    meta, clouds = case.meta, case.tensors["in.points"]
    student, teacher = (_encoder(case, which) for which in ("student", "teacher"))
    start = case.tensors["in.fps_start"]
    _check_neighbourhoods(case, student.tokens, clouds, start)
    x = student.tokens(clouds, start=start)
    case.check("out.seq_tokens", x.values)
    case.check("out.seq_centers", x.centres)
    case.check("out.student_full", student.trunk(x))
    case.check("out.student_context", student.trunk(x, _given(case).context.expand(len(clouds), -1)))
    case.check("out.global_feature", summary(student.trunk(x)))
    _check_losses(case, student, teacher.trunk, x)
    target = EMATarget(student.trunk, momentum=constant_momentum(meta["ema_example"]))
    target.encoder.load_state_dict(teacher.trunk.state_dict())
    target.update(student.trunk, 0.0)
    moved = {released_name(f"trunk.{key}"): value for key, value in target.encoder.state_dict().items()}
    for name in case.under("out.ema."):
        case.check(f"out.ema.{name}", moved[f"student.{name}"])


def _encoder(case: Case, which: str) -> PointEncoder:
    meta, weights = case.meta, case.under("param.")
    sizes = sizes_of(
        weights, source="the case", groups=meta["num_groups"], group_size=meta["group_size"],
        heads=meta["encoder_heads"], placed=None if meta["encoder_add_pos_at_every_layer"] else 1,
    )  # fmt: skip
    assert meta["batch_norm_eps"] == nn.BatchNorm1d(1).eps
    sizes = replace(sizes, eps=meta["layer_norm_eps"])
    encoder = PointEncoder(PointTokens(sizes), PointTransformer(sizes))
    fill_encoder(encoder, weights, title="the case", which=which)
    return encoder.eval()


def _check_neighbourhoods(case: Case, tokens: PointTokens, clouds: Tensor, start: Tensor) -> None:
    sizes = tokens.sizes
    chosen = farthest(clouds, sizes.groups, start=start)
    centres = picked(clouds, chosen)
    near = neighbours(centres, clouds, sizes.group_size)
    groups = picked(clouds, near) - centres[:, :, None]
    case.check("out.fps_indices", chosen)
    case.check("out.centers", centres)
    case.check("out.knn_indices", near)
    case.check("out.groups", groups)
    case.check("out.tokens", tokens.net(groups))
    for theirs, ours in THEIR_ORDERS.items():
        case.check(f"out.order_{theirs}", ORDERS[ours](centres))


def _given(case: Case) -> Given:
    return Given(case.tensors["in.context_indices"], case.tensors["in.target_indices"])


def _check_losses(case: Case, student: PointEncoder, teacher: nn.Module, x: CloudTokens) -> None:
    meta = case.meta
    predictor = _predictor(case, student.width)
    stream = CloudStream([MaskTask(name="runs", sampler=_given(case))], tokens=student.tokens)
    objective = CloudObjective(
        encoder=student.trunk,
        predictor=predictor,
        streams=[stream],
        target=EMATarget(teacher, look=mean_of_normed(meta["target_layers"])),
        distance=SmoothAbsoluteError(beta=meta["loss_beta"]),
    )
    targets = objective.target(x, None)
    case.check("out.teacher_target", targets)
    loss, predicted, wanted = _step(objective, x)
    case.check("out.pred_blocks", predicted.transpose(0, 1))
    case.check("out.target_blocks", wanted.transpose(0, 1))
    case.check("out.loss_smooth_l1", loss)
    case.check("out.loss_mse", SquaredError()(predicted, wanted))
    case.check("out.pred_token_std", _spread(predicted))
    case.check("out.target_token_std", _spread(wanted))
    loss.backward()
    case.check("out.grad_norm.student", _gradient(student.trunk), GRADIENT)
    case.check("out.grad_norm.predictor", _gradient(predictor), GRADIENT)


def _step(objective: CloudObjective, x: CloudTokens) -> tuple[Tensor, Tensor, Tensor]:
    """The loss on given tokens, and what its distance compared."""
    seen: list[tuple[Tensor, Tensor]] = []
    objective.distance.register_forward_hook(lambda module, inputs, output: seen.append(inputs))
    terms = objective._stream(objective.inputs[0], x, Generator())
    return (terms["runs"][1], *seen[0])


def _predictor(case: Case, width: int) -> MaskedPredictor:
    meta, weights = case.meta, case.under("param.")
    narrow = meta["predictor_dim"]
    sizes = MaskedSizes(
        inputs=width, outputs=width, width=narrow, depth=meta["predictor_depth"], heads=meta["predictor_heads"],
        mlp_dim=weights["predictor.predictor.blocks.0.mlp.fc1.weight"].shape[0], mask_tokens=1,
        eps=meta["layer_norm_eps"],
    )  # fmt: skip
    hidden = weights["predictor.positional_encoding.0.weight"].shape[0]
    predictor = MaskedPredictor(sizes, CloudPlaces(narrow, hidden=hidden))
    fill_predictor(predictor, weights)
    return predictor.eval()


def _spread(blocks: Tensor) -> Tensor:
    """Deviation of each feature over all tokens, mean over the features."""
    return blocks.flatten(0, -2).std(dim=0).mean()


def _gradient(module: nn.Module) -> Tensor:
    grads = [weight.grad.norm() for weight in module.parameters() if weight.grad is not None]
    return torch.stack(grads).norm()


def check_sampler(case: Case) -> None:
    """Both samplers have the distribution of the reference."""
    assert case.meta["sampler"] == "point_jepa_contiguous", case.meta["sampler"]
    for kind in (Runs, LegacyRuns):
        _check_sampler(case, kind)


def _check_sampler(case: Case, kind: type[Runs]) -> None:
    meta: dict[str, Any] = case.meta
    total = meta["num_tokens"]
    sampler = kind(
        num_tokens=total, num_targets=meta["num_targets"], target=tuple(meta["target_ratio"]),
        context=tuple(meta["context_ratio"]),
    )  # fmt: skip
    stream, draws = Generator().manual_seed(0), (meta["draws"], meta["draws"])
    seen, hidden, lengths = [], [], []
    for _ in range(meta["draws"]):
        masks = sampler(2, stream)
        assert torch.equal(masks.context[0], masks.context[1]) and torch.equal(masks.targets[0], masks.targets[1])
        seen.append(torch.zeros(total).scatter(0, masks.context[0], 1.0))
        hidden.append(torch.zeros(total).scatter(0, masks.targets[0].flatten(), 1.0))
        lengths.append(float(masks.targets.shape[-1]))
    context, targets = torch.stack(seen), torch.stack(hidden)
    overlap = float((context * targets).sum())
    if overlap > 0 or meta["context_target_overlap_total"] > 0:
        assert kind is LegacyRuns and meta["context_target_overlap_total"] > 0, f"{overlap} tokens seen and hidden"
    values = {
        "target_len": torch.tensor(lengths),
        "target_union_fraction": targets.mean(dim=1),
        "context_fraction": context.mean(dim=1),
    }
    for name, facts in meta["stats"].items():
        agree(case, f"{name} of {kind.__name__}", values[name], facts, draws)
    check_coverage(case, "out.context_cover_rate", context, draws)
    check_coverage(case, "out.target_cover_rate", targets, draws)
