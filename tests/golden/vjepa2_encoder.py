"""Kinds `vjepa2_encoder`, `vjepa2_1_encoder` and `preprocessing`: encoders of V-JEPA 2 and 2.1, and their food."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from jepa_mpc.encoders.adapters.filling import fill
from jepa_mpc.encoders.adapters.names import encoder_spelling, single_norm_spelling
from jepa_mpc.encoders.preprocessing import EvaluationPixels, RobotPixels
from jepa_mpc.encoders.video import VideoSizes, VideoTransformer
from tests.golden.cases import Case


def sizes_of(config: Mapping) -> VideoSizes:
    width = config["embed_dim"]
    return VideoSizes(
        width=width,
        depth=config["depth"],
        heads=config["num_heads"],
        mlp_dim=int(width * config["mlp_ratio"]),
        patch=config["patch_size"],
        tubelet=config["tubelet_size"],
        channels=config.get("in_chans", 3),
        eps=config.get("norm_eps", 1e-6),
        qkv_bias=config.get("qkv_bias", True),
    )


def v2_encoder(config: Mapping, weights: Mapping[str, Tensor]) -> VideoTransformer:
    assert config.get("use_rope", True), "only encoders with rotary places were released"
    encoder = VideoTransformer(sizes_of(config), pairing="tiled")
    fill(encoder, weights, spelling=single_norm_spelling, title="the case", ignored=("pos_embed",))
    return encoder.eval()


def v21_encoder(config: Mapping, weights: Mapping[str, Tensor]) -> VideoTransformer:
    assert config.get("use_rope", True), "only encoders with rotary places were released"
    span = {14: 18}.get(config["patch_size"], 256 // config["patch_size"])
    encoder = VideoTransformer(
        sizes_of(config),
        pairing="interleaved",
        span=span if config.get("interpolate_rope") else None,
        levels=config["hierarchical_layers"],
        pictures=True,
    )
    own = {encoder_spelling(name): torch.zeros_like(weight) for name, weight in encoder.state_dict().items()}
    left_out = {name: weight for name, weight in own.items() if re.match(r"(video|img)_mod|patch_embed_img", name)}
    fill(encoder, left_out | dict(weights), spelling=encoder_spelling, title="the case", ignored=("pos_embed",))
    return encoder.eval()


@torch.no_grad()
def check_v2(case: Case) -> None:
    encoder = v2_encoder(case.meta["config"], case.under("param."))
    clips = case.tensors["in.video"].transpose(1, 2)
    blocks = range(encoder.sizes.depth)
    if "out.patch_embed" in case.tensors:
        case.check("out.patch_embed", encoder.embed(clips)[0])
    if "out.final" in case.tensors:
        case.check("out.final", encoder(clips))
    streams = encoder.streams(clips, at=blocks)
    for name in case.under("out.block."):
        case.check(f"out.block.{name}", streams[int(name)])
    if "out.levels_normed" in case.tensors:
        case.check("out.levels_normed", torch.stack(encoder.depths(clips, at=blocks)))
    masked = []
    for name, keep in sorted(case.under("in.mask.").items()):
        masked.append(encoder(clips, keep))
        case.check(f"out.masked.{name}", masked[-1])
        if f"out.masked.{name}.block0" in case.tensors:
            case.check(f"out.masked.{name}.block0", encoder.streams(clips, keep, at=[0])[0])
    if "out.masked_list" in case.tensors:
        case.check("out.masked_list", torch.cat(masked[:2]))


@torch.no_grad()
def check_v21(case: Case) -> None:
    config = case.meta["config"]
    encoder = v21_encoder(config, case.under("param."))
    levels, joined = config["hierarchical_layers"], config["out_layers_distillation"]
    for name in [key for key in case.under("in.") if "." not in key]:
        x, wanted = case.tensors[f"in.{name}"].transpose(1, 2), f"out.{name}."
        keep = case.tensors.get(f"in.{name}.mask")
        outputs = {
            "final": encoder(x),
            "block0": encoder.streams(x, at=[0])[0],
            "hier": torch.cat(encoder.depths(x, at=joined), dim=-1),
            "levels": torch.stack(encoder.depths(x, at=levels)),
        }
        if keep is not None:
            outputs["masked"] = encoder(x, keep)
            outputs["masked_hier"] = torch.cat(encoder.depths(x, keep, at=joined), dim=-1)
        for key, value in outputs.items():
            if wanted + key in case.tensors:
                case.check(wanted + key, value)


def check_preprocessing(case: Case) -> None:
    told, one_grey_level = case.meta["suggested_tolerance"], 1 / 255 / 0.224
    for name in case.under("in."):
        frames = case.tensors[f"in.{name}"].permute(0, 3, 1, 2)  # (T, C, h, w)
        for output, wanted in case.under(f"out.{name}.").items():
            size = wanted.shape[-1]
            prepare, tolerance = {
                "droid": (RobotPixels(size, ratio=(0.75, 1.35)), told["atol"]),
                "square": (RobotPixels(size), told["atol"]),
                "eval_tensor": (EvaluationPixels(size), min(told["eval_tensor_atol"], one_grey_level)),
            }[output]
            case.check(f"out.{name}.{output}", prepare(frames).transpose(0, 1), (tolerance, told["rtol"]))
