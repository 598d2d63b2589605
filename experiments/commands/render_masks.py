"""What a masked system hides: `python experiments/render_masks.py system=ijepa_small data=LOG "cameras=[left]"`.

Draws one sample of the log as the system sees it in training, a row for each way of hiding: what is seen stays clear,
each target block has a colour, and what is neither is dark. Clips show some of their times; sounds are drawn as
spectrograms, with time to the right; clouds as their points, each coloured as the group it is nearest to.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path

import hydra
import torch
from matplotlib.figure import Figure
from omegaconf import DictConfig, OmegaConf
from PIL import Image
from torch import Tensor

from jepa_mpc.encoders.levels import TokenPyramid
from jepa_mpc.encoders.points import CloudTokens
from jepa_mpc.encoders.video import AllLevels, VideoTransformer
from jepa_mpc.errors import BadEpisode, MissingPackage, UnknownName
from jepa_mpc.places import CONFIGS
from jepa_mpc.seeding import generator
from jepa_mpc.trajectories.bank import load_bank
from jepa_mpc.types import Masks
from jepa_mpc.world_model.checkpoints.assembly import assemble
from jepa_mpc.world_model.parts.objectives.masked import MaskedObjective, Stream

MISTAKES = (BadEpisode, MissingPackage, UnknownName, ValueError, OSError)
DARK, SEEN = -1, 0
COLOURS = ("#e07b28", "#3d85c6", "#b45bb0", "#2fa39b", "#d9b92f", "#c0504d", "#7f7fd0", "#8aa84f", "#b07d62", "#6c8ea0")
MOST_TIMES = 4
"""Moments of a clip that are drawn."""


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One picture or cloud, and what is hidden of it.

    Args:
        title: What stands above it.
        what: What becomes of each token: `DARK`, `SEEN`, or the number of its target block from 1; `rows columns` of a
            picture, `N` of a cloud.
        picture: Grey levels or colours `h w 3` from 0 to 1; None for a cloud.
        points: Points `G 3` of a cloud, m.
        centres: Centres of its groups `N 3`.
    """

    title: str
    what: Tensor
    picture: Tensor | None = None
    points: Tensor | None = None
    centres: Tensor | None = None


def panels(objective: MaskedObjective, batch: dict[str, Tensor], stream_of: torch.Generator) -> list[list[Panel]]:
    """A row of panels for each way of hiding, of the first sample of a batch.

    Raises:
        ValueError: If the batch holds nothing that the system takes.
    """
    rows = []
    for stream in objective.inputs:
        if not stream.finds(batch):
            continue
        x = stream.take(batch, stream_of)
        for task in stream.tasks:
            masks = stream.hide(task, x, stream_of)
            rows.append(
                [_cloud_panel(task.name, batch[stream.key], x, masks)]
                if isinstance(x, CloudTokens)
                else _picture_panels(objective, stream, task.name, x, masks)
            )
    if not rows:
        wanted = ", ".join(stream.key for stream in objective.inputs)
        raise ValueError(f"the system masks {wanted}, and the log holds {', '.join(batch)}")
    return rows


def _picture_panels(objective: MaskedObjective, stream: Stream, name: str, x: Tensor, masks: Masks) -> list[Panel]:
    """Panels of a clip, picture or spectrogram `B (T) C h w`, prepared as the encoder takes it."""
    clip = (x[:, None] if x.dim() == 4 else x)[0]  # (T, C, h, w)
    encoder = objective.encoder.encoder if isinstance(objective.encoder, AllLevels) else objective.encoder
    assert isinstance(encoder, VideoTransformer)
    times, rows, columns = encoder.grid(max(len(clip), encoder.sizes.tubelet), *clip.shape[-2:])
    pyramid = next((part for part in objective.target.modules() if isinstance(part, TokenPyramid)), None)
    what = _told(masks, times * rows * columns, pyramid).view(times, rows, columns)
    low, high = clip.amin(), clip.amax()
    shown = ((clip - low) / (high - low).clamp_min(1e-6)).expand(-1, 3, -1, -1).permute(0, 2, 3, 1)  # (T, h, w, 3)
    sideways = clip.shape[1] == 1  # a spectrogram: time to the right, low tones at the bottom
    found = []
    for time in torch.linspace(0, times - 1, min(times, MOST_TIMES)).round().int().tolist():
        picture, hidden = shown[min(time * encoder.sizes.tubelet, len(clip) - 1)], what[time]
        if sideways:
            picture, hidden = picture.transpose(0, 1).flip(0), hidden.T.flip(0)
        found.append(Panel(title=name if times == 1 else f"{name}, time {time}", what=hidden, picture=picture))
    return found


def _told(masks: Masks, count: int, pyramid: TokenPyramid | None) -> Tensor:
    """What becomes of each of the finest tokens."""
    what = torch.full((count,), DARK)
    what[masks.context[0]] = SEEN
    for number, block in enumerate(masks.targets[0], start=1):
        if pyramid is None:
            what[block] = number
            continue
        level = int(pyramid.level_of()[block[0]])
        what[torch.isin(pyramid.cells(level), block - pyramid.starts[level])] = number
    return what


def _cloud_panel(name: str, clouds: Tensor, x: CloudTokens, masks: Masks) -> Panel:
    what = _told(masks, x.centres.shape[1], None)
    return Panel(title=name, what=what, points=clouds[0, 0], centres=x.centres[0].detach())


def draw(rows: list[list[Panel]], path: Path) -> None:
    """Write the rows as one picture of few colours."""
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
        drawn.convert("RGB").quantize(96).save(path, optimize=True)


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
    """Colours with opacity `... 4`."""
    rgb = [[int(code[at : at + 2], 16) / 255 for at in (1, 3, 5)] for code in COLOURS]
    table = torch.tensor([[0.0, 0.0, 0.0, 0.7], [0.0, 0.0, 0.0, 0.0], *([*colour, 0.6] for colour in rgb)])
    return table[torch.where(what > 0, (what - 1) % len(COLOURS) + 2, what + 1)]


def render(cfg: DictConfig) -> Path:
    """Draw a sample and return the picture's path.

    Raises:
        ValueError: If the system hides nothing, or the log holds nothing that it takes.
    """
    objective = assemble(
        OmegaConf.to_container(cfg.system, resolve=True), generator=generator(int(cfg.seed), "weights")
    )
    if not isinstance(objective, MaskedObjective):
        raise ValueError(f"a {type(objective).__name__} hides no tokens: take a masked system (ijepa_small, ...)")
    bank = replace(load_bank(Path(cfg.data), cameras=cfg.cameras), skip=int(cfg.skip))
    batch = bank.sample(2, int(cfg.window), generator=generator(int(cfg.seed), "sample"))
    rows = panels(objective.eval(), batch, generator(int(cfg.seed), "masks"))
    path = Path(cfg.out)
    path.parent.mkdir(parents=True, exist_ok=True)
    draw(rows, path)
    return path


@hydra.main(version_base=None, config_path=str(CONFIGS), config_name="render_masks")
def main(cfg: DictConfig) -> None:
    """Draw, and say where the picture lies."""
    try:
        print(f"masks: {render(cfg)}")
    except MISTAKES as mistake:
        sys.exit(f"render_masks: {mistake}")
