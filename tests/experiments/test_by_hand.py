"""One episode towards a goal picture of one's own, from a file or from a frame of a log."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
from PIL import Image

from jepa_mpc.errors import BadObservation
from jepa_mpc.experiments.commands.zero_shot_reach import jobs_of, methods_of
from jepa_mpc.face.commands import composed
from jepa_mpc.face.evaluation.by_hand import play_by_hand
from jepa_mpc.face.goals import goal_observation
from jepa_mpc.trajectories.formats.npz import NpzStore
from jepa_mpc.trajectories.synthetic import synthetic_log
from tests import tiny
from tests.commands import command

CAMERAS = ("left", "right")


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    return synthetic_log(tmp_path_factory.mktemp("log"), episodes=2)


def test_a_frame_of_a_log_is_a_goal(log):
    seen = goal_observation(f"{log}:1:3", cameras=CAMERAS, image_size=8)
    frames = NpzStore(log).episode(1).arrays
    assert seen.frames.shape == (1, 1, 6, 8, 8) and seen.cameras == CAMERAS
    whole = goal_observation(f"{log}:1:3", cameras=CAMERAS, image_size=frames["observation.images.left"].shape[1])
    np.testing.assert_array_equal(whole.frames[0, 0, :3].permute(1, 2, 0), frames["observation.images.left"][3])


@pytest.mark.parametrize(("goal", "words"), [
    ("picture.png", "one goal image per camera"),
    (["a.png", "b.png"], "cannot be read"),
    ("{log}:7:0", "has no frame 0 of episode 7"),
    ("{log}:0:9999", "has no frame 9999"),
])  # fmt: skip
def test_a_goal_that_is_none_is_told(log, goal, words):
    goal = goal.format(log=log) if isinstance(goal, str) else goal
    with pytest.raises(BadObservation, match=words):
        goal_observation(goal, cameras=CAMERAS, image_size=8)


def test_a_pipe_or_a_huge_picture_is_no_goal(tmp_path):
    pipe, huge = tmp_path / "pipe.png", tmp_path / "huge.png"
    os.mkfifo(pipe)
    Image.new("1", (70_000, 1)).save(huge)
    for goal in (pipe, huge):
        with pytest.raises(BadObservation, match="cannot be read"):
            goal_observation([goal] * 2, cameras=CAMERAS, image_size=8)


@pytest.mark.render
def test_an_episode_towards_pictures_leaves_what_the_agent_believed(tmp_path):
    draws = np.random.default_rng(0)
    for name in CAMERAS:
        Image.fromarray(draws.integers(0, 255, (48, 64, 3), dtype=np.uint8)).save(tmp_path / f"{name}.png")
    options = {"checkpoint": tiny.save(tmp_path / "model"), "agent": "simple", "budget": 2, "out": tmp_path / "run"}
    goal = [str(tmp_path / f"{name}.png") for name in CAMERAS]
    cfg = composed("zero_shot_reach", {**options, "labs": 1, "baselines": False, "films": False})
    out = play_by_hand(jobs_of(cfg, methods_of(cfg))[0], goal, tmp_path / "run")
    steps = json.loads((out / "episode.json").read_text())["steps"]
    assert len(steps) == 2 and all(step["believed_goal_distance_m"] > 0 for step in steps)
    assert np.asarray(Image.open(out / "goal.png")).shape == (tiny.SIZE, 2 * tiny.SIZE, 3)
    assert (out / "end.png").exists()


@pytest.mark.render
def test_a_goal_that_is_none_leaves_no_run_behind(tmp_path):
    options = [f"checkpoint={tiny.save(tmp_path / 'model')}", "agent=simple", "out=run", "goal=nowhere.png"]
    done = command("zero_shot_reach", *options, cwd=tmp_path)
    assert done.returncode == 1 and "zero_shot_reach: " in done.stderr and not (tmp_path / "run").exists()
