"""train_policy.py: from a world model and a log to a policy that the reaching experiment plays."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir

from jepa_mpc.checkpoint import load_checkpoint
from jepa_mpc.envs.labs import sample_lab
from jepa_mpc.envs.reach import ReachEnv
from jepa_mpc.errors import BadCheckpoint
from jepa_mpc.face.evaluation.lab_episodes import LabJob, play_lab
from jepa_mpc.face.evaluation.methods import POLICY, SEEDED, WORLD_MODEL, Methods
from jepa_mpc.face.planning import PlanSettings
from jepa_mpc.face.training.policy_lessons import Teacher
from jepa_mpc.face.training.policy_training import train_policy
from jepa_mpc.planners import cem
from jepa_mpc.seeding import generator
from jepa_mpc.trajectories.synthetic import synthetic_log
from jepa_mpc.types import ActionBox, Observation
from jepa_mpc.world_model.checkpoints.loader import load_world_model
from jepa_mpc.world_model.checkpoints.policies import load_policy
from tests import tiny

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = ROOT / "experiments" / "checkpoints"
TINY = ["planner.num_samples=8", "planner.num_elites=3", "planner.num_iterations=2", "pairs=12", "batch=8", "effort=0"]
SHORT = ["episodes=6", "validation=0.34", "policy.hidden=16", "policy.depth=1", "fit.steps=6", "fit.evaluate_every=3"]


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    return synthetic_log(tmp_path_factory.mktemp("log"), episodes=6, image_size=tiny.SIZE)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny.save(tmp_path_factory.mktemp("models") / "model")


def configured(log, model, out, *overrides):
    with initialize_config_dir(str(ROOT / "configs"), version_base=None):
        return compose("train_policy", [*TINY, *SHORT, f"data={log}", f"model={model}", f"out={out}", *overrides])


@pytest.fixture(scope="module")
def trained(log, model, tmp_path_factory):
    return train_policy(configured(log, model, tmp_path_factory.mktemp("runs") / "policy"))


def test_it_leaves_a_policy_with_settings_metrics_and_scores(trained, model):
    assert load_policy(trained, load_world_model(model)).chunk == 2
    lines = [json.loads(line) for line in (trained.parent / "metrics.jsonl").read_text().splitlines()]
    assert {"held/gain", "held/log_error", "held/planner_error"} <= lines[-1].keys() and lines[-1]["step"] == 6
    config = json.loads((trained / "config.json").read_text())["config"]
    assert config["training"]["scores"].keys() >= {"held/gain"} and config["training"]["settings"]["seed"] == 0
    assert (trained.parent / "config.yaml").exists() and (trained.parent / "origin.json").exists()


def test_the_same_seed_gives_the_same_policy_and_kept_latents_change_nothing(trained, log, model, tmp_path):
    again = train_policy(configured(log, model, tmp_path / "run"))
    once_more = train_policy(configured(log, model, tmp_path / "run"))  # reads the latents that it kept
    first, *others = (load_checkpoint(folder)[0] for folder in (trained, again, once_more))
    assert all(torch.equal(value, other[name]) for other in others for name, value in first.items())


def test_later_rounds_ask_the_planner_where_the_policy_leads(trained, log, model, tmp_path, monkeypatch):
    asked = []
    plans = Teacher.lessons

    def noted(teacher, state, goal, **rest):
        asked.append((rest["title"], state))
        return plans(teacher, state, goal, **rest)

    monkeypatch.setattr(Teacher, "lessons", noted)
    folder = train_policy(configured(log, model, tmp_path / "run", "rounds=3", "walk=4"))
    turns = [state for title, state in asked if title == "planning"]
    assert [len(state) for state in turns] == [12, 12, 12]  # 12 pairs, then walks of 4 steps from 3 pairs
    walk = turns[1].unflatten(0, (4, 3))
    assert not torch.equal(walk[0], walk[1]) and not torch.equal(turns[1], turns[2])
    steps = [json.loads(line)["step"] for line in (folder.parent / "metrics.jsonl").read_text().splitlines()]
    assert steps == sorted(steps) and steps[-1] == 18
    before, after = (load_checkpoint(each)[0] for each in (trained, folder))
    assert any(not torch.equal(value, after[name]) for name, value in before.items())


def test_kept_latents_of_another_world_model_are_not_used(trained, log, model, tmp_path):
    other = tiny.save(tmp_path / "other", seed=5)
    train_policy(configured(log, model, tmp_path / "run", "pairs=0", "planned=0"))
    first = (tmp_path / "run" / "latents" / "model.safetensors").read_bytes()
    train_policy(configured(log, other, tmp_path / "run", "pairs=0", "planned=0"))
    assert (tmp_path / "run" / "latents" / "model.safetensors").read_bytes() != first


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("batch=1", "batch must be a whole number from 2"),
        ("planned=1.5", "need 0 <= planned <= 1"),
        ("largest_action=[0.05]", "needs 7 numbers"),
        ("validation=1.0", "0 < validation < 1"),
        ("validation=0.99", "cannot hold out 99% of"),
        ("model=nowhere", "no checkpoint at nowhere"),
    ],
    ids=str,
)
def test_options_that_no_run_could_use_are_refused(option, words, log, model, tmp_path):
    with pytest.raises((ValueError, BadCheckpoint), match=words):
        train_policy(configured(log, model, tmp_path / "run", option))
    assert not (tmp_path / "run" / "checkpoint").exists()


def test_learning_from_nobody_is_refused(log, model, tmp_path):
    with pytest.raises(ValueError, match="pairs=0 gives none"):
        train_policy(configured(log, model, tmp_path / "run", "planned=1", "pairs=0"))


def test_the_teacher_answers_with_plans_that_are_cheaper_than_standing_still(model):
    world = load_world_model(model)
    high = torch.tensor([0.05] * 3 + [0.0] * 4)
    teacher = Teacher(
        model=world,
        planner=cem(num_samples=32, num_elites=6, num_iterations=4),
        box=ActionBox(low=-high, high=high),
        effort=0.0,
        horizon=2,
    )
    state, goal = torch.randn(2, 3, 1, 64, generator=generator(0))
    made = teacher.lessons(state, goal, generator=generator(1), title="planning")
    both = torch.stack([made["actions"], torch.zeros_like(made["actions"])], dim=1)
    costs = teacher.cost(state, goal, both)
    assert made["actions"].shape == (3, 2, 7) and (costs[:, 0] < costs[:, 1]).all()


@pytest.mark.render
def test_the_policy_plays_alone_and_seeds_a_planner(renderable, trained, model):
    quick = PlanSettings(planner="random_shooting", arguments={"num_samples": 8}, horizon=2)
    methods = Methods(checkpoint=model, frozen=None, settings=quick, sampling=quick, policy=trained)
    assert methods.names()[:3] == (WORLD_MODEL, SEEDED, POLICY)
    job = LabJob(
        lab=sample_lab(0, split="look"),
        index=0,
        split="look",
        episodes=1,
        seed=0,
        budget=2,
        cameras=("left", "right"),
        image_size=tiny.SIZE,
        methods=methods,
        names=(SEEDED, POLICY),
    )
    records = {record.method: record for record in play_lab(job).records}
    assert records[SEEDED].statuses and not records[POLICY].statuses
    assert all(len(record.distances_m) == 3 and record.imagined_m is not None for record in records.values())


@pytest.mark.render
def test_methods_without_a_policy_say_where_to_get_one(renderable, model):
    quick = PlanSettings(planner="random_shooting", arguments={"num_samples": 8}, horizon=2)
    methods = Methods(checkpoint=model, frozen=None, settings=quick, sampling=quick)
    assert POLICY not in methods.names()
    env = ReachEnv(image_size=tiny.SIZE)
    try:
        with pytest.raises(BadCheckpoint, match="train one with train_policy"):
            methods.agent(POLICY, env, stream=0)
    finally:
        env.close()


def test_the_shipped_policy_belongs_to_the_shipped_world_model():
    """Its plans cost less than standing still, for goals among the states of its own world."""
    world = load_world_model(SHIPPED / "reach")
    policy = load_policy(SHIPPED / "reach_policy", world)
    high = policy.scale
    teacher = Teacher(
        model=world, planner=cem(), box=ActionBox(low=-high, high=high), effort=0.05, horizon=policy.chunk
    )
    size = world.interface.image_size
    noise = torch.randint(0, 256, (8, 2, 6, size, size), dtype=torch.uint8, generator=generator(0, "frames"))
    seen = world.perception(Observation(frames=noise, cameras=world.interface.cameras))
    plans = teacher.box.clip(policy(seen[:, 0], seen[:, 1], torch.ones(8)))
    costs = teacher.cost(seen[:, 0], seen[:, 1], torch.stack([plans, torch.zeros_like(plans)], dim=1)).mean(dim=0)
    assert costs[0] < costs[1]
