"""Points of the picture that move as the hand moves, learned without a label and without a calibrated camera.

    u_t = W_t^-1 point(W_t(picture_t));     loss = share of u_1..u_T's scatter that no camera explains by x_1..x_T

Every picture of a window is shifted, scaled and turned by a map W_t of its own and the point found in it is mapped
back, so only a point that is tied to something in the picture follows; and only what is fixed to the hand follows the
hand's measured motion through *one* projective camera, whichever that is.  The camera is solved for in closed form:

    u_x (1 + b . x) = a . x + c,     u_y (1 + b . x) = d . x + e          (direct linear transform, ridge on b)

The share of the points' scatter that is left is the loss: 1 for a point that knows nothing of the hand.

Reference for the camera: Hartley and Zisserman, Multiple View Geometry, 2nd ed., section 7.1.
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Generator, Tensor, nn

from core.interfaces import Batch
from core.shapes import check_shape
from core.types import Loss
from encoders.hand_points import HandPoints
from world_model.augment import CHANNELS_PER_CAMERA, Augmentation, ViewJitter
from world_model.objectives.dynamics import total_of

UNIT_M = 0.1
FEWEST = 8  # frames that a camera of eleven numbers, most of them held by a ridge, can be told from
LEAST_SCATTER = 1e-4
RIDGE = (1e-2, 1e-2, 1e-2, 1e-4)
RIDGE_TILT = 2.0


def unexplained(points: Annotated[Tensor, "B T 2"], places: Annotated[Tensor, "B T 3"]) -> Annotated[Tensor, "B"]:
    """The share `B`, from 0 to about 1, of the points' scatter that no projective camera explains by the places.

    Args:
        points: In the picture, any scale.
        places: Of the hand (m).
    """
    count = points.shape[1]
    where = (places - places.mean(dim=1, keepdim=True)) / UNIT_M
    known = torch.cat([where, torch.ones_like(where[..., :1])], dim=-1)
    centred = points - points.mean(dim=1, keepdim=True)
    scatter = centred.square().sum(dim=(1, 2)) / count
    scaled = centred / scatter.clamp_min(LEAST_SCATTER).sqrt()[:, None, None]
    none = torch.zeros_like(known)
    across = torch.cat([known, none, -scaled[..., :1] * where], dim=-1)
    down = torch.cat([none, known, -scaled[..., 1:] * where], dim=-1)
    system = torch.cat([across, down], dim=1)
    wanted = torch.cat([scaled[..., 0], scaled[..., 1]], dim=1)[..., None]
    ridge = torch.tensor([*RIDGE, *RIDGE, *3 * (RIDGE_TILT,)], dtype=points.dtype, device=points.device)
    turned = system.transpose(-1, -2)
    camera = torch.linalg.solve(turned @ system + torch.diag(ridge), turned @ wanted)
    left = (system @ camera - wanted).square().sum(dim=(1, 2))
    return left / (scaled.square().sum(dim=(1, 2)) + 1e-3 * count)


class HandPointsObjective(nn.Module):
    """The loss above, for every camera and every heat map by itself.

    Args:
        encoder: Finds the points.
        colours: Changes the raw pictures before they are moved, in training.
        moves: Moves every picture by itself, in training.
        disturbs: Changes the moved pictures, in training.
        axes: The leading action axes that are displacements of the hand.
        ramp: Share of the training over which the moves grow from nothing to their full strength. With full moves from
            the start the points learn nothing for a thousand steps.

    Raises:
        ValueError: If the ramp is no share above 0.
    """

    progress: Tensor

    def __init__(
        self,
        encoder: HandPoints,
        *,
        colours: Augmentation,
        moves: ViewJitter,
        disturbs: Augmentation,
        axes: int = 3,
        ramp: float = 0.25,
    ) -> None:
        super().__init__()
        if not 0 < ramp <= 1:
            raise ValueError(f"the ramp is a share of the training, above 0 and at most 1, got {ramp}")
        self.encoder = encoder
        self.colours, self.moves, self.disturbs = colours, moves, disturbs
        self.axes, self.ramp = axes, ramp
        self.register_buffer("progress", torch.zeros((), dtype=torch.float64))

    def forward(self, batch: Batch, generator: Generator) -> Loss:
        """The loss of windows: frames `B T C h w` and the actions `B T-1 A` between them (m).

        Raises:
            ValueError: If the windows are too short to tell a camera from.
        """
        sizes = check_shape(batch["frames"], "B T C h w")
        if sizes["T"] < FEWEST:
            raise ValueError(f"points need windows of at least {FEWEST} frames, got {sizes['T']}: window=12")
        walked = torch.cumsum(batch["actions"][..., : self.axes], dim=1)
        places = torch.cat([torch.zeros_like(walked[:, :1]), walked], dim=1)
        share = self._shares(self._found(batch["frames"], generator), places)
        return total_of({"unexplained": (1.0, share.mean()), "best_point": (0.0, share.mean(dim=(0, 1)).min())})

    def after_step(self, progress: float) -> None:
        """Note how far the training is; `progress` runs from 0 to 1."""
        self.progress.fill_(progress)

    @property
    def published(self) -> HandPoints:
        """What finds the points."""
        return self.encoder

    def _found(self, frames: Tensor, generator: Generator) -> Annotated[Tensor, "B V K T 2"]:
        """The points of all frames, in the plane of the pictures as they were logged."""
        views = frames.unflatten(2, (-1, CHANNELS_PER_CAMERA)).float() / 255
        batch, count, cameras = views.shape[:3]
        if not self.training:
            points, _ = self.encoder(views.flatten(0, 2))
            return points.unflatten(0, (batch, count, cameras)).permute(0, 2, 3, 1, 4)
        views = (self.colours(frames, generator) / 255).unflatten(2, (-1, CHANNELS_PER_CAMERA))
        strength = min(float(self.progress) / self.ramp, 1.0)
        moved, back = self.moves.moved(views.flatten(0, 1)[:, None], generator, strength=strength)  # windows of one
        moved = moved[:, 0].unflatten(0, (batch, count))
        seen = self.disturbs(255 * moved.flatten(2, 3), generator) / 255
        points, _ = self.encoder(seen.unflatten(2, (-1, CHANNELS_PER_CAMERA)).flatten(0, 2))
        matrix = back.flatten(0, 1)  # (B T V, 2, 3)
        points = points @ matrix[..., :2].transpose(-1, -2) + matrix[:, None, :, 2]
        return points.unflatten(0, (batch, count, cameras)).permute(0, 2, 3, 1, 4)

    @staticmethod
    def _shares(points: Annotated[Tensor, "B V K T 2"], places: Tensor) -> Annotated[Tensor, "B V K"]:
        batch, cameras, kinds = points.shape[:3]
        each = places[:, None, None].expand(-1, cameras, kinds, -1, -1)
        return unexplained(points.flatten(0, 2), each.flatten(0, 2)).unflatten(0, (batch, cameras, kinds))
