"""Films in and out through PyAV: frames by number, from any container, on one thread.

The times of all frames are read once per file; a window is then one seek to the last key frame and a short decode.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import numpy as np

from jepa_mpc.errors import BadEpisode, MissingPackage
from jepa_mpc.files import atomic_file
from jepa_mpc.trajectories.formats.base import MAX_SIDE, fault

Codec = Literal["h264", "av1", "h264_lossless"]
ENCODERS: dict[str, tuple[str, str, dict[str, str]]] = {
    "h264": ("libx264", "yuv420p", {"crf": "18", "g": "2", "preset": "veryfast"}),
    "av1": ("libsvtav1", "yuv420p", {"crf": "30", "g": "2", "preset": "10"}),
    "h264_lossless": ("libx264rgb", "rgb24", {"qp": "0", "g": "10", "preset": "veryfast"}),
}


class VideoFile:
    """The frames of one film by number.

    Args:
        path: An mp4 or any other container that FFmpeg reads.

    Raises:
        BadEpisode: If it holds no film or is damaged.
        MissingPackage: If PyAV is not installed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        _check_boxes(path)
        with _opened(path) as container:
            stream = _stream(container, path)
            self.size = (int(stream.height), int(stream.width))
            self.fps = float(stream.average_rate or 0)
            self._base = float(stream.time_base)
            packets = [(packet.pts, packet.is_keyframe) for packet in container.demux(stream) if packet.pts is not None]
        if not packets or not all(0 < side <= MAX_SIDE for side in self.size):
            raise fault(path, field="video", problem=f"has {len(packets)} frames of {self.size}", remedy="restore it")
        self._pts = np.array(sorted(pts for pts, _ in packets), dtype=np.int64)
        self._keys = np.array(sorted(pts for pts, key in packets if key), dtype=np.int64)
        if len(np.unique(self._pts)) != len(self._pts):
            raise fault(path, field="video", problem="has two frames at one time", remedy="encode it anew")

    def __len__(self) -> int:
        return len(self._pts)

    @property
    def times_s(self) -> np.ndarray:
        """When each frame is shown, s from the first one."""
        return (self._pts - self._pts[0]) * self._base

    def number_at(self, time_s: float) -> int:
        """The frame that is shown nearest to a time."""
        return int(np.abs(self.times_s - time_s).argmin())

    def read(self, start: int, stop: int) -> np.ndarray:
        """Frames start..stop-1, uint8 `T h w 3`.

        Raises:
            BadEpisode: If the film is shorter or a frame cannot be decoded.
        """
        if not 0 <= start < stop <= len(self):
            problem = f"has {len(self)} frames, but frames {start}..{stop - 1} belong to the episode"
            raise fault(self.path, field="video", problem=problem, remedy="restore the film or the table beside it")
        frames = np.empty((stop - start, *self.size, 3), dtype=np.uint8)
        convert = _av().video.reformatter.VideoReformatter()  # one for all: making one costs as much as a small frame
        found = 0
        with _opened(self.path) as container:
            stream = _stream(container, self.path)
            before = self._keys[self._keys <= self._pts[start]]
            if len(before) and before[-1] > self._pts[0]:
                container.seek(int(before[-1]), stream=stream, backward=True)
            for frame in container.decode(stream):
                if frame.pts != self._pts[start + found]:
                    continue
                if (frame.height, frame.width) != self.size:
                    raise fault(self.path, field="video", problem="changes its picture size in mid-film")
                frames[found] = _pixels(convert.reformat(frame, format="rgb24"))
                found += 1
                if found == len(frames):
                    return frames
        problem = f"cannot be decoded at frame {start + found}"
        raise fault(self.path, field="video", problem=problem, remedy="restore the film")


class VideoEncoder:
    """Writes one film frame by frame; used as a context manager, the film appears whole or not at all.

    Args:
        path: Where the film shall stand.
        fps: Frames per second.
        codec: `h264` and `av1` lose a little, `h264_lossless` keeps every bit.
    """

    def __init__(self, path: Path, *, fps: float, codec: Codec = "h264") -> None:
        if codec not in ENCODERS:
            raise ValueError(f"unknown codec {codec!r}; known: {', '.join(ENCODERS)}")
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
        """Append frames, uint8 `h w 3` each.

        Raises:
            ValueError: If the sides are odd and the codec halves colours (all but `h264_lossless`).
        """
        av = _av()
        for picture in frames:
            if self._container is None:
                self._open(av, picture.shape)
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            frame.pts = self.count
            self._container.mux(self._stream.encode(frame))
            self.count += 1

    def written_bytes(self) -> int:
        """Size of the film so far."""
        return self._draft.stat().st_size if self._draft.exists() else 0

    def _open(self, av: ModuleType, shape: Sequence[int]) -> None:
        encoder, pixels, options = ENCODERS[self.codec]
        if pixels == "yuv420p" and (shape[0] % 2 or shape[1] % 2):
            raise ValueError(f"{self.codec} needs even sides, got {shape[0]} x {shape[1]}: use image frames instead")
        os.environ.setdefault("SVT_LOG", "1")  # the AV1 encoder else tells its settings on stderr
        self._container = av.open(str(self._draft), "w")
        stream = self._container.add_stream(encoder, rate=Fraction(self.fps).limit_denominator(10_000))
        stream.height, stream.width, stream.pix_fmt, stream.options = shape[0], shape[1], pixels, options
        stream.codec_context.thread_count = 1
        self._stream = stream


def _check_boxes(path: Path) -> None:
    """Refuse an mp4 that ends inside of one of its outermost boxes: decoders pass over some of these cuts."""
    if path.suffix not in (".mp4", ".mov") or not path.exists():
        return
    total, at = path.stat().st_size, 0
    with path.open("rb") as file:
        while at < total:
            file.seek(at)
            head = file.read(16)
            size = int.from_bytes(head[:4], "big") if len(head) >= 8 else -1
            size = int.from_bytes(head[8:16], "big") if size == 1 else total - at if size == 0 else size
            if size < 8 or at + size > total:
                raise fault(path, field="video", problem=f"is cut short or damaged at byte {at}", remedy="restore it")
            at += size
    if total == 0:
        raise fault(path, field="video", problem="is empty", remedy="restore the film")


def _av() -> ModuleType:
    try:
        import av
    except ImportError as error:
        raise MissingPackage("av", "jepa_mpc.trajectories.formats.videos") from error
    av.logging.set_level(av.logging.PANIC)
    return av


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """A container whose troubles are told with the file's name."""
    av = _av()
    try:
        with av.open(str(path)) as container:
            yield container
    except BadEpisode:
        raise
    except FileNotFoundError as error:
        raise fault(path, field="video", problem=f"is missing in {path.parent}", remedy="restore it") from error
    except (av.FFmpegError, OSError, ValueError, EOFError, MemoryError, OverflowError, TypeError) as error:
        raise fault(path, field="video", problem=f"cannot be decoded ({error})", remedy="restore the film") from error


def _pixels(frame: Any) -> np.ndarray:
    """An RGB frame `h w 3`, seen where the decoder left it."""
    plane = frame.planes[0]
    rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)
    return rows[: frame.height, : 3 * frame.width].reshape(frame.height, frame.width, 3)


def _stream(container: Any, path: Path) -> Any:
    if not container.streams.video:
        raise fault(path, field="video", problem="holds no picture stream", remedy="restore the film")
    stream = container.streams.video[0]
    stream.codec_context.thread_count = 1
    if not (0 < stream.width <= MAX_SIDE and 0 < stream.height <= MAX_SIDE) or not stream.time_base:
        problem = f"claims pictures of {stream.width} x {stream.height}"
        raise fault(path, field="video", problem=problem, remedy="restore the film")
    return stream
