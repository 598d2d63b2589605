"""The contact sheet: the final image of every lab, worst first."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from jepa_mpc.reporting.drawing import GREEN, INK, PAPER, RED, Picture, enlarge, label_strip

GAP = 8
FRAME = 3


@dataclass(frozen=True, kw_only=True)
class Tile:
    """End of one episode.

    Args:
        lab: Name of the lab.
        final: Last camera image, uint8 `h w 3`.
        goal: Goal image of the same camera.
        distance_m: Final distance; not finite after a diverged simulation.
        success: Whether the episode counts as solved.
        note: Additional caption text, such as "4/5".
    """

    lab: str
    final: Picture
    goal: Picture
    distance_m: float
    success: bool
    note: str = ""


def contact_sheet(tiles: Sequence[Tile], *, columns: int = 5, height: int = 112) -> Picture:
    """Final image beside goal image for each tile, worst first; green frames for successes, red for failures.

    Failures also have a cross and successes a tick, for readers with colour vision deficiency.

    Args:
        tiles: One per lab.
        columns: Tiles in a row.
        height: Height of each image in pixels.

    Raises:
        ValueError: If there are no tiles.
    """
    if not tiles:
        raise ValueError("a contact sheet needs at least one tile")
    ordered = sorted(tiles, key=lambda tile: (tile.success, -_rank(tile.distance_m)))
    drawn = [_draw(tile, height) for tile in ordered]
    wide, tall = max(tile.shape[1] for tile in drawn), max(tile.shape[0] for tile in drawn)
    columns = min(columns, len(drawn))
    rows = math.ceil(len(drawn) / columns)
    shape = (GAP + rows * (tall + GAP), GAP + columns * (wide + GAP), 3)
    sheet: Picture = np.full(shape, PAPER, dtype=np.uint8)
    for index, tile in enumerate(drawn):
        top, left = GAP + index // columns * (tall + GAP), GAP + index % columns * (wide + GAP)
        sheet[top : top + tile.shape[0], left : left + tile.shape[1]] = tile
    return sheet


def _draw(tile: Tile, height: int) -> Picture:
    """One tile: caption above, both images in a coloured frame below."""
    final, goal = enlarge(tile.final, height), enlarge(tile.goal, height)
    line: Picture = np.full((height, 2, 3), 255, dtype=np.uint8)
    pair = np.concatenate([final, line, goal], axis=1)
    colour = GREEN if tile.success else RED
    framed: Picture = np.full((height + 2 * FRAME, pair.shape[1] + 2 * FRAME, 3), colour, dtype=np.uint8)
    framed[FRAME:-FRAME, FRAME:-FRAME] = pair
    distance = f"{100 * tile.distance_m:.1f} cm" if math.isfinite(tile.distance_m) else "diverged"
    text = f"{tile.lab}  {tile.note}" if tile.note else tile.lab
    captioned = Image.fromarray(label_strip(framed, f"     {text}", distance, colour=INK if tile.success else RED))
    _mark(ImageDraw.Draw(captioned), tile.success)
    return np.asarray(captioned)


def _mark(draw: ImageDraw.ImageDraw, success: bool) -> None:
    """A tick or a cross at the left of the caption."""
    if success:
        draw.line([(5, 11), (8, 15), (14, 6)], fill=GREEN, width=2)
    else:
        draw.line([(5, 7), (13, 15)], fill=RED, width=2)
        draw.line([(5, 15), (13, 7)], fill=RED, width=2)


def _rank(distance_m: float) -> float:
    return distance_m if math.isfinite(distance_m) else math.inf
