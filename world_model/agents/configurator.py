"""The configurator: rules, declared as data, that set the parameters of all other modules for the task at hand.

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
"""What a rule may ask for; of several worlds, the greatest value counts."""

WEIGHT = "weights."


@dataclass(frozen=True, kw_only=True)
class TaskSpec:
    """What is to be done, as far as it changes how to think.

    Args:
        goal: Kind of the goal, e.g. "image".
        profile: How careful to be, e.g. "normal" or "careful"; rules refer to it.
        steps: Steps that the episode may take; infinite by default.
    """

    goal: str = "image"
    profile: str = "normal"
    steps: float = math.inf


@dataclass(frozen=True, kw_only=True)
class AgentConfig:
    """All that the configurator decides; every field of it is in the log of every step.

    Args:
        weights: u of each intrinsic term, by name.
        critic: Weight v of the critic at the end of a plan.
        discount: gamma, the weight of a step relative to the one before.
        planner: Name of the planner (Mode-2).
        horizon: Steps that a plan looks ahead.
        execute: Steps of a plan that are carried out before planning anew.
        hold_below: Stand still while the goal cost of the present is below this value; 0 never holds.
        mode: "auto" leaves it to the arbitration, "mode1" and "mode2" insist.
        tokens: Which tokens of a state count in the cost (True), or None for all of them.
        applied: Names of the rules that applied.
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
    """If a quantity is in a range and the task has a profile, change the configuration.

    Args:
        name: What it is called in the log.
        changes: Field -> value; "weights.NAME" for a single weight.
        quantity: One of `QUANTITIES`, or None for a rule that does not ask.
        above: Applies where the quantity is above this value.
        below: Applies where it is below this value.
        profile: Applies to tasks of this profile only, or None for all.

    Raises:
        UnknownName: If there is no such quantity.
        ValueError: If it asks for a range without a quantity or the other way round, or changes nothing.
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
        """Whether it applies now; a quantity that is not known (NaN) is in no range."""
        if self.profile is not None and self.profile != task.profile:
            return False
        return self.quantity is None or self.above < quantities.get(self.quantity, math.nan) < self.below


class Configurator:
    """Sets the parameters of all other modules.

    Args:
        base: What holds where no rule says otherwise.
        rules: In order; a later one sees and may undo what an earlier one changed.
        task: What is to be done.

    Raises:
        UnknownName: If a rule changes what does not exist.
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
