"""The benchmark of object slots: its parts, and one run from recording to table and pictures."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir

from jepa_mpc.envs.pucks import NUM_BODIES
from jepa_mpc.errors import BadCheckpoint
from jepa_mpc.experiments.commands.bench_objects import TRUTH, bench
from jepa_mpc.experiments.evaluation.objects.counterfactuals import ask_simulator
from jepa_mpc.experiments.evaluation.objects.puck_recording import Recording, load_episodes, record
from jepa_mpc.experiments.evaluation.objects.slot_binding import owners_of
from jepa_mpc.experiments.evaluation.objects.slot_logs import TrueSlots, fitted, read_error_m, true_slots
from jepa_mpc.experiments.evaluation.objects.slot_predictors import HAND, MASKS, ByNumber, cut
from jepa_mpc.experiments.evaluation.objects.trials import latent_sizes, markdown
from jepa_mpc.seeding import generator
from jepa_mpc.world_model.dynamics.interventions import counterfactual, without
from jepa_mpc.world_model.parts.predictors.slots import SlotSizes

ROOT = Path(__file__).resolve().parents[2]
TINY = [
    "record.train.episodes=3",
    "record.held.episodes=2",
    "record.held.segmented=1",
    "slots.steps=2",
    "slots.batch=2",
    "predictor.steps=2",
    "predictor.batch=4",
    "predictor.depth=1",
    "seeds=[0]",
    "masks=[objects,none]",
    "judge.cases=1",
    "pixels.steps=1",
    "pixels.batch=2",
    "push.count=1",
    "push.least_m=0.02",
    "push.samples=4",
    "push.elites=2",
    "push.rounds=1",
    "push.budget=2",
    "push.horizon=2",
    "push.execute=1",
]
SMALL = Recording(episodes=8, counts=(2, 3), steps=24, size=16, split="test", segmented=1)
SIZES = SlotSizes(width=16, depth=1, heads=2, mlp_dim=16, history=3)


def configured(*overrides):
    with initialize_config_dir(str(ROOT / "configs"), version_base=None):
        return compose("bench_objects", list(overrides))


@pytest.fixture(scope="module")
def episodes(renderable, tmp_path_factory):
    return load_episodes(tmp_path_factory.mktemp("pucks") / "test.npz", SMALL)


@pytest.fixture(scope="module")
def world():
    return ByNumber(
        SIZES, encoder=TrueSlots(16), mask="objects", hidden=1, numbers=(3, 4), action_m=0.03, stream=generator(0)
    ).world.eval()


@pytest.mark.render
def test_a_recording_is_the_same_whenever_it_is_made_and_others_are_refused(episodes, tmp_path):
    again = record(SMALL)
    assert (again["frames"] == episodes.frames.numpy()).all() and (again["states"] == episodes.states.numpy()).all()
    path = tmp_path / "test.npz"
    load_episodes(path, SMALL)
    with pytest.raises(ValueError, match="remove it or name another folder"):
        load_episodes(path, replace(SMALL, seed=1))


@pytest.mark.render
def test_true_slots_hold_places_that_a_linear_map_reads(episodes):
    logs = true_slots(episodes, TrueSlots(32), SMALL.counts)
    assert logs[2].slots.shape == (8, 24, 3, 32) and logs[3].slots.shape == (8, 24, 4, 32)
    readout = fitted(logs)
    assert max(read_error_m(readout, log) for log in logs.values()) < 0.005


@pytest.mark.render
def test_slots_belong_to_the_bodies_that_are_there(episodes):
    log = true_slots(episodes, TrueSlots(16), (3,))[3]
    assert (log.bodies[:, 0] == HAND).all() and (log.bodies.diff(dim=1) > 0).all()
    row = int(log.episodes[0])
    body = int(log.bodies[0, 2])
    assert torch.equal(log.places_m[0, :, 2], episodes.places_m[row, :, body])
    assert torch.equal(log.met[0, :, 0, 2], episodes.met[row, :, 0, body])


def test_slots_are_given_to_the_nearest_bodies():
    middles = torch.tensor([[[0.0, 0.0], [0.0, 0.2], [0.2, 0.0]]])
    places = torch.zeros(1, 1, NUM_BODIES, 2)
    places[0, 0, 0], places[0, 0, 3] = torch.tensor([0.2, 0.0]), torch.tensor([0.0, 0.2])
    present = torch.tensor([[True, False, False, True, False]])
    assert owners_of(middles[:, None], places, present).tolist() == [[-1, 3, 0]]


def test_the_control_hides_as_many_tokens_and_none_hides_nothing():
    counts = {}
    for name, sampler in MASKS.items():
        masks = sampler(frames=4, objects=3, hidden=1, each="sample")(5, generator(0))
        counts[name] = masks.targets.shape[2]
    assert counts == {"objects": 3, "tokens": 3, "none": 0}


@pytest.mark.render
def test_an_imagined_world_without_a_puck_is_what_its_removal_gives(episodes, world):
    windows = cut(true_slots(episodes, TrueSlots(16), (3,))[3], history=3, horizon=1, every=10)
    fewer = world.imagine(windows.known[:, :, [0, 1, 3]], windows.actions)[:, -1, :3]
    nodes = world.nodes(windows.known, windows.actions)
    removed = counterfactual(world.slots, nodes, without(world.slots, nodes, 2))[:, 0, [0, 1, 3]]
    apart = torch.cdist(fewer, removed).amin(dim=-1)  # slots may be reordered
    assert float(apart.detach().max()) < 1e-4


def test_building_predictors_leaves_the_network_of_true_slots_as_it_is():
    encoder, places = TrueSlots(16), torch.zeros(1, 1, 3, 2)
    before = encoder(places, torch.arange(3))
    ByNumber(SIZES, encoder=encoder, mask="none", hidden=1, numbers=(3,), action_m=0.03, stream=generator(0))
    assert torch.equal(encoder(places, torch.arange(3)), before)


@pytest.mark.render
def test_the_simulator_moves_nothing_else_where_a_far_puck_is_changed(episodes):
    windows = cut(true_slots(episodes, TrueSlots(16), (3,))[3], history=3, horizon=6, every=4)
    cases = ask_simulator(episodes, windows, most=6)
    assert {case.change for case in cases} == {"removed", "moved"}
    others = []
    for case in cases:
        gap = torch.as_tensor(case.after_m).float() - windows.places_m[case.window, -1]
        keep = [slot for slot in range(4) if slot != case.slot]
        if case.role == "far away" and case.change == "removed":
            others.append(float(gap[keep].norm(dim=-1).max()))
    assert others and max(others) < 1e-4


def test_a_state_of_slots_is_about_one_percent_of_the_papers_patches():
    assert latent_sizes(4, 128)["share_of_patches"] == pytest.approx(0.0085, abs=1e-4)


@pytest.fixture(scope="module")
def run(renderable, tmp_path_factory):
    out = tmp_path_factory.mktemp("objects")
    return out, bench(configured(*TINY, f"out={out}"))


@pytest.mark.render
def test_a_run_leaves_tables_pictures_and_checkpoints(run):
    out, result = run
    assert {"train.npz", "held.npz", "report.json", "table.md", "slots.png"} <= {path.name for path in out.iterdir()}
    assert json.loads((out / "report.json").read_text())["rows"][0]["source"] == TRUTH
    assert len(list(out.glob("pushes_*.png"))) == len(result["pushes"]) >= 4
    assert markdown(result) == (out / "table.md").read_text()


@pytest.mark.render
def test_a_second_run_takes_what_is_there_and_refuses_other_settings(run):
    out, first = run
    again = bench(configured(*TINY, f"out={out}"))
    assert [row["scores"] for row in again["rows"]] == [row["scores"] for row in first["rows"]]
    with pytest.raises(BadCheckpoint, match="other settings"):
        bench(configured(*TINY, f"out={out}", "predictor.learning_rate=0.1"))
