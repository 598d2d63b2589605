"""The roll-out loss of V-JEPA 2-AC: predictions are fed back, with true poses and actions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from jepa_mpc.world_model.parts.objectives.dynamics import Course

Fed = Literal["first", "second"]


@dataclass(frozen=True, kw_only=True)
class Autoregression:
    """Feeds predictions back, with the true poses, and compares all of them with the targets.

        z_1 = teacher-forced prediction of frame 1;   z_k+1 = g(h_0, z_1, ..., z_k; a_0..k, s_0..k)
        loss = distance([z_1 .. z_steps], [h_1 .. h_steps])

    Args:
        weight: Weight of the loss.
        steps: Number of compared predictions; 2 means that one prediction is fed back.
        fed: Which teacher-forced prediction is fed back for frame 1. "first" is the prediction of that frame. "second"
            is the one after it, as in the authors' trainer until June 2025; the released weights were probably trained
            this way.

    Raises:
        ValueError: If there are fewer than two steps, or `fed` is unknown.

    Reference: Assran et al. 2025, arXiv:2506.09985, section 3.1.
    """

    weight: float = 1.0
    steps: int = 2
    fed: Fed = "first"

    def __post_init__(self) -> None:
        if self.steps < 2 or self.fed not in get_args(Fed):
            raise ValueError(f"need steps >= 2 and fed 'first' or 'second', got {self.steps} and {self.fed!r}")

    def __call__(self, course: Course) -> Tensor:
        """Distance of the fed-back predictions from the targets.

        Raises:
            ValueError: If the windows are too short.
        """
        return course.distance(self.fed_back(course), course.targets[:, 1 : self.steps + 1])

    def fed_back(self, course: Course) -> Tensor:
        """The predictions `B steps N D`.

        Raises:
            ValueError: If the windows are too short.
        """
        count = course.actions.shape[1]
        if count < self.steps:
            raise ValueError(f"{self.steps} steps need windows of {self.steps + 1} observations, got {count + 1}")
        begin = 0 if self.fed == "first" else 1
        frames = torch.cat([course.latents[:, :1], course.predicted[:, begin : begin + 1]], dim=1)
        for step in range(2, self.steps + 1):
            poses = None if course.proprio is None else course.proprio[:, :step]
            newest = course.predictor.predict(frames, course.actions[:, :step], poses)[0][:, -1:]
            frames = torch.cat([frames, newest], dim=1)
        return frames[:, 1:]
