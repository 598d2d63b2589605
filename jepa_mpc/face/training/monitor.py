"""Evaluation on held-out labs: loss, prediction against no motion, collapse, and a linear probe of the hand."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from jepa_mpc.face.training.collapse_watch import main_input
from jepa_mpc.seeding import generator
from jepa_mpc.trajectories.bank import FrameBank
from jepa_mpc.trajectories.mixture import MixedBank
from jepa_mpc.world_model.parts.distances import SquaredError
from jepa_mpc.world_model.training.health import CollapseMonitor

LOGGER = logging.getLogger(__name__)
CHUNK = 64
RIDGE = 1e-3
HAND = slice(-6, -3)
"""Index of the hand position in the proprioception."""


class Monitor:
    """Evaluates an objective that has `encode(frames)`; any other by its loss alone.

    Args:
        train: Data for fitting the linear probe.
        held: Data for evaluation.
        objective: The untrained objective: its latents are the reference of the collapse monitor.
        window: Observations per sample.
        frames: Frames encoded from each set.
        seed: Base seed of the samples, which are the same each time.
    """

    def __init__(
        self,
        train: FrameBank | MixedBank,
        held: FrameBank | MixedBank,
        *,
        objective: nn.Module,
        window: int,
        frames: int,
        seed: int,
    ) -> None:
        self.seed, self.hand = seed, knows_hand(held)
        batch = max(frames // window, 2)
        self.train = train.sample(batch, window, generator=generator(seed, "probe", "train"))
        self.held = held.sample(batch, window, generator=generator(seed, "probe", "held"))
        self.health: CollapseMonitor | None = None
        if hasattr(objective, "encode"):
            mode = objective.training
            with torch.no_grad():
                self.health = CollapseMonitor(self._latents(objective.eval(), self.held))
            objective.train(mode)

    def __call__(self, step: int, objective: nn.Module) -> Mapping[str, float]:
        """Metrics after `step` steps, under `held/`."""
        device = next(objective.parameters()).device
        numbers: dict[str, Tensor | float] = {}
        size = len(self.held["frames"])
        for start in range(0, size, CHUNK):
            batch = {name: value[start : start + CHUNK].to(device) for name, value in self.held.items()}
            loss = objective(batch, generator(self.seed, "held", start, device=device))
            share = len(batch["frames"]) / size
            for name, value in {"loss": loss.total, **loss.terms}.items():
                numbers[name] = numbers.get(name, 0.0) + share * value
        result = {f"held/{name}": float(value) for name, value in numbers.items()}
        return result | (self._judge_latents(step, objective, numbers) if self.health is not None else {})

    def _judge_latents(self, step: int, objective: nn.Module, losses: Mapping[str, Tensor | float]) -> dict[str, float]:
        assert self.health is not None
        held, train = self._latents(objective, self.held), self._latents(objective, self.train)
        health = self.health(held)
        if health.collapsed:
            LOGGER.warning("step %d: the latents seem to collapse: %s", step, "; ".join(health.signs))
        numbers = {f"health/{name}": value for name, value in health.numbers().items()}
        if "prediction" in losses:
            distance = getattr(objective, "distance", SquaredError())
            standing = distance(held[:, :-1], held[:, 1:])
            numbers["held/prediction_over_standing"] = float(losses["prediction"] / standing.clamp_min(1e-12))
        if not self.hand:
            return numbers
        return numbers | probe((train, _hand(self.train)), (held, _hand(self.held)))

    def _latents(self, objective: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        """Latents `B T ND` on the CPU."""
        device = next(objective.parameters()).device
        seen = batch[main_input(objective)].split(CHUNK)
        parts = [objective.encode(one.to(device)).flatten(2).cpu() for one in seen]  # type: ignore[operator]
        return torch.cat(parts)


def knows_hand(bank: FrameBank | MixedBank) -> bool:
    """Whether the proprioception of a log ends in a hand pose: false without proprioception or without an arm."""
    arm = bank.origin.get("robot", {}).get("position", "unknown") != ""
    return arm and bank.proprio_dim >= -HAND.start


def doubts(scores: Mapping[str, float]) -> list[str]:
    """Reasons against using a world model, in short sentences; empty if there are none.

    Args:
        scores: The last output of `Monitor`.
    """
    standing, hand = scores.get("held/prediction_over_standing", 0.0), scores.get("probe/hand_r2", 1.0)
    found = []
    if not standing < 1:
        found.append(
            f"predictions are worse than no motion (held/prediction_over_standing {standing:.3g}, not below 1)"
        )
    if not hand > 0:
        found.append(f"a linear probe does not find the hand (probe/hand_r2 {hand:.3g}, not above 0)")
    if scores.get("health/collapsed", 0.0):
        found.append("the latents collapse (health/collapsed)")
    return found


def probe(train: tuple[Tensor, Tensor], held: tuple[Tensor, Tensor]) -> dict[str, float]:
    """Linear probe of the hand position: R^2 and median error (cm) on labs that were not used for fitting."""
    inputs, places = (x.flatten(0, 1).double() for x in train)
    centre, middle = inputs.mean(0), places.mean(0)
    x, y = inputs - centre, places - middle
    penalty = RIDGE * len(x) * x.var().clamp_min(1e-12)
    weights = _ridge(x, y, penalty)
    inputs, places = (x.flatten(0, 1).double() for x in held)
    missed = (inputs - centre) @ weights + middle - places
    share = 1 - missed.square().sum() / (places - places.mean(0)).square().sum().clamp_min(1e-12)
    return {"probe/hand_r2": float(share), "probe/hand_median_cm": 100 * float(missed.norm(dim=1).median())}


def _ridge(x: Tensor, y: Tensor, penalty: Tensor) -> Tensor:
    """Ridge regression of `G Q` on `G D`; solved in the dual with more dimensions than samples."""
    identity = torch.eye(min(x.shape), dtype=x.dtype)
    if x.shape[1] <= len(x):
        return torch.linalg.solve(x.T @ x + penalty * identity, x.T @ y)
    return x.T @ torch.linalg.solve(x @ x.T + penalty * identity, y)


def _hand(batch: Mapping[str, Tensor]) -> Tensor:
    """Hand positions `B T 3`, m."""
    return batch["proprio"][..., HAND].cpu()
