"""Slots over bare patches that begin where patches of some pictures cluster: what differs in colour binds at once."""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn

from jepa_mpc.encoders.layers.slot_attention import NormedStep, SlotAttention
from jepa_mpc.encoders.slot_broadcast import place_waves
from jepa_mpc.encoders.slots import LearnedStart, SlotEncoder, SlotRecurrence, check_picture
from jepa_mpc.types import State

ROUNDS, ATTEMPTS, SAMPLED = 20, 8, 20_000
NARROW = 0.05


class PlacedPatches(nn.Module):
    """Patches of a picture, each with its place, through linear maps: tokens that know nothing of their neighbours.

    Args:
        width: Width of the tokens.
        size: Side of the picture in pixels.
        patch: Side of a patch in pixels.
        channels: Of a picture.

    Raises:
        ValueError: If the patches do not divide the size.
    """

    def __init__(self, *, width: int, size: int, patch: int, channels: int = 3) -> None:
        super().__init__()
        if size % patch:
            raise ValueError(f"patches of {patch} pixels do not divide pictures of {size}")
        self.size, self.channels = size, channels
        self.patches = nn.Conv2d(channels, width, patch, stride=patch)
        waves = place_waves((size // patch) ** 2)
        self.register_buffer("waves", waves, persistent=False)
        self.places = nn.Linear(waves.shape[1], width, bias=False)
        self.draw(None)

    def draw(self, generator: Generator | None) -> None:
        """Draw maps of a patch's mean colour, and narrower ones of its place: colour tells patches apart at first."""
        patch = self.patches.kernel_size[0]
        colour = torch.empty(*self.patches.weight.shape[:2], 1, 1)
        nn.init.normal_(colour, generator=generator)
        with torch.no_grad():
            self.patches.weight.copy_(colour.expand_as(self.patches.weight) / patch**2)
        nn.init.zeros_(self.patches.bias)  # type: ignore[arg-type]
        nn.init.normal_(self.places.weight, std=NARROW, generator=generator)

    def forward(self, x: Tensor) -> State:
        """Pictures `(B, C, h, w)` to tokens `(B, L, width)`, row-major.

        Raises:
            BadObservation: If the pictures have another size.
        """
        check_picture(x, channels=self.channels, size=self.size)
        return self.patches(x).flatten(2).transpose(1, 2) + self.places(self.waves)


def over_bare_patches(*, image: int, cell: int, num_slots: int, slot_dim: int) -> SlotEncoder:
    """Slots in one round of attention, each with a learned start; `begin_at_clusters` places the starts.

    Args:
        image: Side of the pictures in pixels.
        cell: Side of a patch in pixels.
        num_slots: Slots N.
        slot_dim: Width D of slots and tokens.
    """
    attend = SlotAttention(slot_dim, slot_dim=slot_dim, iterations=1, hidden=2 * slot_dim, memory="plain", eps=1e-6)
    return SlotEncoder(
        features=PlacedPatches(width=slot_dim, size=image, patch=cell),
        embed=nn.Identity(),
        start=LearnedStart(num_slots, slot_dim=slot_dim),
        recurrence=SlotRecurrence(attend, step=NormedStep(slot_dim)),
        slot_dim=slot_dim,
    )


@torch.no_grad()
def begin_at_clusters(encoder: SlotEncoder, images: Tensor, *, generator: Generator, sharpness: float = 4.0) -> None:
    """Put the starts at the cluster centres of colours, let queries ask for what lies near them, and hold all that.

    What is trained from then on is what slots carry, not what they attend to: while a decoder knows nothing yet, its
    gradient lets one slot take all things and undoes the binding.

    No label is used: centres begin as the token farthest from all chosen before (k-means after Gonzalez 1985), so that
    small things of a colour of their own are found beside a large background.

    Args:
        encoder: Of `over_bare_patches`.
        images: Prepared pictures `(B, C, h, w)`.
        generator: Draws tokens, and the first one of each attempt.
        sharpness: Factor on the logits.

    Raises:
        ValueError: If the encoder is another one.
    """
    attend, start, features = encoder.recurrence.attend, encoder.start, encoder.features
    if not isinstance(start, LearnedStart) or not isinstance(features, PlacedPatches):
        raise ValueError("clusters of tokens need learned starts over placed patches: use over_bare_patches")
    tokens = attend.norm_inputs(encoder.embed(features(images))).flatten(0, 1)  # (G, D)
    start.slots.copy_(cluster_centres(tokens, start.slots.shape[1], generator=generator))
    attend.to_query.weight.copy_(sharpness * attend.to_key.weight)
    held = (
        encoder.features,
        encoder.embed,
        start,
        attend.norm_inputs,
        attend.norm_slots,
        attend.to_query,
        attend.to_key,
    )
    for part in held:
        part.requires_grad_(False)


def cluster_centres(tokens: Tensor, number: int, *, generator: Generator) -> Tensor:
    """Centres `(number, D)` of tokens `(G, D)`: farthest-first seeds, then k-means; the tightest of a few attempts."""
    chosen = tokens[torch.randperm(len(tokens), generator=generator)[:SAMPLED]]
    attempts = [_attempt(chosen, number, generator) for _ in range(ATTEMPTS)]
    return min(attempts, key=lambda attempt: attempt[0])[1]


def _attempt(tokens: Tensor, number: int, generator: Generator) -> tuple[float, Tensor]:
    """Mean squared distance to the nearest centre, and the centres."""
    centres = tokens[int(torch.randint(len(tokens), (), generator=generator))][None]
    while len(centres) < number:
        far = torch.cdist(tokens, centres).amin(dim=1).argmax()
        centres = torch.cat([centres, tokens[far][None]])
    for _ in range(ROUNDS):
        nearest = torch.cdist(tokens, centres).argmin(dim=1)
        sums = torch.zeros_like(centres).index_add(0, nearest, tokens)
        counts = torch.bincount(nearest, minlength=number)[:, None]
        centres = torch.where(counts > 0, sums / counts.clamp(min=1), centres)
    return float(torch.cdist(tokens, centres).amin(dim=1).square().mean()), centres
