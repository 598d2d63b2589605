"""Recordings of episodes for Rerun: what is shown, that the agent plays the same, and the sentence without Rerun."""

from __future__ import annotations

import sys
import types

import numpy as np
import pytest

import jepa_mpc
from jepa_mpc.errors import MissingPackage
from jepa_mpc.face.viewing import WatchedPlanner, open_view, watched
from tests import tiny


class Recording:
    """Stands for `rerun.RecordingStream`: keeps what it is told."""

    def __init__(self, application):
        self.steps, self.shown, self.open = [], {}, True
        Recording.last = self

    def save(self, path):
        self.path = path

    def set_time(self, name, *, sequence):
        self.steps.append(sequence)

    def log(self, place, what):
        self.shown.setdefault(place, []).append(what)

    def disconnect(self):
        self.path.write_text("recording")


@pytest.fixture
def rerun(monkeypatch):
    """A package `rerun` that keeps what is shown."""
    package = types.ModuleType("rerun")
    package.RecordingStream = Recording
    for name in ("Image", "Scalars", "Points3D", "LineStrips3D", "BarChart"):
        setattr(package, name, lambda values, name=name: (name, np.asarray(values)))
    monkeypatch.setitem(sys.modules, "rerun", package)
    return package


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    """A lab, and what makes an agent with a tiny untrained world model for it."""
    model = jepa_mpc.load_world_model(tiny.save(tmp_path_factory.mktemp("model") / "checkpoint"))
    env = jepa_mpc.make_env("reach-v1", image_size=tiny.SIZE, budget=2)
    planner = {"_target_": "cem", "num_samples": 6, "num_elites": 2, "num_iterations": 3}
    yield env, lambda: jepa_mpc.load_agent(env, model, kind="simple", planner=planner, seed=3)
    env.close()


@pytest.mark.render
def test_a_recording_shows_cameras_goal_path_costs_and_times(tmp_path, rerun, scene):
    env, agent = scene
    (plain,) = jepa_mpc.evaluate(env, agent(), seeds=[0])
    (played,) = jepa_mpc.evaluate(env, agent(), seeds=[0], view=tmp_path / "views" / "episode.rrd")
    shown = Recording.last.shown
    np.testing.assert_array_equal(played.actions, plain.actions)
    assert (tmp_path / "views" / "episode.rrd").read_text() == "recording"
    assert [len(shown[f"{place}/left"]) for place in ("goal", "cameras")] == [1, 2]
    assert shown["cameras/right"][0][1].shape == (tiny.SIZE, tiny.SIZE, 3)
    assert [name for name in shown if name.startswith("costs/round_")] == [f"costs/round_{n}" for n in range(3)]
    assert all(len(costs) == 6 and np.all(np.diff(costs) >= 0) for _, costs in shown["costs/round_0"])
    assert shown["predicted/path"][0][1].shape == (1, 3, 3)  # the hand, and where two steps lead
    assert (
        shown["decision/time_ms"][1][1] == played.wall_ms[1] and shown["goal/distance_m"][0][1] == played.distances[0]
    )
    assert Recording.last.steps == [0, 0, 1]


def test_the_costs_of_the_last_search_are_kept(scene):
    _, agent = scene
    made = agent()
    planner = watched(made)
    assert isinstance(planner, WatchedPlanner) and watched(made) is planner
    assert watched(object()) is None


def test_a_missing_package_is_named_and_nothing_is_left(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "rerun", None)
    with pytest.raises(MissingPackage, match="view=rerun needs the package rerun-sdk"), open_view(tmp_path / "x.rrd"):
        pass
    assert not list(tmp_path.iterdir())


@pytest.mark.render
def test_the_package_writes_a_recording_that_can_be_read(tmp_path, scene):
    pytest.importorskip("rerun")
    env, agent = scene
    jepa_mpc.evaluate(env, agent(), seeds=[0], view=tmp_path / "episode.rrd")
    assert (tmp_path / "episode.rrd").read_bytes()[:4] == b"RRF2"
