"""Fair play between methods: who is told what, what is kept, and how mistakes travel between processes."""

from __future__ import annotations

import gc
import pickle
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from types import BuiltinFunctionType, FunctionType, ModuleType

import mujoco
import numpy as np
import pytest
import torch

from jepa_mpc.envs import true_dynamics
from jepa_mpc.envs.labs import sample_lab
from jepa_mpc.envs.oracle_cpu import TrueDynamics
from jepa_mpc.envs.reach import ReachEnv
from jepa_mpc.envs.render import NoOpenGL
from jepa_mpc.errors import BadCheckpoint, BadObservation, MissingPackage, UnknownName
from jepa_mpc.experiments.evaluation.image_goals.reach_options import usable_device
from jepa_mpc.face.agents import planning_agent
from jepa_mpc.face.evaluation.lab_episodes import LabJob, play_episode, play_lab
from jepa_mpc.face.evaluation.methods import FROZEN, WORLD_MODEL, Methods
from jepa_mpc.face.planning import PlanSettings
from jepa_mpc.reporting.album import Album, load_album, save_album
from jepa_mpc.reporting.summary import summarise
from jepa_mpc.runs.run_folder import claim_folder
from tests import tiny

QUICK = PlanSettings(planner="random_shooting", arguments={"num_samples": 8}, horizon=2)


@pytest.fixture(scope="module")
def methods(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return Methods(
        checkpoint=tiny.save(folder / "model"),
        frozen=tiny.save(folder / "control", seed=1),
        settings=QUICK,
        sampling=QUICK,
    )


@pytest.fixture(scope="module")
def env(renderable):
    made = ReachEnv(image_size=tiny.SIZE, budget=2)
    yield made
    made.close()


@pytest.fixture
def lab_env(env):
    env.reset(seed=3, options={"lab": sample_lab(0, split="look")})
    return env


def test_true_dynamics_plans_in_the_simulator_that_was_chosen(methods, lab_env, monkeypatch):
    """The stand-in for MuJoCo Warp is asked for each plan of the agent that chose it, and of no other."""
    asked = []

    class Counted(TrueDynamics):
        def rollout(self, context, plans):
            asked.append(plans.shape)
            return super().rollout(context, plans)

    monkeypatch.setitem(true_dynamics.DYNAMICS, "warp", lambda env, num_threads: Counted(env))
    actions = []
    for chosen in (methods, replace(methods, dynamics="warp")):
        agent = chosen.agent("true dynamics", lab_env, stream=0)
        agent.reset(lab_env.observation())
        actions.append(agent.act(lab_env.observation()))
        assert bool(asked) == (chosen.dynamics == "warp")
    assert (actions[0] == actions[1]).all()


def job_of(methods, names, **changes) -> LabJob:
    """A lab with two episodes of two steps."""
    facts = {
        "lab": sample_lab(0, split="look"),
        "index": 0,
        "split": "look",
        "episodes": 2,
        "seed": 0,
        "budget": 2,
        "cameras": ("left", "right"),
        "image_size": tiny.SIZE,
        "methods": methods,
        "names": names,
    }
    return LabJob(**facts | changes)


def reachable(root: object) -> list[object]:
    """Every object that can be had from another one, leaving out code, classes and modules."""
    seen, waiting = {id(root): root}, [root]
    while waiting:
        for found in gc.get_referents(waiting.pop()):
            if id(found) in seen or isinstance(found, type | ModuleType | FunctionType | BuiltinFunctionType):
                continue
            seen[id(found)] = found
            waiting.append(found)
    return list(seen.values())


@pytest.mark.render
def test_the_agent_with_a_world_model_cannot_reach_the_environment(methods, lab_env):
    agent = methods.agent(WORLD_MODEL, lab_env, stream=0)
    agent.reset(lab_env.goal())
    agent.act(lab_env.observation())
    private = ReachEnv | mujoco.MjModel | mujoco.MjData
    assert not [found for found in reachable(agent) if isinstance(found, private)]
    true = methods.agent("true dynamics", lab_env, stream=0)
    assert [found for found in reachable(true) if isinstance(found, private)]  # the search does find what is there


@pytest.mark.render
def test_the_agent_with_a_world_model_is_given_images_and_nothing_else(methods, lab_env):
    """An environment that has nothing but its pictures does as well, whatever its joints say."""
    agent, other = (methods.agent(WORLD_MODEL, lab_env, stream=0) for _ in range(2))
    agent.reset(lab_env.goal())
    seen = lab_env.observation()
    other.reset(lab_env.goal())
    assert torch.equal(agent.act(seen), other.act(replace(seen, proprio=None)))


@pytest.mark.render
def test_the_goal_comes_as_an_image_without_joints(lab_env):
    assert lab_env.goal().proprio is None and lab_env.goal().frames.shape == (1, 1, 6, tiny.SIZE, tiny.SIZE)


@pytest.mark.render
def test_playing_leaves_the_environment_as_it_was_until_the_step(methods, lab_env):
    before = lab_env.state()
    for name in (WORLD_MODEL, "true dynamics", "oracle"):
        agent = methods.agent(name, lab_env, stream=0)
        agent.reset(lab_env.goal())
        agent.act(lab_env.observation())
    assert np.array_equal(lab_env.state(), before)


@pytest.mark.render
def test_every_method_answers_with_an_action_of_the_box(methods, lab_env):
    for name in methods.names():
        agent = methods.agent(name, lab_env, stream=0)
        agent.reset(lab_env.goal())
        action = agent.act(lab_env.observation())
        assert action.shape == (1, 7) and action.dtype == torch.float32
        assert lab_env.action_space.contains(action[0].numpy()) and not action[0, 3:].any()


@pytest.mark.render
def test_methods_meet_the_same_starts_goals_and_noise(methods, env):
    records = {
        name: play_episode(job_of(methods, ()), name, 1, env, None) for name in (WORLD_MODEL, FROZEN, "do nothing")
    }
    assert len({(r.seed, r.start_m, r.goal_m, r.distances_m[0]) for r in records.values()}) == 1
    assert len({play_episode(job_of(methods, ()), "random", n, env, None).seed for n in range(3)}) == 3


@pytest.mark.render
def test_the_same_job_gives_the_same_episodes(methods):
    names = (WORLD_MODEL, "random", "true dynamics")
    first, second = (play_lab(job_of(methods, names)).records for _ in range(2))
    assert [replace(r, ms_per_step=()) for r in first] == [replace(r, ms_per_step=()) for r in second]


@pytest.mark.render
def test_another_seed_changes_plans_and_never_the_task(methods, env):
    records = [play_episode(job_of(replace(methods, seed=s), ()), "random", 0, env, None) for s in (0, 1)]
    assert records[0].goal_m == records[1].goal_m and records[0].distances_m != records[1].distances_m


@pytest.mark.render
def test_an_episode_that_is_solved_at_the_start_is_told(methods, env, monkeypatch):
    reset = env.reset

    def at_the_goal(*, seed, options):
        place = np.array([0.45, 0.0, 0.3])
        return reset(seed=seed, options={**options, "start_m": place, "goal_m": place})

    monkeypatch.setattr(env, "reset", at_the_goal)
    record = play_episode(job_of(methods, ()), "do nothing", 0, env, None)
    assert record.success_5cm and summarise([record])["solved_at_start"] == 1.0


@pytest.mark.render
def test_no_episode_of_the_task_is_solved_at_the_start(lab_env):
    distances = []
    for seed in range(8):
        lab_env.reset(seed=seed, options={"lab": lab_env.lab})
        distances.append(lab_env.distance_m())
    assert min(distances) > 0.09


@pytest.mark.render
def test_a_broken_simulation_ends_an_episode_as_the_worst(methods, env, monkeypatch):
    monkeypatch.setattr(env.arm, "move", lambda action: "the simulation diverged")
    record = play_episode(job_of(methods, ()), "random", 0, env, None)
    assert len(record.distances_m) == 2 and np.isnan(record.distances_m[-1]) and not record.success_5cm


@pytest.mark.render
def test_a_model_without_a_displacement_head_plays_and_has_no_opinion(lab_env, tmp_path):
    from jepa_mpc.world_model.recipes import as_world_model

    model = as_world_model(tiny.objective(extra=[]).eval(), tiny.interface())
    agent = planning_agent(model, lab_env, QUICK, seed=0)
    agent.reset(lab_env.goal())
    assert agent.act(lab_env.observation()).isfinite().all()
    assert agent.last.goal_distance is None and agent.last.position is None and agent.last.path is None


@pytest.mark.render
def test_what_is_believed_is_in_metres_and_zero_at_the_goal(methods, lab_env):
    agent = methods.agent(WORLD_MODEL, lab_env, stream=0)
    agent.reset(lab_env.goal())
    agent.act(lab_env.goal())
    assert float(agent.last.goal_distance) == pytest.approx(0, abs=1e-6) and agent.last.path.shape == (1, 2, 3)


@pytest.mark.render
def test_at_the_goal_the_agent_holds_still(methods, lab_env):
    agent = replace(methods, settings=replace(QUICK, hold_m=0.001)).agent(WORLD_MODEL, lab_env, stream=0)
    agent.reset(lab_env.goal())
    assert not agent.act(lab_env.goal()).any() and agent.last.status == "hold"


@pytest.mark.render
@pytest.mark.parametrize("change", [{"image_size": 48}, {"cameras": ("right", "left")}, {"cameras": ("left",)}])
def test_a_robot_with_other_eyes_is_refused(methods, change):
    other = ReachEnv(**{"image_size": tiny.SIZE} | change)
    with pytest.raises(BadCheckpoint, match="another robot"):
        methods.agent(WORLD_MODEL, other, stream=0)


@pytest.mark.render
def test_a_goal_of_another_camera_is_refused(methods, lab_env):
    agent = methods.agent(WORLD_MODEL, lab_env, stream=0)
    strange = replace(lab_env.goal(), cameras=("right", "left"))
    with pytest.raises(BadObservation, match=r"trained with cameras \('left', 'right'\)"):
        agent.reset(strange)


@pytest.mark.parametrize("settings", [{"planner": "hope"}, {"arguments": {"luck": 3}}])
def test_planners_and_arguments_that_do_not_exist_are_refused(settings):
    with pytest.raises((UnknownName, ValueError), match=r"known: cem|unexpected keyword argument 'luck'"):
        replace(QUICK, **settings).build()


def test_an_unknown_method_lists_the_known_ones(methods):
    with pytest.raises(ValueError, match="known: world model"):
        methods.agent("telepathy", None, stream=0)


ERRORS = [
    UnknownName("split", "moon", ["in", "look"]),
    MissingPackage("warp-lang", "jepa_mpc.envs.oracle_warp"),
    NoOpenGL("no EGL"),
    BadCheckpoint("it is damaged"),
    BadObservation("too small"),
    OSError(28, "No space left on device", "report.json"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_says_the_same_in_another_process(error):
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error) and str(again) == str(error)


def test_a_mistake_in_a_worker_reaches_the_parent_as_itself():
    """An exception that cannot be unpickled would break the whole pool instead."""
    with ProcessPoolExecutor(1, mp_context=get_context("fork")) as pool:
        with pytest.raises(UnknownName, match=r"unknown split 'moon'; known: all"):
            pool.submit(sample_lab, 0, split="moon").result()
        with pytest.raises(BadCheckpoint, match="there is no checkpoint at nowhere"):
            pool.submit(load_somewhere, "nowhere").result()


def load_somewhere(folder: str) -> None:
    from jepa_mpc.world_model.checkpoints.loader import load_world_model

    load_world_model(folder)


@pytest.mark.parametrize("name", ["abacus", "meta", "cuda:99", ""])
def test_a_device_that_is_not_there_is_refused(name):
    with pytest.raises(ValueError, match="use (device=)?cpu"):
        usable_device(name)


def test_the_processor_is_always_there():
    assert usable_device("cpu").type == "cpu"


def test_a_folder_below_a_file_cannot_be_claimed(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match="cannot write to"):
        claim_folder(tmp_path / "file" / "run")
    claim_folder(tmp_path / "a" / "b")
    assert not list((tmp_path / "a" / "b").iterdir())


def album(count: int = 20, size: int = 8) -> Album:
    """Plain frames of different grey, at places along x."""
    frames = np.repeat(np.linspace(20, 240, count).astype(np.uint8), size * size * 3).reshape(count, size, size, 3)
    return Album(frames, np.linspace([0.3, 0, 0.2], [0.6, 0, 0.2], count))


def test_an_album_comes_back_and_finds_the_nearest_frame(tmp_path):
    save_album(tmp_path, album())
    again = load_album(tmp_path)
    assert again.frames.shape == (20, 8, 8, 3) and np.allclose(again.places, album().places, atol=1e-4)
    assert np.abs(again.frames.astype(int) - album().frames).max() <= 3  # JPEG
    assert again.nearest(np.array([0.61, 0.0, 0.2], np.float32)).mean() == pytest.approx(240, abs=3)


def test_without_an_album_there_is_none(tmp_path):
    assert load_album(tmp_path) is None


@pytest.mark.parametrize(
    "notes", ["{", "[]", '{"size": 0, "places_m": [[0, 0, 0]]}', '{"size": 8, "places_m": []}', '{"size": 8}']
)
def test_a_damaged_album_is_refused(tmp_path, notes):
    save_album(tmp_path, album())
    (tmp_path / "album.json").write_text(notes)
    with pytest.raises(BadCheckpoint, match="the album in"):
        load_album(tmp_path)
