"""The container of MCAP recordings, parsed from the first byte to the last without trusting any index in the file.

    magic, records of (opcode u8, size u64, bytes), magic;  a chunk is a record that holds others, compressed

Chunks are decompressed one at a time and only up to their declared size, which is compared with the file's own before
anything is allocated.
"""

from __future__ import annotations

import struct
import zlib
from array import array
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from jepa_mpc.errors import BadEpisode, MissingPackage
from jepa_mpc.trajectories.guards import DECODER_ERRORS, Patience, check_room, fault, plain_file

MAGIC = b"\x89MCAP0\r\n"
FOOTER, SCHEMA, CHANNEL, MESSAGE, CHUNK = 2, 3, 4, 5, 6
PLACE_BYTES = 96  # memory per message
SECONDS_PER_MB = 10.0
MAX_TEXT = 1 << 20


class Schema(NamedTuple):
    """A message definition: number, name, encoding, text."""

    id: int
    name: str
    encoding: str
    data: bytes


class Channel(NamedTuple):
    """The messages of a topic: topic, encoding, number of the schema."""

    topic: str
    encoding: str
    schema: int


class Topic:
    """The locations of the messages of one topic, in the order of their times."""

    def __init__(self, name: str, kind: str) -> None:
        self.name, self.kind = name, kind
        self._found = [array("q") for _ in range(5)]

    def add(self, *facts: int) -> None:
        """Record time in ns, channel, chunk (-1: none), first byte and size of a message."""
        for column, fact in zip(self._found, facts, strict=True):
            column.append(fact)

    def close(self) -> None:
        """Sort the messages by time."""
        rows = np.array(self._found, dtype=np.int64)
        self.times_ns, self.channels, self.chunks, self.places, self.sizes = rows[:, rows[0].argsort(kind="stable")]


class McapFile:
    """One recording: its schemas, channels, and the locations of the messages with wanted types.

    Args:
        path: The file.
        wanted: Whether messages with this schema name (`package/Name`) are needed.

    Raises:
        BadEpisode: If the file is damaged, or its chunks expand too much.
        MissingPackage: If the package for its compression is not installed.
    """

    def __init__(self, path: Path, wanted: Callable[[str], bool]) -> None:
        self.path, self._wanted = plain_file(path, path), wanted
        self.schemas: dict[int, Schema] = {}
        self.channels: dict[int, Channel] = {}
        self.topics: dict[str, Topic] = {}
        self._chunks: list[tuple[int, int]] = []  # first byte and size
        self._held: tuple[int, bytes] = (-1, b"")
        self._patience, self._count = Patience(path, seconds_per_mb=SECONDS_PER_MB), 0
        try:
            with path.open("rb") as file:
                self._walk(file)
        except BadEpisode:
            raise
        except DECODER_ERRORS as error:
            raise self._damaged(str(error)) from error
        for topic in self.topics.values():
            topic.close()

    def data(self, topic: Topic, numbers: Iterable[int]) -> Iterator[tuple[Channel, bytes]]:
        """Messages by number, in the requested order.

        Raises:
            BadEpisode: If the file is damaged.
        """
        try:
            with self.path.open("rb") as file:
                for number in numbers:
                    chunk, at, size = (int(of[number]) for of in (topic.chunks, topic.places, topic.sizes))
                    if chunk < 0:
                        file.seek(at)
                        held = file.read(size)
                    else:
                        held = self._chunk(file, chunk)[at : at + size]
                    yield self.channels[int(topic.channels[number])], held
        except BadEpisode:
            raise
        except DECODER_ERRORS as error:
            raise self._damaged(str(error)) from error

    def _walk(self, file: BinaryIO) -> None:
        total = self.path.stat().st_size
        if file.read(8) != MAGIC:
            raise self._damaged("it does not begin like one")
        at, opcode = 8, 0
        while opcode != FOOTER:
            self._patience.check()
            head = file.read(9)
            opcode, size = struct.unpack("<BQ", head)
            at += 9 + size
            if at > total:
                raise self._damaged(f"it ends inside of a record of {size} bytes")
            if opcode == CHUNK:
                self._chunks.append((at - size, size))
                self._records(self._chunk(file, len(self._chunks) - 1), len(self._chunks) - 1)
            elif opcode in (SCHEMA, CHANNEL):
                self._record(opcode, file.read(min(size, MAX_TEXT)), -1, at - size, size)
            elif opcode == MESSAGE:
                self._record(opcode, file.read(min(size, 22)), -1, at - size, size)
            file.seek(at)
        if file.read(9) != MAGIC:
            raise self._damaged("it does not end like one")

    def _records(self, data: bytes, chunk: int) -> None:
        at = 0
        while at < len(data):
            if self._count % 1024 == 0:
                self._patience.check()
            opcode, size = struct.unpack_from("<BQ", data, at)
            at += 9
            if at + size > len(data):
                raise self._damaged(f"a chunk ends inside of a record of {size} bytes")
            self._record(opcode, data[at : at + min(size, 22 if opcode == MESSAGE else MAX_TEXT)], chunk, at, size)
            at += size

    def _record(self, opcode: int, data: bytes, chunk: int, at: int, size: int) -> None:
        """Index one record; of a message only the header is passed."""
        if opcode == SCHEMA:
            (number,), rest = struct.unpack_from("<H", data), data[2:]
            name, rest = _text(rest)
            encoding, rest = _text(rest)
            self.schemas.setdefault(number, Schema(number, name, encoding, rest[4:]))
        elif opcode == CHANNEL:
            number, schema = struct.unpack_from("<HH", data)
            topic, rest = _text(data[4:])
            self.channels.setdefault(number, Channel(topic, _text(rest)[0], schema))
        elif opcode == MESSAGE:
            number, _, time_ns = struct.unpack_from("<HIQ", data)
            channel = self.channels[number]
            kind = self.schemas[channel.schema].name.replace("/msg/", "/") if channel.schema else ""
            self._count += 1
            check_room(self._count * PLACE_BYTES, self.path, field="file")
            if self._wanted(kind):
                self.topics.setdefault(channel.topic, Topic(channel.topic, kind)).add(
                    time_ns, number, chunk, at + 22, size - 22
                )

    def _chunk(self, file: BinaryIO, number: int) -> bytes:
        """The records of a chunk; the last chunk is cached."""
        if self._held[0] == number:
            return self._held[1]
        at, size = self._chunks[number]
        file.seek(at)
        claimed, crc, length = struct.unpack("<QII", file.read(32)[16:])
        rest = size - 32 - length - 8
        method, packed_size = file.read(length).decode(), struct.unpack("<Q", file.read(8))[0]
        if packed_size > rest:
            raise self._damaged(f"a chunk claims {packed_size} bytes, it has {rest}")
        check_room(2 * claimed, self.path, field="file")
        data = _unpacked(method, file.read(packed_size), claimed)
        if len(data) != claimed or (crc and zlib.crc32(data) != crc):
            raise self._damaged("a chunk differs from its checksum")
        self._held = (number, data)
        return data

    def _damaged(self, problem: str) -> BadEpisode:
        remedy = "restore it; `mcap recover` may help"
        return fault(self.path, field="file", problem=f"is damaged or no MCAP ({problem})", remedy=remedy)


def _text(data: bytes) -> tuple[str, bytes]:
    """A length-prefixed text, and the bytes after it."""
    (length,) = struct.unpack_from("<I", data)
    return data[4 : 4 + length].decode(), data[4 + length :]


def _unpacked(method: str, packed: bytes, size: int) -> bytes:
    """The decompressed bytes of a chunk, never more than declared."""
    if not method:
        return packed
    if method == "lz4":
        return _unpacked_lz4(packed, size)
    if method != "zstd":
        raise ValueError(f"compression {method!r}, known are zstd and lz4")
    try:
        import zstandard
    except ImportError as error:
        raise MissingPackage("zstandard", "jepa_mpc.trajectories.formats.mcap") from error
    try:
        if zstandard.frame_content_size(packed) not in (-1, size):
            raise ValueError("a chunk whose two sizes differ")
        return bytes(zstandard.ZstdDecompressor().decompress(packed, max_output_size=max(size, 1)))
    except zstandard.ZstdError as error:
        raise ValueError(f"a chunk cannot be decompressed: {error}") from error


def _unpacked_lz4(packed: bytes, size: int) -> bytes:
    try:
        from lz4.frame import LZ4FrameDecompressor
    except ImportError as error:
        raise MissingPackage("lz4", "jepa_mpc.trajectories.formats.mcap") from error
    return bytes(LZ4FrameDecompressor().decompress(packed, max_length=size))
