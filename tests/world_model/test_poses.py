"""Poses: rotations, motions between poses, what proprioception says, and what cannot be a pose."""

from __future__ import annotations

import math

import pytest
import torch

from jepa_mpc.seeding import generator
from jepa_mpc.world_model.parts.poses import (
    ArmPose,
    GivenPose,
    check_pose,
    euler_to_matrix,
    in_camera,
    integrate,
    matrix_to_euler,
    pose_motion,
    vector_to_euler,
    vector_to_matrix,
)

EYE = torch.eye(3, dtype=torch.float64)


def poses(count: int = 50, *, seed: int = 0) -> torch.Tensor:
    draw = generator(seed)
    places = torch.randn(count, 3, generator=draw, dtype=torch.float64)
    angles = 2 * (torch.rand(count, 3, generator=draw, dtype=torch.float64) - 0.5) * torch.tensor([3.1, 1.5, 3.1])
    return torch.cat([places, angles, torch.rand(count, 1, generator=draw, dtype=torch.float64)], dim=-1)


def test_angles_and_matrices_are_two_forms_of_one_rotation():
    angles = poses()[:, 3:6]
    matrix = euler_to_matrix(angles)
    assert torch.allclose(matrix @ matrix.mT, EYE.expand_as(matrix), atol=1e-12)
    assert torch.allclose(matrix_to_euler(matrix), angles, atol=1e-9)


def test_a_quarter_turn_about_each_axis_goes_the_right_way():
    quarter = math.pi / 2
    turned = euler_to_matrix(quarter * torch.eye(3, dtype=torch.float64))
    assert torch.allclose(turned[0] @ EYE[1], EYE[2]) and torch.allclose(turned[1] @ EYE[2], EYE[0])
    assert torch.allclose(turned[2] @ EYE[0], EYE[1])
    assert torch.allclose(vector_to_matrix(quarter * EYE), turned)


@pytest.mark.parametrize("size", [0.0, 1e-9, 1e-3, 3.0])
def test_rotation_vectors_give_rotations_with_finite_gradients(size):
    vector = (size * torch.tensor([[0.6, -0.8, 0.0]], dtype=torch.float64)).requires_grad_()
    matrix = vector_to_matrix(vector)
    assert torch.allclose(matrix @ matrix.mT, EYE, atol=1e-12)
    vector_to_euler(vector).sum().backward()
    assert vector.grad.isfinite().all()


def test_integrating_the_motion_between_two_poses_leads_from_one_to_the_other():
    start, stop = poses(), poses(seed=1)
    reached = integrate(start, pose_motion(start, stop))
    assert torch.allclose(reached[:, [0, 1, 2, 6]], stop[:, [0, 1, 2, 6]], atol=1e-12)
    assert torch.allclose(euler_to_matrix(reached[:, 3:6]), euler_to_matrix(stop[:, 3:6]), atol=1e-9)


def test_the_gripper_stops_at_open_and_closed():
    motion = torch.tensor([[0.0] * 6 + [2.0], [0.0] * 6 + [-2.0]])
    assert integrate(torch.full((2, 7), 0.5), motion)[:, 6].tolist() == [1.0, 0.0]


def test_a_camera_sees_itself_at_the_origin_and_motions_turned():
    camera = poses(1)[:, :6]
    seen = in_camera(torch.cat([camera, torch.zeros(1, 1)], dim=-1), camera)
    assert torch.allclose(seen, torch.zeros_like(seen), atol=1e-9)


def test_the_arm_s_proprioception_gives_place_attitude_and_closedness():
    proprio = torch.zeros(2, 3, 14)
    proprio[..., 7], proprio[..., 8:11] = 0.01, torch.tensor([0.4, 0.1, 0.2])
    pose = ArmPose()(proprio)
    assert torch.allclose(pose[0, 0], torch.tensor([0.4, 0.1, 0.2, math.pi, 0.0, 0.0, 0.75]), atol=1e-6)
    proprio[..., 11:14] = torch.tensor([0.0, 0.0, 0.3])
    assert torch.allclose(ArmPose(attitude=(0, 0, 0))(proprio)[0, 0, 3:6], torch.tensor([0.0, 0.0, 0.3]), atol=1e-6)


def test_an_action_s_rotation_vector_becomes_angles():
    action = torch.tensor([0.01, 0.0, 0.0, 0.2, -0.1, 0.3, 0.5])
    motion = ArmPose().motion(action)
    assert torch.allclose(euler_to_matrix(motion[3:6]), vector_to_matrix(action[3:6]), atol=1e-6)
    assert motion[:3].equal(action[:3]) and motion[6] == action[6]


def good() -> torch.Tensor:
    return torch.tensor([[0.5, 0.0, 0.3, -3.0, 0.0, 1.5, 0.5]])


def test_a_good_pose_passes():
    check_pose(good())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda pose: torch.cat([pose, pose[:, :1]], dim=1), "quaternion"),
        (lambda pose: pose[:, :6], "7 numbers"),
        (lambda pose: torch.cat([pose[:, :3], torch.rad2deg(pose[:, 3:6]), pose[:, 6:]], dim=1), "degrees"),
        (lambda pose: torch.cat([pose[:, :6], torch.tensor([[80.0]])], dim=1), "closedness"),
        (lambda pose: pose * torch.nan, "not finite"),
    ],
)
def test_what_cannot_be_a_pose_is_refused_with_a_hint(change, said):
    with pytest.raises(ValueError, match=said):
        check_pose(change(good()))


def test_readers_refuse_other_widths():
    with pytest.raises(ValueError, match="quaternion"):
        GivenPose()(torch.zeros(1, 8))
    with pytest.raises(ValueError, match="has 6 of them"):
        ArmPose()(torch.zeros(1, 6))


def test_the_gap_of_two_poses_is_blind_to_full_turns():
    pose = good()
    turned = pose + torch.tensor([[0.0, 0.0, 0.0, 2 * math.pi, 0.0, 0.0, 0.0]])
    assert GivenPose().gap(pose, turned) < 1e-10 < GivenPose().gap(pose, pose + 0.1)
