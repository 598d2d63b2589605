"""Features of videos, images, clouds and sounds into one safetensors file, resumable, with bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from jepa_mpc.face.encoders import EncoderChoice
from jepa_mpc.face.media import Medium, media_at
from jepa_mpc.files import only_writer
from jepa_mpc.row_file import RowFile, draft_folder


@dataclass(frozen=True, kw_only=True)
class FeatureSettings:
    """Settings of feature extraction.

    Args:
        frames: Frames per video clip.
        batch: Rows (clips, images, clouds, sounds) encoded together.
        dtype: Data type in the file: "float32", "float16" or "bfloat16".

    Raises:
        ValueError: If `batch` is less than 1.
    """

    frames: int = 64
    batch: int = 1
    dtype: str = "float32"

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise ValueError(f"batch must be a whole number from 1, got {self.batch}")


def write_features(
    source: str | Path,
    choice: EncoderChoice,
    to: str | Path,
    *,
    settings: FeatureSettings | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Encode a file, or all files of a folder, into a safetensors file.

    A file becomes the tensor `features`, `rows N D` (a video or a sound: one row per clip) or `N D` (an image or a
    cloud); the files of a folder become tensors named by their relative paths. Repeat the call to resume after an
    interruption.

    Args:
        source: A video, image, cloud or sound, or a folder of files of one kind.
        choice: The encoder.
        to: The file to write; it must not exist.
        settings: How the features are made.
        progress: Called with the number of finished rows and the total.

    Returns:
        The file.

    Raises:
        BadCheckpoint: If the weights cannot be read, or encode another kind of input.
        BadEpisode, BadObservation: If a file cannot be read; finished rows are kept.
        Busy: If another process writes to the same path.
        FileExistsError: If the file exists.
        ValueError: If a draft with other settings lies beside it, or the dtype is unknown.
    """
    if Path(to).exists():
        raise FileExistsError(f"{to} already exists: choose a new path")
    how = settings or FeatureSettings()
    media = media_at(source)
    encode = media.encoder(choice)
    opened = {name: media.open(path, encoder=encode, frames=how.frames) for name, path in media.files.items()}
    shapes = {name: () if one.single else (len(one),) for name, one in opened.items()}
    decides = {
        "encoder": str(choice.name),
        "image_size": choice.image_size,
        "frames": how.frames if media.kind == "films" else None,
        "files": {name: _identity(path) for name, path in media.files.items()},
        "weights": _weights(choice),
    }
    with only_writer(draft_folder(to), what="command"):
        file = RowFile(to, shapes, settings=decides, dtype=how.dtype)
        rows = islice(_rows(list(opened.values())), file.done, None)
        while batch := list(islice(rows, how.batch)):
            file.append(encode([medium[row] for medium, row in batch]))
            if progress is not None:
                progress(file.done, file.rows)
        return file.publish()


def _rows(media: Sequence[Medium]) -> Iterator[tuple[Medium, int]]:
    return ((medium, row) for medium in media for row in range(len(medium)))


def _weights(choice: EncoderChoice) -> Any:
    """What identifies the weights: files with sizes and times, or the name of a repository."""
    place = Path(choice.hub or choice.name)
    if place.is_dir():
        return {one.name: _identity(one) for one in sorted(place.iterdir()) if one.is_file()}
    return _identity(place) if place.is_file() else str(place)


def _identity(path: Path) -> list[int]:
    known = path.stat()
    return [known.st_size, known.st_mtime_ns]
