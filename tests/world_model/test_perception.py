"""What perception lets in, and how."""

from __future__ import annotations

import pytest
import torch

from jepa_mpc.errors import BadObservation
from jepa_mpc.seeding import generator
from jepa_mpc.types import Observation
from jepa_mpc.world_model.perception.images import ImagePerception, StatePerception

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.5)
CAMERAS = ("front", "side")


class Encoder(torch.nn.Module):
    width = 4

    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(6, 4, 4, stride=4)
        self.dropout = torch.nn.Dropout(0.5)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.dropout(self.conv(images)).flatten(2).transpose(1, 2)


def perception(encoder=None, **changes) -> ImagePerception:
    settings = {"cameras": CAMERAS, "image_size": (8, 12), "mean": MEAN, "std": STD} | changes
    return ImagePerception(encoder or Encoder(), **settings)


def pixels(batch: int = 2, times: int = 3) -> torch.Tensor:
    return torch.randint(0, 256, (batch, times, 6, 8, 12), generator=generator(0), dtype=torch.uint8)


def test_frames_become_tokens_per_frame():
    latents = perception()(Observation(frames=pixels(), cameras=CAMERAS))
    assert latents.shape == (2, 3, 6, 4) and not latents.requires_grad


def test_pixels_are_scaled_per_colour_and_camera():
    frames = pixels()
    seen = perception(encoder=lambda images: images.flatten(2))(Observation(frames=frames, cameras=CAMERAS))
    expected = (frames[1, 2, 4].float() / 255 - MEAN[1]) / STD[1]
    torch.testing.assert_close(seen[1, 2, 4], expected.flatten())


def test_chunks_do_not_change_the_result():
    encoder, observation = Encoder(), Observation(frames=pixels(), cameras=CAMERAS)
    torch.testing.assert_close(perception(encoder, chunk=1)(observation), perception(encoder)(observation))


def test_the_encoder_is_evaluated_without_dropout_and_gets_its_mode_back():
    encoder, observation = Encoder().train(), Observation(frames=pixels(), cameras=CAMERAS)
    encoder.conv.eval()
    sense = perception(encoder)
    assert torch.equal(sense(observation), sense(observation))
    assert encoder.training and encoder.dropout.training and not encoder.conv.training


def test_memory_layout_does_not_matter():
    frames = pixels()
    strided = frames.transpose(3, 4).contiguous().transpose(3, 4)
    sense = perception()
    torch.testing.assert_close(
        sense(Observation(frames=strided, cameras=CAMERAS)), sense(Observation(frames=frames, cameras=CAMERAS))
    )


@pytest.mark.parametrize(
    ("frames", "cameras", "message"),
    [
        (pixels().float(), CAMERAS, "uint8.*float32.*convert"),
        (pixels().float() / 255, CAMERAS, "uint8.*float32.*multiply by 255"),
        (pixels().float() * float("nan"), CAMERAS, "uint8.*float32"),
        (pixels().to(torch.int64), CAMERAS, "uint8.*int64"),
        (pixels().numpy(), CAMERAS, "torch tensor.*ndarray"),
        (pixels()[0], CAMERAS, "five axes"),
        (pixels()[..., :8], CAMERAS, "8 x 12 pixels, got 8 x 8"),
        (pixels()[:, :, :2], CAMERAS, "C = 6.*got 2.*grayscale"),
        (torch.cat([pixels()] * 2, dim=2)[:, :, :8], CAMERAS, "C = 6.*got 8.*transparency"),
        (pixels().movedim(2, 4), CAMERAS, "channels last"),
        (pixels(), ("front", "wrist"), "front.*side.*wrist"),
        (pixels(), ("side", "front"), "trained with cameras"),
        (pixels()[:, :, :3], ("front",), "trained with cameras"),
        (pixels()[:0], CAMERAS, "empty"),
    ],
)
def test_anything_else_is_refused_in_one_sentence(frames, cameras, message):
    with pytest.raises(BadObservation, match=message) as caught:
        perception()(Observation(frames=frames, cameras=cameras))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("changes", [{"mean": (0.5,)}, {"std": (1.0, 0.0, 1.0)}, {"cameras": ()}, {"chunk": 0}])
def test_impossible_settings_are_refused(changes):
    with pytest.raises(ValueError):
        perception(**changes)


def test_a_simulator_state_passes_through_as_one_token():
    frames, state = torch.zeros(2, 1, 3, 1, 1, dtype=torch.uint8), torch.randn(2, 1, 5, generator=generator(0))
    assert torch.equal(
        StatePerception()(Observation(frames=frames, cameras=("none",), proprio=state)), state[:, :, None]
    )
    for bad in (None, state[0], state * float("nan")):
        with pytest.raises(BadObservation):
            StatePerception()(Observation(frames=frames, cameras=("none",), proprio=bad))
