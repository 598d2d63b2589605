"""Released encoders of Point-JEPA: Lightning checkpoints, whatever else they hold, and files of something else."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from jepa_mpc.encoders.adapters import points
from jepa_mpc.encoders.adapters.points import load, released_name
from jepa_mpc.encoders.points import PointSizes, point_encoder
from jepa_mpc.errors import BadCheckpoint
from jepa_mpc.world_model.adapters import point_jepa as predictor_adapter
from jepa_mpc.world_model.parts.predictors.cloud_places import CloudPlaces
from jepa_mpc.world_model.parts.predictors.masked import MaskedPredictor
from jepa_mpc.world_model.recipes.point_jepa import PRESETS

SMALL = PointSizes(width=12, depth=2, heads=2, mlp_dim=24, groups=8, group_size=4, net=(6, 8, 10), place=128)


class Foreign:
    """An object such as trainers keep beside the weights."""

    def __reduce__(self):
        return (Foreign, ())


def released(sizes: PointSizes = SMALL, *, seed: int = 0) -> dict[str, torch.Tensor]:
    """A state dictionary in the authors' spelling."""
    torch.manual_seed(seed)
    tensors = {}
    for which, prefix in (("student", "student."), ("teacher", "teacher.ema_model.")):
        for key, value in point_encoder(sizes).state_dict().items():
            name = released_name(key)
            if which == "teacher" and not name.startswith("student."):
                continue
            value = torch.rand_like(value) if value.is_floating_point() else value
            tensors[name.replace("student.", prefix)] = (
                value[..., None] if "_conv." in name and value.dim() == 2 else value
            )
    online = {name.replace("student.", "teacher.online_model."): x for name, x in tensors.items() if "student." in name}
    rest = {"mask_token": torch.zeros(12), "teacher.initted": torch.ones(()), "teacher.step": torch.zeros(())}
    return {
        f"_orig_mod.{name}" if name == "student.norm.bias" else name: x for name, x in (tensors | online | rest).items()
    }


def save(file, tensors, **beside):
    torch.save({"epoch": 3, "pytorch-lightning_version": "1.7", "state_dict": tensors, **beside}, file)
    return file


@pytest.fixture(autouse=True)
def _heads(monkeypatch):
    monkeypatch.setitem(points.HEADS, 12, 2)


def test_foreign_objects_beside_the_weights_are_passed_over(tmp_path):
    tensors = released()
    encoder = load(save(tmp_path / "a.ckpt", tensors, hyper_parameters={"svm": Foreign()}), groups=8, group_size=4)
    assert not encoder.training and encoder(torch.randn(2, 32, 3)).shape == (2, 8, 12)
    assert torch.equal(encoder.trunk.norm.weight, tensors["teacher.ema_model.norm.weight"])
    counter = encoder.tokens.net.points[1].num_batches_tracked
    assert counter.dtype == torch.int64


def test_the_student_is_had_for_the_asking(tmp_path):
    tensors = released()
    encoder = load(save(tmp_path / "a.ckpt", tensors), which="student", groups=8, group_size=4)
    assert torch.equal(encoder.trunk.norm.weight, tensors["student.norm.weight"])
    with pytest.raises(ValueError, match="teacher or student, got 'both'"):
        load(tmp_path / "a.ckpt", which="both")


def test_the_full_sized_network_has_every_key_of_the_layout():
    sizes = PRESETS["paper"].encoder
    with torch.device("meta"):
        ours = point_encoder(sizes).state_dict()
    shapes = {released_name(key): tuple(value.shape) for key, value in ours.items()}
    net = "tokenizer.embedding.encoder"
    assert shapes[f"{net}.first_conv.0.weight"] == (128, 3) and shapes[f"{net}.second_conv.3.weight"] == (384, 512)
    assert shapes["positional_encoding.0.weight"] == (128, 3) and shapes["positional_encoding.2.bias"] == (384,)
    blocks = {name for name in shapes if name.startswith("student.blocks.11.")}
    parts = ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")
    assert blocks == {f"student.blocks.11.{part}.{kind}" for part in parts for kind in ("weight", "bias")}
    assert len(shapes) == 12 * 12 + 2 + 4 + 2 * (3 + 5) and not any(".12." in name for name in shapes)


def test_the_full_sized_predictor_has_every_key_of_the_layout():
    sizes = PRESETS["paper"].predictor
    with torch.device("meta"):
        ours = MaskedPredictor(sizes, CloudPlaces(sizes.width, hidden=128)).state_dict()
    names = {predictor_adapter.released_name(key): tuple(value.shape) for key, value in ours.items()}
    assert names["predictor.mask_token"] == (1, 192) and names["predictor.predictor_embed.weight"] == (192, 384)
    assert names["predictor.predictor.blocks.5.attn.qkv.weight"] == (576, 192)
    assert names["predictor.positional_encoding.2.weight"] == (192, 128)
    assert names["predictor.predictor_proj.weight"] == (384, 192) and len(names) == 6 * 12 + 11


@pytest.mark.parametrize(
    ("drop", "said"),
    [
        ("teacher.ema_model.blocks.1.mlp.fc2.bias", "1 missing: student.blocks.1.mlp.fc2.bias"),
        ("positional_encoding.0.weight", "is not a Point-JEPA: positional_encoding.0.weight is missing"),
    ],
)
def test_incomplete_files_are_refused_in_one_sentence(tmp_path, drop, said):
    tensors = {name: value for name, value in released().items() if name != drop}
    with pytest.raises(BadCheckpoint, match=said):
        load(save(tmp_path / "a.ckpt", tensors), groups=8, group_size=4)


def test_a_width_that_was_never_released_needs_its_heads(tmp_path):
    file = save(tmp_path / "a.ckpt", released(replace(SMALL, width=16)))
    with pytest.raises(BadCheckpoint, match="no released encoder has the width 16"):
        load(file)


def test_strange_files_are_told_in_one_sentence(tmp_path):
    with pytest.raises(BadCheckpoint, match="there is no file"):
        load(tmp_path / "none.ckpt")
    (tmp_path / "text.ckpt").write_text("weights?")
    with pytest.raises(BadCheckpoint, match="cannot be read as weights"):
        load(tmp_path / "text.ckpt")
    torch.save({"model": nn.Linear(2, 2).state_dict()}, tmp_path / "other.ckpt")
    with pytest.raises(BadCheckpoint, match="not a Lightning checkpoint: expected a state_dict of tensors, got model"):
        load(tmp_path / "other.ckpt")
