"""End-point errors of a flow, compared with those of zero flow."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from jepa_mpc.experiments.evaluation.optical_flow.frame_pairs import CAMERAS, FlowPairs

FlowOf = Callable[[Tensor, Tensor], Tensor]
Scores = dict[str, dict[str, float]]
CHUNK = 64
ALL = "all"


@torch.no_grad()
def flows_of(flow: FlowOf, pairs: FlowPairs) -> Tensor:
    """The predicted flow of every pair `G 2 h w`."""
    return torch.cat([flow(*frames.unbind(1)) for frames in pairs.frames.split(CHUNK)])


def judge(answers: Tensor, pairs: FlowPairs) -> Scores:
    """Mean end-point errors in pixels over the pixels visible in both frames, and their ratio to the zero flow's.

    Args:
        answers: Flows `G 2 h w`.
        pairs: The exact flow.

    Returns:
        For all pairs, for those with a fixed and for those with a moved camera: `zero_px` (error of the zero flow),
        `error_px`, `ratio`; the same on `moving` pixels; and `still_px`, the error on the others.
    """
    error, size = ((answers - pairs.flow).norm(dim=1, keepdim=True), pairs.flow.norm(dim=1, keepdim=True))
    groups = {ALL: torch.ones_like(pairs.camera, dtype=torch.bool)}
    groups |= {name: pairs.camera == place for place, name in enumerate(CAMERAS)}
    return {name: _scores(error[at], size[at], pairs.valid[at], pairs.moving[at]) for name, at in groups.items()}


def _scores(error: Tensor, size: Tensor, valid: Tensor, moving: Tensor) -> dict[str, float]:
    on_all, on_moving = valid, valid & moving
    zero, zero_moving = float(size[on_all].mean()), float(size[on_moving].mean())
    own, own_moving = float(error[on_all].mean()), float(error[on_moving].mean())
    return {
        "zero_px": zero,
        "error_px": own,
        "ratio": own / zero,
        "zero_moving_px": zero_moving,
        "error_moving_px": own_moving,
        "ratio_moving": own_moving / zero_moving,
        "still_px": float(error[valid & ~moving].mean()),
        "share_moving": float(on_moving.sum() / on_all.sum()),
    }
