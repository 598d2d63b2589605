"""Step-by-step rollouts with a key-value cache: exact, for a predictor with absolute positions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from jepa_mpc.types import Latents
from jepa_mpc.world_model.parts.poses import integrate
from jepa_mpc.world_model.parts.predictors.trunk import KeyValue, frame_causal_mask

if TYPE_CHECKING:
    from jepa_mpc.world_model.parts.predictors.block_causal import BlockCausalPredictor


class Remembering:
    """A rollout in progress: the cached past, and the newest frame and pose of each candidate.

    Frames before the newest one are encoded and stored once per world, for any number of candidates; a block
    concatenates them with a candidate's own keys and values during attention. The newest frame is embedded once per
    world; its tokens attend to the candidate's action, so each candidate has its own from there on.

    Args:
        predictor: The predictor.
        latents: Context `(B, T, N, D)`.
        motions: `(B, T-1, 7)` between its frames.
        poses: `(B, T, 7)`.
        candidates: Number of plans S per world.
    """

    def __init__(
        self, predictor: BlockCausalPredictor, latents: Latents, motions: Tensor, poses: Tensor, *, candidates: int
    ) -> None:
        self.predictor, self.candidates = predictor, candidates
        self.time = latents.shape[1] - 1
        self.shared: list[KeyValue] | None = None
        self.own: list[list[KeyValue]] = [[] for _ in predictor.blocks]
        patches = predictor.embed(latents)
        if self.time:
            self.shared = self._read(patches[:, :-1], motions, poses[:, :-1])
        self.state = latents[:, -1:].expand(-1, candidates, -1, -1)  # (B, S, N, D), a view
        self.patches = patches[:, -1:].expand(-1, candidates, -1, -1)  # (B, S, N, W), a view
        self.pose = poses[:, -1:].expand(-1, candidates, -1)  # (B, S, 7), a view

    def step(self, motions: Tensor, *, last: bool = False) -> tuple[Tensor, Tensor]:
        """Take one step with one motion per candidate.

        Args:
            motions: `(B, S, 7)`.
            last: Do not cache for a further step.

        Returns:
            The next latents `(B, S, N, D)` and poses `(B, S, 7)`.
        """
        predictor = self.predictor
        x = predictor.tokens(self.patches, motions, self.pose).flatten(0, 1)  # (B S, M, W)
        angles = predictor.angles(self.time, 1, device=x.device)
        for number, block in enumerate(predictor.blocks):
            query, key, value = block.project(x, angles)
            joined = self._joined(number, (key, value))
            if not last:
                self.own[number].append((key, value))
            x = block.finish(x, query, *joined)
        self.state = predictor.finish(x.unflatten(0, self.pose.shape[:2]), self.state)
        self.pose = integrate(self.pose, motions.to(self.pose.dtype))
        self.time += 1
        if not last:
            self.patches = predictor.embed(self.state)
        return self.state, self.pose

    def _joined(self, number: int, newest: KeyValue) -> KeyValue:
        """All keys and values for one block's newest queries, oldest first."""
        if self.shared is None and not self.own[number]:
            return newest
        worlds = (-1, self.candidates)
        pairs = [(key.unflatten(0, worlds), value.unflatten(0, worlds)) for key, value in (*self.own[number], newest)]
        if self.shared is not None:
            key, value = (part[:, None].expand(-1, self.candidates, -1, -1, -1) for part in self.shared[number])
            pairs.insert(0, (key, value))
        keys, values = zip(*pairs, strict=True)  # each (B, S, heads, L, head_dim)
        return torch.cat(keys, dim=3).flatten(0, 1), torch.cat(values, dim=3).flatten(0, 1)

    def _read(self, patches: Tensor, motions: Tensor, poses: Tensor) -> list[KeyValue]:
        """Keys and values `(B, heads, L, head_dim)` of the older frames, per block."""
        tokens = self.predictor.tokens(patches, motions, poses)
        steps, width = tokens.shape[1:3]
        mask = frame_causal_mask(steps, width, window=steps, device=tokens.device)
        angles = self.predictor.angles(0, steps, device=tokens.device)
        x, kept = tokens.flatten(1, 2), []
        for block in self.predictor.blocks:
            query, key, value = block.project(x, angles)
            kept.append((key, value))
            x = block.finish(x, query, key, value, mask)
        return kept
