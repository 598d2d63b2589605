"""Reach image goals in labs that no training log contained: `python experiments/zero_shot_reach.py`.

Without an argument the shipped world model plays two episodes in each of ten labs with unseen appearance, beside
baselines, and writes numbers, figures, videos and a page with all of them. `--help` lists the options. The same
command with `out=` the folder of a stopped run resumes it.
"""

from __future__ import annotations

import os
import platform
import shlex
import sys
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import hydra
import torch
import torch._dynamo  # before the first OpenGL context: loading it later crashes some drivers
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from jepa_mpc import envs  # noqa: F401  chooses the OpenGL backend
from jepa_mpc.checkpoint import checkpoint_hash, place_of
from jepa_mpc.envs.labs import labs_hash, sample_lab
from jepa_mpc.envs.ranges import FACTORS
from jepa_mpc.envs.reach import ReachEnv
from jepa_mpc.envs.robots import DEFAULT, ROBOTS
from jepa_mpc.errors import BadCheckpoint, BadObservation, MissingPackage, UnknownName, choose
from jepa_mpc.experiments.evaluation.image_goals.reach_options import check_options
from jepa_mpc.experiments.evaluation.image_goals.system_defaults import adapted, given_options
from jepa_mpc.face import viewing
from jepa_mpc.face.agents import CalibratedSettings
from jepa_mpc.face.command_line import Stopped
from jepa_mpc.face.evaluation.by_hand import play_by_hand
from jepa_mpc.face.evaluation.finished_labs import FinishedLabs
from jepa_mpc.face.evaluation.lab_episodes import LabJob, LabResult, play_all
from jepa_mpc.face.evaluation.methods import FROZEN, LEARNED, WORLD_MODEL, Methods, world_model_at
from jepa_mpc.face.evaluation.reach_films import album_at
from jepa_mpc.face.evaluation.reach_task import robot_of
from jepa_mpc.face.goals import goal_observation
from jepa_mpc.face.planning import PlanSettings
from jepa_mpc.face.two_modes import TwoModeSettings
from jepa_mpc.files import only_writer
from jepa_mpc.places import CHECKPOINTS, CONFIGS
from jepa_mpc.planners import planner_choice
from jepa_mpc.planners.budgets import needs_gradients
from jepa_mpc.reporting.record import BUSY, Protocol, Report
from jepa_mpc.reporting.report_folder import write_folder
from jepa_mpc.reporting.summary import make_report
from jepa_mpc.runs import origin
from jepa_mpc.runs.run_folder import claim_run

SHIPPED = CHECKPOINTS
NAMES = {1: ("reach_one_camera", "reach_one_camera_random"), 2: ("reach", "reach_random")}
WIDE, POINTS = "reach_wide", "hand_points"  # world model and keypoint detector of the calibrated agent
SHORT_SEARCH = {"num_samples": 32, "num_elites": 6, "num_iterations": 5}
SEEDED_SEARCH = {"num_samples": 26, "num_elites": 5, "num_iterations": 3, "initial_std": 0.25}  # half the evaluations
FREE = ("out", "workers", "view")  # may differ when a run is resumed
PACKAGES = ("torch", "mujoco", "numpy", "gymnasium")
MISTAKES = (BadCheckpoint, BadObservation, BrokenProcessPool, MissingPackage, UnknownName, ValueError, OSError)


def main_settings(cfg: DictConfig) -> tuple[PlanSettings, PlanSettings, str]:
    """The planner of the world model, that of the true dynamics, and why the two differ ("" if they do not).

    A planner that needs gradients or single steps cannot plan in a simulator; a short cross-entropy search replaces it.
    """
    name, arguments = planner_choice(OmegaConf.to_container(cfg.planner, resolve=True))  # type: ignore[arg-type]
    settings = PlanSettings(
        planner=name, arguments=arguments, horizon=cfg.horizon, effort=cfg.effort, hold_m=cfg.hold_m
    )
    reason = needs_gradients(settings.build(), box=ROBOTS[DEFAULT].box(0, 1, 2), horizon=cfg.horizon)
    if reason is None:
        return settings, settings, ""
    return settings, replace(settings, planner="cem", arguments=SHORT_SEARCH), reason


def methods_of(cfg: DictConfig) -> Methods:
    """The methods to compare.

    Raises:
        UnknownName: If there is no shipped checkpoint for that number of cameras, or no such planner.
        ValueError: If the planner does not take one of its arguments.
    """
    shipped, control = choose({str(count): names for count, names in NAMES.items()}, str(cfg.cameras), "cameras")
    frozen = Path(str(cfg.control)) if cfg.control else SHIPPED / control
    settings, sampling, _ = main_settings(cfg)
    agent = _agent(cfg)
    usual = WIDE if "calibrated" in agent and str(cfg.cameras) == "2" else shipped
    return Methods(
        checkpoint=place_of(str(cfg.checkpoint)) if cfg.checkpoint else SHIPPED / usual,
        frozen=frozen if cfg.control or (frozen.exists() and not cfg.checkpoint) else None,
        settings=settings,
        sampling=sampling,
        device=cfg.device,
        seed=cfg.seed,
        policy=Path(str(cfg.policy)) if cfg.policy else None,
        seeded=replace(settings, planner="cem", arguments=SEEDED_SEARCH),
        dynamics=cfg.dynamics,
        **agent,
    )


def _agent(cfg: DictConfig) -> dict[str, Any]:
    """The requested agent, as arguments of `Methods`; empty for the simple agent, which the policies belong to."""
    chosen: dict[str, Any] = OmegaConf.to_container(cfg.get("agent") or OmegaConf.create({}), resolve=True)  # type: ignore[assignment]
    if chosen.get("kind") != "calibrated":
        return {"full": TwoModeSettings.of(chosen)}
    if cfg.policy:
        return {}
    del chosen["kind"]
    keypoints = Path(str(chosen.pop("points", None) or SHIPPED / POINTS))
    for name in chosen.keys() - CalibratedSettings.__dataclass_fields__.keys():
        raise UnknownName("option of agent=calibrated", str(name), CalibratedSettings.__dataclass_fields__)
    return {"calibrated": CalibratedSettings(**chosen), "keypoints": keypoints}


def _calibration(methods: Methods, job: LabJob) -> dict[str, Any]:
    """The calibrated agent's entries in the protocol."""
    if methods.calibrated is None:
        return {}
    assert methods.keypoints is not None
    points = checkpoint_hash(methods.keypoints)
    return {"agent": "calibrated", "camera_px": job.image_size, "points": points, "place": methods.calibrated.place}


def jobs_of(cfg: DictConfig, methods: Methods) -> list[LabJob]:
    """Every lab to play: those of the split with all methods, those of single factors with the world model."""
    interface = world_model_at(methods.checkpoint, cfg.device).interface
    size = interface.image_size
    if methods.calibrated is not None:
        size = methods.calibrated.picture_px(size)
    with_factors = cfg.split == "all" if cfg.factors is None else cfg.factors
    jobs = []
    for split in dict.fromkeys((cfg.split, *(FACTORS if with_factors else ()))):
        headline = split == cfg.split
        for index in range(cfg.labs):
            lab = sample_lab(index, split=split, seed=cfg.lab_seed, level=cfg.level)
            jobs.append(
                LabJob(
                    lab=lab,
                    index=index,
                    split=split,
                    episodes=cfg.episodes,
                    seed=cfg.lab_seed,
                    budget=cfg.budget,
                    cameras=interface.cameras,
                    image_size=size,
                    methods=methods,
                    names=methods.names() if headline and cfg.baselines else (WORLD_MODEL,),
                    robot=robot_of(interface),
                    film=Path(str(cfg.out)) / "videos" / f"{lab.name}.mp4" if headline and cfg.films else None,
                    view=Path(str(cfg.out)) / "views" / f"{lab.name}.rrd" if headline and cfg.view != "none" else None,
                )
            )
    return jobs


def preflight(job: LabJob) -> None:
    """Run everything once in this process, so that mistakes show before the work begins."""
    env = ReachEnv(robot=job.robot, cameras=job.cameras, image_size=job.image_size, budget=job.budget)
    try:
        env.reset(seed=0, options={"lab": job.lab})
        for name in job.names:
            agent = job.methods.agent(name, env, stream=0)
            agent.reset(env.goal())
            if name in LEARNED:
                agent.act(env.observation())
        if job.film is not None:
            album_at(job.methods.checkpoint)
        if job.view is not None:
            viewing.package()
    finally:
        env.close()


def play(jobs: list[LabJob], *, workers: int, finished: FinishedLabs) -> list[LabResult]:
    """Play the unfinished labs, with a progress bar.

    Raises:
        Stopped: If it was interrupted; finished labs are kept.
    """
    known = [(job, finished.read(job)) for job in jobs]
    results = [result for _, result in known if result is not None]
    missing = [job for job, result in known if result is None]
    try:
        with tqdm(total=len(jobs), initial=len(results), unit="lab", desc="reaching") as bar:
            for result in play_all(missing, workers=workers):
                finished.keep(result)
                results.append(result)
                bar.set_postfix_str(_score(results))
                bar.update()
    except KeyboardInterrupt as stop:
        run = finished.folder.parent
        raise Stopped(
            f"after {len(results)} of {len(jobs)} labs: run the same command with out={run} to resume"
        ) from stop
    return sorted(results, key=lambda result: result.index)


def _score(results: list[LabResult]) -> str:
    own = [record for result in results for record in result.records if record.method == WORLD_MODEL]
    return f"{sum(record.success_5cm for record in own)}/{len(own)} within 5 cm"


def settings_of(cfg: DictConfig, protocol: Protocol) -> dict[str, Any]:
    """All settings that determine the content of a run's files, and must be the same for a run to be resumed."""
    hashes = {name: getattr(protocol, name) for name in ("checkpoint_hash", "control_hash", "lab_list_hash", "commit")}
    return chosen_of(cfg) | hashes


def chosen_of(cfg: DictConfig) -> dict[str, Any]:
    """The options that determine what is played."""
    chosen: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True)  # type: ignore[assignment]
    return {name: value for name, value in chosen.items() if name not in FREE}


def protocol_of(cfg: DictConfig, methods: Methods, jobs: list[LabJob]) -> Protocol:
    """The settings that are fixed before the first episode."""
    labs = [job.lab for job in jobs if job.split == cfg.split]
    return Protocol(
        method=WORLD_MODEL,
        split=cfg.split,
        labs=cfg.labs,
        episodes_per_lab=cfg.episodes,
        lab_seed=cfg.lab_seed,
        seeds=(cfg.seed,),
        budget_steps=cfg.budget,
        cameras=jobs[0].cameras,
        planner={
            "name": methods.settings.planner,
            **methods.settings.arguments,
            "horizon": cfg.horizon,
            "effort": cfg.effort,
            "hold_m": cfg.hold_m,
            "true dynamics plan with": true_planner(cfg),
            **({} if methods.full is None else {"agent": "full"}),
            **(_calibration(methods, jobs[0])),
        },
        lab_list_hash=labs_hash(labs),
        checkpoint_hash=world_model_at(methods.checkpoint, cfg.device).fingerprint,
        level=cfg.level,
        control_hash=world_model_at(methods.frozen, cfg.device).fingerprint if FROZEN in jobs[0].names else "",
        versions={"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
        commit=origin.commit(),
        command=shlex.join(["python", "experiments/zero_shot_reach.py", *sys.argv[1:]]),
        hardware=f"{os.cpu_count()} x {platform.machine()}, {cfg.workers} processes, device {cfg.device}{_load()}",
    )


def true_planner(cfg: DictConfig) -> str:
    """The planner of the true dynamics, and why it is another one, if it is."""
    settings, sampling, reason = main_settings(cfg)
    if not reason:
        return "the same planner"
    short = ", ".join(f"{name}={value}" for name, value in sampling.arguments.items())
    return f"{sampling.planner} ({short}): {settings.planner} cannot plan in a simulator ({reason})"


def print_table(report: Report) -> None:
    """The result as a table of 80 columns."""
    table = Table(
        title=f"Reaching image goals, split '{report.protocol.split}'",
        caption="share of episodes that end within 5 cm (with its 95 % interval), within 2 cm, and stay within 5 cm; "
        "median distance at the end; time per decision",
        padding=(0, 1, 0, 0),
    )
    table.add_column("method")
    for column in ("runs", "5 cm", "95 %", "2 cm", "stay", "median", "time"):
        table.add_column(column, justify="right", no_wrap=True)
    rows = {WORLD_MODEL: report.summary, **report.baselines}
    rows |= {f"{factor} out of range": row for factor, row in report.factors.items()}
    for name, row in rows.items():
        low, high = row["wilson_95"]
        median, ms = row["median_final_distance_m"], row["ms_per_step_p50"]
        table.add_row(
            name,
            str(row["episodes"]),
            f"{row['success_5cm']:.1%}",
            f"{low:.0%} - {high:.0%}",
            f"{row['success_2cm']:.1%}",
            f"{row['held_success_5cm']:.1%}",
            "-" if median is None else f"{100 * median:.2f} cm",
            "-" if ms is None else f"{ms:.0f} ms",
        )
    Console().print(table)


def _load() -> str:
    """A note that the machine is busy, if more than half of its processors had work in the last minute."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    return f", {BUSY} (load {load:.1f})" if load > 0.5 * (os.cpu_count() or 1) + 1 else ""


@hydra.main(version_base=None, config_path=str(CONFIGS), config_name="zero_shot_reach")
def main(cfg: DictConfig) -> None:
    """Play, evaluate, write, and print the path of the result."""
    torch.set_num_threads(1)
    try:
        check_options(cfg)
        cfg = adapted(cfg, SHIPPED, given=given_options())
        methods = methods_of(cfg)
        jobs = jobs_of(cfg, methods)
        preflight(jobs[0])
        if cfg.goal is not None:
            goal_observation(cfg.goal, cameras=jobs[0].cameras, image_size=jobs[0].image_size)  # or it is refused
            claim_run(Path(str(cfg.out)), "zero_shot_reach", chosen_of(cfg))
            print(f"Files: {play_by_hand(jobs[0], cfg.goal, Path(str(cfg.out)))}")
            return
        protocol = protocol_of(cfg, methods, jobs)
        folder = Path(str(cfg.out))
        claim_run(folder, "zero_shot_reach", settings_of(cfg, protocol))
        if cfg.baselines and FROZEN not in methods.names():
            Console(stderr=True).print(f"no checkpoint of the '{FROZEN}' control: it is left out")
        if cfg.baselines and methods.sampling != methods.settings:
            Console(stderr=True).print(f"true dynamics plan with {true_planner(cfg)}", soft_wrap=True)
        with only_writer(folder, what="run"):
            results = play(jobs, workers=cfg.workers, finished=FinishedLabs(folder))
            records = [record for result in results for record in result.records]
            report = make_report(protocol, records)
            page = write_folder(report, folder, tiles=[result.tile for result in results if result.tile is not None])
    except MISTAKES as error:
        sys.exit(f"zero_shot_reach: {error}")
    print_table(report)
    Console().print(f"report, figures and videos: {page}", soft_wrap=True)
