"""Pictures of a camera that is finer than what a world model was trained on."""

from __future__ import annotations

import torch
from torch.nn import functional

from jepa_mpc.types import Frames


def seen_size(camera_px: int, model_px: int) -> int:
    """What a model sees of a camera: its own size, if the camera's is a whole multiple of it; else the camera's."""
    return model_px if camera_px % model_px == 0 else camera_px


def shrunk(frames: Frames, size: int) -> Frames:
    """Frames `B T C h w` of bytes with blocks of pixels averaged to `size`; others stay as they are."""
    if frames.shape[-1] <= size or frames.shape[-1] % size:
        return frames
    smaller = functional.interpolate(frames.flatten(0, 1).float(), size=(size, size), mode="area")
    return smaller.round().clamp(0, 255).to(torch.uint8).unflatten(0, frames.shape[:2])
