"""Pick, carry and place towards image goals, in labs that no training log contained.

python experiments/zero_shot_pick.py protocol=final object=mixed labs=10

The world model is compared on the same episodes with servo controllers, a static world and a blind agent that share its
perception, a script, random actions and an idle agent. Each finished episode has its own file: the same command
with the same `out=` resumes a stopped run. `--help` lists the options.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import hydra
import torch
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from jepa_mpc.checkpoint import checkpoint_hash, place_of
from jepa_mpc.envs.labs import SPLITS
from jepa_mpc.envs.pick import BUDGETS, PROTOCOLS
from jepa_mpc.envs.things import KINDS
from jepa_mpc.errors import BadCheckpoint, UnknownName, choose
from jepa_mpc.experiments.evaluation.handling.headroom_table import pick_rows
from jepa_mpc.experiments.evaluation.handling.pick_cells import (
    FROM_PICTURES,
    STATED,
    PickCell,
    PickWork,
    agents_of,
    load_cell,
    model_at,
    other_at,
    work_cell,
)
from jepa_mpc.face.command_line import Stopped
from jepa_mpc.face.handling.seeing_agents import FROZEN, NEAR_M, WORLD_MODEL
from jepa_mpc.face.handling.state_agents import Planning
from jepa_mpc.files import write_json
from jepa_mpc.places import CHECKPOINTS, CONFIGS
from jepa_mpc.planners.sampling import Answer
from jepa_mpc.reporting.handling_page import write_handling_page
from jepa_mpc.reporting.record import plain
from jepa_mpc.runs import origin
from jepa_mpc.runs.run_folder import claim_run
from jepa_mpc.runs.worker_pool import in_processes

SHIPPED = {"3": "pick"}
FREE = ("out", "workers", "films", "labs", "episodes", "baselines", "ablate", "true_dynamics", "compare", "hydra")
COUNTS = ("labs", "episodes", "budget", "horizon", "num_samples", "num_iterations", "workers")
OWN = ("protocol", "object", "budget", "split", "level", "lab_seed", "seed")
LEVELS = ("held", "validation", "dev")


def check_options(cfg: DictConfig) -> None:
    """Refuse invalid options.

    Raises:
        UnknownName: If protocol, object, split or number of cameras are unknown.
        ValueError: If a number is out of range, or the level unknown.
    """
    choose(dict.fromkeys(PROTOCOLS), str(cfg.protocol), "protocol")
    choose(dict.fromkeys((*KINDS, "mixed")), str(cfg.object), "object")
    choose(SPLITS, str(cfg.split), "split")
    choose(SHIPPED, str(cfg.cameras), "cameras")
    choose(dict.fromkeys(get_args(Answer)), str(cfg.answer), "answer")
    for name in COUNTS:
        if type(cfg[name]) is not int or cfg[name] < 1:
            raise ValueError(f"{name} must be a whole number from 1, got {cfg[name]!r}")
    if cfg.level not in LEVELS:
        raise ValueError(f"level must be {', '.join(LEVELS)}, got {cfg.level!r}")
    for name in cfg.compare or ():
        if name in (*FROM_PICTURES, *STATED) or not re.fullmatch(r"[\w.,() +-]{1,40}", str(name)):
            raise ValueError(f"compare={{NAME: FOLDER}} needs names of its own in letters and digits, got {name!r}")
    if cfg.protocol not in ("final", "slide") and cfg.budget != sum(BUDGETS):
        raise ValueError(f"protocol={cfg.protocol} has steps of its own ({BUDGETS}): leave budget at {sum(BUDGETS)}")


def checkpoints_of(cfg: DictConfig) -> tuple[Path, Path | None]:
    """Folders of the world model and, if there is one, of the control with a frozen random encoder."""
    model = place_of(str(cfg.checkpoint)) if cfg.checkpoint else CHECKPOINTS / SHIPPED[str(cfg.cameras)]
    return model, place_of(str(cfg.control)) if cfg.control else None


def others_of(cfg: DictConfig) -> dict[str, Path]:
    """Folders of further systems by name.

    Raises:
        BadCheckpoint: If one cannot be read, or cannot act here.
    """
    others = {str(name): place_of(str(folder)) for name, folder in (cfg.compare or {}).items()}
    for folder in others.values():
        other_at(folder)
    return others


def works_of(cfg: DictConfig) -> list[PickWork]:
    """Every requested episode: all agents in one lab, then the next lab.

    Raises:
        BadCheckpoint: If a checkpoint cannot be read.
    """
    model, control = checkpoints_of(cfg)
    planning = Planning(
        horizon=cfg.horizon, num_samples=cfg.num_samples, num_iterations=cfg.num_iterations, answer=cfg.answer
    )
    asked = {"frozen": control is not None, "ablations": cfg.ablate, "true_dynamics": cfg.true_dynamics}
    others = others_of(cfg)
    names = [*(agents_of(**asked) if cfg.baselines else [WORLD_MODEL]), *others]
    marks = {name: checkpoint_hash(folder) for name, folder in others.items()}
    options: Any = {name: cfg[name] for name in OWN}
    works = []
    for lab in range(cfg.labs):
        for agent in names:
            seen_by = others.get(agent) or (control if agent == FROZEN and control is not None else model)
            mark = model_at(seen_by).fingerprint if agent in FROM_PICTURES else marks.get(agent, "")
            for episode in range(cfg.episodes):
                cell = PickCell(agent=agent, lab=lab, episode=episode, planning=planning, fingerprint=mark, **options)
                filmed = cfg.films and agent == WORLD_MODEL and episode == 0
                film = Path(str(cfg.out)) / "videos" / f"{cell.place().name}.mp4" if filmed else None
                works.append(PickWork(cell=cell, folder=Path(str(cfg.out)), checkpoint=seen_by, film=film))
    return works


def play(works: Sequence[PickWork], folder: Path, *, workers: int) -> None:
    """Play the episodes that are missing.

    Raises:
        Stopped: If it is interrupted; the episodes that were finished are kept.
    """
    missing = [work for work in works if load_cell(work.cell, folder) is None]
    with tqdm(total=len(works), initial=len(works) - len(missing), unit="episode", desc="picking") as bar:
        try:
            for outcome in in_processes(work_cell, missing, workers=workers):
                bar.set_postfix_str(outcome["cell"]["agent"])
                bar.update()
        except KeyboardInterrupt as stop:
            raise Stopped(f"after {bar.n} of {len(works)} episodes: run the same command to resume") from stop


def report_of(cfg: DictConfig, works: Sequence[PickWork]) -> dict[str, Any]:
    """The results of the run, and its settings."""
    played: dict[str, list[Mapping[str, Any]]] = {}
    for work in works:
        outcome = load_cell(work.cell, work.folder)
        if outcome is not None:
            played.setdefault(work.cell.agent, []).append(outcome)
    rows, leads = pick_rows(played, best=WORLD_MODEL)
    facts = {
        "settings": OmegaConf.to_container(cfg), "commit": origin.commit(), "machine": origin.machine(),
        "checkpoint": model_at(checkpoints_of(cfg)[0]).fingerprint,
    }  # fmt: skip
    summary = rows.pop(WORLD_MODEL)
    return {"protocol": facts, "summary": summary, "baselines": rows, "leads": leads}


def write_page(report: Mapping[str, Any], works: Sequence[PickWork], folder: Path) -> None:
    """`report.html`, from the episodes of the world model."""
    own = [work for work in works if work.cell.agent == WORLD_MODEL]
    films = {(work.cell.lab, work.cell.episode): str(work.film.relative_to(folder)) for work in own if work.film}
    episodes = [outcome for work in own if (outcome := load_cell(work.cell, folder)) is not None]
    write_handling_page(report, episodes, folder, method=WORLD_MODEL, films=films)


def print_table(report: Mapping[str, Any], title: str) -> None:
    """The result as a table on the terminal."""
    table = Table(
        title=title, caption="with the 95 % interval of the last; CPU seconds per episode", padding=(0, 1, 0, 0)
    )
    for column in ("method", "runs", "grasp", "reach", "place", "95 %", "touched", "closed", "lifted", "kept", "CPU s"):
        table.add_column(column, justify="left" if column == "method" else "right", no_wrap=True)
    for name, row in {WORLD_MODEL: report["summary"], **report["baselines"]}.items():
        low, high = row["wilson_95"]["place"]
        rates = [f"{row[rate]:.0%}" for rate in ("grasp", "reach_with_object", "place")]
        grip = [f"{row['grip'][part]:.0%}" for part in ("touched", "closed", "lifted", "kept")]
        table.add_row(name, str(row["episodes"]), *rates, f"{low:.0%} - {high:.0%}", *grip, f"{row['cpu_s']:.1f}")
    Console().print(table)


@hydra.main(version_base=None, config_path=str(CONFIGS), config_name="zero_shot_pick")
def main(cfg: DictConfig) -> None:
    """Play the missing episodes, evaluate, write, and print the paths."""
    torch.set_num_threads(1)
    folder = Path(str(cfg.out))
    try:
        check_options(cfg)
        works = works_of(cfg)
        settings: Any = OmegaConf.to_container(cfg, resolve=True)
        kept = {name: value for name, value in settings.items() if name not in FREE}
        claim_run(folder, "zero_shot_pick", {**kept, "weights": works[0].cell.fingerprint, "near_m": NEAR_M})
        play(works, folder, workers=int(cfg.workers))
        report = plain(report_of(cfg, works))
        write_json(folder / "report.json", report)
        write_page(report, works, folder)
    except (BadCheckpoint, UnknownName, ValueError, OSError) as error:
        sys.exit(f"zero_shot_pick: {error}")
    print_table(report, f"Picking to image goals, protocol '{cfg.protocol}', split '{cfg.split}', level '{cfg.level}'")
    print(f"report and videos: {folder}")
