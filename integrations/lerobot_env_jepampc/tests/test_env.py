"""The labs as LeRobot sees them: features, vector environments, success at the end of an episode."""

from __future__ import annotations

from importlib.metadata import metadata

import numpy as np
import pytest
from lerobot.envs import check_env_attributes_and_types, env_to_policy_features, make_env, preprocess_observation
from lerobot.envs.factory import make_env_config
from lerobot.utils.import_utils import register_third_party_plugins

from jepa_mpc.errors import UnknownName

SMALL = {"image_size": 32, "episode_length": 2}
register_third_party_plugins()  # as LeRobot's commands begin


@pytest.fixture
def envs():
    made = make_env(make_env_config("jepampc", **SMALL), n_envs=2, use_async_envs=False)["reach-v1"][0]
    yield made
    made.close()


def test_lerobot_finds_the_distribution_by_its_name():
    assert metadata("lerobot_env_jepampc")["Name"] == "lerobot_env_jepampc"


def test_observations_are_what_the_features_promise(envs):
    observation, _ = envs.reset(seed=[3, 4])
    seen = preprocess_observation(observation)
    promised = env_to_policy_features(make_env_config("jepampc", **SMALL))
    assert {name: tuple(value.shape[1:]) for name, value in seen.items()} == {
        name: tuple(feature.shape) for name, feature in promised.items() if name != "action"
    }
    assert {name.rpartition(".")[2] for name in seen} == {"left", "right", "goal_left", "goal_right", "state"}
    assert promised["action"].shape == envs.single_action_space.shape == (7,)
    assert not np.array_equal(observation["pixels"]["left"], observation["pixels"]["goal_left"])


def test_an_episode_begins_where_the_task_itself_would(envs):
    import jepa_mpc

    shown, _ = envs.reset(seed=[3, 4])
    env = jepa_mpc.make_env("reach-v1", image_size=32)
    plain, _ = env.reset(seed=4)
    env.close()
    for name, rows in (("left", plain["frames"][:3]), ("goal_right", plain["goal"][3:])):
        assert np.array_equal(shown["pixels"][name][1], rows.transpose(1, 2, 0))


@pytest.mark.filterwarnings("error:The environment does not have")
def test_success_is_told_in_the_last_step_and_the_next_episode_begins_in_it(envs):
    check_env_attributes_and_types(envs)
    assert envs.call("_max_episode_steps") == (2, 2) and "hand" in envs.call("task_description")[0]
    first, info = envs.reset(seed=[3, 4])
    assert not info["is_success"].any()
    still = np.zeros((2, 7), np.float32)
    _, _, _, truncated, info = envs.step(still)
    assert not truncated.any() and not info["is_success"].any() and "final_info" not in info
    for env in envs.envs:
        env.env.goal_m = env.env.hand_m()  # where the hand stands is the goal from now on
    seen, _, _, truncated, info = envs.step(still)
    assert truncated.all() and info["final_info"]["is_success"].all()
    assert not np.array_equal(seen["pixels"]["goal_left"], first["pixels"]["goal_left"])
    assert envs.envs[0].render().shape == (384, 384, 3)


def test_environments_run_in_processes_of_their_own():
    envs = make_env(make_env_config("jepampc", **SMALL), n_envs=2, use_async_envs=True)["reach-v1"][0]
    try:
        observation, _ = envs.reset(seed=[3, 4])
        assert observation["pixels"]["left"].shape == (2, 32, 32, 3)
    finally:
        envs.close()


def test_pick_has_a_camera_at_the_wrist_and_goals_under_way():
    config = make_env_config("jepampc", task="pick-v1", image_size=32, settings={"protocol": "final"})
    assert "observation.images.goal_wrist" in env_to_policy_features(config)
    envs = config.create_envs(n_envs=1)["pick-v1"][0]
    observation, info = envs.reset(seed=[0])
    assert observation["pixels"]["wrist"].shape == (1, 32, 32, 3) and info["sub_goal"][0] == "place"
    envs.close()


def test_what_does_not_exist_is_told_with_what_does():
    with pytest.raises(UnknownName, match="unknown env 'lift-v1'; known: .*pick-v1"):
        make_env_config("jepampc", task="lift-v1")
    with pytest.raises(UnknownName, match="unknown camera 'top'; known: left, right"):
        make_env_config("jepampc", cameras=["top"])
