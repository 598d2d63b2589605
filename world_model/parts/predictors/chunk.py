"""One-pass prediction of the next steps: an action chunk and the latent states along it.

    context = norm(blocks([task, state_0, images]))                    encoder of the current state
    targets = norm(blocks([task, state_t + place_t]))[1:]              the same network over states, without images
    latents = W_out decoder(queries, W_in context)                     narrow
    actions = W_a decoder(queries, context)                            as wide as the context

Reference: Vujinovic and Kovacevic 2025, ACT-JEPA, arXiv:2501.14622.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Generator, Tensor, nn

from jepa_mpc.encoders.layers.interleaved import alternating
from jepa_mpc.encoders.layers.postnorm import PostNormBlock, PostNormDecoderBlock
from jepa_mpc.shapes import check_shape

Visible = Annotated[Tensor, "B T"]


@dataclass(frozen=True, kw_only=True)
class ChunkSizes:
    """Sizes of the networks; the defaults are the published ones.

    Args:
        width: Width of the context's tokens and of the action decoder.
        depth: Blocks of the context encoder.
        heads: Attention heads, everywhere.
        hidden: Width inside the wide feed-forward parts.
        narrow: Width of the latent predictor.
        narrow_depth: Its blocks.
        narrow_hidden: Width inside its feed-forward parts.
        decoder_depth: Blocks of the action decoder.
        chunk: Actions H predicted at once.
        horizon: Predicted states T, including the current one.
        num_tasks: Number of tasks with a token.
        dropout: Dropout rate in training.
    """

    width: int = 512
    depth: int = 4
    heads: int = 8
    hidden: int = 2048
    narrow: int = 128
    narrow_depth: int = 4
    narrow_hidden: int = 512
    decoder_depth: int = 1
    chunk: int = 30
    horizon: int = 30
    num_tasks: int = 50
    dropout: float = 0.1


class ContextEncoder(nn.Module):
    """Encodes the current state as tokens; applied to states alone it makes the targets.

    Args:
        sizes: All sizes.
        state_dim: Width P of a state.
        picture_width: Width of the images' tokens; projected by a linear map unless equal to the context's.
        pictures: Number of input images V (current, goal); each has a learned embedding if there are several.
    """

    def __init__(self, sizes: ChunkSizes, *, state_dim: int, picture_width: int, pictures: int = 1) -> None:
        super().__init__()
        width = sizes.width
        self.task = nn.Embedding(sizes.num_tasks, width)
        self.state = nn.Linear(state_dim, width)
        self.picture: nn.Module = nn.Identity() if picture_width == width else nn.Linear(picture_width, width)
        self.marks = nn.Parameter(torch.empty(pictures, width)) if pictures > 1 else None
        self.blocks = nn.ModuleList(
            PostNormBlock(width, heads=sizes.heads, hidden=sizes.hidden, dropout=sizes.dropout)
            for _ in range(sizes.depth)
        )
        self.norm = nn.LayerNorm(width)
        self.width, self.state_dim, self.pictures = width, state_dim, pictures
        self.draw(None)

    def draw(self, generator: Generator | None) -> None:
        """Draw task tokens and embeddings from a standard normal distribution."""
        nn.init.normal_(self.task.weight, generator=generator)
        if self.marks is not None:
            nn.init.normal_(self.marks, generator=generator)

    def forward(
        self,
        task: Annotated[Tensor, "B"],
        state: Annotated[Tensor, "B P"],
        pictures: Annotated[Tensor, "B V N D"],
    ) -> Annotated[Tensor, "B K D"]:
        """Encode the current state: tokens of task, state and every image, K = 2 + V N.

        Args:
            task: Index of the task.
            state: Standardised state.
            pictures: Tokens of the images.

        Raises:
            ValueError: If the number of images or the width of the state differs from the network's.
        """
        check_shape(pictures, "B V N D", V=self.pictures)
        check_shape(state, "B P", P=self.state_dim)
        seen = self.picture(pictures)
        if self.marks is not None:
            seen = seen + self.marks[:, None]
        return self._mix(torch.cat([self.task(task)[:, None], self.state(state)[:, None], seen.flatten(1, 2)], dim=1))

    def over_time(
        self, task: Annotated[Tensor, "B"], states: Annotated[Tensor, "B T P"], visible: Visible | None = None
    ) -> Annotated[Tensor, "B T D"]:
        """Encode a sequence of states, which attend to `visible` ones; the predictor's target."""
        places = alternating(torch.arange(states.shape[1], device=states.device), self.width).to(states.dtype)
        tokens = torch.cat([self.task(task)[:, None], self.state(states) + places], dim=1)
        if visible is not None:
            visible = torch.cat([torch.ones_like(visible[:, :1]), visible], dim=1)
        return self._mix(tokens, visible)[:, 1:]

    def _mix(self, tokens: Tensor, visible: Tensor | None = None) -> Tensor:
        for block in self.blocks:
            tokens = block(tokens, visible)
        return self.norm(tokens)


class QueryDecoder(nn.Module):
    """Learned queries, one per step, with attention to each other and to a memory.

    Args:
        width: Width of queries and memory.
        queries: Number of steps T.
        depth: Blocks.
        heads: Attention heads.
        hidden: Width inside the feed-forward parts.
        dropout: Dropout rate in training.
    """

    def __init__(self, width: int, *, queries: int, depth: int, heads: int, hidden: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.empty(queries, width))
        self.blocks = nn.ModuleList(
            PostNormDecoderBlock(width, heads=heads, hidden=hidden, dropout=dropout) for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width)
        self.draw(None)

    def draw(self, generator: Generator | None) -> None:
        """Draw the queries from a standard normal distribution."""
        nn.init.normal_(self.queries, generator=generator)

    def forward(self, memory: Annotated[Tensor, "B K D"], visible: Visible | None = None) -> Annotated[Tensor, "B T D"]:
        """Output of each query; steps that are not `visible` are not attended to."""
        x = self.queries.expand(len(memory), -1, -1)
        for block in self.blocks:
            x = block(x, memory, visible)
        return self.norm(x)


class LatentChunk(nn.Module):
    """Predicts the target's latents of the current and following states through a narrow network.

    Args:
        sizes: All sizes.
    """

    def __init__(self, sizes: ChunkSizes) -> None:
        super().__init__()
        self.enter = nn.Linear(sizes.width, sizes.narrow)
        self.decoder = QueryDecoder(
            sizes.narrow,
            queries=sizes.horizon,
            depth=sizes.narrow_depth,
            heads=sizes.heads,
            hidden=sizes.narrow_hidden,
            dropout=sizes.dropout,
        )
        self.leave = nn.Linear(sizes.narrow, sizes.width)
        self.horizon = sizes.horizon

    def forward(
        self, context: Annotated[Tensor, "B K D"], visible: Visible | None = None
    ) -> Annotated[Tensor, "B T D"]:
        """Latents of T states from the tokens of the current state."""
        return self.leave(self.decoder(self.enter(context), visible))


class ActionChunk(nn.Module):
    """Predicts a chunk of actions, in standardised units.

    Args:
        sizes: All sizes.
        action_dim: Width A of an action.
    """

    def __init__(self, sizes: ChunkSizes, *, action_dim: int) -> None:
        super().__init__()
        self.decoder = QueryDecoder(
            sizes.width,
            queries=sizes.chunk,
            depth=sizes.decoder_depth,
            heads=sizes.heads,
            hidden=sizes.hidden,
            dropout=sizes.dropout,
        )
        self.head = nn.Linear(sizes.width, action_dim)
        self.chunk, self.action_dim = sizes.chunk, action_dim

    def forward(
        self, context: Annotated[Tensor, "B K D"], visible: Visible | None = None
    ) -> Annotated[Tensor, "B H A"]:
        """Actions of H steps from the tokens of the current state."""
        return self.head(self.decoder(context, visible))
