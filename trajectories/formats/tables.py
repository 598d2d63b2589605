"""Reads and writes Parquet tables with pyarrow, on one thread; sizes are checked before anything is read."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple, Self

import numpy as np

from jepa_mpc.errors import BadEpisode, MissingPackage
from jepa_mpc.files import atomic_file
from jepa_mpc.trajectories.formats.base import fault
from jepa_mpc.trajectories.formats.parquet_pages import unpacked_bytes
from jepa_mpc.trajectories.guards import GRACE_BYTES, check_room, plain_file

MAX_ROWS = 100_000_000
MAX_FOOTER = 1 << 24
MAX_BATCH = 4096  # rows of texts or images that are decoded at a time
WIDTHS = {"BOOLEAN": 1, "INT32": 4, "INT64": 8, "INT96": 12, "FLOAT": 4, "DOUBLE": 8, "BYTE_ARRAY": 16,
          "FIXED_LEN_BYTE_ARRAY": 16}  # fmt: skip
PYTHON_VALUE = 64  # bytes of a value as a Python object
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
        _check_footer(plain_file(path, path))
        try:
            file = parquet.ParquetFile(str(path), memory_map=False)
            self.num_rows = int(file.metadata.num_rows)
            groups = [file.metadata.row_group(i) for i in range(file.metadata.num_row_groups)]
            self.columns: tuple[str, ...] = tuple(file.schema_arrow.names)
            self._groups = [int(group.num_rows) for group in groups]
            self._chunks = [[_chunk(group.column(at)) for at in range(group.num_columns)] for group in groups]
            self._file = file
        except self._errors as error:
            problem = "is missing" if isinstance(error, FileNotFoundError) else f"is damaged ({_short(error)})"
            raise fault(path, field="file", problem=problem, remedy="restore the table") from error
        if len(set(self.columns)) < len(self.columns):
            raise fault(path, field="file", problem="has two columns of one name", remedy="name each column once")
        sound = sum(self._groups) == self.num_rows and all(0 < rows <= MAX_ROWS for rows in self._groups)
        if not sound:
            problem = f"claims {self.num_rows} rows in groups of {self._groups[:9]}, more than its bytes can hold"
            raise fault(path, field="file", problem=problem, remedy="restore the table")

    def array(self, name: str, *, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Rows start..stop-1 of a column of numbers, `G` or `G ...` for lists of one length.

        Raises:
            BadEpisode: If it is missing or damaged, or has empty cells or lists of different lengths.
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
        stop = self.num_rows if stop is None else stop
        self.check_room([name], value_bytes=PYTHON_VALUE, rows=stop - start)
        try:
            return list(self._column(name, start, stop).to_pylist())
        except self._errors as error:
            raise self._damaged(name, error) from error

    def ranges(self, name: str) -> list[tuple[int, int, int]]:
        """First row, minimum and maximum of a column in each row group, from the footer; empty if it has none.

        Raises:
            BadEpisode: If the footer is damaged.
        """
        try:
            metadata, found = self._file.metadata, []
            for number in range(metadata.num_row_groups):
                group = metadata.row_group(number)
                columns = (group.column(at) for at in range(group.num_columns))
                told = next((column.statistics for column in columns if column.path_in_schema == name), None)
                if told is None or not told.has_min_max or type(told.min) is not int:
                    return []
                found.append((int(group.num_rows), told.min, told.max))
            return found
        except self._errors as error:
            raise self._damaged(name, error) from error

    def _column(self, name: str, start: int, stop: int) -> Any:
        """The rows, read only from the row groups that hold them."""
        if name not in self.columns:
            raise fault(self.path, field=name, problem="is missing", remedy=f"the table has {', '.join(self.columns)}")
        ends = np.cumsum(self._groups)
        first, last = (
            int(np.searchsorted(ends, start, side="right")),
            int(np.searchsorted(ends, stop - 1, side="right")),
        )
        if not 0 <= start < stop <= self.num_rows:
            raise fault(self.path, field=name, problem=f"has {self.num_rows} rows, asked for {start}..{stop - 1}")
        groups = list(range(first, last + 1))
        skip = start - (int(ends[first - 1]) if first else 0)
        try:
            return self._decoded(name, groups, skip, stop - start)
        except self._errors as error:
            raise self._damaged(name, error) from error

    def _decoded(self, name: str, groups: Sequence[int], skip: int, count: int) -> Any:
        """Rows skip..skip+count-1 of row groups; texts and pictures in batches, since equal ones are stored once."""
        chunks = [self._measured(group, at) for group in groups for at in self._parts_of(name, group)]
        check_room(sum(max(chunk.decoded, chunk.unpacked) for chunk in chunks), self.path, field=name)
        rows = sum(self._groups[group] for group in groups)
        if all(chunk.fixed for chunk in chunks):
            column = self._file.read_row_groups(groups, [name], use_threads=False).column(name)
            if len(column) != rows:
                problem = f"has {len(column)} rows where the header counts {rows}"
                raise fault(self.path, field=name, problem=problem, remedy="restore the table")
            return column.slice(skip, count)
        longest = max((chunk.unpacked for chunk in chunks), default=1)
        size = max(1, min(MAX_BATCH, GRACE_BYTES // 2 // max(longest, 1)))
        return self._batched(name, groups, skip, count, size)

    def _parts_of(self, name: str, group: int) -> list[int]:
        return [at for at, chunk in enumerate(self._chunks[group]) if chunk.belongs_to(name)]

    def _measured(self, group: int, at: int) -> _Chunk:
        """A chunk with what its pages claim, where that is more than the footer says; looked at once."""
        chunk = self._chunks[group][at]
        if not chunk.measured:
            claimed = unpacked_bytes(self.path, chunk.start, chunk.length)
            chunk = chunk._replace(unpacked=max(chunk.unpacked, claimed), measured=True)
            self._chunks[group][at] = chunk
        return chunk

    def _batched(self, name: str, groups: Sequence[int], skip: int, count: int, size: int) -> Any:
        arrow, _ = _arrow()
        kept: list[Any] = []
        at = held = 0
        for batch in self._file.iter_batches(size, row_groups=groups, columns=[name], use_threads=False):
            column = batch.column(name)
            part = column.slice(max(skip - at, 0), max(min(skip + count - at, len(column)) - max(skip - at, 0), 0))
            at += len(column)
            if len(part):
                held += part.nbytes
                check_room(held, self.path, field=name)
                kept.append(part)
            if at >= skip + count:
                break
        if sum(map(len, kept)) != count:
            raise fault(self.path, field=name, problem=f"has {at} rows, the header counts more", remedy="restore it")
        return arrow.chunked_array(kept)

    def check_room(self, names: Sequence[str], *, value_bytes: int = 0, rows: int | None = None) -> None:
        """Refuse columns that would together exceed the memory limit for the file.

        Args:
            names: The columns.
            value_bytes: Bytes of one decoded value, if larger than the number itself.
            rows: How many rows are read; all by default.

        Raises:
            BadEpisode: If they do.
        """
        share = 1.0 if rows is None else rows / max(self.num_rows, 1)
        chunks = [chunk for group in self._chunks for chunk in group if any(map(chunk.belongs_to, names))]
        needed = sum(max(chunk.decoded, value_bytes * chunk.values) for chunk in chunks)
        check_room(needed * share, self.path, field=", ".join(names)[:200])

    def _damaged(self, name: str, error: BaseException) -> BaseException:
        if isinstance(error, BadEpisode):
            return error
        return fault(self.path, field=name, problem=f"is damaged ({_short(error)})", remedy="restore the table")


class _Chunk(NamedTuple):
    """One column of one row group as the footer declares it: path, number of values, their bytes, and its place."""

    path: str
    values: int
    decoded: int
    unpacked: int
    fixed: bool
    start: int
    length: int
    measured: bool = False

    def belongs_to(self, name: str) -> bool:
        """Whether it is that column or a part of it."""
        return self.path == name or self.path.startswith(name + ".")


def _chunk(column: Any) -> _Chunk:
    count, unpacked = int(column.num_values), int(column.total_uncompressed_size)
    if count < 0 or unpacked < 0:
        raise ValueError(f"a column of {count} values in {unpacked} bytes")
    width = WIDTHS.get(str(column.physical_type), 16)
    start, length = int(column.data_page_offset), int(column.total_compressed_size)
    if column.has_dictionary_page and 0 < column.dictionary_page_offset < start:
        start = int(column.dictionary_page_offset)
    if start < 0 or length < 0 or column.file_path:
        raise ValueError(f"a column of {length} bytes at {start} {column.file_path}")
    fixed = "BYTE" not in str(column.physical_type)
    return _Chunk(str(column.path_in_schema), count, width * count, unpacked, fixed, start, length)


def _check_footer(path: Path) -> None:
    """Refuse a footer that would expand to many times its size as objects."""
    with path.open("rb") as file:
        file.seek(max(path.stat().st_size - 8, 0))
        tail = file.read(8)
    size = int.from_bytes(tail[:4], "little")
    if len(tail) == 8 and MAX_FOOTER < size <= path.stat().st_size:
        raise fault(path, field="file", problem=f"has a footer of {size} bytes", remedy="write fewer row groups")


def write_table(path: Path, *parts: Mapping[str, Any], index: str | None = None) -> None:
    """Write a parquet file atomically.

    Args:
        path: The file to write.
        *parts: One row group each: name to numpy array (`G` or `G A`), list of values, or arrow array.
        index: The text column that pandas uses as row index.

    Raises:
        OSError: If the disk is full or the file cannot be written.
    """
    with atomic_file(path) as draft, TableWriter(draft, index=index) as writer:
        for part in parts:
            writer.write(part)


class TableWriter:
    """Writes a parquet file one row group at a time; the file is complete when the block ends.

    Args:
        path: The file to write; its folder is made.
        index: The text column that pandas uses as row index.

    Raises:
        OSError: If the disk is full or the file cannot be written.
    """

    def __init__(self, path: Path, *, index: str | None = None) -> None:
        self.path, self.index = path, index
        self._writer: Any = None
        path.parent.mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self._writer is not None:
            self._writer.close()

    def write(self, part: Mapping[str, Any]) -> None:
        """Append a row group: name to numpy array (`G` or `G A`), list of values, or arrow array."""
        arrow, parquet = _arrow()
        table = arrow.table({name: _to_arrow(arrow, value) for name, value in part.items()})
        if self.index is not None:
            table = table.replace_schema_metadata({"pandas": _pandas_metadata(table, self.index)})
        if self._writer is None:
            self._writer = parquet.ParquetWriter(str(self.path), table.schema)
        self._writer.write_table(table, row_group_size=max(table.num_rows, 1))


def image_column(pictures: Iterable[bytes]) -> Any:
    """Encoded images as the structure `{bytes, path}` that image columns have."""
    arrow, _ = _arrow()
    kind = arrow.struct([("bytes", arrow.binary()), ("path", arrow.string())])
    return arrow.array([{"bytes": picture, "path": None} for picture in pictures], type=kind)


def _pandas_metadata(table: Any, index: str) -> str:
    """The pandas metadata of a table whose index is one of its columns; all others hold integers."""
    columns = [
        {"name": name, "field_name": name, "pandas_type": kind, "numpy_type": numpy, "metadata": None}
        for name in table.column_names
        for kind, numpy in [("unicode", "object") if name == index else ("int64", "int64")]
    ]
    return json.dumps({"index_columns": [index], "column_indexes": [], "columns": columns, "pandas_version": "2.2.3"})


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
