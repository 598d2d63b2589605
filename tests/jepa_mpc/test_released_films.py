"""Films through released encoders: clips for those of clips, frame by frame for those of pictures."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from jepa_mpc.encoders.adapters.names import placed_spelling, single_norm_spelling
from jepa_mpc.encoders.placed import PlacedForm
from jepa_mpc.encoders.released import vjepa2
from jepa_mpc.encoders.video import VideoSizes
from jepa_mpc.face.features import encode_video

FILM = np.random.default_rng(0).integers(0, 256, (6, 40, 48, 3), dtype=np.uint8)


@pytest.mark.parametrize(("tubelet", "tokens"), [(2, 3 * 16 * 16), (1, 6 * 16 * 16)])
def test_a_film_gives_tokens_whatever_the_encoder_takes(tmp_path, tubelet, tokens):
    sizes = VideoSizes(width=48, depth=1, heads=3, mlp_dim=96, patch=16, tubelet=tubelet)
    network = vjepa2(sizes) if tubelet == 2 else PlacedForm(image=256)(sizes)
    spelling = single_norm_spelling if tubelet == 2 else placed_spelling
    weights = {spelling(name): value for name, value in network.state_dict().items()}
    if tubelet == 1:
        weights["patch_embed.proj.weight"] = weights["patch_embed.proj.weight"][:, :, 0].contiguous()
    save_file(weights, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"num_attention_heads": 3}))
    found = encode_video(FILM, tmp_path, frames=6)
    assert found.shape == (1, tokens, 48) and bool(torch.isfinite(found).all())
