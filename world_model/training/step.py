"""State of one training: objective, optimiser, averaged weights, and the number of steps done."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any, cast

import torch
from torch import Generator, Tensor, nn

from jepa_mpc.interfaces import Batch, Objective
from jepa_mpc.processes import Share, averaged, by_itself, draw, num_processes, process_index
from jepa_mpc.seeding import generator, seed_of
from jepa_mpc.world_model.parts.predictors.precision import fast_dtype
from jepa_mpc.world_model.training.average import WeightAverage
from jepa_mpc.world_model.training.layouts import Layout, gathered, spread_like
from jepa_mpc.world_model.training.settings import FitSettings, FitState, TrainingDiverged

Batches = Callable[[Generator], Batch]


class Training:
    """One training.

    Args:
        objective: The objective, on its device.
        settings: Training settings.
        seed: Base seed of batches, noise and dropout.
        layout: Layout of the weights.
    """

    def __init__(self, objective: nn.Module, settings: FitSettings, *, seed: int, layout: Layout) -> None:
        self.device = next(objective.parameters()).device
        self.objective, self.settings, self.seed, self.layout = objective, settings, seed, layout
        self.loss_of = layout.spread(objective)
        named = [(name, weight) for name, weight in objective.named_parameters() if weight.requires_grad]
        self.weights = [weight for _, weight in named]
        groups = settings.decayed(named, settings.weight_decay)
        self.decays = [float(group["weight_decay"]) for group in groups]
        self.optimiser = torch.optim.AdamW(
            groups, lr=settings.learning_rate, betas=settings.betas, eps=settings.epsilon,
            weight_decay=settings.weight_decay, fused=layout.fused and self.device.type in ("cpu", "cuda"),
        )  # fmt: skip
        decay = settings.average_decay
        self.average = None if decay is None else WeightAverage(objective, decay=decay)
        self.done = 0
        self.finite = torch.ones((), dtype=torch.bool, device=self.device)

    def restore(self, start: FitState) -> None:
        """Resume from a saved state."""
        if start.step > self.settings.steps:
            raise ValueError(f"the saved state has {start.step} steps, more than steps={self.settings.steps}")
        own = self.objective.state_dict()
        weights = {name: spread_like(value, own.get(name, value)) for name, value in start.objective.items()}
        self.objective.load_state_dict(weights, strict=True)
        self.optimiser.load_state_dict(self._optimiser_like(start.optimiser))
        if self.average is not None:
            if start.average is None:
                raise ValueError("the saved state has no averaged weights: train without average_decay")
            kept = self.average.tensors
            self.average.load(
                {name: spread_like(value, kept.get(name, value)) for name, value in start.average.items()}
            )
        self.done = start.step

    def step(self, batches: Batches) -> dict[str, Tensor]:
        """One optimiser step; returns the metrics, still on the device."""
        self.objective.train()
        share = self.settings.decay_share_at(self.done)
        for group, decay in zip(self.optimiser.param_groups, self.decays, strict=True):
            group["lr"] = self.settings.rate_at(self.done)
            group["weight_decay"] = share * decay
        self.optimiser.zero_grad(set_to_none=True)
        losses = self._losses(batches)
        if all(weight.grad is None for weight in self.weights):
            raise RuntimeError("no weight has a gradient after the backward pass: the loss depends on none of them")
        norm = nn.utils.clip_grad_norm_(self.weights, self.settings.clip_norm, foreach=True)
        norm = gathered(norm)
        self.finite = self.finite & torch.isfinite(losses["loss"]) & torch.isfinite(norm)
        if self.device.type == "cpu":
            self.check()
        self.optimiser.step()
        self.done += 1
        cast(Objective, self.objective).after_step(self.done / self.settings.steps)
        if self.average is not None:
            self.average.update(self.objective)
        rate = torch.tensor(self.settings.rate_at(self.done - 1))
        return {**losses, "gradient_norm": norm.detach(), "learning_rate": rate}

    def check(self) -> None:
        """Stop if anything was not finite since the start.

        Raises:
            TrainingDiverged: If so.
        """
        if not bool(self.finite):
            raise TrainingDiverged(
                f"loss or gradient is not finite at or before step {self.done + 1}: the last saved state is good; "
                "lower the learning rate or check the data"
            )

    def judged(self, judge: Callable[[int, nn.Module], Any], *, averaged_weights: bool) -> Any:
        """Call a function with the objective in evaluation mode; training mode is restored afterwards.

        With several processes the first one calls it, with the complete objective, and the others get None.
        """
        average = self.average if averaged_weights else None
        swapped = nullcontext() if average is None else average.in_place_of(self.objective)
        with swapped, self.layout.whole(self.objective) as whole, torch.no_grad(), by_itself():
            if process_index() != 0:
                return None
            with _own_dropout(0, self.device):
                return judge(self.done, whole.eval())

    def state(self) -> FitState:
        """The complete state for resuming; tensors may be shared with the training. All processes must call."""
        return FitState(
            step=self.done,
            objective=gathered(self.objective.state_dict()),
            optimiser=gathered(self.optimiser.state_dict()),
            average=None if self.average is None else gathered(self.average.tensors),
        )

    def _losses(self, batches: Batches) -> dict[str, Tensor]:
        """Gradients of the whole batch, part by part; returns the means of the loss and its terms."""
        parts = self.settings.accumulate
        sums: dict[str, Tensor] = {}
        for part in range(parts):
            last = part == parts - 1
            with nullcontext() if last else self.layout.unfinished(self.loss_of):
                for name, value in self._part(batches, part).items():
                    sums[name] = sums[name] + value if part else value
        means = sums if parts == 1 else {name: value / parts for name, value in sums.items()}
        return averaged(means, self.device)

    def _part(self, batches: Batches, part: int) -> dict[str, Tensor]:
        count, parts, rank = num_processes(), self.settings.accumulate, process_index()
        share = Share(index=part * count + rank, count=parts * count)
        drawn = draw(batches, self._stream("batch", "cpu"), share)
        batch = {name: value.to(self.device, non_blocking=True) for name, value in drawn.items()}
        names = (*(("part", part) if part else ()), *(("process", rank) if rank else ()))
        with _own_dropout(seed_of(self.seed, "dropout", self.done, *names), self.device):
            with self._precision():
                loss = self.loss_of(batch, self._stream("loss", self.device, *names))
            (loss.total if parts == 1 else loss.total / parts).backward()
        return {"loss": loss.total.detach(), **loss.terms}

    def _optimiser_like(self, saved: Mapping[str, Any]) -> dict[str, Any]:
        """A saved optimiser state, sharded as the weights are."""
        ordered = [weight for group in self.optimiser.param_groups for weight in group["params"]]
        state = {
            key: {
                name: spread_like(value, ordered[key]) if isinstance(value, Tensor) and value.dim() else value
                for name, value in entries.items()
            }
            for key, entries in saved["state"].items()
        }
        # learning rates come from the schedule; how the step is computed comes from the current layout
        now = {"fused": self.optimiser.defaults["fused"], "foreach": self.optimiser.defaults["foreach"]}
        return {"state": state, "param_groups": [{**group, **now} for group in saved["param_groups"]]}

    def _stream(self, name: str, device: torch.device | str, *names: str | int) -> Generator:
        return generator(self.seed, name, self.done, *names, device=device)

    def _precision(self) -> Any:
        chosen = self.settings.precision
        if chosen == "float32" or (chosen == "auto" and fast_dtype(str(self.device)) == torch.float32):
            return nullcontext()
        return torch.autocast(self.device.type, dtype=torch.bfloat16)


@contextmanager
def _own_dropout(seed: int, device: torch.device) -> Iterator[None]:
    """Seed the global stream for layers that use it (dropout), and restore it afterwards."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.random.default_generator.manual_seed(seed)
        for gpu in devices:
            with torch.cuda.device(gpu):
                torch.cuda.manual_seed(seed)
        yield
