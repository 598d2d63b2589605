"""Figures of optical flow: hue is the direction, saturation the length, white is no motion."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from matplotlib.colors import hsv_to_rgb
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from jepa_mpc.experiments.evaluation.optical_flow.frame_pairs import CAMERAS, FlowPairs
from jepa_mpc.reporting.saving import save_figure
from jepa_mpc.world_model.parts.flow import warp

TITLES = ("first frame", "second frame", "second, warped", "exact flow", "flow", "error")
WHEEL = 65


def colours(flow: NDArray[np.float64], longest: float) -> NDArray[np.float64]:
    """Colours `h w 3` of a flow `2 h w`; `longest` (pixels) is fully saturated."""
    angle = np.arctan2(flow[1], flow[0]) / (2 * np.pi) % 1
    strength = np.clip(np.hypot(flow[0], flow[1]) / longest, 0, 1)
    return hsv_to_rgb(np.stack([angle, strength, np.ones_like(angle)], axis=-1))


def choose_pairs(pairs: FlowPairs, count: int) -> list[int]:
    """Pairs to show, the same for every network: the first ones of the labs, alternating between the camera kinds."""
    kinds = [torch.nonzero(pairs.camera == kind).flatten() for kind in range(len(CAMERAS))]
    chosen = []
    for number in range(count):
        places = kinds[number % len(kinds)]
        chosen.append(int(places[(number // len(kinds)) * (len(places) // max(count // len(kinds), 1))]))
    return chosen


def draw(pairs: FlowPairs, answers: Tensor, shown: list[int], path: Path) -> None:
    """One row per pair: both frames, the second one warped, exact flow, flow, and the error in pixels."""
    figure = Figure(figsize=(1.55 * len(TITLES), 1.6 * len(shown) + 0.9), layout="constrained")
    rows = figure.subplots(len(shown), len(TITLES), squeeze=False)
    for axes, number in zip(rows, shown, strict=True):
        first, second = (pairs.frames[number].float() / 255).unbind(0)
        truth, answer = pairs.flow[number], answers[number]
        rebuilt = warp(second[None], answer[None])[0]
        longest = max(float((truth * pairs.valid[number]).norm(dim=0).max()), 1.0)
        shown_flows = [colours(flow.double().numpy(), longest) for flow in (truth, answer)]
        error = torch.where(pairs.valid[number, 0], (answer - truth).norm(dim=0), torch.nan)
        for place, picture in enumerate(
            [*(x.permute(1, 2, 0).numpy() for x in (first, second, rebuilt)), *shown_flows]
        ):
            axes[place].imshow(picture)
        axes[-1].imshow(error.numpy(), cmap="magma", vmin=0, vmax=longest)
        axes[0].set_ylabel(f"{CAMERAS[int(pairs.camera[number])]} camera", fontsize=8)
        axes[3].set_xlabel(f"up to {longest:.1f} px", fontsize=7)
    for axes, title in zip(rows[0], TITLES, strict=True):
        axes.set_title(title, fontsize=9)
    for axes in rows.flat:
        axes.set(xticks=[], yticks=[])
        axes.set_facecolor("#888888")
    _add_wheel(rows[0][4])
    save_figure(figure, path, dpi=110)


def _add_wheel(axes: object) -> None:
    """A small legend in the corner: the colour of every direction."""
    inset = axes.inset_axes((0.7, 0.7, 0.28, 0.28))  # type: ignore[attr-defined]
    line = np.linspace(-1, 1, WHEEL)
    across, down = np.meshgrid(line, line)
    picture = colours(np.stack([across, down]), 1.0)
    picture[np.hypot(across, down) > 1] = 1.0
    inset.imshow(picture)
    inset.set_axis_off()
