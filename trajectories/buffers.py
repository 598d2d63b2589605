"""Memory that is used again for every batch."""

from __future__ import annotations

from torch import Tensor


class Buffers:
    """Memory for batches that is used again and again: a fresh page costs several times what copying into it does.

    A batch that was drawn into buffers is overwritten by the next one of the same shape.
    """

    def __init__(self) -> None:
        self._held: dict[tuple[object, ...], Tensor] = {}

    def like(self, name: str, source: Tensor, rows: int) -> Tensor:
        """An uninitialised tensor `rows ...` with the dtype, device and row shape of a source `G ...`."""
        key = (name, rows, source.shape[1:], source.dtype, source.device)
        if key not in self._held:
            self._held[key] = source.new_empty((rows, *source.shape[1:]))
        return self._held[key]
