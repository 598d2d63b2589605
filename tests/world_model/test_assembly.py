"""Systems from plain configuration: nesting, the allow-list, and errors that name the part."""

from __future__ import annotations

import pytest

from jepa_mpc.encoders.convnet import KeypointEncoder
from jepa_mpc.errors import UnknownName
from jepa_mpc.world_model.checkpoints.assembly import assemble
from jepa_mpc.world_model.parts.augment import Augmentation, ColourJitter, Patches
from jepa_mpc.world_model.parts.objectives.dynamics import DynamicsObjective
from tests import tiny


def test_plain_values_stay_what_they_are():
    assert assemble({"a": [1, (2.5, None)], "b": {"c": "word"}}) == {"a": [1, [2.5, None]], "b": {"c": "word"}}


def test_parts_are_built_from_the_inside_out():
    made = assemble(tiny.SYSTEM)
    assert isinstance(made, DynamicsObjective) and isinstance(made.encoder, KeypointEncoder)
    assert made.encoder.width == 64 and "displacement" in made.parts and made.open_loop.weight == 1.0


def test_parts_inside_lists_are_built():
    jitter, patches = "colour_jitter", "patches"
    made = assemble(
        {
            "_target_": "augmentation",
            "changes": [{"_target_": jitter, "mixing": 0.1}, {"_target_": patches}],
        }
    )
    assert isinstance(made, Augmentation)
    assert [type(change) for change in made.changes] == [ColourJitter, Patches] and made.changes[0].mixing == 0.1


def test_further_arguments_reach_the_outermost_part_alone():
    made = assemble({"_target_": "keypoint_encoder", "widths": [8, 8, 8, 8]}, width=24)
    assert made.width == 24


def test_the_configuration_is_left_as_it_was():
    spec = tiny.system()
    assemble(spec)
    assert spec == tiny.SYSTEM


@pytest.mark.parametrize(
    "name",
    [
        "os.system",
        "builtins.eval",
        "torch.load",
        "jepa_mpc.world_model.checkpoints.loader.load_world_model",
        "jepa_mpc.world_model.checkpoints.assembly",
        "",
    ],
)
def test_only_our_own_parts_are_ever_called(name, tmp_path):
    sentinel = tmp_path / "executed"
    spec = {"_target_": name, "command": f"touch {sentinel}"}
    with pytest.raises(UnknownName, match="unknown part"):
        assemble(tiny.system(encoder=spec))
    assert not sentinel.exists()


@pytest.mark.parametrize("target", [None, 3, ["os.system"], {"_target_": "os.system"}])
def test_a_target_that_is_no_name_is_refused(target):
    with pytest.raises(UnknownName, match="known: act_jepa"):
        assemble({"_target_": target})


def test_an_unknown_argument_names_the_part():
    with pytest.raises(TypeError, match=r"keypoint_encoder: .*'depth'"):
        assemble(tiny.system(encoder={"_target_": "keypoint_encoder", "depth": 3}))
