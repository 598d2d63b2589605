"""What an action chunk is learned from: windows of a log, read as demonstrations or towards a goal in hindsight."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Protocol

import torch
from torch import Generator, Tensor

from jepa_mpc.interfaces import Batch
from jepa_mpc.shapes import check_shape


@dataclass(frozen=True, kw_only=True)
class ChunkLesson:
    """What is seen, and what was done and passed from there on.

    Args:
        task: Number of the task `B`.
        frames: Pictures that are shown together `B V C h w`, the present one first.
        states: The present state and those that follow `B T P`, in their units.
        actions: The actions between them `B H A`, in physical units.
        padded_states: Steps without a state `B T` (bool), or None.
        padded_actions: Steps without an action `B H` (bool), or None.
        num_tasks: Tasks that the network must know, if the rule can tell.
    """

    task: Annotated[Tensor, "B"]
    frames: Annotated[Tensor, "B V C h w"]
    states: Annotated[Tensor, "B T P"]
    actions: Annotated[Tensor, "B H A"]
    padded_states: Annotated[Tensor, "B T"] | None = None
    padded_actions: Annotated[Tensor, "B H"] | None = None
    num_tasks: int | None = None


class LessonRule(Protocol):
    """Reads windows as lessons."""

    @property
    def pictures(self) -> int:
        """Pictures V that a lesson shows."""

    def __call__(self, batch: Batch, generator: Generator, *, chunk: int, horizon: int) -> ChunkLesson:
        """A lesson of `chunk` actions and `horizon` states from windows: frames, actions and proprio."""


class Demonstrations:
    """The windows as they are, for logs of demonstrations.

    A batch may contain `task` `B` (0 otherwise) and `padded` `B T` (bool). Steps
    beyond the window count as padded.
    """

    pictures = 1

    def __call__(self, batch: Batch, generator: Generator, *, chunk: int, horizon: int) -> ChunkLesson:
        """The lesson of a batch; nothing is drawn.

        Raises:
            ValueError: If the batch holds no states, or shapes that do not fit each other.
        """
        _check(batch)
        actions, states = batch["actions"], batch["proprio"]
        padded = batch.get("padded", torch.zeros(states.shape[:2], dtype=torch.bool, device=states.device))
        task = batch.get("task", torch.zeros(len(states), dtype=torch.int64, device=states.device))
        return ChunkLesson(
            task=task,
            frames=batch["frames"][:, :1],
            states=_filled(states, horizon),
            actions=_filled(actions, chunk),
            padded_states=_filled(padded, horizon, value=1.0),
            padded_actions=_filled(padded[:, : actions.shape[1]], chunk, value=1.0),
        )


class HindsightGoals:
    """A later observation of the window is the goal, its picture is shown beside the present one.

        k ~ uniform{1, ..., T - 1};   task = k;   after k steps one stands still: a_t = 0, s_t = s_k

    A log without tasks teaches how its states were reached from earlier ones. The number of steps left takes the place
    of the task, since the same goal was reached slowly and fast.

    Reference: Andrychowicz et al. 2017, arXiv:1707.01495.
    """

    pictures = 2

    def __call__(self, batch: Batch, generator: Generator, *, chunk: int, horizon: int) -> ChunkLesson:
        """The lesson of a batch; the generator draws the goals.

        Raises:
            ValueError: If the batch holds no states, shapes that do not fit each other, or windows of one observation.
        """
        count, times = _check(batch)
        if times < 2:
            raise ValueError("a goal in hindsight needs windows of two observations or more, got one")
        states, actions = batch["proprio"], batch["actions"]
        device = states.device
        steps = 1 + torch.randint(times - 1, (count,), generator=generator, device=generator.device).to(device)
        worlds = torch.arange(count, device=device)
        frames = batch["frames"]
        passed = torch.minimum(torch.arange(horizon, device=device), steps[:, None])  # (B, T)
        under_way = torch.arange(chunk, device=device) < steps[:, None]
        return ChunkLesson(
            task=steps,
            frames=torch.stack([frames[:, 0], frames[worlds, steps]], dim=1),
            states=states[worlds[:, None], passed],
            actions=torch.where(under_way[..., None], _filled(actions, chunk), 0.0),
            num_tasks=times,
        )


def _check(batch: Batch) -> tuple[int, int]:
    if "proprio" not in batch:
        raise ValueError(f"an action chunk is learned with states: the batch needs proprio, it holds {sorted(batch)}")
    sizes = check_shape(batch["frames"], "B T C h w")
    check_shape(batch["proprio"], "B T P", B=sizes["B"], T=sizes["T"])
    check_shape(batch["actions"], "B T A", B=sizes["B"], T=sizes["T"] - 1)
    return sizes["B"], sizes["T"]


def _filled(x: Annotated[Tensor, "B T ..."], length: int, *, value: float = 0.0) -> Tensor:
    """The first steps; where there are fewer, more of `value`."""
    missing = length - x.shape[1]
    if missing <= 0:
        return x[:, :length]
    return torch.cat([x, x.new_full((len(x), missing, *x.shape[2:]), value)], dim=1)
