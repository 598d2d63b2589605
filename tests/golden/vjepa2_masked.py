"""Masked pretraining of V-JEPA 2 and 2.1: mask lists, predictors, losses, gradients, one step of the target."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Generator, Tensor, nn

from jepa_mpc.encoders.adapters.names import encoder_spelling, single_norm_spelling
from jepa_mpc.encoders.layers.normed import LatentNorm
from jepa_mpc.encoders.video import AllLevels
from jepa_mpc.types import Masks
from jepa_mpc.world_model.adapters.vjepa2 import fill_predictor, predictor_spelling
from jepa_mpc.world_model.parts.masks import LegacyTubes
from jepa_mpc.world_model.parts.objectives.masked import MaskedObjective, MaskTask, Stream
from jepa_mpc.world_model.parts.objectives.seen import InverseRootDistance, Ramp, SeenLoss
from jepa_mpc.world_model.parts.predictors.masked import DenseMaskedPredictor, MaskedSizes, RotaryMaskedPredictor
from jepa_mpc.world_model.parts.targets import EMATarget, constant_momentum
from tests.golden.cases import GRADIENT, Case
from tests.golden.vjepa2_encoder import v2_encoder, v21_encoder

HIERARCHIES = {4: 4, 8: 4, 12: 4, 20: 4, 24: 4, 40: 4}
"""Depth of a predictor of V-JEPA 2.1 -> levels that it joins."""


class Given:
    """The masks of the case."""

    def __init__(self, context: Tensor, target: Tensor) -> None:
        self.masks = Masks(context=context, targets=target[:, None])

    def __call__(self, batch: int, generator: Generator) -> Masks:
        return self.masks


def check_masks(case: Case) -> None:
    meta = case.meta
    patch = meta["patch_size"]
    crop = meta["crop_size"] if isinstance(meta["crop_size"], list) else [meta["crop_size"]] * 2
    space = tuple(side // patch for side in crop)
    common = {"duration": meta.get("temporal_scale", (1, 1)), "aspect": meta.get("aspect_ratio", (0.75, 1.5))}

    def draw(name: str, sampler: LegacyTubes, sizes: list | None) -> None:
        stream = Generator().manual_seed(meta["seed"])
        calls = sorted({key.split(".")[2] for key in case.tensors if key.startswith(f"out.{name}.")} - set(LISTS))
        for call in calls or [""]:
            number = int(call or 0)
            masks = sampler.at(number, meta["batch"], generator=stream)
            place = f"out.{name}.{call}." if call else f"out.{name}."
            case.check(place + "context", masks.context, (0, 0))
            case.check(place + "target", masks.targets[:, 0], (0, 0))
            if sizes:
                draws = Generator().manual_seed(number)
                shares = torch.cat([torch.rand(1, generator=draws) for _ in range(3)])
                case.compare(f"{name} size", torch.tensor(sampler.block_size(shares)), torch.tensor(sizes[number]))

    for name, facts in meta["configs"].items():
        grid = (meta["num_frames"] // meta["tubelet_size"], *space)
        own = facts.get("spatial_pred_mask_scale", facts.get("spatial_scale"))
        sampler = LegacyTubes(grid=grid, num_blocks=facts["npred"], area=_range(own), **_ranges(common))
        draw(name, sampler, facts.get("block_sizes_thw"))
    if "image" in meta:
        facts = meta["image"]
        grid = (facts["num_frames"] // facts["tubelet_size"], *space)
        draw("image", LegacyTubes(grid=grid, num_blocks=facts["npred"], area=_range(facts["spatial_scale"])), None)


LISTS = ("context", "target")


def _range(value: Any) -> tuple[float, float]:
    return (value, value) if isinstance(value, int | float) else (value[0], value[1])


def _ranges(named: Mapping[str, Any]) -> dict[str, tuple[float, float]]:
    return {name: _range(value) for name, value in named.items()}


def grid_of(config: Mapping[str, Any]) -> tuple[int, int]:
    image = config["img_size"]
    height, width = image if isinstance(image, list) else (image, image)
    return height // config["patch_size"], width // config["patch_size"]


def _sizes(config: Mapping[str, Any], *, inputs: int, outputs: int, hidden: int | None = None) -> MaskedSizes:
    assert config.get("use_rope", True) and config.get("use_mask_tokens", True) and config.get("qkv_bias", True)
    width = config["predictor_embed_dim"]
    return MaskedSizes(
        inputs=inputs,
        outputs=outputs,
        width=width,
        depth=config["depth"],
        heads=config["num_heads"],
        mlp_dim=int(width * config["mlp_ratio"]),
        mask_tokens=config["num_mask_tokens"],
        hidden=hidden,
        eps=config.get("norm_eps", 1e-6),
    )


def v2_predictor(config: Mapping[str, Any], weights: Mapping[str, Tensor]) -> RotaryMaskedPredictor:
    width = config["embed_dim"]
    predictor = RotaryMaskedPredictor(_sizes(config, inputs=width, outputs=width), grid=grid_of(config))
    fill_predictor(predictor, weights)
    return predictor.eval()


def v21_predictor(config: Mapping[str, Any], weights: Mapping[str, Tensor]) -> DenseMaskedPredictor:
    width = config["embed_dim"]
    levels = min(config.get("n_output_distillation", 4), HIERARCHIES[config["depth"]])
    teacher = config.get("teacher_embed_dim")
    sizes = _sizes(
        config,
        inputs=levels * width,
        outputs=levels * (teacher // levels if teacher else width),
        hidden=width if levels > 1 else None,
    )
    predictor = DenseMaskedPredictor(
        sizes,
        grid=grid_of(config),
        modalities=("video", "image") if config.get("modality_embedding", True) else (),
        span={14: 18}.get(config["patch_size"], 256 // config["patch_size"])
        if config.get("interpolate_rope")
        else None,
    )
    fill_predictor(predictor, weights)
    return predictor.eval()


@torch.no_grad()
def check_v2_predictor(case: Case) -> None:
    predictor = v2_predictor(case.meta["config"], case.under("param."))
    given = case.under("in.")
    seen, at, wanted = given["context_tokens"], given["context_idx"], given["target_idx"]
    order = torch.cat([at, wanted], dim=1).argsort(dim=1)
    streams = _watch(predictor)
    outputs = {"default": predictor(seen, at, wanted, mask_token=1)}
    for index, stream in enumerate(streams):
        outputs[f"default.block.{index}"] = _sorted(stream, order)
    everything = predictor.to_wanted(predictor.look(seen, at, wanted, mask_token=1))
    outputs["return_all"] = _sorted(everything, order)
    if "target_idx_unsorted" in given:
        outputs["unsorted"] = predictor(seen, at, given["target_idx_unsorted"], mask_token=1)
    for name in case.under("out.mask_index."):
        outputs[f"mask_index.{name}"] = predictor(seen, at, wanted, mask_token=int(name))
    for name in case.under("out."):
        case.check(f"out.{name}", outputs[name])


@torch.no_grad()
def check_v21_predictor(case: Case) -> None:
    predictor = v21_predictor(case.meta["config"], case.under("param."))
    given = case.under("in.")
    clip = [given[name] for name in ("context_tokens", "context_idx", "target_idx")]
    streams = _watch(predictor)
    runs = {"video": predictor.both(*clip, mask_token=1, modality="video")}
    order = torch.cat(clip[1:], dim=1).argsort(dim=1)
    for name in case.under("out.video.block"):
        case.check(f"out.video.block{name}", _sorted(streams[int(name)], order))
    runs["video_mask0"] = predictor.both(*clip, mask_token=0, modality="video")
    runs["mod_image"] = predictor.both(*clip, mask_token=1, modality="image")
    if "img_context_tokens" in given:
        picture = [given[f"img_{name}"] for name in ("context_tokens", "context_idx", "target_idx")]
        runs["img"] = predictor.both(*picture, mask_token=1, modality="image")
    for name, (wanted, seen) in runs.items():
        for part, value in (("pred", wanted), ("context", seen)):
            if f"out.{name}.{part}" in case.tensors:
                case.check(f"out.{name}.{part}", value)


def _watch(predictor: RotaryMaskedPredictor) -> list[Tensor]:
    """What leaves each block, filled by the next call (and those after it)."""
    streams: list[Tensor] = []
    for block in predictor.blocks:
        block.register_forward_hook(lambda module, inputs, output: streams.append(output))
    return streams


def _sorted(tokens: Tensor, order: Tensor) -> Tensor:
    return tokens.gather(1, order[..., None].expand_as(tokens))


def check_v2_loss(case: Case) -> None:
    config = case.meta["config"]
    eps = {"norm_eps": config.get("norm_eps", 1e-6)}
    encoder_config = config["encoder"] | eps
    shared = {name: encoder_config[name] for name in ("img_size", "patch_size", "embed_dim")}
    encoder = v2_encoder(encoder_config, case.under("param.encoder."))
    teacher = v2_encoder(encoder_config, case.under("param.target_encoder."))
    predictor = v2_predictor(config["predictor"] | shared | eps, case.under("param.predictor."))
    tasks = _tasks(case, {})
    objective = MaskedObjective(
        encoder=encoder,
        predictor=predictor,
        streams=[Stream("frames", tasks)],
        target=EMATarget(teacher, momentum=constant_momentum(config["momentum"]), finish=LatentNorm()),
    )
    clips = case.tensors["in.video"].transpose(1, 2)
    loss = objective({"frames": clips}, Generator())
    loss.total.backward()
    for task in tasks:
        case.check(f"out.loss.{task.name}", loss.terms[f"frames/{task.name}"])
    case.check("out.loss", loss.total)
    case.check("out.target_normed", objective.target(clips, None))
    _check_gradients(case, encoder, predictor, single_norm_spelling)
    objective.after_step(0.0)
    moved = {single_norm_spelling(name): value for name, value in objective.target.encoder.state_dict().items()}
    for name in case.under("out.ema."):
        case.check(f"out.ema.{name}", moved[name])


def check_v21_loss(case: Case) -> None:
    config = case.meta["config"]
    eps = {"norm_eps": config.get("norm_eps", 1e-6)}
    own = {"hierarchical_layers": _levels(config["encoder"]["depth"])}
    encoder_config = config["encoder"] | eps | own
    shared = {name: encoder_config[name] for name in ("img_size", "patch_size", "embed_dim")}
    encoder = AllLevels(v21_encoder(encoder_config, case.under("param.encoder.")))
    teacher = AllLevels(v21_encoder(encoder_config, case.under("param.target_encoder.")))
    predictor = v21_predictor(config["predictor"] | shared | eps, case.under("param.predictor."))
    unit = config["grid_size"] / 16 if config["offset_context_loss"] else 1.0
    nearness = InverseRootDistance(grid_of(encoder_config), unit=unit if unit < 1 else config["grid_size"] // 16 or 1)
    seen_loss = SeenLoss(nearness=nearness, ramp=Ramp(start=0, stop=0, height=0.5))
    tasks = _tasks(case, {"modality": config["modality"]})
    objective = MaskedObjective(
        encoder=encoder,
        predictor=predictor,
        streams=[Stream("frames", tasks)],
        target=EMATarget(teacher, finish=LatentNorm(groups=len(own["hierarchical_layers"]))),
        seen_loss=seen_loss,
    )
    clips = case.tensors["in.video"].transpose(1, 2)
    targets = objective.target(clips, None)
    case.check("out.target_levels_normed", targets)
    plain = []
    for task in tasks:
        masks = task.sampler.masks
        case.check(f"out.sqrt_distance.{task.name}", nearness.distance(masks).sqrt())
        with torch.no_grad():
            wanted, seen = predictor.both(
                encoder(clips, masks.context), masks.context, masks.targets[:, 0], **task.hints
            )
        case.check(f"out.pred.{task.name}", wanted)
        case.check(f"out.context.{task.name}", seen)
        truth = targets.gather(1, masks.context[..., None].expand_as(seen))
        plain.append(SeenLoss()(seen, truth, masks))
    case.check("out.loss_context_unweighted", torch.stack(plain).mean())
    loss = objective({"frames": clips}, Generator())
    loss.total.backward()
    hidden = torch.stack([loss.terms[f"frames/{task.name}"] for task in tasks]).mean()
    case.check("out.loss_pred", hidden)
    case.check("out.loss_context_weighted", loss.terms["frames/seen_raw"])
    case.check("out.loss_total_lambda0.5", loss.total)
    _check_gradients(case, encoder.encoder, predictor, encoder_spelling)
    if "in.lambda_iters" in case.tensors:
        ramp = Ramp(start=15_000, stop=30_000, height=0.5)
        case.check("out.lambda_values", ramp(case.tensors["in.lambda_iters"].double()))


def _levels(depth: int) -> list[int]:
    return [depth // 4 * level - 1 for level in (1, 2, 3, 4)]


def _tasks(case: Case, hints: Mapping[str, Any]) -> list[MaskTask]:
    contexts, targets = case.under("in.context_idx."), case.under("in.target_idx.")
    return [MaskTask(name=name, sampler=Given(contexts[name], targets[name]), hints=hints) for name in sorted(contexts)]


def _check_gradients(case: Case, encoder: nn.Module, predictor: nn.Module, spelling: Any) -> None:
    gradients: dict[str, Tensor] = {}
    for name, weight in encoder.named_parameters():
        if weight.grad is not None:
            gradients[f"encoder.{spelling(name)}"] = weight.grad
    named = {name: weight.grad for name, weight in predictor.named_parameters() if weight.grad is not None}
    gradients |= {f"predictor.{name}": value for name, value in predictor_spelling(named).items()}
    for name in case.under("out.grad."):
        case.check(f"out.grad.{name}", gradients[name], GRADIENT)
