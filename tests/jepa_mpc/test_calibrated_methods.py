"""The agent that checks its readings: what it is given, how pictures reach the model, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from jepa_mpc.checkpoint import save_checkpoint
from jepa_mpc.encoders.hand_points import Sighting
from jepa_mpc.envs.labs import sample_lab
from jepa_mpc.envs.reach import ReachEnv
from jepa_mpc.errors import BadObservation
from jepa_mpc.face.agents import CalibratedSettings
from jepa_mpc.face.evaluation.methods import WORLD_MODEL, Methods
from jepa_mpc.face.planning import PlanSettings
from jepa_mpc.seeding import generator
from jepa_mpc.world_model.perception.calibration import camera_rigs
from jepa_mpc.world_model.perception.goal_estimator import GoalEstimator
from jepa_mpc.world_model.perception.resize import downsampled, seen_size
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
        calibrated=CalibratedSettings(camera_px=2 * tiny.SIZE, sizes=(32, 64)),
        keypoints=folder / "points",
    )


@pytest.fixture(scope="module")
def env(renderable):
    made = ReachEnv(image_size=2 * tiny.SIZE, budget=3)
    made.reset(seed=3, options={"lab": sample_lab(0, split="look")})
    yield made
    made.close()


@pytest.fixture
def agent(methods, env):
    made = methods.agent(WORLD_MODEL, env, stream=0)
    made.reset(env.goal())
    return made


@pytest.mark.render
def test_it_acts_within_the_box_and_says_how_far_the_goal_is(agent, env):
    action = agent.act(env.observation())
    assert bool((action.abs() <= env.action_box.high + 1e-6).all())
    assert float(agent.last.goal_distance) > 0


@pytest.mark.render
def test_each_observation_is_perceived_once(agent, env, monkeypatch):
    inner, seen = agent.perception.perception, []
    monkeypatch.setattr(agent.perception, "perception", lambda given: (seen.append(given), inner(given))[1])
    agent.act(env.observation())
    assert len(seen) == 1


@pytest.mark.render
def test_the_estimated_way_is_followed_as_the_position_of_the_goal(agent, env):
    way = torch.tensor([0.2, -0.1, 0.0])
    agent.goals._estimator = lambda *seen, **felt: way
    agent.act(env.observation())
    assert torch.allclose(agent.last.goal.position, agent.last.position + way, atol=1e-5)
    assert torch.allclose(agent.last.goal_distance, way.norm(), atol=1e-5)


@pytest.mark.render
def test_images_and_its_own_commands_are_all_it_needs(methods, env):
    agent, other = (methods.agent(WORLD_MODEL, env, stream=0) for _ in range(2))
    agent.reset(env.goal()), other.reset(env.goal())
    for _ in range(2):
        seen = env.observation()
        assert torch.equal(agent.act(seen), other.act(replace(seen, proprio=None)))


@pytest.mark.render
def test_where_the_pose_shall_be_felt_and_is_not_it_says_so(methods, env):
    feeling = replace(methods, calibrated=replace(methods.calibrated, place="felt"))
    agent = feeling.agent(WORLD_MODEL, env, stream=0)
    agent.reset(env.goal())
    with pytest.raises(BadObservation, match="measured hand pose"):
        agent.act(replace(env.observation(), proprio=None))
    assert agent.act(env.observation()).isfinite().all()  # a step that failed leaves it able to act


def test_cameras_of_any_name_can_be_calibrated():
    """Points of a camera on the right, told nothing of its side: the way to the goal is found after a few steps."""
    rigs, places = camera_rigs(-1), torch.randn(12, 3, generator=generator(0)) * 0.05
    chosen = rigs.maps[300], rigs.maps[170]
    estimator, goal = GoalEstimator(cameras=["front", "gripper cam"]), torch.tensor([0.1, -0.05, 0.08])
    for place in places:
        seen, wanted = (torch.stack([rig @ at for rig in chosen])[None] for at in (place, goal))
        spread = torch.zeros(1, 2)
        way = estimator(
            Sighting(at=seen, spread=spread),
            Sighting(at=wanted, spread=spread),
            place_m=place,
            read_m=torch.zeros(3),
            goal_read_m=torch.zeros(3),
        )
    assert float((place + way - goal).norm()) < 0.01


def test_pictures_are_averaged_to_the_models_size():
    frames = torch.arange(16, dtype=torch.uint8).view(1, 1, 1, 4, 4)
    assert downsampled(frames, 2).flatten().tolist() == [2, 4, 10, 12]  # means 2.5, 4.5, 10.5, 12.5, halves to even
    assert downsampled(frames, 4) is frames and downsampled(frames, 3) is frames


@pytest.mark.parametrize(("camera", "model", "seen"), [(128, 64, 64), (64, 64, 64), (96, 64, 96)])
def test_only_whole_multiples_of_the_models_size_fit_it(camera, model, seen):
    assert seen_size(camera, model) == seen


@pytest.mark.parametrize(("options", "words"), [({"place": "dreamt"}, "dreamt"), ({"camera_px": 2}, "camera_px")])
def test_settings_that_cannot_be_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        CalibratedSettings(**options)
