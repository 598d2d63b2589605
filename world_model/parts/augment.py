"""Image augmentations that preserve the motion in a window.

Colours change from frame to frame, so that no latent can rely on them (constant appearance is the easiest quantity to
predict); geometric changes are drawn once per window and camera, like a slightly different camera pose.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Generator, Tensor
from torch.nn import functional

from jepa_mpc.types import Frames

CHANNELS_PER_CAMERA = 3
Change = Callable[[Tensor, Generator], Tensor]


class Augmentation:
    """Applies changes in sequence to windows of raw frames.

    Args:
        changes: Each maps images `B T V 3 h w` in [0, 1] (V cameras) to images of the same shape.
    """

    def __init__(self, changes: Sequence[Change]) -> None:
        self.changes = tuple(changes)

    def __call__(self, frames: Frames, generator: Generator) -> Frames:
        """Frames `B T C h w` with values 0..255 in, float frames of the same range out."""
        views = frames.unflatten(2, (-1, CHANNELS_PER_CAMERA)).float() / 255
        for change in self.changes:
            views = change(views, generator)
        return views.clamp(0, 1).flatten(2, 3) * 255


class OfCameras:
    """A change applied to some cameras only; a hand-mounted camera, for example, has a fixed pose.

    Args:
        cameras: Their indices, from 0.
        change: The change.
    """

    def __init__(self, cameras: Sequence[int], change: Change) -> None:
        self.cameras, self.change = list(cameras), change

    def __call__(self, views: Tensor, generator: Generator) -> Tensor:
        """Images `B T V 3 h w` in and out."""
        changed = views.clone()
        changed[:, :, self.cameras] = self.change(views[:, :, self.cameras], generator)
        return changed


class Together:
    """A change applied to all images of a window alike, for networks that compare them.

    Args:
        change: The change.
    """

    def __init__(self, change: Change) -> None:
        self.change = change

    def __call__(self, views: Tensor, generator: Generator) -> Tensor:
        """Images `B T V 3 h w` in and out."""
        times, width = views.shape[1], views.shape[-1]
        side_by_side = views.movedim(1, -2).flatten(-2)[:, None]  # (B, 1, V, 3, h, T w)
        return self.change(side_by_side, generator)[:, 0].unflatten(-1, (times, width)).movedim(-2, 1)


class Apart:
    """A change drawn anew for every image of a window, also where it would stay the same in all of them.

    Args:
        change: The change.
    """

    def __init__(self, change: Change) -> None:
        self.change = change

    def __call__(self, views: Tensor, generator: Generator) -> Tensor:
        """Images `B T V 3 h w` in and out."""
        return self.change(views.flatten(0, 1)[:, None], generator)[:, 0].unflatten(0, views.shape[:2])


def _uniform(shape: Sequence[int], low: float, high: float, generator: Generator, like: Tensor) -> Tensor:
    drawn = torch.rand(tuple(shape), generator=generator, device=generator.device)
    return (low + (high - low) * drawn).to(like.device)


def _factor(shape: Sequence[int], largest: float, generator: Generator, like: Tensor) -> Tensor:
    bound = math.log(largest)
    return _uniform(shape, -bound, bound, generator, like).exp()


class ColourJitter:
    """Colour jitter for every frame of every camera: channel mixing, tone curve and exposure.

    Args:
        mixing: Largest entry of the random colour matrix that is added to the identity.
        curve: Largest bend c of the tone curve x + c x (1 - x).
        permute: Share of images with permuted channels.
    """

    def __init__(self, *, mixing: float = 0.4, curve: float = 0.8, permute: float = 0.3) -> None:
        self.mixing, self.curve, self.permute = mixing, curve, permute

    def __call__(self, views: Tensor, generator: Generator) -> Tensor:
        """Images `B T V 3 h w` in and out."""
        places = views.shape[:3]
        order = _uniform((*places, 3), 0, 1, generator, views).argsort(-1)
        keep = _uniform(places, 0, 1, generator, views) >= self.permute
        order = torch.where(keep[..., None], torch.arange(3, device=views.device), order)
        matrix = functional.one_hot(order, 3).to(views.dtype)
        matrix = matrix + _uniform((*places, 3, 3), -self.mixing, self.mixing, generator, views)
        mixed = (matrix @ views.flatten(-2)).unflatten(-1, views.shape[-2:]).clamp(0, 1)
        bend = _uniform((*places, 1, 1, 1), -self.curve, self.curve, generator, views)
        return mixed + bend * mixed * (1 - mixed)


class ViewJitter:
    """Shifts, rotates and scales the image plane, once per window and camera.

    Args:
        shift: Largest shift as a share of half the image.
        scale: Largest scale factor (and, inverted, the smallest).
        turn_rad: Largest rotation in radians.
        stretch: Largest ratio of height to width (and, inverted, the smallest): a camera higher up or lower down.
        shrink: Additional factor by which the content shrinks.
    """

    def __init__(
        self,
        *,
        shift: float = 0.12,
        scale: float = 1.2,
        turn_rad: float = 0.07,
        stretch: float = 1.0,
        shrink: float = 1.0,
    ) -> None:
        self.shift, self.scale, self.turn_rad, self.stretch, self.shrink = shift, scale, turn_rad, stretch, shrink

    def __call__(self, views: Tensor, generator: Generator) -> Tensor:
        """Images `B T V 3 h w` in and out."""
        return self.moved(views, generator)[0]

    def moved(self, views: Tensor, generator: Generator, *, strength: float = 1.0) -> tuple[Tensor, Tensor]:
        """Images `B T V 3 h w` in and out, and the maps `B V 2 3` from new to old image coordinates.

        Args:
            views: The images.
            generator: Draws the maps.
            strength: Share of the full range of the maps.
        """
        batch, frames, cameras = views.shape[:3]
        one = (batch, cameras)
        size = self.shrink**strength * _factor(one, self.scale**strength, generator, views)
        tall = _factor(one, self.stretch**strength, generator, views) if self.stretch != 1 else torch.ones_like(size)
        turn = strength * _uniform(one, -self.turn_rad, self.turn_rad, generator, views)
        move = strength * _uniform((*one, 2), -self.shift, self.shift, generator, views)
        cos, sin = size * turn.cos(), size * turn.sin()
        rows = [cos, -sin, move[..., 0], tall * sin, tall * cos, move[..., 1]]
        matrix = torch.stack(rows, dim=-1).unflatten(-1, (2, 3))
        each = matrix[:, None].expand(-1, frames, -1, -1, -1).flatten(0, 2)
        pictures = views.flatten(0, 2)
        grid = functional.affine_grid(each, list(pictures.shape), align_corners=False)
        moved = functional.grid_sample(pictures, grid, padding_mode="border", align_corners=False)
        return moved.unflatten(0, (batch, frames, cameras)), matrix


class Tilt:
    """Tilts the image plane, once per window and camera: the content grows towards one side.

        (x, y) <- (x, y) / (1 + b_x x + b_y y)

    Args:
        largest: Bound of b, below 0.5.

    Raises:
        ValueError: If the bound would fold the image.
    """

    def __init__(self, *, largest: float = 0.25) -> None:
        if not 0 <= largest < 0.5:
            raise ValueError(f"need 0 <= largest < 0.5, got {largest}")
        self.largest = largest

    def __call__(self, views: Tensor, generator: Generator) -> Tensor:
        """Images `B T V 3 h w` in and out."""
        batch, frames, cameras, _, height, width = views.shape
        tilt = _uniform((batch, cameras, 2), -self.largest, self.largest, generator, views)
        x = torch.linspace(-1, 1, width, device=views.device).expand(height, width)
        y = torch.linspace(-1, 1, height, device=views.device)[:, None].expand(height, width)
        depth = 1 + tilt[..., 0, None, None] * x + tilt[..., 1, None, None] * y
        grid = torch.stack([x / depth, y / depth], dim=-1)[:, None].expand(-1, frames, -1, -1, -1, -1).flatten(0, 2)
        tilted = functional.grid_sample(views.flatten(0, 2), grid, padding_mode="border", align_corners=False)
        return tilted.unflatten(0, (batch, frames, cameras))


class Patches:
    """Draws plain rectangles into the images of a window, at the same position in all frames: static objects.

    Args:
        count: Rectangles per camera.
        largest: Largest side as a share of the image.
    """

    def __init__(self, *, count: int = 2, largest: float = 0.22) -> None:
        self.count, self.largest = count, largest

    def __call__(self, views: Tensor, generator: Generator) -> Tensor:
        """Images `B T V 3 h w` in and out."""
        batch, _, cameras, _, height, width = views.shape
        x = torch.linspace(0, 1, width, device=views.device)
        y = torch.linspace(0, 1, height, device=views.device)[:, None]
        for _ in range(self.count):
            centre = _uniform((batch, 1, cameras, 1, 2), 0, 1, generator, views)
            half = _uniform((batch, 1, cameras, 1, 2), 0, self.largest / 2, generator, views)
            colour = _uniform((batch, 1, cameras, 3, 1, 1), 0, 1, generator, views)
            inside = ((x - centre[..., 0, None, None]).abs() < half[..., 0, None, None]) & (
                (y - centre[..., 1, None, None]).abs() < half[..., 1, None, None]
            )
            views = torch.where(inside, colour, views)
        return views


class Shapes:
    """Draws turned boxes and ellipses with a bright and a dark side into the images of a window: clutter.

    They stay where they are in all frames of the window; each camera of each world has its own, and its own number.

    Args:
        count: Largest number of shapes per camera.
        smallest: Smallest side as a share of the image.
        largest: Largest side as a share of the image.

    Raises:
        ValueError: If the sides are not in 0 < smallest <= largest.
    """

    def __init__(self, *, count: int = 4, smallest: float = 0.06, largest: float = 0.4) -> None:
        if not 0 < smallest <= largest:
            raise ValueError(f"need 0 < smallest <= largest, got {smallest} and {largest}")
        self.count, self.smallest, self.largest = count, smallest, largest

    def __call__(self, views: Tensor, generator: Generator) -> Tensor:
        """Images `B T V 3 h w` in and out."""
        batch, _, cameras, _, height, width = views.shape
        one = (batch, 1, cameras, 1, 1, 1)
        x = torch.linspace(0, 1, width, device=views.device)
        y = torch.linspace(0, 1, height, device=views.device)[:, None]
        drawn = _uniform(one, 0, self.count + 1, generator, views).floor()
        for number in range(self.count):
            right, down, turn, side, tall, kind, top, dark = (_uniform(one, 0, 1, generator, views) for _ in range(8))
            colour = _uniform((batch, 1, cameras, 3, 1, 1), 0, 1, generator, views)
            cos, sin = (math.pi * turn).cos(), (math.pi * turn).sin()
            half = 0.5 * self.smallest * (self.largest / self.smallest) ** side
            along = (cos * (x - right) + sin * (y - down)) / half
            across = (cos * (y - down) - sin * (x - right)) / (half * (0.4 + 0.6 * tall))
            box = torch.maximum(along.abs(), across.abs()) < 1
            inside = torch.where(kind < 0.5, along.square() + across.square() < 1, box) & (number < drawn)
            lit = torch.where(across < 2 * top - 1, 1.0, 0.4 + 0.6 * dark)
            views = torch.where(inside, colour * lit, views)
        return views


class UnevenLight:
    """Brightens and darkens parts of every image: light from one side, shadows and textures that no log contains.

    A grid of random gains, as coarse as 2 or as fine as `finest` cells, is stretched over the image, smoothly or in
    cells.

    Args:
        strength: Largest logarithm of a gain of the grid.
        finest: Cells of the finest grid along a side.
    """

    def __init__(self, *, strength: float = 0.5, finest: int = 12) -> None:
        self.strength, self.finest = strength, finest

    def __call__(self, views: Tensor, generator: Generator) -> Tensor:
        """Images `B T V 3 h w` in and out."""
        pictures = views.flatten(0, 2)
        strength = _uniform((len(pictures), 1, 1, 1), 0, self.strength, generator, views)
        cells = int(_uniform((), 2, self.finest + 1, generator, views))
        gains = strength * _uniform((len(pictures), 1, cells, cells), -1, 1, generator, views)
        smooth = bool(_uniform((), 0, 1, generator, views) < 0.6)
        field = functional.interpolate(gains, views.shape[-2:], mode="bilinear" if smooth else "nearest")
        return (pictures * field.exp()).clamp(0, 1).reshape(views.shape)


class SensorNoise:
    """Adds camera noise with a random strength per frame and camera.

    Args:
        strongest: Largest standard deviation, on the scale 0 to 1.
    """

    def __init__(self, *, strongest: float = 0.05) -> None:
        self.strongest = strongest

    def __call__(self, views: Tensor, generator: Generator) -> Tensor:
        """Images `B T V 3 h w` in and out."""
        strength = _uniform((*views.shape[:3], 1, 1, 1), 0, self.strongest, generator, views)
        noise = torch.randn(views.shape, generator=generator, device=generator.device).to(views.device)
        return views + strength * noise
