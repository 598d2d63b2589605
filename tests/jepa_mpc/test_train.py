"""train.py: leaves a world model behind, goes on to the same bits after a kill, and refuses what cannot work."""

from __future__ import annotations

import json
import multiprocessing
import shutil
import time
from pathlib import Path

import huggingface_hub
import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from tqdm import tqdm

from jepa_mpc.checkpoint import load_checkpoint, save_checkpoint
from jepa_mpc.errors import BadCheckpoint, BadEpisode, Busy, UnknownName
from jepa_mpc.experiments.commands.train import MISTAKES
from jepa_mpc.face.collection.lab_recording import Collection, record_one
from jepa_mpc.face.command_line import Stopped
from jepa_mpc.face.publishing import publish
from jepa_mpc.face.training.keeper import other_settings
from jepa_mpc.face.training.monitor import doubts, probe
from jepa_mpc.face.training.progress import Display, Stop
from jepa_mpc.face.training.training_run import train
from jepa_mpc.files import only_writer
from jepa_mpc.trajectories.recording import publish_staged
from jepa_mpc.trajectories.synthetic import synthetic_log
from jepa_mpc.world_model.checkpoints.keypoints import load_object_finder
from jepa_mpc.world_model.checkpoints.loader import load_world_model
from tests import tiny
from tests.commands import command

ROOT = Path(__file__).resolve().parents[2]
TINY = [
    "++system.encoder.widths=[8,8,8,8]",
    "++system.encoder.keypoints=4",
    "++system.encoder.hidden=16",
    "fit.steps=12",
    "fit.save_every=4",
    "fit.log_every=2",
    "fit.evaluate_every=6",
    "batch=4",
    "window=4",
    "++max_stride=2",
    "probe=16",
    "validation=0.34",
]


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    return synthetic_log(tmp_path_factory.mktemp("log"), episodes=6)


def configured(log, out, *overrides):
    with initialize_config_dir(str(ROOT / "configs"), version_base=None):
        return compose("train", [*TINY, f"data={log}", f"out={out}", *overrides])


@pytest.fixture(scope="module")
def whole(log, tmp_path_factory):
    """The run folder of a training that was never interrupted."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    train(configured(log, out))
    return out


@pytest.mark.render
def test_handling_keeps_the_finder_that_completed_its_labels(tmp_path, renderable):
    plan = Collection(
        task="pick", policy="handle", cameras=("left", "right", "wrist"), labs=3, episodes=1, steps=16, image_size=32,
        split="train", lab_seed=0, seed=0,
    )  # fmt: skip
    for index in range(3):
        record_one(plan, tmp_path / "log", index)
    publish_staged(tmp_path / "log", 0)
    few = [
        "batch=2", "probe=8", "validation=0.34", "watch.frames=8", "fit.steps=1", "on_collapse=warn",
        f"data={tmp_path / 'log'}",
    ]  # fmt: skip
    finding = ["system=object_finder", "fit=finder", "system.preset=tiny", "cameras=[wrist]", "window=4"]
    handling = ["system=handling", "fit=handling", "actions=hand_and_grip", "max_stride=1", "window=4"]
    handling += [f"finder={tmp_path / 'finder' / 'checkpoint'}"]
    with initialize_config_dir(str(ROOT / "configs"), version_base=None):
        first, second = (
            compose("train", [*few, *options, f"out={tmp_path / name}"])
            for name, options in (("finder", finding), ("model", handling))
        )
    taught = load_object_finder(train(first)).network.state_dict()
    kept = load_world_model(train(second)).finder
    assert kept is not None and taught.keys() == kept.state_dict().keys()
    assert all(torch.equal(weight, taught[name]) for name, weight in kept.state_dict().items())


def state_of(out):
    return load_checkpoint(out / "state")[0]


def metrics(out):
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def test_a_training_leaves_all_that_is_needed(whole):
    assert {"config.yaml", "origin.json", "metrics.jsonl", "tensorboard", "state", "checkpoint"} <= {
        path.name for path in whole.iterdir()
    }
    numbers = {name for entry in metrics(whole) for name in entry}
    assert {"loss", "held/loss", "health/effective_rank", "health/std_ratio", "probe/hand_r2"} <= numbers
    assert [entry["step"] for entry in metrics(whole) if "loss" in entry] == [2, 4, 6, 8, 10, 12]


def test_the_world_model_loads(whole):
    model = load_world_model(whole / "checkpoint")
    assert model.interface.cameras == ("left", "right") and model.interface.image_size == 16
    assert len(model.interface.actions) == 7 and model.interface.dt_s == 0.25


def test_the_published_weights_are_the_averaged_ones(whole):
    shown, state = load_checkpoint(whole / "checkpoint")[0], state_of(whole)
    assert all(torch.equal(value, state["state.average." + name]) for name, value in shown.items())


def test_a_killed_training_goes_on_to_the_same_bits(log, whole, tmp_path):
    out = tmp_path / "killed"
    words = ("train", *TINY, f"data={log}", f"out={out}")
    worker = multiprocessing.get_context("fork").Process(target=command, args=words, kwargs={"cwd": tmp_path})
    worker.start()
    deadline = time.monotonic() + 120
    while not (out / "state" / "manifest.json").exists() and worker.is_alive() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert (out / "state" / "manifest.json").exists()
    worker.kill()
    worker.join()
    train(configured(log, out))
    expected = state_of(whole)
    assert all(torch.equal(value, expected[name]) for name, value in state_of(out).items())
    assert metrics(out) == metrics(whole)
    assert not list(tmp_path.glob("*.log"))


def test_a_finished_training_is_left_as_it_is(log, whole):
    before = state_of(whole)
    train(configured(log, whole))
    assert all(torch.equal(value, before[name]) for name, value in state_of(whole).items())


def test_a_frozen_part_keeps_its_weights(log, tmp_path):
    train(configured(log, tmp_path / "a", "freeze=[encoder]", "fit.steps=2"))
    train(configured(log, tmp_path / "b", "freeze=[encoder]", "fit.steps=4"))
    first, second = (load_checkpoint(tmp_path / name / "checkpoint")[0] for name in "ab")
    assert all(torch.equal(first[name], second[name]) for name in first if name.startswith("encoder."))
    assert any(not torch.equal(first[name], second[name]) for name in first if name.startswith("predictor."))


@pytest.mark.parametrize(
    "override, error, words",
    [
        ("fit.steps=24", ValueError, "other settings of fit"),
        ("resume=never", ValueError, "holds a training of 12 steps"),
        ("resume=maybe", ValueError, "auto or never"),
        ("freeze=[soul]", ValueError, "cannot freeze 'soul'"),
        ("actions=wishes", UnknownName, "commanded"),
        ("cameras=[wrist]", ValueError, "left, right"),
        ("system.action_dim=5", ValueError, "system.action_dim=7 system.action_scale=null"),
        ("system.action_scale=[1]", ValueError, "system.action_dim=7 system.action_scale=null"),
        ("fit.steps=-5", ValueError, "fit.steps must be a whole number from 1, got -5"),
        ("robot=nowhere.yaml", ValueError, "robot=nowhere.yaml: no such file"),
        ("data=nowhere", BadEpisode, "python experiments/collect.py out=nowhere"),
        ("++system.encoder={_target_: vision_transformer}", ValueError, "replaced as a whole by encoder=NAME"),
        ("fit.warmup=2", ValueError, "warmup"),
        ("window=3", ValueError, "other settings of window"),
        ("validation=0", ValueError, "0% of 3 groups"),
    ],
)
def test_what_cannot_work_is_refused_in_one_sentence(log, whole, override, error, words, tmp_path):
    assert issubclass(error, MISTAKES)
    used = "other settings" in words or "12 steps" in words
    with pytest.raises(error, match=words):
        train(configured(log, whole if used else tmp_path / "run", override))


def test_a_used_folder_is_refused_before_the_log_is_read(log, whole, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="holds files other than a training .notes.txt.: choose a new folder"):
        train(configured("nowhere", tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    with pytest.raises(ValueError, match="other settings of window"):
        train(configured("nowhere", whole, "window=3"))


def test_a_training_that_is_interrupted_says_where_it_stopped(log, tmp_path, monkeypatch):
    monkeypatch.setattr(Stop, "__call__", lambda self: True)
    with pytest.raises(Stopped, match="at step .* of 12, which is saved: the same command resumes there"):
        train(configured(log, tmp_path / "run"))
    assert (tmp_path / "run" / "state").exists()


def test_an_encoder_is_replaced_as_a_whole(log, tmp_path):
    sizes = ["encoder.sizes.width=16", "encoder.sizes.depth=1", "encoder.sizes.heads=2", "encoder.sizes.mlp_dim=16"]
    with initialize_config_dir(str(ROOT / "configs"), version_base=None):
        short = [option for option in TINY if "encoder" not in option]
        cfg = compose(
            "train", [*short, "encoder=vit_small", *sizes, "fit.steps=1", f"data={log}", f"out={tmp_path}/run"]
        )
    trained = load_checkpoint(train(cfg))[1]["system"]["encoder"]
    assert trained["_target_"] == "vision_transformer" and "num_cameras" not in trained


def test_an_evaluation_that_speaks_against_the_model_is_told():
    kind = {"held/prediction_over_standing": 0.4, "probe/hand_r2": 0.8, "health/collapsed": 0.0}
    assert doubts(kind) == [] == doubts({})
    worse, blind = doubts({**kind, "held/prediction_over_standing": 17.6, "probe/hand_r2": -0.3})
    assert "worse than no motion" in worse and "17.6" in worse and "-0.3" in blind
    assert len(doubts({"held/prediction_over_standing": float("nan")})) == 1


def test_a_policy_in_place_of_a_world_model_is_named(tmp_path):
    save_checkpoint(tmp_path / "policy", {"weight": torch.zeros(1)}, {"policy": {}, "world_model": "x"})
    with pytest.raises(BadCheckpoint, match="holds a policy, not a world model"):
        load_world_model(tmp_path / "policy")


def test_windows_longer_than_every_episode_are_refused(log, tmp_path):
    with pytest.raises(ValueError, match="no episode has the"):
        train(configured(log, tmp_path / "out", "window=99"))


def test_a_folder_without_a_log_is_refused(tmp_path):
    with pytest.raises(BadEpisode, match="none that is known"):
        train(configured(tmp_path, tmp_path / "out"))


def test_two_trainings_do_not_share_a_folder(log, tmp_path):
    with only_writer(tmp_path / "run"), pytest.raises(Busy, match="another training"):
        train(configured(log, tmp_path / "run"))


def test_the_probe_finds_a_linear_map():
    draws = torch.Generator().manual_seed(0)
    latents = torch.randn(40, 3, 8, generator=draws)
    places = latents @ torch.randn(8, 3, generator=draws)
    numbers = probe((latents[:30], places[:30]), (latents[30:], places[30:]))
    assert numbers["probe/hand_r2"] > 0.99


def test_the_best_world_model_is_kept_with_how_it_was_judged(whole):
    judged = {entry["step"]: entry["held/loss"] for entry in metrics(whole) if "held/loss" in entry}
    _, config = load_checkpoint(whole / "best")
    best = config["training"]
    assert best["steps"] == min(judged, key=judged.__getitem__)
    assert best["evaluation"]["scores"]["held/loss"] == min(judged.values())
    assert best["evaluation"]["protocol"]["probe"] == 16
    load_world_model(whole / "best")


def test_options_that_did_not_exist_then_do_not_keep_a_training_from_going_on(log, tmp_path):
    now = OmegaConf.to_container(configured(log, tmp_path), resolve=True)
    then = {name: value for name, value in now.items() if name not in ("watch", "best", "recorders", "skip", "blocks")}
    assert not other_settings(then, now)
    assert not other_settings(then, now | {"fit": {**now["fit"], "accumulate": 1}})
    assert other_settings(then, now | {"fit": {**now["fit"], "accumulate": 2}}) == ["fit"]


def test_the_numbers_go_where_they_are_wanted(log, tmp_path):
    train(configured(log, tmp_path / "run", "recorders=[jsonl]", "fit.steps=4"))
    assert not (tmp_path / "run" / "tensorboard").exists()
    assert not any(name.startswith("speed/") for entry in metrics(tmp_path / "run") for name in entry)


def test_the_throughput_is_told(tmp_path):
    told, times = [], iter([0.0, 2.0])
    display = Display(
        lambda step, numbers: told.append(numbers), tqdm(disable=True), batch=8, clock=lambda: next(times)
    )
    display(10, {"loss": 1.0}), display(20, {"loss": 1.0})
    assert told == [{"loss": 1.0}, {"loss": 1.0, "speed/samples_per_s": 40.0}]


@pytest.mark.render
def test_a_training_can_be_judged_by_planning(log, tmp_path):
    from jepa_mpc.face.training.reach_evaluation import ReachEvaluation

    cfg = configured(log, tmp_path, "evaluate=reach", "evaluate.labs=2", "evaluate.budget=2")
    model = tiny.objective().eval()
    judge = ReachEvaluation(cfg.evaluate, objective=model, interface=tiny.interface())
    try:
        first, again = judge(1, model), judge(1, model)
    finally:
        judge.close()
    assert first == again and 0 <= first["reach/success_5cm"] <= 1 and first["reach/median_cm"] > 0
    assert judge.protocol()["level"] == "validation" and len(judge.protocol()["labs_hash"]) > 8
    with pytest.raises(BadCheckpoint, match="another robot"):
        ReachEvaluation(cfg.evaluate, objective=model, interface=tiny.interface(dt_s=1.0))


def test_a_run_is_published_to_the_hub_and_loads_from_it(log, whole, tmp_path, monkeypatch):
    class Hub:
        def create_repo(self, name, *, exist_ok):
            assert exist_ok

        def upload_folder(self, *, repo_id, folder_path, commit_message, revision):
            return shutil.copytree(folder_path, tmp_path / "hub" / repo_id)

    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda name, **_: str(tmp_path / "hub" / name))
    with initialize_config_dir(str(ROOT / "configs"), version_base=None):
        cfg = compose("publish", [f"run={whole}", f"data={log}", "to=hf://user/arm", "frames=4", "which=best"])
    publish(cfg)
    assert load_world_model("hf://user/arm").interface == load_world_model(whole / "best").interface
    files = {path.name for path in (tmp_path / "hub/user/arm").iterdir()}
    assert {"README.md", "album.jpg", "album.json", "manifest.json"} <= files
