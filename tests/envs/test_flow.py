"""Exact flow: known motions give known pixels, and warping by it rebuilds what was drawn."""

from __future__ import annotations

from jepa_mpc import envs  # noqa: F401  isort: skip  (chooses how MuJoCo draws)

from copy import copy

import mujoco
import numpy as np
import pytest

from jepa_mpc.envs.flow import exact_flow
from jepa_mpc.envs.labs import sample_lab
from jepa_mpc.envs.reach import ReachEnv

SIZE = 96
FOVY_DEG = 40.0
DEPTH_M = 2.0
FOCAL = SIZE / 2 / np.tan(np.deg2rad(FOVY_DEG) / 2)
"""Pixels per metre at a depth of one metre."""

SCENE = f"""
<mujoco>
  <visual><global offwidth="256" offheight="256"/><quality offsamples="0"/><map znear="0.05"/></visual>
  <asset>
    <texture name="checks" type="2d" builtin="checker" width="256" height="256" rgb1=".2 .3 .4" rgb2=".7 .8 .6"/>
    <texture name="dots" type="cube" builtin="checker" width="64" height="64" rgb1=".8 .2 .2" rgb2=".2 .2 .9"/>
    <material name="wall" texture="checks" texrepeat="6 6"/>
    <material name="block" texture="dots" texrepeat="3 3" texuniform="true"/>
  </asset>
  <worldbody>
    <light pos="0 0 3" dir="0 0 -1" directional="true" castshadow="false" diffuse=".8 .8 .8"/>
    <camera name="eye" mode="fixed" pos="0 0 {DEPTH_M}" fovy="{FOVY_DEG}"/>
    <camera name="lens" mode="fixed" pos="0 0 2" sensorsize=".01 .01" resolution="64 64" focal=".02 .02"/>
    <geom name="wall" type="plane" size="4 4 .1" material="wall"/>
    <body name="block" pos="0 0 .3"><freejoint/>
      <geom name="block" type="box" size=".2 .15 .1" material="block"/></body>
    <body name="arm" pos="-.6 -.4 .05"><joint name="hinge" axis="0 0 1"/>
      <geom name="arm" type="box" pos=".2 0 0" size=".2 .04 .05" material="block"/></body>
  </worldbody>
</mujoco>
"""


class Moments:
    """One model and its state before and after a change."""

    def __init__(self) -> None:
        self.model = mujoco.MjModel.from_xml_string(SCENE)
        self.before, self.after = mujoco.MjData(self.model), mujoco.MjData(self.model)
        mujoco.mj_forward(self.model, self.before)

    def flow(self, camera="eye", size=SIZE):
        mujoco.mj_forward(self.model, self.after)
        return exact_flow(self.model, self.before, self.after, camera=camera, size=size)

    def on(self, truth, name):
        return truth.geom == self.model.geom(name).id


@pytest.fixture
def moments():
    return Moments()


def pixels(truth, where):
    return truth.flow[:, where].T


def move_camera(moments, shift=(0.0, 0.0, 0.0), turn_rad=0.0, axis=(0.0, 1.0, 0.0)):
    """Only the second state sees the camera where it is then."""
    moments.model.cam_pos[0] += shift
    mujoco.mju_axisAngle2Quat(moments.model.cam_quat[0], np.array(axis), turn_rad)


def test_nothing_moves_where_nothing_changed(moments):
    truth = moments.flow()
    assert np.abs(truth.flow).max() < 1e-6 and truth.valid.all() and not truth.moving.any()


def test_a_border_that_stands_still_stays_in_the_picture_of_a_tilted_camera(moments):
    move_camera(moments, shift=(-0.3, -1.2, 0.1), turn_rad=0.5, axis=(0.8, 0.6, 0.0))
    mujoco.mj_forward(moments.model, moments.before)
    truth = moments.flow()
    assert truth.valid[[0, -1]].all() and truth.valid[:, [0, -1]].all()


def test_a_camera_that_slides_moves_a_plane_by_focal_length_over_depth(moments):
    move_camera(moments, shift=(0.1, -0.05, 0.0))
    truth = moments.flow()
    wall = moments.on(truth, "wall")
    assert np.allclose(pixels(truth, wall), [-0.1 * FOCAL / DEPTH_M, -0.05 * FOCAL / DEPTH_M], atol=1e-5)
    assert not truth.moving.any()


def test_a_camera_that_turns_moves_every_depth_alike(moments):
    move_camera(moments, turn_rad=0.02)
    truth = moments.flow()
    middle = np.s_[:, SIZE // 2 - 2 : SIZE // 2 + 2, SIZE // 2 - 2 : SIZE // 2 + 2]
    assert np.allclose(truth.flow[middle][0], 0.02 * FOCAL, rtol=2e-3)


def test_a_sliding_block_moves_by_its_own_depth_and_the_wall_stays(moments):
    moments.after.qpos[:] = moments.before.qpos
    moments.after.qpos[:2] += [0.05, 0.02]
    truth = moments.flow()
    top = moments.on(truth, "block") & (truth.depth_m < DEPTH_M - 0.39)
    expected = np.array([0.05, -0.02]) * FOCAL / (DEPTH_M - 0.4)
    assert top.sum() > 100 and np.allclose(pixels(truth, top), expected, atol=1e-4)
    assert np.abs(pixels(truth, moments.on(truth, "wall"))).max() < 1e-6
    assert np.array_equal(truth.moving, moments.on(truth, "block"))


def test_a_hinge_moves_its_tip_on_a_circle(moments):
    angle = 0.1
    moments.after.qpos[:] = moments.before.qpos
    moments.after.qpos[7] = angle
    truth = moments.flow()
    arm = moments.on(truth, "arm") & (np.abs(truth.depth_m - (DEPTH_M - 0.1)) < 1e-4)
    rows, columns = np.nonzero(arm)
    scale = FOCAL / (DEPTH_M - 0.1)
    centre = (SIZE - 1) / 2 + np.array([-0.6, 0.4]) * scale  # of the hinge, in pixels
    spoke = np.stack([columns, rows], axis=1) - centre
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])  # rows count downwards
    assert len(rows) > 50 and np.allclose(pixels(truth, arm), spoke @ turn.T - spoke, atol=1e-4)


def test_what_a_block_comes_to_cover_is_not_valid(moments):
    moments.after.qpos[:] = moments.before.qpos
    moments.after.qpos[0] += 0.2
    truth = moments.flow()
    covered = moments.on(truth, "wall") & ~truth.valid
    after = exact_flow(moments.model, moments.after, moments.after, camera="eye", size=SIZE)
    now_block = after.geom == moments.model.geom("block").id
    assert covered.sum() > 100 and np.array_equal(covered, moments.on(truth, "wall") & now_block)


def test_what_leaves_the_picture_is_not_valid(moments):
    move_camera(moments, shift=(0.3, 0.0, 0.0))
    truth = moments.flow()
    gone = np.indices((SIZE, SIZE))[1] + truth.flow[0] < 0
    assert gone.any() and not truth.valid[gone].any()


def test_there_and_back_ends_at_the_start(moments):
    moments.after.qpos[:] = moments.before.qpos
    moments.after.qpos[:3] += [0.04, -0.03, 0.05]
    truth = moments.flow()
    back = exact_flow(moments.model, moments.after, moments.before, camera="eye", size=SIZE)
    rows, columns = np.nonzero(truth.valid & moments.on(truth, "wall"))
    assert np.abs(truth.flow[:, rows, columns] + back.flow[:, rows, columns]).max() < 1e-6


def test_a_picture_may_be_wider_than_high(moments):
    move_camera(moments, shift=(0.1, 0.0, 0.0))
    truth = moments.flow(size=(48, 80))
    wall = moments.on(truth, "wall")
    assert truth.flow.shape == (2, 48, 80)
    assert np.allclose(truth.flow[0][wall], -0.1 * FOCAL / 2 / DEPTH_M, atol=1e-5)


def test_a_camera_without_perspective_is_refused(moments):
    with pytest.raises(ValueError, match="perspective"):
        moments.flow(camera="lens")


def test_an_unknown_camera_is_told(moments):
    with pytest.raises(KeyError, match="nobody"):
        moments.flow(camera="nobody")


def draw(moments, data):
    with mujoco.Renderer(moments.model, SIZE, SIZE) as renderer:
        renderer.update_scene(data, "eye")
        colours = renderer.render().astype(np.float64)
        renderer.enable_depth_rendering()
        renderer.update_scene(data, "eye")
        return colours, renderer.render()


def rebuilt(second, flow):
    """The second picture `h w 3` sampled bilinearly where the flow leads."""
    rows, columns = np.indices(flow.shape[1:]) + flow[::-1]
    rows, columns = np.clip(rows, 0, SIZE - 1.001), np.clip(columns, 0, SIZE - 1.001)
    top, left = rows.astype(int), columns.astype(int)
    down, right = (rows - top)[..., None], (columns - left)[..., None]
    upper = second[top, left] * (1 - right) + second[top, left + 1] * right
    lower = second[top + 1, left] * (1 - right) + second[top + 1, left + 1] * right
    return upper * (1 - down) + lower * down


@pytest.mark.render
def test_the_depth_is_that_of_the_drawn_picture(renderable, moments):
    truth = moments.flow()
    _, depth = draw(moments, moments.before)
    assert np.median(np.abs(depth - truth.depth_m)) < 1e-3


@pytest.mark.render
@pytest.mark.parametrize("change", ["camera", "block", "hinge"])
def test_warping_the_second_picture_rebuilds_the_first(renderable, moments, change):
    moments.after.qpos[:] = moments.before.qpos
    first, _ = draw(moments, moments.before)
    if change == "camera":
        move_camera(moments, shift=(0.06, 0.03, -0.05), turn_rad=0.02, axis=(0.0, 0.0, 1.0))
    elif change == "block":
        moments.after.qpos[:3] += [0.09, 0.06, 0.03]
    else:
        moments.after.qpos[7] = 0.35
    truth = moments.flow()
    second, _ = draw(moments, moments.after)
    judged = truth.valid & (np.linalg.norm(truth.flow, axis=0) > 1)
    missed = np.abs(rebuilt(second, truth.flow) - first).mean(axis=-1)[judged].mean()
    assert judged.sum() > 100
    assert missed < 0.35 * np.abs(second - first).mean(axis=-1)[judged].mean()  # edges of checks are blurred


@pytest.mark.render
def test_flow_explains_a_moving_arm_in_a_lab(renderable):
    env = ReachEnv(cameras=("left",), image_size=64)
    env.reset(seed=0, options={"lab": sample_lab(3)})
    model, data = env.scene.model, env.scene.data
    mujoco.mj_forward(model, data)
    before = copy(data)
    first = env.picture("left", 96).astype(np.float64)
    env.step(np.array([0.05, 0.03, -0.02, 0, 0, 0, 0], dtype=np.float32))
    mujoco.mj_forward(model, data)
    truth = exact_flow(model, before, data, camera="left", size=96)
    second = env.picture("left", 96).astype(np.float64)
    env.close()
    arm = truth.valid & truth.moving
    assert 0.02 < arm.mean() < 0.3
    assert np.abs(rebuilt(second, truth.flow) - first)[arm].mean() < 0.35 * np.abs(second - first)[arm].mean()
