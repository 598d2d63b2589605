"""Videos of planners side by side: `python experiments/render_rollouts.py task=reach planners=[cem_short,slope]`.

Each planner plays the same episode, in the task's simulator or in a learned world (`dynamics=learned`, reach only).
The video shows the goal image, the camera image with the predicted path, and the energies over time. It is written
atomically. `--help` lists the options.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import hydra
import torch
import torch._dynamo  # noqa: F401  before the first OpenGL context: loading it later crashes some drivers
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from tqdm import tqdm

from jepa_mpc.errors import BadCheckpoint, MissingPackage, UnknownName
from jepa_mpc.experiments.evaluation.planners.cell_player import task_at
from jepa_mpc.experiments.evaluation.planners.cells import Cell
from jepa_mpc.experiments.evaluation.planners.planner_films import COLOURS, Take, compose, goal_picture, take
from jepa_mpc.experiments.evaluation.planners.study import study_of
from jepa_mpc.files import write_json
from jepa_mpc.places import CHECKPOINTS, CONFIGS
from jepa_mpc.reporting.record import plain
from jepa_mpc.reporting.video import save_gif, save_picture, save_video
from jepa_mpc.runs import origin
from jepa_mpc.runs.run_folder import claim_folder, refuse_strangers

SHIPPED = CHECKPOINTS / "reach"
MISTAKES = (BadCheckpoint, MissingPackage, UnknownName, ValueError, OSError)
FORMATS = {"mp4": ("mp4",), "gif": ("gif",), "both": ("mp4", "gif")}
NOT_PLAYED = {"reference": None, "mode": "closed", "seeds": 1, "workers": 1, "shards": 1, "shard": 0}
WORLDS = {"simulator": "the simulator", "warp": "MuJoCo Warp", "learned": "the learned world"}


def cells_of(options: dict[str, Any]) -> tuple[list[Cell], Path | None]:
    """The episode of each planner, and the learned world model if there is one.

    Raises:
        UnknownName: If the task or a planner is unknown.
        ValueError: If an option is invalid or a planner cannot play the task.
    """
    for name, least in (("start", 0), ("start_seed", 0), ("seed", 0), ("size", 64)):
        if type(options[name]) is not int or options[name] < least:
            raise ValueError(f"{name} must be a whole number from {least}, got {options[name]!r}")
    if options["format"] not in FORMATS:
        raise ValueError(f"format must be one of {', '.join(FORMATS)}; got {options['format']!r}")
    asked = {
        **options,
        **NOT_PLAYED,
        "budgets": [options["budget"]],
        "tasks": [options["task"]],
        "starts": options["start"] + 1,
    }
    study = study_of(asked, configs=CONFIGS, shipped=SHIPPED)
    if study.left_out:
        raise ValueError("; ".join(study.left_out))
    chosen = [cell for cell in study.cells if not cell.baseline and cell.start == options["start"]]
    return [Cell(**{**vars(cell), "seed": options["seed"]}) for cell in chosen], study.checkpoint


def render(cfg: DictConfig) -> Path:
    """Play, record and write; returns the folder."""
    torch.set_num_threads(1)
    options: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True)  # type: ignore[assignment]
    chosen, checkpoint = cells_of(options)
    folder = Path(str(cfg.out))
    refuse_strangers(folder, "videos of render_rollouts", lambda name: name.endswith((".mp4", ".gif")))
    claim_folder(folder)
    takes = []
    with tqdm(total=sum(cell.steps for cell in chosen), unit="step", desc="playing") as bar:
        for number, cell in enumerate(chosen):
            bar.set_postfix_str(cell.planner)
            colour = COLOURS[number % len(COLOURS)]
            takes.append(take(cell, checkpoint, camera=cfg.camera, size=cfg.size, colour=colour, moved=bar.update))
    first, dt_s = chosen[0], task_at(chosen[0].task, None, robot=chosen[0].robot).dt_s
    goal = goal_picture(first, camera=cfg.camera, size=cfg.size)
    frames = compose(takes, goal, height=cfg.size, dt_s=dt_s, world=WORLDS[cfg.dynamics])
    fps = cfg.fps or min(30.0, 1 / dt_s)
    world = f"{cfg.dynamics}-{first.world[:8]}" if first.world else str(cfg.dynamics)
    stem = f"{first.task}_{world}_start{cfg.start}"
    writers = {"mp4": save_video, "gif": save_gif}
    for kind in FORMATS[cfg.format]:
        writers[kind](frames, folder / f"{stem}.{kind}", fps=fps)
    save_picture(frames[len(frames) // 3], folder / f"{stem}.png")
    write_json(folder / f"{stem}.json", plain(notes(takes, chosen, options)))
    return folder / stem


def notes(takes: list[Take], chosen: list[Cell], options: dict[str, Any]) -> dict[str, Any]:
    """The notes beside a video, with all that is needed to make it again."""
    played = {
        each.name: {
            "arguments": dict(cell.arguments),
            "horizon": cell.horizon,
            "evaluations": each.evaluations,
            "reached": each.reached,
            "broken": each.broken,
            "energies": [energy if math.isfinite(energy) else None for energy in each.energies],
            "planned": each.planned,
        }
        for each, cell in zip(takes, chosen, strict=True)
    }
    return {"settings": options, "commit": origin.commit(), "versions": origin.versions(), "planners": played}


@hydra.main(version_base=None, config_path=str(CONFIGS), config_name="render_rollouts")
def main(cfg: DictConfig) -> None:
    """Make the video and print its path."""
    try:
        made = render(cfg)
    except MISTAKES as error:
        sys.exit(f"render_rollouts: {error}")
    Console().print(f"video, poster and notes: {made}.*", soft_wrap=True)
