"""The experiments of V-JEPA 2-AC: the rollout's saving, the energy landscape, beginning with an encoder, reaching."""

from __future__ import annotations

import json

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from jepa_mpc.encoders.released import RELEASES, Release, vjepa2
from jepa_mpc.errors import BadCheckpoint, UnknownName
from jepa_mpc.experiments._path import ROOT
from jepa_mpc.experiments.commands import bench_rollout, energy_landscape
from jepa_mpc.experiments.evaluation.image_goals.system_defaults import adapted
from jepa_mpc.face.training.monitor import Monitor
from jepa_mpc.face.training.pretrained import begin_with_encoder
from jepa_mpc.face.training.training_run import train
from jepa_mpc.seeding import generator
from jepa_mpc.trajectories.bank import load_bank
from jepa_mpc.trajectories.synthetic import synthetic_log
from jepa_mpc.world_model.checkpoints.assembly import assemble
from jepa_mpc.world_model.checkpoints.loader import load_world_model, save_world_model
from jepa_mpc.world_model.dynamics.model import Interface
from tests import tiny
from tests.encoders import test_released
from tests.world_model.test_vjepa2_ac import SYSTEM

ACTIONS = ("dx [m]", "dy [m]", "dz [m]", "rx [rad]", "ry [rad]", "rz [rad]", "gripper")


def configured(name: str, *options: str):
    with initialize_config_dir(str(ROOT / "configs"), version_base=None):
        return compose(name, list(options))


@pytest.fixture
def checkpoint(tmp_path):
    folder = tmp_path / "model"
    interface = Interface(cameras=("left",), image_size=28, actions=ACTIONS, dt_s=0.24)
    save_world_model(folder, assemble(SYSTEM, generator=generator(0)), system=SYSTEM, interface=interface)
    return folder


def test_the_bench_compares_equal_rollouts_and_leaves_its_table(tmp_path):
    sizes = ["width=48", "heads=2", "depth=2", "side=2", "state_dim=16", "candidates=3", "horizon=2", "repeats=1"]
    rows = bench_rollout.bench(configured("bench_rollout", "device=cpu", f"out={tmp_path}", *sizes))
    assert [(row.precision, row.context) for row in rows] == [
        ("float32", 1), ("float32", 2), ("bfloat16", 1), ("bfloat16", 2),
    ]  # fmt: skip
    assert all(row.gap < 2e-5 for row in rows if row.precision == "float32")
    assert all(row.anew_s > 0 and row.kept_s > 0 for row in rows)
    assert len(json.loads((tmp_path / "rollout.json").read_text())["rows"]) == 4


@pytest.mark.slow
def test_kept_keys_and_values_save_what_they_should():
    """Busy time of the process, at depth 4, width 256, 64 tokens, 64 candidates, horizon 4."""
    cfg = configured("bench_rollout", "repeats=3")
    for context, wanted in ((1, 2.3), (2, 3.2)):
        row = bench_rollout.measure(cfg, device=torch.device("cpu"), precision="float32", context=context)
        assert row.gap < 2e-5 and row.ratio >= wanted


@pytest.mark.render
def test_the_landscape_moves_the_arm_of_the_world_model(tmp_path, monkeypatch):
    def landscape(model, env, *_):
        raise LookupError(env.embodiment)

    monkeypatch.setattr(energy_landscape, "landscape", landscape)
    folder = tiny.save(tmp_path / "model", embodiment="ur5e")
    with pytest.raises(LookupError, match="ur5e"):
        energy_landscape.study(configured("energy_landscape", f"checkpoint={folder}", f"out={tmp_path / 'run'}"))


@pytest.mark.render
def test_the_landscape_leaves_its_plot_and_numbers(tmp_path, checkpoint):
    out = tmp_path / "run"
    cfg = configured("energy_landscape", f"checkpoint={checkpoint}", f"out={out}", "labs=1", "points=3")
    facts = energy_landscape.study(cfg)
    assert [part["plane"] for part in facts["landscapes"]] == ["xy", "xz"]
    assert (out / "landscape.png").stat().st_size > 5_000
    for part in json.loads((out / "landscape.json").read_text())["landscapes"]:
        energy = torch.tensor(part["energy"])
        at = [(energy.argmin() // 3).item(), (energy.argmin() % 3).item()]
        axis = torch.linspace(-0.05, 0.05, 3)
        assert torch.allclose(axis[at], torch.tensor(part["least_m"]), atol=1e-6)
        assert 0.005 < torch.tensor(part["true_m"]).norm() < 0.08


def test_a_training_begins_with_the_encoder_of_another(checkpoint):
    fresh, source = assemble(SYSTEM, generator=generator(1)), assemble(SYSTEM, generator=generator(0))
    begin_with_encoder(fresh, str(checkpoint))
    pairs = zip(fresh.encoder.state_dict().values(), source.encoder.state_dict().values(), strict=True)
    assert all(torch.equal(mine, theirs) for mine, theirs in pairs)
    other = assemble({**SYSTEM, "preset": "small"})
    with pytest.raises(BadCheckpoint, match="do not fit the encoder"):
        begin_with_encoder(other, str(checkpoint))


def test_standing_still_is_measured_by_the_same_distance_as_the_prediction(tmp_path):
    bank = load_bank(synthetic_log(tmp_path / "log", episodes=6, image_size=64), cameras=("left",))
    objective = assemble({**SYSTEM, "preset": "small"}, generator=generator(0)).eval()  # fresh: nothing moves
    monitor = Monitor(bank, bank, objective=objective, window=3, frames=12, seed=0)
    with torch.no_grad():
        assert monitor(0, objective)["held/prediction_over_standing"] == pytest.approx(1.0, rel=1e-4)


def test_the_system_brings_its_planner_and_the_command_line_wins(checkpoint):
    options = configured("zero_shot_reach", "system=vjepa2_ac", f"checkpoint={checkpoint}", "horizon=3")
    cfg = adapted(options, checkpoint.parent, given=["system", "checkpoint", "horizon"])
    assert cfg.planner._target_ == "hand_cem" and (cfg.horizon, cfg.effort, cfg.cameras) == (3, 0.0, 1)
    plain = configured("zero_shot_reach")
    assert OmegaConf.to_container(adapted(plain, checkpoint.parent, given=[])) == OmegaConf.to_container(plain)


def test_the_shipped_model_plans_by_the_energy_of_its_own_tokens():
    options = configured("zero_shot_reach", "system=vjepa2_ac")
    model = load_world_model(adapted(options, ROOT / "experiments" / "checkpoints", given=["system"]).checkpoint)
    assert model.interface.cameras == ("left",) and model.position_head is None and model.needs_proprio


def test_a_system_that_cannot_reach_or_is_not_shipped_is_told(tmp_path):
    with pytest.raises(ValueError, match="checkpoint=FOLDER"):
        adapted(configured("zero_shot_reach", "system=vjepa2_ac"), tmp_path, given=["system"])
    with pytest.raises(UnknownName, match="vjepa2_ac"):
        adapted(configured("zero_shot_reach", "system=vjepa2_small"), tmp_path, given=["system"])


def test_a_released_encoder_takes_the_place_of_the_systems_own(tmp_path, monkeypatch):
    sizes = test_released.SIZES
    release = Release(form=vjepa2, sizes=sizes, image=256, file="vitl.pt", repository="facebook/none")
    monkeypatch.setitem(RELEASES, "vjepa2_vitl", release)
    source, weights = test_released.tiny()
    folder = test_released.save_folder(tmp_path / "vitl", test_released.hugging_face(weights))
    log = synthetic_log(tmp_path / "log", episodes=6)
    both = [
        "encoder=vjepa2_vitl", f"hub={folder}", "cameras=[left]", "max_stride=1", "batch=2", "probe=8",
        "validation=0.34", "fit.steps=2", f"data={log}",
    ]  # fmt: skip
    small = ["system=vjepa2_ac_small", "system.preset=tiny", "window=3", f"out={tmp_path / 'run'}"]
    pixels = "++system.preprocess={_target_: robot_pixels, size: 64}"
    trained = load_world_model(train(configured("train", *both, *small, pixels))).objective.encoder.encoder
    pairs = zip(trained.state_dict().values(), source.state_dict().values(), strict=True)
    assert trained.sizes == sizes and all(torch.equal(mine, theirs) for mine, theirs in pairs)
    with pytest.raises(ValueError, match=r"builds its own encoder.*pretrained=vjepa2_vitl"):
        train(configured("train", *both, "system=vjepa2_small", "window=8", f"out={tmp_path / 'other'}"))
