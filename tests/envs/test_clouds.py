"""Depth images and the point clouds made of them."""

from __future__ import annotations

import time

import mujoco
import numpy as np
import pytest

from jepa_mpc.envs.clouds import CloudSensor, Crop, Seen, backproject, depth_image, normals
from jepa_mpc.envs.rays import Pinhole
from jepa_mpc.errors import BadObservation

SCENE = """
<mujoco>
  <worldbody>
    <camera name="top" pos="0 0 2" xyaxes="1 0 0 0 1 0" fovy="60"/>
    <camera name="side" pos="1.5 0 0.6" xyaxes="0 1 0 -0.4 0 1" fovy="60"/>
    <camera name="away" pos="0 0 2" xyaxes="1 0 0 0 -1 0" fovy="60"/>
    <body name="table" pos="0 0 -0.05"><geom type="box" size="0.6 0.6 0.05"/></body>
    <body name="arm" pos="0.3 0.3 0.1">
      <site name="base" pos="0 0 -0.1" euler="0 0 90"/>
      <geom type="sphere" size="0.05"/>
      <body name="finger" pos="0 0 0.2"><geom type="sphere" size="0.04"/></body>
    </body>
    <body name="ball" pos="0 0 0.2"><geom type="sphere" size="0.2"/></body>
  </worldbody>
</mujoco>
"""


@pytest.fixture(scope="module")
def scene():
    model = mujoco.MjModel.from_xml_string(SCENE)
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    return model, data


def sensor(model, *, cameras=("top", "side"), leave_out=(), **changes):
    box = {"low": (-2.0, -2.0, -1.0), "high": (2.0, 2.0, 2.0)}
    return CloudSensor(model, cameras=cameras, crop=Crop(**box, leave_out=leave_out), **changes)


def in_world(points):
    """From the site, which stands at (0.3, 0.3, 0) and is turned by a quarter."""
    return np.stack([0.3 - points[:, 1], 0.3 + points[:, 0], points[:, 2]], axis=1)


def test_depth_is_measured_along_the_axis(scene):
    depth, geom = depth_image(*scene, camera="top", size=(33, 41))
    assert depth.shape == (33, 41) and depth[16, 20] == pytest.approx(2 - 0.4, abs=1e-6)
    assert depth[16, 12] == pytest.approx(2.0, abs=1e-6)  # the table's top, far from the middle
    assert np.isinf(depth[0, 0]) and geom[0, 0] == -1


def test_points_lie_on_the_surfaces_that_are_seen(scene):
    points = in_world(sensor(scene[0], leave_out=("table", "arm"))(scene[1]))
    assert points.shape == (1024, 3) and points.dtype == np.float32
    assert np.abs(np.linalg.norm(points - [0, 0, 0.2], axis=1) - 0.2).max() < 1e-5


def test_backprojected_depth_projects_to_its_pixels(scene):
    depth, _ = depth_image(*scene, camera="top", size=16)
    camera = Pinhole.of(scene[0], 0, 16)
    at, ahead = camera.project(backproject(np.where(np.isinf(depth), 1.0, depth).astype(np.float32), camera))
    assert ahead.all() and np.allclose(at, camera.pixels(), atol=1e-4)


def test_bodies_are_left_out_with_all_that_hangs_on_them(scene):
    whole, bare = (in_world(sensor(scene[0], leave_out=names)(scene[1])) for names in ((), ("arm",)))
    finger = np.array([0.3, 0.3, 0.3])
    assert (np.linalg.norm(whole - finger, axis=1) < 0.05).any()
    assert not (np.linalg.norm(bare - finger, axis=1) < 0.05).any()
    assert not (in_world(sensor(scene[0], leave_out=("table",))(scene[1]))[:, 2] < -1e-5).any()


def test_the_box_is_that_of_the_base(scene):
    crop = Crop(low=(-0.2, -0.1, 0.05), high=(0.1, 0.1, 0.5))
    points = CloudSensor(scene[0], cameras=("top",), crop=crop, points=200)(scene[1])
    assert (points >= np.float32(crop.low)).all() and (points <= np.float32(crop.high)).all()


def test_few_points_are_repeated_and_none_is_an_error(scene):
    few = sensor(scene[0], leave_out=("table", "ball"), size=24)(scene[1])
    assert few.shape == (1024, 3) and len(np.unique(few, axis=0)) < 200
    with pytest.raises(BadObservation, match="no camera of top sees a point .* widen the crop"):
        CloudSensor(scene[0], cameras=("top",), crop=Crop(low=(5, 5, 5), high=(6, 6, 6)))(scene[1])


def test_normals_stand_on_the_surface_and_face_the_camera(scene):
    seen = sensor(scene[0], leave_out=("table", "arm"), size=96, points=2048)
    look = seen.look(scene[1])
    found = normals(look)
    outwards = in_world(look.points) - [0, 0, 0.2]
    true = np.stack([outwards[:, 1], -outwards[:, 0], outwards[:, 2]], axis=1) / 0.2  # in the frame of the base
    cosine = (found * true).sum(axis=1)
    assert np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5) and np.median(cosine) > 0.99
    assert ((found * (look.eyes - look.points)).sum(axis=1) >= 0).all()
    with pytest.raises(BadObservation, match="normals need 3 neighbours or more, got 12 of 4 points"):
        normals(Seen(points=look.points[:4], eyes=look.eyes[:4]))


def test_a_cloud_is_there_within_the_control_loop(scene):
    one = sensor(scene[0])
    one(scene[1])
    begun = time.process_time()
    one(scene[1])
    assert time.process_time() - begun < 0.12  # a control step takes 0.24 s; about 0.02 s on one core


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda model: sensor(model, leave_out=("robot",)), "the model has no body 'robot'"),
        (lambda model: sensor(model, frame="wrist"), "the model has no site 'wrist'"),
        (lambda model: sensor(model, cameras=()), "need cameras, pixels and points"),
        (lambda model: sensor(model, points=0), "need cameras, pixels and points"),
        (lambda model: Crop(low=(0, 0, 0), high=(0, 1, 1)), "the box to keep is empty"),
    ],
)
def test_settings_without_sense_are_told_in_one_sentence(scene, make, said):
    with pytest.raises(ValueError, match=said):
        make(scene[0])
