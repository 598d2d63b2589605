"""Several commands in a row: `jepa-mpc workflow plan=pick out=runs/pick` trains a world model from an empty folder.

A plan lists commands as they are typed after `jepa-mpc`, with `${out}` and `${seed}` filled in. Each runs in a process
of its own, and leaves a note with its core minutes, also where it is stopped. The same command goes on with the step
that was stopped, which resumes by itself. `--help` lists the options.
"""

from __future__ import annotations

import os
import resource
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig, OmegaConf

import jepa_mpc
from jepa_mpc.cli import COMMANDS
from jepa_mpc.errors import UnknownName, choose
from jepa_mpc.face.command_line import INTERRUPTED, Stopped
from jepa_mpc.files import write_json
from jepa_mpc.hangup import HungUp
from jepa_mpc.places import CONFIGS
from jepa_mpc.plain_json import read_json_file
from jepa_mpc.reporting.saving import markdown_table
from jepa_mpc.runs.run_folder import claim_run

PLANS = CONFIGS / "workflows"
RUN = "from jepa_mpc.cli import main; main()"


def steps_of(plan: str, *, out: str, seed: int) -> list[list[str]]:
    """The words of every command of a plan.

    Args:
        plan: A name of `configs/workflows`, or a YAML file.
        out: Folder of all that the steps make.
        seed: Of the trainings.

    Raises:
        UnknownName: If there is no such plan or command.
        ValueError: If the plan has no list of steps.
    """
    known = {path.stem: path for path in PLANS.glob("*.yaml")}
    path = Path(plan) if Path(plan).suffix == ".yaml" else choose(known, plan, "plan")
    found: Any = OmegaConf.merge(OmegaConf.load(path), {"out": out, "seed": seed})
    lines = OmegaConf.to_container(found, resolve=True).get("steps")  # type: ignore[union-attr]
    if not isinstance(lines, list) or not lines or not all(isinstance(line, str) and line.strip() for line in lines):
        raise ValueError(f"{path} needs `steps:`, a list of commands such as: collect labs=20 out=${{out}}/log")
    steps = [shlex.split(line) for line in lines]
    for words in steps:
        choose({name: name for name in COMMANDS if name != "workflow"}, words[0], "command")
    return steps


def work_off(steps: list[list[str]], folder: Path) -> list[float]:
    """Run the steps that are not done; returns the core minutes of all.

    Raises:
        ValueError: If a step of this number was done with other words, or fails.
        Stopped: If it was interrupted.
    """
    minutes = []
    for number, words in enumerate(steps, start=1):
        note = folder / "steps" / f"{number:02d}.json"
        known = read_json_file(note) if note.exists() else {"words": words, "core_minutes": 0.0, "done": False}
        if known["words"] != words:
            raise ValueError(f"step {number} in {folder} was {shlex.join(known['words'])}: choose a new folder")
        if not known["done"]:
            print(f"[{number}/{len(steps)}] {shlex.join(words)}", flush=True)
            before = _children_s()
            status = _run(words)
            known["core_minutes"] += (_children_s() - before) / 60
            known["done"] = status == 0
            note.parent.mkdir(exist_ok=True)
            write_json(note, known)
            where = f"in step {number} of {len(steps)}"
            if status == INTERRUPTED:
                raise Stopped(f"{where}: the same command with out={folder} goes on there")
            if status:
                raise ValueError(f"stopped {where} ({words[0]}, status {status}); the same command goes on there")
        minutes.append(float(known["core_minutes"]))
    return minutes


def _run(words: list[str]) -> int:
    """Run one command; returns its exit status, that of an interrupt if this process is interrupted."""
    paths = [str(Path(jepa_mpc.__file__).resolve().parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    child = subprocess.Popen(
        [sys.executable, "-c", RUN, *words],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        start_new_session=True,  # signals reach this process alone, which passes them on once
    )
    try:
        return child.wait()
    except KeyboardInterrupt as stop:
        os.killpg(child.pid, signal.SIGHUP if isinstance(stop, HungUp) else signal.SIGINT)
        child.wait()
        return INTERRUPTED


def _children_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@hydra.main(version_base=None, config_path=str(CONFIGS), config_name="workflow")
def main(cfg: DictConfig) -> None:
    """Run the plan, and print what each step took."""
    folder = Path(str(cfg.out))
    try:
        if type(cfg.seed) is not int:
            raise ValueError(f"seed must be a whole number, got {cfg.seed!r}")
        steps = steps_of(str(cfg.plan), out=str(cfg.out), seed=cfg.seed)
        if cfg.dry:
            print("\n".join(f"jepa-mpc {shlex.join(words)}" for words in steps))
            return
        claim_run(folder, "workflow", {"plan": str(cfg.plan), "seed": cfg.seed})
        minutes = work_off(steps, folder)
    except (UnknownName, ValueError, OSError) as mistake:
        sys.exit(f"workflow: {' '.join(str(mistake).split())}")
    rows = [[words[0], f"{spent:.1f}"] for words, spent in zip(steps, minutes, strict=True)]
    print(markdown_table(["command", "core minutes"], [*rows, ["all", f"{sum(minutes):.1f}"]]))
