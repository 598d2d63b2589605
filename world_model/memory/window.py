"""Short-term memory: what the world model is told of the past."""

from __future__ import annotations

from collections import deque
from typing import Annotated

import torch
from torch import Tensor

from jepa_mpc.shapes import check_shape
from jepa_mpc.types import Context, State


class ShortTermMemory:
    """The last latents of all worlds and the actions between them: a ring that never grows.

    Seeing and doing alternate: see, did, see, did, ...; the memory is read after seeing.

    Args:
        max_frames: Latents that are kept (T).
        action_dim: Numbers per action (A).
    """

    def __init__(self, *, max_frames: int, action_dim: int) -> None:
        if max_frames < 1 or action_dim < 0:
            raise ValueError(f"need max_frames >= 1 and action_dim >= 0, got {max_frames} and {action_dim}")
        self.action_dim = action_dim
        self._latents: deque[Tensor] = deque(maxlen=max_frames)
        self._actions: deque[Tensor] = deque(maxlen=max_frames - 1)
        self._proprio: deque[Tensor] = deque(maxlen=max_frames)
        self._saw_last = False

    def clear(self) -> None:
        """Forget everything."""
        self._latents.clear()
        self._actions.clear()
        self._proprio.clear()
        self._saw_last = False

    def see(self, latents: State, proprio: Annotated[Tensor, "B P"] | None = None) -> None:
        """Append what was just perceived: latents `B N D`, and proprioception `B P` if the robot tells it.

        Raises:
            RuntimeError: If nothing was done since the last state.
            ValueError: If a shape differs from what is remembered, or proprioception comes sometimes.
        """
        if self._saw_last:
            raise RuntimeError("two states without an action between them: call did(action) first, or clear()")
        check_shape(latents, "B N D")
        if self._latents:
            check_shape(latents, "B N D", **dict(zip("BND", self._latents[-1].shape, strict=True)))
            if (proprio is None) != (len(self._proprio) == 0):
                raise ValueError("proprioception must come with every state or with none since clear()")
        if proprio is not None:
            check_shape(proprio, "B P", B=latents.shape[0])
            self._proprio.append(proprio.detach())
        self._latents.append(latents.detach())
        self._saw_last = True

    def did(self, action: Annotated[Tensor, "B A"]) -> None:
        """Append what was just done, `B A` in physical units.

        Raises:
            RuntimeError: If nothing was seen before the action.
            ValueError: If the shape is not `B A`.
        """
        if not self._saw_last:
            raise RuntimeError("an action without a state before it: call see(latents) first")
        check_shape(action, "B A", B=self._latents[-1].shape[0], A=self.action_dim)
        self._actions.append(action.detach().clone())
        self._saw_last = False

    def read(self) -> Context:
        """The remembered latents `B T N D` and the actions between them `B T-1 A`, oldest first.

        Raises:
            RuntimeError: If the last entry is not a state.
        """
        if not self._saw_last:
            raise RuntimeError("nothing was seen since the last action: call see(latents) before read()")
        latents = torch.stack(tuple(self._latents), dim=1)  # (B, T, N, D)
        proprio = torch.stack(tuple(self._proprio), dim=1) if self._proprio else None  # (B, T, P)
        if self._actions:
            return Context(latents=latents, actions=torch.stack(tuple(self._actions), dim=1), proprio=proprio)
        none = latents.new_zeros(latents.shape[0], 0, self.action_dim)
        return Context(latents=latents, actions=none, proprio=proprio)
