"""Several logs as one weighted source of windows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from jepa_mpc.trajectories.framebank import FrameBank


@dataclass(frozen=True, kw_only=True)
class MixedBank:
    """Banks of several logs; each window comes from one of them, with a probability in proportion to its weight.

    Args:
        banks: The banks; their images, actions, proprioception and time steps must agree.
        weights: One positive number per bank.

    Raises:
        ValueError: If there is no bank, a weight is not positive and finite, or the banks differ; names the difference.
    """

    banks: tuple[FrameBank, ...]
    weights: tuple[float, ...]

    def __post_init__(self) -> None:
        if (
            not self.banks
            or len(self.banks) != len(self.weights)
            or not all(0 < weight < math.inf for weight in self.weights)
        ):
            raise ValueError(f"need banks and as many positive weights, got {len(self.banks)} and {self.weights}")
        first = self.banks[0]
        for at, bank in enumerate(self.banks):
            for name in ("channels", "picture", "action_dim", "proprio_dim"):
                mine, its = getattr(first, name), getattr(bank, name)
                if mine != its:
                    raise ValueError(
                        f"logs can only be mixed if they agree: {name} is {mine} in the first, {its} in number {at}"
                    )
            if abs(first.step_s - bank.step_s) > 1e-6:
                raise ValueError(
                    f"logs can only be mixed if they agree: steps of {first.step_s} s in the first, {bank.step_s} s "
                    f"in number {at}"
                )

    @property
    def action_dim(self) -> int:
        """Width of the action between two observations of a window."""
        return self.banks[0].action_dim

    @property
    def proprio_dim(self) -> int:
        """Number of proprioceptive values P."""
        return self.banks[0].proprio_dim

    @property
    def picture(self) -> tuple[int, int]:
        """Height and width of the images, px."""
        return self.banks[0].picture

    @property
    def cameras(self) -> tuple[str, ...]:
        """Camera names of the first log; the other logs use the same order."""
        return self.banks[0].cameras

    @property
    def dt_s(self) -> float:
        """Seconds between two steps of the first log."""
        return self.banks[0].dt_s

    @property
    def step_s(self) -> float:
        """Seconds between two observations of a window."""
        return self.banks[0].step_s

    @property
    def origin(self) -> dict[str, Any]:
        """Origin of the first log, and the sources of all with their weights."""
        sources = [
            {**bank.origin.get("source", {}), "weight": weight}
            for bank, weight in zip(self.banks, self.weights, strict=True)
        ]
        return {**self.banks[0].origin, "source": sources}

    @property
    def num_episodes(self) -> int:
        """Number of episodes that windows are sampled from."""
        return sum(bank.num_episodes for bank in self.banks)

    @property
    def num_steps(self) -> int:
        """Observations in the chosen episodes."""
        return sum(bank.num_steps for bank in self.banks)

    def num_windows(self, length: int) -> int:
        """Number of windows of that many observations."""
        return sum(bank.num_windows(length) for bank in self.banks)

    def sample(self, batch: int, length: int, *, generator: torch.Generator, max_stride: int = 1) -> dict[str, Tensor]:
        """Sample windows; see `FrameBank.sample`. Episodes are numbered across all logs.

        Raises:
            ValueError: If no episode of a sampled log has that many steps.
        """
        chances = torch.tensor(self.weights, dtype=torch.float64)
        which = torch.multinomial(chances, batch, replacement=True, generator=generator)
        parts: list[dict[str, Tensor]] = []
        places: list[Tensor] = []
        before = 0
        for at, bank in enumerate(self.banks):
            mine = (which == at).nonzero().flatten()
            if len(mine):
                part = bank.sample(len(mine), length, generator=generator, max_stride=max_stride)
                parts.append(part | {"episode": part["episode"] + before})
                places.append(mine)
            before += len(bank.offsets) - 1
        order = torch.cat(places).argsort()
        return {name: torch.cat([part[name] for part in parts])[order.to(parts[0][name].device)] for name in parts[0]}

    def split(self, share: float, *, generator: torch.Generator) -> tuple[MixedBank, MixedBank]:
        """Each log split into training and validation; see `FrameBank.split`.

        Raises:
            ValueError: If one side of a log would be empty.
        """
        sides = [bank.split(share, generator=generator) for bank in self.banks]
        train, held = (tuple(side[i] for side in sides) for i in (0, 1))
        return MixedBank(banks=train, weights=self.weights), MixedBank(banks=held, weights=self.weights)

    def to(self, device: torch.device | str) -> MixedBank:
        """The same with images, actions and proprioception on another device."""
        return MixedBank(banks=tuple(bank.to(device) for bank in self.banks), weights=self.weights)

    def action_rows(self) -> Tensor:
        """The actions of all logs `G A`, each step once, regardless of the weights."""
        return torch.cat([bank.action_rows() for bank in self.banks])

    def proprio_rows(self) -> Tensor:
        """The proprioception of all logs `G P`, each step once."""
        return torch.cat([bank.proprio_rows() for bank in self.banks])


def mixed(banks: Sequence[FrameBank], weights: Sequence[float]) -> FrameBank | MixedBank:
    """A single bank unchanged, or several as a `MixedBank`.

    Raises:
        ValueError: If the banks differ or a weight is not positive.
    """
    together = MixedBank(banks=tuple(banks), weights=tuple(map(float, weights)))
    return together.banks[0] if len(together.banks) == 1 else together
