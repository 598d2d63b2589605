"""Point clouds in, one token per neighbourhood out: the encoder of Point-JEPA."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor, nn

from jepa_mpc.encoders.layers.blocks import TransformerBlock
from jepa_mpc.encoders.layers.clouds import ORDERS, Centres, Clouds, farthest, neighbours, picked
from jepa_mpc.encoders.layers.drops import Drops
from jepa_mpc.errors import BadObservation, choose
from jepa_mpc.types import State

Keep = Annotated[Tensor, "B K"]


@dataclass(frozen=True, kw_only=True)
class PointSizes:
    """Sizes of an encoder of point clouds.

    Args:
        width: Width D of the tokens.
        depth: Number of blocks.
        heads: Attention heads.
        mlp_dim: Width inside the feed-forward parts.
        groups: Number of neighbourhoods, each one token.
        group_size: Points per neighbourhood.
        net: Widths of the three inner layers of the neighbourhood network.
        place: Width inside the network of positional embeddings.
        order: Ordering of the tokens, a name of `ORDERS`; None keeps that of the sampling.
        placed: Number of blocks, from the first, that get positional embeddings; None for all.
        eps: Constant of the layer norms.
        drops: Dropout settings of the blocks.
    """

    width: int
    depth: int
    heads: int
    mlp_dim: int
    groups: int = 64
    group_size: int = 32
    net: tuple[int, int, int] = (128, 256, 512)
    place: int = 128
    order: str | None = "nearest_from_corner"
    placed: int | None = None
    eps: float = 1e-5
    drops: Drops = Drops()


@dataclass(frozen=True, kw_only=True)
class CloudTokens:
    """The neighbourhoods of clouds before the Transformer.

    Args:
        values: Content of each `B N D`.
        places: Positional embedding of each `B N D`.
        centres: Position of each `B N 3`.
    """

    values: State
    places: State
    centres: Centres

    def __len__(self) -> int:
        return len(self.values)

    @property
    def device(self) -> torch.device:
        """Their device."""
        return self.values.device

    def at(self, keep: Keep) -> CloudTokens:
        """The tokens at `keep`, in that order."""
        values, places, centres = (picked(x, keep) for x in (self.values, self.places, self.centres))
        return CloudTokens(values=values, places=places, centres=centres)


class NeighbourhoodNet(nn.Module):
    """A small PointNet: two shared networks over the points, a maximum after each.

        y = f(x);   out = max_k g([max_k y, y])

    Args:
        width: Width of the output.
        net: Widths of the inner layers.

    Reference: Qi et al. 2017, arXiv:1612.00593, as in Saito et al. 2024, arXiv:2404.16432.
    """

    def __init__(self, width: int, *, net: Sequence[int]) -> None:
        super().__init__()
        first, inner, second = net
        self.points = _shared(3, first, inner)
        self.both = _shared(2 * inner, second, width)

    def forward(self, groups: Annotated[Tensor, "B N K 3"]) -> State:
        """Neighbourhoods relative to their centres to tokens `B N D`."""
        rows = self.points(groups.flatten(0, 2)).unflatten(0, groups.shape[:3])
        whole = rows.amax(dim=2, keepdim=True).expand_as(rows)
        both = self.both(torch.cat([whole, rows], dim=-1).flatten(0, 2))
        return both.unflatten(0, groups.shape[:3]).amax(dim=2)


class PointTokens(nn.Module):
    """Neighbourhoods around evenly spread centres, as tokens in an ordering that keeps neighbours close.

    Centres come from farthest-point sampling that starts at the first point of the cloud.

    Args:
        sizes: All sizes.
        frame: Shifts and scales clouds first: `UnitSphere`, `Workspace`; by default none.

    Raises:
        UnknownName: If there is no such order.
        ValueError: If the number of groups or their size is less than 1.

    Reference: Saito et al. 2024, arXiv:2404.16432, section 3.1.
    """

    def __init__(self, sizes: PointSizes, *, frame: nn.Module | None = None) -> None:
        super().__init__()
        if min(sizes.groups, sizes.group_size) < 1:
            raise ValueError(f"need groups of points, got {sizes.groups} groups of {sizes.group_size}")
        self.sizes = sizes
        self.order = None if sizes.order is None else choose(ORDERS, sizes.order, "order of points")
        self.frame = frame or nn.Identity()
        self.net = NeighbourhoodNet(sizes.width, net=sizes.net)
        self.places = place_net(sizes.width, hidden=sizes.place)

    def forward(self, clouds: Clouds, *, start: Annotated[Tensor, "B"] | None = None) -> CloudTokens:
        """Tokens of clouds.

        Args:
            clouds: `B G 3`.
            start: First point of the sampling; by default the first point of each cloud.

        Raises:
            BadObservation: If clouds have another shape, or fewer points than groups or than a group has.
        """
        groups, centres = self.grouped(clouds, start=start)
        return CloudTokens(values=self.net(groups), places=self.places(centres), centres=centres)

    @torch.no_grad()
    def grouped(
        self, clouds: Clouds, *, start: Annotated[Tensor, "B"] | None = None
    ) -> tuple[Annotated[Tensor, "B N K 3"], Centres]:
        """Neighbourhoods relative to their centres, and the centres, both in order."""
        sizes, least = self.sizes, max(self.sizes.groups, self.sizes.group_size)
        if clouds.dim() != 3 or clouds.shape[-1] != 3 or clouds.shape[1] < least:
            raise BadObservation(
                f"expected clouds (B, G, 3) of at least {least} points for {sizes.groups} groups of "
                f"{sizes.group_size}, got {tuple(clouds.shape)}: use more points, or fewer groups"
            )
        clouds = self.frame(clouds.float())
        if not bool(clouds.isfinite().all()):
            raise BadObservation("points are not finite, or too large to be centred: give finite positions in metres")
        centres = picked(clouds, farthest(clouds, sizes.groups, start=start))
        if self.order is not None:
            centres = picked(centres, self.order(centres))
        near = picked(clouds, neighbours(centres, clouds, sizes.group_size))
        return near - centres[:, :, None], centres


class PointTransformer(nn.Module):
    """Pre-norm blocks, each preceded by adding the positional embeddings, and a last norm.

    Args:
        sizes: All sizes.
    """

    def __init__(self, sizes: PointSizes) -> None:
        super().__init__()
        self.sizes, self.width = sizes, sizes.width
        self.blocks = nn.ModuleList(
            TransformerBlock(
                sizes.width,
                heads=sizes.heads,
                hidden=sizes.mlp_dim,
                eps=sizes.eps,
                drops=sizes.drops.at(index, sizes.depth),
            )  # fmt: skip
            for index in range(sizes.depth)
        )
        self.norm = nn.LayerNorm(sizes.width, eps=sizes.eps)

    def forward(self, x: CloudTokens, keep: Keep | None = None) -> State:
        """Tokens `B N D`, or only those at `keep` `B K D`."""
        return self.norm(self.streams(x, keep, at=[len(self.blocks) - 1])[0])

    def streams(self, x: CloudTokens, keep: Keep | None = None, *, at: Sequence[int]) -> list[State]:
        """Outputs of the blocks `at`, counted from 0, without a norm."""
        seen = x if keep is None else x.at(keep)
        placed = len(self.blocks) if self.sizes.placed is None else self.sizes.placed
        state, found = seen.values, {}
        for index, block in enumerate(self.blocks[: max(at) + 1]):
            state = block(state + seen.places if index < placed else state)
            if index in at:
                found[index] = state
        return [found[index] for index in at]


class PointEncoder(nn.Module):
    """Clouds to tokens.

    Args:
        tokens: Cuts clouds into neighbourhoods.
        trunk: Transformer over the neighbourhoods.
    """

    def __init__(self, tokens: PointTokens, trunk: PointTransformer) -> None:
        super().__init__()
        self.tokens, self.trunk, self.width = tokens, trunk, trunk.width

    def forward(self, x: Clouds, keep: Keep | None = None) -> State:
        """Encode clouds `B G 3`; `keep` selects visible tokens by their index in the ordering.

        Raises:
            BadObservation: If a cloud has too few points, or non-finite ones.
        """
        bad = int((~x.isfinite().flatten(1).all(dim=1)).sum())
        if bad:
            raise BadObservation(f"{bad} of {len(x)} clouds have points that are not finite: remove those points")
        return self.trunk(self.tokens(x), keep)


def point_encoder(sizes: PointSizes, *, frame: nn.Module | None = None) -> PointEncoder:
    """An encoder with random weights."""
    return PointEncoder(PointTokens(sizes, frame=frame), PointTransformer(sizes))


def place_net(width: int, *, hidden: int) -> nn.Sequential:
    """Embeds positions `... 3` as vectors `... width`."""
    return nn.Sequential(nn.Linear(3, hidden), nn.GELU(), nn.Linear(hidden, width))


def summary(tokens: State) -> Annotated[Tensor, "B 2D"]:
    """One vector per cloud: maximum and mean over the tokens (the feature probed in the paper)."""
    return torch.cat([tokens.amax(dim=1), tokens.mean(dim=1)], dim=-1)


def _shared(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    """A network applied to every point separately; batch statistics run over all points."""
    return nn.Sequential(
        nn.Linear(inputs, hidden, bias=False), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Linear(hidden, outputs)
    )
