"""Panels of what a masked system sees of a sample and what it has to predict."""

from __future__ import annotations

import torch
from torch import Tensor

from jepa_mpc.encoders.levels import TokenPyramid
from jepa_mpc.encoders.points import CloudTokens
from jepa_mpc.encoders.video import AllLevels, VideoTransformer
from jepa_mpc.reporting.mask_pictures import DARK, SEEN, Panel
from jepa_mpc.types import Masks
from jepa_mpc.world_model.parts.objectives.masked import MaskedObjective, Stream

MOST_TIMES = 4
"""Number of frames drawn of a clip."""


def panels(objective: MaskedObjective, batch: dict[str, Tensor], stream_of: torch.Generator) -> list[list[Panel]]:
    """A row of panels for each masking scheme, for the first sample of a batch.

    Raises:
        ValueError: If the batch lacks the system's inputs.
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
        raise ValueError(f"the system masks {wanted}, but the log holds {', '.join(batch)}")
    return rows


def _picture_panels(objective: MaskedObjective, stream: Stream, name: str, x: Tensor, masks: Masks) -> list[Panel]:
    """Panels of a clip, image or spectrogram `B (T) C h w`, prepared as the encoder's input."""
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
    """Class of each of the finest tokens: dark, seen, or its target block."""
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
