"""Hand keypoints learned without labels and without a calibrated camera.

    u_t = W_t^-1 point(W_t(image_t));     loss = share of the variance of u_1..u_T that no camera explains by x_1..x_T

Every image of a window is warped by its own map W_t (shift, scale, rotation), and the detected point is mapped back, so
that only a point attached to image content is consistent. Only content fixed to the hand follows the hand's measured
motion through *one* projective camera.  The network gets a second image of the window, warped alike: the difference is
the arm.  The camera is solved for in closed form:

    u_x (1 + b . x) = a . x + c,     u_y (1 + b . x) = d . x + e          (direct linear transform, ridge on b)

The unexplained share of the points' variance is the loss: 1 for a point unrelated to the hand.

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
FEWEST = 8  # minimum number of frames for fitting a camera of eleven parameters with a ridge penalty
LEAST_SCATTER = 1e-4
RIDGE = (1e-2, 1e-2, 1e-2, 1e-4)
RIDGE_TILT = 2.0


def unexplained(points: Annotated[Tensor, "B T 2"], places: Annotated[Tensor, "B T 3"]) -> Annotated[Tensor, "B"]:
    """Share `B`, from 0 to about 1, of the points' variance that no projective camera explains by the positions.

    Args:
        points: Image coordinates, any scale.
        places: Hand positions (m).
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
    """The loss above, for every camera and heat map separately.

    Args:
        encoder: Detects the points.
        bends: Augments windows like a change of camera; in training.
        colours: Augments pixels, equally in an image and its pair; in training.
        moves: Warps every image together with its pair; in training.
        disturbs: Augments the warped images; in training.
        axes: The leading action axes that are displacements of the hand.
        ramp: Share of the training over which the warps grow to full strength. At full strength from the start, nothing
            is learned for a thousand steps.
        sizes: Image sizes (px), a different one for every step; none keeps the logged size. Batch size shrinks with
            resolution so that the cost per step is constant.

    Raises:
        ValueError: If `ramp` is not in (0, 1], or a size is below the minimum of the network.
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
            ValueError: If the windows are too short for fitting a camera, or the images smaller than the sizes.
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
        """Store the progress of the training; `progress` runs from 0 to 1."""
        self.progress.fill_(progress)

    @property
    def published(self) -> HandPoints:
        """The keypoint detector."""
        return self.encoder

    def _sized(self, frames: Tensor, actions: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        """Frames in one of the sizes, and their actions."""
        if not self.training or not self.sizes:
            return frames, actions
        largest = max(self.sizes)
        if frames.shape[-1] < largest:
            raise ValueError(
                f"sizes up to {largest} px need images of {largest} px, the log has {frames.shape[-1]}: collect with "
                f"image_size={largest}, or name smaller system.sizes"
            )
        drawn = int(torch.randint(len(self.sizes), (), generator=generator, device=generator.device))
        size = self.sizes[drawn]
        kept = max(1, round(len(frames) * (min(self.sizes) / size) ** 2))
        pictures = resized(frames[:kept].flatten(0, 1).float(), size)
        return pictures.unflatten(0, (kept, -1)), actions[:kept]

    def _found(self, frames: Tensor, generator: Generator) -> Annotated[Tensor, "B V K T 2"]:
        """The points of all frames, in the coordinates of the logged images."""
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
    """Another frame of the same window for each frame."""
    batch, count = frames.shape[:2]
    ahead = torch.randint(1, count, (batch, count), generator=generator, device=generator.device).to(frames.device)
    chosen = (torch.arange(count, device=frames.device) + ahead) % count
    return frames[torch.arange(batch, device=frames.device)[:, None], chosen]
