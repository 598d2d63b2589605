"""Inputs of feature extraction: videos, images, point clouds and sounds, split into independently encoded rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import ceil
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from jepa_mpc import cloud_files, sound_files
from jepa_mpc.cloud_files import read_cloud
from jepa_mpc.encoders.mel import MelSizes
from jepa_mpc.errors import BadEpisode, BadObservation
from jepa_mpc.face.encoders import EncoderChoice, FeatureEncoder, cloud_encoder, frame_encoder, sound_encoder
from jepa_mpc.sound_files import read_sound
from jepa_mpc.trajectories.formats.folders import files_below
from jepa_mpc.trajectories.formats.image_codec import opened_picture, pixels_of
from jepa_mpc.trajectories.formats.picture_folder import PictureFolderReader
from jepa_mpc.trajectories.formats.videos import VideoFile
from jepa_mpc.trajectories.guards import read_plain

Frames = NDArray[np.uint8]

FILMS = (".mp4", ".mov", ".mkv", ".webm", ".avi")


class Medium(Protocol):
    """A file as a sequence of rows; each row is encoded to tokens `N D`."""

    single: bool
    """Whether it always has one row, so that its features have no row axis."""

    def __len__(self) -> int:
        """Number of rows."""

    def __getitem__(self, row: int) -> Tensor:
        """One row, as input of the encoder."""


class Film:
    """A video in clips; the last one is padded with its last frame.

    Args:
        source: A file, or frames `T h w 3` uint8.
        frames: Frames per clip.

    Raises:
        BadEpisode: If the file cannot be read.
        BadObservation: If the video is empty or `frames` is less than 1.
    """

    single = False

    def __init__(self, source: Path | Frames, *, frames: int) -> None:
        if frames < 1:
            raise BadObservation(f"a clip needs at least one frame, got frames={frames}")
        self.source: Any = source if isinstance(source, np.ndarray) else VideoFile(source)
        self.frames = frames
        if len(self.source) == 0:
            raise BadObservation("the video has no frames")

    def __len__(self) -> int:
        return ceil(len(self.source) / self.frames)

    def __getitem__(self, row: int) -> Tensor:
        """A clip `T 3 h w`."""
        start = row * self.frames
        stop = min(start + self.frames, len(self.source))
        clip = self.source[start:stop] if isinstance(self.source, np.ndarray) else self.source.read(start, stop)
        missing = self.frames - len(clip)
        return _channels_first(np.concatenate([clip, np.repeat(clip[-1:], missing, axis=0)]) if missing else clip)


class Picture:
    """An image: one row.

    Args:
        source: A file, or an array `h w 3` uint8.
    """

    single = True

    def __init__(self, source: Path | Frames) -> None:
        self.source = source

    def __len__(self) -> int:
        return 1

    def __getitem__(self, row: int) -> Tensor:
        """A clip of one frame `1 3 h w`.

        Raises:
            BadObservation: If the image cannot be read, or is no RGB image of uint8.
        """
        pixels = self.source if isinstance(self.source, np.ndarray) else _picture(self.source)
        return _channels_first(pixels[None])


class Cloud:
    """A point cloud: one row.

    Args:
        source: A file.
        least: Minimum number of points.
    """

    single = True

    def __init__(self, source: Path, *, least: int) -> None:
        self.source, self.least = source, least

    def __len__(self) -> int:
        return 1

    def __getitem__(self, row: int) -> Tensor:
        """The points `G 3`.

        Raises:
            BadObservation: If the cloud cannot be read or has too few points.
        """
        return torch.from_numpy(np.ascontiguousarray(read_cloud(self.source, least=self.least)))


class Sound:
    """A sound in clips as long as a spectrogram; the last one may be shorter.

    Args:
        source: A mono `.wav` file.
        mel: Layout of the spectrogram.
    """

    single = False

    def __init__(self, source: Path, *, mel: MelSizes) -> None:
        self.source, self.mel = source, mel

    @cached_property
    def _wave(self) -> Tensor:
        return torch.from_numpy(read_sound(self.source, rate=self.mel.rate)[0])

    def __len__(self) -> int:
        return self.mel.clips(len(self._wave))

    def __getitem__(self, row: int) -> Tensor:
        """A waveform.

        Raises:
            BadObservation: If the sound cannot be read, is not mono or has another sample rate.
        """
        return self._wave[row * self.mel.samples : (row + 1) * self.mel.samples]


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of file.

    Args:
        suffixes: File name suffixes.
        encoder: Loads an encoder.
        open: Opens a file for an encoder; `frames` is the number per clip.
    """

    suffixes: Sequence[str]
    encoder: Callable[[EncoderChoice], Any]
    open: Callable[[Path, Any, int], Medium]


KINDS: Mapping[str, Kind] = {
    "films": Kind(suffixes=FILMS, encoder=frame_encoder, open=lambda path, encoder, frames: Film(path, frames=frames)),
    "pictures": Kind(
        suffixes=PictureFolderReader.suffixes, encoder=frame_encoder, open=lambda path, encoder, frames: Picture(path)
    ),
    "clouds": Kind(
        suffixes=cloud_files.SUFFIXES,
        encoder=cloud_encoder,
        open=lambda path, encoder, frames: Cloud(path, least=encoder.least),
    ),
    "sounds": Kind(
        suffixes=sound_files.SUFFIXES,
        encoder=sound_encoder,
        open=lambda path, encoder, frames: Sound(path, mel=encoder.network.mel.sizes),
    ),
}


@dataclass(frozen=True, kw_only=True)
class Media:
    """Files of one kind.

    Args:
        kind: A name of `KINDS`.
        files: Files by the name of their features.
    """

    kind: str
    files: Mapping[str, Path]

    def encoder(self, choice: EncoderChoice) -> FeatureEncoder:
        """The chosen encoder of this kind.

        Raises:
            BadCheckpoint: If it cannot be read or encodes another kind.
        """
        found: FeatureEncoder = KINDS[self.kind].encoder(choice)
        return found

    def open(self, path: Path, encoder: FeatureEncoder, *, frames: int) -> Medium:
        """Open one of the files."""
        return KINDS[self.kind].open(path, encoder, frames)


def media_at(source: str | Path) -> Media:
    """A file, or the files of a folder and its subfolders.

    Raises:
        BadObservation: If no file has a known suffix, or a folder holds several kinds.
    """
    path = Path(source)
    known = ", ".join(suffix for kind in KINDS.values() for suffix in kind.suffixes)
    if path.is_file():
        for name, kind in KINDS.items():
            if path.suffix.lower() in kind.suffixes:
                return Media(kind=name, files={"features": path})
        raise BadObservation(f"{path} is not a video, image, cloud or sound: its name must end in one of {known}")
    if not path.is_dir():
        raise BadObservation(f"there is no file or folder {path}")
    found = {name: files_below(path, kind.suffixes) for name, kind in KINDS.items()}
    found = {name: files for name, files in found.items() if files}
    if len(found) != 1:
        held = " and ".join(f"{len(files)} {name}" for name, files in found.items()) or "nothing"
        raise BadObservation(f"{path} must hold files of one kind ({known}), got {held}")
    ((name, files),) = found.items()
    return Media(kind=name, files={file.relative_to(path).as_posix(): file for file in files})


def _channels_first(clip: Frames) -> Tensor:
    """Frames `T 3 h w` of frames `T h w 3`.

    Raises:
        BadObservation: If they have another shape or dtype.
    """
    if clip.ndim != 4 or clip.shape[3] != 3 or clip.dtype != np.uint8 or not clip.size:
        raise BadObservation(f"expected RGB images (h, w, 3) of uint8, got {clip.shape[1:]} of {clip.dtype}")
    return torch.from_numpy(np.array(clip.transpose(0, 3, 1, 2), order="C"))


def _picture(path: Path) -> Frames:
    if not path.exists():
        raise BadObservation(f"there is no image {path}")
    try:
        with opened_picture(read_plain(path, path)) as picture:
            return pixels_of(picture)
    except (BadEpisode, OSError) as error:
        raise BadObservation(f"{path} cannot be read as an image: {error}") from error
