"""Shipped checkpoints are known by their names in every directory."""

from __future__ import annotations

import pytest
import yaml

from jepa_mpc.checkpoint import checkpoint_hash, place_of
from jepa_mpc.errors import BadCheckpoint
from jepa_mpc.places import CHECKPOINTS, CONFIGS, folder_of, shipped

NAMES = sorted(path.name for path in CHECKPOINTS.iterdir() if path.is_dir())


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_checkpoint_is_found_by_name(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert place_of(name) == CHECKPOINTS / name and len(checkpoint_hash(name)) == 12


def test_a_folder_of_that_name_with_other_things_is_passed_over(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "reach").mkdir()
    (tmp_path / "reach" / "notes.txt").write_text("mine")
    assert folder_of("reach") == CHECKPOINTS / "reach"


def test_a_checkpoint_at_the_place_is_taken_even_if_it_is_damaged(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "reach").mkdir()
    (tmp_path / "reach" / "config.json").write_text("{}")
    with pytest.raises(BadCheckpoint, match="incomplete"):
        checkpoint_hash("reach")


@pytest.mark.parametrize("name", ["nowhere", "../checkpoints/reach", ""])
def test_other_words_are_paths(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert shipped(name) is None and str(folder_of(name)) in (name, ".")


def test_no_configuration_names_a_checkpoint_by_a_path():
    paths = [
        f"{path.name}: {word}"
        for path in CONFIGS.rglob("*.yaml")
        for word in _words(yaml.safe_load(path.read_text()))
        if "experiments/checkpoints" in word and path.name != "publish.yaml"
    ]
    assert not paths


def _words(value):
    match value:
        case dict():
            return [word for entry in value.values() for word in _words(entry)]
        case list():
            return [word for entry in value for word in _words(entry)]
    return [str(value)]
