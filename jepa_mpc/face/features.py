"""Features of films, pictures, point clouds and sounds by any encoder: a trained system of ours, or a released one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from torch import Tensor

from jepa_mpc.encoders.cloud_features import USUAL_POINTS
from jepa_mpc.face.encoders import EncoderChoice, FeatureEncoder, cloud_encoder, frame_encoder, sound_encoder
from jepa_mpc.face.media import Cloud, Film, Frames, Medium, Picture, Sound


def encode_video(
    film: str | Path | Frames,
    encoder: str | Path,
    *,
    hub: str | Path | None = None,
    frames: int = 64,
    image_size: int | None = None,
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
        image_size: Side (px) of the squares that a released encoder is shown; by default its own.
        device: Where it computes.
        progress: Is told the number of clips that are done.

    Raises:
        BadCheckpoint: If the weights cannot be read.
        BadEpisode: If the film cannot be read.
        BadObservation: If it is empty.
    """
    choice = EncoderChoice(name=encoder, hub=hub, image_size=image_size, device=device)
    source = film if isinstance(film, np.ndarray) else Path(film)
    return _all(Film(source, frames=frames), frame_encoder(choice), progress)


def encode_image(
    picture: str | Path | Frames,
    encoder: str | Path,
    *,
    hub: str | Path | None = None,
    image_size: int | None = None,
    device: torch.device | str = "cpu",
) -> Annotated[Tensor, "N D"]:
    """Tokens of a picture: a file, or an array `h w 3` uint8. See `encode_video`.

    Raises:
        BadCheckpoint: If the weights cannot be read.
        BadObservation: If the picture cannot be read.
    """
    choice = EncoderChoice(name=encoder, hub=hub, image_size=image_size, device=device)
    source = picture if isinstance(picture, np.ndarray) else Path(picture)
    return _all(Picture(source), frame_encoder(choice))[0]


def encode_cloud(
    cloud: str | Path,
    encoder: str | Path,
    *,
    hub: str | Path | None = None,
    points: int = USUAL_POINTS,
    device: torch.device | str = "cpu",
) -> Annotated[Tensor, "N D"]:
    """Tokens of the point cloud in a file (`.npy`, `.npz`, `.ply`).

    Args:
        cloud: The file.
        encoder: The folder of a system that was trained on clouds, or "point_jepa".
        hub: The authors' file of Point-JEPA.
        points: Larger clouds are thinned to so many, evenly.
        device: Where it computes.

    Raises:
        BadCheckpoint: If the weights cannot be read, or encode no clouds.
        BadObservation: If the cloud cannot be read or has too few points.
    """
    network = cloud_encoder(EncoderChoice(name=encoder, hub=hub, device=device), points_at_most=points)
    return _all(Cloud(Path(cloud), least=network.least), network)[0]


def encode_sound(
    sound: str | Path, encoder: str | Path, *, hub: str | Path | None = None, device: torch.device | str = "cpu"
) -> Annotated[Tensor, "clips N D"]:
    """Tokens of the sound in a mono `.wav` file, clip by clip; zeros of the log domain fill the last one.

    Args:
        sound: The file; it must have the encoder's rate.
        encoder: The folder of a system that was trained on sounds, or "audio_jepa" ...
        hub: The authors' file of Audio-JEPA, or the folder that holds it.
        device: Where it computes.

    Raises:
        BadCheckpoint: If the weights cannot be read, or encode no sounds.
        BadObservation: If the sound cannot be read or has another rate.
    """
    network = sound_encoder(EncoderChoice(name=encoder, hub=hub, device=device))
    return _all(Sound(Path(sound), mel=network.network.mel.sizes), network)


def _all(medium: Medium, encode: FeatureEncoder, progress: Callable[[int], None] | None = None) -> Tensor:
    """The tokens of each row of a medium."""
    found = []
    for row in range(len(medium)):
        found.append(encode([medium[row]]))
        if progress is not None:
            progress(len(found))
    return torch.cat(found)
