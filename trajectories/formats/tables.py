"""Parquet tables in and out through pyarrow, on one thread, with sizes checked before anything is read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from jepa_mpc.errors import BadEpisode, MissingPackage
from jepa_mpc.files import atomic_file
from jepa_mpc.trajectories.formats.base import fault

MAX_ROWS = 100_000_000
ARROW_TYPES = ("float", "double", "int64", "int32", "int16", "int8", "uint8", "bool", "halffloat", "uint16", "uint32")


class Table:
    """One parquet file: its columns, and rows of them as numpy arrays.

    Args:
        path: The file.

    Raises:
        BadEpisode: If it is missing or damaged.
        MissingPackage: If pyarrow is not installed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        arrow, parquet = _arrow()
        self._errors = (arrow.ArrowException, OSError, ValueError, MemoryError, OverflowError, KeyError, TypeError)
        try:
            file = parquet.ParquetFile(str(path), memory_map=False)
            self.num_rows = int(file.metadata.num_rows)
            groups = [file.metadata.row_group(i) for i in range(file.metadata.num_row_groups)]
            self.columns: tuple[str, ...] = tuple(file.schema_arrow.names)
            self._groups = [int(group.num_rows) for group in groups]
            heaviest = max((int(group.total_byte_size) for group in groups), default=0)
            self._file = file
        except self._errors as error:
            problem = "is missing" if isinstance(error, FileNotFoundError) else f"is damaged ({_short(error)})"
            raise fault(path, field="file", problem=problem, remedy="restore the table") from error
        sound = sum(self._groups) == self.num_rows and all(0 < rows <= MAX_ROWS for rows in self._groups)
        if not sound or heaviest > 1100 * path.stat().st_size:
            problem = f"claims {self.num_rows} rows in groups of {self._groups[:9]}, more than its bytes can hold"
            raise fault(path, field="file", problem=problem, remedy="restore the table")

    def array(self, name: str, *, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Rows start..stop-1 of a column of numbers, `G` or `G ...` for lists of one length.

        Raises:
            BadEpisode: If it is missing, damaged, has gaps or ragged lists.
        """
        column = self._column(name, start, self.num_rows if stop is None else stop)
        try:
            values, shape = column.combine_chunks(), [len(column)]
            while str(values.type).startswith(("list", "large_list", "fixed_size_list")):
                if values.null_count:
                    raise fault(self.path, field=name, problem="has empty cells", remedy="fill or drop these rows")
                flat, total = values.flatten(), int(np.prod(shape))
                if total and len(flat) % total:
                    raise fault(self.path, field=name, problem="has lists of different lengths")
                if total and not _is_even(values, len(flat) // total):
                    raise fault(self.path, field=name, problem="has lists of different lengths")
                shape, values = [*shape, len(flat) // max(total, 1)], flat
            if values.null_count:
                raise fault(self.path, field=name, problem="has empty cells", remedy="fill or drop these rows")
            if str(values.type) not in ARROW_TYPES:
                raise fault(self.path, field=name, problem=f"holds {values.type}", remedy="expected numbers")
            return values.to_numpy(zero_copy_only=False).reshape(shape)
        except self._errors as error:
            raise self._damaged(name, error) from error

    def values(self, name: str, *, start: int = 0, stop: int | None = None) -> list[Any]:
        """Rows start..stop-1 of a column as plain Python values (texts, structures).

        Raises:
            BadEpisode: If it is missing or damaged.
        """
        try:
            return list(self._column(name, start, self.num_rows if stop is None else stop).to_pylist())
        except self._errors as error:
            raise self._damaged(name, error) from error

    def _column(self, name: str, start: int, stop: int) -> Any:
        """The rows, read from the row groups that hold them and no others."""
        if name not in self.columns:
            raise fault(self.path, field=name, problem="is missing", remedy=f"the table has {', '.join(self.columns)}")
        ends = np.cumsum(self._groups)
        first, last = (
            int(np.searchsorted(ends, start, side="right")),
            int(np.searchsorted(ends, stop - 1, side="right")),
        )
        if not 0 <= start < stop <= self.num_rows:
            raise fault(self.path, field=name, problem=f"has {self.num_rows} rows, asked for {start}..{stop - 1}")
        try:
            column = self._file.read_row_groups(list(range(first, last + 1)), [name], use_threads=False).column(name)
        except self._errors as error:
            raise self._damaged(name, error) from error
        if len(column) != sum(self._groups[first : last + 1]):
            raise fault(self.path, field=name, problem=f"has {len(column)} rows where the header counts more or fewer")
        skip = start - (int(ends[first - 1]) if first else 0)
        return column.slice(skip, stop - start)

    def _damaged(self, name: str, error: BaseException) -> BaseException:
        if isinstance(error, BadEpisode):
            return error
        return fault(self.path, field=name, problem=f"is damaged ({_short(error)})", remedy="restore the table")


def write_table(path: Path, *parts: Mapping[str, Any]) -> None:
    """Write a parquet file whole or not at all.

    Args:
        path: Where it shall stand.
        *parts: One row group each: name to numpy array (`G` or `G A`), list of values, or arrow array.

    Raises:
        OSError: If the disk is full or the place cannot be written.
    """
    arrow, parquet = _arrow()
    tables = [arrow.table({name: _to_arrow(arrow, value) for name, value in part.items()}) for part in parts]
    with atomic_file(path) as draft, parquet.ParquetWriter(str(draft), tables[0].schema) as writer:
        for table in tables:
            writer.write_table(table, row_group_size=max(table.num_rows, 1))


def image_column(pictures: Iterable[bytes]) -> Any:
    """Encoded pictures as the structure `{bytes, path}` that image columns have."""
    arrow, _ = _arrow()
    kind = arrow.struct([("bytes", arrow.binary()), ("path", arrow.string())])
    return arrow.array([{"bytes": picture, "path": None} for picture in pictures], type=kind)


def _to_arrow(arrow: ModuleType, value: Any) -> Any:
    if not isinstance(value, np.ndarray):
        return value if isinstance(value, arrow.Array) else arrow.array(value)
    flat = arrow.array(np.ascontiguousarray(value).reshape(-1))
    for size in reversed(value.shape[1:]):
        flat = arrow.FixedSizeListArray.from_arrays(flat, size)
    return flat


def _is_even(values: Any, size: int) -> bool:
    if str(values.type).startswith("fixed_size_list"):
        return bool(values.type.list_size == size)
    lengths: Sequence[int] = values.value_lengths().to_numpy(zero_copy_only=False)
    return bool((np.asarray(lengths) == size).all())


def _short(error: BaseException) -> str:
    return " ".join(str(error).split())[:160]


def _arrow() -> tuple[ModuleType, ModuleType]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise MissingPackage("pyarrow", "jepa_mpc.trajectories.formats.tables") from error
    return pyarrow, parquet
