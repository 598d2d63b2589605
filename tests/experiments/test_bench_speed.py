"""bench_speed.py: the plain rollout is the published one, and the tables are written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir

from jepa_mpc.errors import UnknownName
from jepa_mpc.experiments.commands.bench_speed import bench
from jepa_mpc.experiments.evaluation.throughput.control_loop import drive, make_agent
from jepa_mpc.experiments.evaluation.throughput.published_rollout import plain
from jepa_mpc.experiments.evaluation.throughput.rollout_times import Sizes, predictors
from jepa_mpc.seeding import generator
from jepa_mpc.types import Context
from jepa_mpc.world_model.dynamics.learned import LearnedDynamics

ROOT = Path(__file__).resolve().parents[2]
TINY = ["preset=tiny", "samples=31", "rounds=1", "iterations=1", "device=cpu"]


def config(*options: str):
    with initialize_config_dir(config_dir=str(ROOT / "configs"), version_base=None):
        return compose("bench_speed", overrides=list(options))


@pytest.mark.parametrize("frames", [1, 2, 3, 5])
def test_the_published_window_equals_the_plain_rollout(frames: int) -> None:
    sizes = Sizes(preset="tiny", samples=4, iterations=1, horizon=6, window=3, contexts=(frames,), rounds=1, seed=0)
    predictor, draw = predictors(sizes)["published"], generator(0, frames)
    latents, actions = torch.randn(2, frames, 1, 16, generator=draw), torch.randn(2, frames - 1, 10, generator=draw)
    plans = torch.randn(2, 4, 6, 10, generator=draw)
    known = Context(latents=latents, actions=actions)
    imagined = LearnedDynamics(predictor, max_context=frames).rollout(known, plans).latents
    torch.testing.assert_close(imagined, plain(predictor)(latents, actions, plans), atol=1e-5, rtol=1e-5)
    with pytest.raises(ValueError, match="published form"):
        plain(predictors(sizes)["own"])


def test_it_writes_what_it_measured(tmp_path: Path) -> None:
    report = bench(config(*TINY, f"out={tmp_path}", "contexts=[2]"))
    assert json.loads((tmp_path / "speed.json").read_text())["rows"] == report["rows"]
    rows = {row["variant"]: row for row in report["rows"]}
    assert len(rows) == 7 and all(row["ms"] > 0 for row in rows.values())
    assert rows["published 32"]["distance"] < 1e-5 < rows["published 16"]["distance"] < 0.1
    assert rows["own 32"]["gflop"] < rows["published 32"]["gflop"] < rows["plain 32"]["gflop"]


@pytest.mark.parametrize("planning", ["sync", "async"])
def test_the_loop_keeps_count_of_its_periods(planning: str) -> None:
    figures = drive(planning, count=4, period_s=0.05, seed=0)
    assert figures["periods"] == 4 and 0 <= figures["missed"] <= 4 and figures["p99 cycle ms"] > 0
    assert make_agent(0)[1] == figures["weights"] <= 1_000_000
    with pytest.raises(ValueError, match="sync"):
        drive("later", count=1, period_s=0.05, seed=0)


def test_the_loop_is_a_benchmark_of_its_own(tmp_path: Path) -> None:
    report = bench(config("what=loop", "beats=3", "planning=[sync]", "period_s=0.02", f"out={tmp_path}"))
    assert json.loads((tmp_path / "loop.json").read_text())["rows"] == report["rows"] and len(report["rows"]) == 1


def test_worlds_side_by_side_get_the_plans_that_they_get_alone(tmp_path: Path) -> None:
    rows = bench(config("what=searches", "worlds=3", "rounds=1", "samples=72", f"out={tmp_path}"))["rows"]
    assert len(rows) == 9 and all(row["largest gap"] < 1e-5 for row in rows if "worlds" in row)
    assert all(row["ms per round"] > 0 for row in rows if "ms per round" in row)


def test_true_dynamics_run_beside_a_plain_rollout(tmp_path: Path) -> None:
    rows = bench(config("what=simulator", "tasks=[cart-pole-v1]", "plans=[4]", "rounds=1", f"out={tmp_path}"))["rows"]
    assert rows[0]["ours k steps/s"] > 0 and rows[0]["plain k steps/s"] > 0


def test_an_unknown_benchmark_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match="rollouts"):
        bench(config("what=walks", f"out={tmp_path}"))
