"""Public names: what is written to disk names parts, never places in the source."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jepa_mpc.world_model.checkpoints.assembly import PARTS, TARGET
from jepa_mpc.world_model.checkpoints.names import ALIASES, public_name

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = sorted((ROOT / "experiments" / "checkpoints").glob("*/config.json"))


def targets(spec: Any) -> Iterator[str]:
    if isinstance(spec, dict):
        yield from [spec[TARGET]] if TARGET in spec else []
        yield from (name for value in spec.values() for name in targets(value))
    elif isinstance(spec, list):
        yield from (name for value in spec for name in targets(value))


def test_every_alias_leads_to_a_part():
    assert not {name for name in ALIASES.values() if name not in PARTS}


def test_no_public_name_is_a_place():
    assert not [name for name in PARTS if "." in name]


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.parent.name)
def test_every_part_of_a_shipped_checkpoint_has_a_public_name(path):
    config = json.loads(path.read_text())["config"]
    named = [name for key, value in config.items() if key != "training" for name in targets(value)]
    assert named and {public_name(name) for name in named} <= PARTS.keys()


def test_eight_checkpoints_are_shipped():
    assert len(SHIPPED) >= 8
