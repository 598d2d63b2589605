"""Imagining step by step from a shared past: with kept keys and values, or window by window."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from world_model.predictors.trunk import Attend, AttendLast, KeyValue, frame_causal_mask

if TYPE_CHECKING:
    from world_model.predictors.causal import CausalPredictor


class _Unrolling:
    """What both ways share: the newest state of each candidate, worlds and candidates flattened to one axis."""

    def __init__(self, predictor: CausalPredictor, latents: Tensor, *, candidates: int, proprio: Tensor | None) -> None:
        self.predictor = predictor
        self.candidates = candidates
        self.worlds = latents.shape[0]
        self.state = share(latents[:, -1], candidates)  # (B S, N, D)
        self.proprio = None if proprio is None else share(proprio[:, -1], candidates)  # (B S, P)

    def step(self, actions: Tensor) -> Tensor:
        """Go on by one action per candidate: `(B, S, A)` in, the states `(B, S, N, D)` that follow out."""
        condition = self.predictor.condition(actions.flatten(0, 1), self.proprio)  # (B S, W)
        return self.advance(self.predictor.trunk.modulations(condition[:, None]))

    def advance(self, modulations: list[Tensor]) -> Tensor:
        """Go on by one step whose modulations `(B S, 1, 6 width)` are known."""
        raw = self._look(modulations)  # (B S, N, D)
        if self.proprio is not None and self.predictor.proprio is not None:
            self.proprio = self.predictor.proprio.advance(self.proprio, raw)
        self.state = self.predictor.output(raw, self.state)
        return self.state.unflatten(0, (self.worlds, self.candidates))

    def _look(self, modulations: list[Tensor]) -> Tensor:
        raise NotImplementedError


class CachedUnrolling(_Unrolling):
    """One new frame per step over kept keys and values; equal to running all frames anew, for absolute positions.

    Args:
        predictor: The predictor, whose positions must not restart.
        latents: Context `(B, T, N, D)`, shared by the candidates.
        actions: `(B, T-1, A)` between them, in the predictor's units.
        candidates: Number of plans S per world.
        proprio: `(B, T, P)`, or None.
    """

    def __init__(
        self,
        predictor: CausalPredictor,
        latents: Tensor,
        actions: Tensor,
        *,
        candidates: int,
        proprio: Tensor | None = None,
    ) -> None:
        super().__init__(predictor, latents, candidates=candidates, proprio=proprio)
        self.frame = latents.shape[1] - 1
        self.num_tokens = latents.shape[2]
        self.keep = (predictor.positions.window - 1) * self.num_tokens
        self.past: list[KeyValue | None] = [None] * len(predictor.trunk.blocks)
        if self.frame:
            self._read_past(latents[:, :-1], actions, None if proprio is None else proprio[:, :-1])

    def _read_past(self, latents: Tensor, actions: Tensor, proprio: Tensor | None) -> None:
        turn = self.predictor.positions.turner(0, self.frame, self.num_tokens)
        window = self.predictor.positions.window
        mask = frame_causal_mask(self.frame, self.num_tokens, window=window, device=latents.device)
        modulations = self.predictor.trunk.modulations(self.predictor.condition(actions, proprio))
        past = self._run(latents, modulations, [Attend(turn=turn, mask=mask) for _ in self.past])[1]
        self.past = [pair and (share(pair[0], self.candidates), share(pair[1], self.candidates)) for pair in past]

    def _look(self, modulations: list[Tensor]) -> Tensor:
        turn = self.predictor.positions.turner(self.frame, 1, self.num_tokens)
        ways = [Attend(turn=turn, past=past) for past in self.past]
        raw, self.past = self._run(self.state[:, None], modulations, ways)
        self.frame += 1
        return raw[:, 0]

    def _run(
        self, states: Tensor, modulations: list[Tensor], ways: list[Attend]
    ) -> tuple[Tensor, list[KeyValue | None]]:
        raw = self.predictor.trunk(self.predictor.positions.embed(states), modulations, ways)
        return raw, [self._recent(way.seen) for way in ways]

    def _recent(self, seen: KeyValue) -> KeyValue | None:
        if not self.keep:
            return None
        return seen[0][:, :, -self.keep :], seen[1][:, :, -self.keep :]


class WindowedUnrolling(_Unrolling):
    """The last window anew in each step, as positions that restart demand; modulations once, last frame last.

    Exact: modulations depend on the action alone, and after the last block's attention only the newest frame matters.

    Args:
        predictor: The predictor.
        latents: Context `(B, T, N, D)`, shared by the candidates.
        actions: `(B, T-1, A)` between them, in the predictor's units.
        candidates: Number of plans S per world.
        proprio: `(B, T, P)`, or None.

    Reference: Maes et al. 2026, arXiv:2603.19312.
    """

    def __init__(
        self,
        predictor: CausalPredictor,
        latents: Tensor,
        actions: Tensor,
        *,
        candidates: int,
        proprio: Tensor | None = None,
    ) -> None:
        super().__init__(predictor, latents, candidates=candidates, proprio=proprio)
        before = predictor.positions.window - 1
        past = latents[:, :-1][:, max(0, latents.shape[1] - 1 - before) :]
        self.frames = share(past, candidates)  # (B S, window - 1 at most, N, D)
        self.modulations: list[Tensor] | None = None
        if past.shape[1]:
            steps = past.shape[1]
            seen = None if proprio is None else proprio[:, :-1][:, -steps:]
            known = predictor.trunk.modulations(predictor.condition(actions[:, -steps:], seen))
            self.modulations = [share(modulation, candidates) for modulation in known]

    def _look(self, modulations: list[Tensor]) -> Tensor:
        positions = self.predictor.positions
        frames = torch.cat([self.frames, self.state[:, None]], dim=1)
        if self.modulations is not None:
            pairs = zip(self.modulations, modulations, strict=True)
            modulations = [torch.cat(pair, dim=1) for pair in pairs]
        num_frames, num_tokens = frames.shape[1:3]
        mask = frame_causal_mask(num_frames, num_tokens, window=positions.window, device=frames.device)
        turn = positions.turner(0, num_frames, num_tokens)
        ways = [Attend(turn=turn, mask=mask) for _ in modulations[:-1]] + [AttendLast()]
        raw = self.predictor.trunk(positions.embed(frames), modulations, ways)
        drop = max(0, num_frames - (positions.window - 1))
        self.frames = frames[:, drop:]
        kept = [modulation[:, drop:] for modulation in modulations]
        self.modulations = kept if self.frames.shape[1] else None
        return raw[:, -1]


def share(x: Tensor, candidates: int) -> Tensor:
    """Give each candidate a copy of its world's tensor: `(B, ...)` in, `(B S, ...)` out."""
    return x[:, None].expand(-1, candidates, *x.shape[1:]).flatten(0, 1)
