"""A cheap, frequent look for signs that a training has nothing left to learn from; it stops the training in time."""

from __future__ import annotations

import logging
from typing import Literal

import torch
from torch import Tensor, nn

from jepa_mpc.seeding import generator
from jepa_mpc.trajectories.bank import FrameBank
from jepa_mpc.trajectories.mixture import MixedBank
from jepa_mpc.world_model.training.health import CollapseMonitor, LatentCollapse

LOGGER = logging.getLogger(__name__)
LEAST_MOTION = 1e-4
LEAST_RANK = 1.1  # young latents of a healthy training may pass through 1.4
REMEDY = (
    "look at the pictures (inspect_logs.py), lower the learning rate or give the regulariser more weight; "
    "on_collapse=warn goes on nevertheless"
)


class Watch:
    """Stops a training whose latents collapse, before anything good is overwritten.

    Looked at are the signs of `CollapseMonitor` and the motion: how far latents move from one frame to the next, as a
    share of their spread over all frames (a camera that stands still, or one picture logged over and over).

    Args:
        bank: Where the samples come from.
        objective: The untrained objective; one without `encode`, or whose encoder is not trained, is not watched.
        window: Observations per sample.
        frames: Frames that a look encodes.
        every: Steps before the first look.
        seed: Base seed of the samples, which are the same each time.
        action: What a sign leads to.
    """

    def __init__(
        self,
        bank: FrameBank | MixedBank,
        *,
        objective: nn.Module,
        window: int,
        frames: int,
        every: int,
        seed: int,
        action: Literal["stop", "warn"],
    ) -> None:
        if action not in ("stop", "warn"):
            raise ValueError(f"on_collapse must be stop or warn, got {action!r}")
        self.action, self.every = action, every
        self.health: CollapseMonitor | None = None
        trained = any(weight.requires_grad for name, weight in objective.named_parameters() if "encoder" in name)
        if hasattr(objective, "encode") and trained:
            self.frames = bank.sample(max(frames // window, 4), window, generator=generator(seed, "watch"))["frames"]
            mode = objective.training
            with torch.no_grad():
                self.health = CollapseMonitor(self._latents(objective.eval()), least_rank=LEAST_RANK)
            objective.train(mode)

    def __call__(self, step: int, objective: nn.Module) -> None:
        """Look at an objective.

        Raises:
            LatentCollapse: If there is a sign of collapse; says which, how far, and what to do.
        """
        if self.health is None or step < self.every:
            return
        latents = self._latents(objective)
        signs = [*self.health(latents).signs]
        share = motion(latents)
        if not share >= LEAST_MOTION:
            signs.append(f"motion {share:.1e} is below {LEAST_MOTION:.0e}: latents do not change from frame to frame")
        if not signs:
            return
        if self.action == "stop":
            raise LatentCollapse(
                f"stopped at step {step}, since the latents collapse: {'; '.join(signs)}. The last good state is kept; "
                f"{REMEDY}"
            )
        LOGGER.warning("step %d: the latents collapse: %s", step, "; ".join(signs))

    def _latents(self, objective: nn.Module) -> Tensor:
        """Latents `B T ND` on the CPU."""
        device = next(objective.parameters()).device
        return objective.encode(self.frames.to(device)).flatten(2).float().cpu()  # type: ignore[operator]


def motion(latents: Tensor) -> float:
    """How far latents `B T D` move from one frame to the next, as a share of their spread over all frames."""
    steps = (latents[:, 1:] - latents[:, :-1]).square().mean()
    spread = (latents - latents.mean(dim=(0, 1))).square().mean()
    return float((steps / spread.clamp_min(1e-30)).sqrt().detach())
