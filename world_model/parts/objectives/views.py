"""View-based learning: views of one image should agree, while views of all images stay spread out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Generator, Tensor, nn

from jepa_mpc.encoders.vit import VisionTransformer
from jepa_mpc.errors import BadObservation
from jepa_mpc.interfaces import Batch, Regulariser
from jepa_mpc.shapes import check_shape
from jepa_mpc.types import Frames, Latents, Loss
from jepa_mpc.world_model.parts.objectives.dynamics import total_of
from jepa_mpc.world_model.parts.targets import SharedTarget

Pictures = Annotated[Tensor, "G 3 h w"]
Projected = Annotated[Tensor, "V G D"]
Change = Callable[[Frames, Generator], Frames]
Pool = Callable[[nn.Module, Tensor], Annotated[Tensor, "G D"]]


@dataclass(frozen=True, kw_only=True)
class Views:
    """Views of one kind.

    Args:
        change: Makes a view from raw images `G 1 3 h w` with values 0..255; may change the size.
        count: Number of views.

    Raises:
        ValueError: If there is none.
    """

    change: Change
    count: int

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ValueError(f"need at least one view of each kind, got {self.count}")

    def __call__(self, pictures: Pictures, generator: Generator) -> Tensor:
        """`count G` images, view by view."""
        changed = [self.change(pictures[:, None], generator)[:, 0] for _ in range(self.count)]
        return torch.cat(changed)


class ToCentre(nn.Module):
    """Distance of views from their centre.

        mean over views, samples and channels of (z_v - c)^2,   c = mean of the first views

    Args:
        first: Number of views that define the centre; None uses all of them.
        others: Average only over the other views.

    Raises:
        ValueError: If the centre has no view, or no other view is left.

    Reference: Balestriero and LeCun 2025, arXiv:2511.08544, section 5.
    """

    def __init__(self, *, first: int | None = None, others: bool = False) -> None:
        super().__init__()
        if (first is not None and first < 1) or (others and first is None):
            raise ValueError(f"a centre needs at least one view, and further views, got first={first}")
        self.first, self.others = first, others

    def forward(self, projected: Projected) -> Tensor:
        """A scalar for projections `V G D`."""
        centre = projected[: self.first].mean(dim=0)
        judged = projected[self.first :] if self.others else projected
        return (judged - centre).square().mean()


class ViewsObjective(nn.Module):
    """The loss of LeJEPA: views agree, and each view's projections over the batch are regularised.

        loss = w agreement(h(f(views))) + sum_i w_i R_i(h(f(views)))         no predictor, no teacher, no stop-gradient

    Batches hold `frames` B T C h w; every image of every camera is a sample.

    Args:
        encoder: Images `G 3 h w` to tokens `G N D`.
        projector: Maps one vector per image to its projection.
        views: The kinds of views; those of the first kind come first.
        agreement: Distance between the views `V G D`.
        weight: Weight of the agreement.
        regularisers: (name, weight, part) on the projections of each view `V G D`.
        prepare: Scales images 0..255 for the encoder.
        pool: Maps encoder and images to one vector per image; by default the mean of the tokens.

    Raises:
        ValueError: If there are fewer than two views in all.

    Reference: Balestriero and LeCun 2025, arXiv:2511.08544.
    """

    progress: Tensor

    def __init__(
        self,
        *,
        encoder: nn.Module,
        projector: nn.Module,
        views: Sequence[Views],
        agreement: Callable[[Projected], Tensor],
        prepare: Callable[[Tensor], Tensor],
        weight: float = 1.0,
        regularisers: Sequence[tuple[str, float, Regulariser]] = (),
        pool: Pool | None = None,
    ) -> None:
        super().__init__()
        if sum(kind.count for kind in views) < 2:
            raise ValueError("views can only agree if there are at least two of them")
        self.encoder, self.projector = encoder, projector
        self.target = SharedTarget()
        self.views, self.agreement, self.weight, self.prepare = tuple(views), agreement, weight, prepare
        self.regularisers = tuple(regularisers)
        self.parts = nn.ModuleDict({name: part for name, _, part in regularisers if isinstance(part, nn.Module)})
        self.pool = pool or mean_of_tokens

    @property
    def published(self) -> nn.Module:
        """The encoder for other systems: the backbone, without the projector."""
        return self.encoder

    def forward(self, batch: Batch, generator: Generator) -> Loss:
        """The loss of one batch.

        Raises:
            BadObservation: If the images do not have three channels per camera.
        """
        projected = self.project(each_picture(batch["frames"]), generator)
        return total_of(self.terms(projected, generator))

    def terms(self, projected: Projected, generator: Generator) -> dict[str, tuple[float, Tensor]]:
        """Weight and value of each term for projections `V G D`."""
        terms = {"agreement": (self.weight, self.agreement(projected))}
        return terms | {name: (weight, part(projected, generator)) for name, weight, part in self.regularisers}

    def project(self, pictures: Pictures, generator: Generator) -> Projected:
        """Projections of fresh views `V G D`; views of one kind are encoded together."""
        looks = [self.pool(self.encoder, self.prepare(kind(pictures, generator))) for kind in self.views]
        return self.projector(torch.cat(looks)).unflatten(0, (-1, len(pictures)))

    def encode(self, frames: Frames) -> Latents:
        """The encoder's tokens of each frame separately: uint8 `B T C h w` to `B T N D`."""
        sizes = check_shape(frames, "B T C h w")
        return self.encoder(self.prepare(frames.flatten(0, 1))).unflatten(0, (sizes["B"], sizes["T"]))

    def compared(self, frames: Frames) -> Annotated[Tensor, "B T N D"]:
        """Projections of the raw images, one per camera: they collapse first without regularisation."""
        sizes = check_shape(frames, "B T C h w")
        projected = self.projector(self.pool(self.encoder, self.prepare(each_picture(frames))))
        return projected.unflatten(0, (sizes["B"], sizes["T"], -1))

    def after_step(self, progress: float) -> None:
        """Does nothing."""


def mean_of_tokens(encoder: nn.Module, pictures: Tensor) -> Annotated[Tensor, "G D"]:
    """The mean of an encoder's tokens."""
    tokens: Tensor = encoder(pictures)
    return tokens.mean(dim=1)


def summary_token(encoder: nn.Module, pictures: Tensor) -> Annotated[Tensor, "G D"]:
    """The summary token of a vision Transformer."""
    assert isinstance(encoder, VisionTransformer) and encoder.num_summary
    return encoder.tokens(pictures)[:, 0]


def each_picture(frames: Frames) -> Pictures:
    """Frames `B T C h w` as float images `G 3 h w` of every sample, time and camera.

    Raises:
        BadObservation: If there are not three channels per camera.
    """
    sizes = check_shape(frames, "B T C h w")
    if sizes["C"] % 3:
        raise BadObservation(f"views are made of images with 3 channels per camera, got {sizes['C']} channels")
    return frames.unflatten(2, (-1, 3)).flatten(0, 2).float()
