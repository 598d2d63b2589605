"""Encoders by name, each with the preparation of its own inputs: pictures, point clouds and sounds."""

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

Network = TypeVar("Network", bound=nn.Module)

CLOUD_RELEASE = "point_jepa"
"""Name of the released encoder of point clouds."""

USUAL_PX = 256


@dataclass(frozen=True, kw_only=True)
class EncoderChoice:
    """Which encoder, and where its weights lie.

    Args:
        name: A released encoder (`vjepa2_vitl`, `point_jepa`, `audio_jepa` ...), the folder of a trained system of
            ours, or the name of a shipped checkpoint.
        hub: Where released weights lie: a file, a folder or a name of the Hugging Face Hub.
        image_size: Side (px) of the squares that a released encoder of pictures is shown; by default the one of its
            last training. Tables of positions are interpolated.
        device: Where it computes.
    """

    name: str | Path
    hub: str | Path | None = None
    image_size: int | None = None
    device: torch.device | str = "cpu"

    @property
    def ours(self) -> bool:
        """Whether it is a checkpoint of ours."""
        return (folder_of(self.name) / MANIFEST).is_file()


class FeatureEncoder(Protocol):
    """From inputs of one kind to tokens."""

    def __call__(self, inputs: Sequence[Tensor]) -> Annotated[Tensor, "B N D"]:
        """The tokens of each input, on the CPU."""


@dataclass(frozen=True, kw_only=True)
class FrameEncoder:
    """An encoder of clips and pictures.

    Args:
        prepare: Frames `T 3 h w` (uint8, any size) to what the network takes.
        tokens: Prepared clips `B T ...` to tokens `B N D`.
        device: Where it computes.
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
        points: Larger clouds are thinned to so many, evenly.
    """

    network: PointEncoder
    points: int = USUAL_POINTS

    def __call__(self, inputs: Sequence[Tensor]) -> Annotated[Tensor, "B N D"]:
        """The tokens of clouds `G 3` (m)."""
        return torch.cat([encode_points(cloud, self.network, points=self.points).cpu() for cloud in inputs])

    @property
    def least(self) -> int:
        """Points that a cloud must have."""
        return least_points(self.network)


@dataclass(frozen=True, kw_only=True)
class WaveEncoder:
    """An encoder of sounds.

    Args:
        network: The network.
    """

    network: SoundEncoder

    def __call__(self, inputs: Sequence[Tensor]) -> Annotated[Tensor, "B N D"]:
        """The tokens of waveforms, at most as long as the encoder's spectrogram each."""
        return torch.cat([encode_wave(wave, self.network).cpu() for wave in inputs])


def frame_encoder(choice: EncoderChoice) -> FrameEncoder:
    """The encoder of clips or pictures that is chosen.

    Raises:
        BadCheckpoint: If the weights cannot be read, or encode no frames.
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
        found: Tensor = network(clips.flatten(0, 1))  # an encoder of pictures takes one frame at a time
        return found.unflatten(0, clips.shape[:2]).flatten(1, 2)

    return FrameEncoder(prepare=EvaluationPixels(size), tokens=tokens, device=choice.device)


def cloud_encoder(choice: EncoderChoice, *, points_at_most: int = USUAL_POINTS) -> CloudEncoder:
    """The encoder of point clouds that is chosen.

    Raises:
        BadCheckpoint: If the weights cannot be read, or encode no clouds.
    """
    if choice.ours:
        network = _published(choice, PointEncoder, "point clouds")
    elif str(choice.name) == CLOUD_RELEASE and choice.hub is not None:
        network = points.load(choice.hub)
    else:
        raise _unknown(choice, "point clouds", [CLOUD_RELEASE])
    return CloudEncoder(network=network.to(choice.device).eval(), points=points_at_most)


def sound_encoder(choice: EncoderChoice) -> WaveEncoder:
    """The encoder of sounds that is chosen.

    Raises:
        BadCheckpoint: If the weights cannot be read, or encode no sounds.
    """
    if choice.ours:
        network = _published(choice, SoundEncoder, "sounds")
    elif str(choice.name) in SOUND_RELEASES and choice.hub is not None:
        network = sounds.load(choice.hub, model=str(choice.name))
    else:
        raise _unknown(choice, "sounds", list(SOUND_RELEASES))
    return WaveEncoder(network=network.to(choice.device).eval())


def _frames_of_system(choice: EncoderChoice) -> FrameEncoder:
    """The encoder of a system of ours, frame by frame, at the size that it was trained with."""
    objective, config = load_system(choice.name)
    if not hasattr(objective, "encode"):
        raise BadCheckpoint(f"{choice.name} holds a {type(objective).__name__}, which encodes no frames")
    cameras, size = config["interface"]["cameras"], int(config["interface"]["image_size"])
    if len(cameras) > 1:
        raise BadCheckpoint(
            f"{choice.name} sees {len(cameras)} cameras at once ({', '.join(cameras)}); a film or picture shows one: "
            "name an encoder of one camera"
        )
    if choice.image_size not in (None, size):
        raise BadCheckpoint(f"{choice.name} was trained at {size} px and takes no other size: omit image_size")
    objective.to(choice.device)

    def prepare(frames: Tensor) -> Tensor:
        seen = F.interpolate(frames.float(), size=(size, size), mode="bilinear", antialias=True, align_corners=False)
        return seen.round().clamp(0, 255).to(torch.uint8)

    def tokens(clips: Tensor) -> Tensor:
        found: Tensor = objective.encode(clips)  # type: ignore[operator]  # B T N D
        return found.flatten(1, 2)

    return FrameEncoder(prepare=prepare, tokens=tokens, device=choice.device)


def _published(choice: EncoderChoice, form: type[Network], kind: str) -> Network:
    objective, _ = load_system(choice.name)
    network = getattr(objective, "published", None)
    if not isinstance(network, form):
        raise BadCheckpoint(f"{choice.name} holds a {type(objective).__name__}, which encodes no {kind}")
    return network


def _unknown(choice: EncoderChoice, kind: str, known: Sequence[str]) -> BadCheckpoint:
    return BadCheckpoint(
        f"encoder {choice.name} cannot encode {kind}: give the folder of a system trained on {kind}, or "
        f"{' or '.join(known)} with hub=FILE"
    )
