"""Reads and writes videos with PyAV: frames by number, from any container, on one thread.

The times of all frames are read once per file; a window then needs one seek to the last key frame and a short decode.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO, Literal

import numpy as np

from jepa_mpc.errors import BadEpisode, MissingPackage
from jepa_mpc.files import atomic_file
from jepa_mpc.trajectories.formats.base import MAX_SIDE, fault
from jepa_mpc.trajectories.guards import DECODER_ERRORS, check_room, plain_file, room

Codec = Literal["h264", "av1", "h264_lossless"]
DEPTH_CODEC: Literal["depth"] = "depth"
GREY = "gray12le"
ENCODERS: dict[str, tuple[str, str, dict[str, str]]] = {
    "h264": ("libx264", "yuv420p", {"crf": "18", "g": "2", "preset": "veryfast"}),
    "av1": ("libsvtav1", "yuv420p", {"crf": "30", "g": "2", "preset": "10"}),
    "h264_lossless": ("libx264rgb", "rgb24", {"qp": "0", "g": "10", "preset": "veryfast"}),
}
_ENCODERS = ENCODERS | {
    DEPTH_CODEC: ("libx265", GREY, {"g": "2", "preset": "veryfast", "x265-params": "lossless=1:log-level=none"}),
}


# first bytes of a file -> the only demuxer that may open it; playlists and the like would open other files
CONTAINERS = ((4, b"ftyp", "mov"), (4, b"moov", "mov"), (4, b"mdat", "mov"), (4, b"free", "mov"), (4, b"wide", "mov"),
              (4, b"skip", "mov"), (0, b"\x1aE\xdf\xa3", "matroska"), (0, b"RIFF", "avi"))  # fmt: skip
FAMILIES = {"mov": "mov,mp4,m4a,3gp,3g2,mj2", "matroska": "matroska,webm", "avi": "avi"}
MAX_PIXELS = 1 << 24
FRAME_BYTES = 64  # memory of a demuxer per frame
SAMPLE_TABLES = {b"stsz": (8, 0, 1), b"stts": (4, 8, 2), b"ctts": (4, 8, 2), b"trun": (4, 0, 1)}
BOXES = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"moof", b"traf")


class VideoFile:
    """The frames of one video by number.

    Args:
        path: An mp4, mov, mkv, webm or avi.

    Raises:
        BadEpisode: If it holds no video or is damaged.
        MissingPackage: If PyAV is not installed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._kind = _demuxer(plain_file(path, path))
        if self._kind == "mov":
            _check_boxes(path)
        with _opened(path, self._kind) as container:
            stream = _stream(container, path)
            self.size = (int(stream.height), int(stream.width))
            self.fps = float(stream.average_rate or 0)
            self.pixels = str(stream.codec_context.pix_fmt)
            self._base = float(stream.time_base)
            pts, keys = _packets(container, stream, path)
        if not len(pts):
            raise fault(path, field="video", problem=f"has no frames of {self.size}", remedy="restore it")
        self._pts, self._keys = np.sort(pts), np.sort(pts[keys])
        if len(np.unique(self._pts)) != len(self._pts):
            raise fault(path, field="video", problem="has two frames with the same timestamp", remedy="encode it again")

    def __len__(self) -> int:
        return len(self._pts)

    @property
    def times_s(self) -> np.ndarray:
        """Display time of each frame, s from the first one."""
        return (self._pts - self._pts[0]) * self._base

    def number_at(self, time_s: float) -> int:
        """The frame with the display time nearest to `time_s`."""
        return int(np.abs(self.times_s - time_s).argmin())

    def read(self, start: int, stop: int) -> np.ndarray:
        """Frames start..stop-1, uint8 `T h w 3`.

        Raises:
            BadEpisode: If the video is shorter or a frame cannot be decoded.
        """
        self._check_range(start, stop)
        frames = np.empty((stop - start, *self.size, 3), dtype=np.uint8)
        convert = _av().video.reformatter.VideoReformatter()  # one for all: making one costs as much as a small frame
        for at, frame in enumerate(self._decoded(start, stop)):
            frames[at] = _pixels(convert.reformat(frame, format="rgb24"))
        return frames

    def read_grey(self, start: int, stop: int) -> np.ndarray:
        """Frames start..stop-1 of a 12-bit greyscale video (depth codes), uint16 `T h w`.

        Raises:
            BadEpisode: If it is not such a video, is shorter or a frame cannot be decoded.
        """
        self._check_range(start, stop)
        if self.pixels != GREY:
            raise fault(self.path, field="video", problem=f"has {self.pixels} pixels, depth needs {GREY}")
        frames = np.empty((stop - start, *self.size), dtype=np.uint16)
        for at, frame in enumerate(self._decoded(start, stop)):
            frames[at] = _levels(frame)
        return frames

    def _check_range(self, start: int, stop: int) -> None:
        if not 0 <= start < stop <= len(self):
            problem = f"has {len(self)} frames, but frames {start}..{stop - 1} belong to the episode"
            raise fault(self.path, field="video", problem=problem, remedy="restore the video or the table beside it")

    def _decoded(self, start: int, stop: int) -> Iterator[Any]:
        """Decoded frames start..stop-1: one seek to the last key frame and a short decode."""
        wanted = self._pts[start:stop]
        found = 0
        with _opened(self.path, self._kind) as container:
            stream = _stream(container, self.path)
            before = self._keys[self._keys <= self._pts[start]]
            if len(before) and before[-1] > self._pts[0]:
                container.seek(int(before[-1]), stream=stream, backward=True)
            for frame in container.decode(stream):
                if frame.pts != wanted[found]:
                    continue
                if (frame.height, frame.width) != self.size:
                    raise fault(self.path, field="video", problem="changes its image size within the video")
                yield frame
                found += 1
                if found == len(wanted):
                    return
        problem = f"cannot be decoded at frame {start + found}"
        raise fault(self.path, field="video", problem=problem, remedy="restore the video")


class VideoEncoder:
    """Writes one video frame by frame; as a context manager it writes atomically.

    Args:
        path: The video file.
        fps: Frames per second.
        codec: `h264` and `av1` are lossy, `h264_lossless` is not; `depth` stores 12-bit greyscale.
    """

    def __init__(self, path: Path, *, fps: float, codec: Codec | Literal["depth"] = "h264") -> None:
        if codec not in _ENCODERS:
            raise ValueError(f"unknown codec {codec!r}; known: {', '.join(_ENCODERS)}")
        self.path, self.fps, self.codec, self.count = path, fps, codec, 0
        self._container: Any = None
        self._stream: Any = None

    def __enter__(self) -> VideoEncoder:
        self._publish = atomic_file(self.path)
        self._draft = self._publish.__enter__()
        return self

    def __exit__(self, *problem: Any) -> None:
        try:
            if self._container is not None and problem[0] is None:
                self._container.mux(self._stream.encode())
        finally:
            if self._container is not None:
                self._container.close()
            self._publish.__exit__(*problem)

    def write(self, frames: Iterable[np.ndarray]) -> None:
        """Append frames, uint8 `h w 3` each (depth: uint16 `h w`, 0 to 4095).

        Raises:
            ValueError: If the sides are odd and the codec subsamples colours (all but `h264_lossless`).
        """
        av = _av()
        for picture in frames:
            if self._container is None:
                self._open(av, picture.shape)
            pixels = GREY if self.codec == DEPTH_CODEC else "rgb24"
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format=pixels)
            frame.pts = self.count
            self._container.mux(self._stream.encode(frame))
            self.count += 1

    def written_bytes(self) -> int:
        """Size of the video so far."""
        return self._draft.stat().st_size if self._draft.exists() else 0

    def _open(self, av: ModuleType, shape: Sequence[int]) -> None:
        encoder, pixels, options = _ENCODERS[self.codec]
        if pixels == "yuv420p" and (shape[0] % 2 or shape[1] % 2):
            raise ValueError(f"{self.codec} needs even sides, got {shape[0]} x {shape[1]}: use image frames instead")
        os.environ.setdefault("SVT_LOG", "1")  # otherwise the AV1 encoder prints its settings on stderr
        self._container = av.open(str(self._draft), "w")
        stream = self._container.add_stream(encoder, rate=Fraction(self.fps).limit_denominator(10_000))
        stream.height, stream.width, stream.pix_fmt, stream.options = shape[0], shape[1], pixels, options
        stream.codec_context.thread_count = 1
        self._stream = stream


def _check_boxes(path: Path) -> None:
    """Refuse an mp4 that is cut off inside a top-level box: decoders miss some of these cuts."""
    total = path.stat().st_size
    if total == 0:
        raise fault(path, field="video", problem="is empty", remedy="restore the video")
    with path.open("rb") as file:
        frames = _claimed_frames(file, path, 0, total, depth=0)
    check_room(frames * FRAME_BYTES, path, field="video")


def _claimed_frames(file: BinaryIO, path: Path, at: int, end: int, *, depth: int) -> int:
    """The largest frame count that the tables between two bytes declare; some entries need no byte per frame."""
    most = 0
    while at < end:
        file.seek(at)
        head = file.read(32)
        size = int.from_bytes(head[:4], "big") if len(head) >= 8 else -1
        size = int.from_bytes(head[8:16], "big") if size == 1 else end - at if size == 0 else size
        if size < 8 or at + size > end:
            raise fault(path, field="video", problem=f"is cut short or damaged at byte {at}", remedy="restore it")
        kind = head[4:8]
        if kind in BOXES and depth < 8:
            inside = _claimed_frames(file, path, at + 8, at + size, depth=depth + 1)
            most = most + inside if kind in (b"moof", b"traf") else max(most, inside)
        elif kind in SAMPLE_TABLES:
            most = max(most, _claim(file, at, size, kind))
        at += size
    return most


def _claim(file: BinaryIO, at: int, size: int, kind: bytes) -> int:
    """The frame count of one table: a count, or the sum over runs of equal entries."""
    skipped, run, step = SAMPLE_TABLES[kind]
    file.seek(at + 8 + skipped)
    count = int.from_bytes(file.read(4), "big")
    if not run:
        return count
    held = np.frombuffer(file.read(min(count * run, size)), np.uint8)
    runs = held[: len(held) // run * run].view(">u4")[::step]
    return int(runs.astype(np.int64).sum())


def _demuxer(path: Path) -> str:
    """The demuxer for the first bytes of a file.

    Raises:
        BadEpisode: If it is not a video of a known container.
    """
    with path.open("rb") as file:
        head = file.read(12)
    for at, mark, name in CONTAINERS:
        if head[at : at + len(mark)] == mark and (name != "avi" or head[8:] == b"AVI "):
            return name
    raise fault(path, field="video", problem="is no mp4, mov, mkv, webm or avi", remedy="encode it anew")


def _packets(container: Any, stream: Any, path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Display times of the frames of a video, in its own ticks, and which of them are key frames."""
    pts, keys, most = array("q"), bytearray(), room(path) // FRAME_BYTES
    for packet in container.demux(stream):
        if packet.pts is not None:
            pts.append(packet.pts)
            keys.append(packet.is_keyframe)
            if len(keys) > most:
                raise fault(path, field="video", problem=f"has more than {most} frames", remedy="cut it into parts")
    return np.array(pts, dtype=np.int64), np.frombuffer(bytes(keys), dtype=bool)


def _av() -> ModuleType:
    try:
        import av
    except ImportError as error:
        raise MissingPackage("av", "jepa_mpc.trajectories.formats.videos") from error
    av.logging.set_level(av.logging.PANIC)
    return av


@contextmanager
def _opened(path: Path, demuxer: str) -> Iterator[Any]:
    """An open container whose errors carry the file's name; only this one file is opened."""
    av = _av()
    options = {"protocol_whitelist": "file", "format_whitelist": FAMILIES[demuxer]}
    try:
        with av.open(f"file:{path.absolute()}", format=demuxer, options=options) as container:
            yield container
    except BadEpisode:
        raise
    except (av.FFmpegError, *DECODER_ERRORS) as error:
        raise fault(path, field="video", problem=f"cannot be decoded ({error})", remedy="restore the video") from error


def _pixels(frame: Any) -> np.ndarray:
    """An RGB frame `h w 3`, a view of the decoder's memory."""
    plane = frame.planes[0]
    rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)
    return rows[: frame.height, : 3 * frame.width].reshape(frame.height, frame.width, 3)


def _levels(frame: Any) -> np.ndarray:
    """A 12-bit greyscale frame `h w`, a view of the decoder's memory."""
    plane = frame.planes[0]
    rows = np.frombuffer(plane, "<u2").reshape(-1, plane.line_size // 2)
    return rows[: frame.height, : frame.width]


def _stream(container: Any, path: Path) -> Any:
    if not container.streams.video:
        raise fault(path, field="video", problem="holds no image stream", remedy="restore the video")
    stream = container.streams.video[0]
    stream.codec_context.thread_count = 1
    stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}  # frames may be larger than the container declares
    sound = 0 < stream.width <= MAX_SIDE and 0 < stream.height <= MAX_SIDE
    if not sound or stream.width * stream.height > MAX_PIXELS or not stream.time_base:
        problem = f"claims images of {stream.width} x {stream.height}"
        raise fault(path, field="video", problem=problem, remedy="restore the video")
    return stream
