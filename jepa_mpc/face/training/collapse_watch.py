"""A cheap, frequent check for latent collapse, which stops a training in time."""

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
LATENTS, PROJECTIONS = "latents", "projections"
LEAST_MOTION = 1e-4
LEAST_RANK = 1.1  # a healthy training may pass through 1.4 at the start
REMEDY = (
    "check the images (inspect_logs.py), lower the learning rate or increase the weight of the regulariser; "
    "on_collapse=warn continues anyway"
)


class CollapseWatch:
    """Stops a training whose latents collapse, before a good checkpoint is overwritten.

    It checks the signs of `CollapseMonitor` and the motion: how far latents move between frames, as a share of their
    spread over all frames (near zero for a static camera, or one image logged repeatedly).

    Args:
        bank: Source of the samples.
        objective: The untrained objective; one without `encode`, or with a frozen encoder, is not checked. The output
            of its method `compared`, if it has one, is checked as well.
        window: Observations per sample.
        frames: Frames encoded per check.
        every: Steps before the first check.
        seed: Base seed of the samples, which are the same each time.
        action: What to do on collapse: stop or warn.
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
        self.health: dict[str, CollapseMonitor] = {}
        trained = any(weight.requires_grad for name, weight in objective.named_parameters() if "encoder" in name)
        if hasattr(objective, "encode") and trained:
            drawn = bank.sample(max(frames // window, 4), window, generator=generator(seed, "watch"))
            self.frames = drawn[main_input(objective)]
            mode = objective.training
            with torch.no_grad():
                seen = self._looks(objective.eval()).items()
                self.health = {name: CollapseMonitor(_reference(name, x), least_rank=LEAST_RANK) for name, x in seen}
            objective.train(mode)

    def __call__(self, step: int, objective: nn.Module) -> None:
        """Check an objective.

        Raises:
            LatentCollapse: If there is a sign of collapse; names it, its value and a remedy.
        """
        if not self.health or step < self.every:
            return
        looks = self._looks(objective)
        signs = [f"{name}: {sign}" for name, latents in looks.items() for sign in self.health[name](latents).signs]
        latents = looks[LATENTS]
        share = motion(latents) if latents.shape[1] > 1 else 1.0  # single images have no motion
        if not share >= LEAST_MOTION:
            signs.append(f"motion {share:.1e} is below {LEAST_MOTION:.0e}: latents do not change from frame to frame")
        if not signs:
            return
        if self.action == "stop":
            raise LatentCollapse(
                f"stopped at step {step}: the latents collapse: {'; '.join(signs)}. The last good state is kept; "
                f"{REMEDY}"
            )
        LOGGER.warning("step %d: the latents collapse: %s", step, "; ".join(signs))

    def _looks(self, objective: nn.Module) -> dict[str, Tensor]:
        """Latents `B T ND` on the CPU, and the tensors that the loss compares if they differ."""
        frames = self.frames.to(next(objective.parameters()).device)
        asked = {LATENTS: "encode", PROJECTIONS: "compared"}
        found = {name: getattr(objective, method, None) for name, method in asked.items()}
        return {name: look(frames).flatten(2).float().cpu() for name, look in found.items() if look is not None}


def _reference(name: str, latents: Tensor) -> Tensor:
    """The reference of the check: latents of the untrained network; for projections, what their loss demands."""
    return torch.randn(latents.shape, generator=generator(0, name)) if name == PROJECTIONS else latents


def main_input(objective: nn.Module) -> str:
    """The batch entry that an objective's `encode` takes; frames by default."""
    return str(getattr(objective, "main_input", "frames"))


def motion(latents: Tensor) -> float:
    """Motion of latents `B T D` between frames, as a share of their spread over all frames."""
    steps = (latents[:, 1:] - latents[:, :-1]).square().mean()
    spread = (latents - latents.mean(dim=(0, 1))).square().mean()
    return float((steps / spread.clamp_min(1e-30)).sqrt().detach())
