"""Commands as functions: their options are composed anywhere, also in a program that hydra runs."""

from __future__ import annotations

import pytest
from hydra import compose, initialize_config_dir

from jepa_mpc.face.commands import composed
from jepa_mpc.places import CONFIGS


def test_options_are_composed_within_another_hydra_application():
    with initialize_config_dir(str(CONFIGS), version_base=None):
        before = compose("probe")
        assert composed("train", {"seed": 3, "fit": "motion"}).seed == 3
        assert compose("probe") == before
    assert composed("train", {}).seed == 0


def test_an_unknown_option_is_told_and_leaves_the_application_as_it_is():
    with initialize_config_dir(str(CONFIGS), version_base=None):
        with pytest.raises(ValueError, match="train: .*sed"):
            composed("train", {"sed": 3})
        assert compose("train").seed == 0
