"""Live parity with the V-JEPA 2 of transformers on random weights; skipped where that package is not installed."""

from __future__ import annotations

import importlib.util
import json

import pytest
import torch
from safetensors.torch import save_file

from jepa_mpc.encoders.adapters import vjepa2
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
