"""ACT-JEPA against behaviour cloning: `python experiments/bench_act_jepa.py seeds=[0] out=runs/act_jepa`.

Trains both on the same episodes with the same seeds and evaluates their chunks in held-out labs. Then plays the same
reaching episodes with each policy alone, with a planner that starts from its chunks at an equal number of
evaluations, and with the planner alone. The run folder gets table.md, results.json, a plot and the policies.
"""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import hydra
import torch
import torch._dynamo  # noqa: F401  before the first OpenGL context: loading it later crashes some drivers
from omegaconf import DictConfig, OmegaConf
from tqdm import tqdm

from jepa_mpc.checkpoint import MANIFEST, checkpoint_hash, load_checkpoint
from jepa_mpc.envs.labs import sample_lab
from jepa_mpc.errors import BadCheckpoint, BadEpisode, Busy, UnknownName
from jepa_mpc.experiments.evaluation.action_chunks.chunk_tables import draw, markdown
from jepa_mpc.face.evaluation.chunk_methods import ChunkMethod, ChunkMethods
from jepa_mpc.face.evaluation.lab_episodes import LabJob, play_all
from jepa_mpc.face.planning import PlanSettings
from jepa_mpc.face.training.chunk_policy import ChunkJudge, chunk_objective, encoded_lesson, save_chunks, train_chunks
from jepa_mpc.face.training.journal import note_origin
from jepa_mpc.files import only_writer, write_json, write_text
from jepa_mpc.places import CONFIGS
from jepa_mpc.reporting.record import EpisodeRecord, plain
from jepa_mpc.reporting.summary import compare, summarise
from jepa_mpc.runs import origin
from jepa_mpc.runs.run_folder import claim_run
from jepa_mpc.trajectories.bank import FrameBank, load_bank
from jepa_mpc.world_model.checkpoints.loader import load_world_model
from jepa_mpc.world_model.training.loop import FitSettings, TrainingDiverged

MISTAKES = (
    *(BadCheckpoint, BadEpisode, BrokenProcessPool, Busy, TrainingDiverged, UnknownName),
    *(ValueError, TypeError, OSError),
)
SYSTEMS = {"ACT-JEPA": "act_jepa", "behaviour cloning": "control"}  # name in the table -> option with its parts


def check(cfg: DictConfig) -> None:
    """Refuse invalid options.

    Raises:
        ValueError: With the option and its valid values.
    """
    for name in ("seeds", "episodes", "searches"):
        if not len(cfg[name]):
            raise ValueError(f"{name} must name at least one")
    for name, least in (("held", 1), ("judged", 1), ("batch", 2), ("execute", 1), ("threads", 1), ("workers", 1)):
        if type(cfg[name]) is not int or cfg[name] < least:
            raise ValueError(f"{name} must be a whole number from {least}, got {cfg[name]!r}")
    for search in cfg.searches:
        if len(search) != 2 or min(search) < 1:
            raise ValueError(f"searches are pairs of candidates and rounds, such as [26, 3], got {list(search)}")


def policy_folder(cfg: DictConfig, system: str, seed: int, episodes: int) -> Path:
    """Folder of a trained policy."""
    return Path(str(cfg.out)) / f"{SYSTEMS[system]}_{episodes}_s{seed}" / "checkpoint"


def train(cfg: DictConfig) -> list[dict[str, Any]]:
    """Train every missing system, seed and number of episodes; one row of scores for each."""
    model = load_world_model(cfg.model)
    bank = load_bank(cfg.data, cameras=model.interface.cameras, progress=lambda all_: tqdm(all_, desc="log"))
    rows = []
    for episodes in cfg.episodes:
        for seed in cfg.seeds:
            rows += [train_one(cfg, bank, system, seed=seed, episodes=episodes) for system in SYSTEMS]
    return rows


def train_one(cfg: DictConfig, bank: FrameBank, system: str, *, seed: int, episodes: int) -> dict[str, Any]:
    """Train one policy, or read the scores of an existing one with the same settings."""
    folder = policy_folder(cfg, system, seed, episodes)
    described: dict[str, Any] = OmegaConf.to_container(cfg[SYSTEMS[system]], resolve=True)  # type: ignore[assignment]
    facts = {"data": str(cfg.data), "held": cfg.held, "judged": cfg.judged, "batch": cfg.batch, "fit": dict(cfg.fit)}
    settings = {"system": described, "encoder": checkpoint_hash(cfg.model), **facts}
    if (folder / MANIFEST).exists():
        training = load_checkpoint(folder)[1]["training"]
        if training["settings"] == settings:
            return dict(training["scores"])
    objective = chunk_objective(described, seed=seed, encoder=str(cfg.model))
    keep = Path(str(cfg.out)) / "tokens"
    lesson = encoded_lesson(objective, bank, episodes=episodes, held=cfg.held, encoder=str(cfg.model), keep=keep)
    judge = ChunkJudge(lesson.held, window=objective.decoder.chunk + 1, count=int(cfg.judged))
    start, title = time.process_time(), f"{system}, {episodes} episodes, seed {seed}"
    scores = train_chunks(
        objective, lesson, FitSettings(**cfg.fit), seed=seed, batch=cfg.batch, judge=judge, title=title
    )
    row = {"system": system, "episodes": episodes, "seed": seed, **scores}
    row["cpu_s"] = round(time.process_time() - start, 1)
    save_chunks(folder, objective, lesson, system=described, training={"settings": settings, "scores": row})
    return row


def ways(cfg: DictConfig) -> dict[str, tuple[str, ChunkMethod]]:
    """Every method: its own name -> its name in the table (seeds pooled), and how it plays."""
    searches = {candidates * rounds: _search(cfg, candidates, rounds, std=None) for candidates, rounds in cfg.searches}
    seeded = {candidates * rounds: _search(cfg, candidates, rounds, std=0.25) for candidates, rounds in cfg.searches}
    found = {name: (name, ChunkMethod(search=search)) for name, search in _named("planner alone", searches)}
    for system in SYSTEMS:
        for seed in cfg.seeds:
            folder = policy_folder(cfg, system, seed, cfg.episodes[-1])
            alone = f"{system} alone"
            found[f"{alone} s{seed}"] = (alone, ChunkMethod(policy=folder, execute=cfg.execute))
            for name, search in _named(f"planner seeded by {system}", seeded):
                found[f"{name} s{seed}"] = (name, ChunkMethod(policy=folder, search=search))
    return found


def play(cfg: DictConfig, methods: Mapping[str, tuple[str, ChunkMethod]]) -> dict[str, list[EpisodeRecord]]:
    """Play all methods on the same episodes; records by the name in the table."""
    interface = load_world_model(cfg.model).interface
    given = cfg.play
    any_search = _search(cfg, *cfg.searches[0], std=None)
    players = ChunkMethods(
        checkpoint=Path(str(cfg.model)),
        frozen=None,
        settings=any_search,
        sampling=any_search,
        ways={name: way for name, (_, way) in methods.items()},
    )
    jobs = [
        LabJob(
            lab=sample_lab(index, split=given.split, seed=given.lab_seed, level=given.level),
            index=index,
            split=given.split,
            episodes=given.episodes,
            seed=given.lab_seed,
            budget=given.budget,
            cameras=interface.cameras,
            image_size=interface.image_size,
            methods=players,
            names=players.names(),
        )
        for index in range(given.labs)
    ]
    records: dict[str, list[EpisodeRecord]] = {}
    for result in tqdm(play_all(jobs, workers=cfg.workers), total=len(jobs), unit="lab", desc="reaching"):
        for record in result.records:
            records.setdefault(methods[record.method][0], []).append(record)
    return records


def report(cfg: DictConfig, trained: Sequence[Mapping[str, Any]], records: Mapping[str, list[EpisodeRecord]]) -> None:
    """Write results.json, table.md and the plot."""
    folder = Path(str(cfg.out))
    rows = {name: {**summarise(some), "trainings": _trainings(some)} for name, some in records.items()}
    cloned = {name.replace("behaviour cloning", "ACT-JEPA"): name for name in rows if "behaviour cloning" in name}
    paired = {
        name: compare(_once(records[name]), {other: _once(records[other])})[other] for name, other in cloned.items()
    }
    facts = {
        "command": shlex.join(["python", "experiments/bench_act_jepa.py", *sys.argv[1:]]),
        "commit": origin.commit(),
        "machine": origin.machine(),
        "versions": origin.versions(),
    }
    results = {"facts": facts, "training": list(trained), "reaching": rows, "paired": paired}
    write_json(folder / "results.json", plain(results))
    write_text(folder / "table.md", markdown(trained, rows))
    draw(trained, rows, folder / "act_jepa.png")


def _search(cfg: DictConfig, candidates: int, rounds: int, *, std: float | None) -> PlanSettings:
    arguments = {"num_samples": candidates, "num_elites": max(2, candidates // 5), "num_iterations": rounds}
    if std is not None:
        arguments["initial_std"] = std  # type: ignore[assignment]
    return PlanSettings(planner="cem", arguments=arguments, horizon=cfg.play.horizon, effort=cfg.play.effort)


def _named(title: str, searches: Mapping[int, PlanSettings]) -> list[tuple[str, PlanSettings]]:
    return [(f"{title}, {count}", search) for count, search in searches.items()]


def _trainings(records: Sequence[EpisodeRecord]) -> dict[str, Any]:
    """Share within 5 cm and median final distance of each training run, by the name of its method."""
    own: dict[str, list[EpisodeRecord]] = {}
    for record in records:
        own.setdefault(record.method, []).append(record)
    keys = ("success_5cm", "median_final_distance_m")
    return {name: {key: summarise(some)[key] for key in keys} for name, some in own.items()}


def _once(records: Sequence[EpisodeRecord]) -> list[EpisodeRecord]:
    """The episodes of the first seed: one record for each start and goal."""
    first: dict[Any, EpisodeRecord] = {}
    for record in records:
        first.setdefault(record.key, record)
    return list(first.values())


@hydra.main(version_base=None, config_path=str(CONFIGS), config_name="bench_act_jepa")
def main(cfg: DictConfig) -> None:
    """Train, play, write, and print the path of the table."""
    try:
        check(cfg)
        torch.set_num_threads(int(cfg.threads))
        folder = Path(str(cfg.out))
        claim_run(folder, "bench_act_jepa", left=("tokens",))
        with only_writer(folder):
            note_origin(folder, OmegaConf.to_yaml(cfg, resolve=True))
            trained = train(cfg)
            report(cfg, trained, play(cfg, ways(cfg)))
    except MISTAKES as mistake:
        sys.exit(f"bench_act_jepa: {mistake}")
    print(f"table: {folder / 'table.md'}")
