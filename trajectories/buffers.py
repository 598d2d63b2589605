"""Reusable memory for batches."""

from __future__ import annotations

from torch import Tensor


class Buffers:
    """Reusable memory for batches: allocating fresh pages costs several times as much as the copy into them.

    The next batch of the same shape overwrites a batch that was sampled into these buffers.
    """

    def __init__(self) -> None:
        self._held: dict[tuple[object, ...], Tensor] = {}

    def like(self, name: str, source: Tensor, rows: int) -> Tensor:
        """An uninitialised tensor `rows ...` with the dtype, device and row shape of a source `G ...`."""
        key = (name, rows, source.shape[1:], source.dtype, source.device)
        if key not in self._held:
            self._held[key] = source.new_empty((rows, *source.shape[1:]))
        return self._held[key]
