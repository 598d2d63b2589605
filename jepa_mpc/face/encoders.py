"""Encoders by name, with input preparation for images, point clouds and sounds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Protocol, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from jepa_mpc.checkpoint import MANIFEST
from jepa_mpc.encoders.adapters import points, sounds
from jepa_mpc.encoders.adapters.vjepa2 import load as load_released
from jepa_mpc.encoders.cloud_features import USUAL_POINTS, encode_points, least_points
from jepa_mpc.encoders.placed import PlacedTransformer
from jepa_mpc.encoders.points import PointEncoder
from jepa_mpc.encoders.preprocessing import EvaluationPixels
from jepa_mpc.encoders.released import RELEASES
from jepa_mpc.encoders.released_sounds import SOUND_RELEASES
from jepa_mpc.encoders.sound import SoundEncoder
from jepa_mpc.encoders.sound_features import encode_wave
from jepa_mpc.encoders.video import VideoTransformer
from jepa_mpc.errors import BadCheckpoint
from jepa_mpc.places import folder_of
from jepa_mpc.world_model.checkpoints.loader import load_system
from jepa_mpc.world_model.parts.objectives.masked import MaskedObjective

Network = TypeVar("Network", bound=nn.Module)

CLOUD_RELEASE = "point_jepa"
"""Name of the released point-cloud encoder."""

USUAL_PX = 256


@dataclass(frozen=True, kw_only=True)
class EncoderChoice:
    """Choice of an encoder and its weights.

    Args:
        name: A released encoder (`vjepa2_vitl`, `point_jepa`, `audio_jepa` ...), the folder of a trained system of
            ours, or the name of a shipped checkpoint.
        hub: Released weights: a file, a folder or a name of the Hugging Face Hub.
        image_size: Side (px) of the square input of a released image encoder; by default that of its last training.
            Positional embeddings are interpolated.
        device: Device to run on.
    """

    name: str | Path
    hub: str | Path | None = None
    image_size: int | None = None
    device: torch.device | str = "cpu"

    @property
    def ours(self) -> bool:
        """Whether it is one of our checkpoints."""
        return (folder_of(self.name) / MANIFEST).is_file()


class FeatureEncoder(Protocol):
    """Maps inputs of one kind to tokens."""

    def __call__(self, inputs: Sequence[Tensor]) -> Annotated[Tensor, "B N D"]:
        """Tokens of each input, on the CPU."""


@dataclass(frozen=True, kw_only=True)
class FrameEncoder:
    """An encoder of clips and images.

    Args:
        prepare: Maps frames `T 3 h w` (uint8, any size) to the network's input.
        tokens: Maps prepared clips `B T ...` to tokens `B N D`.
        device: Device to run on.
    """

    prepare: Callable[[Tensor], Tensor]
    tokens: Callable[[Tensor], Tensor]
    device: torch.device | str

    def __call__(self, inputs: Sequence[Tensor]) -> Annotated[Tensor, "B N D"]:
        """The tokens of clips `T 3 h w` (uint8) with the same number of frames."""
        with torch.no_grad():
            clips = torch.stack([self.prepare(frames.to(self.device)) for frames in inputs])
            return self.tokens(clips).cpu()


@dataclass(frozen=True, kw_only=True)
class CloudEncoder:
    """An encoder of point clouds.

    Args:
        network: The network.
        points: Larger clouds are subsampled evenly to this number of points.
    """

    network: PointEncoder
    points: int = USUAL_POINTS

    def __call__(self, inputs: Sequence[Tensor]) -> Annotated[Tensor, "B N D"]:
        """The tokens of clouds `G 3` (m)."""
        return torch.cat([encode_points(cloud, self.network, points=self.points).cpu() for cloud in inputs])

    @property
    def least(self) -> int:
        """Minimum number of points of a cloud."""
        return least_points(self.network)


@dataclass(frozen=True, kw_only=True)
class WaveEncoder:
    """An encoder of sounds.

    Args:
        network: The network.
    """

    network: SoundEncoder

    def __call__(self, inputs: Sequence[Tensor]) -> Annotated[Tensor, "B N D"]:
        """The tokens of waveforms, each at most as long as the encoder's spectrogram."""
        return torch.cat([encode_wave(wave, self.network).cpu() for wave in inputs])


def frame_encoder(choice: EncoderChoice) -> FrameEncoder:
    """The chosen encoder of clips or images.

    Raises:
        BadCheckpoint: If the weights cannot be read, or do not encode frames.
    """
    if choice.ours:
        return _frames_of_system(choice)
    known = str(choice.name) in RELEASES
    network = load_released(str(choice.name), hub=choice.hub) if known else load_released(hub=choice.name)
    network.to(choice.device)
    size = choice.image_size or (RELEASES[str(choice.name)].image if known else USUAL_PX)

    def tokens(clips: Tensor) -> Tensor:
        if isinstance(network, VideoTransformer) and network.sizes.tubelet > 1 and clips.shape[1] > 1:
            return network(clips)
        found: Tensor = network(clips.flatten(0, 1))  # an image encoder takes single frames
        return found.unflatten(0, clips.shape[:2]).flatten(1, 2)

    return FrameEncoder(prepare=EvaluationPixels(size), tokens=tokens, device=choice.device)


def cloud_encoder(choice: EncoderChoice, *, points_at_most: int = USUAL_POINTS) -> CloudEncoder:
    """The chosen point-cloud encoder.

    Raises:
        BadCheckpoint: If the weights cannot be read, or do not encode clouds.
    """
    if choice.ours:
        network = _published(choice, PointEncoder, "point clouds")
    elif str(choice.name) == CLOUD_RELEASE and choice.hub is not None:
        network = points.load(choice.hub)
    else:
        raise _unknown(choice, "point clouds", [CLOUD_RELEASE])
    return CloudEncoder(network=network.to(choice.device).eval(), points=points_at_most)


def sound_encoder(choice: EncoderChoice) -> WaveEncoder:
    """The chosen sound encoder.

    Raises:
        BadCheckpoint: If the weights cannot be read, or do not encode sounds.
    """
    if choice.ours:
        network = _published(choice, SoundEncoder, "sounds")
    elif str(choice.name) in SOUND_RELEASES and choice.hub is not None:
        network = sounds.load(choice.hub, model=str(choice.name))
    else:
        raise _unknown(choice, "sounds", list(SOUND_RELEASES))
    return WaveEncoder(network=network.to(choice.device).eval())


def _frames_of_system(choice: EncoderChoice) -> FrameEncoder:
    """The encoder of a system of ours at its training size: clips where it was trained on clips, otherwise frames."""
    objective, config = load_system(choice.name)
    if not hasattr(objective, "encode"):
        raise BadCheckpoint(f"{choice.name} holds a {type(objective).__name__}, which does not encode frames")
    cameras, size = config["interface"]["cameras"], int(config["interface"]["image_size"])
    if len(cameras) > 1:
        raise BadCheckpoint(
            f"{choice.name} takes {len(cameras)} cameras ({', '.join(cameras)}); a video or image has one: "
            "choose a single-camera encoder"
        )
    if choice.image_size not in (None, size):
        raise BadCheckpoint(f"{choice.name} was trained at {size} px and accepts only that size: omit image_size")
    objective.to(choice.device)

    def prepare(frames: Tensor) -> Tensor:
        seen = F.interpolate(frames.float(), size=(size, size), mode="bilinear", antialias=True, align_corners=False)
        return seen.round().clamp(0, 255).to(torch.uint8)

    def tokens(clips: Tensor) -> Tensor:
        network = objective.published if isinstance(objective, MaskedObjective) else None
        if isinstance(network, VideoTransformer | PlacedTransformer) and network.sizes.tubelet > 1 < clips.shape[1]:
            of_clips: Tensor = network(objective.still(clips))  # type: ignore[operator]
            return of_clips
        found: Tensor = objective.encode(clips)  # type: ignore[operator]  # B T N D
        return found.flatten(1, 2)

    return FrameEncoder(prepare=prepare, tokens=tokens, device=choice.device)


def _published(choice: EncoderChoice, form: type[Network], kind: str) -> Network:
    objective, _ = load_system(choice.name)
    network = getattr(objective, "published", None)
    if not isinstance(network, form):
        raise BadCheckpoint(f"{choice.name} holds a {type(objective).__name__}, which does not encode {kind}")
    return network


def _unknown(choice: EncoderChoice, kind: str, known: Sequence[str]) -> BadCheckpoint:
    return BadCheckpoint(
        f"encoder {choice.name} cannot encode {kind}: give the folder of a system trained on {kind}, or "
        f"{' or '.join(known)} with hub=FILE"
    )
