"""An album of logged frames: shows a predicted state by the nearest logged frame.

A world model without a decoder cannot render its predictions, but the most similar logged frame illustrates them. The
album is one JPEG sheet of square tiles beside the weights, with the position that the model estimates for each frame.
"""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from jepa_mpc.errors import BadCheckpoint
from jepa_mpc.files import write_bytes
from jepa_mpc.plain_json import read_json_file

SHEET, PLACES = "album.jpg", "album.json"
COLUMNS = 16
MOST_PIXELS = 1 << 25


@dataclass(frozen=True)
class Album:
    """Logged frames `(G, size, size, 3)` of one camera and the estimated positions `(G, 3)` (m)."""

    frames: NDArray[np.uint8]
    places: NDArray[np.float64]

    def nearest(self, place: NDArray[np.float32]) -> NDArray[np.uint8]:
        """The frame with the nearest position."""
        return self.frames[int(np.argmin(np.linalg.norm(self.places - place, axis=1)))]


def save_album(folder: Path, album: Album, *, quality: int = 85) -> None:
    """Write sheet and positions beside a checkpoint."""
    for name, data in album_files(album, quality=quality).items():
        write_bytes(folder / name, data)


def album_files(album: Album, *, quality: int = 85) -> dict[str, bytes]:
    """Sheet and positions as checkpoint files, by name."""
    count, size = album.frames.shape[:2]
    rows = -(-count // COLUMNS)
    tiles = np.zeros((rows * COLUMNS, size, size, 3), np.uint8)
    tiles[:count] = album.frames
    sheet = tiles.reshape(rows, COLUMNS, size, size, 3).transpose(0, 2, 1, 3, 4).reshape(rows * size, COLUMNS * size, 3)
    buffer = io.BytesIO()
    Image.fromarray(sheet).save(buffer, format="JPEG", quality=quality, subsampling=0)
    places = json.dumps({"size": size, "places_m": np.round(album.places, 4).tolist()})
    return {SHEET: buffer.getvalue(), PLACES: places.encode()}


def load_album(folder: Path) -> Album | None:
    """The album beside a checkpoint, or None if it has none.

    Raises:
        BadCheckpoint: If it is damaged.
    """
    if not (folder / SHEET).is_file():
        return None
    try:
        notes = read_json_file(folder / PLACES)
        size, places = int(notes["size"]), np.array(notes["places_m"], dtype=np.float64)
        with Image.open(folder / SHEET, formats=("JPEG",)) as image:
            if image.width * image.height > MOST_PIXELS:
                raise ValueError(f"a picture of {image.width} x {image.height}")
            sheet = np.asarray(image.convert("RGB"))
        tiles = sheet.reshape(sheet.shape[0] // size, size, COLUMNS, size, 3).transpose(0, 2, 1, 3, 4)
        frames = tiles.reshape(-1, size, size, 3)
        if places.ndim != 2 or not 0 < len(places) <= len(frames):
            raise ValueError(f"{len(frames)} frames and positions of shape {places.shape}")
        return Album(frames[: len(places)], places)
    except (OSError, ArithmeticError, KeyError, TypeError, ValueError, UnidentifiedImageError) as error:
        raise BadCheckpoint(f"the album in {folder} is damaged: {error}") from error
