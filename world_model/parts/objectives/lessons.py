"""Training samples of chunk policies: windows of a log, as demonstrations or with goals in hindsight."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Protocol

import torch
from torch import Generator, Tensor

from jepa_mpc.interfaces import Batch
from jepa_mpc.shapes import check_shape


@dataclass(frozen=True, kw_only=True)
class ChunkLesson:
    """Inputs and targets of a chunk policy.

    Args:
        task: Index of the task `B`.
        frames: Input images `B V C h w`, the current one first.
        states: The current state and the following ones `B T P`, in their units.
        actions: The actions between them `B H A`, in physical units.
        padded_states: Steps without a state `B T` (bool), or None.
        padded_actions: Steps without an action `B H` (bool), or None.
        num_tasks: Number of tasks that the network must support, if known.
    """

    task: Annotated[Tensor, "B"]
    frames: Annotated[Tensor, "B V C h w"]
    states: Annotated[Tensor, "B T P"]
    actions: Annotated[Tensor, "B H A"]
    padded_states: Annotated[Tensor, "B T"] | None = None
    padded_actions: Annotated[Tensor, "B H"] | None = None
    num_tasks: int | None = None


class LessonRule(Protocol):
    """Turns windows into training samples."""

    @property
    def pictures(self) -> int:
        """Number of images V per sample."""

    def __call__(self, batch: Batch, generator: Generator, *, chunk: int, horizon: int) -> ChunkLesson:
        """A sample of `chunk` actions and `horizon` states from windows: frames, actions and proprio."""


class Demonstrations:
    """Unmodified windows, for logs of demonstrations.

    A batch may contain `task` `B` (0 otherwise) and `padded` `B T` (bool). Steps
    beyond the window count as padded.
    """

    pictures = 1

    def __call__(self, batch: Batch, generator: Generator, *, chunk: int, horizon: int) -> ChunkLesson:
        """The samples of a batch; deterministic.

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
    """Goals in hindsight: a later observation of the window is the goal, its image is an input beside the current one.

        k ~ uniform{1, ..., T - 1};   task = k;   zero actions after k steps: a_t = 0, s_t = s_k

    A log without tasks shows how its states were reached from earlier ones. The number of remaining steps replaces the
    task, since the same goal is reached at different speeds.

    Reference: Andrychowicz et al. 2017, arXiv:1707.01495.
    """

    pictures = 2

    def __call__(self, batch: Batch, generator: Generator, *, chunk: int, horizon: int) -> ChunkLesson:
        """The samples of a batch; the generator draws the goals.

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
    """The first steps, padded with `value` if there are fewer."""
    missing = length - x.shape[1]
    if missing <= 0:
        return x[:, :length]
    return torch.cat([x, x.new_full((len(x), missing, *x.shape[2:]), value)], dim=1)
