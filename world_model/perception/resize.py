"""Camera images that are larger than a world model's training images."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch.nn import functional

from jepa_mpc.interfaces import Perception
from jepa_mpc.types import Frames, Latents, Observation


class DownsampledPerception:
    """A perception for cameras whose images may be larger by an integer factor: blocks of pixels are averaged first.

    Args:
        perception: Takes images of `image_size`.
        image_size: Width and height in pixels that it was trained with.
    """

    def __init__(self, perception: Perception, *, image_size: int) -> None:
        self.perception, self.image_size = perception, image_size

    def __call__(self, observation: Observation) -> Latents:
        """Encode every frame: uint8 `B T C h w` -> latents `B T N D`."""
        return self.perception(replace(observation, frames=downsampled(observation.frames, self.image_size)))


def seen_size(camera_px: int, model_px: int) -> int:
    """The model's size if the camera's size is an integer multiple of it; else the camera's size."""
    return model_px if camera_px % model_px == 0 else camera_px


def downsampled(frames: Frames, size: int) -> Frames:
    """uint8 frames `B T C h w` with blocks of pixels averaged to `size`; other sizes stay unchanged."""
    if frames.shape[-1] <= size or frames.shape[-1] % size:
        return frames
    smaller = functional.interpolate(frames.flatten(0, 1).float(), size=(size, size), mode="area")
    return smaller.round().clamp(0, 255).to(torch.uint8).unflatten(0, frames.shape[:2])
