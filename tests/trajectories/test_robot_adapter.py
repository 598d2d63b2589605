"""The adapter of a robot: what went in with the log comes out as the robot's own commands; a checkpoint carries it."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from jepa_mpc.checkpoint import save_checkpoint
from jepa_mpc.errors import BadCheckpoint, BadObservation
from jepa_mpc.trajectories.actions import CommandedActions, EulerPoseDelta, JointVelocity, PoseDelta, action_names
from jepa_mpc.trajectories.bank import load_bank
from jepa_mpc.trajectories.cache import CacheOptions, told
from jepa_mpc.trajectories.episode import ACTION, STATE
from jepa_mpc.trajectories.formats import open_log
from jepa_mpc.trajectories.formats.layouts import LAYOUTS
from jepa_mpc.trajectories.formats.npz import NpzStore
from jepa_mpc.trajectories.resizing import PictureFit
from jepa_mpc.trajectories.robot_adapter import RobotAdapter, RobotAgent, load_robot_adapter, robot_adapter_from
from jepa_mpc.trajectories.robots import ROBOTS, MappedLog, RobotMap, guess_robot, robot_map
from jepa_mpc.trajectories.stats import action_stats, stats_from
from jepa_mpc.trajectories.synthetic import synthetic_log

ODD = RobotMap(
    state=("arm.joints", "observation.gripper", "observation.ee_pose"),
    position="arm.tcp[0:3]", rotation="arm.tcp[3:7]", rotation_form="quaternion_xyzw", gripper="arm.width",
    action=("arm.command",), metre=0.001, gripper_scale=0.01, gripper_offset=-0.2,
    action_scale=(0.05, 0.05, 0.05, 0.5, 0.5, 0.5, 1.0), hz=5.0,
)  # fmt: skip
PARTS = (PoseDelta(), EulerPoseDelta(), JointVelocity(column="arm.joints"), CommandedActions())


def odd_columns(steps=12, seed=0):
    """The columns of a robot that speaks in millimetres, quaternions and percent."""
    draws = np.random.default_rng(seed)
    walk = np.cumsum(draws.normal(scale=8.0, size=(steps, 3)), axis=0) + [400, 0, 300]
    turn = draws.normal(size=(1, 4)) + 0.05 * np.cumsum(draws.normal(size=(steps, 4)), axis=0)
    return {
        "arm.joints": draws.normal(size=(steps, 7)),
        "arm.tcp": np.concatenate([walk, turn / np.linalg.norm(turn, axis=1, keepdims=True)], axis=1),
        "arm.width": draws.uniform(20, 60, size=(steps, 1)),
        "arm.command": draws.uniform(-1, 1, size=(steps, 7)),
    }


def house(columns):
    names = ["observation.state", "observation.ee_pose", "observation.gripper", ACTION]
    return ODD(columns, names) | columns | {"timestamp": np.arange(len(columns["arm.joints"])) / 5.0}


def same_turn(one, two):
    return np.allclose(one, two, atol=1e-5) or np.allclose(one, -two, atol=1e-5)


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.name)
def test_actions_of_a_log_come_out_as_what_the_robot_did_next(part):
    columns = odd_columns()
    adapter = RobotAdapter(robot=ODD, actions=part, cameras=("top",), step_s=0.2)
    actions = part(house(columns))
    for step in range(len(actions)):
        out = adapter.commands(actions[step], {name: rows[step] for name, rows in columns.items()})
        if part == CommandedActions():
            np.testing.assert_allclose(out[ACTION][0], columns["arm.command"][step], atol=1e-6)
        elif isinstance(part, JointVelocity):
            np.testing.assert_allclose(out["arm.joints"][0], columns["arm.joints"][step + 1], atol=1e-5)
        else:
            np.testing.assert_allclose(out["arm.tcp[0:3]"][0], columns["arm.tcp"][step + 1, :3], atol=1e-3)  # mm
            assert same_turn(out["arm.tcp[3:7]"][0], columns["arm.tcp"][step + 1, 3:])
            np.testing.assert_allclose(out["arm.width"][0], columns["arm.width"][step + 1], atol=1e-3)


def test_a_stacked_block_comes_out_as_a_row_of_commands():
    columns = odd_columns()
    adapter = RobotAdapter(robot=ODD, cameras=("top",), step_s=0.6, skip=3, blocks="stacked")
    block = PoseDelta()(house(columns))[:3].reshape(-1)
    out = adapter.commands(block, {name: rows[0] for name, rows in columns.items()})
    np.testing.assert_allclose(out["arm.tcp[0:3]"], columns["arm.tcp"][1:4, :3], atol=2e-3)


@pytest.mark.parametrize("kind", ["lerobot", "robomimic", "droid"])
def test_the_robots_of_known_logs_get_their_own_columns_back(tmp_path, kind):
    pytest.importorskip("av")
    pytest.importorskip("pyarrow")
    reader = open_log(LAYOUTS[kind](NpzStore(synthetic_log(tmp_path / "npz", episodes=2)), tmp_path / kind))
    robot = guess_robot(reader)
    log, adapter = MappedLog(reader), RobotAdapter(robot=robot, cameras=reader.cameras, step_s=reader.dt_s)
    own = sorted({need for name in ("observation.ee_pose", "observation.gripper") for need in robot.needs(name)})
    columns = reader.read(0, 0, 6, own)
    actions = PoseDelta()(log.read(0, 0, 6, ["observation.ee_pose", "observation.gripper"]))
    out = adapter.commands(actions[2], {name: rows[2] for name, rows in columns.items()})
    wanted = robot.undo(log.read(0, 3, 4, ["observation.ee_pose", "observation.gripper"]))
    assert set(out) == set(wanted)
    assert all(same_turn(out[name][0], wanted[name][0]) for name in wanted)


def test_what_the_agent_sees_is_what_the_log_gave(tmp_path):
    folder = synthetic_log(tmp_path, episodes=2)
    bank = load_bank(folder, options=CacheOptions(image_size=8))
    adapter = RobotAdapter(robot=robot_map(bank.origin["robot"]), picture=PictureFit(**bank.origin["picture"]),
                cameras=bank.cameras, step_s=bank.step_s)  # fmt: skip
    step = {name: rows[3] for name, rows in NpzStore(folder).episode(0).arrays.items()}
    pictures = {camera: step[f"observation.images.{camera}"] for camera in ("right", "left")}
    seen = adapter.observe(pictures, step)
    assert torch.equal(seen.frames[0, 0], bank.frames[3]) and torch.equal(seen.proprio[0, 0], bank.proprio[3])
    assert seen.cameras == ("left", "right") and adapter.observe(pictures).proprio is None


@pytest.mark.parametrize("pictures, columns, words", [
    ({}, None, "no image of camera 'top'"),
    ({"top": np.zeros((8, 8), np.uint8)}, None, r"must give uint8 images \(h, w, 3\)"),
    ({"top": np.zeros((8, 8, 3), np.float32)}, None, "float32"),
    ({"top": np.zeros((0, 8, 3), np.uint8)}, None, r"got uint8 \(0, 8, 3\)"),
    ({"top": np.zeros((8, 8, 3), np.uint8)}, {"arm.width": np.ones(1)}, "lack arm.joints, arm.tcp"),
    ({"top": np.zeros((8, 8, 3), np.uint8)}, {"arm.width": [np.nan]}, "numbers in arm.width are not finite"),
    ({"top": np.zeros((8, 8, 3), np.uint8)}, {"arm.tcp": np.full(7, np.inf)}, "numbers in arm.tcp are not finite"),
    ({"top": np.zeros((8, 8, 3), np.uint8)}, {"arm.tcp": [None] * 7}, "numbers in arm.tcp are not finite"),
    ({"top": np.zeros((8, 8, 3), np.uint8)}, {"arm.width": ["wide"]}, "must hold numbers"),
    ({"top": np.zeros((8, 8, 3), np.uint8)}, {"arm.tcp": np.ones(5)}, "has not the width that the log had"),
])  # fmt: skip
def test_what_a_robot_does_not_give_is_named(pictures, columns, words):
    if "lack" not in words and columns is not None:
        columns = {name: rows[0] for name, rows in odd_columns().items()} | columns
    with pytest.raises(BadObservation, match=words):
        RobotAdapter(robot=ODD, cameras=("top",), step_s=0.2).observe(pictures, columns)


def test_an_agent_drives_a_robot_that_speaks_otherwise():
    """The agent asks for 2 cm along x at each step; the robot, in millimetres, gets where that leads."""

    class Pusher:
        def reset(self, goal):
            self.goal = goal

        def act(self, observation):
            assert observation.frames.shape == (1, 1, 3, 4, 4) and observation.proprio.shape == (1, 1, 14)
            return torch.tensor([[0.02, 0, 0, 0, 0, 0, 0]])

    adapter = RobotAdapter(robot=ODD, cameras=("top",), picture=PictureFit(size=4), step_s=0.2)
    columns = {name: rows[0] for name, rows in odd_columns().items()}
    picture = {"top": np.zeros((8, 12, 3), np.uint8)}
    agent = RobotAgent(Pusher(), adapter)
    agent.reset(picture)
    for _ in range(5):
        out = agent.act(picture, columns)
        moved = out["arm.tcp[0:3]"][0] - columns["arm.tcp"][:3]
        np.testing.assert_allclose(moved, [20, 0, 0], atol=1e-3)
        columns = columns | {"arm.tcp": np.concatenate([out["arm.tcp[0:3]"][0], out["arm.tcp[3:7]"][0]])}


def test_a_robot_adapter_is_the_same_after_a_checkpoint(tmp_path):
    bank = load_bank(synthetic_log(tmp_path / "log", episodes=2))
    stats = action_stats(bank)
    adapter = RobotAdapter(
        robot=ODD,
        actions=JointVelocity(column="arm.joints"),
        picture=PictureFit(size=8),
        cameras=("top",),
        step_s=0.2,
        statistics={"actions": stats},
    )
    config = {"interface": {"robot": adapter.to_dict()}, "training": {"statistics": {"actions": stats.to_dict()}}}
    save_checkpoint(tmp_path / "checkpoint", {"x": torch.zeros(1)}, config)
    found = load_robot_adapter(tmp_path / "checkpoint")
    assert replace(found, statistics={}) == replace(adapter, statistics={})
    assert all(torch.equal(getattr(found.statistics["actions"], n), getattr(stats, n)) for n in ("mean", "std", "low"))


def test_altered_statistics_and_missing_adapters_are_refused(tmp_path):
    value = action_stats(load_bank(synthetic_log(tmp_path / "log", episodes=2))).to_dict()
    value["std"][0] *= 2
    with pytest.raises(ValueError, match="checksum"):
        stats_from(value)
    adapter = RobotAdapter(robot=ODD, cameras=("top",)).to_dict()
    config = {"interface": {"robot": adapter}, "training": {"statistics": {"actions": value}}}
    save_checkpoint(tmp_path / "altered", {"x": torch.zeros(1)}, config)
    save_checkpoint(tmp_path / "old", {"x": torch.zeros(1)}, {"interface": {}})
    for name in ("altered", "old"):
        with pytest.raises(BadCheckpoint, match=name):
            load_robot_adapter(tmp_path / name)
    with pytest.raises(ValueError, match="does not describe"):
        robot_adapter_from({"map": {}})
    assert json.loads(json.dumps(adapter)) == adapter


def test_the_box_is_what_the_log_has_seen(tmp_path):
    bank = load_bank(synthetic_log(tmp_path, episodes=4))
    adapter = RobotAdapter(robot=ODD, statistics={"actions": action_stats(bank)})
    rows, box = bank.action_rows(), adapter.box()
    assert bool(box.contains(rows[:, :3].new_zeros(1, 7)).all()) and torch.equal(box.low[:3], rows.amin(0)[:3])
    assert (box.low[6] == box.high[6]) and adapter.box(margin=0.5).high[0] < box.high[0]
    with pytest.raises(ValueError, match="no statistics"):
        RobotAdapter(robot=ODD).box()


def test_actions_are_named_with_their_units():
    assert action_names(PoseDelta(), 7)[0] == "dx [m]"
    assert action_names(PoseDelta(), 14)[7:9] == ("dx [m] 1", "dy [m] 1")
    assert action_names(JointVelocity(), 7)[6] == "joint 6 [rad/s]"
    assert action_names(CommandedActions(), 4) == ("0", "1", "2", "3")


def test_what_is_told_of_a_robot_must_be_known():
    assert dict(told(ODD))["position"] == "arm.tcp[0:3]" and told({"hz": None}) == ()
    with pytest.raises(ValueError, match="a robot map takes"):
        told({"colour": "red"})
    assert robot_map(dict(told({"state": [STATE]}))).state == (STATE,)


@pytest.mark.parametrize("name", ["reach", "reach_wide", "reach_one_camera", "reach_random", "reach_vjepa2_ac"])
def test_shipped_models_carry_their_robot_adapter(name):
    adapter = load_robot_adapter(name)
    box = adapter.box()
    assert adapter.step_s == 0.24 and adapter.actions == PoseDelta() and box.dim == 7
    assert float(box.high[:3].min()) > 0.04 and float(box.high[:3].max()) < 0.06  # m, what the arm moved per step
    assert adapter.cameras == (("left",) if name in ("reach_one_camera", "reach_vjepa2_ac") else ("left", "right"))


@pytest.mark.parametrize("name", ["top", "observation.images.top", "observation/top"])
def test_cameras_go_by_the_names_of_lerobot_and_of_droids_clients(name):
    picture = np.random.default_rng(0).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    adapter = RobotAdapter(robot=ODD, picture=PictureFit(size=4), cameras=("top",), step_s=0.2)
    assert torch.equal(adapter.observe({name: picture}).frames, adapter.observe({"top": picture}).frames)


def test_a_pose_of_seven_numbers_goes_in_and_comes_out_whole():
    adapter = RobotAdapter(robot=ROBOTS["pose"], cameras=("top",), step_s=0.25)
    pose = np.array([0.4, -0.1, 0.3, 3.0, 0.1, -1.2, 0.8])
    seen = adapter.observe({"top": np.zeros((4, 4, 3), np.uint8)}, {"pose": pose}).proprio[0, 0]
    np.testing.assert_allclose(seen[[0, 1, 2, 3]], [0.8, 0.4, -0.1, 0.3], atol=1e-6)  # gripper first
    out = adapter.commands(np.array([0.01, 0.0, 0.0, 0.0, 0.0, 0.0, -0.8], np.float32), {"pose": pose})
    np.testing.assert_allclose(out["pose"], [[0.41, -0.1, 0.3, 3.0, 0.1, -1.2, 0.0]], atol=1e-5)
    np.testing.assert_array_equal(out["pose"][:, 6:7], out["pose[6:7]"])


def test_columns_may_be_spelled_with_slashes():
    robot = RobotMap(position="observation.tcp[0:3]", rotation="observation.tcp[3:6]", gripper="observation.jaw")
    adapter = RobotAdapter(robot=robot, cameras=("top",), step_s=0.25)
    columns = {"observation/tcp": np.zeros(6), "observation/jaw": np.zeros(1)}
    out = adapter.commands(np.full(7, 0.1, np.float32), columns)
    np.testing.assert_allclose(out["observation.jaw"], [[0.1]], atol=1e-6)


def test_no_command_is_made_of_a_pose_that_is_none():
    adapter = RobotAdapter(robot=ODD, cameras=("top",), step_s=0.2)
    columns = {name: rows[0] for name, rows in odd_columns().items()} | {"arm.tcp": np.full(7, np.nan)}
    with pytest.raises(BadObservation, match="numbers in arm.tcp are not finite"):
        adapter.commands(np.zeros(7), columns)


@pytest.mark.parametrize("hz", [0.0, -4.0, float("nan"), 1e9])
def test_a_rate_that_no_robot_has_is_refused(hz):
    with pytest.raises(ValueError, match="hz must lie between 0.001 and 100000"):
        replace(ODD, hz=hz)
