"""The flow benchmark: recorded pairs, scores, and one run from labs to table and picture."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from jepa_mpc.errors import BadCheckpoint
from jepa_mpc.experiments.commands.bench_flow import bench, show
from jepa_mpc.experiments.evaluation.optical_flow.flow_figures import choose_pairs, colours
from jepa_mpc.experiments.evaluation.optical_flow.flow_scores import judge
from jepa_mpc.experiments.evaluation.optical_flow.frame_pairs import (
    CAMERAS,
    FIXED,
    MOVED,
    FlowPairs,
    FlowRecording,
    load_pairs,
)
from jepa_mpc.face.training.pretrained import begin_with_encoder, published_encoder
from jepa_mpc.seeding import generator
from jepa_mpc.world_model.checkpoints.assembly import assemble

ROOT = Path(__file__).resolve().parents[2]
TINY = [
    "fit.steps=2",
    "fit.evaluate_every=1",
    "batch=2",
    "image_size=32",
    "shown=2",
    "pairs.train.labs=1",
    "pairs.train.pairs=2",
    "pairs.held.labs=1",
    "pairs.held.pairs=2",
]
SMALL = FlowRecording(labs=range(2), pairs=2, size=32, split="train")


def configured(name, *overrides):
    with initialize_config_dir(str(ROOT / "configs"), version_base=None):
        return compose(name, list(overrides))


def made_up(count=4, size=8):
    """Pairs in which a square moves by (3, 4) and, with a moved camera, all else by (0, 1)."""
    camera = torch.arange(count) % 2
    flow = torch.zeros(count, 2, size, size)
    flow[:, 1] = camera[:, None, None].float()
    flow[..., :2, :2] = torch.tensor([3.0, 4.0])[:, None, None]
    moving = torch.zeros(count, 1, size, size, dtype=torch.bool)
    moving[..., :2, :2] = True
    return FlowPairs(
        frames=torch.zeros(count, 2, 3, size, size, dtype=torch.uint8),
        flow=flow,
        valid=torch.ones_like(moving),
        moving=moving,
        lab=torch.zeros(count, dtype=torch.int64),
        camera=camera,
    )


def test_the_zero_flow_has_the_ratio_one_and_the_exact_flow_zero():
    pairs = made_up()
    nothing, exact = judge(torch.zeros_like(pairs.flow), pairs), judge(pairs.flow, pairs)
    assert {row["ratio"] for row in nothing.values()} == {row["ratio_moving"] for row in nothing.values()} == {1.0}
    assert {row["error_px"] for row in exact.values()} == {0.0}


def test_moving_pixels_and_kinds_of_camera_are_judged_apart():
    pairs = made_up()
    answer = torch.where(pairs.moving, pairs.flow / 2, pairs.flow + 1)
    scores = judge(answer, pairs)
    assert scores["all"]["ratio_moving"] == pytest.approx(0.5)
    assert scores["all"]["still_px"] == pytest.approx(2**0.5)
    assert scores[FIXED]["zero_px"] == pytest.approx(5 / 16) and scores[MOVED]["zero_px"] == pytest.approx(20 / 16)


def test_hidden_pixels_do_not_count():
    pairs = made_up()
    seen = torch.ones_like(pairs.valid)
    seen[..., 7, 7] = False
    answer = pairs.flow.clone()
    answer[..., 7, 7] = 100
    assert judge(answer, replace(pairs, valid=seen))["all"]["error_px"] == 0


def test_no_motion_is_white_and_opposite_motions_have_opposite_hues():
    flow = np.zeros((2, 1, 3))
    flow[0, 0] = [0, 2, -2]
    white, right, left = colours(flow, 2.0)[0]
    assert np.allclose(white, 1) and np.allclose(right, [1, 0, 0]) and np.allclose(left, [0, 1, 1])


def test_the_pairs_shown_take_the_kinds_of_camera_by_turns():
    shown = choose_pairs(made_up(12), 4)
    assert [number % 2 for number in shown] == [0, 1, 0, 1] and len(set(shown)) == 4


@pytest.fixture(scope="module")
def recorded(renderable, tmp_path_factory):
    return load_pairs(tmp_path_factory.mktemp("pairs") / "pairs.npz", SMALL)


@pytest.mark.render
def test_with_a_fixed_camera_only_things_move(recorded):
    fixed = recorded.camera == CAMERAS.index(FIXED)
    sizes = recorded.flow.norm(dim=1, keepdim=True)
    assert sizes[fixed][~recorded.moving[fixed]].max() < 0.3
    assert sizes[~fixed].median() > 0.3 and recorded.moving.any()
    assert recorded.frames.shape == (4, 2, 3, 32, 32) and recorded.lab.tolist() == [0, 0, 1, 1]


@pytest.mark.render
def test_a_recording_is_the_same_whenever_it_is_made(recorded, tmp_path):
    again = load_pairs(tmp_path / "pairs.npz", SMALL)
    assert torch.equal(again.frames, recorded.frames) and torch.equal(again.flow, recorded.flow)
    with pytest.raises(ValueError, match="remove it or name another folder"):
        load_pairs(tmp_path / "pairs.npz", replace(SMALL, size=48))


@pytest.mark.render
def test_training_sees_bare_frames(recorded):
    assert set(recorded.sample(3, generator(0))) == {"frames"}


@pytest.fixture(scope="module")
def run(renderable, tmp_path_factory):
    out = tmp_path_factory.mktemp("flow")
    return out, bench(configured("bench_flow", *TINY, f"out={out}"))


@pytest.mark.render
def test_a_run_leaves_scores_checkpoint_and_picture(run, capsys):
    out, result = run
    assert {path.name for path in out.iterdir()} == {
        "run.json", "train.npz", "held.npz", "seed_0", "flow.json", "flow.png"
    }  # fmt: skip
    kept = json.loads((out / "flow.json").read_text())
    assert kept["runs"][0]["scores"]["all"]["zero_px"] > 0 and len(kept["runs"][0]["curve"]) == 2
    show(result["summary"])
    assert "moved" in capsys.readouterr().out


@pytest.mark.render
def test_a_second_call_takes_what_is_there(run):
    out, first = run
    again = bench(configured("bench_flow", *TINY, f"out={out}"))
    assert again["runs"] == first["runs"]
    with pytest.raises(BadCheckpoint, match="other settings"):
        bench(configured("bench_flow", *TINY, f"out={out}", "fit.learning_rate=0.1"))


@pytest.mark.render
def test_its_encoder_carries_a_world_model(run):
    out, _ = run
    source = str(out / "seed_0" / "checkpoint")
    system = configured("train", "system=vjepa2_ac_mc_jepa").system
    objective = assemble(OmegaConf.to_container(system), generator=generator(1))
    begin_with_encoder(objective, source)
    frames = torch.randint(0, 256, (2, 3, 3, 64, 64), dtype=torch.uint8, generator=generator(2))
    pixels = objective.preprocess(frames[:, 0])
    assert torch.equal(objective.encoder.encoder(pixels), published_encoder(source)(pixels))
    assert objective.encode(frames).shape == (2, 3, 64, 96)
    batch = {"frames": frames, "actions": torch.zeros(2, 2, 7), "proprio": torch.zeros(2, 3, 14)}
    assert objective(batch, generator(3)).total.isfinite()
    assert not any(weight.requires_grad for weight in objective.encoder.parameters())
