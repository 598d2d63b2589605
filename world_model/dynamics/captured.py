"""Rollouts captured once as a CUDA graph and replayed, which removes kernel launch overhead."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from jepa_mpc.interfaces import Dynamics
from jepa_mpc.types import Context, Plans, Rollout

WARM_UPS = 3  # runs before a capture, in which libraries initialise


class CapturedDynamics:
    """Dynamics whose rollouts are captured, once per set of shapes, and replayed. For NVIDIA GPUs, no gradients.

    The dynamics must not synchronise with the host, as `LearnedDynamics` does not. Its weights may change in place
    between replays; replaced parts need a new `CapturedDynamics`.

    Args:
        dynamics: The captured dynamics.
        max_graphs: Maximum number of captured graphs, each with its own memory; the oldest is dropped.

    Raises:
        ValueError: If `max_graphs` is below 1.
    """

    def __init__(self, dynamics: Dynamics, *, max_graphs: int = 4) -> None:
        if max_graphs < 1:
            raise ValueError(f"need max_graphs >= 1, got {max_graphs}")
        self.dynamics = dynamics
        self.max_graphs = max_graphs
        self._recordings: dict[Any, _Recording] = {}

    def rollout(self, context: Context, plans: Plans) -> Rollout:
        """As the wrapped dynamics, on a CUDA device.

        Raises:
            ValueError: If the plans are not on a CUDA device, or require a gradient.
        """
        if plans.device.type != "cuda":
            raise ValueError(f"a CUDA graph needs plans on a CUDA device, got {plans.device}: use the wrapped dynamics")
        if torch.is_grad_enabled() and plans.requires_grad:
            raise ValueError("a captured rollout has no gradient: use the wrapped dynamics for gradient planners")
        given = (context.latents, context.actions, context.proprio, plans)
        key = tuple(None if x is None else (x.shape, x.dtype, x.device) for x in given)
        if key not in self._recordings:
            while len(self._recordings) >= self.max_graphs:
                del self._recordings[next(iter(self._recordings))]
            self._recordings[key] = self._record(context, plans)
        return self._recordings[key].replay(context, plans)

    @torch.no_grad()
    def _record(self, context: Context, plans: Plans) -> _Recording:
        held = Context(
            latents=context.latents.clone(),
            actions=context.actions.clone(),
            proprio=None if context.proprio is None else context.proprio.clone(),
        )
        held_plans = plans.detach().clone()
        aside = torch.cuda.Stream(plans.device)
        aside.wait_stream(torch.cuda.current_stream(plans.device))
        with torch.cuda.stream(aside):
            for _ in range(WARM_UPS):
                self.dynamics.rollout(held, held_plans)
        torch.cuda.current_stream(plans.device).wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            rollout = self.dynamics.rollout(held, held_plans)
        return _Recording(graph, held, held_plans, rollout)


@dataclass(frozen=True)
class _Recording:
    """A graph with its input and output memory."""

    graph: torch.cuda.CUDAGraph
    context: Context
    plans: Tensor
    rollout: Rollout

    @torch.no_grad()
    def replay(self, context: Context, plans: Plans) -> Rollout:
        self.context.latents.copy_(context.latents)
        self.context.actions.copy_(context.actions)
        if self.context.proprio is not None and context.proprio is not None:
            self.context.proprio.copy_(context.proprio)
        self.plans.copy_(plans)
        self.graph.replay()
        out = self.rollout
        return Rollout(
            latents=out.latents.clone(),
            proprio=_copied(out.proprio),
            sensors=_copied(out.sensors),
            valid=_copied(out.valid),
        )


def _copied(x: Tensor | None) -> Tensor | None:
    return None if x is None else x.clone()
