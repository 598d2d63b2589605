"""Pictures show what they claim to, and a machine that cannot draw says what to install."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import mujoco
import numpy as np
import pytest

from jepa_mpc import envs
from jepa_mpc.envs import meshes
from jepa_mpc.envs.backend import loads
from jepa_mpc.envs.image_effects import degrade
from jepa_mpc.envs.labs import SPLITS, ImageEffects, sample_lab
from jepa_mpc.errors import MissingPackage
from jepa_mpc.seeding import numpy_generator
from tests.fresh import run_fresh

ROOT = Path(__file__).resolve().parents[2]


def rng() -> np.random.Generator:
    return numpy_generator(0, "test")


@pytest.mark.parametrize("size", [16, 65, 128])
def test_pictures_have_the_size_that_was_asked_for(env, size):
    picture = env.picture("left", size)
    assert picture.shape == (size, size, 3) and picture.dtype == np.uint8 and picture.std() > 5


def test_pictures_larger_than_the_buffer_are_refused(env):
    with pytest.raises(ValueError, match="too large"):
        env.picture("left", 4000)


def test_another_package_that_frees_its_context_late_spoils_no_picture(env):
    other = mujoco.GLContext(64, 64)
    other.make_current()
    theirs = mujoco.MjrContext(env.scene.model, mujoco.mjtFontScale.mjFONTSCALE_100)
    other.free()
    expected = env.picture("left", 64)
    theirs.free()  # in our context, which is current
    np.testing.assert_array_equal(env.picture("left", 64), expected)
    env.reset(seed=3)
    assert (env.picture("left", 64) != expected).any()


@pytest.mark.parametrize("split", sorted(SPLITS))
def test_labs_of_every_split_can_be_seen(env, split):
    for index in range(2):
        env.reset(seed=index, options={"lab": sample_lab(index, split=split)})
        for camera in env.cameras:
            picture = env.picture(camera, 64)
            assert picture.std() > 4 and 4 < picture.mean() < 251


@pytest.mark.parametrize("split", ["train", "camera", "base", "all"])
@pytest.mark.parametrize("camera", ["left", "right"])
def test_the_hand_is_where_it_is_projected_to(env, split, camera):
    model, site = env.scene.model, env.scene.model.site("ee").id
    for index in range(3):
        env.reset(seed=index, options={"lab": sample_lab(index, split=split)})
        expected = env.scene.project(env.hand_m(), camera)
        without = env.picture(camera, 128).astype(int)
        kept = model.site_size[site].copy(), model.site_rgba[site].copy()
        model.site_size[site], model.site_rgba[site] = 0.05, [1, 0, 1, 1]  # a ball around the point between the fingers
        changed = np.abs(env.picture(camera, 128) - without).sum(axis=-1) > 30
        model.site_size[site], model.site_rgba[site] = kept
        seen = (np.argwhere(changed).mean(axis=0)[::-1] + 0.5) / 128
        if np.all(np.abs(expected - 0.5) < 0.4):  # a ball cut off by the border has its centre elsewhere
            assert np.linalg.norm(seen - expected) < 0.03  # the fingers hide a part of the ball


def test_the_goal_image_shows_the_hand_at_the_goal(env):
    env.reset(seed=2, options={"lab": sample_lab(0, split="in"), "start_m": env.goal_m, "goal_m": env.goal_m})
    gap = env.goal().frames.int() - env.observation().frames.int()
    assert gap.abs().float().mean() < 6  # the noise of two pictures


def test_noise_has_the_strength_it_is_told(env):
    grey = np.full((64, 64, 3), 128, np.uint8)
    assert abs(degrade(grey, ImageEffects(noise=8.0), rng()).std() - 8) < 0.5


def test_gain_brightens_and_clips():
    assert (degrade(np.full((4, 4, 3), 100, np.uint8), ImageEffects(gain=1.2), rng()) == 120).all()
    assert (degrade(np.full((4, 4, 3), 250, np.uint8), ImageEffects(gain=1.2), rng()) == 255).all()


def test_blur_and_compression_take_detail_away():
    checker = np.kron(np.indices((32, 32)).sum(axis=0) % 2, np.ones((2, 2)))[..., None].repeat(3, axis=-1) * 255
    checker = checker.astype(np.uint8)
    assert degrade(checker, ImageEffects(blur_px=2.0), rng()).std() < 0.7 * checker.std()
    assert (degrade(checker, ImageEffects(jpeg_quality=50), rng()) != checker).any()


def test_no_effects_leave_a_picture_as_it_is():
    picture = rng().integers(0, 256, (16, 16, 3)).astype(np.uint8)
    assert np.array_equal(degrade(picture, ImageEffects(), rng()), picture)


def test_a_late_camera_shows_the_frame_before(env):
    prompt = replace(sample_lab(0), image=ImageEffects())
    late = replace(prompt, image=ImageEffects(latency=1))
    shown = []
    for lab in (prompt, late):
        first, _ = env.reset(seed=0, options={"lab": lab})
        steps = [env.step(np.full(7, 0.05, np.float32))[0] for _ in range(3)]
        shown.append([first["frames"], *(step["frames"] for step in steps)])
    assert not np.array_equal(shown[0][0], shown[0][1])
    assert all(np.array_equal(old, new) for old, new in zip(shown[0], shown[1][1:], strict=False))


def test_things_that_drift_are_put_back_with_the_state(env):
    lab = next(
        lab
        for lab in (sample_lab(index, split="clutter") for index in range(50))
        if any(any(item.drift_m_s) for item in lab.distractors)
    )
    env.reset(seed=0, options={"lab": lab})
    begin, before = env.state(), env.picture("view", 96)
    for _ in range(5):
        env.step(np.zeros(7, np.float32))
    bodies = env.scene.model.body_pos.copy()
    env.set_state(begin)
    assert (env.scene.model.body_pos != bodies).any()
    assert np.array_equal(env.picture("view", 96), before)


def test_an_unknown_appearance_is_refused():
    with pytest.raises(ValueError, match="primitives"):
        envs.make("reach-v1", appearance="steel")


def test_missing_meshes_name_the_package(monkeypatch):
    monkeypatch.setattr(meshes, "find_spec", lambda name: None)
    with pytest.raises(MissingPackage, match="gymnasium-robotics"):
        envs.make("reach-v1", appearance="meshes")


@pytest.mark.skipif(find_spec(meshes.PACKAGE) is None, reason="gymnasium-robotics is not installed")
def test_meshes_change_the_pictures_and_not_the_motion(env):
    other = envs.make("reach-v1", appearance="meshes", image_size=16)
    for one in (env, other):
        one.reset(seed=1, options={"lab": sample_lab(0)})
        one.step(np.full(7, 0.03))
    assert np.array_equal(env.state(), other.state())
    assert not np.array_equal(env.picture("view", 64), other.picture("view", 64))
    other.close()


NO_WARP = "import sys; sys.modules['mujoco_warp'] = None"
NO_LIBRARIES = """
import ctypes
opened = ctypes.CDLL
def refuse(name=None, *args, **kwargs):
    if name and any(part in str(name) for part in ("EGL", "libGL", "OSMesa")):
        raise OSError(f"{name}: cannot open shared object file")
    return opened(name, *args, **kwargs)
ctypes.CDLL = refuse
"""
PHYSICS = """
from jepa_mpc.envs.reach import ReachEnv
env = ReachEnv(image_size=16)
env.arm.place(env.arm.hand_pose()[0])
assert env.arm.move([0.0] * 7) is None
"""


@pytest.fixture
def in_a_process(tmp_path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs code that has the first import of MuJoCo still before it."""
    chosen = ("MUJOCO_GL", "MUJOCO_GL_NOTE", "MUJOCO_GL_GIVEN", "DISPLAY")
    kept = {name: value for name, value in os.environ.items() if name not in chosen}

    def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return run_fresh(code, cwd=ROOT, environment=kept | environment, said=tmp_path / "said.txt")

    return run


@pytest.mark.parametrize(
    ("wanted", "preparation"),
    [
        ("", NO_LIBRARIES),
        ("egl", NO_LIBRARIES),
        ("osmesa", NO_LIBRARIES),
    ],
)
def test_where_nothing_draws_the_physics_works_and_one_sentence_helps(in_a_process, wanted, preparation):
    run = in_a_process(f"{NO_WARP}\n{preparation}\n{PHYSICS}\nenv.reset(seed=0)", MUJOCO_GL=wanted)
    last = run.stderr.strip().splitlines()[-1]
    assert run.returncode == 1 and last.startswith("jepa_mpc.envs.render.NoOpenGL: no OpenGL could be opened"), (
        run.stderr
    )
    assert "apt-get install -y --no-install-recommends libegl1 libgl1" in last and "mujoco-warp" in last


@pytest.mark.parametrize(
    "setting",
    ["MUJOCO_GL=glfw", "MUJOCO_GL=osmesa", "MUJOCO_GL=disable", "MUJOCO_GL=nonsense", "PYOPENGL_PLATFORM=osmesa",
     "MUJOCO_EGL_DEVICE_ID=99", "MUJOCO_EGL_DEVICE_ID=abc"],
)  # fmt: skip
def test_a_variable_that_keeps_drawing_from_working_is_named(in_a_process, setting):
    if not loads("egl"):
        pytest.skip("EGL is not installed")
    if setting == "MUJOCO_GL=osmesa" and loads("osmesa"):
        pytest.skip("OSMesa is installed")
    name, _, value = setting.partition("=")
    run = in_a_process(f"{NO_WARP}\n{PHYSICS}\nenv.reset(seed=0)", **{name: value})
    if name == "PYOPENGL_PLATFORM" and "ImportError: Cannot use EGL rendering platform" in run.stderr:
        pytest.skip("this MuJoCo names the variable itself, when it is imported")
    said = [line for line in run.stderr.splitlines() if line.startswith("jepa_mpc.envs.render.NoOpenGL: ")]
    assert run.returncode == 1 and len(said) == 1, run.stderr  # older MuJoCo complains once more as it ends
    assert f"with {setting}: unset {name}, " in said[0] and "apt-get" not in said[0], run.stderr


def test_importing_mujoco_first_is_named_as_the_cause(in_a_process):
    run = in_a_process(f"{NO_WARP}\nimport mujoco\n{PHYSICS}\nenv.reset(seed=0)")
    assert run.returncode == 1 and "import envs first" in run.stderr.strip().splitlines()[-1], run.stderr


@pytest.mark.parametrize("wanted", ["", "egl"])
def test_egl_is_taken_where_it_can_be_loaded(in_a_process, renderable, wanted):
    if not loads("egl"):
        pytest.skip("EGL is not installed")
    run = in_a_process("import envs, os; sys = os.environ['MUJOCO_GL']; assert sys == 'egl', sys", MUJOCO_GL=wanted)
    assert run.returncode == 0, run.stderr


def test_a_missing_ray_caster_names_the_package(monkeypatch):
    from jepa_mpc.envs.render_warp import WarpRenderer

    monkeypatch.setitem(sys.modules, "warp", None)
    with pytest.raises(MissingPackage, match="mujoco-warp"):
        WarpRenderer(mujoco.MjModel.from_xml_string("<mujoco/>"))


WITHOUT_GL = """
import numpy as np
from jepa_mpc import envs
env = envs.make("reach-v1", image_size=32)
frames = [env.reset(seed=seed)[0]["frames"] for seed in (0, 0, 1)]
assert type(env._renderer).__name__ == "WarpRenderer"
np.save("{file}", frames)
env.close()
"""


@pytest.mark.slow
def test_the_ray_caster_draws_nearly_what_opengl_draws(in_a_process, env, tmp_path):
    pytest.importorskip("mujoco_warp")
    file = tmp_path / "frames.npy"
    run = in_a_process(WITHOUT_GL.format(file=file), MUJOCO_GL="disable")
    assert run.returncode == 0, run.stderr
    assert "casts rays" in run.stderr and "unset MUJOCO_GL" in run.stderr, run.stderr
    first, again, other = np.load(file)
    assert np.array_equal(first, again) and not np.array_equal(first, other)
    opengl = envs.make("reach-v1", image_size=32)
    drawn = opengl.reset(seed=0)[0]["frames"]
    opengl.close()
    assert np.abs(drawn.astype(int) - first).mean() < 8
