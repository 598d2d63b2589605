"""Optical flow of MC-JEPA: `python experiments/bench_flow.py out=runs/flow "seeds=[0,1,2]"`.

Records pairs of frames in training labs, and pairs with exact flow in held-out labs; trains on the frames alone; and
evaluates against the exact flow, which no training uses. It writes pairs, checkpoints, flow.json and flow.png, and
reuses existing ones.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import hydra
import torch
import torch._dynamo  # noqa: F401  before the first OpenGL context: the other order can crash the first optimiser
from omegaconf import DictConfig, OmegaConf
from tqdm import tqdm

from jepa_mpc.checkpoint import MANIFEST, load_checkpoint, load_strict
from jepa_mpc.errors import BadCheckpoint, MissingPackage, UnknownName
from jepa_mpc.experiments.evaluation.optical_flow.flow_figures import choose_pairs, draw
from jepa_mpc.experiments.evaluation.optical_flow.flow_scores import Scores, flows_of, judge
from jepa_mpc.experiments.evaluation.optical_flow.frame_pairs import FlowPairs, FlowRecording, load_pairs
from jepa_mpc.files import write_json
from jepa_mpc.places import CONFIGS
from jepa_mpc.runs.run_folder import claim_run
from jepa_mpc.seeding import generator
from jepa_mpc.world_model.checkpoints.assembly import assemble
from jepa_mpc.world_model.checkpoints.loader import save_world_model
from jepa_mpc.world_model.dynamics.model import Interface
from jepa_mpc.world_model.parts.objectives.motion import MotionContentObjective
from jepa_mpc.world_model.training.loop import Callbacks, FitSettings, TrainingDiverged, fit

MISTAKES = (BadCheckpoint, MissingPackage, TrainingDiverged, UnknownName, ValueError, OSError)
DT_S = 0.24  # of the arm; pairs are one control step apart


def pairs_of(cfg: DictConfig, side: str) -> FlowPairs:
    """The pairs of the training labs, or of the held-out ones."""
    part = cfg.pairs[side]
    labs = range(int(part.first_lab), int(part.first_lab) + int(part.labs))
    recording = FlowRecording(labs=labs, pairs=int(part.pairs), size=int(cfg.image_size), split=str(part.split))
    return load_pairs(Path(cfg.out) / f"{side}.npz", recording)


def trained(
    cfg: DictConfig, seed: int, train: FlowPairs, held: FlowPairs
) -> tuple[MotionContentObjective, dict[str, Any]]:
    """The objective of one seed and the record of its training: loaded if it exists, else trained and saved.

    Raises:
        BadCheckpoint: If the existing one has other settings.
    """
    folder = Path(cfg.out) / f"seed_{seed}" / "checkpoint"
    system: dict[str, Any] = OmegaConf.to_container(cfg.system, resolve=True)  # type: ignore[assignment]
    settings: dict[str, Any] = OmegaConf.to_container(cfg.fit, resolve=True)  # type: ignore[assignment]
    objective: MotionContentObjective = assemble(system, generator=generator(seed, "weights"))
    wanted = {"fit": settings, "batch": int(cfg.batch), "seed": seed}
    if (folder / MANIFEST).exists():
        tensors, config = load_checkpoint(folder)
        facts = config["training"]
        if config["system"] != system or {name: facts[name] for name in wanted} != wanted:
            raise BadCheckpoint(f"{folder} was trained with other settings: name another folder")
        load_strict(objective, tensors, str(folder))
        return objective.eval(), facts
    facts = {**wanted, **run(objective, cfg, seed, train, held)}
    interface = Interface(
        cameras=("left",), image_size=int(cfg.image_size), actions=(), dt_s=DT_S, log=f"{len(train)} pairs of frames"
    )
    save_world_model(folder, objective, system=system, interface=interface, training=facts)
    return objective.eval(), facts


def run(
    objective: MotionContentObjective, cfg: DictConfig, seed: int, train: FlowPairs, held: FlowPairs
) -> dict[str, Any]:
    """Train on frames alone; the validation curve is for inspection and selects nothing."""
    told: dict[str, Any] = assemble(OmegaConf.to_container(cfg.fit, resolve=True))
    settings = FitSettings(**{**told, "betas": tuple(told["betas"])})
    curve: list[Mapping[str, float]] = []
    begun = time.process_time()

    def evaluate(step: int, trained: Any) -> Mapping[str, float]:
        scores = judge(flows_of(trained.flow, held), held)["all"]
        curve.append({"step": step, "ratio": scores["ratio"], "ratio_moving": scores["ratio_moving"]})
        return curve[-1]

    with tqdm(total=settings.steps, desc=f"seed {seed}", unit="step") as bar:

        def log(step: int, numbers: Mapping[str, float]) -> None:
            bar.set_postfix({name: f"{value:.3g}" for name, value in numbers.items() if name in ("loss", "ratio")})

        callbacks = Callbacks(evaluate=evaluate, tick=lambda step: bar.update(), log=log)
        draws = lambda stream: train.sample(int(cfg.batch), stream)  # noqa: E731
        fit(objective, draws, settings=settings, seed=seed, callbacks=callbacks)
    return {"cpu_s": round(time.process_time() - begun), "curve": curve}


def bench(cfg: DictConfig) -> dict[str, Any]:
    """Train and evaluate every seed, and draw the first one."""
    torch.set_num_threads(int(cfg.threads))
    out = Path(cfg.out)
    claim_run(out, "bench_flow", left=("train.npz",))
    train, held = pairs_of(cfg, "train"), pairs_of(cfg, "held")
    runs = []
    for seed in map(int, cfg.seeds):
        objective, facts = trained(cfg, seed, train, held)
        answers = flows_of(objective.flow, held)
        runs.append({"seed": seed, "cpu_s": facts["cpu_s"], "curve": facts["curve"], "scores": judge(answers, held)})
        if len(runs) == 1:
            draw(held, answers, choose_pairs(held, int(cfg.shown)), out / "flow.png")
    result = {"settings": OmegaConf.to_container(cfg, resolve=True), "runs": runs, "summary": summary(runs)}
    write_json(out / "flow.json", result)
    return result


def summary(runs: list[dict[str, Any]]) -> Scores:
    """Mean and spread over the seeds."""
    table: Scores = {}
    for name in runs[0]["scores"]:
        rows = [run["scores"][name] for run in runs]
        table[name] = {key: mean(row[key] for row in rows) for key in rows[0]}
        for key in ("ratio", "ratio_moving"):
            table[name][f"{key}_std"] = stdev(row[key] for row in rows) if len(rows) > 1 else 0.0
    return table


def show(table: Scores) -> None:
    """Print it."""
    print(
        f"{'camera':<8}{'zero px':>9}{'error px':>10}{'ratio':>16}{'moving: zero px':>17}{'error px':>10}{'ratio':>16}"
    )
    for name, row in table.items():
        ratios = [f"{row[key]:.3f} ± {row[key + '_std']:.3f}" for key in ("ratio", "ratio_moving")]
        print(
            f"{name:<8}{row['zero_px']:>9.3f}{row['error_px']:>10.3f}{ratios[0]:>16}"
            f"{row['zero_moving_px']:>17.3f}{row['error_moving_px']:>10.3f}{ratios[1]:>16}"
        )


@hydra.main(version_base=None, config_path=str(CONFIGS), config_name="bench_flow")
def main(cfg: DictConfig) -> None:
    """Train, evaluate, print the scores and the paths of the files."""
    try:
        result = bench(cfg)
    except MISTAKES as mistake:
        sys.exit(f"bench_flow: {mistake}")
    show(result["summary"])
    print(f"{cfg.out}: flow.json, flow.png")
