"""Points of the picture that move as the hand moves, learned without a label and without a calibrated camera.

    u_t = W_t^-1 point(W_t(picture_t));     loss = share of u_1..u_T's scatter that no camera explains by x_1..x_T

Every picture of a window is shifted, scaled and turned by a map W_t of its own and the point found in it is mapped
back, so only a point that is tied to something in the picture follows; and only what is fixed to the hand follows the
hand's measured motion through *one* projective camera, whichever that is.  Beside each picture the network is shown
another one of the window, moved alike: what differs is the arm.  The camera is solved for in closed form:

    u_x (1 + b . x) = a . x + c,     u_y (1 + b . x) = d . x + e          (direct linear transform, ridge on b)

The share of the points' scatter that is left is the loss: 1 for a point that knows nothing of the hand.

Reference for the camera: Hartley and Zisserman, Multiple View Geometry, 2nd ed., section 7.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from torch import Generator, Tensor, nn

from jepa_mpc.encoders.hand_points import HandPoints, resized
from jepa_mpc.interfaces import Batch
from jepa_mpc.shapes import check_shape
from jepa_mpc.types import Loss
from jepa_mpc.world_model.parts.augment import CHANNELS_PER_CAMERA, Augmentation, ViewJitter
from jepa_mpc.world_model.parts.objectives.dynamics import total_of

UNIT_M = 0.1
LEAST_PX = 16
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
        bends: Changes what windows show, as other cameras would show it; in training.
        colours: Changes single pixels, in a picture and its companion alike; in training.
        moves: Moves every picture, with its companion, by itself; in training.
        disturbs: Changes the moved pictures; in training.
        axes: The leading action axes that are displacements of the hand.
        ramp: Share of the training over which the moves grow from nothing to their full strength. With full moves from
            the start the points learn nothing for a thousand steps.
        sizes: Sizes (px) that the pictures are brought to, another one for every step; none leaves them as logged. The
            larger the size, the fewer windows of the batch are looked at, for the same work per step.

    Raises:
        ValueError: If the ramp is no share above 0, or a size is below what the network can see.
    """

    progress: Tensor

    def __init__(
        self,
        encoder: HandPoints,
        *,
        bends: Augmentation,
        colours: Augmentation,
        moves: ViewJitter,
        disturbs: Augmentation,
        axes: int = 3,
        ramp: float = 0.25,
        sizes: Sequence[int] = (),
    ) -> None:
        super().__init__()
        if not 0 < ramp <= 1:
            raise ValueError(f"the ramp is a share of the training, above 0 and at most 1, got {ramp}")
        if sizes and min(sizes) < LEAST_PX:
            raise ValueError(f"sizes must be pixels from {LEAST_PX}, got {tuple(sizes)}")
        self.encoder = encoder
        self.bends, self.colours, self.moves, self.disturbs = bends, colours, moves, disturbs
        self.axes, self.ramp, self.sizes = axes, ramp, tuple(sizes)
        self.register_buffer("progress", torch.zeros((), dtype=torch.float64))

    def forward(self, batch: Batch, generator: Generator) -> Loss:
        """The loss of windows: frames `B T C h w` and the actions `B T-1 A` between them (m).

        Raises:
            ValueError: If the windows are too short to tell a camera from, or the pictures smaller than the sizes.
        """
        sizes = check_shape(batch["frames"], "B T C h w")
        if sizes["T"] < FEWEST:
            raise ValueError(f"points need windows of at least {FEWEST} frames, got {sizes['T']}: window=12")
        frames, actions = self._sized(batch["frames"], batch["actions"], generator)
        walked = torch.cumsum(actions[..., : self.axes], dim=1)
        places = torch.cat([torch.zeros_like(walked[:, :1]), walked], dim=1)
        share = self._shares(self._found(frames, generator), places)
        return total_of({"unexplained": (1.0, share.mean()), "best_point": (0.0, share.mean(dim=(0, 1)).min())})

    def after_step(self, progress: float) -> None:
        """Note how far the training is; `progress` runs from 0 to 1."""
        self.progress.fill_(progress)

    @property
    def published(self) -> HandPoints:
        """What finds the points."""
        return self.encoder

    def _sized(self, frames: Tensor, actions: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        """Frames of one of the sizes, and their actions."""
        if not self.training or not self.sizes:
            return frames, actions
        largest = max(self.sizes)
        if frames.shape[-1] < largest:
            raise ValueError(
                f"sizes up to {largest} px need pictures of {largest} px, the log has {frames.shape[-1]}: collect with "
                f"image_size={largest}, or name smaller system.sizes"
            )
        drawn = int(torch.randint(len(self.sizes), (), generator=generator, device=generator.device))
        size = self.sizes[drawn]
        kept = max(1, round(len(frames) * (min(self.sizes) / size) ** 2))
        pictures = resized(frames[:kept].flatten(0, 1).float(), size)
        return pictures.unflatten(0, (kept, -1)), actions[:kept]

    def _found(self, frames: Tensor, generator: Generator) -> Annotated[Tensor, "B V K T 2"]:
        """The points of all frames, in the plane of the pictures as they were logged."""
        places = (len(frames), frames.shape[1], frames.shape[2] // CHANNELS_PER_CAMERA)
        if not self.training:
            both = _apart(torch.stack([frames, another(frames, generator)], dim=2).flatten(0, 1).float() / 255)
            points, _ = self.encoder(both[:, 0].flatten(0, 1), both[:, 1].flatten(0, 1))
            return points.unflatten(0, places).permute(0, 2, 3, 1, 4)
        frames = self.bends(frames, generator)
        above = self.colours(torch.cat([frames, another(frames, generator)], dim=-2), generator)  # changes both alike
        pairs = _apart(torch.stack(above.chunk(2, dim=-2), dim=2).flatten(0, 1) / 255)  # (B T, 2, V, 3, h, w)
        strength = min(float(self.progress) / self.ramp, 1.0)
        moved, back = self.moves.moved(pairs, generator, strength=strength)
        seen = _apart(self.disturbs(255 * moved.flatten(2, 3), generator) / 255)
        points, _ = self.encoder(seen[:, 0].flatten(0, 1), seen[:, 1].flatten(0, 1))
        matrix = back.flatten(0, 1)  # (B T V, 2, 3)
        points = points @ matrix[..., :2].transpose(-1, -2) + matrix[:, None, :, 2]
        return points.unflatten(0, places).permute(0, 2, 3, 1, 4)

    @staticmethod
    def _shares(points: Annotated[Tensor, "B V K T 2"], places: Tensor) -> Annotated[Tensor, "B V K"]:
        batch, cameras, kinds = points.shape[:3]
        each = places[:, None, None].expand(-1, cameras, kinds, -1, -1)
        return unexplained(points.flatten(0, 2), each.flatten(0, 2)).unflatten(0, (batch, cameras, kinds))


def _apart(frames: Annotated[Tensor, "B T C h w"]) -> Annotated[Tensor, "B T V 3 h w"]:
    return frames.unflatten(2, (-1, CHANNELS_PER_CAMERA))


def another(frames: Annotated[Tensor, "B T C h w"], generator: Generator) -> Annotated[Tensor, "B T C h w"]:
    """For each frame another one of its window."""
    batch, count = frames.shape[:2]
    ahead = torch.randint(1, count, (batch, count), generator=generator, device=generator.device).to(frames.device)
    chosen = (torch.arange(count, device=frames.device) + ahead) % count
    return frames[torch.arange(batch, device=frames.device)[:, None], chosen]
