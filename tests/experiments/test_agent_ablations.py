"""The ablations as a command, and the agent of six modules in the reaching experiment, on untrained world models."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from jepa_mpc.encoders.layers.weights import draw_weights
from jepa_mpc.errors import BadCheckpoint, UnknownName
from jepa_mpc.experiments.evaluation.agents import ablations
from jepa_mpc.experiments.evaluation.agents import wall_task as wall
from jepa_mpc.experiments.evaluation.agents.ablation_tables import row_of
from jepa_mpc.experiments.evaluation.agents.ablations import AblationCell, kept, variants
from jepa_mpc.experiments.evaluation.agents.ensemble_doubt import auroc
from jepa_mpc.face.two_modes import TwoModeSettings
from jepa_mpc.seeding import generator
from jepa_mpc.world_model.checkpoints.assembly import assemble
from jepa_mpc.world_model.checkpoints.critics import load_critic, save_critic
from jepa_mpc.world_model.checkpoints.loader import load_world_model
from tests import tiny
from tests.commands import command

CRITIC = {"_target_": "critic", "width": 64, "hidden": 8}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Three tiny world models and a critic of the first."""
    folder = tmp_path_factory.mktemp("agent")
    for seed in (0, 1):
        tiny.save(folder / f"model{seed}", seed=seed)
    critic = assemble(CRITIC)
    draw_weights(critic, generator(0, "critic"))
    save_critic(folder / "critic", critic, described=CRITIC, model=load_world_model(folder / "model0"))
    return folder


@pytest.mark.render
def test_the_command_leaves_tables_and_goes_on_where_it_stopped(place, tmp_path):
    options = (
        f"checkpoint={place / 'model0'}", f"agent.members=[{place / 'model1'}]", "agent.policy=null",
        f"agent.critic={place / 'critic'}", "labs=1", "episodes=1", "seeds=[0]", "budget=2", "workers=1",
        "planner=random_shooting", "planner.num_samples=8", "out=run", "doubts={splits:[in,camera],labs:1,frames:2}",
        "wall={seeds:[0],walks:20,walk_steps:10,critic_steps:5,episodes:4,budget:3}",
    )  # fmt: skip
    done = command("agent_ablations", *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert [row["variant"] for row in results["reach"]] == [
        "full",
        "no critic",
        "no memory",
        "no ensemble",
        "simple agent",
    ]
    assert [row["variant"] for row in results["wall"]] == ["wall, no critic", "wall, critic"]
    assert [row["split"] for row in results["doubts"]] == ["in", "camera"] and results["doubts"][0]["auroc"] == 0.5
    assert {path.stem for path in (tmp_path / "run" / "figures").iterdir()} == {"ablations", "wall", "doubts"}
    table = (tmp_path / "run" / "table.md").read_text()
    assert "| full | 1 |" in table and "AUROC" in table
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "run" / "cells").iterdir()}
    assert len(files) == 9
    spoiled = next(iter(sorted(files)))
    spoiled.write_text("{")
    again = command("agent_ablations", *options, cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    changed = [path for path, before in files.items() if path.stat().st_mtime_ns != before]
    assert changed == [spoiled]


@pytest.mark.render
def test_the_reaching_experiment_plays_the_full_agent(place, tmp_path):
    done = command(
        "zero_shot_reach", "agent=full", f"checkpoint={place / 'model0'}", "agent.policy=null",
        f"agent.critic={place / 'critic'}", "labs=1", "episodes=1", "budget=2", "horizon=1", "workers=1",
        "planner=random_shooting", "planner.num_samples=8", "baselines=false", "out=run", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    protocol = json.loads((tmp_path / "run" / "report.json").read_text())["protocol"]
    assert protocol["planner"]["agent"] == "full"


def test_a_mistake_is_told_in_one_sentence_before_anything_runs(tmp_path):
    done = command("agent_ablations", "agent.margin=-1", cwd=tmp_path)
    assert done.returncode == 1 and "margin" in done.stderr and "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


def test_an_unknown_option_of_the_agent_lists_those_there_are():
    with pytest.raises(UnknownName, match="colour.*known:.*surprise_below"):
        TwoModeSettings.of({"kind": "full", "colour": "red"})
    with pytest.raises(UnknownName, match="known: calibrated, full, simple"):
        TwoModeSettings.of({"kind": "half"})
    assert TwoModeSettings.of({"kind": "simple"}) is None


def test_each_variant_lacks_one_module():
    made = variants(TwoModeSettings(policy="p", critic="c", members=("m",)))
    assert list(made) == [
        "full", "no critic", "no memory", "no ensemble", "Mode-2 only", "Mode-1 only", "simple agent",
    ]  # fmt: skip
    assert made["no critic"].critic is None and made["no memory"].memory == 0 and made["no ensemble"].members == ()
    assert "no ensemble" not in variants(TwoModeSettings(policy="p"))


def test_a_critic_of_another_world_model_is_refused(place):
    load_critic(place / "critic", load_world_model(place / "model0"))
    with pytest.raises(BadCheckpoint, match="belongs to the world model"):
        load_critic(place / "critic", load_world_model(place / "model1"))
    with pytest.raises(BadCheckpoint, match="does not describe a critic"):
        load_critic(place / "model0", load_world_model(place / "model0"))


def test_a_cell_of_other_settings_has_another_file(tmp_path):
    one, other = AblationCell(variant="full", lab=1, budget=3), AblationCell(variant="full", lab=1, budget=4)
    assert one.path(tmp_path) != other.path(tmp_path) and kept(one, tmp_path) is None


def test_the_row_of_a_variant_counts_broken_episodes_as_lost():
    step = {"decrease": 0.5, "reactive": True}
    outcomes = [
        {"distances_m": [0.2, 0.01], "cpu_ms": [10.0], "steps": [step]},
        {"distances_m": [0.2, None], "cpu_ms": [30.0], "steps": [step | {"reactive": False}]},
    ]
    row = row_of("full", outcomes)
    assert (row["success"], row["near"], row["mode1"], row["cpu_ms_p50"], row["energy_saved"]) == (
        0.5,
        0.5,
        0.5,
        20.0,
        0.5,
    )


def test_the_area_under_the_curve_is_that_of_pairs():
    assert auroc(np.array([1.0, 2.0]), np.array([3.0, 4.0])) == 1.0
    assert auroc(np.array([1.0, 3.0]), np.array([2.0, 3.0])) == 0.625


def test_aimless_walks_stay_out_of_the_wall_and_cross_it_at_the_gap_alone():
    settings = wall.WallSettings(walks=60, walk_steps=80)
    places = wall.aimless(settings, stream=generator(0)).latents[:, 0].view(60, 80, 2)
    crossed = (places[:, 1:, 0] > 0) != (places[:, :-1, 0] > 0)
    assert crossed.any() and (places[:, 1:][crossed][:, 1] - 1.0).abs().max() < 0.4


def test_an_ablation_is_played_with_the_arm_of_its_world_model(tmp_path):
    env = ablations._environment(tiny.save(tmp_path / "model", embodiment="ur5e"), 2)
    assert (env.embodiment, env.budget, env.image_size) == ("ur5e", 2, tiny.SIZE)


def test_greed_ends_at_the_wall():
    result = wall.play(wall.WallSettings(episodes=6, budget=20), None, seed=0)
    assert not result.reached.any() and (result.places[-1, :, 0] < 0.1).all()


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_five_steps_and_a_critic_find_the_way_around(seed):
    torch.set_num_threads(1)
    settings = wall.WallSettings()
    critic = wall.trained_critic(settings, seed=seed)
    with_critic, without = (wall.play(settings, part, seed=seed).reached.float().mean() for part in (critic, None))
    assert with_critic - without >= 0.2
