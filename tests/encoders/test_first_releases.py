"""Released encoders of I-JEPA, V-JEPA (the first) and DINOv2: every layout, every key, every mistake told."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from jepa_mpc.encoders.adapters import dinov2, placed
from jepa_mpc.encoders.adapters.files import Released, read_released, sort_hugging_face, sort_trainer
from jepa_mpc.encoders.adapters.names import placed_spelling
from jepa_mpc.encoders.adapters.vjepa2 import load
from jepa_mpc.encoders.layers.weights import draw_weights
from jepa_mpc.encoders.placed import PlacedForm, PlacedTransformer
from jepa_mpc.encoders.released import RELEASES
from jepa_mpc.encoders.video import VideoSizes
from jepa_mpc.errors import BadCheckpoint
from jepa_mpc.seeding import generator
from jepa_mpc.world_model.adapters.vjepa2 import load_predictor, predictor_spelling
from jepa_mpc.world_model.recipes import ijepa, vjepa

SIZES = VideoSizes(width=48, depth=2, heads=4, mlp_dim=96, patch=8, tubelet=1)
CLIPS = VideoSizes(width=48, depth=2, heads=4, mlp_dim=96, patch=8, tubelet=2)
BLOCK = {
    "norm1.weight": "d", "norm1.bias": "d", "attn.qkv.weight": "3d d", "attn.qkv.bias": "3d", "attn.proj.weight": "d d",
    "attn.proj.bias": "d", "norm2.weight": "d", "norm2.bias": "d", "mlp.fc1.weight": "h d", "mlp.fc1.bias": "h",
    "mlp.fc2.weight": "d h", "mlp.fc2.bias": "d",
}  # fmt: skip
HUGGING_FACE_BLOCK = {
    **{f"attention.attention.{part}.{kind}": shape for part in ("query", "key", "value")
       for kind, shape in (("weight", "d d"), ("bias", "d"))},
    "attention.output.dense.weight": "d d", "attention.output.dense.bias": "d",
}  # fmt: skip
IJEPA_BLOCK = HUGGING_FACE_BLOCK | {
    "layernorm_before.weight": "d", "layernorm_before.bias": "d", "layernorm_after.weight": "d",
    "layernorm_after.bias": "d", "intermediate.dense.weight": "h d", "intermediate.dense.bias": "h",
    "output.dense.weight": "d h", "output.dense.bias": "d",
}  # fmt: skip
DINO_BLOCK = HUGGING_FACE_BLOCK | {
    "norm1.weight": "d", "norm1.bias": "d", "norm2.weight": "d", "norm2.bias": "d", "mlp.fc1.weight": "h d",
    "mlp.fc1.bias": "h", "mlp.fc2.weight": "d h", "mlp.fc2.bias": "d", "layer_scale1.lambda1": "d",
    "layer_scale2.lambda1": "d",
}  # fmt: skip


def shaped(keys: dict[str, str], prefix: str, *, width: int, hidden: int) -> dict[str, Tensor]:
    sizes = {"d": width, "3d": 3 * width, "h": hidden}
    return {
        prefix + key: torch.empty([sizes[axis] for axis in shape.split()], device="meta") for key, shape in keys.items()
    }


def authors(width: int, depth: int, hidden: int, *, patches: list[int], places: int) -> dict[str, Tensor]:
    """A full-size encoder in the authors' layout, without memory."""
    found = {
        "patch_embed.proj.weight": torch.empty(width, *patches, device="meta"),
        "patch_embed.proj.bias": torch.empty(width, device="meta"),
        "pos_embed": torch.empty(1, places, width, device="meta"),
    }
    found |= shaped({"norm.weight": "d", "norm.bias": "d"}, "", width=width, hidden=hidden)
    for index in range(depth):
        found |= shaped(BLOCK, f"blocks.{index}.", width=width, hidden=hidden)
    return found


def predictor(width: int, depth: int, *, masks: list[str], places: int) -> dict[str, Tensor]:
    """A full-size predictor of width 384."""
    found = {name: torch.empty(1, 1, 384, device="meta") for name in masks}
    found |= {
        "predictor_embed.weight": torch.empty(384, width, device="meta"),
        "predictor_embed.bias": torch.empty(384, device="meta"),
        "predictor_proj.weight": torch.empty(width, 384, device="meta"),
        "predictor_proj.bias": torch.empty(width, device="meta"),
        "predictor_pos_embed": torch.empty(1, places, 384, device="meta"),
    }
    found |= shaped({"predictor_norm.weight": "d", "predictor_norm.bias": "d"}, "", width=384, hidden=1536)
    for index in range(depth):
        found |= shaped(BLOCK, f"predictor_blocks.{index}.", width=384, hidden=1536)
    return found


FULL = {
    "ijepa_vith14_1k": (1280, 32, 5120, [3, 14, 14], 256, 12, ["mask_token"]),
    "ijepa_vith16_448_1k": (1280, 32, 5120, [3, 16, 16], 784, 12, ["mask_token"]),
    "ijepa_vitg16_22k": (1408, 40, 6144, [3, 16, 16], 196, 16, ["mask_token"]),
    "vjepa_vitl": (1024, 24, 4096, [3, 2, 16, 16], 1568, 12, ["mask_tokens.0", "mask_tokens.1"]),
    "vjepa_vith": (1280, 32, 5120, [3, 2, 16, 16], 1568, 12, ["mask_tokens.0", "mask_tokens.1"]),
    "vjepa_vith_384": (1280, 32, 5120, [3, 2, 16, 16], 4608, 12, ["mask_tokens.0", "mask_tokens.1"]),
}


@pytest.mark.parametrize("name", FULL)
def test_full_size_files_of_the_authors_fit_key_by_key(name):
    width, depth, hidden, patches, places, predictor_depth, masks = FULL[name]
    prefix = "module.backbone." if name.startswith("vjepa") else "module."
    weights = authors(width, depth, hidden, patches=patches, places=places)
    answers = predictor(width, predictor_depth, masks=masks, places=places)
    content = {
        "encoder": {prefix + key: value for key, value in weights.items()},
        "predictor": {prefix + key: value for key, value in answers.items()},
        "target_encoder": {prefix + key: value for key, value in weights.items()},
        "opt": {"state": {}}, "scaler": {}, "epoch": 300, "loss": 0.1, "batch_size": 128, "world_size": 16, "lr": 1e-3,
    }  # fmt: skip
    released = sort_trainer(content, source="file")
    assert released.section == "target_encoder" and placed.fits(released)
    found = placed.describe(released)
    assert (found.form, found.sizes) == (RELEASES[name].form, RELEASES[name].sizes)
    encoder = placed.build(released, found, title=name, dtype=None)
    assert {placed_spelling(key) for key in encoder.state_dict()} == set(weights)
    made = load_predictor(released)
    assert {key for key in predictor_spelling(made.state_dict()) if "mask_token" not in key} == set(answers) - set(
        masks
    )


@pytest.mark.parametrize("prefix", ["", "ijepa."])
def test_a_full_size_file_of_hugging_face_fits_key_by_key(prefix):
    weights = shaped({"layernorm.weight": "d", "layernorm.bias": "d"}, "", width=1280, hidden=5120)
    weights |= {
        "embeddings.patch_embeddings.projection.weight": torch.empty(1280, 3, 14, 14, device="meta"),
        "embeddings.patch_embeddings.projection.bias": torch.empty(1280, device="meta"),
        "embeddings.position_embeddings": torch.empty(1, 256, 1280, device="meta"),
    }
    for index in range(32):
        weights |= shaped(IJEPA_BLOCK, f"encoder.layer.{index}.", width=1280, hidden=5120)
    config = {"hidden_size": 1280, "num_attention_heads": 16, "layer_norm_eps": 1e-6, "patch_size": 14}
    released = sort_hugging_face({prefix + key: value for key, value in weights.items()}, config, source="folder")
    found = placed.describe(released)
    assert (found.form, found.sizes) == (RELEASES["ijepa_vith14_1k"].form, RELEASES["ijepa_vith14_1k"].sizes)
    placed.build(released, found, title="ijepa", dtype=None)


@pytest.mark.parametrize(("name", "width", "depth"), [("dinov2_vits", 384, 12), ("dinov2_vitl", 1024, 24)])
def test_a_full_size_baseline_fits_key_by_key(name, width, depth):
    weights = shaped({"layernorm.weight": "d", "layernorm.bias": "d"}, "", width=width, hidden=4 * width)
    weights |= {
        "embeddings.cls_token": torch.empty(1, 1, width, device="meta"),
        "embeddings.mask_token": torch.empty(1, width, device="meta"),
        "embeddings.patch_embeddings.projection.weight": torch.empty(width, 3, 14, 14, device="meta"),
        "embeddings.patch_embeddings.projection.bias": torch.empty(width, device="meta"),
        "embeddings.position_embeddings": torch.empty(1, 37 * 37 + 1, width, device="meta"),
    }
    for index in range(depth):
        weights |= shaped(DINO_BLOCK, f"encoder.layer.{index}.", width=width, hidden=4 * width)
    released = sort_hugging_face(weights, {}, source="folder")
    found = dinov2.describe(released)
    assert (found.form, found.sizes) == (RELEASES[name].form, RELEASES[name].sizes)
    dinov2.build(released, found, title=name, dtype=None)


def tiny(form: PlacedForm, sizes: VideoSizes, seed: int) -> tuple[PlacedTransformer, dict[str, Tensor]]:
    made = draw_weights(form(sizes), generator(seed)).eval()
    assert isinstance(made, PlacedTransformer)
    spelled = {placed_spelling(name): weight.detach().clone() for name, weight in made.state_dict().items()}
    if sizes.tubelet == 1:
        spelled["patch_embed.proj.weight"] = spelled["patch_embed.proj.weight"][:, :, 0]
    return made, spelled


@pytest.mark.parametrize("kind", ["pictures", "clips"])
def test_trainer_files_give_the_encoder_of_the_target_and_the_predictor(tmp_path, kind):
    if kind == "pictures":
        objective = ijepa.build(preset="tiny", generator=generator(3))
        form, prefix = PlacedForm(image=28), "module."
    else:
        objective = vjepa.build(preset="tiny", generator=generator(3))
        form, prefix = PlacedForm(image=28, frames=4, table="even_thirds"), "module.backbone."
    sizes = objective.encoder.sizes
    online, student = tiny(form, sizes, 1)
    target, teacher = tiny(form, sizes, 2)
    answers = predictor_spelling(objective.predictor.state_dict())
    if kind == "pictures":
        answers["mask_token"] = answers.pop("mask_tokens.0")
    answers["predictor_pos_embed"] = answers["predictor_pos_embed"][None]
    sections = {"encoder": student, "predictor": answers, "target_encoder": teacher}
    content = {name: {prefix + key: value for key, value in table.items()} for name, table in sections.items()}
    file = tmp_path / "checkpoint.pth.tar"
    torch.save(content | {"opt": {"state": {}}, "epoch": 3, "loss": 0.5}, file)
    frames = 1 if kind == "pictures" else 4
    x = torch.randn(2, frames, 3, 28, 28, generator=generator(4))
    released = read_released(file)
    if kind == "clips":  # no name says how long its clips are
        released = Released(**{**released.__dict__, "config": {"num_frames": 4}})
    found = placed.describe(released, heads=sizes.heads)
    assert torch.equal(placed.build(released, found, title="file")(x), target(x))
    assert not torch.equal(target(x), online(x))
    again = load_predictor(released, heads=2) if kind == "pictures" else None
    if again is not None:
        seen, at = torch.randn(2, 3, 32, generator=generator(5)), torch.tensor([[0, 3, 7]] * 2)
        wanted = torch.tensor([[1, 2]] * 2)
        assert torch.allclose(again(seen, at, wanted), objective.predictor.eval()(seen, at, wanted), atol=1e-6)
    if kind == "pictures":
        assert torch.equal(load(hub=tmp_path, heads=sizes.heads)(x), target(x))


def test_a_community_file_of_the_encoder_alone_is_read_with_its_configuration(tmp_path):
    made, weights = tiny(PlacedForm(image=32, frames=4, table="even_thirds"), CLIPS, 1)
    save_file(weights, tmp_path / "model.safetensors")
    told = {"img_size": 32, "patch_size": 8, "num_frames": 4, "tubelet_size": 2, "embed_dim": 48, "num_heads": 4}
    (tmp_path / "config.json").write_text(json.dumps(told))
    released = read_released(tmp_path)
    encoder = placed.build(released, placed.describe(released), title="file")
    x = torch.randn(2, 4, 3, 32, 32, generator=generator(2))
    assert torch.equal(encoder(x), made(x))
    del weights["pos_embed"]  # constants, which some files leave out
    save_file(weights, tmp_path / "model.safetensors")
    again = read_released(tmp_path)
    assert torch.equal(placed.build(again, placed.describe(again), title="file")(x), made(x))


def test_a_strangers_file_is_refused_in_one_sentence(tmp_path):
    made, weights = tiny(PlacedForm(image=32), SIZES, 1)
    file = tmp_path / "file.safetensors"

    def refused(changed: dict[str, Tensor], match: str, model: str | None = None) -> None:
        save_file(changed, file)
        with pytest.raises(BadCheckpoint, match=match):
            load(model, hub=file, heads=4)

    refused({"layers.0.weight": torch.zeros(3)}, "patch_embed.proj.weight is missing")
    refused({key: value for key, value in weights.items() if "norm2" not in key}, "4 missing: blocks.0.norm2")
    refused(weights | {"head.weight": torch.zeros(2, 48)}, "1 unexpected: head.weight")
    refused(weights | {"norm.weight": torch.zeros(3)}, r"norm.weight \(expected \(48,\), got \(3,\)\)")
    refused(
        weights,
        "is not ijepa_vith14_1k: expected I-JEPA with width 1280.*got I-JEPA with width 48",
        "ijepa_vith14_1k",
    )
    refused(weights, "is not vjepa2_vitl: expected V-JEPA 2 .*got I-JEPA", "vjepa2_vitl")
    refused(weights | {"pos_embed": torch.zeros(1, 15, 48)}, "15 positions are not a square grid")
    gated = weights | {"cls_token": torch.zeros(1, 1, 48), "blocks.0.mlp.weights_in.weight": torch.zeros(2)}
    refused(gated, "gated feed-forward")
    with pytest.raises(BadCheckpoint, match="pass heads=NUMBER"):
        save_file(weights, file)
        load(hub=file)


def test_a_file_of_the_later_generation_is_not_taken_for_the_first():
    weights = authors(1024, 24, 4096, patches=[3, 2, 16, 16], places=2048)
    later = sort_trainer({"target_encoder": weights}, source="file")
    assert not placed.fits(later)


def test_a_model_without_a_repository_names_its_file_and_where_it_is_told():
    with pytest.raises(BadCheckpoint, match=r"download vith16\.pth\.tar \(named in github.com/facebookresearch/jepa\)"):
        load("vjepa_vith")
