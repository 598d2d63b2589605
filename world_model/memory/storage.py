"""The tensors of a replay buffer: one slot per step of each world, reused cyclically."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor
from torch.nn import functional as F

from jepa_mpc.shapes import check_shape
from jepa_mpc.types import State

Key = Callable[[State, Tensor | None], Annotated[Tensor, "B K"]]
NEVER = -1


def pooled_key(latents: State, proprio: Annotated[Tensor, "B P"] | None) -> Annotated[Tensor, "B K"]:
    """Unit-norm key: the mean token, concatenated with the proprioception if there is any."""
    pooled = F.normalize(latents.mean(dim=-2), dim=-1)
    return pooled if proprio is None else F.normalize(torch.cat([pooled, proprio], dim=-1), dim=-1)


@dataclass(frozen=True, kw_only=True)
class Retrieved:
    """Stored states similar to a query.

    Args:
        latents: `B K N D`, the most similar first.
        weights: softmax(q . k / temperature) over the K retrieved `B K`; 0 for missing ones.
        steps: Their steps `B K`; -1 for missing ones.
        costs: Their intrinsic cost `B K`; NaN where unknown.
        actions: The actions executed there `B K A`.
    """

    latents: Annotated[Tensor, "B K N D"]
    weights: Annotated[Tensor, "B K"]
    steps: Annotated[Tensor, "B K"]
    costs: Annotated[Tensor, "B K"]
    actions: Annotated[Tensor, "B K A"]


@dataclass(frozen=True, kw_only=True)
class DelayedPairs:
    """States and the intrinsic cost some steps later in the same episode (G of them).

    Args:
        latents: `G N D`.
        proprio: `G P`, or None.
        goals: The goal of their episode `G N D`; the state itself if there is none.
        costs: IC_{t+d} `G`.
        weights: 1 for observed states, at most 1/2 for predicted ones `G`.
    """

    latents: Annotated[Tensor, "G N D"]
    proprio: Annotated[Tensor, "G P"] | None
    goals: Annotated[Tensor, "G N D"]
    costs: Annotated[Tensor, "G"]
    weights: Annotated[Tensor, "G"]


class Slots:
    """Named tensors `B C ...`; step t lies in slot t mod C. Allocated with the first state, on its device.

    Args:
        capacity: Slots per world (C).
        action_dim: Width of an action (A).
        key: Computes the retrieval key of a state.
        dtype: Storage dtype of the latents; by default that of the first ones.
    """

    def __init__(self, *, capacity: int, action_dim: int, key: Key, dtype: torch.dtype | None) -> None:
        self.capacity, self.action_dim = capacity, action_dim
        self.key, self.dtype = key, dtype
        self._store: dict[str, Tensor] = {}
        self._given_dtype = torch.float32
        self._first_goal: State | None = None

    @property
    def batch(self) -> int:
        """Number of worlds B; 0 before the first state."""
        return len(self._store["now"]) if self._store else 0

    @property
    def feels(self) -> bool:
        """Whether states come with proprioception."""
        return "proprio" in self._store

    @property
    def now(self) -> Annotated[Tensor, "B"]:
        """The last observed step of each world; -1 before the first."""
        return self._kept()["now"]

    def _kept(self) -> dict[str, Tensor]:
        if not self._store:
            raise RuntimeError("the memory is empty: call see(latents) first")
        return self._store

    def _check(self, latents: State, proprio: Tensor | None) -> None:
        sizes = check_shape(latents, "B N D")
        if not self._store:
            self._allocate(latents, proprio)
        kept = self._store["latents"]
        check_shape(latents, "B N D", B=kept.shape[0], N=kept.shape[2], D=kept.shape[3])
        if (proprio is None) == ("proprio" in self._store):
            raise ValueError("proprioception must come with every state or with none")
        if proprio is not None:
            check_shape(proprio, "B P", B=sizes["B"])

    def _allocate(self, latents: State, proprio: Tensor | None) -> None:
        batch, tokens, width = latents.shape
        shape, device = (batch, self.capacity), latents.device
        self._given_dtype = latents.dtype
        kept = latents.new_zeros(*shape, tokens, width, dtype=self.dtype or latents.dtype)
        none = torch.full(shape, NEVER, device=device)
        self._store = {
            "latents": kept,
            "goal": torch.zeros_like(kept),
            "key": latents.new_zeros(*shape, self.key(latents, proprio).shape[1]),
            "action": latents.new_zeros(*shape, self.action_dim),
            "cost": latents.new_full(shape, torch.nan),
            "step": none,
            "episode": torch.zeros_like(none),
            "offset": torch.zeros_like(none),
            "predicted": torch.zeros(shape, dtype=torch.bool, device=device),
            "now": none[:, 0].clone(),
            "began": none[:, 0].clone(),
            "present_episode": torch.zeros_like(none[:, 0]),
            "present_goal": torch.full_like(kept[:, 0], torch.nan),
        }
        if self._first_goal is not None:
            self._store["present_goal"].copy_(self._first_goal)
        if proprio is not None:
            self._store["proprio"] = proprio.new_zeros(*shape, proprio.shape[1])

    def _write(self, steps: Tensor, latents: State, proprio: Tensor | None, *, predicted: int) -> None:
        store = self._store
        goal = store["present_goal"]
        values = {
            "latents": latents.detach(),
            "goal": torch.where(goal.isnan(), latents.to(goal), goal),
            "key": self.key(latents, proprio).detach() if proprio is not None or "proprio" not in store else 0.0,
            "action": 0.0,
            "cost": torch.nan,
            "step": steps,
            "episode": store["present_episode"],
            "offset": predicted,
            "predicted": predicted > 0,
        }
        if proprio is not None:
            values["proprio"] = proprio.detach()
        for name, value in values.items():
            self._put(name, steps, value)

    def _put(self, name: str, steps: Tensor, value: Tensor | float | bool) -> None:
        kept = self._store[name]
        rows = torch.arange(kept.shape[0], device=kept.device)
        kept[rows, steps % self.capacity] = value.to(kept) if isinstance(value, Tensor) else value

    def _get(self, name: str, steps: Annotated[Tensor, "B ..."]) -> Tensor:
        kept = self._store[name]
        rows = torch.arange(kept.shape[0], device=kept.device).view(-1, *[1] * (steps.dim() - 1))
        return kept[rows, steps % self.capacity]

    def _present(self, *, predicted: bool) -> Annotated[Tensor, "B C"]:
        store = self._store
        there = store["step"] != NEVER
        return there if predicted else there & ~store["predicted"]
