"""Videos and images of episodes: frames to mp4, gif or png; also exports the functions of `drawing`.

Images are uint8 arrays `h w 3` (RGB). Every file is written atomically.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType, TracebackType

import numpy as np
from PIL import Image

from jepa_mpc.errors import MissingPackage
from jepa_mpc.files import atomic_file
from jepa_mpc.reporting.drawing import (
    Picture,
    check_picture,
    draw_crosshair,
    draw_path,
    enlarge,
    label_strip,
    panels,
    sparkline,
)

__all__ = [
    "Picture",
    "VideoWriter",
    "draw_crosshair",
    "draw_path",
    "enlarge",
    "label_strip",
    "panels",
    "save_gif",
    "save_picture",
    "save_video",
    "sparkline",
]


class VideoWriter:
    """Writes an mp4 (H.264, plays in any browser) that appears at `path` only when complete.

    A context manager: leaving the block publishes the video, an error in it leaves nothing behind. The size is that of
    the first frame; odd sizes are padded by repeating the last row or column.

    Args:
        path: Destination, with the suffix `.mp4`.
        fps: Frames per second.
        quality: 0 (small file) to 10 (high quality).

    Raises:
        ValueError: If the suffix or the frame rate is invalid.
    """

    def __init__(self, path: Path | str, fps: float, *, quality: float = 7.0) -> None:
        if Path(path).suffix != ".mp4" or not fps > 0:
            raise ValueError(f"need a path that ends in .mp4 and fps > 0, got {str(path)!r} and {fps}")
        self.path = Path(path)
        self.fps = fps
        self.quality = quality
        self._shape: tuple[int, ...] | None = None
        self._count = 0
        self._sink: Generator[None, bytes | None, None] | None = None
        self._draft = self.path
        self._stack = ExitStack()

    def __enter__(self) -> VideoWriter:
        self._stack.__enter__()
        self._draft = self._stack.enter_context(atomic_file(self.path))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._finish(failed=error is not None)
        except BaseException as problem:
            self._stack.__exit__(type(problem), problem, problem.__traceback__)
            raise
        self._stack.__exit__(kind, error, trace)

    def write(self, frame: Picture) -> None:
        """Append one frame.

        Raises:
            ValueError: If the frame is not a uint8 image `h w 3` or differs in size from the first.
            OSError: If the encoder fails, for instance because the disk is full.
        """
        check_picture(frame)
        if self._shape is None:
            self._shape = frame.shape
        if frame.shape != self._shape:
            raise ValueError(f"all frames of a video need the same size: expected {self._shape}, got {frame.shape}")
        even = np.pad(frame, ((0, frame.shape[0] % 2), (0, frame.shape[1] % 2), (0, 0)), mode="edge")
        if self._sink is None:
            self._sink = self._open(even)
        self._sink.send(np.ascontiguousarray(even).tobytes())
        self._count += 1

    def _open(self, first: Picture) -> Generator[None, bytes | None, None]:
        sink: Generator[None, bytes | None, None] = _encoder().write_frames(
            str(self._draft),
            (first.shape[1], first.shape[0]),
            fps=self.fps,
            quality=self.quality,
            codec="libx264",
            macro_block_size=1,
            ffmpeg_log_level="error",
            output_params=["-movflags", "+faststart", "-threads", "1"],
        )
        sink.send(None)
        return sink

    def _finish(self, *, failed: bool) -> None:
        """Close the encoder; unless the block failed, verify that the video holds every frame."""
        if self._sink is not None:
            self._sink.close()
        if failed:
            return
        if self._count == 0:
            raise ValueError(f"no frame was written to {self.path}")
        try:
            found, _ = _encoder().count_frames_and_secs(str(self._draft))
        except RuntimeError as error:
            raise OSError(f"{self.path} could not be written; is the disk full?") from error
        if found != self._count:
            raise OSError(f"{self.path} holds {found} of {self._count} frames; is the disk full?")


def save_video(frames: Sequence[Picture], path: Path | str, *, fps: float) -> None:
    """Write a whole video at once (see `VideoWriter`)."""
    with VideoWriter(path, fps) as video:
        for frame in frames:
            video.write(frame)


def save_gif(frames: Sequence[Picture], path: Path | str, *, fps: float, width: int | None = None) -> None:
    """Write a looping gif with one palette for all frames, which keeps it small and free of flicker.

    Args:
        frames: The frames.
        path: Destination.
        fps: Frames per second.
        width: Width in pixels to scale to, or None to keep the size.

    Raises:
        ValueError: If there are no frames.
    """
    if not len(frames):
        raise ValueError(f"no frame was given for {path}")
    for frame in frames:
        check_picture(frame)
    images = [Image.fromarray(frame) for frame in frames]
    if width is not None:
        size = (width, max(1, round(images[0].height * width / images[0].width)))
        images = [image.resize(size, Image.Resampling.LANCZOS) for image in images]
    sample = np.concatenate([np.asarray(image) for image in images[:: max(1, len(images) // 8)]])
    palette = Image.fromarray(sample).quantize(256)
    still = [image.quantize(palette=palette, dither=Image.Dither.NONE) for image in images]
    with atomic_file(path) as draft:
        still[0].save(
            draft,
            format="GIF",
            save_all=True,
            append_images=still[1:],
            duration=round(1000 / fps),
            loop=0,
            optimize=True,
        )


def save_picture(image: Picture, path: Path | str) -> None:
    """Write one image atomically; the suffix selects the format."""
    check_picture(image)
    with atomic_file(path) as draft:
        Image.fromarray(image).save(draft)


def _encoder() -> ModuleType:
    try:
        import imageio_ffmpeg
    except ImportError as error:
        raise MissingPackage("imageio-ffmpeg", "jepa_mpc.reporting.video") from error
    return imageio_ffmpeg
