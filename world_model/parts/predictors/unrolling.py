"""Step-by-step rollouts from a shared past: with a key-value cache, or window by window."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from jepa_mpc.world_model.parts.predictors.kept import Kept
from jepa_mpc.world_model.parts.predictors.trunk import Attend, AttendLast, frame_causal_mask

if TYPE_CHECKING:
    from jepa_mpc.world_model.parts.predictors.causal import CausalPredictor


class _Unrolling(ABC):
    """Shared parts of both modes: the newest state of each candidate, worlds and candidates flattened to one axis.

    Args:
        predictor: The predictor.
        latents: Context `(B, T, N, D)`, shared by the candidates.
        actions: `(B, T-1, A)` between them, in the predictor's units.
        candidates: Number of plans S per world.
        proprio: `(B, T, P)`, or None.
        horizon: Number of steps, if known; memory for them is preallocated.
    """

    def __init__(
        self,
        predictor: CausalPredictor,
        latents: Tensor,
        actions: Tensor,
        *,
        candidates: int,
        proprio: Tensor | None = None,
        horizon: int | None = None,
    ) -> None:
        self.predictor = predictor
        self.candidates = candidates
        self.worlds, num_frames, self.num_tokens = latents.shape[:3]
        self.state = share(latents[:, -1], candidates)  # (B S, N, D)
        self.proprio = None if proprio is None else share(proprio[:, -1], candidates)  # (B S, P)
        self.past = latents[:, :-1]  # (B, T-1, N, D)
        self.past_modulations: list[Tensor] = []
        if num_frames > 1:
            before = None if proprio is None else proprio[:, :-1]
            self.past_modulations = predictor.trunk.modulations(predictor.condition(actions, before))
        window = predictor.positions.window
        frames = 2 * window if horizon is None else min(2 * window, num_frames - 1 + horizon)
        self.room = frames * self.num_tokens

    def step(self, actions: Tensor) -> Tensor:
        """Take one step with one action per candidate: `(B, S, A)` in, the next states `(B, S, N, D)` out."""
        condition = self.predictor.condition(actions.flatten(0, 1), self.proprio)  # (B S, W)
        return self.advance(self.predictor.trunk.modulations(condition[:, None]))

    def advance(self, modulations: list[Tensor]) -> Tensor:
        """Take one step with known modulations `(B S, 1, 6 width)`."""
        raw = self._look(modulations)  # (B S, N, D)
        if self.proprio is not None and self.predictor.proprio is not None:
            self.proprio = self.predictor.proprio.advance(self.proprio, raw)
        self.state = self.predictor.output(raw, self.state)
        return self.state.unflatten(0, (self.worlds, self.candidates))

    @abstractmethod
    def _look(self, modulations: list[Tensor]) -> Tensor:
        """The trunk's output for the newest frame, `(B S, N, D)`."""

    def _read_past(self, first: int, *, room: int) -> list[Kept]:
        """The keys and values of each block for the context's frames from `first` on, computed once per world."""
        limit = self.predictor.positions.window * self.num_tokens
        kept = [Kept(limit=limit) for _ in self.predictor.trunk.blocks]
        past = self.past[:, first:]
        num_frames = past.shape[1]
        if num_frames:
            positions = self.predictor.positions
            turn = positions.turner(0, num_frames, self.num_tokens)
            mask = frame_causal_mask(num_frames, self.num_tokens, window=positions.window, device=past.device)
            modulations = [modulation[:, first:] for modulation in self.past_modulations]
            ways = [Attend(turn=turn, mask=mask, kept=store) for store in kept]
            self.predictor.trunk(positions.embed(past), modulations, ways)
        return [store.shared(self.candidates, room=room) for store in kept]


class CachedUnrolling(_Unrolling):
    """One new frame per step over cached keys and values; equal to recomputing all frames, for absolute positions."""

    kept: list[Kept] | None = None
    frame = 0

    def _look(self, modulations: list[Tensor]) -> Tensor:
        if self.kept is None:
            self.kept, self.frame = self._read_past(0, room=self.room), self.past.shape[1]
        turn = self.predictor.positions.turner(self.frame, 1, self.num_tokens)
        ways = [Attend(turn=turn, kept=store) for store in self.kept]
        self.frame += 1
        return self.predictor.trunk(self.predictor.positions.embed(self.state[:, None]), modulations, ways)[:, 0]


class WindowedUnrolling(_Unrolling):
    """Recomputes the last window in each step, as restarting positions require, without redundant work.

    Exact savings: modulations depend on the action alone and are computed once; while the window grows, its first frame
    is fixed and one new frame per step is sufficient; the context's frames with past actions are shared by all
    candidates of a world; after the last block's attention only the newest frame is needed.

    Reference: Maes et al. 2026, arXiv:2603.19312.
    """

    kept: list[Kept] | None = None
    first = -1  # the window's first frame

    def __init__(self, predictor: CausalPredictor, latents: Tensor, actions: Tensor, **options: Any) -> None:
        super().__init__(predictor, latents, actions, **options)
        self.end = self.past.shape[1]  # frames known so far
        self.frames: list[Tensor] = []  # (B S, N, D) each: the candidates' own, from the present on
        self.modulations: list[list[Tensor]] = []  # per frame, per block (B S, 1, 6 width)

    def _look(self, modulations: list[Tensor]) -> Tensor:
        window, num_past = self.predictor.positions.window, self.past.shape[1]
        self.frames.append(self.state)
        self.modulations.append(modulations)
        self.end = end = self.end + 1
        first = max(0, end - window)
        fresh = 1
        if self.kept is None or first != self.first:
            room = window * self.num_tokens if end < window else 0
            self.first, self.kept = first, self._read_past(first, room=room)
            fresh = end - max(first, num_past)
            del self.frames[:-fresh], self.modulations[:-fresh]
        return self._run(fresh, first=end - fresh - first)

    def _run(self, fresh: int, *, first: int) -> Tensor:
        """Run the newest `fresh` frames, from position `first` of the window on, with attention to cached ones."""
        assert self.kept is not None
        states = torch.stack(self.frames[-fresh:], dim=1)  # (B S, fresh, N, D)
        modulations = [torch.cat(of_block, dim=1) for of_block in zip(*self.modulations[-fresh:], strict=True)]
        mask = frame_causal_mask(first + fresh, self.num_tokens, window=first + fresh, device=states.device)
        mask = None if mask is None or fresh == 1 else mask[first * self.num_tokens :]
        turn = self.predictor.positions.turner(first, fresh, self.num_tokens)
        ways = [*(Attend(turn=turn, mask=mask, kept=store) for store in self.kept[:-1]), AttendLast(kept=self.kept[-1])]
        return self.predictor.trunk(self.predictor.positions.embed(states, first=first), modulations, ways)[:, -1]


def share(x: Tensor, candidates: int) -> Tensor:
    """Repeat each world's tensor for its candidates: `(B, ...)` in, `(B S, ...)` out."""
    return x[:, None].expand(-1, candidates, *x.shape[1:]).flatten(0, 1)
