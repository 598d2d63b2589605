"""Object slots of a video: features of each frame, and slots tracked from frame to frame.

slots_0 ~ start;   slots_t = attend(step(slots_t-1), features_t)
"""

from __future__ import annotations

from typing import Annotated, NamedTuple, Protocol

import torch
from torch import Generator, Tensor, nn

from jepa_mpc.encoders.layers.slot_attention import SlotAttention
from jepa_mpc.errors import BadObservation
from jepa_mpc.seeding import generator as stream
from jepa_mpc.shapes import check_shape
from jepa_mpc.types import Frames, Latents, State


class Start(Protocol):
    """Initial slots of the first frame."""

    def __call__(self, batch: int, generator: Generator | None = None) -> State:
        """Slots `(B, N, D)` for `batch` videos."""


class LearnedStart(nn.Module):
    """Every video starts with the same learned slots (SAVi): deterministic, and each slot may specialise.

    Args:
        num_slots: Number of slots N.
        slot_dim: Their width D.
    """

    def __init__(self, num_slots: int, *, slot_dim: int) -> None:
        super().__init__()
        self.slots = nn.Parameter(torch.empty(1, num_slots, slot_dim))
        self.draw(None)

    def draw(self, generator: Generator | None) -> None:
        """Draw the slots from a standard normal distribution."""
        nn.init.normal_(self.slots, generator=generator)

    def forward(self, batch: int, generator: Generator | None = None) -> State:
        """The learned slots, once per video."""
        return self.slots.expand(batch, -1, -1)


class GaussianStart(nn.Module):
    """Slots drawn around one learned mean (VideoSAUR): `mean + exp(log_std) * noise`, the same distribution for all.

    Args:
        num_slots: Number of slots N.
        slot_dim: Their width D.
    """

    def __init__(self, num_slots: int, *, slot_dim: int) -> None:
        super().__init__()
        self.num_slots = num_slots
        self.mean = nn.Parameter(torch.zeros(1, 1, slot_dim))
        self.log_std = nn.Parameter(torch.full((1, 1, slot_dim), slot_dim**-0.5).log())

    def forward(self, batch: int, generator: Generator | None = None) -> State:
        """Slots of `batch` videos; without a generator every video gets the same fixed noise."""
        if generator is None:
            worlds, source = 1, stream(0, "slots", device=self.mean.device)
        else:
            worlds, source = batch, generator
        shape = (worlds, self.num_slots, self.mean.shape[-1])
        noise = torch.randn(shape, generator=source, device=source.device, dtype=self.mean.dtype)
        return (self.mean + self.log_std.exp() * noise.to(self.mean.device)).expand(batch, -1, -1)


class SlotTracks(NamedTuple):
    """Slots of a video over time.

    Args:
        slots: After binding, `B T N D`: the input of world models.
        following: After the transition to the next frame, `B T N D`.
        shares: Each slot's weight for every token, `B T N L`.
    """

    slots: Latents
    following: Latents
    shares: Annotated[Tensor, "B T N L"]


class SlotRecurrence(nn.Module):
    """Slots bound to each frame in turn, initialised by the transition from the previous frame.

    Args:
        attend: Binds slots to tokens.
        step: The transition: maps slots `(B, N, D)` to the next frame.
        first: Iterations on the first frame; by default as many as on the others.
    """

    def __init__(self, attend: SlotAttention, *, step: nn.Module, first: int | None = None) -> None:
        super().__init__()
        self.attend, self.step = attend, step
        self.first = attend.iterations if first is None else first

    def forward(self, start: State, tokens: Annotated[Tensor, "B T L C"]) -> SlotTracks:
        """Track slots that start at `start` `(B, N, D)` through the tokens of a video."""
        slots, tracks = start, []
        for time, frame in enumerate(tokens.unbind(dim=1)):
            bound, shares = self.attend(slots, frame, self.first if time == 0 else None)
            slots = self.step(bound)
            tracks.append((bound, slots, shares))
        return SlotTracks(*(torch.stack(parts, dim=1) for parts in zip(*tracks, strict=True)))


def check_picture(x: Tensor, *, channels: int, size: int) -> None:
    """Refuse input that is not a batch of square images of this size.

    Raises:
        BadObservation: Names what was expected and what came.
    """
    if x.dim() != 4 or tuple(x.shape[1:]) != (channels, size, size):
        raise BadObservation(
            f"expected images ({channels}, {size}, {size}), got {tuple(x.shape[1:])}: render or resize them to that "
            "size"
        )


class PatchFeatures(nn.Module):
    """A small convolutional network with positional embeddings: images to tokens, for training slots from scratch.

    Args:
        channels: Channels of an image.
        width: Width of the tokens.
        size: Side of the image in pixels.
        strides: One convolution of kernel 5 per entry; the token grid has `size / product` cells per side.

    Raises:
        ValueError: If the size is not divisible by the strides.
    """

    def __init__(self, *, width: int, size: int, channels: int = 3, strides: tuple[int, ...] = (2, 2, 1, 1)) -> None:
        super().__init__()
        side = size
        for stride in strides:
            if side % stride:
                raise ValueError(f"images of {size} pixels are not divisible by the strides {strides}")
            side //= stride
        self.size, self.channels, self.side, self.width = size, channels, side, width
        layers: list[nn.Module] = []
        for index, stride in enumerate(strides):
            layers += [nn.Conv2d(width if index else channels, width, 5, stride=stride, padding=2), nn.ReLU()]
        self.layers = nn.Sequential(*layers)
        self.places = nn.Linear(4, width)

    def forward(self, x: Tensor) -> State:
        """Images `(B, C, h, w)` to tokens `(B, L, width)`, row-major.

        Raises:
            BadObservation: If the images have another size.
        """
        check_picture(x, channels=self.channels, size=self.size)
        axis = torch.linspace(0, 1, self.side, device=x.device, dtype=x.dtype)
        rows, columns = torch.meshgrid(axis, axis, indexing="ij")
        grid = torch.stack([rows, columns, 1 - rows, 1 - columns], dim=-1).flatten(0, 1)  # (L, 4)
        return self.layers(x).flatten(2).transpose(1, 2) + self.places(grid)


class SlotEncoder(nn.Module):
    """Images to slots: a feature network, a token MLP, initial slots and a recurrence.

    Calling it binds each image separately, from the initial slots; `track` tracks the slots through a video, so that a
    slot keeps its object.

    Args:
        features: Maps images `(B, C, h, w)` to tokens `(B, L, C')`.
        embed: Maps tokens to those that slots attend to.
        start: Initial slots.
        recurrence: Binds and tracks.
        slot_dim: Width D of the slots.

    Reference: Kipf et al. 2022, arXiv:2111.12594 (SAVi); Zadaianchuk et al. 2023, arXiv:2306.04829 (VideoSAUR).
    """

    gives_slots = True  # its tokens are objects, not positions in the image

    def __init__(
        self,
        *,
        features: nn.Module,
        embed: nn.Module,
        start: LearnedStart | GaussianStart,
        recurrence: SlotRecurrence,
        slot_dim: int,
    ) -> None:
        super().__init__()
        self.features, self.embed, self.start, self.recurrence = features, embed, start, recurrence
        self.width = slot_dim

    def forward(self, x: Tensor, keep: Annotated[Tensor, "B K"] | None = None) -> State:
        """Slots `(B, N, D)` of images `(B, C, h, w)`, each separately.

        Raises:
            ValueError: If `keep` is given: slots compete for all tokens.
        """
        if keep is not None:
            raise ValueError("a slot encoder takes whole images: pass keep=None")
        return self.track(x[:, None]).slots[:, 0]

    def track(self, frames: Frames, *, begin: State | None = None, generator: Generator | None = None) -> SlotTracks:
        """Track slots through prepared frames.

        Args:
            frames: `(B, T, C, h, w)`.
            begin: Initial slots `(B, N, D)` (those of an earlier frame); by default the encoder's own.
            generator: For initial slots that are drawn.
        """
        sizes = check_shape(frames, "B T C h w")
        tokens = self.embed(self.features(frames.flatten(0, 1))).unflatten(0, (sizes["B"], sizes["T"]))
        return self.recurrence(self.start(sizes["B"], generator) if begin is None else begin, tokens)
