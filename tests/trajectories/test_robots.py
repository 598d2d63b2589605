"""Robot maps and action parts: from any log's columns to the house's in SI units, and back."""

from __future__ import annotations

import json

import numpy as np
import pytest

from jepa_mpc.errors import UnknownName
from jepa_mpc.trajectories.actions import (
    ACTION_PARTS,
    CommandedActions,
    EulerPoseDelta,
    JointVelocity,
    PoseDelta,
    action_part,
    describe,
)
from jepa_mpc.trajectories.columns import take, width
from jepa_mpc.trajectories.episode import ACTION, EE_POSE, GRIPPER, STATE, TIMESTAMP
from jepa_mpc.trajectories.formats.npz import NpzStore
from jepa_mpc.trajectories.robots import ROBOTS, MappedLog, RobotMap, guess_robot, robot_map
from jepa_mpc.trajectories.rotations import euler_of_quaternion, quaternion, quaternion_of_euler, rotation_vector
from jepa_mpc.trajectories.synthetic import synthetic_log

STEPS = 40
DRAWS = np.random.default_rng(4)


@pytest.fixture(scope="module")
def walk():
    """A random walk of pose, gripper and joints that turns through all attitudes."""
    places = DRAWS.normal(size=(STEPS, 3)).cumsum(0) * 0.05
    turns = rotation_vector(quaternion(DRAWS.normal(size=(STEPS, 3))))
    return {
        EE_POSE: np.concatenate([places, turns], axis=1),
        GRIPPER: DRAWS.uniform(size=(STEPS, 1)),
        STATE: DRAWS.normal(size=(STEPS, 14)),
        ACTION: DRAWS.normal(size=(STEPS, 7)).astype(np.float32),
        TIMESTAMP: np.arange(STEPS) * 0.05,
    }


def same_attitudes(left, right):
    """A quaternion and its negative are one attitude."""
    return np.allclose(np.abs((left * right).sum(-1)), 1.0, atol=1e-6)


@pytest.mark.parametrize("part", [PoseDelta(), EulerPoseDelta()], ids=lambda part: part.name)
def test_measured_motion_leads_back_to_the_poses(walk, part):
    first = {name: walk[name][:1] for name in (EE_POSE, GRIPPER)}
    reached = part.follow(first, part(walk).astype(np.float64))
    assert np.allclose(reached[EE_POSE][:, :3], walk[EE_POSE][:, :3], atol=1e-5)
    assert same_attitudes(quaternion(reached[EE_POSE][:, 3:]), quaternion(walk[EE_POSE][:, 3:]))
    assert np.allclose(reached[GRIPPER], walk[GRIPPER], atol=1e-5)


def test_euler_angles_are_those_of_the_relative_rotation(walk):
    turn = EulerPoseDelta()(walk)[:, 3:6].astype(np.float64)
    expected = PoseDelta()(walk)[:, 3:6].astype(np.float64)
    assert same_attitudes(quaternion_of_euler(turn), quaternion(expected))


def test_joint_velocities_lead_back_to_the_joints(walk):
    part = JointVelocity(column=f"{STATE}[2:9]")
    actions = part(walk)
    assert actions.shape == (STEPS - 1, 7)
    assert np.allclose(actions[3], (walk[STATE][4] - walk[STATE][3])[2:9] / 0.05, rtol=1e-5)
    reached = part.follow({STATE: walk[STATE][:1], TIMESTAMP: walk[TIMESTAMP]}, actions)[part.column]
    assert np.allclose(reached, walk[STATE][:, 2:9], atol=1e-5)


def test_commands_are_taken_as_they_are(walk):
    part = CommandedActions()
    assert np.array_equal(part(walk), walk[ACTION][:-1])
    assert np.array_equal(part.follow({}, part(walk))[ACTION][:-1], walk[ACTION][:-1])


@pytest.mark.parametrize("name", ACTION_PARTS)
def test_an_action_part_survives_a_checkpoint(name):
    part = ACTION_PARTS[name]() if name != "joint_velocity" else JointVelocity(column="joints[1:3]")
    assert action_part(json.loads(json.dumps(describe(part)))) == part


def test_an_unknown_action_part_is_refused():
    with pytest.raises(UnknownName, match="pose_delta"):
        action_part({"name": "teleport"})
    with pytest.raises(ValueError, match="no arguments"):
        action_part({"name": "pose_delta", "column": "action"})


def test_euler_angles_agree_with_the_three_turns_one_by_one():
    roll, pitch, yaw = 0.3, -0.7, 2.1

    def about(axis, angle):
        i, j = [(1, 2), (2, 0), (0, 1)][axis]
        matrix = np.eye(3)
        matrix[i, i] = matrix[j, j] = np.cos(angle)
        matrix[j, i], matrix[i, j] = np.sin(angle), -np.sin(angle)
        return matrix

    w, x, y, z = quaternion_of_euler(np.array([roll, pitch, yaw]))
    matrix = np.array([
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ])  # fmt: skip
    assert np.allclose(matrix, about(2, yaw) @ about(1, pitch) @ about(0, roll))


def test_euler_angles_and_quaternions_are_inverse():
    angles = DRAWS.uniform(-1, 1, size=(1000, 3)) * np.array([np.pi, 1.5, np.pi])
    assert np.allclose(euler_of_quaternion(quaternion_of_euler(angles)), angles, atol=1e-9)


@pytest.mark.parametrize("form", ["rotation_vector", "euler_xyz", "quaternion_xyzw", "quaternion_wxyz"])
def test_a_pose_comes_back_in_its_own_form_and_units(form):
    turns = rotation_vector(quaternion(DRAWS.normal(size=(10_000, 3))))
    own = {
        "rotation_vector": np.degrees(turns),
        "euler_xyz": np.degrees(euler_of_quaternion(quaternion(turns))),
        "quaternion_wxyz": quaternion(turns),
        "quaternion_xyzw": np.roll(quaternion(turns), -1, axis=1),
    }[form]
    robot = RobotMap(
        position="p", rotation="r", rotation_form=form, gripper="g", metre=0.001, radian=np.pi / 180,
        gripper_scale=-0.04, gripper_offset=0.04, action_scale=(0.05, 2.0),
    )  # fmt: skip
    columns = {"p": DRAWS.normal(size=(10_000, 3)) * 500, "r": own, "g": DRAWS.uniform(size=(10_000, 1)),
               ACTION: DRAWS.normal(size=(10_000, 2))}  # fmt: skip
    house = robot(columns, [EE_POSE, GRIPPER, ACTION])
    assert np.allclose(house[EE_POSE][:, :3], columns["p"] / 1000, rtol=1e-6)
    assert np.allclose(house[EE_POSE][:, 3:], turns, atol=1e-6)
    assert np.allclose(house[GRIPPER], 0.04 - 0.04 * columns["g"], atol=1e-7)
    back = robot.undo(house)
    for name in columns:  # float32 keeps seven digits of the largest value
        assert np.allclose(back[name], columns[name], rtol=1e-6, atol=2e-6 * max(1.0, np.abs(columns[name]).max())), (
            name
        )
    assert np.allclose(robot.command(house[ACTION]), columns[ACTION], rtol=1e-6)


@pytest.mark.parametrize("name", ROBOTS)
def test_a_robot_map_survives_a_checkpoint(name):
    assert robot_map(json.loads(json.dumps(ROBOTS[name].to_dict()))) == ROBOTS[name]


def test_impossible_maps_are_refused():
    for options, message in (
        ({"rotation_form": "euler_zyx"}, "rotation_form"),
        ({"metre": 0.0}, "not zero"),
        ({"position": "p"}, "both position and rotation"),
    ):
        with pytest.raises(ValueError, match=message):
            RobotMap(**options)
    with pytest.raises(ValueError, match="takes action"):
        robot_map({"speed": 3})


def test_a_map_of_columns_that_are_not_there_lists_those_that_are(tmp_path):
    log = NpzStore(synthetic_log(tmp_path, episodes=1))
    with pytest.raises(ValueError, match=r"no field 'tcp'; it has .*observation.state"):
        MappedLog(log, robot=RobotMap(state=("tcp",)))
    with pytest.raises(ValueError, match="axes 0..19"):
        MappedLog(log, robot=RobotMap(state=(f"{STATE}[0:20]",)))
    with pytest.raises(ValueError, match="gripper needs one number"):
        MappedLog(log, robot=RobotMap(gripper=f"{STATE}[0:2]"))
    with pytest.raises(ValueError, match="action_scale has 2"):
        MappedLog(log, robot=RobotMap(action_scale=(1.0, 2.0)))


def test_our_own_log_passes_its_map_unchanged(tmp_path):
    log = NpzStore(synthetic_log(tmp_path, episodes=2))
    seen = MappedLog(log)
    assert seen.robot == guess_robot(log) and set(seen.fields) == set(log.fields)
    wanted, got = log.read(1, 0, 9, list(log.fields)), seen.read(1, 0, 9, list(log.fields))
    assert all(np.array_equal(wanted[name], got[name]) for name in wanted)


def test_state_may_be_put_together_of_parts(tmp_path):
    log = NpzStore(synthetic_log(tmp_path, episodes=1))
    seen = MappedLog(log, robot=RobotMap(state=(f"{STATE}[3:5]", GRIPPER), gripper=GRIPPER))
    got = seen.read(0, 1, 4, [STATE])[STATE]
    assert got.shape == (3, 3) and np.array_equal(got[:, :2], log.read(0, 1, 4, [STATE])[STATE][:, 3:5])


def test_a_part_of_a_column_is_named_by_its_axes():
    columns = {"q": np.arange(12.0).reshape(3, 4), "g": np.arange(3.0)}
    assert take(columns, "q[1:3]").tolist() == [[1, 2], [5, 6], [9, 10]] and take(columns, "g").shape == (3, 1)
    assert width("q[1:3]", {"q": (4,)}) == 2 and width("g", {"g": ()}) == 1
