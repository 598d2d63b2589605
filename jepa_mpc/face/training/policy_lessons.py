"""Training data of a policy: latents of a log, and a planner's plans for pairs of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Generator, Tensor, nn
from tqdm import tqdm

from jepa_mpc.costs import PlanCost, WeightedSum
from jepa_mpc.face.training.encoded_log import encoded_once, spread
from jepa_mpc.interfaces import Cost, Planner
from jepa_mpc.trajectories.bank import FrameBank
from jepa_mpc.types import ActionBox, Context, Costs, Goal, Observation, Plan, PlanRequest, Plans, State
from jepa_mpc.world_model.costs.terms import Effort
from jepa_mpc.world_model.dynamics.model import WorldModel
from jepa_mpc.world_model.memory.hindsight import LatentLog
from jepa_mpc.world_model.policies.imitation import Imitation

AT_ONCE = 64  # pairs planned per update of the progress bar
NOW = 1  # number of steps given with the planner's plans: it goes as fast as its cost allows


@dataclass(frozen=True, kw_only=True)
class Teacher:
    """A planner in a world model, queried for plans between states.

    Args:
        model: The world model.
        planner: The planner.
        box: The robot's action box.
        effort: Weight of the action size in the cost.
        horizon: Planning horizon in steps.
    """

    model: WorldModel
    planner: Planner
    box: ActionBox
    effort: float
    horizon: int

    def lessons(self, state: State, goal: State, *, generator: Generator, title: str) -> dict[str, Tensor]:
        """States and goals `B N D` with the planner's plan `B H A` for each: training samples for imitation."""
        starts = tqdm(range(0, len(state), AT_ONCE), desc=title, unit="batch")
        parts = [self._plans(state[i : i + AT_ONCE], goal[i : i + AT_ONCE], generator) for i in starts]
        steps = torch.full((len(state),), NOW)
        return {"state": state, "goal": goal, "steps": steps, "actions": torch.cat(parts)}

    @torch.no_grad()
    def cost(self, state: State, goal: State, plans: Plans) -> Costs:
        """The planner's cost `B S`."""
        context = Context(latents=state[:, None], actions=plans[:, 0, :0])
        return self._cost()(self.model.dynamics.rollout(context, plans), plans, Goal(latents=goal))

    def _cost(self) -> Cost:
        cost = self.model.goal_cost
        if self.effort == 0:
            return cost
        return WeightedSum({"goal": (1.0, cost), "effort": (self.effort, PlanCost(Effort(scale=self.box.high)))})

    def _plans(self, state: State, goal: State, generator: Generator) -> Plan:
        request = PlanRequest(
            evaluate=lambda plans: self.cost(state, goal, plans),
            box=self.box,
            batch=len(state),
            horizon=self.horizon,
            generator=generator,
        )
        return self.planner.plan(request).actions


class PolicyJudge:
    """Share of the planner's gain over standing still that a policy achieves, on held-out pairs and labs.

        gain = (cost(still) - cost(policy)) / (cost(still) - cost(planner)), costs averaged over the pairs

    The metric is omitted where the planner itself gains nothing.

    Args:
        teacher: Planner and cost.
        lessons: The planner's plans for the held-out pairs.
        log: Hindsight samples of the held-out labs.
    """

    def __init__(self, teacher: Teacher, lessons: Mapping[str, Tensor] | None, log: Mapping[str, Tensor]) -> None:
        self.teacher, self.lessons, self.log = teacher, lessons, log

    @torch.no_grad()
    def __call__(self, step: int, objective: nn.Module) -> dict[str, float]:
        """Metrics under `held/`."""
        assert isinstance(objective, Imitation)
        policy, scale = objective.policy, objective.policy.scale
        made = policy(self.log["state"], self.log["goal"], self.log["steps"])
        gap = (made - self.log["actions"])[..., scale > 0] / scale[scale > 0]
        numbers = {"held/log_error": float(gap.abs().mean())}
        if self.lessons is not None:
            state, goal, wanted = (self.lessons[name] for name in ("state", "goal", "actions"))
            made = self.teacher.box.clip(policy(state, goal, self.lessons["steps"]))
            three = torch.stack([torch.zeros_like(wanted), made, wanted], dim=1)
            still, own, best = self.teacher.cost(state, goal, three).mean(dim=0).tolist()
            error = (made - wanted)[..., scale > 0] / scale[scale > 0]
            numbers["held/planner_error"] = float(error.abs().mean())
            if best < still:
                numbers["held/gain"] = (still - own) / (still - best)
        return numbers


def encoded(model: WorldModel, bank: FrameBank, *, episodes: int, keep: Path) -> LatentLog:
    """The latents of this many episodes of a log, spread evenly; cached in a folder.

    Args:
        model: World model whose perception encodes the frames.
        bank: The log.
        episodes: Number of episodes; all if there are fewer.
        keep: The cache folder.
    """
    chosen = spread(bank, episodes)
    rows = chosen.rows
    facts = {
        "world_model": model.fingerprint,
        "frames": list(bank.frames.shape),
        "spans": chosen.spans.tolist(),
    }

    def encode(some: Tensor) -> Tensor:
        return model.perception(Observation(frames=bank.frames[some][:, None], cameras=bank.cameras))[:, 0]

    return LatentLog(
        latents=encoded_once("latents", rows, encode, keep=keep, facts=facts),
        actions=bank.actions[rows],
        offsets=chosen.offsets,
        groups=bank.groups[chosen.episodes],
    )


def split(log: LatentLog, share: float, *, generator: Generator) -> tuple[LatentLog, LatentLog]:
    """Split a log into training and validation labs, about `share` of them for validation.

    Raises:
        ValueError: If one of the two would be empty.
    """
    names = log.groups.unique()
    count = max(1, round(share * len(names)))
    if count >= len(names):
        raise ValueError(f"cannot hold out {share:.0%} of {len(names)} labs and keep some for training")
    held = torch.isin(log.groups, names[torch.randperm(len(names), generator=generator)[:count]])
    numbers = torch.arange(len(log.groups))
    return log.only(numbers[~held]), log.only(numbers[held])


class Lessons:
    """Draws training batches from both sources: the log in hindsight, and the planner's plans.

    Args:
        log: The training log.
        planned: The planner's plans, or None.
        batch: Samples per batch.
        share: Share of a batch that comes from the planner, if it has plans.
        chunk: Actions per sample.
        max_steps: Maximum number of steps between a state of the log and its goal.
    """

    def __init__(
        self,
        log: LatentLog,
        planned: Mapping[str, Tensor] | None,
        *,
        batch: int,
        share: float,
        chunk: int,
        max_steps: int,
    ) -> None:
        self.log, self.planned, self.chunk, self.max_steps = log, planned, chunk, max_steps
        self.num_planned = 0 if planned is None else round(share * batch)
        self.num_logged = batch - self.num_planned

    def __call__(self, generator: Generator) -> dict[str, Tensor]:
        """Draw one batch."""
        parts = []
        if self.num_logged:
            parts.append(
                self.log.hindsight(self.num_logged, chunk=self.chunk, max_steps=self.max_steps, generator=generator)
            )
        if self.planned is not None and self.num_planned:
            index = torch.randint(len(self.planned["steps"]), (self.num_planned,), generator=generator)
            parts.append({name: values[index] for name, values in self.planned.items()})
        made = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        return made | {"planned": torch.arange(len(made["steps"])) >= self.num_logged}
