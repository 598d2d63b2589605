"""A safetensors file written row by row, with bounded memory; an interrupted writer resumes.

All rows have one shape. The draft lies in a folder beside the file, with a note of its progress; the file appears when
the last row is written.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
from torch import Tensor

from jepa_mpc.errors import choose
from jepa_mpc.files import write_json
from jepa_mpc.plain_json import read_json_file

DRAFT, PROGRESS = "draft.safetensors", "progress.json"
DTYPES = {"float32": ("F32", torch.float32), "float16": ("F16", torch.float16), "bfloat16": ("BF16", torch.bfloat16)}


def draft_folder(path: str | Path) -> Path:
    """Folder of the draft of a file."""
    return Path(path).with_name(f"{Path(path).name}.part")


class RowFile:
    """Tensors of equal rows while they are written to a file.

    Args:
        path: Destination of the file.
        shapes: Leading axes of each tensor: `(rows,)`, or `()` for a tensor that is one row.
        settings: Everything that determines the rows; a draft with other settings is refused.
        dtype: "float32", "float16" or "bfloat16".

    Raises:
        UnknownName: If the dtype is unknown.
        ValueError: If a draft with other settings lies beside it.
    """

    def __init__(
        self, path: str | Path, shapes: Mapping[str, Sequence[int]], *, settings: Mapping[str, Any], dtype: str
    ) -> None:
        self.path, self.shapes = Path(path), dict(shapes)
        self.settings: dict[str, Any] = json.loads(json.dumps({**settings, "dtype": dtype}))
        self.code, self.dtype = choose(DTYPES, dtype, "dtype")
        self.folder = draft_folder(path)
        self.done, self.row_shape = self._known()

    @property
    def rows(self) -> int:
        """Number of rows of all tensors."""
        return sum(shape[0] if shape else 1 for shape in self.shapes.values())

    def append(self, rows: Annotated[Tensor, "B N D"]) -> None:
        """Write the next rows; they are on disk when this returns.

        Raises:
            OSError: If the disk is full.
            ValueError: If their shape differs from that of earlier rows.
        """
        shape = tuple(rows.shape[1:])
        if self.row_shape is None:
            self._begin(shape)
        if shape != self.row_shape:
            raise ValueError(f"expected rows of shape {self.row_shape}, got {shape}")
        data = rows.to(self.dtype).contiguous().view(torch.uint8).numpy().tobytes()
        with (self.folder / DRAFT).open("r+b") as file:
            file.seek(self._start + self.done * (len(data) // len(rows)))
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        self.done += len(rows)
        self._note()

    def publish(self) -> Path:
        """Publish the finished file.

        Raises:
            ValueError: If rows are missing.
        """
        if self.done != self.rows:
            raise ValueError(f"{self.rows - self.done} of {self.rows} rows of {self.path} are missing")
        os.replace(self.folder / DRAFT, self.path)
        shutil.rmtree(self.folder)
        return self.path

    def _known(self) -> tuple[int, tuple[int, ...] | None]:
        """Number of finished rows and the shape of one, from the draft if there is one."""
        if not (self.folder / PROGRESS).is_file():
            return 0, None
        known = _noted(self.folder / PROGRESS)
        changed = sorted(name for name in self.settings if known["settings"].get(name) != self.settings[name])
        if changed:
            raise ValueError(
                f"{self.folder} was started with other settings ({', '.join(changed)}): delete it or use another path"
            )
        return known["done"], tuple(known["row_shape"])

    def _begin(self, row_shape: tuple[int, ...]) -> None:
        """Create a draft with its header and full size."""
        self.row_shape = row_shape
        self.folder.mkdir(parents=True, exist_ok=True)
        header = self._header()
        with (self.folder / DRAFT).open("wb") as file:
            file.write(header)
            os.posix_fallocate(file.fileno(), 0, len(header) + self.rows * self._row_bytes)
        self._note()

    @property
    def _row_bytes(self) -> int:
        assert self.row_shape is not None
        return self.dtype.itemsize * torch.Size(self.row_shape).numel()

    @property
    def _start(self) -> int:
        return len(self._header())

    def _header(self) -> bytes:
        assert self.row_shape is not None
        entries: dict[str, Any] = {"__metadata__": {"settings": json.dumps(self.settings)}}
        offset = 0
        for name, shape in self.shapes.items():
            end = offset + (shape[0] if shape else 1) * self._row_bytes
            entries[name] = {
                "dtype": self.code, "shape": [*shape, *self.row_shape], "data_offsets": [offset, end]
            }  # fmt: skip
            offset = end
        text = json.dumps(entries).encode()
        text += b" " * (-len(text) % 8)
        return len(text).to_bytes(8, "little") + text

    def _note(self) -> None:
        assert self.row_shape is not None
        known: dict[str, Any] = {"settings": self.settings, "done": self.done, "row_shape": list(self.row_shape)}
        write_json(self.folder / PROGRESS, known)


def _noted(path: Path) -> dict[str, Any]:
    """What is done of a draft.

    Raises:
        ValueError: If the note is damaged.
    """
    match read_json_file(path):
        case {"settings": dict(), "done": int(done), "row_shape": list(shape)} as noted if done >= 0 and all(
            type(size) is int and size >= 0 for size in shape
        ):
            return dict(noted)
    raise ValueError(f"{path} is not the note of a draft: delete {path.parent}, or name another place")
