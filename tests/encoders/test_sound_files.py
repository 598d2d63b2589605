"""Released encoders of Audio-JEPA: both spellings, both files, full size without memory, and strangers' files."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from jepa_mpc.encoders.adapters import sounds
from jepa_mpc.encoders.adapters.names import placed_spelling
from jepa_mpc.encoders.adapters.sounds import encoder_tensors, load, sizes_of, usual_spelling
from jepa_mpc.encoders.mel import MelSizes
from jepa_mpc.encoders.released_sounds import BASE, RELEASED, SoundRelease
from jepa_mpc.encoders.sound import sound_trunk
from jepa_mpc.encoders.video import VideoSizes
from jepa_mpc.errors import BadCheckpoint, UnknownName
from jepa_mpc.world_model.adapters import audio_jepa as predictors
from jepa_mpc.world_model.adapters.vjepa2 import predictor_spelling
from jepa_mpc.world_model.parts.predictors.masked import MaskedPredictor, MaskedSizes, TablePlaces

MEL = MelSizes(rate=8000, frames=16, bands=24, window=200, hop=80)
SMALL = VideoSizes(width=16, depth=2, heads=2, mlp_dim=32, patch=4, patch_width=8, tubelet=1, channels=1, eps=1e-5)
NARROW = MaskedSizes(inputs=16, outputs=16, width=8, depth=1, heads=2, mlp_dim=32, mask_tokens=1, eps=1e-5)
FLASH = {".attn.qkv.": ".attn.Wqkv.", ".attn.proj.": ".attn.out_proj."}


def spelled(
    sizes: VideoSizes, mel: MelSizes, *, prefix: str, flash: bool, table: bool = False
) -> dict[str, torch.Tensor]:
    """An encoder's weights as the authors spell them."""
    trunk = sound_trunk(sizes, mel)
    tensors = {placed_spelling(name): value for name, value in trunk.state_dict().items()}
    tensors["patch_embed.proj.weight"] = tensors["patch_embed.proj.weight"][:, :, 0]
    if not table:
        del tensors["pos_embed"]
    renamed = {prefix + name: torch.rand_like(value) for name, value in tensors.items() if name != "pos_embed"}
    renamed |= {prefix + "pos_embed": trunk.positions} if table else {}
    for usual, fast in FLASH.items() if flash else ():
        renamed = {name.replace(usual, fast): value for name, value in renamed.items()}
    return renamed


def checkpoint(*, flash: bool) -> dict[str, torch.Tensor]:
    """The weights of `JEPA.ckpt` in small."""
    predictor = MaskedPredictor(NARROW, TablePlaces(torch.zeros(12, 8)))
    own = predictor_spelling(predictor.state_dict())
    own["mask_token"] = own.pop("mask_tokens.0")
    del own["predictor_pos_embed"]
    tensors = {f"predictor.{name}": torch.rand_like(value) for name, value in own.items()}
    for usual, fast in FLASH.items() if flash else ():
        tensors = {name.replace(usual, fast): value for name, value in tensors.items()}
    for prefix in ("encoder.", "target_encoder."):
        tensors |= spelled(SMALL, MEL, prefix=prefix, flash=flash)
    return tensors


@pytest.fixture(autouse=True)
def small_release(monkeypatch):
    monkeypatch.setitem(sounds.SOUND_RELEASES, "small", SoundRelease(mel=MEL, file="JEPA.ckpt"))


@pytest.mark.parametrize("flash", [False, True])
@pytest.mark.parametrize("compiled", [False, True])
def test_both_spellings_give_the_same_encoder_and_predictor(flash, compiled, tmp_path):
    torch.manual_seed(0)
    tensors = checkpoint(flash=flash)
    written = {
        name.replace("encoder.", "encoder._orig_mod.", 1) if compiled else name: x for name, x in tensors.items()
    }
    torch.save({"state_dict": written, "epoch": 3, "hyper_parameters": {"lr": 0.1}}, tmp_path / "JEPA.ckpt")
    for which in ("target_encoder", "encoder"):
        encoder = load(tmp_path, model="small", which=which, heads=2)
        usual = usual_spelling(tensors)
        weight = encoder.trunk.blocks[1].attention.to_qkv.weight
        assert torch.equal(weight, usual[f"{which}.blocks.1.attn.qkv.weight"])
        assert encoder.trunk.norms[0].eps == 1e-5 and not encoder.training
        assert encoder(torch.randn(2, 1400)).shape == (2, 12, 16)
    predictor = predictors.load_predictor(tmp_path / "JEPA.ckpt", model="small", heads=2)
    assert torch.equal(predictor.mask_tokens[0], tensors["predictor.mask_token"].flatten())
    at = torch.arange(12)[None]
    assert predictor(torch.randn(1, 5, 16), at[:, :5], at[:, 5:]).shape == (1, 7, 16)


@pytest.mark.parametrize("prefix", ["", "encoder.", "model.encoder."])
@pytest.mark.parametrize("flash", [False, True])
def test_safetensors_with_one_encoder_are_read_whatever_its_prefix(prefix, flash, tmp_path):
    tensors = spelled(SMALL, MEL, prefix=prefix, flash=flash, table=True)
    save_file({name: value.contiguous() for name, value in tensors.items()}, tmp_path / "model.safetensors")
    encoder = load(tmp_path / "model.safetensors", model="small", heads=2)
    assert torch.equal(encoder.trunk.norms[0].weight, tensors[f"{prefix}norm.weight"])


@pytest.mark.parametrize(
    ("model", "flash"), [("audio_jepa", True), ("audio_jepa_512", False), ("audio_jepa_base", True)]
)
def test_full_size_is_filled_without_memory(model, flash, tmp_path, monkeypatch):
    mel = sounds.SOUND_RELEASES[model].mel
    with torch.device("meta"):
        tensors = spelled(BASE, mel, prefix="target_encoder.", flash=flash, table=True)
    tensors = usual_spelling(tensors)
    monkeypatch.setattr(sounds, "read_tensors", lambda path: tensors)
    encoder = load(tmp_path / "JEPA.ckpt", model=model)
    blocks, patches = 12 * (12 * 768**2 + 13 * 768), 16 * 16 * 768 + 768
    assert sum(weight.numel() for weight in encoder.parameters()) == blocks + patches + 2 * 768
    assert encoder.trunk.native == (1, mel.frames // 16, mel.bands // 16)


def test_sizes_come_from_the_shapes(tmp_path):
    tensors = usual_spelling(spelled(SMALL, MEL, prefix="encoder.", flash=True))
    assert sizes_of(encoder_tensors(tensors, which="encoder", source="x"), source="x", heads=2) == SMALL


def _renamed(tensors, old, new):
    return {new if name == old else name: value for name, value in tensors.items()}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda t: {"a.weight": torch.zeros(2)},
            r"is not an Audio-JEPA: expected target_encoder.patch_embed.proj.weight",
        ),
        (lambda t: t | {"classifier.weight": torch.zeros(2)}, "it has 1 further weights such as classifier.weight"),
        (
            lambda t: _renamed(t, "target_encoder.norm.bias", "target_encoder.cls_token"),
            "1 missing: norm.bias; 1 unexpected: cls_token",
        ),
        (lambda t: t | {"target_encoder.pos_embed": torch.zeros(1, 9, 16)}, "positions for 9 patches, small has 12"),
        (lambda t: t | {"target_encoder.norm.bias": torch.zeros(3)}, r"norm.bias \(expected \(16,\), got \(3,\)\)"),
    ],
)
def test_files_of_something_else_are_told_in_one_sentence(change, said, tmp_path):
    torch.save({"state_dict": change(checkpoint(flash=False))}, tmp_path / "JEPA.ckpt")
    with pytest.raises(BadCheckpoint, match=said):
        load(tmp_path / "JEPA.ckpt", model="small", heads=2)


def test_unknown_names_and_missing_files_are_told(tmp_path):
    with pytest.raises(UnknownName, match="unknown encoder of sounds 'x'; known: audio_jepa, audio_jepa_512"):
        load(tmp_path, model="x")
    with pytest.raises(BadCheckpoint, match="there is no file"):
        load(tmp_path)
    torch.save({"state_dict": checkpoint(flash=False)}, tmp_path / "JEPA.ckpt")
    with pytest.raises(BadCheckpoint, match="no released encoder has the width 16: pass heads=NUMBER"):
        load(tmp_path, model="small")
    with pytest.raises(ValueError, match="which must be target_encoder or encoder, got 'student'"):
        load(tmp_path, model="small", which="student")
    torch.save({"state_dict": spelled(SMALL, MEL, prefix="encoder.", flash=False)}, tmp_path / "JEPA.ckpt")
    with pytest.raises(BadCheckpoint, match="holds an encoder and no predictor"):
        predictors.load_predictor(tmp_path / "JEPA.ckpt", model="small")
    assert RELEASED.frames == 256
