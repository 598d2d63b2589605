"""Facts about released encoders, known without their files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from jepa_mpc.encoders.video import VideoSizes
from jepa_mpc.encoders.vit import ViTSizes

Sizes = VideoSizes | ViTSizes


@dataclass(frozen=True, kw_only=True)
class Release:
    """A released encoder.

    Args:
        form: Builds the network from its sizes.
        sizes: Its sizes.
        image: Side of the images of its last training, in pixels.
        file: The authors' file.
        repository: Its Hugging Face repository, or None.
        section: Its key in the authors' file, or None for the usual keys.
    """

    form: Callable[..., nn.Module]
    sizes: Sizes
    image: int
    file: str
    repository: str | None = None
    section: str | None = None

    def __call__(self, *, recompute: bool = False) -> nn.Module:
        """Build the network with random weights."""
        return self.form(self.sizes, recompute=recompute)
