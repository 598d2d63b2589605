"""Released encoders of LeJEPA: every key of the layout, and files that are something else."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from jepa_mpc.encoders.adapters.lejepa import USUAL_HEADS, released_name
from jepa_mpc.encoders.adapters.vjepa2 import load
from jepa_mpc.encoders.released_views import LEJEPA
from jepa_mpc.encoders.vit import VisionTransformer
from jepa_mpc.errors import BadCheckpoint


def layout(width: int, depth: int, *, patch: int = 16, side: int = 14) -> dict[str, torch.Size]:
    """Names and shapes as the published training code writes them."""
    shapes = {
        "cls_token": (1, 1, width),
        "pos_embed": (1, side**2 + 1, width),
        "patch_embed.proj.weight": (width, 3, patch, patch),
        "patch_embed.proj.bias": (width,),
        "norm.weight": (width,),
        "norm.bias": (width,),
    }
    for index in range(depth):
        parts = {"attn.qkv": (3 * width, width), "attn.proj": (width, width), "mlp.fc1": (4 * width, width),
                 "mlp.fc2": (width, 4 * width)}  # fmt: skip
        for name, (rows, columns) in parts.items():
            shapes[f"blocks.{index}.{name}.weight"], shapes[f"blocks.{index}.{name}.bias"] = (rows, columns), (rows,)
        for norm in ("norm1", "norm2"):
            shapes[f"blocks.{index}.{norm}.weight"] = shapes[f"blocks.{index}.{norm}.bias"] = (width,)
    return {name: torch.Size(shape) for name, shape in shapes.items()}


@pytest.mark.parametrize("name", sorted(LEJEPA))
def test_the_full_sized_network_has_every_key_of_the_layout(name):
    sizes = LEJEPA[name].sizes
    with torch.device("meta"):
        ours = VisionTransformer(sizes, pool="dense").state_dict()
    assert {released_name(key): value.shape for key, value in ours.items()} == layout(sizes.width, sizes.depth)


@pytest.fixture(autouse=True)
def _heads(monkeypatch):
    monkeypatch.setitem(USUAL_HEADS, 64, 1)


def write(folder, *, prefix="backbone.", drop=(), extra=None):
    generator = torch.Generator().manual_seed(0)
    tensors = {
        prefix + name: 0.1 * torch.randn(shape, generator=generator)
        for name, shape in layout(64, 2, side=2).items()
        if name not in drop
    }
    save_file(tensors | (extra or {}), folder / "model.safetensors")
    return folder


def test_a_file_with_its_projector_gives_patch_tokens(tmp_path):
    encoder = load(hub=write(tmp_path, extra={"backbone.cva_module_proj.mlp.0.weight": torch.zeros(8, 64)}))
    pictures = torch.randn(2, 3, 32, 32)
    assert encoder(pictures).shape == (2, 4, 64) and not encoder.training
    assert encoder.tokens(pictures).shape == (2, 5, 64)
    assert encoder(torch.randn(2, 3, 48, 64)).shape == (2, 12, 64)  # another size than the table's


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"drop": ("norm.bias",)}, "1 missing: norm.bias"),
        ({"extra": {"backbone.blocks.0.ls1.gamma": torch.zeros(64)}}, "1 unexpected: blocks.0.ls1.gamma"),
        ({"extra": {"backbone.register_tokens": torch.zeros(1, 4, 64)}}, "1 unexpected: register_tokens"),
        ({"drop": ("pos_embed",)}, "is not a LeJEPA encoder: pos_embed is missing"),
    ],
)
def test_other_files_are_refused_in_one_sentence(tmp_path, changes, said):
    with pytest.raises(BadCheckpoint, match=said):
        load(hub=write(tmp_path, **changes))


def test_a_file_of_another_size_is_not_the_named_model(tmp_path):
    with pytest.raises(BadCheckpoint, match="is not lejepa_vits: expected .*width 384.*got .*width 64"):
        load("lejepa_vits", hub=write(tmp_path))
