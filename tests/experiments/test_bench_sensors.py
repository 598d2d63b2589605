"""bench_sensors.py: small runs from a log to the report, gone on with; and the parts of its table."""

from __future__ import annotations

import json
import math
from functools import partial

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir

from jepa_mpc.errors import UnknownName
from jepa_mpc.experiments.commands.bench_sensors import bench, check
from jepa_mpc.experiments.evaluation.encoders.encoder_cells import FAILED
from jepa_mpc.experiments.evaluation.encoders.encoder_probing import ReadObjective
from jepa_mpc.experiments.evaluation.encoders.encoder_work import needs
from jepa_mpc.experiments.evaluation.sensors.sensor_jobs import auroc, cloud_shape, contacts, off_degrees, poses
from jepa_mpc.experiments.evaluation.sensors.sensor_probing import sensor_cells
from jepa_mpc.experiments.evaluation.sensors.sensor_table import leads
from jepa_mpc.face.command_line import Stopped
from jepa_mpc.face.evaluation.feature_probes import NEAR, READERS, attentive
from jepa_mpc.face.training.keeper import Keeper
from jepa_mpc.places import CONFIGS
from jepa_mpc.seeding import generator
from jepa_mpc.trajectories.episode import CLOUDS, HEARD, OBJECT, OBJECT_YAW, SOUND, Episode
from jepa_mpc.trajectories.formats.npz import episode_path, write_episode
from jepa_mpc.trajectories.synthetic import synthetic_episode, synthetic_log
from jepa_mpc.world_model.recipes import point_jepa

TINY = [
    "++trainings.point_jepa_small.change.system={preset: tiny}",
    "++trainings.audio_jepa_small.change.system={preset: tiny, rate: 2000}",
    *(f"trainings.{name}.batch=4" for name in ("point_jepa_small", "audio_jepa_small")),
    *("seeds=[0]", "validation=0.34", "train=40", "held=24", "device=cpu", "steps=3", "tune_steps=2", "tuning.batch=4"),
]


def configured(*overrides):
    with initialize_config_dir(str(CONFIGS), version_base=None):
        return compose("bench_sensors", [*TINY, *map(str, overrides)])


def felt_episode(index):
    """A block as a cloud of points around its place; silence, and a burst of noise where it is touched."""
    made, draws = synthetic_episode(index), np.random.default_rng(index)
    length = made.length
    places = np.concatenate([draws.uniform(-0.2, 0.2, (length, 2)), np.full((length, 1), 0.03)], axis=1)
    clouds = places[:, None] + draws.uniform(-0.03, 0.03, (length, 48, 3))
    touched = draws.random(length) < 0.3
    sound = np.where(touched[:, None], 0.1, 1e-4) * draws.standard_normal((length, 500))
    numbers = np.stack([touched, np.where(touched, 0.1, -1), touched, touched, touched * (1 + index % 2)], axis=1)
    extras = {
        CLOUDS: clouds,
        OBJECT: places,
        OBJECT_YAW: draws.uniform(-1, 1, (length, 1)),
        SOUND: sound,
        HEARD: numbers,
    }
    arrays = {**made.arrays, **{name: rows.astype(np.float32) for name, rows in extras.items()}}
    return Episode(arrays=arrays, metadata=made.metadata)


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    folder = tmp_path_factory.mktemp("log")
    for index in range(12):
        write_episode(episode_path(folder, index), felt_episode(index))
    return folder


@pytest.fixture(autouse=True)
def few_steps(monkeypatch):
    monkeypatch.setitem(READERS, "attentive", partial(attentive, steps=3))


def test_a_killed_run_goes_on_and_leaves_table_and_curves(log, tmp_path, monkeypatch):
    out, saved = tmp_path / "run", Keeper.save
    cfg = configured(f"data={log}", f"out={out}", "systems=[point_jepa_small]", "shares=[0.5, 1.0]")

    def killed(keeper, state):
        saved(keeper, state)
        if state.step == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as kill, pytest.raises(Stopped, match="after 4 of 7 cells"):
        kill.setattr(Keeper, "save", killed)
        bench(cfg)
    before = {path.name: path.stat().st_mtime_ns for path in (out / "cells").iterdir()}
    page = bench(cfg)
    after = {path.name: path.stat().st_mtime_ns for path in (out / "cells").iterdir()}
    assert len(after) == 7 and all(after[name] == time for name, time in before.items())
    report = json.loads((out / "report.json").read_text())
    assert page == (out / "report.md").read_text() and FAILED not in json.dumps(report)
    assert (out / "sensors.png").stat().st_size > 10_000
    known = {(one["job"], one["encoder"], one["probe"], one["share"]): one["score"][0] for one in report["summary"]}
    assert len(known) == 2 * 2 * (2 + 2 * 2 + 2)
    assert known["position", "pixels", "linear", 1.0] < 0.5 * known["position", "pixels", "constant", 1.0]
    assert report["trainings"]["tuned-point_jepa_small-trained-s0"]["steps"] == 2
    assert "| fine-tuned |" in page and "1 of 1" in page or "0 of 1" in page


def test_sound_has_a_bar_for_each_method(log, tmp_path):
    page = bench(configured(f"data={log}", f"out={tmp_path / 'run'}", "sensor=sound", "shares=[1.0]"))
    for job in ("touch, AUROC", "onset, ms", "slip, AUROC", "material, accuracy"):
        assert f"## audio_jepa_small: {job} in labs kept out" in page
    assert (tmp_path / "run" / "sensors.png").stat().st_size > 10_000


@pytest.mark.parametrize("sensor", ["clouds", "sound"])
def test_a_log_without_the_sensor_is_told(sensor, tmp_path):
    log = synthetic_log(tmp_path / "log", episodes=6)
    with pytest.raises(ValueError, match=f"has no {sensor} and no .*: record a log with collect.py task=push"):
        bench(configured(f"data={log}", f"out={tmp_path / 'run'}", f"sensor={sensor}"))


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("sensor=radar", "sensor"),
        ("systems=[audio_jepa_small]", "systems"),
        ("readers=[]", "readers must name at least one"),
        ("shares=[0, 1]", "shares of the labels lie above 0"),
        ("held=0", "held must be a whole number from 1"),
    ],
)
def test_options_that_no_run_could_use_are_refused(option, words):
    with pytest.raises((UnknownName, ValueError), match=words):
        check(configured(option))


def test_every_cell_comes_after_those_it_needs():
    cells = sensor_cells(["a", "b"], [0, 1])
    assert len(set(cells)) == len(cells) == 2 + 2 * 2 * 6
    assert all(set(needs(cell)) <= set(cells[:place]) for place, cell in enumerate(cells))


def test_yaws_of_a_block_agree_after_a_quarter_turn():
    angles = torch.tensor([[0.1], [1.2], [-0.4]])
    windows = {OBJECT: torch.zeros(3, 1, 3), OBJECT_YAW: angles[:, None]}
    turned = {**windows, OBJECT_YAW: angles[:, None] + math.pi / 2}
    off = {**windows, OBJECT_YAW: angles[:, None] + math.radians(50)}
    known = poses(windows, 0.24)["yaw"]
    assert off_degrees(poses(turned, 0.24)["yaw"], known) == pytest.approx(0, abs=1e-3)
    assert off_degrees(poses(off, 0.24)["yaw"], known) == pytest.approx(40, abs=1e-3)


def test_the_first_touch_of_a_window_counts():
    heard = torch.zeros(2, 4, 5)
    heard[..., 1] = -1
    heard[0, 1], heard[0, 3] = torch.tensor([2, 0.05, 0, 0.1, 3]), torch.tensor([1, 0.2, 0.1, 0.1, 3])
    known = contacts({HEARD: heard}, 0.24)
    assert known["touch"].flatten().tolist() == [1, 0] and known["slip"].flatten().tolist() == [1, 0]
    assert known["onset"][0].item() == pytest.approx(0.29) and known["onset"][1].isnan().all()
    assert known["material"][0].tolist() == [0, 0, 1, 0] and known["material"][1].isnan().all()


def test_the_area_under_the_curve_is_the_share_of_pairs_in_order():
    known = torch.tensor([[1.0], [0.0], [1.0], [0.0]])
    assert auroc(torch.tensor([[3.0], [2.0], [1.0], [0.0]]), known) == 0.75
    assert auroc(torch.zeros(4, 1), known) == 0.5 and math.isnan(auroc(known, torch.ones(4, 1)))


def test_plain_features_know_place_and_turn_of_a_block():
    grid = torch.stack(torch.meshgrid(*2 * [torch.linspace(-0.03, 0.03, 9)], indexing="ij"), dim=-1).flatten(0, 1)
    turn = torch.tensor(0.3)
    spin = torch.stack([torch.stack([turn.cos(), -turn.sin()]), torch.stack([turn.sin(), turn.cos()])])
    corner = torch.tensor([0.5, 0.1])
    arm = torch.full((20, 3), 0.4)
    clouds = torch.stack([torch.cat([on_table(one + corner), arm]) for one in (grid, grid @ spin.T)])
    features = cloud_shape(clouds, 0.24)[:, 0, 33:]
    assert torch.allclose(features[:, :2], corner.expand(2, 2), atol=1e-6)
    square = features[:, -3:-1]
    assert off_degrees(square[1:], square[:1]) == pytest.approx(math.degrees(0.3), abs=0.1)


def on_table(flat):
    """Points `G 2` at the height of a block."""
    return torch.cat([flat, torch.full((len(flat), 1), 0.02)], dim=1)


def test_windows_without_a_label_teach_nothing():
    system = point_jepa.build(preset="tiny", generator=generator(0))
    clouds = torch.randn(8, 1, 48, 3, generator=generator(1))
    labels = {"a": clouds[:, 0, 0, :2].clone(), "b": clouds[:, 0, 0, 2:].clone()}
    labels["b"][4:] = math.nan
    made = ReadObjective(system, clouds, labels, stream=generator(2), distances=dict.fromkeys(labels, NEAR)).eval()
    whole = made({"seen": clouds, **labels}, generator(0)).terms
    half = made({"seen": clouds[:4], **{name: one[:4] for name, one in labels.items()}}, generator(0)).terms
    none = made({"seen": clouds[4:], **{name: one[4:] for name, one in labels.items()}}, generator(0))
    assert float(whole["b"]) == pytest.approx(float(half["b"]), rel=1e-4)
    assert float(whole["a"]) != pytest.approx(float(half["a"]), rel=1e-4)
    assert none.terms["b"] == 0 and none.total.isfinite()


def test_a_lead_is_the_share_of_the_error_that_is_gone():
    def row(encoder, probe, score, seed):
        kind = {"system": "" if encoder == "pixels" else "a", "job": "slip", "share": 1.0, "seed": seed}
        return {**kind, "encoder": encoder, "probe": probe, "score": score, "resampled": [score, score - 0.1]}

    rows = [row("trained", "network", 0.9, 0), row("supervised", "network", 0.8, 0), row("pixels", "linear", 0.95, 0)]
    rows += [row("trained", "network", 0.8, 1), row("supervised", "network", 0.8, 1)]
    found = {(one["own"], one["other"]): one for one in leads(rows, ["a"], "sound")}
    scratch = found["fine-tuned", "from scratch"]
    assert scratch["lead"] == pytest.approx(0.25) and scratch["by_seed"] == pytest.approx([0.5, 0.0])
    assert scratch["interval"][0] == pytest.approx(1 - 0.25 / 0.3, abs=0.01)
    assert found["fine-tuned", "plain features, ridge"]["by_seed"] == pytest.approx([-1.0])
