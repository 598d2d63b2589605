"""Object slots of a video: features of each frame, and slots that follow them from frame to frame.

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
    """Where the slots of the first frame begin."""

    def __call__(self, batch: int, generator: Generator | None = None) -> State:
        """Slots `(B, N, D)` for `batch` videos."""


class LearnedStart(nn.Module):
    """Every video begins at the same learned slots (SAVi): no draw, and each slot may become a kind of thing.

    Args:
        num_slots: Slots N.
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
    """Slots drawn around one learned mean (VideoSAUR): `mean + exp(log_std) * noise`, the same law for all.

    Args:
        num_slots: Slots N.
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
        slots: After binding, `B T N D`: what world models use.
        following: What they become before the next frame, `B T N D`.
        shares: Each slot's share of every token, `B T N L`.
    """

    slots: Latents
    following: Latents
    shares: Annotated[Tensor, "B T N L"]


class SlotRecurrence(nn.Module):
    """Slots bound to each frame in turn, beginning where the last frame left them.

    Args:
        attend: Binds slots to tokens.
        step: Takes slots `(B, N, D)` to the next frame.
        first: Rounds on the first frame; by default as many as on the others.
    """

    def __init__(self, attend: SlotAttention, *, step: nn.Module, first: int | None = None) -> None:
        super().__init__()
        self.attend, self.step = attend, step
        self.first = attend.iterations if first is None else first

    def forward(self, start: State, tokens: Annotated[Tensor, "B T L C"]) -> SlotTracks:
        """Follow slots that begin at `start` `(B, N, D)` through the tokens of a video."""
        slots, tracks = start, []
        for time, frame in enumerate(tokens.unbind(dim=1)):
            bound, shares = self.attend(slots, frame, self.first if time == 0 else None)
            slots = self.step(bound)
            tracks.append((bound, slots, shares))
        return SlotTracks(*(torch.stack(parts, dim=1) for parts in zip(*tracks, strict=True)))


def check_picture(x: Tensor, *, channels: int, size: int) -> None:
    """Refuse what is no batch of square pictures of this size.

    Raises:
        BadObservation: With what was expected and what came.
    """
    if x.dim() != 4 or tuple(x.shape[1:]) != (channels, size, size):
        raise BadObservation(
            f"expected pictures ({channels}, {size}, {size}), got {tuple(x.shape[1:])}: render or resize them to that "
            "size"
        )


class PatchFeatures(nn.Module):
    """A small convolutional network with learned places: pictures to tokens, for slots that learn from scratch.

    Args:
        channels: Of a picture.
        width: Width of the tokens.
        size: Side of the picture in pixels.
        strides: One convolution of kernel 5 per entry; the token grid has `size / product` cells a side.

    Raises:
        ValueError: If the strides do not divide the size.
    """

    def __init__(self, *, width: int, size: int, channels: int = 3, strides: tuple[int, ...] = (2, 2, 1, 1)) -> None:
        super().__init__()
        side = size
        for stride in strides:
            if side % stride:
                raise ValueError(f"strides {strides} do not divide pictures of {size} pixels")
            side //= stride
        self.size, self.channels, self.side, self.width = size, channels, side, width
        layers: list[nn.Module] = []
        for index, stride in enumerate(strides):
            layers += [nn.Conv2d(width if index else channels, width, 5, stride=stride, padding=2), nn.ReLU()]
        self.layers = nn.Sequential(*layers)
        self.places = nn.Linear(4, width)

    def forward(self, x: Tensor) -> State:
        """Pictures `(B, C, h, w)` to tokens `(B, L, width)`, row-major.

        Raises:
            BadObservation: If the pictures have another size.
        """
        check_picture(x, channels=self.channels, size=self.size)
        axis = torch.linspace(0, 1, self.side, device=x.device, dtype=x.dtype)
        rows, columns = torch.meshgrid(axis, axis, indexing="ij")
        grid = torch.stack([rows, columns, 1 - rows, 1 - columns], dim=-1).flatten(0, 1)  # (L, 4)
        return self.layers(x).flatten(2).transpose(1, 2) + self.places(grid)


class SlotEncoder(nn.Module):
    """Pictures to slots: a feature network, a map of its tokens, a start and a recurrence.

    Called with pictures it binds each by itself, beginning anew; `track` follows the slots through a video, so that a
    slot keeps its object.

    Args:
        features: Maps pictures `(B, C, h, w)` to tokens `(B, L, C')`.
        embed: Maps tokens to those that slots attend to.
        start: Where slots begin.
        recurrence: Binds and follows.
        slot_dim: Width D of the slots.

    Reference: Kipf et al. 2022, arXiv:2111.12594 (SAVi); Zadaianchuk et al. 2023, arXiv:2306.04829 (VideoSAUR).
    """

    gives_slots = True  # its tokens are objects, not places in the picture

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
        """Slots `(B, N, D)` of pictures `(B, C, h, w)`, each by itself.

        Raises:
            ValueError: If tokens are to be left out: slots compete for all of them.
        """
        if keep is not None:
            raise ValueError("a slot encoder sees whole pictures; give keep=None")
        return self.track(x[:, None]).slots[:, 0]

    def track(self, frames: Frames, *, begin: State | None = None, generator: Generator | None = None) -> SlotTracks:
        """Follow slots through prepared frames.

        Args:
            frames: `(B, T, C, h, w)`.
            begin: Slots `(B, N, D)` to begin at (those of an earlier moment); by default the start's.
            generator: For a start that draws.
        """
        sizes = check_shape(frames, "B T C h w")
        tokens = self.embed(self.features(frames.flatten(0, 1))).unflatten(0, (sizes["B"], sizes["T"]))
        return self.recurrence(self.start(sizes["B"], generator) if begin is None else begin, tokens)
