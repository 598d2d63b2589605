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

from jepa_mpc.checkpoint import load_checkpoint
from jepa_mpc.errors import Busy
from jepa_mpc.files import only_writer
from tests.reliability import trainer

ROOT = Path(__file__).resolve().parents[2]
SLOW = pytest.mark.slow


@pytest.mark.parametrize("kills, steps", [(3, 30), pytest.param(20, 200, marks=SLOW)])
def test_a_training_that_is_killed_again_and_again_ends_in_the_same_bits(tmp_path, kills, steps):
    trainer.killed(tmp_path, kills, steps=steps)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    one, other = (load_checkpoint(folder / "state") for folder in (whole, killed))
    assert one[0].keys() == other[0].keys()
    assert all(torch.equal(value, other[0][name]) for name, value in one[0].items())
    assert one[1]["layout"] == other[1]["layout"]
    assert (whole / "metrics.jsonl").read_text() == (killed / "metrics.jsonl").read_text()
    assert not list(killed.glob(".*.tmp"))


@pytest.mark.parametrize("places", [2, pytest.param(10, marks=SLOW)])
def test_a_full_disk_leaves_the_last_state_and_ends_with_a_reason(tmp_path, places):
    assert trainer.starved(tmp_path, places).count("could not write") == places


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
    output, said = worker.communicate(timeout=60)
    assert worker.returncode == 130 and output == "" and "the same command resumes there" in said
    assert time.monotonic() - asked <= 30  # 5 s on a machine of one's own
    _, config = load_checkpoint(tmp_path / "run/state")
    last = json.loads((tmp_path / "run/metrics.jsonl").read_text().splitlines()[-1])["step"]
    step = dict(config["layout"]["mapping"])["step"]
    assert last <= step < last + 5
    load_checkpoint(tmp_path / "run/checkpoint")


def test_a_second_training_in_the_same_folder_is_refused_at_once(tmp_path):
    with only_writer(tmp_path / "run"):
        (tmp_path / "run/.state.tmp").mkdir()
        start = time.process_time()
        with pytest.raises(Busy, match="another training"):
            trainer.train(trainer.configured(tmp_path, "run"))
        assert time.process_time() - start <= 2
    trainer.train(trainer.configured(tmp_path, "run", "fit.steps=5"))
    assert not (tmp_path / "run/.state.tmp").exists()
    load_checkpoint(tmp_path / "run/state")


COMMANDS = {
    "collect": ["episodes=500", "workers=2", "out={folder}/log"],
    "zero_shot_reach": ["labs=40", "workers=2", "baselines=false", "films=false", "out={folder}/reach"],
    "render_rollouts": ["out={folder}/films"],
}


@pytest.mark.slow
@pytest.mark.render
@pytest.mark.parametrize("wait_s", [12, 15, 18, 21, 24])
@pytest.mark.parametrize("name", COMMANDS)
def test_other_commands_end_when_they_are_asked_to_and_leave_no_child(tmp_path, name, wait_s):
    options = [option.format(folder=tmp_path) for option in COMMANDS[name]]
    command = [sys.executable, str(ROOT / "experiments" / f"{name}.py"), *options]
    worker = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, preexec_fn=_heeds_interrupts
    )
    time.sleep(wait_s)
    children = _below(worker.pid)
    asked = time.monotonic()
    worker.send_signal(signal.SIGTERM if wait_s % 2 else signal.SIGINT)
    try:
        _, said = worker.communicate(timeout=60)
    finally:
        worker.kill()
    assert worker.returncode in (0, 130) and "Traceback" not in said, said[-2000:]
    assert time.monotonic() - asked <= 15  # 5 s on a machine of one's own
    until(lambda: not any(map(_runs, children)), seconds=5)
    assert not list(tmp_path.rglob("*.tmp*"))


def _runs(process: int) -> bool:
    """Whether a process still does something: neither gone nor waiting to be buried."""
    told = Path(f"/proc/{process}/stat")
    return told.exists() and told.read_text().rpartition(")")[2].split()[0] != "Z"


def _heeds_interrupts() -> None:
    """A shell that starts this in the background would have SIGINT ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _below(process: int) -> list[int]:
    """Numbers of all processes that descend from one."""
    told = Path(f"/proc/{process}/task/{process}/children")
    direct = [int(word) for word in told.read_text().split()] if told.exists() else []
    return direct + [one for child in direct for one in _below(child)]
