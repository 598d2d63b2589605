"""Drawing on episode images: paths, marks, captions and a distance curve.

Images are uint8 arrays `h w 3` (RGB), points are `(x, y)` in pixels from the top left corner. No function modifies its
input image.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Picture = NDArray[np.uint8]
Colour = tuple[int, int, int]
Point = tuple[float, float]

PAPER: Colour = (251, 250, 247)
INK: Colour = (38, 43, 51)
FAINT: Colour = (138, 143, 152)
RULE: Colour = (222, 220, 213)
BLUE: Colour = (0, 114, 178)
GREEN: Colour = (0, 158, 115)
RED: Colour = (213, 94, 0)
YELLOW: Colour = (240, 228, 66)
DARK, SHOWN, LEAST_GAMMA = 70, 110, 0.3  # of 255: images below DARK are brightened to SHOWN
SMOOTHING = 4  # supersampling factor of lines, for antialiasing


def enlarge(image: Picture, height: int) -> Picture:
    """Scale an image to a height, keeping its shape; points scale by `height / image.shape[0]`."""
    check_picture(image)
    width = max(1, round(image.shape[1] * height / image.shape[0]))
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.LANCZOS))


def gamma_of(image: Picture) -> float:
    """The gamma exponent that brightens a nearly black image; 1 for any other.

        shown = 255 (value / 255)^gamma,   such that the 95th percentile becomes 110

    Args:
        image: An image of the scene, uint8 `h w 3`.
    """
    check_picture(image)
    bright = float(np.quantile(image.max(axis=2), 0.95))
    if bright >= DARK:
        return 1.0
    return max(LEAST_GAMMA, math.log(SHOWN / 255) / math.log(max(bright, 1.0) / 255))


def with_gamma(image: Picture, gamma: float) -> Picture:
    """Apply a gamma exponent: for viewers, never for an agent."""
    check_picture(image)
    if gamma == 1:
        return image
    return (255 * (np.arange(256) / 255) ** gamma).round().astype(np.uint8)[image]


def draw_path(
    image: Picture, points: Sequence[Point], *, colour: Colour = YELLOW, width: float = 2.0, end_alpha: float = 0.25
) -> Picture:
    """Draw a line through points, bold at the first and fading to `end_alpha` at the last, which gets a dot.

    Points that are not finite (behind the camera) break the line.
    """
    shade, halo = _canvas(image)  # a dark rim keeps the line visible on any background
    overlay, draw = _canvas(image)
    last = max(1, len(points) - 1)
    for index, (a, b) in enumerate(zip(points, points[1:], strict=False)):
        if all(map(math.isfinite, (*a, *b))):
            alpha = 1 - (1 - end_alpha) * index / last
            ends = [tuple(SMOOTHING * value for value in point) for point in (a, b)]
            halo.line(ends, fill=(*INK, round(130 * alpha)), width=round(SMOOTHING * (width + 2)))
            draw.line(ends, fill=(*colour, round(255 * alpha)), width=round(SMOOTHING * width))
            _dot(draw, b, radius=width / 2, fill=(*colour, round(255 * alpha)))
    if points and all(map(math.isfinite, points[-1])):
        _dot(draw, points[-1], radius=1.5 * width, fill=(*colour, 255))
    return _merge(_merge(image, shade), overlay)


def draw_crosshair(
    image: Picture, point: Point, *, colour: Colour = RED, radius: float = 6.0, width: float = 1.5
) -> Picture:
    """Mark a point by a ring and four ticks; a non-finite point leaves the image unchanged."""
    if not all(map(math.isfinite, point)):
        return image.copy()
    overlay, draw = _canvas(image)
    x, y = (SMOOTHING * value for value in point)
    ring, tick, line = SMOOTHING * radius, SMOOTHING * radius * 1.7, round(SMOOTHING * width)
    draw.ellipse((x - ring, y - ring, x + ring, y + ring), outline=(*colour, 255), width=line)
    for dx, dy in ((1, 0), (-1, 0), (0, 1), (0, -1)):
        inner, outer = 0.45 * ring, tick
        draw.line((x + dx * inner, y + dy * inner, x + dx * outer, y + dy * outer), fill=(*colour, 255), width=line)
    return _merge(image, overlay)


def label_strip(image: Picture, left: str, right: str = "", *, height: int = 22, colour: Colour = INK) -> Picture:
    """Add a strip above an image, with one text at the left and one at the right."""
    check_picture(image)
    strip = Image.new("RGB", (image.shape[1], height), PAPER)
    draw = ImageDraw.Draw(strip)
    font, middle = _font(round(height * 0.58)), height / 2
    draw.text((4, middle), left, fill=colour, font=font, anchor="lm")
    draw.text((image.shape[1] - 4, middle), right, fill=colour, font=font, anchor="rm")
    return np.concatenate([np.asarray(strip), image])


def sparkline(
    image: Picture, values: Sequence[float], *, total: int, threshold: float = 0.05, height: int = 44
) -> Picture:
    """Add a strip below an image with the distance curve so far.

    Args:
        image: The image.
        values: Distances in metres, the current one last; non-finite ones are skipped.
        total: Number of values of the whole episode, which sets the horizontal scale.
        threshold: Distance in metres that counts as success, drawn as a dashed line.
        height: Height of the strip in pixels.
    """
    check_picture(image)
    strip: Picture = np.full((height, image.shape[1], 3), PAPER, dtype=np.uint8)
    overlay, draw = _canvas(strip)
    room, margin = 86, 7
    right = image.shape[1] - room if image.shape[1] > 2 * room else image.shape[1] - margin
    known = [(index, value) for index, value in enumerate(values) if math.isfinite(value)]
    top = max([1.2 * threshold, *(value for _, value in known)])
    curve = [
        (margin + (right - margin) * index / max(1, total - 1), height - margin - (height - 2 * margin) * value / top)
        for index, value in known
    ]
    limit = height - margin - (height - 2 * margin) * threshold / top
    for x in range(margin, int(right), 6):
        draw.line([SMOOTHING * v for v in (x, limit, x + 3, limit)], fill=(*FAINT, 255), width=SMOOTHING)
    if curve:
        colour = GREEN if known[-1][1] <= threshold else BLUE
        draw.line([(SMOOTHING * x, SMOOTHING * y) for x, y in curve], fill=(*colour, 255), width=2 * SMOOTHING)
        _dot(draw, curve[-1], radius=3, fill=(*colour, 255))
    drawn = Image.fromarray(_merge(strip, overlay))
    if curve and right == image.shape[1] - room:
        words, end = ImageDraw.Draw(drawn), image.shape[1] - margin
        words.text((end, 7), "distance to goal", fill=FAINT, font=_font(10), anchor="rm")
        words.text((end, 22), f"{100 * known[-1][1]:.1f} cm", fill=colour, font=_font(17), anchor="rm")
        words.text(
            (end, height - 10), f"step {len(values) - 1} of {total - 1}", fill=FAINT, font=_font(11), anchor="rm"
        )
        words.text((right - 2, limit - 2), f"{100 * threshold:.0f} cm", fill=FAINT, font=_font(10), anchor="rb")
    return np.concatenate([image, np.asarray(drawn)])


def panels(named: Sequence[tuple[str, Picture]], *, height: int = 192, gap: int = 6) -> Picture:
    """Captioned images side by side, scaled to one height, with a margin.

    Raises:
        ValueError: If there is no image.
    """
    if not named:
        raise ValueError("need at least one image to set side by side")
    columns: list[Picture] = []
    tall: Picture = np.full((height + 22 + 2 * gap, gap, 3), PAPER, dtype=np.uint8)
    for caption, image in named:
        column = label_strip(enlarge(image, height), caption)
        columns += [tall, np.pad(column, ((gap, gap), (0, 0), (0, 0)), constant_values=0)]
        columns[-1][:gap], columns[-1][-gap:] = PAPER, PAPER
    return np.concatenate([*columns, tall], axis=1)


def check_picture(image: Any) -> None:
    """Require a uint8 image `h w 3`.

    Raises:
        ValueError: If it is something else; says what.
    """
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        found = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
        raise ValueError(f"expected a uint8 image of shape (h, w, 3), got {found}")


@lru_cache(maxsize=16)
def _font(size: int) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    return ImageFont.load_default(size)


def _canvas(image: Picture) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    """A transparent, enlarged layer over the image, for smooth lines."""
    check_picture(image)
    sheet = Image.new("RGBA", (SMOOTHING * image.shape[1], SMOOTHING * image.shape[0]), (0, 0, 0, 0))
    return sheet, ImageDraw.Draw(sheet)


def _merge(image: Picture, overlay: Image.Image) -> Picture:
    small = overlay.resize((image.shape[1], image.shape[0]), Image.Resampling.BOX)
    return np.asarray(Image.alpha_composite(Image.fromarray(image).convert("RGBA"), small).convert("RGB"))


def _dot(draw: ImageDraw.ImageDraw, point: Point, *, radius: float, fill: tuple[int, int, int, int]) -> None:
    x, y = (SMOOTHING * value for value in point)
    size = SMOOTHING * radius
    draw.ellipse((x - size, y - size, x + size, y + size), fill=fill)
