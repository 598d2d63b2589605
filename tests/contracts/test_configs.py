"""Options of the experiments: none is hidden behind a folder of configurations that has its name."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
GROUPS = {folder.name for folder in CONFIGS.iterdir() if folder.is_dir()}


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_an_option_has_the_name_of_a_group_only_where_it_is_one(path):
    """Hydra reads `size=96` as a choice among `configs/size/`, whatever the experiment."""
    options = yaml.safe_load(path.read_text())
    plain = {name for name, value in options.items() if not isinstance(value, dict)}  # others go by dots: fit.steps=5
    chosen = {name for entry in options["defaults"] if isinstance(entry, dict) for name in entry}
    assert not (plain & GROUPS) - chosen
