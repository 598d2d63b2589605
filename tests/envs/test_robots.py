"""What every robot of the registry promises, whatever its joints."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest
import torch

from jepa_mpc import envs
from jepa_mpc.envs.arm import HAND_DOWN, ArmCommand
from jepa_mpc.envs.batched_control import BatchedKinematics
from jepa_mpc.envs.control import InverseKinematics, rotation_matrix
from jepa_mpc.envs.labs import sample_lab
from jepa_mpc.envs.robots import PANDA, ROBOTS, UR5E
from jepa_mpc.envs.scene import Scene, model_spec
from jepa_mpc.envs.task import task_of
from jepa_mpc.errors import UnknownName
from jepa_mpc.trajectories.motion import Reach, reward_free_motion
from jepa_mpc.types import Context

AXES = np.arange(3)


@pytest.fixture(scope="module", params=sorted(ROBOTS))
def env(request):
    made = envs.make("reach-v1", robot=request.param, cameras=())
    yield made
    made.close()


def some_joints(env, count: int, *, share: float) -> np.ndarray:
    """Joints around home, at most a share of the way to their limits."""
    home = env.arm.home
    low, high = env.scene.model.jnt_range[env.arm.robot.arm].T
    reach = share * np.minimum(home - low, high - home)
    return home + np.random.default_rng(0).uniform(-1, 1, (count, len(home))) * reach


def both(env) -> tuple[InverseKinematics, BatchedKinematics]:
    return InverseKinematics(env.arm.robot, env.scene.model), BatchedKinematics(env.arm.robot, env.scene.model)


def test_the_registry_knows_arms_of_several_makes_and_lists_them():
    assert PANDA.num_joints == 7 and UR5E.num_joints == 6
    with pytest.raises(UnknownName, match="panda, ur5e"):
        envs.make("reach-v1", robot="pandar", cameras=())


def test_a_model_of_another_robot_is_refused():
    with pytest.raises(ValueError, match="panda must begin with the joints"):
        PANDA.check(Scene(robot="ur5e").model)


def test_an_arm_without_surfaces_of_its_maker_says_so():
    with pytest.raises(ValueError, match="appearance=primitives"):
        Scene("meshes", robot="ur5e")


def test_columns_tile_their_rows(env):
    robot = env.arm.robot
    for row, names in (
        (robot.felt, ("joints", "opening", "place", "rotation")),
        (robot.told, ("joints", "rotation", "opening")),
    ):
        columns = [np.arange(row.dim)[getattr(row, name)] for name in names]
        assert np.concatenate(columns).tolist() == list(range(row.dim))
    assert robot.arm.stop == robot.grip.start and robot.grip.stop == env.scene.model.nu == env.scene.model.nq


def test_forward_kinematics_of_one_and_of_many_agree_with_mujoco(env):
    one, many = both(env)
    joints = some_joints(env, 20, share=0.95)
    at, turned = many.pose(joints)
    poses = [one.pose(row) for row in joints]
    np.testing.assert_allclose(at, [pose[0] for pose in poses], rtol=0, atol=1e-12)
    np.testing.assert_allclose(turned, [pose[1] for pose in poses], rtol=0, atol=1e-12)


def test_a_pose_comes_back_through_inverse_kinematics(env):
    one, many = both(env)
    joints = some_joints(env, 20, share=0.3)
    at, turned = many.pose(joints)
    found = many.solve(np.repeat(env.arm.home[None], len(joints), axis=0), at, turned)
    found = many.solve(found, at, turned)
    reached, facing = many.pose(found)
    assert np.abs(reached - at).max() < 2e-3 and np.abs(facing - turned).max() < 2e-3
    alone = [one.solve(one.solve(env.arm.home, *pose)[0], *pose)[0] for pose in zip(at, turned, strict=True)]
    np.testing.assert_allclose(found, alone, rtol=0, atol=1e-9)


def test_a_hinge_may_have_any_axis_and_an_anchor_off_its_body():
    spec = model_spec("primitives", UR5E)
    spec.joint("elbow").axis, spec.joint("elbow").pos = [0.3, 0.9, -0.2], [0.02, -0.01, 0.03]
    model = spec.compile()
    joints = UR5E.home(model) + np.random.default_rng(1).uniform(-0.5, 0.5, (5, 6))
    at, turned = BatchedKinematics(UR5E, model).pose(joints)
    for row, place, facing in zip(joints, at, turned, strict=True):
        expected = InverseKinematics(UR5E, model).pose(row)
        np.testing.assert_allclose(place, expected[0], rtol=0, atol=1e-12)
        np.testing.assert_allclose(facing, expected[1], rtol=0, atol=1e-12)


def test_a_hand_that_does_not_hang_on_the_base_is_refused():
    spec = model_spec("primitives", UR5E)
    spec.site("base").name = "former"
    spec.worldbody.add_body(name="elsewhere").add_site(name="base")
    with pytest.raises(ValueError, match="chain from base to ee"):
        BatchedKinematics(UR5E, spec.compile())


def test_the_hand_points_down_at_home_and_fingers_open_along_its_y_axis(env):
    place, rotation = env.arm.kinematics.pose(env.arm.home)
    low, high = env.arm.workspace()
    assert (place > low).all() and (place < high).all()
    np.testing.assert_allclose(rotation, HAND_DOWN, rtol=0, atol=5e-3)
    model, robot = env.scene.model, env.arm.robot
    data = mujoco.MjData(model)
    ends = []
    for opening in (0.0, robot.largest_opening_m):
        mujoco.mj_resetDataKeyframe(model, data, 0)
        data.qpos[robot.grip] = opening
        mujoco.mj_forward(model, data)
        fingers = [data.xpos[model.jnt_bodyid[model.joint(name).id]] for name in robot.fingers]
        ends.append(data.site(robot.hand).xmat.reshape(3, 3).T @ (fingers[0] - fingers[1]))
    np.testing.assert_allclose(ends[1] - ends[0], [0, 2 * robot.largest_opening_m, 0], rtol=0, atol=1e-9)


def test_a_state_comes_back_to_the_last_bit(env):
    env.reset(seed=4)
    action = env.action_box.high.numpy() * np.float32(0.7)
    env.step(action)
    state = env.state()
    env.step(action)
    after = env.state()
    env.set_state(state)
    assert np.array_equal(env.state(), state)
    env.step(action)
    assert np.array_equal(env.state(), after)
    with pytest.raises(ValueError, match="state must have shape"):
        env.set_state(state[:-1])


def test_proprioception_is_what_was_measured(env):
    env.reset(seed=5)
    env.arm.move(np.array([0.03, 0.02, 0.03, 0.1, 0.0, 0.2, 0.5]))
    felt, columns = env.arm.proprio(), env.arm.robot.felt
    assert felt.shape == (columns.dim,) == env.observation_space["proprio"].shape
    np.testing.assert_array_equal(felt[columns.joints], env.arm.joints.astype(np.float32))
    np.testing.assert_array_equal(felt[columns.place], env.hand_m().astype(np.float32))
    assert felt[columns.opening] == np.float32(env.arm.opening_m())
    np.testing.assert_allclose(
        rotation_matrix(felt[columns.rotation].astype(np.float64)) @ HAND_DOWN,
        env.arm.hand_pose()[1],
        rtol=0,
        atol=1e-6,
    )


def test_a_command_survives_as_a_row(env):
    told = env.arm.robot.told
    command = ArmCommand(env.arm.home, HAND_DOWN, 0.013)
    row = command.row()
    assert row.shape == (told.dim,) and row[told.opening] == 0.013
    np.testing.assert_array_equal(row[told.joints], env.arm.home)
    np.testing.assert_array_equal(row[told.rotation].reshape(3, 3), HAND_DOWN)


@pytest.mark.parametrize("axis", AXES)
def test_one_action_moves_the_hand_by_its_scale(env, axis):
    """From the middle of the workspace, up and down each axis; a servo stays a few millimetres behind."""
    low, high = env.arm.workspace()
    for sign in (-1.0, 1.0):
        env.reset(seed=0, options={"lab": sample_lab(0, split="in"), "start_m": (low + high) / 2, "goal_m": low})
        before = env.hand_m()
        action = np.zeros(7, np.float32)
        action[axis] = sign * env.arm.robot.action_scale[axis]
        env.step(action)
        np.testing.assert_allclose(env.hand_m() - before, action[:3], rtol=0, atol=0.008)


def test_the_box_frees_the_axes_that_are_named(env):
    box = env.arm.robot.box(0, 6)
    assert (box.high > 0).tolist() == [True, False, False, False, False, False, True]
    assert torch.equal(box.low, -box.high)


@pytest.mark.parametrize("split", ["in", "all"])
def test_the_oracle_reaches_in_every_lab(env, split):
    for index in range(4):
        env.reset(seed=index, options={"lab": sample_lab(index, split=split)})
        assert 0.10 <= env.distance_m() <= 0.36
        for _ in range(12):
            env.step(env.oracle().act())
        assert env.distance_m() < 0.01


def test_true_dynamics_is_the_robot_step_by_step(env):
    env.reset(seed=6)
    task = task_of("reach-v1", env)
    plans = env.action_box.high * torch.tensor([0.8, -0.5, 0.6, 0, 0, 0, 0]) * torch.ones(1, 1, 3, 1)
    context = Context(latents=torch.from_numpy(env.state())[None, None, None], actions=torch.zeros(1, 0, 7))
    imagined = task.dynamics.rollout(context, plans)
    for step in range(3):
        env.step(plans[0, 0, step].numpy())
        np.testing.assert_allclose(imagined.sensors[0, 0, step].numpy(), env.plant_sensors(), rtol=0, atol=1e-9)
    task.dynamics.close()


def test_labs_tune_the_dynamics_of_the_joints_and_the_load(env):
    scene, robot = env.scene, env.arm.robot
    lab = sample_lab(3, split="dynamics")
    scene.apply(lab)
    model, nominal = scene.model, scene.nominal
    np.testing.assert_allclose(
        model.actuator_gainprm[robot.arm, 0], nominal.actuator_gainprm[robot.arm, 0] * lab.dynamics.servo
    )
    np.testing.assert_array_equal(model.actuator_gainprm[robot.grip], nominal.actuator_gainprm[robot.grip])
    payload = model.body(robot.payload).id
    assert model.body_mass[payload] == nominal.body_mass[payload] + lab.dynamics.payload_kg


def test_labs_paint_and_brighten_every_robot(env):
    scene, robot = env.scene, env.arm.robot
    colours = set()
    for index in range(4):
        scene.apply(sample_lab(index, split="colour"))
        numbers = [scene.model.material(name).id for name in robot.painted]
        colours.add(scene.model.mat_rgba[numbers].tobytes())
        body = scene.model.geom_bodyid[np.isin(scene.model.geom_matid, numbers)]
        assert len(set(body.tolist())) >= robot.num_joints  # what is painted is the arm
    assert len(colours) == 4


def test_every_robot_pushes_as_well():
    for name in ROBOTS:
        env = envs.make("push-v1", robot=name, cameras=(), budget=40)
        env.reset(seed=1)
        start = env.distance_m()
        for _ in range(25):
            env.step(env.oracle().act())
        env.close()
        assert env.distance_m() < 0.5 * start, name


def test_reward_free_motion_stays_in_the_workspace(env):
    seen, _ = env.reset(seed=2)
    low, high = env.arm.workspace()
    motion, stream = reward_free_motion(Reach(box=env.action_box, low=low, high=high)), np.random.default_rng(0)
    motion.start(seen["proprio"], stream)
    places = []
    for _ in range(15):
        seen, _, broken, _, _ = env.step(motion(seen["proprio"], stream))
        assert not broken
        places.append(env.hand_m())
    assert (np.array(places) > low - 0.03).all() and (np.array(places) < high + 0.03).all()
    assert np.ptp(places, axis=0).max() > 0.05
