"""The planners' YAML leaves."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from jepa_mpc.planners import PLANNERS, build_planner, planner_choice
from jepa_mpc.planners.problems import Quadratic, request_for
from jepa_mpc.seeding import generator

FOLDER = Path(__file__).parents[2] / "configs" / "planner"


def test_every_planner_has_a_leaf():
    assert {path.stem for path in FOLDER.glob("*.yaml")} >= set(PLANNERS)


@pytest.mark.parametrize("name", sorted(PLANNERS))
def test_a_leaf_lists_every_argument_with_its_default(name):
    """The builder's signature is where defaults stand; the leaf makes them settable by name=value."""
    leaf = OmegaConf.to_container(OmegaConf.load(FOLDER / f"{name}.yaml"))
    parameters = inspect.signature(PLANNERS[name]).parameters
    assert leaf == {"_target_": name, **{key: entry.default for key, entry in parameters.items()}}


@pytest.mark.parametrize("name", sorted(PLANNERS))
def test_a_leaf_builds_the_planner_with_its_defaults(name):
    """The numbers in the leaf are those of the builder: the same plan, bit for bit."""
    problem = Quadratic(target=torch.ones(1, 3, 2), scale=torch.ones(3, 2))
    planners = build_planner(*planner_choice(OmegaConf.load(FOLDER / f"{name}.yaml"))), PLANNERS[name]()
    plans = [planner.plan(request_for(problem, generator(0))).actions for planner in planners]
    assert torch.equal(*plans)
