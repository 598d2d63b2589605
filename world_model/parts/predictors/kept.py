"""Key-value cache of a rollout."""

from __future__ import annotations

import torch
from torch import Tensor

KeyValue = tuple[Tensor, Tensor]


class Kept:
    """The last keys and values of one attention layer, at most `limit` tokens.

    Without gradients they are written into preallocated memory, so that old entries are not copied at each step; when
    it is full, the entries still in use move to new memory. With gradients they are concatenated at each step.

    Args:
        limit: Maximum number of attended tokens, including the newest.
        room: Tokens to preallocate; 0 if nothing follows the next step.
    """

    def __init__(self, *, limit: int, room: int = 0) -> None:
        self.limit = limit
        self.room = room
        self.pair: KeyValue | None = None  # (G, heads, L, head_dim) each
        self._store: KeyValue | None = None  # (G, room, heads, head_dim) each
        self._end = 0

    def extend(self, key: Tensor, value: Tensor) -> KeyValue:
        """Append `(G, heads, L, head_dim)`; returns all keys and values that the new tokens attend to."""
        past = self._old(key.shape[2])
        graph = key.requires_grad or (past is not None and past[0].requires_grad)
        known = 0 if past is None else past[0].shape[2]
        if graph or (self._store is None and known + key.shape[2] >= self.room):
            self._store, self.pair = None, _joined(past, (key, value))
        else:
            self.pair = self._written((key, value), past)
        return self.pair

    def _old(self, new: int) -> KeyValue | None:
        """The cached entries still in use when `new` tokens arrive."""
        stays = self.limit - new
        if self.pair is None or stays < 1:
            return None
        return self.pair[0][:, :, -stays:], self.pair[1][:, :, -stays:]

    def shared(self, candidates: int, *, room: int) -> Kept:
        """The same for each candidate, with room for the following steps: `(B, ...)` here, `(B S, ...)` there."""
        copy = Kept(limit=self.limit, room=room)
        if self.pair is not None:
            key, value = (x[:, None].expand(-1, candidates, *x.shape[1:]).flatten(0, 1) for x in self.pair)
            copy.pair = key, value
        return copy

    def _written(self, tokens: KeyValue, past: KeyValue | None) -> KeyValue:
        new, known = tokens[0].shape[2], 0 if past is None else past[0].shape[2]
        if self._store is None or self._end + new > self._store[0].shape[1]:
            self._set_aside(tokens[0], past)
        assert self._store is not None
        start, self._end = self._end, self._end + new
        for store, fresh in zip(self._store, tokens, strict=True):
            store[:, start : self._end] = fresh.transpose(1, 2)
        key, value = (store[:, start - known : self._end].transpose(1, 2) for store in self._store)
        return key, value

    def _set_aside(self, like: Tensor, past: KeyValue | None) -> None:
        """Allocate new memory, starting with the past."""
        rows, heads, new, head_dim = like.shape
        self._end = 0 if past is None else past[0].shape[2]
        room = max(self.room, self._end + new)
        self._store = like.new_empty(rows, room, heads, head_dim), like.new_empty(rows, room, heads, head_dim)
        if past is not None:
            for store, old in zip(self._store, past, strict=True):
                store[:, : self._end] = old.transpose(1, 2)


def _joined(past: KeyValue | None, new: KeyValue) -> KeyValue:
    if past is None:
        return new
    return torch.cat([past[0], new[0]], dim=2), torch.cat([past[1], new[1]], dim=2)
