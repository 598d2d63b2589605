"""bench_encoders.py: one small run from a log to the report, gone on with; and the parts of its table."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hydra import compose, initialize_config_dir

from jepa_mpc.checkpoint import load_checkpoint
from jepa_mpc.errors import UnknownName
from jepa_mpc.experiments.commands.bench_encoders import bench, check
from jepa_mpc.experiments.evaluation.encoders import encoder_probing, encoder_trainings, training_time
from jepa_mpc.experiments.evaluation.encoders.encoder_cells import FAILED, PARTS, EncoderCell, kept, ordered
from jepa_mpc.experiments.evaluation.encoders.encoder_probing import PlaceObjective
from jepa_mpc.experiments.evaluation.encoders.encoder_table import (
    beats,
    leads,
    markdown,
    rows_of,
    shown,
    spread_of,
    summary,
    verdicts,
)
from jepa_mpc.experiments.evaluation.encoders.encoder_trainings import predictor, pretraining, weights, weights_of
from jepa_mpc.experiments.evaluation.encoders.encoder_work import needs
from jepa_mpc.experiments.evaluation.encoders.training_time import planned_steps, spending
from jepa_mpc.face.command_line import Stopped
from jepa_mpc.face.evaluation.feature_probes import READERS, attentive
from jepa_mpc.face.evaluation.feature_sources import of_checkpoint
from jepa_mpc.face.training.keeper import Keeper
from jepa_mpc.face.training.progress import Stop
from jepa_mpc.face.training.training_run import build_objective, prepare
from jepa_mpc.places import CONFIGS
from jepa_mpc.seeding import generator
from jepa_mpc.trajectories import synthetic
from jepa_mpc.trajectories.episode import OBJECT
from jepa_mpc.world_model.training.health import LatentCollapse

CPU = torch.device("cpu")
SYSTEMS = ["ijepa_small", "hjepa_pyramid_small"]  # they scale pixels differently
SMALL = [
    *(f"++trainings.{name}.change.system={{preset: tiny, image: 28}}" for name in SYSTEMS),
    *(f"trainings.{name}.{option}" for name in SYSTEMS for option in ("max_stride=1", "batch=4", "window=2")),
    *("systems=[ijepa_small]", "seeds=[0]", "validation=0.34", "train=24", "held=12", "device=cpu"),
    *("steps=3", "predictor_steps=2", "ceiling_steps=2", "ceiling.batch=4"),
    *("predictor.window=3", "predictor.max_stride=1", "predictor.batch=2"),
    *("++predictor.probe=8", "++predictor.watch={every: 0, frames: 8}"),
    *("reach.labs=1", "reach.budget=1", "reach.planner.num_samples=4", "reach.planner.num_elites=2"),
    "reach.planner.num_iterations=1",
]


def configured(*overrides):
    with initialize_config_dir(str(CONFIGS), version_base=None):
        return compose("bench_encoders", [*SMALL, *map(str, overrides)])


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(synthetic, "DT_S", 0.24)  # the arm's, so that a world model of the log can play
        return synthetic.synthetic_log(tmp_path_factory.mktemp("log"), episodes=6, image_size=28)


@pytest.fixture(scope="module")
def run(log, renderable, tmp_path_factory):
    """A run that was killed within a pretraining and gone on with, and what was there when it was killed."""
    out = tmp_path_factory.mktemp("runs") / "encoders"
    cfg, saved = configured(f"data={log}", f"out={out}"), Keeper.save

    def killed(keeper, state):
        saved(keeper, state)
        if state.step == 2:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(READERS, "attentive", partial(attentive, steps=3))
        with pytest.MonkeyPatch.context() as kill, pytest.raises(Stopped, match="after 4 of 10 cells"):
            kill.setattr(Keeper, "save", killed)
            bench(cfg)
        before = {path.name: path.stat().st_mtime_ns for path in (out / "cells").iterdir()}
        page = bench(cfg)
    return cfg, out, before, page


@pytest.mark.render
def test_a_killed_run_goes_on_and_leaves_table_and_figure(run):
    cfg, out, before, page = run
    assert "probe-pixels-s0.json" in before and "weights-ijepa_small-trained-s0.json" not in before
    after = {path.name: path.stat().st_mtime_ns for path in (out / "cells").iterdir()}
    assert len(after) == 10 and all(after[name] == time for name, time in before.items())
    report = json.loads((out / "report.json").read_text())
    assert page == (out / "report.md").read_text() and FAILED not in json.dumps(report["cells"])
    assert {line["encoder"] for line in report["summary"]} == {"pixels", "twin", "trained", "supervised"}
    assert report["verdicts"]["ijepa_small"]["hand"]["0"]["beats"] in (True, False)
    assert report["cells"]["predictor-ijepa_small-trained-s0"]["one_step"] > 0
    assert report["cells"]["reach-ijepa_small-twin-s0"]["episodes"] == 1
    assert (out / "encoders.png").stat().st_size > 10_000


@pytest.mark.render
def test_a_pretraining_begins_with_the_weights_of_its_twin_and_leaves_them(run):
    cfg, *_ = run
    twin, trained = (EncoderCell(kind="weights", system=SYSTEMS[0], encoder=one, seed=0) for one in ("twin", "trained"))
    made = pretraining(cfg, trained)
    made.out = str(Path(cfg.out).parent / "elsewhere")
    begun = prepare(made, CPU, stop=Stop()).objective.state_dict()
    fresh, learned = (load_checkpoint(weights_of(cfg, cell))[0] for cell in (twin, trained))
    assert all(torch.equal(fresh[name], value) for name, value in begun.items())
    assert any(not torch.equal(fresh[name], learned[name]) for name in fresh)


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_predictor_sees_the_features_that_the_probes_see(system, log, tmp_path):
    cfg = configured(f"data={log}", f"out={tmp_path}")
    cell = EncoderCell(kind="predictor", system=system, encoder="twin", seed=0)
    weights(cfg, replace(cell, kind="weights"))
    objective = prepare(predictor(cfg, cell), CPU, stop=Stop()).objective.eval()
    frames = torch.randint(256, (3, 3, 28, 28), dtype=torch.uint8, generator=generator(0))
    with torch.no_grad():
        seen = objective.encoder.encoder(objective.preprocess(frames))
    assert torch.allclose(seen, of_checkpoint(weights_of(cfg, cell), device=CPU).trained(frames), atol=1e-5)
    assert not any(weight.requires_grad for weight in objective.encoder.parameters())


@pytest.mark.render
def test_other_settings_make_cells_anew_and_refuse_a_training(run, log):
    cfg, out, *_ = run
    cell = EncoderCell(kind="probe", system="", encoder="pixels", seed=0)
    asked = json.loads(cell.path(out).read_text())["asked"]
    assert kept(cell, out, asked) and kept(cell, out, {**asked, "train": 25}) is None
    with pytest.raises(ValueError, match="was trained with other settings of batch"):
        bench(configured(f"data={log}", f"out={out}", "trainings.ijepa_small.batch=5", "parts=[predictor]"))


def test_a_collapse_is_told_in_the_report_and_the_others_go_on(log, tmp_path, monkeypatch):
    def collapsing(made):
        raise LatentCollapse("the latents collapse")

    monkeypatch.setattr(encoder_trainings, "run_training", collapsing)
    page = bench(configured(f"data={log}", f"out={tmp_path / 'run'}", "parts=[probe]", "readers=[linear]"))
    assert page.count("the latents collapse") == 2 and "random twin" in page


def test_places_are_learned_from_labels_and_only_by_encoder_and_reader(log):
    made = configured(f"data={log}", "out=unused")
    data = encoder_probing.data_of(made, CPU)
    system = build_objective({"_target_": "ijepa", "preset": "tiny", "image": 28}, seed=0, freeze=[])
    batch = data.train.sample(16, 1, generator=generator(0))
    batch[OBJECT] = 2 * batch["proprio"][..., -6:-3]
    known = {"hand": batch["proprio"][:, 0, -6:-3], "object": batch[OBJECT][:, 0]}
    objective = PlaceObjective(system, batch["frames"], known, stream=generator(2))
    trained = {name.split(".")[0] for name, weight in objective.named_parameters() if weight.requires_grad}
    assert trained == {"system", "reader"} and objective.names == ("hand", "object")
    optimiser = torch.optim.Adam([one for one in objective.parameters() if one.requires_grad], lr=3e-3)
    first = float(objective(batch, generator(0)).total.detach())
    for _ in range(40):
        optimiser.zero_grad()
        objective(batch, generator(0)).total.backward()
        optimiser.step()
    assert float(objective(batch, generator(0)).total.detach()) < 0.5 * first
    missed = objective.read(batch["frames"][:, 0])[:, 1] - known["object"]
    assert missed.square().mean() < 0.5 * known["object"].var(dim=0).mean()


def test_cheap_cells_come_first_and_every_cell_after_those_it_needs():
    cells = ordered(["a", "b"], [0, 1], parts=PARTS, reach_seed=0)
    assert [cell.name for cell in cells[:4]] == [
        "probe-pixels-s0",
        "probe-pixels-s1",
        "weights-a-twin-s0",
        "probe-a-twin-s0",
    ]
    assert len(set(cells)) == len(cells) == 2 + 2 * 2 * 7 + 2 * 2
    for place, cell in enumerate(cells):
        assert set(needs(cell)) <= set(cells[:place])
    assert max(cells.index(cell) for cell in cells if (cell.encoder, cell.seed) == ("trained", 0)) < min(
        cells.index(cell) for cell in cells if (cell.encoder, cell.seed) == ("trained", 1)
    )


def scored(errors):
    """Outcomes of one system and seed: (encoder, probe) -> mean error in cm."""
    outcomes = {}
    for encoder in ("pixels", "twin", "trained"):
        cell = EncoderCell(kind="probe", system="" if encoder == "pixels" else "a", encoder=encoder, seed=0)
        rows = [
            {"place": "hand", "probe": probe, "mean_cm": error, "median_cm": error, "r2": 0.5, "r2_alike": None}
            for (one, probe), error in errors.items()
            if one == encoder
        ]
        outcomes[cell] = {"rows": rows}
    return outcomes


ERRORS = {
    ("pixels", "linear"): 10.0, ("twin", "linear"): 8.0, ("trained", "linear"): 7.0,
    ("pixels", "attentive"): 6.0, ("twin", "attentive"): 5.0, ("trained", "attentive"): 4.0,
}  # fmt: skip


def test_an_encoder_must_be_ahead_of_both_controls_with_both_probes():
    rows = rows_of(scored(ERRORS))
    lead = leads(rows, "a", "hand", 0)
    assert lead["linear"] == pytest.approx({"twin": 0.125, "pixels": 0.3})
    assert beats(lead, least=0.05, probes=2) is True
    close = rows_of(scored({**ERRORS, ("trained", "attentive"): 4.9}))
    assert beats(leads(close, "a", "hand", 0), least=0.05, probes=2) is False
    fewer = rows_of(scored({key: error for key, error in ERRORS.items() if key != ("pixels", "linear")}))
    assert beats(leads(fewer, "a", "hand", 0), least=0.05, probes=2) is None
    assert beats({}, least=0.05, probes=2) is None


def test_the_page_shows_what_is_known_so_far():
    outcomes = scored(ERRORS)
    rows = rows_of(outcomes)
    report = {
        "facts": {"command": "c", "commit": "0", "machine": "m"},
        "settings": {"systems": ["a", "b"], "seeds": [0], "least_lead": 0.05},
        "summary": summary(rows),
        "verdicts": verdicts(rows, ["a", "b"], [0], least=0.05, probes=2),
    }
    page = markdown(report, outcomes)
    assert "| a | linear | 7.00 | 8.00 | 10.00 | – | – | – | – |" in page
    assert "| a | hand | yes (+12%) | yes |" in page and "| b | hand | – | – |" in page


def test_a_spread_is_shown_for_several_seeds():
    assert shown(spread_of([1.0, 3.0, None])) == "2.00 ± 1.41" and shown(spread_of([1.0])) == "1.00"
    assert spread_of([None]) is None and shown(None) == "–"


def test_a_budget_of_minutes_is_measured_once(tmp_path):
    asked = []

    def trial():
        asked.append(1)
        return 0.5

    counts = [planned_steps(tmp_path, "a", minutes=2.0, steps=None, trial=trial) for _ in range(2)]
    assert counts == [240, 240] and len(asked) == 1
    assert planned_steps(tmp_path, "a", minutes=2.0, steps=7, trial=trial) == 7
    with pytest.raises(ValueError, match="minutes above 0"):
        planned_steps(tmp_path, "a", minutes=0, steps=None, trial=trial)


def test_time_adds_up_over_interruptions_and_a_kill_is_told(tmp_path, monkeypatch):
    path, clock = tmp_path / "time.json", SimpleNamespace(process_time=partial(next, itertools.count(0, 5)))
    monkeypatch.setattr(training_time, "time", clock)
    with pytest.raises(KeyboardInterrupt), spending(path):
        raise KeyboardInterrupt
    first = json.loads(path.read_text())
    assert first == {"cpu_s": 5.0, "at_least": False, "running": False}
    path.write_text(json.dumps({**first, "running": True}))  # as a kill leaves it
    with spending(path) as spent:
        assert spent() == {"cpu_s": 10.0, "at_least": True}


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("systems=[point_jepa]", "systems"),
        ("parts=[grasp]", "parts"),
        ("readers=[]", "readers must name at least one"),
        ("train=0", "train must be a whole number from 1"),
        ("parts=[reach]", "reaching needs the predictors"),
    ],
)
def test_options_that_no_run_could_use_are_refused(option, words):
    with pytest.raises((UnknownName, ValueError), match=words):
        check(configured(option))


def test_an_option_that_no_training_has_is_told(tmp_path):
    cfg = configured("++trainings.ijepa_small.windw=3", f"out={tmp_path}")
    with pytest.raises(ValueError, match="a training has no option windw"):
        pretraining(cfg, EncoderCell(kind="weights", system="ijepa_small", encoder="trained", seed=0))
