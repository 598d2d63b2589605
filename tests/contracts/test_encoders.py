"""What every untrained encoder of configs/encoder promises: it trains in front of a predictor, or says why not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from jepa_mpc.errors import BadObservation
from jepa_mpc.seeding import generator
from jepa_mpc.world_model.checkpoints.assembly import assemble
from jepa_mpc.world_model.checkpoints.pairing import paired
from tests import tiny

CONFIGS = Path(__file__).resolve().parents[2] / "configs/encoder"
SPECS = {path.stem: yaml.safe_load(path.read_text()) for path in sorted(CONFIGS.glob("*.yaml"))}
UNTRAINED = sorted(name for name, spec in SPECS.items() if "_target_" in spec)  # the others choose released weights
OTHER_INPUTS = {  # sound, pairs, clouds
    *("audio_jepa_small", "hand_points", "jepa_3d_small", "object_finder", "point_jepa_small")
}
PREDICTOR = {"_target_": "leworldmodel", "preset": "tiny", "action_dim": 7, "action_scale": [0.1] * 7}
SIZE, WORLDS = 64, 2


def channels_of(name: str) -> int:
    """Three channels per camera, of two cameras where the configuration says so."""
    spec = SPECS[name]
    return int(spec.get("sizes", spec).get("channels", 3 * spec.get("num_cameras", 1)))


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(UNTRAINED) - OTHER_INPUTS))
def test_an_encoder_of_pictures_trains_in_front_of_a_predictor(name):
    channels = channels_of(name)
    system = paired(PREDICTOR, SPECS[name], picture=(channels, SIZE, SIZE))
    objective = assemble(system, generator=generator(0)).train()
    batch = {
        "frames": tiny.frames(WORLDS, 3, channels=channels, size=SIZE),
        "actions": 0.1 * torch.randn(WORLDS, 2, 7, generator=generator(1)),
    }
    rates = torch.optim.AdamW([weight for weight in objective.parameters() if weight.requires_grad], lr=1e-3)
    for step in range(2):
        loss = objective(batch, generator(2, step)).total
        rates.zero_grad()
        loss.backward()
        rates.step()
        objective.after_step(step / 2)
    assert loss.isfinite()
    weights = [weight for weight in objective.encoder.parameters() if weight.requires_grad]
    assert weights and any(weight.grad is not None and weight.grad.abs().sum() > 0 for weight in weights)


@pytest.mark.parametrize("name", sorted(set(UNTRAINED) - OTHER_INPUTS))
def test_an_encoder_of_pictures_gives_tokens_of_its_width_and_the_same_ones_again(name):
    encoder: Any = assemble(SPECS[name]).eval()
    frames = tiny.frames(WORLDS, 1, channels=channels_of(name), size=SIZE)[:, 0].float() / 255
    with torch.no_grad():
        first, second = encoder(frames), encoder(frames)
    assert first.shape[0] == WORLDS and first.shape[2] == encoder.width and first.isfinite().all()
    assert torch.equal(first, second)


@pytest.mark.parametrize("name", sorted(OTHER_INPUTS))
def test_an_encoder_of_something_else_is_refused_in_one_sentence(name):
    with pytest.raises((ValueError, BadObservation), match=r"^encoder=\w+ is incompatible with leworldmodel: [^\n]+$"):
        paired(PREDICTOR, SPECS[name], picture=(3, SIZE, SIZE))
