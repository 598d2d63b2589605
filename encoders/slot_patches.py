"""Slots over raw patches, initialised at clusters of patches, so that differently coloured objects bind at once."""

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
    """Patches of an image and their positions through linear maps: tokens without context.

    Args:
        width: Width of the tokens.
        size: Side of the image in pixels.
        patch: Side of a patch in pixels.
        channels: Channels of an image.

    Raises:
        ValueError: If the size is not divisible by the patch.
    """

    def __init__(self, *, width: int, size: int, patch: int, channels: int = 3) -> None:
        super().__init__()
        if size % patch:
            raise ValueError(f"images of {size} pixels are not divisible into patches of {patch}")
        self.size, self.channels = size, channels
        self.patches = nn.Conv2d(channels, width, patch, stride=patch)
        waves = place_waves((size // patch) ** 2)
        self.register_buffer("waves", waves, persistent=False)
        self.places = nn.Linear(waves.shape[1], width, bias=False)
        self.draw(None)

    def draw(self, generator: Generator | None) -> None:
        """Initialise maps of a patch's mean colour, and weaker ones of its position: colour dominates at first."""
        patch = self.patches.kernel_size[0]
        colour = torch.empty(*self.patches.weight.shape[:2], 1, 1)
        nn.init.normal_(colour, generator=generator)
        with torch.no_grad():
            self.patches.weight.copy_(colour.expand_as(self.patches.weight) / patch**2)
        nn.init.zeros_(self.patches.bias)  # type: ignore[arg-type]
        nn.init.normal_(self.places.weight, std=NARROW, generator=generator)

    def forward(self, x: Tensor) -> State:
        """Images `(B, C, h, w)` to tokens `(B, L, width)`, row-major.

        Raises:
            BadObservation: If the images have another size.
        """
        check_picture(x, channels=self.channels, size=self.size)
        return self.patches(x).flatten(2).transpose(1, 2) + self.places(self.waves)


def over_bare_patches(*, image: int, cell: int, num_slots: int, slot_dim: int) -> SlotEncoder:
    """Slots with one attention iteration, each with a learned initial value; `begin_at_clusters` sets these values.

    Args:
        image: Side of the images in pixels.
        cell: Side of a patch in pixels.
        num_slots: Number of slots N.
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
    """Set the initial slots to colour cluster centres and the queries to match them, and freeze these weights.

    Afterwards training changes what slots carry, not what they attend to: an untrained decoder's gradient lets one slot
    take all objects and destroys the binding.

    No labels are used: centres start as the token farthest from all chosen before (k-means after Gonzalez 1985), so
    that small objects with a distinct colour are found beside a large background.

    Args:
        encoder: From `over_bare_patches`.
        images: Prepared images `(B, C, h, w)`.
        generator: Draws tokens, and the first one of each attempt.
        sharpness: Factor on the logits.

    Raises:
        ValueError: If the encoder is of another kind.
    """
    attend, start, features = encoder.recurrence.attend, encoder.start, encoder.features
    if not isinstance(start, LearnedStart) or not isinstance(features, PlacedPatches):
        raise ValueError("clusters need learned initial slots over placed patches: use over_bare_patches")
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
    """Centres `(number, D)` of tokens `(G, D)`: farthest-first seeds, then k-means; the best of a few attempts."""
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
