"""Logs of three formats: the same windows, the same training, an arm that moves; ingest.py and bench_loading.py."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch._dynamo  # before the first OpenGL context
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from jepa_mpc.checkpoint import load_checkpoint
from jepa_mpc.envs.labs import sample_lab
from jepa_mpc.envs.reach import ReachEnv
from jepa_mpc.errors import BadCheckpoint
from jepa_mpc.experiments.commands.ingest import make
from jepa_mpc.face.agents import planning_agent
from jepa_mpc.face.planning import PlanSettings
from jepa_mpc.face.training.log_sources import open_sources, robot_entries
from jepa_mpc.face.training.training_run import train
from jepa_mpc.seeding import generator
from jepa_mpc.trajectories.bank import load_bank
from jepa_mpc.trajectories.cache import CacheOptions, told
from jepa_mpc.trajectories.formats import WRITERS, open_log
from jepa_mpc.trajectories.robot_adapter import load_robot_adapter
from jepa_mpc.trajectories.robots import ROBOTS, MappedLog, robot_map
from jepa_mpc.trajectories.synthetic import synthetic_log
from jepa_mpc.world_model.checkpoints.loader import load_world_model
from tests.commands import command

pytest.importorskip("av")
pytest.importorskip("pyarrow")

ROOT = Path(__file__).resolve().parents[2]
STEPS = ["fit.steps=6", "fit.save_every=6", "fit.log_every=1", "fit.evaluate_every=6", "batch=4", "window=4",
         "max_stride=2", "probe=16", "validation=0.34"]  # fmt: skip
LEWM = ["++system.encoder.widths=[8,8,8,8]", "++system.encoder.keypoints=4", "++system.encoder.hidden=16"]
AC = [
    "system=vjepa2_ac_small",
    "fit=action_conditioned",
    "cameras=[left]",
    "system.preset=tiny",
    "image_size=28",
]
LOSSY = 12  # grey levels, mean error of H.264 (crf 18) on the made-up pictures' hard edges


@pytest.fixture(scope="module")
def logs(tmp_path_factory):
    """The same episodes: ours, LeRobot with every bit kept, LeRobot with films, robomimic."""
    place = tmp_path_factory.mktemp("logs")
    log = MappedLog(open_log(synthetic_log(place / "ours", episodes=6, length=10, image_size=32)))
    return {
        "ours": place / "ours",
        "lerobot": WRITERS["lerobot"](log, place / "lerobot", frames="image"),
        "films": WRITERS["lerobot"](log, place / "films", frames="h264"),
        "robomimic": WRITERS["robomimic"](log, place / "demo.hdf5"),
    }


def configured(*overrides):
    with initialize_config_dir(str(ROOT / "configs"), version_base=None):
        return compose("train", [*STEPS, *overrides])


def losses(out):
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if "loss" in line]


@pytest.mark.parametrize("kind", ["lerobot", "robomimic"])
def test_lossless_formats_give_the_same_windows_bit_for_bit(logs, kind):
    ours, other = load_bank(logs["ours"]), load_bank(logs[kind])
    one, two = (bank.sample(64, 4, generator=generator(0), max_stride=2) for bank in (ours, other))
    assert ours.cameras == other.cameras and ours.dt_s == other.dt_s
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_films_differ_by_what_the_codec_loses_and_in_nothing_else(logs):
    ours, films = load_bank(logs["ours"]), load_bank(logs["films"])
    one, two = (bank.sample(64, 4, generator=generator(0), max_stride=2) for bank in (ours, films))
    assert all(torch.equal(one[name], two[name]) for name in ("actions", "proprio", "episode"))
    error = (one["frames"].int() - two["frames"].int()).abs().float()
    assert 0 < error.mean() < LOSSY


@pytest.mark.parametrize("system", [LEWM, AC], ids=["leworldmodel", "vjepa2_ac"])
def test_three_formats_train_alike_and_films_nearly_so(logs, tmp_path, system):
    found = {}
    for kind, path in logs.items():
        train(configured(*system, f"data={path}", f"out={tmp_path / kind}"))
        found[kind] = losses(tmp_path / kind)
    assert found["ours"] == found["lerobot"] == found["robomimic"]
    weights = {kind: load_checkpoint(tmp_path / kind / "checkpoint")[0] for kind in ("ours", "lerobot")}
    assert all(torch.equal(value, weights["lerobot"][name]) for name, value in weights["ours"].items())
    assert np.allclose(found["films"], found["ours"], rtol=0.2)  # other pixels, not another task
    assert load_world_model(tmp_path / "films" / "checkpoint").interface.cameras[0] == "left"
    adapter = load_robot_adapter(tmp_path / "films" / "checkpoint")
    assert adapter.actions.name == "pose_delta" and set(adapter.statistics) == {"actions", "proprio"}


def test_a_mixture_with_weights_and_robot_files_trains(logs, tmp_path):
    (tmp_path / "robot.yaml").write_text("hz: 4.0\n")
    data = (
        f"data=[{{path: {logs['ours']}, weight: 2}}, {{path: {logs['robomimic']}, robot: {tmp_path / 'robot.yaml'}}}]"
    )
    cfg = configured(*LEWM, data, f"out={tmp_path / 'out'}", "skip=2", "max_stride=1", "window=3", "image_size=16")
    bank = open_sources(cfg)
    assert bank.num_episodes == 12 and bank.step_s == 0.5 and bank.picture == (16, 16)
    model = load_world_model(train(cfg))
    assert model.interface.dt_s == 0.5 and model.interface.image_size == 16
    adapter = load_robot_adapter(tmp_path / "out" / "checkpoint")
    assert adapter.skip == 2 and adapter.picture.size == 16


@pytest.mark.render
def test_a_world_model_of_a_converted_log_moves_the_arm_and_one_of_joints_is_refused(tmp_path):
    """Recorded by the arm, written as LeRobot at a whole rate, trained with the true one; two steps in a new lab."""
    from jepa_mpc.face.collection.lab_recording import Collection, record_one
    from jepa_mpc.trajectories.recording import publish_staged

    collection = Collection(labs=3, episodes=1, steps=8, image_size=32, cameras=("left", "right"), split="train",
                            lab_seed=0, seed=0)  # fmt: skip
    for index in range(3):
        record_one(collection, tmp_path / "ours", index)
    publish_staged(tmp_path / "ours", 0)
    slow = MappedLog(open_log(tmp_path / "ours"), robot=robot_map({**ROBOTS["house"].to_dict(), "hz": 4.0}))
    WRITERS["lerobot"](slow, tmp_path / "lerobot", frames="h264")
    options = [*LEWM, f"data={tmp_path / 'lerobot'}", "robot={hz: 4.1666667}"]
    env = ReachEnv(cameras=("left", "right"), image_size=32, budget=2)
    env.reset(seed=0, options={"lab": sample_lab(0, split="look", seed=0)})
    settings = PlanSettings(planner="cem", arguments={"num_samples": 8, "num_elites": 2, "num_iterations": 1})
    model = load_world_model(train(configured(*options, f"out={tmp_path / 'hand'}")))
    agent = planning_agent(model, env, settings, seed=0)
    agent.reset(env.goal())
    before = env.observation().frames
    env.step(agent.act(env.observation())[0].numpy())
    assert not torch.equal(env.observation().frames, before)
    joints = ["actions={name: joint_velocity}", "system.action_scale=null", f"out={tmp_path / 'joints'}"]
    with pytest.raises(BadCheckpoint, match="joint velocities"):
        planning_agent(load_world_model(train(configured(*options, *joints))), env, settings, seed=0)
    env.close()


@pytest.mark.parametrize("overrides, words", [
    (["data=[]"], "names no log"),
    (["data=[{{weight: 2}}]"], "an entry of data"),
    (["data={ours}", "actions={{name: joint_velocity, column: observation.hat}}"], "observation.hat"),
    (["data={ours}", "robot=toaster"], "known: droid"),
    (["data={ours}", "skip=0"], "skip must be"),
    (["data={ours}", "blocks=stacked", "skip=2"], "the log has 14: pass system.action_dim=14"),
])  # fmt: skip
def test_what_cannot_be_read_is_refused_in_one_sentence(logs, tmp_path, overrides, words):
    from jepa_mpc.experiments.commands.train import MISTAKES

    with pytest.raises(MISTAKES, match=words):
        train(configured(*LEWM, f"out={tmp_path / 'out'}", *(one.format(**logs) for one in overrides)))


def test_ingest_leaves_a_cache_that_training_takes(logs, tmp_path):
    options = OmegaConf.merge(
        OmegaConf.load(ROOT / "configs/ingest.yaml"),
        {"path": str(logs["films"]), "image_size": 16, "out": str(tmp_path / "cache"), "check": True},
    )
    cache = make(options)
    bank = open_sources(configured(*LEWM, f"data={tmp_path / 'cache'}"))
    assert torch.equal(bank.frames, torch.from_numpy(cache.frames)) and bank.picture == (16, 16)
    same = load_bank(logs["films"], options=CacheOptions(image_size=16, robot=told({})))
    assert torch.equal(same.frames, bank.frames)


def test_ingest_answers_in_a_sentence(tmp_path):
    synthetic_log(tmp_path / "log", episodes=2)
    for words, code, said in (("path=log", 0, "2 episodes, 17 steps of 0.25 s, left, right at 16 x 16 px"),
                              ("path=nowhere", 1, "ingest: nowhere: field 'file' does not exist")):  # fmt: skip
        done = command("ingest", words, cwd=tmp_path)
        assert done.returncode == code and said in done.stdout + done.stderr, done.stderr


def test_robots_are_named_filed_or_told(tmp_path):
    (tmp_path / "arm.yaml").write_text("position: tcp[0:3]\nrotation: tcp[3:6]\nhz: 10\n")
    assert robot_entries(str(tmp_path / "arm.yaml"))["hz"] == 10
    assert robot_entries("droid")["rotation_form"] == "euler_xyz" and robot_entries({"hz": 3}) == {"hz": 3}
    with pytest.raises(ValueError, match="a list of entries"):
        robot_entries(3)


def test_the_loading_benchmark_leaves_table_and_figure(tmp_path):
    from jepa_mpc.experiments.commands.bench_loading import bench

    options = OmegaConf.merge(
        OmegaConf.load(ROOT / "configs/bench_loading.yaml"),
        {"out": str(tmp_path), "logs": ["npz", "mp4 h264 (LeRobot)"], "image_size": 32, "larger": [[48, 64]],
         "episodes": 2, "steps": 6, "lengths": [4], "batch": 2, "seconds": 0.01, "rounds": 1},
    )  # fmt: skip
    report = bench(options)
    told = {"loading.json", "loading.md", "loading.png"}
    assert {path.name for path in tmp_path.iterdir()} == {"run.json", "logs", "caches"} | told
    assert len(report["ingest"]) == 4 and all(row["frames per CPU s"] > 0 for row in report["ingest"])
    assert len(report["clips"]) == 4 and all(row["clips per CPU s"] > 0 for row in report["clips"])
