"""Probes: small maps from frozen tokens to a few numbers, fitted on some labs and evaluated on others."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from jepa_mpc.encoders.layers.weights import draw_weights
from jepa_mpc.seeding import generator
from jepa_mpc.trajectories.bank import FrameBank
from jepa_mpc.trajectories.episode import OBJECT

PENALTIES = (1e-2, 1e-1, 1.0, 10.0, 100.0)
HAND = slice(-6, -3)
"""Position of the hand in the proprioception."""

Predict = Callable[[Tensor], Tensor]
Distance = Callable[[Tensor, Tensor], Tensor]

NEAR: Distance = partial(F.smooth_l1_loss, beta=0.1)
"""Distance of standardised positions."""


@dataclass(frozen=True, kw_only=True)
class Samples:
    """Encoded frames with their targets.

    Args:
        tokens: `G N D`.
        places: Target positions `G 3`, m; or other numbers to read, `G Q`.
        looks: Lab index of each frame `G`; frames of one lab look alike.
    """

    tokens: Tensor
    places: Tensor
    looks: Tensor

    def first(self, share: float) -> Samples:
        """The first frames, a share of all; at least ten, the minimum for fitting and selecting a probe."""
        rows = slice(max(10, round(share * len(self.places))))
        return Samples(tokens=self.tokens[rows], places=self.places[rows], looks=self.looks[rows])


def places_of(drawn: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Positions of hand and object in the first observation of each window: `B 3` (m) by name.

    Args:
        drawn: Windows sampled from a log.

    Raises:
        ValueError: If the log has no position.
    """
    places = {"object": drawn[OBJECT][:, 0]} if OBJECT in drawn else {}
    if drawn["proprio"].shape[-1] >= -HAND.start:
        places = {"hand": drawn["proprio"][:, 0, HAND], **places}
    if not places:
        raise ValueError("this log has neither hand nor object positions, so there is nothing to probe")
    return places


def samples(
    bank: FrameBank, encode: Predict, count: int, *, seed: int, side: str, sees: str = "frames"
) -> dict[str, Samples]:
    """Frames sampled uniformly from a bank, each encoded by itself, the same for every encoder; by the target to read.

    Args:
        bank: The bank.
        encode: Frames `G C h w` to tokens `G N D`.
        count: Frames G.
        seed, side: What the sample depends on.
        sees: Entry of the log that is encoded.

    Raises:
        ValueError: If the log has no position, or no input for the encoder.
    """
    drawn = bank.sample(count, 1, generator=generator(seed, "probe frames", side))
    places = places_of(drawn)
    if sees not in drawn:
        raise ValueError(f"the encoder sees {sees}, and the log holds {', '.join(drawn)}")
    tokens, looks = encode(drawn[sees][:, 0]), bank.groups[drawn["episode"]]
    return {name: Samples(tokens=tokens, places=place, looks=looks) for name, place in places.items()}


def linear(train: Samples, *, generator: Generator) -> Predict:
    """Ridge regression on all tokens concatenated; selects the best of five penalties on a fifth of the frames.

    In its dual form: the inner products of the frames `G G` are computed once, for all penalties and for both sets.

    Args:
        train: Training frames.
        generator: Unused: nothing is random.
    """
    flat = train.tokens.flatten(1)
    centre, spread = _moments(flat)
    spread = spread * math.sqrt(flat.shape[1])
    x = (flat - centre) / spread
    gram, places = (x @ x.T).double(), train.places.double()
    cut = round(0.8 * len(places))

    def missed(penalty: float) -> float:
        middle, dual = _ridge(gram[:cut, :cut], places[:cut], penalty)
        return float((gram[cut:, :cut] @ dual + middle - places[cut:]).norm(dim=1).mean())

    middle, dual = _ridge(gram, places, min(PENALTIES, key=missed))
    weights = x.T.double() @ dual

    def predict(tokens: Tensor) -> Tensor:
        return (((tokens.flatten(1) - centre) / spread).double() @ weights + middle).float()

    return predict


def _ridge(gram: Tensor, places: Tensor, penalty: float) -> tuple[Tensor, Tensor]:
    """Mean `3` of the positions, and dual weights `G 3` of their deviations."""
    middle = places.mean(0)
    regular = gram + penalty * 1e-2 * torch.eye(len(gram), dtype=gram.dtype)
    return middle, torch.cholesky_solve(places - middle, torch.linalg.cholesky(regular))


def _moments(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation `D` of rows `G D`; `Tensor.std` over rows takes several times as long."""
    centre = rows.mean(0)
    return centre, (rows - centre).square().mean(0).sqrt().clamp_min(1e-6)


class AttentiveReader(nn.Module):
    """Attentive probe: one learned query attends to all tokens with positional embeddings; a linear map follows.

    Args:
        num_tokens: N.
        inputs: Width D of the tokens.
        width: Width of the probe.
        heads: Attention heads.
        outputs: Number of outputs.
    """

    def __init__(self, num_tokens: int, inputs: int, *, width: int = 64, heads: int = 4, outputs: int = 3) -> None:
        super().__init__()
        self.heads = heads
        self.embed = nn.Linear(inputs, width)
        self.marks = nn.Parameter(torch.empty(num_tokens, width))
        self.query = nn.Parameter(torch.empty(heads, 1, width // heads))
        self.to_kv = nn.Linear(width, 2 * width)
        self.mix = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.GELU(), nn.Linear(width, outputs))

    def draw(self, generator: Generator | None) -> None:
        """Draw positional embeddings (std 0.02) and the query (std 1) from normal distributions."""
        nn.init.normal_(self.marks, std=0.02, generator=generator)
        nn.init.normal_(self.query, generator=generator)

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens `(G, N, D)` to numbers `(G, outputs)`.

        A query that is the same for all frames needs no keys or values of single tokens:

            score = q . (K (E t + m)) = (E^T K^T q) . t + (K^T q) . m        value = V (E sum(w t) + sum(w m))
        """
        to_key, to_value = (part.unflatten(0, (self.heads, -1)) for part in self.to_kv.weight.chunk(2))  # (H, W/H, W)
        asked = (self.query @ to_key)[:, 0] / math.sqrt(to_key.shape[1])  # (H, W)
        shares = (tokens @ (asked @ self.embed.weight).T + self.marks @ asked.T).softmax(dim=1)  # (G, N, H)
        seen = self.embed(shares.transpose(1, 2) @ tokens) + shares.transpose(1, 2) @ self.marks  # (G, H, W)
        offset = self.to_kv.bias.chunk(2)[1]
        return self.mix(torch.einsum("ghw,hvw->ghv", seen, to_value).flatten(1) + offset)


def attentive(
    train: Samples,
    *,
    generator: Generator,
    steps: int = 600,
    batch: int = 128,
    rate: float = 2e-3,
    distance: Distance = NEAR,
) -> Predict:
    """An attentive probe, trained by AdamW on standardised tokens and positions.

    Args:
        train: Training frames.
        generator: Draws weights and batches.
        steps: Optimiser steps.
        batch: Frames per step.
        rate: Peak learning rate, with cosine decay to zero.
        distance: Between read and true numbers, standardised.
    """
    centre, spread = _moments(train.tokens.flatten(0, 1))
    middle, scale = train.places.mean(0), train.places.std(0).clamp_min(1e-6)
    reader = AttentiveReader(train.tokens.shape[1], train.tokens.shape[2], outputs=train.places.shape[1])
    draw_weights(reader, generator)
    tokens, wanted = (train.tokens - centre) / spread, (train.places - middle) / scale
    optimiser = torch.optim.AdamW(reader.parameters(), lr=rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(steps):
        chosen = torch.randint(len(train.places), (batch,), generator=generator)
        gap = distance(reader(tokens[chosen]), wanted[chosen])
        optimiser.zero_grad()
        gap.backward()
        optimiser.step()
        schedule.step()

    @torch.no_grad()
    def predict(tokens: Tensor) -> Tensor:
        return reader((tokens - centre) / spread) * scale + middle

    return predict


READERS: dict[str, Callable[..., Predict]] = {"linear": linear, "attentive": attentive}
"""Name -> fitting function of a probe."""


def judge(predict: Predict, held: Samples) -> dict[str, float]:
    """Median and mean error (cm) and R^2 on held-out frames, and R^2 within labs.

    `r2_alike` compares with the mean position of each lab. Features that only encode the appearance of a scene, which
    hardly changes within an episode, cannot exceed 0 there, however well they do across labs.
    """
    missed = predict(held.tokens) - held.places
    spread = (held.places - held.places.mean(0)).square().sum()
    alike = (held.places - mean_of_look(held)).square().sum()
    length = 100 * missed.norm(dim=1)
    return {
        "median_cm": float(length.median()),
        "mean_cm": float(length.mean()),
        "r2": 1 - float(missed.square().sum() / spread),
        "r2_alike": 1 - float(missed.square().sum() / alike),
    }


def mean_of_look(samples: Samples) -> Tensor:
    """Mean position `G 3` over the frames of the same lab."""
    _, number = samples.looks.unique(return_inverse=True)
    count = int(number.max()) + 1
    sums = torch.zeros(count, samples.places.shape[1]).index_add(0, number, samples.places)
    return (sums / torch.bincount(number, minlength=count)[:, None])[number]
