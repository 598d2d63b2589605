"""Live parity with transformers on random weights; skipped where that package is not installed."""

from __future__ import annotations

import importlib.util
import json

import pytest
import torch
from safetensors.torch import save_file

from jepa_mpc.encoders.adapters import placed, vjepa2
from jepa_mpc.encoders.adapters.files import sort_hugging_face
from jepa_mpc.seeding import generator

pytestmark = pytest.mark.skipif(not importlib.util.find_spec("transformers"), reason="transformers is not installed")

CONFIG = {"crop_size": 32, "frames_per_clip": 4, "num_hidden_layers": 3, "mlp_ratio": 4.0, "tubelet_size": 2}
PREDICTOR = {"pred_hidden_size": 24, "pred_num_attention_heads": 2, "pred_num_hidden_layers": 1}


@pytest.mark.parametrize(("width", "heads"), [(48, 3), (64, 2), (48, 1)])
@pytest.mark.parametrize("frames", [2, 4, 8])
def test_features_equal_those_of_transformers(tmp_path, width, heads, frames):
    from transformers import VJEPA2Config, VJEPA2Model

    config = VJEPA2Config(hidden_size=width, num_attention_heads=heads, **CONFIG, **PREDICTOR)
    theirs = VJEPA2Model(config).eval()
    with torch.no_grad():
        for index, weight in enumerate(theirs.parameters()):
            weight.copy_(0.2 * torch.randn(weight.shape, generator=generator(index, "weights")))
    save_file({name: value.clone() for name, value in theirs.state_dict().items()}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(config.to_dict()))
    ours = vjepa2.load(hub=tmp_path)
    clips = torch.randn(2, frames, 3, 32, 32, generator=generator(0))
    clips[1] *= 0.01  # so that the constant of the layer norms shows
    with torch.no_grad():
        wanted = theirs(pixel_values_videos=clips, skip_predictor=True).last_hidden_state
        torch.testing.assert_close(ours(clips), wanted, atol=1e-5, rtol=1e-5)


@pytest.fixture(scope="module")
def reference():
    return untrained(48)


def untrained(image_size):
    import transformers

    config = transformers.IJepaConfig(
        hidden_size=48, num_hidden_layers=2, num_attention_heads=4, intermediate_size=96, image_size=image_size,
        patch_size=8, layer_norm_eps=1e-6,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return transformers.IJepaModel(config, add_pooling_layer=False).eval()


def test_images_that_are_no_squares_are_those_of_the_configuration(tmp_path):
    reference = untrained([32, 48])
    reference.save_pretrained(tmp_path)
    x = torch.randn(2, 3, 32, 48, generator=generator(0))
    with torch.no_grad():
        assert torch.allclose(vjepa2.load(hub=tmp_path)(x), reference(x).last_hidden_state, atol=1e-5)


def test_features_equal_those_of_transformers_at_its_own_and_at_another_size(reference, tmp_path):
    reference.save_pretrained(tmp_path)
    encoder = vjepa2.load(hub=tmp_path)
    for side in (48, 64):
        x = torch.randn(2, 3, side, side, generator=generator(side))
        with torch.no_grad():
            wanted = reference(x, interpolate_pos_encoding=side != 48).last_hidden_state
            assert torch.allclose(encoder(x), wanted, atol=1e-5)


def test_the_names_that_transformers_has_in_memory_are_read_too(reference):
    released = sort_hugging_face(reference.state_dict(), reference.config.to_dict(), source="memory")
    encoder = placed.build(released, placed.describe(released), title="memory")
    x = torch.randn(1, 3, 48, 48, generator=generator(1))
    with torch.no_grad():
        assert torch.allclose(encoder(x), reference(x).last_hidden_state, atol=1e-5)


def test_the_baselines_features_equal_those_of_transformers(tmp_path):
    import transformers

    config = transformers.Dinov2Config(
        hidden_size=48, num_hidden_layers=2, num_attention_heads=4, mlp_ratio=2, image_size=56, patch_size=14
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        reference = transformers.Dinov2Model(config).eval()
    for weight in reference.parameters():  # scales of one would hide a mistake
        weight.data.add_(0.1 * torch.randn(weight.shape, generator=generator(weight.numel())))
    reference.save_pretrained(tmp_path)
    encoder = vjepa2.load(hub=tmp_path)
    for side in (56, 84):
        x = torch.randn(2, 3, side, side, generator=generator(side))
        with torch.no_grad():
            wanted = reference(x).last_hidden_state[:, 1:]
            assert torch.allclose(encoder(x), wanted, atol=1e-5)
