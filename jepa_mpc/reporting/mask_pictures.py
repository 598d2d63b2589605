"""Images of masks: visible tokens stay clear, each target block has a colour, the rest is dark."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from matplotlib.figure import Figure
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

DARK, SEEN = -1, 0
COLOURS = ("#e07b28", "#3d85c6", "#b45bb0", "#2fa39b", "#d9b92f", "#c0504d", "#7f7fd0", "#8aa84f", "#b07d62", "#6c8ea0")
SOFTWARE = "jepa-mpc render_masks"  # marks its files


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One image or cloud with its masks.

    Args:
        title: Its title.
        what: Class of each token: `DARK`, `SEEN`, or the index of its target block from 1; `rows columns` for an image,
            `N` for a cloud.
        picture: Grey levels or colours `h w 3` from 0 to 1; None for a cloud.
        points: Points `G 3` of a cloud, m.
        centres: Centres of its groups `N 3`.
    """

    title: str
    what: Tensor
    picture: Tensor | None = None
    points: Tensor | None = None
    centres: Tensor | None = None


def draw(rows: list[list[Panel]], path: Path) -> None:
    """Write the rows as one image with a small palette."""
    across = max(map(len, rows))
    widest = max((panel.picture.shape[1] / panel.picture.shape[0] for row in rows for panel in row
                  if panel.picture is not None), default=1.5)  # fmt: skip
    figure = Figure(figsize=(1.7 * across * widest, 1.9 * len(rows)), layout="constrained")
    for at, row in enumerate(rows):
        for column, panel in enumerate(row):
            place = (len(rows), across, at * across + column + 1)
            if panel.picture is None:
                _draw_cloud(figure, place, panel)
            else:
                _draw_picture(figure, place, panel)
    figure.savefig(path, dpi=100)
    with Image.open(path) as drawn:
        mark = PngInfo()
        mark.add_text("Software", SOFTWARE)
        drawn.convert("RGB").quantize(96).save(path, optimize=True, pnginfo=mark)


def is_drawn(path: Path) -> bool:
    """Whether a file is an image that `draw` has made."""
    try:
        with Image.open(path, formats=["PNG"]) as image:
            return image.info.get("Software") == SOFTWARE
    except (OSError, SyntaxError, ValueError):
        return False


def _draw_picture(figure: Figure, place: tuple[int, int, int], panel: Panel) -> None:
    assert panel.picture is not None
    axes = figure.add_subplot(*place)
    height, width = panel.picture.shape[:2]
    extent = (0.0, float(width), float(height), 0.0)
    axes.imshow(panel.picture.numpy(), extent=extent, interpolation="nearest")
    axes.imshow(_coloured(panel.what).numpy(), extent=extent, interpolation="nearest")
    axes.set_title(panel.title, fontsize=8)
    axes.axis("off")


def _draw_cloud(figure: Figure, place: tuple[int, int, int], panel: Panel) -> None:
    assert panel.points is not None and panel.centres is not None
    axes = figure.add_subplot(*place, projection="3d")
    centres = panel.centres - panel.centres.mean(0)
    points = panel.points - panel.points.mean(0)
    points, centres = points / points.norm(dim=1).amax(), centres / centres.norm(dim=1).amax()
    what = panel.what[torch.cdist(points, centres).argmin(dim=1)]
    colours = _coloured(what).clamp_max(1.0)
    colours[what == SEEN] = torch.tensor([0.55, 0.55, 0.55, 1.0])
    colours[what == DARK, 3] = 0.15
    axes.scatter(*panel.points.T.numpy(), c=colours.numpy(), s=3, linewidths=0)
    axes.set_title(panel.title, fontsize=8)
    axes.set_axis_off()
    axes.set_box_aspect(tuple((panel.points.amax(0) - panel.points.amin(0)).clamp_min(1e-3).tolist()))


def _coloured(what: Tensor) -> Tensor:
    """RGBA colours `... 4`."""
    rgb = [[int(code[at : at + 2], 16) / 255 for at in (1, 3, 5)] for code in COLOURS]
    table = torch.tensor([[0.0, 0.0, 0.0, 0.7], [0.0, 0.0, 0.0, 0.0], *([*colour, 0.6] for colour in rgb)])
    return table[torch.where(what > 0, (what - 1) % len(COLOURS) + 2, what + 1)]
