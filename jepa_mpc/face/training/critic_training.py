"""Trains a critic for a frozen world model: it predicts the future intrinsic cost, from a log in hindsight."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import torch
from omegaconf import DictConfig, OmegaConf
from tqdm import tqdm

from jepa_mpc.encoders.layers.weights import draw_weights
from jepa_mpc.face.training.journal import Journal, note_origin
from jepa_mpc.face.training.policy_lessons import encoded
from jepa_mpc.files import only_writer
from jepa_mpc.runs.run_folder import claim_run
from jepa_mpc.seeding import generator
from jepa_mpc.trajectories.bank import load_bank
from jepa_mpc.world_model.checkpoints.assembly import TARGET, assemble
from jepa_mpc.world_model.checkpoints.critics import save_critic
from jepa_mpc.world_model.checkpoints.loader import load_world_model
from jepa_mpc.world_model.costs.critic import Critic
from jepa_mpc.world_model.costs.goal import GoalDistance
from jepa_mpc.world_model.costs.intrinsic import IntrinsicCost
from jepa_mpc.world_model.costs.terms import Effort
from jepa_mpc.world_model.dynamics.model import WorldModel
from jepa_mpc.world_model.training.critic import CriticLessons, CriticObjective, Judgement
from jepa_mpc.world_model.training.loop import Callbacks, FitSettings, fit


def judgement_of(cfg: DictConfig, model: WorldModel) -> Judgement:
    """The cost that the critic predicts: distance to the goal (m^2) plus effort."""
    scale = torch.tensor([float(size) for size in cfg.largest_action])
    intrinsic = IntrinsicCost({"goal": GoalDistance(metric=model.position_head), "effort": Effort(scale=scale)})
    weights = {"goal": 1.0, "effort": float(cfg.effort)}
    form, steps = str(cfg.form), int(cfg.target_steps)
    return Judgement(intrinsic=intrinsic, weights=weights, form=form, steps=steps, discount=float(cfg.discount))  # type: ignore[arg-type]


def train_critic(cfg: DictConfig) -> Path:
    """Train as configured; returns the critic's folder."""
    torch.set_num_threads(int(cfg.threads))
    folder, seed, settings = Path(cfg.out), int(cfg.seed), FitSettings(**cfg.fit)
    claim_run(folder, "train_critic")
    model = load_world_model(cfg.model)
    bank = load_bank(cfg.data, cameras=model.interface.cameras, progress=lambda all_: tqdm(all_, desc="log"))
    with only_writer(folder):
        note_origin(folder, OmegaConf.to_yaml(cfg, resolve=True))
        log = encoded(model, bank, episodes=int(cfg.episodes), keep=folder / "latents")
        spec = {
            TARGET: "critic",
            "width": log.latents.shape[-1],
            "hidden": int(cfg.hidden),
            "unit": float(cfg.unit),
        }
        critic: Critic = assemble(spec)
        draw_weights(critic, generator(seed, "critic"))
        judgement = judgement_of(cfg, model)
        lessons = CriticLessons(
            log=log, judgement=judgement, batch=int(cfg.batch), later=float(cfg.later), max_steps=int(cfg.max_steps)
        )
        objective = CriticObjective(
            critic, form=judgement.form, discount=judgement.discount, expectile=float(cfg.expectile)
        )
        with closing(Journal(folder, done=0)) as journal, tqdm(total=settings.steps, unit="step") as bar:
            fit(
                objective,
                lessons,
                settings=settings,
                seed=seed,
                callbacks=Callbacks(log=journal, tick=lambda step: bar.update()),
            )
        training = {"steps": settings.steps, "settings": OmegaConf.to_container(cfg, resolve=True)}
        save_critic(folder / "checkpoint", critic, described=spec, model=model, training=training)
    return folder / "checkpoint"
