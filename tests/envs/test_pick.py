"""The physical table and pick-v1: what is shown, what counts as success, and what may not be disturbed by judging."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest
import torch

from jepa_mpc import envs
from jepa_mpc.envs.labs import sample_lab
from jepa_mpc.envs.servo import RelativeServo, Servo, StillWorld
from jepa_mpc.envs.things import BODY, KINDS, Thing
from jepa_mpc.types import Context

FREE_OF_CLUTTER = next(lab for lab in map(sample_lab, range(50)) if not lab.distractors)
GRAVITY_M_S2 = 9.81


@pytest.fixture(scope="module")
def env():
    made = envs.make("pick-v1", cameras=(), budget=30)
    yield made
    made.close()


def act(env, *, up_m: float = 0.0, closing: float = 0.0):
    action = np.zeros(7, dtype=np.float32)
    action[2], action[6] = up_m, closing
    return env.step(action)[4]


def play(env, kind: str, seed: int = 0):
    """Let the script play; yields the info of each step."""
    env.reset(seed=seed, options={"lab": sample_lab(seed, split="look"), "thing": Thing(kind=kind)})
    policy = env.oracle()
    for _ in range(env.budget):
        yield env.step(policy.act())[4]


def in_hand(env, **options):
    env.reset(seed=0, options={"lab": FREE_OF_CLUTTER, "thing": Thing(kind="box"), "in_hand": True, **options})


@pytest.mark.parametrize("kind", KINDS)
def test_the_script_grasps_carries_and_places(env, kind):
    infos = list(play(env, kind))
    held = [info["contact_n"][:2].min() > 1 and info["contact_n"][2] < 0.05 for info in infos]
    assert any(held) and infos[-1]["is_success"] and env.distance_m() < 0.05


@pytest.mark.parametrize("kind", KINDS)
def test_an_object_at_rest_weighs_on_the_table_alone(env, kind):
    env.reset(seed=0, options={"lab": FREE_OF_CLUTTER, "thing": Thing(kind=kind, mass_kg=0.1)})
    for _ in range(3):
        info = act(env)
    left, right, support = info["contact_n"]
    assert left == right == 0
    # a soft contact still breathes: a tenth of the weight
    assert support == pytest.approx(0.1 * GRAVITY_M_S2, rel=0.1)
    assert abs(env.height_m()) < 0.002


def test_an_object_that_is_let_go_of_falls_freely(env):
    high = np.array([0.5, 0.0, 0.30])
    aside = np.array([0.4, 0.2, 0.2])
    options = {"lab": FREE_OF_CLUTTER, "thing": Thing(kind="cup"), "object_m": high, "start_m": aside}
    env.reset(seed=0, options=options)
    mujoco.mj_step(env.scene.model, env.scene.data, 10)
    fallen, time_s = high[2] - env.object_m()[2], 10 * env.scene.model.opt.timestep
    assert fallen == pytest.approx(0.5 * GRAVITY_M_S2 * time_s**2, rel=0.15)  # ten steps of a first-order integrator


def test_clutter_bears_what_is_put_on_it(env):
    lab = sample_lab(0, split="look")
    item = lab.distractors[1]
    env.reset(seed=0, options={"lab": lab, "thing": Thing(kind="box")})
    data, base = env.scene.data, env.scene
    on_top = np.array([*item.at_m, lab.table_height_m + 2 * item.size_m[2] + 0.031])
    env._lay((on_top - base.base_in_world) @ base.base_rotation, 0.04)
    mujoco.mj_step(env.scene.model, data, 100)
    assert data.joint(BODY).qpos[2] > lab.table_height_m + 0.03 + 0.01


def test_holding_the_object_at_its_goal_is_no_placing_but_leaving_it_is(env):
    in_hand(env)
    standing = env.goal_m + np.array([0.0, 0.0, env.thing.held_at_m])
    in_hand(env, start_m=standing, goal_m=env.goal_m)
    act(env)
    assert env.grasped() and not env.success()
    act(env, closing=-1.0)
    act(env, closing=-1.0)
    assert env.success() and not env.grasped()


def test_an_object_that_lies_is_not_placed(env):
    env.reset(seed=0, options={"lab": FREE_OF_CLUTTER, "thing": Thing(kind="cylinder")})
    env._lay(env.goal_m, 0.04)
    assert env.success()
    env.scene.data.joint(BODY).qpos[3:] = [np.sqrt(0.5), np.sqrt(0.5), 0, 0]
    mujoco.mj_forward(env.scene.model, env.scene.data)
    assert not env.success()


def test_judging_leaves_the_state_alone(env):
    in_hand(env)
    act(env)
    before = env.state()
    env.grasped()
    assert np.array_equal(env.state(), before)
    one = env.step(np.zeros(7, np.float32))
    env.set_state(before)
    other = env.step(np.zeros(7, np.float32))
    assert one[1] == other[1]


def test_three_images_count_one_after_another(env):
    env.reset(seed=2)
    shown = []
    for _ in range(24):
        shown.append(env.sub_goal().name)
        act(env)
    assert shown == ["grasp"] * 8 + ["near"] * 10 + ["place"] * 6 and env.sub_goal().name == "place"


def test_the_final_image_alone_shows_an_open_hand_above_a_placed_object():
    env = envs.make("pick-v1", protocol="final", cameras=())
    env.reset(seed=1)
    (goal,) = env.sub_goals
    assert (goal.name, goal.steps) == ("place", 24)
    np.testing.assert_allclose(goal.sensors[3:6], env.goal_m, atol=1e-9)
    assert goal.sensors[2] - goal.sensors[5] > 0.09 and goal.sensors[9] == 0.04


def test_the_moved_object_is_four_to_eight_centimetres_from_where_the_image_shows_it():
    env = envs.make("pick-v1", protocol="moved", cameras=())
    for seed in range(5):
        env.reset(seed=seed)
        assert 0.04 <= np.linalg.norm(env.object_m() - env.sub_goals[0].sensors[3:6]) <= 0.08


@pytest.mark.parametrize("setting", [{"protocol": "image"}, {"object": "ball"}])
def test_unknown_protocols_and_objects_are_refused(setting):
    with pytest.raises(ValueError, match="must be one of"):
        envs.make("pick-v1", cameras=(), **setting)


def test_a_reset_may_choose_the_protocol_of_its_episode_alone():
    env = envs.make("pick-v1", cameras=())
    shown = []
    for options in ({"protocol": "final"}, None):
        env.reset(seed=1, options=options)
        shown.append([goal.name for goal in env.sub_goals])
    assert shown == [["place"], ["grasp", "near", "place"]]
    with pytest.raises(ValueError, match="protocol must be one of"):
        env.reset(options={"protocol": "image"})


@pytest.mark.render
def test_the_wrist_sees_the_object_where_the_hand_holds_it():
    env = envs.make("pick-v1", cameras=("wrist",), object="box", image_size=32)
    red = Thing(kind="box", rgb=(1.0, 0.0, 0.0))
    env.reset(seed=0, options={"lab": FREE_OF_CLUTTER, "thing": red})
    near = env.sub_goals[0].frames.astype(int)
    env.close()
    middle = near[:, 16:28, 10:22].mean(axis=(1, 2))
    assert middle[0] > 2 * middle[1] and middle[0] > 2 * middle[2]


def test_the_servo_goes_where_the_image_shows_the_hand_and_the_other_where_the_object_is():
    env = envs.make("pick-v1", protocol="moved", cameras=())
    env.reset(seed=3)
    goal = env.sub_goals[0].sensors
    moved = env.object_m() - goal[3:6]
    for policy, wanted in ((Servo(env), goal[:3]), (RelativeServo(env), goal[:3] + moved)):
        env.reset(seed=3)
        for _ in range(3):
            action = policy.act()
            np.testing.assert_allclose(action[:3], np.clip(0.6 * (wanted - env.hand_m()), -0.05, 0.05), atol=1e-3)
            assert 0 <= action[6] <= 1  # closing, by a share of what is left


def test_in_the_still_world_only_hand_and_grip_move(env):
    env.reset(seed=0)
    plans = torch.zeros(1, 2, 3, 7)
    plans[0, 1, :, 0], plans[0, 1, :, 6] = 0.02, 0.5
    context = Context(latents=torch.from_numpy(env.state())[None, None, None], actions=torch.zeros(1, 0, 7))
    sensors = StillWorld(env).rollout(context, plans).sensors
    change = sensors[0, 1] - sensors[0, 0]
    expected = torch.zeros(3, 10)
    expected[:, 0] = torch.tensor([0.02, 0.04, 0.06])
    expected[:, 9] = torch.tensor([-0.02, -0.04, -0.04])  # from open to closed, and no further
    torch.testing.assert_close(change, expected, atol=1e-4, rtol=0)


@pytest.fixture(scope="module")
def sliding():
    made = envs.make("pick-v1", protocol="slide", cameras=(), budget=24)
    yield made
    made.close()


def test_slide_shows_the_object_elsewhere_and_begins_beside_it_with_a_closed_gripper(sliding):
    for seed in range(10):
        sliding.reset(seed=seed)
        now, goal = sliding.plant_sensors(), sliding.goal_sensors()
        assert [shown.name for shown in sliding.sub_goals] == ["slide"] and sliding.sub_goal().steps == 24
        assert 0.08 <= np.linalg.norm(now[3:5] - goal[3:5]) <= 0.20 and abs(now[5] - goal[5]) < 0.005
        assert 0.08 < np.linalg.norm(now[:2] - now[3:5]) < 0.125 and abs(now[2] - now[5]) < 0.01
        np.testing.assert_allclose([now[9], goal[9]], 0.0, atol=0.002)
        np.testing.assert_allclose(goal[:3] - goal[3:6], [0, 0, 0.1 + sliding.thing.held_at_m], atol=0.005)


def test_slide_holds_the_gripper_closed(sliding):
    sliding.reset(seed=0)
    assert sliding.action_box.high[6] == 0
    for _ in range(3):
        act(sliding, closing=-1.0)
    assert sliding.plant_sensors()[9] < 0.002


def test_the_script_slides_objects_to_their_goals(sliding):
    done = 0
    for seed in range(6):
        sliding.reset(seed=seed, options={"lab": FREE_OF_CLUTTER, "thing": Thing(kind=KINDS[seed % 3])})
        policy = sliding.oracle()
        assert not sliding.success()
        for _ in range(sliding.budget):
            info = sliding.step(policy.act())[4]
        done += info["is_success"]
        slid = np.linalg.norm(sliding.object_m()[:2] - sliding.goal_m[:2])
        assert info["is_success"] == (slid < 0.04)
    assert done >= 5


def test_slide_and_the_other_protocols_do_not_share_an_environment(env, sliding):
    with pytest.raises(ValueError, match="'images' cannot play 'slide'"):
        env.reset(options={"protocol": "slide"})
    assert env.protocol == "images"  # a refused one is not taken up
    with pytest.raises(ValueError, match="'slide' cannot play 'final'"):
        sliding.reset(options={"protocol": "final"})
