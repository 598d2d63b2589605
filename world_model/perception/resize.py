"""Pictures of a camera that is finer than what a world model was trained on."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch.nn import functional

from jepa_mpc.interfaces import Perception
from jepa_mpc.types import Frames, Latents, Observation


class DownsampledPerception:
    """A perception whose camera may be finer by a whole factor: blocks of pixels are averaged first.

    Args:
        perception: Takes pictures of `image_size`.
        image_size: Width and height in pixels that it was trained with.
    """

    def __init__(self, perception: Perception, *, image_size: int) -> None:
        self.perception, self.image_size = perception, image_size

    def __call__(self, observation: Observation) -> Latents:
        """Encode every frame: uint8 `B T C h w` -> latents `B T N D`."""
        return self.perception(replace(observation, frames=downsampled(observation.frames, self.image_size)))


def seen_size(camera_px: int, model_px: int) -> int:
    """What a model sees of a camera: its own size, if the camera's is a whole multiple of it; else the camera's."""
    return model_px if camera_px % model_px == 0 else camera_px


def downsampled(frames: Frames, size: int) -> Frames:
    """Frames `B T C h w` of bytes with blocks of pixels averaged to `size`; others stay as they are."""
    if frames.shape[-1] <= size or frames.shape[-1] % size:
        return frames
    smaller = functional.interpolate(frames.flatten(0, 1).float(), size=(size, size), mode="area")
    return smaller.round().clamp(0, 255).to(torch.uint8).unflatten(0, frames.shape[:2])
