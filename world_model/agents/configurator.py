"""The configurator: declarative rules that set the parameters of all other modules for the current task.

    config = base;  for each rule, in order: if it applies, its changes

Reference: LeCun 2022, A path towards autonomous machine intelligence, section 3 (the executive role); the rules are
our reading of it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, get_args

from jepa_mpc.errors import UnknownName

Mode = Literal["auto", "mode1", "mode2"]
QUANTITIES = ("step", "steps_left", "present_cost", "surprise", "disagreement", "novelty")
"""Quantities that a rule may test; over several worlds the maximum is used."""

WEIGHT = "weights."


@dataclass(frozen=True, kw_only=True)
class TaskSpec:
    """The parts of a task that affect the configuration.

    Args:
        goal: Kind of the goal, e.g. "image".
        profile: Caution profile, e.g. "normal" or "careful"; rules refer to it.
        steps: Maximum number of steps of the episode; infinite by default.
    """

    goal: str = "image"
    profile: str = "normal"
    steps: float = math.inf


@dataclass(frozen=True, kw_only=True)
class AgentConfig:
    """The output of the configurator; every field is in the log of every step.

    Args:
        weights: u of each intrinsic term, by name.
        critic: Weight v of the critic at the end of a plan.
        discount: gamma, the weight of a step relative to the previous one.
        planner: Name of the planner (Mode-2).
        horizon: Planning horizon in steps.
        execute: Steps of a plan executed before replanning.
        hold_below: Hold still while the current goal cost is below this value; 0 never holds.
        mode: "auto" leaves the choice to the arbitration; "mode1" and "mode2" force it.
        tokens: Mask of the tokens of a state that enter the cost (True), or None for all.
        applied: Names of the applied rules.
    """

    weights: Mapping[str, float]
    critic: float = 0.0
    discount: float = 1.0
    planner: str = "default"
    horizon: int = 5
    execute: int = 1
    hold_below: float = 0.0
    mode: Mode = "auto"
    tokens: tuple[bool, ...] | None = None
    applied: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        if self.mode not in get_args(Mode):
            raise ValueError(f"mode must be one of {', '.join(get_args(Mode))}, got {self.mode!r}")
        if not 0 < self.discount <= 1 or self.critic < 0 or not math.isfinite(self.critic):
            raise ValueError(f"need 0 < discount <= 1 and critic >= 0, got {self.discount} and {self.critic}")
        if self.horizon < 1 or not 1 <= self.execute <= self.horizon or self.hold_below < 0:
            raise ValueError(
                f"need horizon >= 1, 1 <= execute <= horizon and hold_below >= 0, got {self.horizon}, {self.execute} "
                f"and {self.hold_below}"
            )

    def changed(self, changes: Mapping[str, Any], *, by: str) -> AgentConfig:
        """The same with some fields changed by a rule; "weights.NAME" changes one weight.

        Raises:
            UnknownName: If there is no such field or weight.
        """
        direct = {name: value for name, value in changes.items() if not name.startswith(WEIGHT)}
        weights = {name.removeprefix(WEIGHT): float(v) for name, v in changes.items() if name.startswith(WEIGHT)}
        known = {item.name for item in fields(self)} - {"applied"}
        for name in direct.keys() - known:
            raise UnknownName("field of the agent's configuration", name, known)
        for name in weights.keys() - self.weights.keys():
            raise UnknownName("intrinsic term", name, self.weights)
        base = direct.pop("weights", self.weights)
        return replace(self, **direct, weights={**base, **weights}, applied=(*self.applied, by))


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A conditional change of the configuration: if a quantity is in a range and the task has a profile.

    Args:
        name: Name in the log.
        changes: Field -> value; "weights.NAME" for a single weight.
        quantity: One of `QUANTITIES`, or None for an unconditional rule.
        above: Applies where the quantity is above this value.
        below: Applies where it is below this value.
        profile: Applies to tasks of this profile only, or None for all.

    Raises:
        UnknownName: If there is no such quantity.
        ValueError: If it has bounds without a quantity or the other way round, or changes nothing.
    """

    name: str
    changes: Mapping[str, Any]
    quantity: str | None = None
    above: float = -math.inf
    below: float = math.inf
    profile: str | None = None

    def __post_init__(self) -> None:
        if self.quantity is not None and self.quantity not in QUANTITIES:
            raise UnknownName("quantity", self.quantity, QUANTITIES)
        bounded = math.isfinite(self.above) or math.isfinite(self.below)
        if bounded != (self.quantity is not None) or not self.changes:
            raise ValueError(f"rule {self.name!r} needs changes, and a quantity if and only if it has bounds")

    def applies(self, task: TaskSpec, quantities: Mapping[str, float]) -> bool:
        """Whether it applies now; an unknown quantity (NaN) is in no range."""
        if self.profile is not None and self.profile != task.profile:
            return False
        return self.quantity is None or self.above < quantities.get(self.quantity, math.nan) < self.below


class Configurator:
    """Sets the parameters of all other modules.

    Args:
        base: The default configuration.
        rules: Applied in order; a later one sees and may override earlier changes.
        task: The task.

    Raises:
        UnknownName: If a rule changes an unknown field.
        ValueError: If a rule's changes are out of range.
    """

    def __init__(self, base: AgentConfig, *, rules: Sequence[Rule] = (), task: TaskSpec | None = None) -> None:
        self.base, self.rules, self.task = base, tuple(rules), task or TaskSpec()
        for rule in self.rules:
            base.changed(rule.changes, by=rule.name)

    def configure(self, quantities: Mapping[str, float]) -> AgentConfig:
        """The configuration for this step."""
        config = self.base
        for rule in self.rules:
            if rule.applies(self.task, quantities):
                config = config.changed(rule.changes, by=rule.name)
        return config
