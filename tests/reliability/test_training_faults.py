"""Trainings that are killed, starved, interrupted, doubled, or that collapse: what was saved stays good."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from core.checkpoint import load_checkpoint
from tests.reliability import trainer

HERE, ROOT = Path(__file__).resolve().parent, Path(__file__).resolve().parents[2]
SLOW = pytest.mark.slow


def tell(story: str, folder: Path, *numbers: int) -> str:
    command = [sys.executable, str(HERE / "trainer.py"), story, str(folder), *map(str, numbers)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=1500, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.parametrize("kills, steps", [(3, 30), pytest.param(20, 200, marks=SLOW)])
def test_a_training_that_is_killed_again_and_again_ends_in_the_same_bits(tmp_path, kills, steps):
    assert f"{kills} kills" in tell("killed", tmp_path, kills, steps)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    one, other = (load_checkpoint(folder / "state") for folder in (whole, killed))
    assert one[0].keys() == other[0].keys() and all(
        torch.equal(value, other[0][name]) for name, value in one[0].items()
    )
    assert one[1]["layout"] == other[1]["layout"]
    assert (whole / "metrics.jsonl").read_text() == (killed / "metrics.jsonl").read_text()
    assert not list(killed.glob(".*.tmp"))


@pytest.mark.parametrize("places", [2, pytest.param(10, marks=SLOW)])
def test_a_full_disk_leaves_the_last_state_and_ends_with_a_reason(tmp_path, places):
    told = tell("starved", tmp_path, places)
    assert told.count("could not write") == places and f"{places} of {places}" in told


def started(folder: Path, *more: str) -> subprocess.Popen[str]:
    folder.mkdir(exist_ok=True)
    trainer.configured(folder, "run")  # makes the log
    options = [*trainer.TINY, "fit.steps=100000", f"data={folder / 'log'}", f"out={folder / 'run'}", *more]
    command = [sys.executable, str(ROOT / "experiments/train.py"), *options]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )


def until(holds, seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "nothing came"
        time.sleep(0.02)


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, *[pytest.param(kind, marks=SLOW) for kind in (signal.SIGINT, signal.SIGTERM) * 2]]
)
def test_a_training_that_is_asked_to_end_saves_and_ends(tmp_path, number):
    worker = started(tmp_path)
    until((tmp_path / "run/state/manifest.json").exists)
    asked = time.monotonic()
    worker.send_signal(number)
    output, _ = worker.communicate(timeout=60)
    assert worker.returncode == 0 and "world model:" in output
    assert time.monotonic() - asked <= 30  # 5 s on a machine of one's own
    _, config = load_checkpoint(tmp_path / "run/state")
    last = json.loads((tmp_path / "run/metrics.jsonl").read_text().splitlines()[-1])["step"]
    step = dict(config["layout"]["mapping"])["step"]
    assert last <= step < last + 5
    load_checkpoint(tmp_path / "run/checkpoint")


def test_a_second_training_in_the_same_folder_is_refused_at_once(tmp_path):
    with trainer.only_writer(tmp_path / "run"):
        (tmp_path / "run/.state.tmp").mkdir()
        start = time.process_time()
        with pytest.raises(trainer.Busy, match="another training"):
            trainer.train(trainer.configured(tmp_path, "run"))
        assert time.process_time() - start <= 2
    trainer.train(trainer.configured(tmp_path, "run", "fit.steps=5"))
    assert not (tmp_path / "run/.state.tmp").exists()
    load_checkpoint(tmp_path / "run/state")
