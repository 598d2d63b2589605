"""Features of videos, images, point clouds and sounds from any encoder, trained or released."""

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
    """Tokens of a video, clip by clip.

    Args:
        film: A file (mp4 or any other container), or frames `T h w 3` uint8.
        encoder: The name of a released encoder (`vjepa2_vitl` ...), the folder of a trained system of ours,
            or the name of a shipped checkpoint.
        hub: Released weights: a file, a folder or a name of the Hugging Face Hub.
        frames: Frames per clip; the last clip is padded with its last frame.
        image_size: Side (px) of the square input of a released encoder; by default its own.
        device: Device to run on.
        progress: Called with the number of finished clips.

    Raises:
        BadCheckpoint: If the weights cannot be read.
        BadEpisode: If the video cannot be read.
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
    """Tokens of an image: a file, or an array `h w 3` uint8. See `encode_video`.

    Raises:
        BadCheckpoint: If the weights cannot be read.
        BadObservation: If the image cannot be read.
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
        encoder: The folder of a system trained on clouds, or "point_jepa".
        hub: The authors' file of Point-JEPA.
        points: Larger clouds are subsampled evenly to this number of points.
        device: Device to run on.

    Raises:
        BadCheckpoint: If the weights cannot be read, or do not encode clouds.
        BadObservation: If the cloud cannot be read or has too few points.
    """
    network = cloud_encoder(EncoderChoice(name=encoder, hub=hub, device=device), points_at_most=points)
    return _all(Cloud(Path(cloud), least=network.least), network)[0]


def encode_sound(
    sound: str | Path, encoder: str | Path, *, hub: str | Path | None = None, device: torch.device | str = "cpu"
) -> Annotated[Tensor, "clips N D"]:
    """Tokens of the sound in a mono `.wav` file, clip by clip; the last one is padded with zeros in the log domain.

    Args:
        sound: The file; it must have the encoder's rate.
        encoder: The folder of a system trained on sounds, or "audio_jepa" ...
        hub: The authors' file of Audio-JEPA, or its folder.
        device: Device to run on.

    Raises:
        BadCheckpoint: If the weights cannot be read, or do not encode sounds.
        BadObservation: If the sound cannot be read or has another sample rate.
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
