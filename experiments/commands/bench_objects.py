"""Causal-JEPA with several objects: `python experiments/bench_objects.py out=runs/objects "seeds=[0,1,2]"`.

Records pucks that a hand pushes; learns slots from the images and compares them with the segmentation; trains
predictors with whole objects masked, with as many random tokens masked, and without a mask; measures predictions and
influences with more pucks than in training; compares counterfactuals (a puck removed or moved) with the simulator;
and pushes pucks to goal images, beside LeWorldModel and an idle agent. Writes recordings, checkpoints, report.json,
table.md and figures, and reuses existing ones.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import hydra
import torch
import torch._dynamo  # noqa: F401  before the first OpenGL context: the other order can crash the first optimiser
from omegaconf import DictConfig, OmegaConf

from jepa_mpc.errors import BadCheckpoint, MissingPackage, UnknownName
from jepa_mpc.experiments.evaluation.objects.object_figures import draw_scores, draw_slots
from jepa_mpc.experiments.evaluation.objects.puck_pushing import Mind, PushSearch, choose_pushes
from jepa_mpc.experiments.evaluation.objects.puck_recording import Episodes, Recording, load_episodes
from jepa_mpc.experiments.evaluation.objects.slot_binding import (
    SlotLesson,
    agreement,
    attended,
    found,
    owners_of,
    placed,
    trained_slots,
)
from jepa_mpc.experiments.evaluation.objects.slot_logs import SlotLog, TrueSlots, fitted, made, read_error_m, true_slots
from jepa_mpc.experiments.evaluation.objects.slot_predictors import PredictorLesson, SlotWindows, cut, judge, trained
from jepa_mpc.experiments.evaluation.objects.trials import (
    IDLE,
    TrialSource,
    ask,
    latent_sizes,
    markdown,
    mind_of,
    mind_of_pixels,
    push_all,
    slug,
    summary,
)
from jepa_mpc.experiments.evaluation.objects.vector_baseline import trained_pixels
from jepa_mpc.files import write_json, write_text
from jepa_mpc.places import CONFIGS
from jepa_mpc.reporting.record import plain
from jepa_mpc.runs import origin
from jepa_mpc.runs.run_folder import claim_run
from jepa_mpc.world_model.parts.objectives.slot_features import SlotFeatureObjective
from jepa_mpc.world_model.parts.predictors.object_world import ObjectWorld
from jepa_mpc.world_model.parts.predictors.slots import SlotSizes
from jepa_mpc.world_model.training.loop import FitSettings, TrainingDiverged

MISTAKES = (BadCheckpoint, MissingPackage, TrainingDiverged, UnknownName, ValueError, OSError)
TRUTH, PICTURES = "simulator truth", "pictures"
SHOWN = 8  # frames of a video in the figure of slots


def recorded(cfg: DictConfig, split: str) -> Episodes:
    """The training episodes ("train") or the held-out ones ("held")."""
    part = cfg.record[split]
    recording = Recording(
        episodes=int(part.episodes),
        counts=tuple(part.counts),
        steps=int(cfg.record.steps),
        size=int(cfg.record.size),
        split=split,
        segmented=int(part.segmented),
    )
    return load_episodes(Path(cfg.out) / f"{split}.npz", recording)


def settings(part: DictConfig) -> FitSettings:
    """The training settings of a part."""
    return FitSettings(steps=int(part.steps), learning_rate=float(part.learning_rate), weight_decay=1e-3, warmup=0.05)


def slot_lesson(cfg: DictConfig) -> SlotLesson:
    """The settings of the slot training."""
    given = cfg.slots
    return SlotLesson(
        image=int(cfg.record.size),
        num_slots=int(given.num_slots),
        slot_dim=int(given.slot_dim),
        decoder=tuple(given.decoder),
        fit=settings(given),
        batch=int(given.batch),
    )


def truth(cfg: DictConfig, train: Episodes, held: Episodes) -> TrialSource:
    """Slots from simulator state."""
    encoder = TrueSlots(int(cfg.slots.slot_dim))
    train_logs = true_slots(train, encoder, tuple(cfg.record.train.counts))
    held_logs = true_slots(held, encoder, tuple(cfg.record.held.counts))
    return TrialSource(encoder=encoder, train=train_logs, held=held_logs, readout=fitted(train_logs))


def pictures(objective: SlotFeatureObjective, cfg: DictConfig, train: Episodes, held: Episodes) -> TrialSource:
    """Slots learned from images; the body that each one follows is used for evaluation only."""
    encoder = placed(objective)

    def logs(episodes: Episodes, counts: tuple[int, ...]) -> dict[int, SlotLog]:
        slots, middles = found(encoder, objective.preprocess, episodes.frames)
        bodies = owners_of(middles, episodes.places_m, episodes.present)
        rows = {count: episodes.counted(count) for count in counts}
        return {count: made(episodes, at, bodies[at], slots=slots[at]) for count, at in rows.items()}

    train_logs, held_logs = logs(train, tuple(cfg.record.train.counts)), logs(held, tuple(cfg.record.held.counts))
    return TrialSource(encoder=encoder, train=train_logs, held=held_logs, readout=fitted(train_logs))


def measured_slots(cfg: DictConfig, train: Episodes, held: Episodes) -> tuple[SlotFeatureObjective, dict[str, Any]]:
    """The slots, and their agreement with the segmentation of the held-out episodes."""
    objective, seconds = trained_slots(Path(cfg.out) / "slots", slot_lesson(cfg), train)
    times, table = held.owners.shape[1], {}
    for count in cfg.record.held.counts:
        rows = held.counted(count)
        masks = attended(objective, held.frames[rows, :times].flatten(0, 1))
        table[str(count)] = agreement(masks, held.owners[rows].flatten(0, 1))
    shown = torch.stack([held.counted(count)[0] for count in cfg.record.held.counts])
    frames = held.frames[shown, :SHOWN]
    masks = attended(objective, frames.flatten(0, 1)).unflatten(0, frames.shape[:2])
    draw_slots(frames, masks, Path(cfg.out) / "slots.png")
    read_m = readable_m(objective, held, times)
    return objective, {"agreement": table, "read_error_mm": 1000 * read_m, "cpu_s": seconds}


def readable_m(objective: SlotFeatureObjective, held: Episodes, times: int) -> float:
    """Error of positions read out from slots: fitted on every second episode, evaluated on the others."""
    slots, middles = found(placed(objective), objective.preprocess, held.frames[:, :times])
    bodies = owners_of(middles, held.places_m[:, :times], held.present)
    short = held.first(times)
    sides = [torch.arange(side, len(held), 2) for side in range(2)]
    fit_on, asked = (made(short, rows, bodies[rows], slots=slots[rows]) for rows in sides)
    return read_error_m(fitted({0: fit_on}), asked)


def predictors(cfg: DictConfig, name: str, source: TrialSource) -> dict[tuple[str, int], tuple[ObjectWorld, float]]:
    """Every mask and seed: loaded if it exists, else trained."""
    given = cfg.predictor
    sizes = SlotSizes(
        width=int(cfg.slots.slot_dim),
        depth=int(given.depth),
        heads=int(given.heads),
        mlp_dim=int(given.mlp_dim),
        history=int(given.history),
    )
    lesson = PredictorLesson(
        sizes=sizes, fit=settings(given), batch=int(given.batch), hidden=int(given.hidden), source=name
    )
    place = Path(cfg.out) / name.replace(" ", "_")
    return {
        (mask, seed): trained(
            place / f"{mask}_s{seed}", lesson, source.train, mask=mask, seed=seed, encoder=source.encoder
        )
        for seed in map(int, cfg.seeds[: int(cfg.slots.seeds)] if name == PICTURES else cfg.seeds)
        for mask in cfg.masks
    }


def scored(cfg: DictConfig, name: str, source: TrialSource, worlds: Any) -> list[dict[str, Any]]:
    """A row for every mask, seed and number of pucks."""
    rows = []
    for (mask, seed), (world, seconds) in worlds.items():
        for count, log in source.held.items():
            scores = judge(world, windows_of(cfg, log), source.readout)
            rows.append(
                {"source": name, "mask": mask, "seed": seed, "pucks": count, "cpu_s": seconds, "scores": scores}
            )
    return rows


def windows_of(cfg: DictConfig, log: SlotLog) -> SlotWindows:
    """The windows that predictors are evaluated on."""
    given = cfg.judge
    return cut(log, history=int(cfg.predictor.history), horizon=int(given.horizon), every=int(given.every))


def pushes(
    cfg: DictConfig, train: Episodes, held: Episodes, sources: Mapping[str, TrialSource], worlds: Mapping[str, Any]
) -> dict[str, Any]:
    """The same pushes with every source and mask of the first seed, with LeWorldModel, and with an idle agent."""
    given, history, size = cfg.push, int(cfg.predictor.history), int(cfg.record.size)
    count, ahead = int(given.count), int(given.ahead)
    tasks = choose_pushes(
        held, pucks=int(given.pucks), count=count, history=history, ahead=ahead, least_m=float(given.least_m)
    )
    names = ("samples", "rounds", "elites", "horizon", "execute", "budget")
    search = PushSearch(**{name: int(given[name]) for name in names})
    minds: dict[str, Mind | None] = {IDLE: None}
    for name, source in sources.items():
        for mask in cfg.masks:
            world = worlds[name][mask, int(cfg.seeds[0])][0]
            minds[f"{name}, {mask} hidden"] = mind_of(source, world, held, tasks, size)
    pixels = trained_pixels(
        Path(cfg.out) / "leworldmodel", train, settings(cfg.pixels), batch=int(cfg.pixels.batch), seed=int(cfg.seeds[0])
    )
    minds["LeWorldModel"] = mind_of_pixels(pixels, size)
    return push_all(minds, held, tasks, search, history=history, reached_m=float(given.reached_m), out=Path(cfg.out))


def bench(cfg: DictConfig) -> dict[str, Any]:
    """Run all parts and write their results."""
    torch.set_num_threads(int(cfg.threads))
    out = Path(cfg.out)
    claim_run(out, "bench_objects", left=("train.npz",))
    train, held = recorded(cfg, "train"), recorded(cfg, "held")
    objective, slots = measured_slots(cfg, train, held)
    sources = {TRUTH: truth(cfg, train, held)}
    bound = all(row["ari_foreground"] >= float(cfg.slots.least_ari) for row in slots["agreement"].values())
    slots["used"] = bound and slots["read_error_mm"] <= float(cfg.slots.most_mm)
    if slots["used"]:
        sources[PICTURES] = pictures(objective, cfg, train, held)
    worlds = {name: predictors(cfg, name, source) for name, source in sources.items()}
    rows = [row for name, source in sources.items() for row in scored(cfg, name, source, worlds[name])]
    asked = windows_of(cfg, sources[TRUTH].held[int(cfg.push.pucks)])
    bare = {key: world for key, (world, _) in worlds[TRUTH].items()}
    questions = ask(bare, sources[TRUTH], held, asked, most=int(cfg.judge.cases))
    for name in sources:
        draw_scores(rows, out / f"scores_{slug(name)}.png", source=name)
    result = {
        "facts": {
            "command": shlex.join(["python", "experiments/bench_objects.py", *sys.argv[1:]]),
            "commit": origin.commit(),
            "machine": origin.machine(),
            "versions": origin.versions(),
        },
        "settings": OmegaConf.to_container(cfg, resolve=True),
        "slots": slots,
        "read_error_mm": {
            name: {str(count): 1000 * read_error_m(source.readout, log) for count, log in source.held.items()}
            for name, source in sources.items()
        },
        "rows": rows,
        "summary": summary(rows),
        "questions": questions,
        "pushes": pushes(cfg, train, held, sources, worlds),
        "numbers": latent_sizes(int(cfg.slots.num_slots), int(cfg.slots.slot_dim)),
    }
    write_json(out / "report.json", plain(result))
    write_text(out / "table.md", markdown(result))
    return result


@hydra.main(version_base=None, config_path=str(CONFIGS), config_name="bench_objects")
def main(cfg: DictConfig) -> None:
    """Run, print the tables and the paths of the files."""
    try:
        result = bench(cfg)
    except MISTAKES as mistake:
        sys.exit(f"bench_objects: {mistake}")
    print(markdown(result))
    print(f"{cfg.out}: report.json, table.md, figures")
