"""Modes change with hysteresis; rules set what they say."""

from __future__ import annotations

import math

import pytest
import torch

from jepa_mpc.errors import UnknownName
from jepa_mpc.world_model.agents.arbitration import Arbitration, Evidence, Modes
from jepa_mpc.world_model.agents.configurator import AgentConfig, Configurator, Rule, TaskSpec

RULES = Arbitration(surprise_below=1.0, disagreement_below=2.0, margin=0.1, patience=2)
BASE = AgentConfig(weights={"goal": 1.0, "doubt": 0.0})


def evidence(surprise=0.0, disagreement=0.0, policy=1.0, plan=1.0) -> Evidence:
    values = (torch.as_tensor(value).float().reshape(-1) for value in (surprise, disagreement, policy, plan))
    return Evidence(**dict(zip(("surprise", "disagreement", "policy_energy", "plan_energy"), values, strict=True)))


@pytest.mark.parametrize(
    ("change", "reactive"),
    [
        ({}, True),
        ({"surprise": 1.5}, False),
        ({"disagreement": 2.5}, False),
        ({"policy": 1.09}, True),
        ({"policy": 1.11}, False),
        ({"policy": -0.91, "plan": -1.0}, True),
        ({"policy": -0.89, "plan": -1.0}, False),
        ({"surprise": math.nan}, False),
        ({"plan": math.nan}, False),
    ],
)
def test_the_policy_is_wanted_where_nothing_speaks_against_it(change, reactive):
    assert RULES.wanted(evidence(**change)).tolist() == [reactive]


def test_a_mode_changes_after_two_wishes_in_a_row():
    modes, seen = Modes.planning(1), []
    for surprise in (0, 0, 0, 9, 0, 9, 9, 0, 9, 0, 0):
        modes = RULES.step(modes, evidence(surprise=surprise))
        seen.append(bool(modes.reactive))
    assert seen == [False, True, True, True, True, True, False, False, False, False, True]


def test_each_world_has_its_own_mode():
    modes = Modes.planning(2)
    for _ in range(2):
        modes = RULES.step(modes, evidence([0, 9], [0, 0], [1, 1], [1, 1]))
    assert modes.reactive.tolist() == [True, False]


def test_rules_apply_in_order_where_their_quantity_is_in_range():
    rules = [
        Rule(name="near", quantity="present_cost", below=0.1, changes={"planner": "short", "horizon": 2}),
        Rule(name="lost", quantity="surprise", above=1.0, changes={"planner": "long", "weights.doubt": 3.0}),
        Rule(name="careful", profile="careful", changes={"weights.doubt": 5.0}),
    ]
    configure = Configurator(BASE, rules=rules).configure
    near = configure({"present_cost": 0.05, "surprise": math.nan})
    assert (near.planner, near.horizon, near.applied) == ("short", 2, ("near",))
    both = configure({"present_cost": 0.05, "surprise": 2.0})
    assert (both.planner, both.weights, both.applied) == ("long", {"goal": 1.0, "doubt": 3.0}, ("near", "lost"))
    assert configure({"present_cost": 1.0}) == BASE
    careful = Configurator(BASE, rules=rules, task=TaskSpec(profile="careful")).configure({})
    assert careful.weights["doubt"] == 5.0


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"colour": 1}, "colour"), ({"weights.hunger": 1.0}, "hunger"), ({"applied": ()}, "applied")],
)
def test_rules_that_change_what_does_not_exist_are_refused(changes, words):
    with pytest.raises(UnknownName, match=words):
        Configurator(BASE, rules=[Rule(name="odd", changes=changes)])


def test_rules_out_of_range_are_refused_before_anything_runs():
    with pytest.raises(ValueError, match="mode must be"):
        Configurator(BASE, rules=[Rule(name="odd", changes={"mode": "mode3"})])
    with pytest.raises(UnknownName, match="mood"):
        Rule(name="odd", quantity="mood", above=1.0, changes={"horizon": 1})
    with pytest.raises(ValueError, match="if and only if"):
        Rule(name="odd", quantity="surprise", changes={"horizon": 1})
    with pytest.raises(ValueError, match="surprise_below"):
        Arbitration(surprise_below=0.0)
    with pytest.raises(ValueError, match="discount"):
        AgentConfig(weights={}, discount=0.0)
