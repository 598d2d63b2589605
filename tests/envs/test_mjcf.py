"""Tasks made of a user's own MJCF: what cannot be a task is refused."""

from __future__ import annotations

import pytest

from jepa_mpc.envs.mjcf import MjcfEnv

SLIDER = """
<mujoco>
  <worldbody><body><joint name="x" type="slide" axis="1 0 0"/><geom size="0.1" mass="1"/></body></worldbody>
  <actuator><motor joint="x" ctrlrange="-1 1"/></actuator>
  <sensor><jointpos joint="x"/></sensor>
</mujoco>"""


def test_a_slider_is_a_task():
    env = MjcfEnv(SLIDER, goal=[0.1], tolerance=0.2)
    env.reset(seed=0)
    assert env.distance() == pytest.approx(0.1) and env.success()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"goal": [float("nan")]}, "goal needs 1 finite joint positions"),
        ({"goal": [0.1, 0.2]}, "goal needs 1 finite joint positions"),
        ({"goal": [0.1], "start": [float("inf")]}, "start needs 1 finite"),
        *(
            ({"goal": [0.1], "tolerance": wrong}, "need tolerance > 0")
            for wrong in (0.0, -1.0, float("nan"), float("inf"))
        ),
        ({"goal": [0.1], "noise": float("nan")}, "noise >= 0"),
        ({"goal": [0.1], "budget": float("nan")}, "budget >= 1"),
        ({"goal": [0.1], "budget": float("inf")}, "budget >= 1"),
    ],
)
def test_what_cannot_be_a_task_is_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        MjcfEnv(SLIDER, **settings)
