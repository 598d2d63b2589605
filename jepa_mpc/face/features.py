"""Features of films and pictures by any encoder: a trained system of ours, or a released one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from jepa_mpc.checkpoint import MANIFEST
from jepa_mpc.encoders.adapters.vjepa2 import load as load_released
from jepa_mpc.encoders.preprocessing import EvaluationPixels
from jepa_mpc.encoders.released import RELEASES
from jepa_mpc.encoders.video import VideoTransformer
from jepa_mpc.errors import BadCheckpoint, BadObservation
from jepa_mpc.places import folder_of
from jepa_mpc.trajectories.formats.videos import VideoFile
from jepa_mpc.world_model.checkpoints.loader import load_system

Frames = NDArray[np.uint8]
Encode = Callable[[Tensor], Tensor]
"""Frames `T 3 h w` (uint8) of one clip or one picture -> tokens `1 N D`."""

USUAL_PX = 256


def encode_video(
    film: str | Path | Frames,
    encoder: str | Path,
    *,
    hub: str | Path | None = None,
    frames: int = 64,
    device: torch.device | str = "cpu",
    progress: Callable[[int], None] | None = None,
) -> Annotated[Tensor, "clips N D"]:
    """Tokens of a film, clip by clip.

    Args:
        film: A file (mp4 or any other container), or frames `T h w 3` uint8.
        encoder: The name of a released encoder (`vjepa2_vitl` ...), the folder of a trained system of ours,
            or the name of a shipped checkpoint.
        hub: Where the released weights lie: a file, a folder or a name of the Hugging Face Hub.
        frames: Frames of a clip; the last clip is filled up with its last frame.
        device: Where it computes.
        progress: Is told the number of clips that are done.

    Raises:
        BadCheckpoint: If the weights cannot be read.
        BadEpisode: If the film cannot be read.
        BadObservation: If it is empty.
    """
    encode = _encoder(encoder, hub, device)
    clips = []
    for clip in _clips(film, frames):
        clips.append(encode(_channels_first(clip).to(device)).cpu())
        if progress is not None:
            progress(len(clips))
    return torch.cat(clips)


def encode_image(
    picture: str | Path | Frames,
    encoder: str | Path,
    *,
    hub: str | Path | None = None,
    device: torch.device | str = "cpu",
) -> Annotated[Tensor, "N D"]:
    """Tokens of a picture: a file, or an array `h w 3` uint8. See `encode_video`.

    Raises:
        BadCheckpoint: If the weights cannot be read.
        BadObservation: If the picture cannot be read.
    """
    pixels = picture if isinstance(picture, np.ndarray) else _picture(Path(picture))
    return _encoder(encoder, hub, device)(_channels_first(pixels[None]).to(device))[0].cpu()


def _encoder(encoder: str | Path, hub: str | Path | None, device: torch.device | str) -> Encode:
    if (folder_of(encoder) / MANIFEST).is_file():
        return _of_system(encoder, device)
    known = str(encoder) in RELEASES
    network = load_released(str(encoder), hub=hub) if known else load_released(hub=encoder)
    return _of_released(network.to(device), RELEASES[str(encoder)].image if known else USUAL_PX, device)


def _of_system(folder: str | Path, device: torch.device | str) -> Encode:
    """The encoder of a system of ours, frame by frame, at the size that it was trained with."""
    objective, config = load_system(folder)
    if not hasattr(objective, "encode"):
        raise BadCheckpoint(f"{folder} holds a {type(objective).__name__}, which encodes no frames")
    objective.to(device)
    size = int(config["interface"]["image_size"])

    @torch.no_grad()
    def encode(frames: Tensor) -> Tensor:
        seen = F.interpolate(frames.float(), size=(size, size), mode="bilinear", antialias=True, align_corners=False)
        pixels = seen.round().clamp(0, 255).to(torch.uint8)
        tokens: Tensor = objective.encode(pixels[None])[0]  # type: ignore[operator]  # T N D
        return tokens.flatten(0, 1)[None]

    return encode


def _of_released(network: nn.Module, size: int, device: torch.device | str) -> Encode:
    prepare = EvaluationPixels(size)

    @torch.no_grad()
    def encode(frames: Tensor) -> Tensor:
        pixels = prepare(frames)
        if isinstance(network, VideoTransformer) and network.sizes.tubelet > 1 and len(frames) > 1:
            return network(pixels[None])
        tokens: Tensor = network(pixels)  # an encoder of pictures takes one frame at a time
        return tokens.flatten(0, 1)[None]

    return encode


def _clips(film: str | Path | Frames, length: int) -> list[Frames]:
    if length < 1:
        raise BadObservation(f"a clip needs at least one frame, got frames={length}")
    source = film if isinstance(film, np.ndarray) else VideoFile(Path(film))
    if len(source) == 0:
        raise BadObservation("the film has no frames")
    clips = []
    for start in range(0, len(source), length):
        stop = min(start + length, len(source))
        clip = source[start:stop] if isinstance(source, np.ndarray) else source.read(start, stop)
        missing = length - len(clip)
        clips.append(np.concatenate([clip, np.repeat(clip[-1:], missing, axis=0)]) if missing else clip)
    return clips


def _channels_first(clip: Frames) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(clip.transpose(0, 3, 1, 2)))  # (T, 3, h, w)


def _picture(path: Path) -> Frames:
    try:
        with Image.open(path) as picture:
            return np.asarray(picture.convert("RGB"))
    except (OSError, ValueError) as error:
        raise BadObservation(f"{path} is no picture that can be read: {error}") from error
