"""Options that no training could use are refused before any work begins, and the message names them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

import jepa_mpc.experiments.commands.train as command
import jepa_mpc.face.training.training_run as trainer
from jepa_mpc.errors import MissingPackage
from jepa_mpc.face.training.distributed import device_of
from jepa_mpc.face.training.training_options import check_options, fit_settings
from jepa_mpc.planners import build_planner, planner_choice

ROOT = Path(__file__).resolve().parents[2]
MISTAKES = (*command.MISTAKES, HydraException, OmegaConfBaseException)

UNKNOWN = ["stepps=3", "fit.step=3", "fit.learningrate=1", "watch.evry=3", "ingest.worker=2", "batchsize=3", "lr=1"]
KINDS = [
    *("batch=-1", "batch=0", "batch=many", "batch=2.5", "window=0", "window=-3", "window=null", "threads=0"),
    *("threads=two", "seed=one", "seed=1.5", "max_stride=0", "max_stride=-1", "skip=0", "skip=x", "probe=0"),
    *("probe=-4", "validation=1.5", "validation=-0.1", "validation=half", "resume=perhaps", "resume=true"),
    *("compile=fast", "compile=true", "on_collapse=ignore", "best=luck", "best=reach", "recorders=paper"),
    *("recorders=[paper]", "recorders=[1]", "parallel=both", "freeze=encoder", "watch.every=-1", "watch.frames=0"),
]
FITS = [
    *("fit.steps=0", "fit.steps=-5", "fit.steps=many", "fit.steps=1.5", "fit.learning_rate=0", "fit.learning_rate=-1"),
    *("fit.learning_rate=fast", "fit.weight_decay=-1", "fit.warmup=1", "fit.warmup=-0.1", "fit.final_rate=2"),
    *("fit.clip_norm=0", "fit.precision=half", "fit.average_decay=1", "fit.average_decay=much", "fit.log_every=0"),
    *("fit.save_every=-1", "fit.evaluate_every=-1", "fit.betas=[0.9]", "fit.betas=0.9", "fit.betas=[0.9,1.0]"),
    *("+fit.accumulate=0", "+fit.epsilon=0", "+fit.patience=3", "+fit.schedule={_target_: os.getcwd}"),
    *("+fit.schedule={_target_: warmup_cosine, warmup: 2}", "+fit.schedule=steep"),
]
PLACES = ["device=tpu", "device=cuda:99", "device=mps", "fit=missing", "system=missing", "evaluate=missing"]
SEARCHES = [
    *("num_samples=-1", "num_samples=0", "num_elites=99", "num_elites=0", "num_iterations=0", "num_sample=4"),
    *("num_samples=few", "initial_std=-1"),
]


def configured(*overrides):
    with initialize_config_dir(str(ROOT / "configs"), version_base=None):
        return compose("train", [*overrides, "out=/nowhere/at/all"])


def begin(*overrides):
    cfg = configured(*overrides)
    check_options(cfg)
    fit_settings(cfg)
    device_of(str(cfg.device))


@pytest.mark.parametrize("override", [*UNKNOWN, *KINDS, *FITS, *PLACES])
def test_a_mistake_is_refused_by_its_name(override):
    key, _, value = override.lstrip("+").partition("=")
    with pytest.raises(MISTAKES) as caught:
        begin(override)
    told = f"{caught.value} {caught.value.__cause__}"
    assert key.rpartition(".")[2] in told or value.strip("[]") in told


@pytest.mark.parametrize("argument", SEARCHES)
def test_a_search_that_cannot_be_is_refused_when_it_is_built(argument):
    with initialize_config_dir(str(ROOT / "configs"), version_base=None):
        cfg = compose("planner/cem_short", [f"++planner.{argument}"])
    with pytest.raises((HydraException, ValueError)):
        build_planner(*planner_choice(cfg.planner))


def test_at_least_sixty_mistakes_are_tried():
    assert len(UNKNOWN) + len(KINDS) + len(FITS) + len(PLACES) + len(SEARCHES) >= 60


def test_what_is_right_is_let_through():
    begin()
    begin("fit.steps=5", "+fit.accumulate=2", "recorders=[jsonl]", "evaluate=reach", "best=reach", "parallel=pieces")
    begin("+fit.decayed={_target_: decay_matrices}", "fit=vjepa2_ac")


def test_a_log_that_is_not_there_is_refused_and_nothing_is_trained(tmp_path):
    with initialize_config_dir(str(ROOT / "configs"), version_base=None):
        cfg = compose("train", [f"data={tmp_path / 'gone'}", f"out={tmp_path / 'run'}"])
    with pytest.raises(command.MISTAKES, match="gone"):
        trainer.train(cfg)
    assert not list((tmp_path / "run").glob("[!.]*"))


def test_a_recorder_that_is_not_installed_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(MissingPackage, match="wandb"):
        trainer.Journal(tmp_path, done=0, recorders=["wandb"])
