"""render_rollouts.py: films that show what was played, whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path

import imageio.v3 as imageio
import mujoco
import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from jepa_mpc import envs
from jepa_mpc.envs.tracing import Tracked, followed, pixel_path, project
from jepa_mpc.experiments.commands import render_rollouts
from jepa_mpc.experiments.commands.render_rollouts import CONFIGS, render
from jepa_mpc.experiments.evaluation.planners.planner_films import Take, energy_chart, goal_picture
from jepa_mpc.experiments.evaluation.planners.planner_films import compose as compose_film

TINY = ["task=dmc-reacher-easy", "steps=3", "size=64", "horizon=4", "fps=10"]
PLANNERS = "planners=[{label: short, planner: cem_short, num_iterations: 2}, {planner: slope, num_iterations: 2}]"


def config(*options: str):
    with initialize_config_dir(config_dir=str(CONFIGS), version_base=None):
        return compose("render_rollouts", overrides=list(options))


@pytest.mark.render
def test_film_gif_and_notes_hold_every_step(tmp_path: Path) -> None:
    made = render(config(*TINY, PLANNERS, f"out={tmp_path}", "format=both"))
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".gif", ".json", ".mp4", ".png"]
    film, gif = (imageio.imread(made.with_suffix(suffix)) for suffix in (".mp4", ".gif"))
    assert len(film) == len(gif) == 4  # before each of three actions, and the end
    assert film.shape[2] > 3 * 64  # the goal and two planners side by side
    notes = json.loads(made.with_suffix(".json").read_text())["planners"]
    assert list(notes) == ["short", "slope"] and all(len(each["energies"]) == 3 for each in notes.values())
    assert all(0.8 * 256 <= each["evaluations"] <= 256 and len(each["reached"]) == 4 for each in notes.values())


@pytest.mark.render
def test_a_film_that_fails_leaves_nothing(tmp_path: Path, monkeypatch) -> None:
    def full(frames, path, *, fps):
        raise OSError("the disk is full")

    monkeypatch.setattr(render_rollouts, "save_video", full)
    with pytest.raises(OSError, match="full"):
        render(config(*TINY, "planners=[{planner: cem_short, num_iterations: 1}]", f"out={tmp_path}"))
    assert not list(tmp_path.iterdir())


@pytest.mark.render
def test_a_learned_world_is_filmed(tmp_path: Path) -> None:
    made = render(config("task=reach", "dynamics=learned", "planners=[cem_short]", "steps=1", "horizon=2", "size=64",
                         f"out={tmp_path}"))  # fmt: skip
    film = imageio.imread(made.with_suffix(".mp4"))
    assert len(film) == 2 and made.name.startswith("reach-v1_learned-") and len(made.name.split("_")[1]) == 16


@pytest.mark.render
def test_pictures_and_goal_have_the_size_that_was_asked_for() -> None:
    env = envs.make("dmc-reacher-easy-v1", cameras=())
    env.reset(seed=0)
    assert env.picture("fixed", 512).shape == (512, 512, 3)
    env.close()
    asked = {"task": "reach", "dynamics": "learned", "planners": ["cem_short"]}
    cells, _ = render_rollouts.cells_of({**OmegaConf.to_container(config(), resolve=True), **asked})
    assert goal_picture(cells[0], camera=None, size=512).shape == (512, 512, 3)


def test_a_task_whose_tracked_part_is_missing_is_told_by_its_name() -> None:
    env = envs.make("cart-pole-v1", cameras=())
    with pytest.raises(ValueError, match="no site 'tip' to track"):
        followed(env.plant.model, env.data, Tracked(kind="site", name="tip"))


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("format=avi", "format must be one of"),
        ("size=10", "size must be"),
        ("planners=[gradient]", "no planner is left"),
        ("checkpoint=here", "dynamics=learned"),
        ("start=-1", "start must be"),
    ],
)
def test_an_option_that_no_film_could_use_is_told_at_once(option: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        render(config(*TINY, "planners=[cem_short]", option, f"out={tmp_path}/film"))
    assert not (tmp_path / "film").exists()


def test_the_path_begins_where_the_task_stands() -> None:
    task = envs.make_task("cart-pole-v1")
    task.reset(seed=0)
    states = np.stack([task.env.state(), np.full_like(task.env.state(), np.nan)])
    path = pixel_path(task.env.plant, states, tracked=task.env.tracked, camera="side", seen=task.env.data)
    model, data = task.env.plant.model, task.env.data
    assert np.allclose(path[0], project(model, data, followed(model, data, task.env.tracked)[None], "side")[0])
    assert np.isnan(path[1]).all()
    assert (path[0] > 0).all() and (path[0] < 1).all()
    assert path[0, 1] > 0.5  # the pole hangs, so that its end is in the lower half
    task.close()


@pytest.mark.parametrize("name", [name for name in envs.ENVS if "jaco" not in name])
def test_every_task_has_something_to_follow(name: str) -> None:
    task = envs.make_task(name)
    task.reset(seed=0)
    data = mujoco.MjData(task.env.plant.model)
    mujoco.mj_kinematics(task.env.plant.model, data)
    assert np.isfinite(followed(task.env.plant.model, data, task.env.tracked)).all()
    task.close()


def test_a_short_take_waits_at_its_end() -> None:
    picture = np.zeros((64, 64, 3), np.uint8)
    takes = [
        Take(name="long", pictures=[picture] * 4, energies=[3.0, 2.0, 1.0], reached=[False, True, False, False]),
        Take(name="broke", pictures=[picture] * 2, energies=[3.0], reached=[False, False], broken=True),
    ]
    frames = compose_film(takes, picture, height=64, dt_s=0.24, world="the simulator")
    assert [takes[0].state_at(index) for index in range(4)] == ["on its way", "reached", "on its way", "not reached"]
    assert takes[1].state_at(3) == "broke down"
    assert len(frames) == 4 and len({frame.shape for frame in frames}) == 1
    with pytest.raises(ValueError, match="at least one"):
        compose_film([], picture, height=64, dt_s=0.24, world="the simulator")


def test_the_chart_draws_a_higher_energy_higher() -> None:
    charts = [
        energy_chart(400, [("cem", [value, value])], total=2, top=2.0, dt_s=0.1, world="it", height=132)
        for value in (0.5, 1.5)
    ]
    rows = [np.argwhere((chart[:, 12:200] < 100).all(axis=2) == False)[:, 0] for chart in charts]  # noqa: E712
    assert all(len(row) for row in rows)
    blue = [np.argwhere(chart[24:, 50:200, 2] < 60)[:, 0].mean() for chart in charts]
    assert blue[1] < blue[0]
