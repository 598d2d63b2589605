"""bench_act_jepa.py and train.py with action chunks: small runs from a log to policies that play."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from jepa_mpc.experiments.commands.bench_act_jepa import check, play, report, train, ways
from jepa_mpc.face.training.training_run import train as train_system
from jepa_mpc.trajectories.synthetic import synthetic_log
from jepa_mpc.types import ActionBox
from jepa_mpc.world_model.checkpoints.policies import load_chunk_policy
from tests import tiny

ROOT = Path(__file__).resolve().parents[2]
SMALL = ["encoder.widths=[8,8,8,8]", "encoder.keypoints=4", "encoder.hidden=16"]
TINY = [
    *(f"++{system}.{option}" for system in ("act_jepa", "control") for option in SMALL),
    *("episodes=[3,4]", "held=2", "judged=8", "batch=4", "seeds=[1]", "searches=[[4,1]]"),
    *("fit.steps=4", "fit.evaluate_every=0", "play.labs=1", "play.episodes=1", "play.budget=2"),
]


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    return synthetic_log(tmp_path_factory.mktemp("log"), episodes=12, length=11, image_size=tiny.SIZE)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny.save(tmp_path_factory.mktemp("models") / "model")


def configured(name: str, *overrides: str) -> DictConfig:
    with initialize_config_dir(str(ROOT / "configs"), version_base=None):
        return compose(name, list(overrides))


@pytest.fixture(scope="module")
def cfg(log, model, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "bench"
    return configured("bench_act_jepa", *TINY, f"data={log}", f"model={model}", f"out={out}")


@pytest.fixture(scope="module")
def trained(cfg):
    return train(cfg)


def test_each_system_and_number_of_episodes_gets_scores(trained):
    assert [(row["system"], row["episodes"]) for row in trained] == [
        ("ACT-JEPA", 3),
        ("behaviour cloning", 3),
        ("ACT-JEPA", 4),
        ("behaviour cloning", 4),
    ]
    for row in trained:
        low, high = row["end_cm_in_8_95"]
        assert low - 1e-4 <= row["end_cm_in_8"] <= high + 1e-4 and row["end_cm_in_8"] > 0


def test_a_second_run_reads_what_is_there_and_other_settings_train_anew(cfg, trained):
    assert train(cfg) == trained
    cfg = cfg.copy()
    cfg.fit.steps, cfg.episodes = 3, [3]
    assert [row["end_cm_in_8"] for row in train(cfg)] != [row["end_cm_in_8"] for row in trained[:2]]


@pytest.mark.render
def test_it_plays_all_methods_and_writes_table_and_plot(cfg, trained):
    methods = ways(cfg)
    records = play(cfg, methods)
    assert set(records) == {
        "planner alone, 4",
        "ACT-JEPA alone",
        "planner seeded by ACT-JEPA, 4",
        "behaviour cloning alone",
        "planner seeded by behaviour cloning, 4",
    }
    report(cfg, trained, records)
    folder = Path(cfg.out)
    results = json.loads((folder / "results.json").read_text())
    assert results["paired"].keys() == {"ACT-JEPA alone", "planner seeded by ACT-JEPA, 4"}
    assert (folder / "table.md").read_text().count("\n") == 14 and (folder / "act_jepa.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("seeds=[]", "seeds must name at least one"),
        ("batch=1", "batch must be a whole number from 2"),
        ("searches=[[8]]", "pairs of candidates and rounds"),
    ],
)
def test_options_that_no_run_could_use_are_refused(option, words):
    with pytest.raises(ValueError, match=words):
        check(configured("bench_act_jepa", option))


@pytest.mark.parametrize("system", ["act_jepa", "act_jepa_control"])
def test_train_py_leaves_a_policy_that_answers(system, log, model, tmp_path):
    options = [f"++system.{option}" for option in SMALL]
    folder = train_system(
        configured(
            "train", f"system={system}", *options, "fit.steps=2", "fit.evaluate_every=2", "batch=4", "window=9",
            "max_stride=1", "probe=18", "validation=0.34", f"pretrained={model}", "freeze=[encoder]", f"data={log}",
            f"out={tmp_path / 'run'}",
        )
    )  # fmt: skip
    one = torch.full((7,), 0.05)
    policy = load_chunk_policy(folder, box=ActionBox(low=-one, high=one))
    assert policy.objective.decoder.chunk == 8 and policy.max_steps == 8
