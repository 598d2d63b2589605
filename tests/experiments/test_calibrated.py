"""The agent that checks its readings: what it is given, how pictures reach the model, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from jepa_mpc.checkpoint import save_checkpoint
from jepa_mpc.envs.labs import sample_lab
from jepa_mpc.envs.reach import ReachEnv
from jepa_mpc.errors import BadObservation, UnknownName
from jepa_mpc.experiments.reaching.calibrated import CalibratedAgent, CalibratedPlayer
from jepa_mpc.experiments.reaching.methods import WORLD_MODEL, Methods
from jepa_mpc.experiments.reaching.pictures import seen_size, shrunk
from jepa_mpc.experiments.reaching.players import PlanSettings
from jepa_mpc.seeding import generator
from jepa_mpc.world_model.recipes.hand_points import build
from tests import tiny

QUICK = PlanSettings(planner="random_shooting", arguments={"num_samples": 8}, horizon=2)
POINTS = {"_target_": "hand_points", "widths": [8, 8, 8, 8], "points": 2}


@pytest.fixture(scope="module")
def methods(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    points = build(widths=(8, 8, 8, 8), points=2, generator=generator(0))
    save_checkpoint(folder / "points", points.state_dict(), {"system": POINTS})
    return Methods(
        checkpoint=tiny.save(folder / "model"),
        frozen=None,
        settings=QUICK,
        sampling=QUICK,
        calibrated=CalibratedAgent(points=str(folder / "points"), camera_px=2 * tiny.SIZE, sizes=(32, 64)),
    )


@pytest.fixture(scope="module")
def env(renderable):
    made = ReachEnv(image_size=2 * tiny.SIZE, budget=3)
    made.reset(seed=3, options={"lab": sample_lab(0, split="look")})
    yield made
    made.close()


@pytest.mark.render
def test_it_acts_within_the_box_and_says_how_far_the_goal_is(methods, env):
    player = methods.player(WORLD_MODEL, env, stream=0)
    player.begin(env)
    action = player.act(env)
    assert isinstance(player, CalibratedPlayer)
    assert np.all(np.abs(action) <= env.action_box.high.numpy() + 1e-6)
    assert player.believes_m() > 0


@pytest.mark.render
def test_each_observation_is_perceived_once(methods, env):
    player = methods.player(WORLD_MODEL, env, stream=0)
    player.begin(env)
    look, seen = player.agent.perception.perception, []
    player.agent.perception.perception = lambda observation: (seen.append(observation), look(observation))[1]
    player.act(env)
    assert len(seen) == 1


@pytest.mark.render
def test_a_finder_that_names_the_way_is_followed(methods, env):
    player = methods.player(WORLD_MODEL, env, stream=0)
    player.begin(env)
    player.finder = lambda *seen, **felt: torch.tensor([0.2, -0.1, 0.0])  # type: ignore[assignment]
    player.act(env)
    present = player._place(player.agent.last.present[0])
    assert torch.allclose(player.cost.wanted[0], torch.from_numpy(present) + torch.tensor([0.2, -0.1, 0.0]), atol=1e-5)


@pytest.mark.render
def test_images_and_its_own_commands_are_all_it_needs(methods, env):
    player, other = (methods.player(WORLD_MODEL, env, stream=0) for _ in range(2))
    player.begin(env), other.begin(SimpleNamespace(goal=env.goal))
    blind = SimpleNamespace(observation=lambda: replace(env.observation(), proprio=None))
    for _ in range(2):
        assert np.array_equal(player.act(env), other.act(blind))


@pytest.mark.render
def test_where_the_pose_shall_be_felt_and_is_not_it_says_so(methods, env):
    feeling = replace(methods, calibrated=replace(methods.calibrated, place="felt"))
    player = feeling.player(WORLD_MODEL, env, stream=0)
    player.begin(env)
    blind = replace(env.observation(), proprio=None)
    with pytest.raises(BadObservation, match="hand's own pose"):
        player.act(SimpleNamespace(observation=lambda: blind))


def test_pictures_are_averaged_to_the_models_size():
    frames = torch.arange(16, dtype=torch.uint8).view(1, 1, 1, 4, 4)
    assert shrunk(frames, 2).flatten().tolist() == [2, 4, 10, 12]  # means 2.5, 4.5, 10.5, 12.5, halves to even
    assert shrunk(frames, 4) is frames and shrunk(frames, 3) is frames


@pytest.mark.parametrize(("camera", "model", "seen"), [(128, 64, 64), (64, 64, 64), (96, 64, 96)])
def test_only_whole_multiples_of_the_models_size_fit_it(camera, model, seen):
    assert seen_size(camera, model) == seen


def test_an_unknown_option_is_named():
    with pytest.raises(UnknownName, match="colour"):
        CalibratedAgent.of({"points": "x", "colour": "red"})


def test_an_unknown_way_of_knowing_the_place_is_named():
    with pytest.raises(UnknownName, match="dreamt"):
        CalibratedAgent.of({"points": "x", "place": "dreamt"})


def test_a_camera_without_pixels_is_refused():
    with pytest.raises(ValueError, match="camera_px"):
        CalibratedAgent.of({"points": "x", "camera_px": 2})
