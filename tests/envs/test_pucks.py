"""Pucks on a table: pushing, meeting, absence, pictures and segmentation."""

from __future__ import annotations

import numpy as np
import pytest

from jepa_mpc.envs.pucks import (
    HAND_RADIUS_M,
    LARGEST_STEP_M,
    NUM_BODIES,
    PUCK_RADIUS_M,
    VIEW_M,
    WALL_M,
    PuckTable,
    radii_m,
    scattered,
)

TWO = np.array([True, True, True, False, False])


@pytest.fixture
def table():
    made = PuckTable()
    yield made
    made.close()


def laid(table, hand, red, green, present=TWO):
    places = np.zeros((NUM_BODIES, 2))
    places[:3] = hand, red, green
    table.lay(places, present)


def test_an_action_is_the_way_of_the_hand_in_metres(table):
    laid(table, (0, 0), (0.2, 0.2), (-0.2, -0.2))
    table.step(np.array([0.03, -0.02]))
    assert table.places_m()[0] == pytest.approx([0.03, -0.02], abs=0.003)


def test_a_push_carries_a_puck_along_and_a_second_one_before_it(table):
    laid(table, (-0.12, 0), (0, 0), (0.15, 0))
    met = [table.step(np.array([LARGEST_STEP_M, 0.0])) for _ in range(4)]
    assert any(m[0, 1] for m in met) and any(m[1, 2] for m in met) and not any(m[0, 2] for m in met)
    assert all((m == m.T).all() for m in met)
    hand, red, green = table.places_m()[:3, 0]
    assert red > hand + 0.09 and green > 0.2


def test_pucks_glide_on_and_stop(table):
    laid(table, (-0.12, 0), (0, 0), (0.2, 0.2))
    for _ in range(2):
        table.step(np.array([LARGEST_STEP_M, 0.0]))
    pushed = table.places_m()[1, 0]
    table.step(np.array([-LARGEST_STEP_M, 0.0]))
    assert table.places_m()[1, 0] > pushed + 0.005
    for _ in range(10):
        table.step(np.zeros(2))
    assert np.abs(table.state()[NUM_BODIES * 2 :]).max() < 1e-3


def test_nothing_leaves_the_walls(table):
    laid(table, (0, 0), (0.15, 0), (0, 0.15))
    rng = np.random.default_rng(0)
    for _ in range(40):
        table.step(rng.choice([-1, 1], 2) * LARGEST_STEP_M)
        assert (np.abs(table.places_m()[TWO]) < WALL_M + 0.01).all()


def test_absent_pucks_are_not_met(table):
    laid(table, (-0.12, 0), (0, 0), (0.15, 0), np.array([True, False, False, True, True]))
    places = np.zeros((NUM_BODIES, 2))
    places[3:] = (0.2, 0.2), (-0.2, 0.2)
    places[0] = -0.12, 0
    table.lay(places, np.array([True, False, False, True, True]))
    assert not any(table.step(np.array([LARGEST_STEP_M, 0.0])).any() for _ in range(4))
    assert table.places_m()[0, 0] == pytest.approx(0.08, abs=0.005)


def test_a_state_that_is_taken_up_leads_to_the_same_future(table):
    laid(table, (-0.12, 0.01), (0, 0), (0.15, 0))
    table.step(np.array([LARGEST_STEP_M, 0.0]))
    state = table.state()
    table.step(np.array([LARGEST_STEP_M, 0.0]))
    first = table.state()
    table.set_state(state)
    assert (table.state() == state).all()
    table.step(np.array([LARGEST_STEP_M, 0.0]))
    assert table.state() == pytest.approx(first, abs=1e-6)


def test_scattered_bodies_do_not_touch():
    rng = np.random.default_rng(1)
    present = np.ones(NUM_BODIES, dtype=bool)
    for _ in range(20):
        places = scattered(rng, present)
        gaps = np.linalg.norm(places[:, None] - places[None], axis=-1) - radii_m()[:, None] - radii_m()[None]
        assert gaps[~np.eye(NUM_BODIES, dtype=bool)].min() > 0.01


def test_the_segmentation_shows_who_is_there_and_as_large_as_it_is(table):
    laid(table, (-0.2, 0), (0, 0), (0.2, 0))
    owners = table.owners()
    assert set(np.unique(owners)) == {0, 1, 2, 3}
    pixel = (VIEW_M / 64) ** 2
    assert (owners == 2).sum() * pixel == pytest.approx(np.pi * PUCK_RADIUS_M**2, rel=0.1)
    assert (owners == 1).sum() * pixel == pytest.approx(np.pi * HAND_RADIUS_M**2, rel=0.15)
    assert owners[32, 32] == 2


@pytest.mark.render
def test_pictures_show_what_the_segmentation_says(table):
    laid(table, (-0.2, 0.1), (0, 0), (0.2, -0.1))
    picture, owners = table.picture(), table.owners()
    red, rest = picture[:, owners == 2].mean(axis=1), picture[:, owners == 0].mean(axis=1)
    assert picture.shape == (3, 64, 64) and red[0] > 150 and red[1:].max() < 80 and rest.min() > 150


def test_bad_places_are_refused(table):
    with pytest.raises(ValueError, match="within 0.3 m"):
        laid(table, (0, 0), (0.4, 0), (0, 0))
    with pytest.raises(ValueError, match="with the hand"):
        table.lay(np.zeros((NUM_BODIES, 2)), np.zeros(NUM_BODIES, dtype=bool))
