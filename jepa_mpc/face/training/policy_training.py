"""Trains a policy for a frozen world model, from a log in hindsight and from a planner (DAgger)."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from tqdm import tqdm

from jepa_mpc.encoders.layers.weights import draw_weights
from jepa_mpc.face.training.journal import Journal, note_origin
from jepa_mpc.face.training.policy_lessons import Lessons, PolicyJudge, Teacher, encoded, split
from jepa_mpc.files import only_writer
from jepa_mpc.planners import build_planner, planner_choice
from jepa_mpc.runs.run_folder import claim_run
from jepa_mpc.seeding import generator
from jepa_mpc.trajectories.bank import load_bank
from jepa_mpc.types import ActionBox, Plan, State
from jepa_mpc.world_model.checkpoints.assembly import TARGET, assemble
from jepa_mpc.world_model.checkpoints.loader import load_world_model
from jepa_mpc.world_model.checkpoints.policies import save_policy
from jepa_mpc.world_model.dynamics.model import WorldModel
from jepa_mpc.world_model.memory.hindsight import LatentLog
from jepa_mpc.world_model.policies.distillation import Fit, dagger
from jepa_mpc.world_model.policies.goal import GoalPolicy
from jepa_mpc.world_model.policies.imitation import Imitation
from jepa_mpc.world_model.training.loop import Callbacks, FitSettings, fit

CHECKPOINT, LATENTS, HELD = "checkpoint", "latents", 256


def box_of(cfg: DictConfig, model: WorldModel) -> ActionBox:
    """The robot's action box.

    Raises:
        ValueError: If the world model's actions have another width.
    """
    high = torch.tensor([float(size) for size in cfg.largest_action])
    if len(high) != len(model.interface.actions):
        names = ", ".join(model.interface.actions)
        raise ValueError(f"largest_action needs {len(model.interface.actions)} numbers ({names}), got {len(high)}")
    return ActionBox(low=-high, high=high)


def check(cfg: DictConfig) -> None:
    """Refuse invalid options.

    Raises:
        ValueError: Names the option and its valid values.
    """
    counts = (("episodes", 2), ("pairs", 0), ("rounds", 1), ("walk", 1), ("max_steps", 1), ("batch", 2), ("threads", 1))
    for name, least in counts:
        if type(cfg[name]) is not int or cfg[name] < least:
            raise ValueError(f"{name} must be a whole number from {least}, got {cfg[name]!r}")
    if not 0 <= float(cfg.planned) <= 1 or not 0 < float(cfg.validation) < 1:
        raise ValueError(f"need 0 <= planned <= 1 and 0 < validation < 1, got {cfg.planned} and {cfg.validation}")
    if cfg.pairs == 0 and float(cfg.planned) == 1:
        raise ValueError("planned=1 trains on planner targets only, but pairs=0 gives none; use pairs=1 or more")
    if cfg.rounds > 1 and cfg.pairs < cfg.walk:
        raise ValueError(f"a later round has pairs / walk starts, which is 0 here: {cfg.pairs} / {cfg.walk}")


def described(cfg: DictConfig, log: LatentLog) -> dict[str, Any]:
    """The policy's configuration, completed from the log; the checkpoint stores exactly this."""
    sizes: dict[str, Any] = OmegaConf.to_container(cfg.policy, resolve=True)  # type: ignore[assignment]
    facts = {
        TARGET: "goal_policy",
        "action_scale": [float(size) for size in cfg.largest_action],
        "max_steps": int(cfg.max_steps),
    }
    return {"width": log.latents[0].numel(), **facts, **sizes}


def ask(teacher: Teacher, log: LatentLog, count: int, *, seed: int, title: str) -> dict[str, torch.Tensor] | None:
    """The planner's plans for `count` pairs of states drawn from the log; None if `count` is 0."""
    if count == 0:
        return None
    stream = generator(seed, "pairs", title)
    return teacher.lessons(*log.pairs(count, generator=stream), generator=stream, title=title)


def take_turns(policy: GoalPolicy, teacher: Teacher, log: LatentLog, cfg: DictConfig, fit_round: Fit) -> None:
    """Train on the planner's plans for states of the log; then, in rounds, for states that the policy visits."""
    stream, pairs = generator(int(cfg.seed), "pairs", "planning"), int(cfg.pairs)

    def starts(index: int) -> tuple[State, State]:
        return log.pairs(pairs if index == 0 else pairs // int(cfg.walk), generator=stream)

    def plans(state: State, goal: State) -> Plan:
        return teacher.lessons(state, goal, generator=stream, title="planning")["actions"]

    world, rounds, steps = teacher.model.dynamics, int(cfg.rounds), int(cfg.walk)
    dagger(policy, plans, world, box=teacher.box, starts=starts, fit=fit_round, rounds=rounds, steps=steps)


def train_policy(cfg: DictConfig) -> Path:
    """Train as configured; returns the policy's folder."""
    check(cfg)
    torch.set_num_threads(int(cfg.threads))
    folder, seed, settings = Path(cfg.out), int(cfg.seed), FitSettings(**cfg.fit)
    claim_run(folder, "train_policy")
    model = load_world_model(cfg.model)
    if model.needs_proprio:
        raise ValueError("the world model needs proprioception, but the policy sees latents only")
    box = box_of(cfg, model)
    bank = load_bank(cfg.data, cameras=model.interface.cameras, progress=lambda all_: tqdm(all_, desc="log"))
    with only_writer(folder):
        note_origin(folder, OmegaConf.to_yaml(cfg, resolve=True))
        log = encoded(model, bank, episodes=int(cfg.episodes), keep=folder / LATENTS)
        inner, outer = split(log, float(cfg.validation), generator=generator(seed, "validation labs"))
        spec = described(cfg, log)
        policy: GoalPolicy = assemble(spec)
        draw_weights(policy, generator(seed, "weights"))
        teacher = Teacher(
            model=model,
            planner=build_planner(*planner_choice(cfg.planner)),
            box=box,
            effort=float(cfg.effort),
            horizon=policy.chunk,
        )
        sizes = {"chunk": policy.chunk, "max_steps": policy.max_steps}
        judge = PolicyJudge(
            teacher,
            ask(teacher, outer, min(HELD, int(cfg.pairs)), seed=seed, title="planning, held labs"),
            outer.hindsight(HELD, generator=generator(seed, "held"), **sizes),
        )
        scores: dict[str, float] = {}

        def fit_round(planned: Mapping[str, torch.Tensor] | None, index: int) -> None:
            lessons = Lessons(inner, planned, batch=int(cfg.batch), share=float(cfg.planned), **sizes)
            done = index * settings.steps
            scores.update(run(policy, lessons, settings, seed=seed + index, folder=folder, judge=judge, done=done))

        if cfg.pairs:
            take_turns(policy, teacher, inner, cfg, fit_round)
        else:
            fit_round(None, 0)
        training = {"steps": settings.steps, "settings": OmegaConf.to_container(cfg, resolve=True), "scores": scores}
        save_policy(folder / CHECKPOINT, policy, described=spec, model=model, training=training)
    return folder / CHECKPOINT


def run(
    policy: GoalPolicy,
    lessons: Lessons,
    settings: FitSettings,
    *,
    seed: int,
    folder: Path,
    judge: PolicyJudge,
    done: int,
) -> dict[str, float]:
    """One training round; the policy ends with the averaged weights. Returns the last scores."""
    scores: dict[str, float] = {}
    objective = Imitation(policy)
    bar = tqdm(total=settings.steps, unit="step", desc="training")
    with closing(Journal(folder, done=done)) as journal, bar:

        def note(step: int, numbers: Mapping[str, float]) -> None:
            journal(done + step, numbers)
            scores.update({name: value for name, value in numbers.items() if name.startswith("held/")})
            bar.set_postfix({name: f"{value:.3g}" for name, value in scores.items()}, refresh=False)

        callbacks = Callbacks(log=note, evaluate=judge, tick=lambda step: bar.update())
        state = fit(objective, lessons, settings=settings, seed=seed, callbacks=callbacks)
    weights = state.objective if state.average is None else state.average
    objective.load_state_dict({name: weights[name] for name in objective.state_dict()})
    return scores
