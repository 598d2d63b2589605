"""Train a world model on a log: `python experiments/train.py data=logs/reach out=runs/reach seed=0`.

The run folder holds the resolved settings, metrics.jsonl, TensorBoard files, `state/` to go on from and `checkpoint/`,
the world model as an agent loads it. Stop it at any time; the same command goes on, and ends in the same bits.
"""

from __future__ import annotations

import _path  # noqa: F401  isort: skip

import copy
import signal
import sys
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hydra
import torch
from omegaconf import DictConfig, OmegaConf
from torch import nn
from tqdm import tqdm

from core.checkpoint import load_checkpoint, pack_state, save_checkpoint, unpack_state
from core.errors import BadCheckpoint, BadEpisode, MissingPackage, UnknownName
from core.seeding import generator
from experiments.command_line import run as run_command
from experiments.training.begin import begin_with_encoder
from experiments.training.journal import Busy, Journal, note_origin, only_writer
from experiments.training.monitor import Monitor
from experiments.training.sources import door_of, open_sources
from trajectories.actions import action_names
from trajectories.bank import FrameBank
from trajectories.mixture import MixedBank
from trajectories.stats import action_stats
from world_model.assembly import assemble
from world_model.fit import Callbacks, FitSettings, FitState, TrainingDiverged, fit
from world_model.pretrained import Interface, save_world_model

STATE, CHECKPOINT = "state", "checkpoint"
FREE = ("out", "device", "resume", "threads", "data", "ingest", "hydra")  # may change when a training goes on
ALWAYS = {"skip": 1, "blocks": "joined"}  # what trainings did from before they could choose
MISTAKES = (
    *(Busy, BadCheckpoint, BadEpisode, MissingPackage, UnknownName, TrainingDiverged),
    *(ValueError, TypeError, OSError),
)
STILL = 1e-3  # metres or radians: an action axis that varies less counts as fixed


@dataclass(frozen=True, kw_only=True)
class Data:
    """The log as the training sees it."""

    train: FrameBank | MixedBank
    held: FrameBank | MixedBank
    window: int
    batch: int
    max_stride: int

    def draw(self, stream: torch.Generator) -> dict[str, torch.Tensor]:
        """One batch of windows."""
        return self.train.sample(self.batch, self.window, generator=stream, max_stride=self.max_stride)


def load_data(cfg: DictConfig, device: torch.device) -> Data:
    """Map the log and put some labs aside; on a GPU the whole log goes to its memory."""
    bank = open_sources(cfg)
    train, held = bank.to(device).split(float(cfg.validation), generator=generator(0, "validation labs"))
    return Data(train=train, held=held, window=int(cfg.window), batch=int(cfg.batch), max_stride=int(cfg.max_stride))


def system_of(cfg: DictConfig, bank: FrameBank | MixedBank) -> dict[str, Any]:
    """The system's configuration, completed by what the log says; a checkpoint carries exactly this."""
    system: dict[str, Any] = OmegaConf.to_container(cfg.system, resolve=True)  # type: ignore[assignment]
    if "action_dim" not in system:  # it learns from pictures alone
        return system
    if system.get("action_dim") != bank.action_dim:
        raise ValueError(
            f"the system takes actions of {system.get('action_dim')} numbers, the log has {bank.action_dim}"
        )
    if system.get("action_scale") is None:
        std = action_stats(bank).std
        system["action_scale"] = torch.where(std > STILL, std, torch.ones_like(std)).tolist()
    return system


def build_objective(system: Mapping[str, Any], *, seed: int, freeze: list[str]) -> nn.Module:
    """The training loss with fresh weights; the named parts are not trained.

    Raises:
        ValueError: If a part to freeze does not exist.
    """
    objective: nn.Module = assemble(system, generator=generator(seed, "weights"))
    for name in freeze:
        try:
            objective.get_submodule(name).requires_grad_(False)
        except AttributeError as error:
            parts = ", ".join(part for part, _ in objective.named_children())
            raise ValueError(f"cannot freeze {name!r}: the system has {parts}") from error
    return objective


class Keeper:
    """Publishes the state of a training and the world model that it has come to."""

    def __init__(
        self,
        folder: Path,
        cfg: DictConfig,
        *,
        system: Mapping[str, Any],
        objective: nn.Module,
        bank: FrameBank | MixedBank,
    ) -> None:
        self.folder, self.system = folder, system
        self.settings = OmegaConf.to_container(cfg, resolve=True)
        self.shown = copy.deepcopy(objective)
        log, door = f"{bank.num_episodes} episodes, {bank.num_steps} observations of {cfg.data}", door_of(cfg, bank)
        self.read = {
            "source": bank.origin["source"],
            "statistics": {name: stats.to_dict() for name, stats in door.statistics.items()},
        }
        self.interface = Interface(
            cameras=bank.cameras,
            image_size=bank.picture[1],
            actions=action_names(door.actions, bank.action_dim) if "action_dim" in system else (),
            dt_s=bank.step_s,
            log=log,
            robot=door.to_dict(),
        )

    def save(self, state: FitState) -> None:
        """Write the state first, then the world model (with averaged weights if they are kept)."""
        tensors, layout = pack_state(vars(state))
        save_checkpoint(self.folder / STATE, tensors, {"layout": layout, "settings": self.settings})
        self.publish(state)

    def publish(self, state: FitState) -> None:
        """Write the world model."""
        weights = state.objective if state.average is None else state.average
        self.shown.load_state_dict({name: weights[name] for name in state.objective})
        training = {"steps": state.step, "settings": self.settings, **self.read}
        save_world_model(
            self.folder / CHECKPOINT, self.shown, system=self.system, interface=self.interface, training=training
        )

    def last(self) -> FitState | None:
        """The last saved state, or None.

        Raises:
            BadCheckpoint: If it is damaged.
            ValueError: If it was made with other settings.
        """
        if not (self.folder / STATE).exists() and not (self.folder / f".{STATE}.previous").exists():
            return None
        tensors, config = load_checkpoint(self.folder / STATE)
        assert isinstance(self.settings, dict)
        config["settings"] = ALWAYS | config["settings"]
        names = sorted((config["settings"].keys() | self.settings.keys()) - set(FREE))
        other = [str(name) for name in names if config["settings"].get(name) != self.settings.get(name)]
        if other:
            raise ValueError(
                f"{self.folder} was trained with other settings of {', '.join(other)}: name another folder"
            )
        return FitState(**unpack_state(tensors, config["layout"]))


def train(cfg: DictConfig) -> Path:
    """Train as configured and return the folder of the world model."""
    folder, device = Path(cfg.out), device_of(str(cfg.device))
    settings = FitSettings(**{**cfg.fit, "betas": tuple(cfg.fit.betas)})
    if cfg.resume not in ("auto", "never"):
        raise ValueError(f"resume must be auto or never, got {cfg.resume!r}")
    torch.set_num_threads(int(cfg.threads))
    with only_writer(folder):
        data = load_data(cfg, device)
        system = system_of(cfg, data.train)
        objective = build_objective(system, seed=int(cfg.seed), freeze=list(cfg.freeze)).to(device)
        if cfg.pretrained:
            begin_with_encoder(objective, str(cfg.pretrained))
        keeper = Keeper(folder, cfg, system=system, objective=objective, bank=data.train)
        start = keeper.last()
        if start is not None and cfg.resume == "never":
            raise ValueError(f"{folder} holds a training of {start.step} steps: resume=auto, or name another folder")
        note_origin(folder, OmegaConf.to_yaml(cfg, resolve=True))
        monitor = Monitor(
            data.train, data.held, objective=objective, window=data.window, frames=int(cfg.probe), seed=int(cfg.seed)
        )
        keeper.publish(run(objective, data, settings, seed=int(cfg.seed), keeper=keeper, monitor=monitor, start=start))
    return folder / CHECKPOINT


def run(
    objective: nn.Module,
    data: Data,
    settings: FitSettings,
    *,
    seed: int,
    keeper: Keeper,
    monitor: Monitor,
    start: FitState | None,
) -> FitState:
    """The training itself, with its journal, progress bar and signals."""
    done = 0 if start is None else start.step
    with (
        closing(Journal(keeper.folder, done=done)) as journal,
        tqdm(total=settings.steps, initial=done, unit="step", desc="training") as bar,
        Stop() as stop,
    ):
        callbacks = Callbacks(
            log=Display(journal, bar), evaluate=monitor, save=keeper.save, tick=lambda step: bar.update(), stop=stop
        )
        return fit(
            objective,
            data.draw,
            settings=settings,
            seed=seed,
            device=next(objective.parameters()).device,
            callbacks=callbacks,
            start=start,
        )


class Display:
    """Writes numbers to the journal and shows the most telling ones beside the progress bar."""

    SHOWN = ("loss", "held/loss", "probe/hand_median_cm")

    def __init__(self, journal: Journal, bar: tqdm[Any]) -> None:
        self.journal, self.bar, self.seen = journal, bar, dict[str, str]()

    def __call__(self, step: int, numbers: Mapping[str, float]) -> None:
        """Take the numbers of a step."""
        self.journal(step, numbers)
        self.seen |= {name: f"{numbers[name]:.3g}" for name in self.SHOWN if name in numbers}
        self.bar.set_postfix(self.seen, refresh=False)


class Stop:
    """Turns a signal into a request to save and end; inside a `with` block only."""

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self.asked = False
        self.before: list[Any] = []

    def __call__(self) -> bool:
        """Whether to end now."""
        return self.asked

    def __enter__(self) -> Stop:
        self.before = [signal.signal(number, self._ask) for number in self.SIGNALS]
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in zip(self.SIGNALS, self.before, strict=True):
            signal.signal(number, handler)

    def _ask(self, number: int, frame: object) -> None:
        if self.asked:  # the second one does not wait
            raise KeyboardInterrupt
        self.asked = True


def device_of(name: str) -> torch.device:
    """The device of that name; "auto" is a GPU if there is one."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError("device=cuda: no usable GPU here; use device=cpu")
    return torch.device(name)


@hydra.main(version_base=None, config_path="../configs", config_name="train")
def main(cfg: DictConfig) -> None:
    """Read the settings, train, and say in one sentence where the world model is."""
    try:
        print(f"world model: {train(cfg)}")
    except MISTAKES as mistake:
        sys.exit(f"train: {mistake}")


if __name__ == "__main__":
    run_command(main, name="train")
