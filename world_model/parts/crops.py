"""Random crops, as views for learning content."""

from __future__ import annotations

import torch
from torch import Generator, Tensor
from torch.nn import functional


class RandomCrop:
    """Crops a rectangle of every image, resizes it to the full size, and mirrors it at random.

    Features learned from such views encode content and lose position: useful for content, useless for a planner's goal.

    Args:
        area: Smallest and largest share of the image.
        aspect: Largest ratio of width to height (and, inverted, the smallest).
        mirror: Share of the mirrored images.
        size: Side of the result in pixels; by default that of the image.

    Raises:
        ValueError: If a number is out of range.
    """

    def __init__(
        self,
        *,
        area: tuple[float, float] = (0.3, 1.0),
        aspect: float = 4 / 3,
        mirror: float = 0.5,
        size: int | None = None,
    ) -> None:
        if not 0 < area[0] <= area[1] <= 1 or aspect < 1 or not 0 <= mirror <= 1:
            raise ValueError(f"need 0 < area <= 1, aspect >= 1 and mirror in [0, 1], got {area}, {aspect}, {mirror}")
        self.area, self.aspect, self.mirror, self.size = (area[0], area[1]), aspect, mirror, size

    def __call__(self, views: Tensor, generator: Generator) -> Tensor:
        """Images `B T V 3 h w` in and out, of side `size` if one is given; each is cropped independently."""
        places = views.shape[:3]
        drawn = torch.rand(*places, 5, generator=generator, device=generator.device).to(views)
        share = self.area[0] + (self.area[1] - self.area[0]) * drawn[..., 0]
        ratio = self.aspect ** (2 * drawn[..., 1] - 1)
        half_width = (share * ratio).sqrt().clamp(max=1)  # the image spans -1 to 1
        half_height = (share / ratio).sqrt().clamp(max=1)
        at_x, at_y = (1 - half_width) * (2 * drawn[..., 2] - 1), (1 - half_height) * (2 * drawn[..., 3] - 1)
        side = torch.where(drawn[..., 4] < self.mirror, -1.0, 1.0).to(views)
        none = torch.zeros_like(side)
        matrix = torch.stack([side * half_width, none, at_x, none, half_height, at_y], dim=-1).unflatten(-1, (2, 3))
        pictures = views.flatten(0, 2)
        shape = pictures.shape if self.size is None else (*pictures.shape[:2], self.size, self.size)
        grid = functional.affine_grid(matrix.flatten(0, 2), list(shape), align_corners=False)
        cut = functional.grid_sample(pictures, grid, padding_mode="border", align_corners=False)
        return cut.unflatten(0, tuple(places))
