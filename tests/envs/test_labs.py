"""The generator of labs keeps what is trained on apart from what is scored."""

from __future__ import annotations

import itertools
import json
from dataclasses import asdict

import numpy as np
import pytest

from jepa_mpc.envs.labs import SIDES, SPLITS, lab_from_dict, labs_hash, sample_lab
from jepa_mpc.envs.ranges import FACTORS, RANGES, Choice, Span
from jepa_mpc.errors import UnknownName
from jepa_mpc.seeding import numpy_generator

LEVELS = ("train", "validation", "held", "dev")
APART_LEVELS = ("train", "validation", "held")
QUANTITIES = [(factor, name) for factor in FACTORS for name in RANGES[factor]]
SPANS = [(f, n) for f, n in QUANTITIES if isinstance(RANGES[f][n], Span)]
APART = [("texture", "seed"), ("clutter", "count"), ("image", "jpeg")]
FIELDS = {
    "camera": {"cameras"},
    "light": {"lamps"},
    "texture": {"textures"},
    "colour": {"link_rgb"},
    "clutter": {"distractors"},
    "base": {"base_xy_m", "base_yaw_deg", "distractors"},  # what may stand below the hand depends on where the hand is
    "table": {"table_height_m"},
    "image": {"image"},
    "dynamics": {"dynamics"},
}


def overlap(one, other) -> float:
    return sum(max(0.0, min(a[1], b[1]) - max(a[0], b[0])) for a, b in itertools.product(one, other))


@pytest.mark.parametrize(("factor", "name"), SPANS)
def test_intervals_of_the_levels_share_no_length(factor, name):
    span = RANGES[factor][name]
    for one, other in itertools.combinations(LEVELS, 2):
        shared = (factor, name, one, other) == ("camera", "azimuth", "validation", "dev")
        assert shared or overlap(getattr(span, one), getattr(span, other)) == 0


def test_development_labs_keep_away_from_what_is_scored_later():
    camera = RANGES["camera"]
    assert (
        max(high for _, high in camera["azimuth"].dev) <= 85 and max(high for _, high in camera["elevation"].dev) <= 55
    )


def test_development_labs_are_as_far_out_as_the_held_ones():
    def farthest(span, level):
        middle = sum(map(sum, span.train)) / (2 * len(span.train))
        return max(abs(end - middle) for interval in getattr(span, level) for end in interval)

    exempt = {
        ("camera", "azimuth"),
        ("light", "elevation"),
        ("camera", "elevation"),
        ("texture", "hue"),
        ("clutter", "hue"),
    }
    for factor, name in set(SPANS) - exempt:
        span = RANGES[factor][name]
        assert farthest(span, "dev") >= farthest(span, "held"), (factor, name)


@pytest.mark.parametrize(("factor", "name"), APART)
def test_choices_of_the_levels_are_apart(factor, name):
    sets = [set(getattr(RANGES[factor][name], level)) for level in APART_LEVELS]
    assert all(one.isdisjoint(other) for one, other in itertools.combinations(sets, 2))


def test_numbers_of_lights_are_new_where_it_counts():
    count = RANGES["light"]["count"]
    assert isinstance(count, Choice) and set(count.held).isdisjoint({*count.train, *count.validation})


@pytest.mark.parametrize(("factor", "name"), SPANS)
@pytest.mark.parametrize("level", LEVELS)
def test_values_are_drawn_from_their_intervals(factor, name, level):
    span = RANGES[factor][name]
    rng = numpy_generator(0, factor, name, level)
    for value in (span.draw(rng, level) for _ in range(100)):
        size = abs(value) if span.signed else value
        assert any(low <= size <= high for low, high in getattr(span, level))


def allowed(factor: str, name: str, level: str, value: float) -> bool:
    return any(low - 1e-9 <= value <= high + 1e-9 for low, high in getattr(RANGES[factor][name], level))


@pytest.mark.parametrize(
    ("split", "level"), [("train", "train"), ("all", "validation"), ("all", "held"), ("all", "dev")]
)
def test_whole_labs_keep_to_their_ranges(split, level):
    for index in range(20):
        lab = sample_lab(index, split=split, level="held" if level == "train" else level)
        for name, pose in lab.cameras.items():
            assert allowed("camera", "azimuth", level, SIDES[name] * pose.azimuth_deg)
            assert allowed("camera", "elevation", level, pose.elevation_deg)
            assert allowed("camera", "distance", level, pose.distance_m)
            assert allowed("camera", "roll", level, abs(pose.roll_deg))
            assert allowed("camera", "fovy", level, pose.fovy_deg)
            assert all(allowed("camera", "look_at", level, abs(value)) for value in pose.look_at_offset_m)
        assert len(lab.lamps) in getattr(RANGES["light"]["count"], level)
        assert all(allowed("light", "elevation", level, lamp.elevation_deg) for lamp in lab.lamps)
        assert all(allowed("texture", "hue", level, texture.hue) for texture in lab.textures.values())
        assert all(texture.seed in getattr(RANGES["texture"]["seed"], level) for texture in lab.textures.values())
        assert len(lab.distractors) in getattr(RANGES["clutter"]["count"], level)
        assert all(allowed("base", "shift", level, abs(value)) for value in lab.base_xy_m)
        assert allowed("base", "yaw", level, abs(lab.base_yaw_deg))
        assert allowed("table", "height", level, abs(lab.table_height_m))
        assert allowed("image", "noise", level, lab.image.noise) and allowed("image", "gain", level, lab.image.gain)
        assert allowed("dynamics", "servo", level, abs(lab.dynamics.servo - 1))
        assert allowed("dynamics", "payload", level, lab.dynamics.payload_kg)


def test_the_same_seed_gives_the_same_lab():
    assert sample_lab(5, split="all", seed=2) == sample_lab(5, split="all", seed=2)
    assert sample_lab(5, split="all", seed=2) != sample_lab(5, split="all", seed=3)


@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize("level", ["validation", "held", "dev"])
def test_a_factors_split_differs_from_the_usual_labs_in_that_factor_alone(factor, level):
    for index in range(5):
        usual, changed = (asdict(sample_lab(index, split=split, level=level)) for split in ("in", factor))
        differing = {name for name in usual if usual[name] != changed[name]} - {"split"}
        assert differing <= FIELDS[factor]
        assert differing or factor == "colour"


def test_other_labs_of_the_trained_ranges_are_not_the_trained_ones():
    trained = [sample_lab(index).cameras for index in range(20)]
    assert all(sample_lab(index, split="in").cameras not in trained for index in range(20))


def test_labs_for_choosing_and_for_scoring_are_different_ones():
    chosen, scored = (sample_lab(0, split="in", level=level) for level in ("validation", "held"))
    assert chosen.cameras != scored.cameras


@pytest.mark.parametrize("split", sorted(SPLITS))
def test_a_lab_survives_json(split):
    lab = sample_lab(7, split=split)
    assert lab_from_dict(json.loads(json.dumps(lab.to_dict()))) == lab


def test_a_record_that_is_no_lab_is_refused():
    record = sample_lab(0).to_dict()
    with pytest.raises(ValueError, match="not a record of a lab"):
        lab_from_dict({**record, "gravity": 1.0})
    del record["lamps"]
    with pytest.raises(ValueError, match="lamps"):
        lab_from_dict(record)


def test_the_fingerprint_of_labs_stays():
    """The logs and scores of reach-v1 belong to these labs: if this number changes, the task's name must, too."""
    labs = [sample_lab(index, split=split) for split in sorted(SPLITS) for index in range(3)]
    assert labs_hash(labs) == "e6cefa8995cc"
    assert labs_hash([lab_from_dict(lab.to_dict()) for lab in labs]) == labs_hash(labs)
    assert labs_hash(labs[::-1]) != labs_hash(labs)


def test_unknown_splits_and_levels_are_refused():
    with pytest.raises(UnknownName, match="look"):
        sample_lab(0, split="looks")
    with pytest.raises(ValueError, match="level"):
        sample_lab(0, level="test")


def test_things_below_the_hand_are_low():
    for index in range(30):
        lab = sample_lab(index, split="clutter")
        for item in lab.distractors:
            cos, sin = np.cos(np.deg2rad(lab.base_yaw_deg)), np.sin(np.deg2rad(lab.base_yaw_deg))
            x, y = np.array([[cos, sin], [-sin, cos]]) @ (np.array(item.at_m) - np.array(lab.base_xy_m))
            if 0.30 < x < 0.65 and -0.30 < y < 0.30:
                assert 2 * item.size_m[2] <= 0.045  # the hand stays 5 cm above the table
