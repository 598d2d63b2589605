"""A training run: read the logs, build the system, train, evaluate, save."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import nn
from tqdm import tqdm

from jepa_mpc.checkpoint import load_strict
from jepa_mpc.encoders.adapters.vjepa2 import load as load_released
from jepa_mpc.encoders.layers.pixels import ScenePixels
from jepa_mpc.face.command_line import Stopped
from jepa_mpc.face.training.collapse_watch import CollapseWatch, main_input
from jepa_mpc.face.training.distributed import device_of, first_alone, joined
from jepa_mpc.face.training.found_labels import complete
from jepa_mpc.face.training.journal import CONFIG, Journal, note_origin
from jepa_mpc.face.training.keeper import CHECKPOINT, STATE, Keeper, refuse_used
from jepa_mpc.face.training.log_sources import adapter_of, check_input, check_sound, open_sources
from jepa_mpc.face.training.monitor import Monitor, doubts, knows_hand
from jepa_mpc.face.training.pretrained import begin_with_encoder, fill_encoder, is_released, with_encoder
from jepa_mpc.face.training.progress import Display, Stop
from jepa_mpc.face.training.trainable import size_scene, usual_size
from jepa_mpc.face.training.training_options import BEST, check_options, fit_settings
from jepa_mpc.files import only_writer
from jepa_mpc.runs.run_folder import refuse_strangers
from jepa_mpc.seeding import generator
from jepa_mpc.trajectories.actions import action_names
from jepa_mpc.trajectories.bank import FrameBank
from jepa_mpc.trajectories.buffers import Buffers
from jepa_mpc.trajectories.mixture import MixedBank
from jepa_mpc.trajectories.stats import action_stats
from jepa_mpc.world_model.checkpoints.assembly import assemble
from jepa_mpc.world_model.checkpoints.keypoints import TrainedFinder, load_object_finder
from jepa_mpc.world_model.dynamics.model import Interface
from jepa_mpc.world_model.training.layouts import compile_blocks
from jepa_mpc.world_model.training.loop import Callbacks, FitSettings, FitState, fit

SCENE = 512
"""Frames of the log whose mean is the scene."""


@dataclass(frozen=True, kw_only=True)
class Data:
    """The training and validation data."""

    train: FrameBank | MixedBank
    held: FrameBank | MixedBank
    window: int
    batch: int
    max_stride: int
    buffers: Buffers = field(default_factory=Buffers)

    def draw(self, stream: torch.Generator) -> dict[str, torch.Tensor]:
        """One batch of windows; the next call overwrites it."""
        bank = self.train
        shared: dict[str, Any] = {"generator": stream, "max_stride": self.max_stride}
        if isinstance(bank, MixedBank):
            return bank.sample(self.batch, self.window, **shared)
        return bank.sample(self.batch, self.window, into=self.buffers, **shared)


def load_data(cfg: DictConfig, device: torch.device, *, finder: TrainedFinder | None = None) -> Data:
    """Map the log and hold out some labs; on a GPU the whole log is loaded into its memory.

    Args:
        cfg: The options.
        device: Where the training runs.
        finder: Completes the labels of handling.
    """
    bank = open_sources(cfg)
    if finder is not None:
        bar = partial(tqdm, unit="episode", desc="finding objects", leave=False)
        bank = complete(bank, finder.network, camera=finder.camera, progress=bar)
    train, held = bank.to(device).split(float(cfg.validation), generator=generator(0, "validation labs"))
    return Data(train=train, held=held, window=int(cfg.window), batch=int(cfg.batch), max_stride=int(cfg.max_stride))


def system_of(cfg: DictConfig, bank: FrameBank | MixedBank) -> dict[str, Any]:
    """The system's configuration, completed from the log; the checkpoint stores exactly this."""
    system: dict[str, Any] = OmegaConf.to_container(cfg.system, resolve=True)  # type: ignore[assignment]
    if "rate" in system:
        check_sound(bank, int(system["rate"]), contiguous=int(cfg.skip) == int(cfg.max_stride) == 1)
    size_scene(system, picture=(3 * len(bank.cameras), *bank.picture))
    if "action_dim" not in system:  # it takes no actions
        return system
    if system["action_dim"] is None:
        system["action_dim"] = bank.action_dim
    width, scale = system["action_dim"], system.get("action_scale")
    if width != bank.action_dim or (scale is not None and len(scale) != bank.action_dim):
        scales = "" if scale is None else f" and action_scale of {len(scale)}"
        raise ValueError(
            f"the system takes actions of width {width}{scales}, the log has {bank.action_dim}: pass "
            f"system.action_dim={bank.action_dim} system.action_scale=null (measured on the log) or its "
            f"{bank.action_dim} scales"
        )
    if system.get("action_scale") is None:
        system["action_scale"] = usual_size(action_stats(bank).std).tolist()
    return system


def build_objective(system: Mapping[str, Any], *, seed: int, freeze: list[str]) -> nn.Module:
    """The training loss with fresh weights; the parts in `freeze` are frozen.

    Raises:
        ValueError: If the system rejects one of its entries, or a part to freeze does not exist.
    """
    try:
        objective: nn.Module = assemble(system, generator=generator(seed, "weights"))
    except TypeError as error:
        raise ValueError(
            f"the system cannot be built: {error}; ++system.NAME={{...}} adds to the entries that are there, an "
            "encoder is replaced as a whole by encoder=NAME (--help lists them)"
        ) from error
    for name in freeze:
        try:
            objective.get_submodule(name).requires_grad_(False)
        except AttributeError as error:
            parts = ", ".join(part for part, _ in objective.named_children())
            raise ValueError(f"cannot freeze {name!r}: the system has {parts}") from error
    return objective


def measure_scene(objective: nn.Module, bank: FrameBank | MixedBank) -> None:
    """Take the mean image of a preprocessing that needs one from frames of the log."""
    for part in objective.modules():
        if isinstance(part, ScenePixels):
            part.measure(bank.sample(SCENE, 1, generator=generator(0, "scene"))["frames"][:, 0])


def interface_of(cfg: DictConfig, bank: FrameBank | MixedBank, *, acts: bool) -> Interface:
    """Inputs and actions of the world model."""
    adapter = adapter_of(cfg, bank)
    return Interface(
        cameras=bank.cameras,
        image_size=bank.picture[1],
        actions=action_names(adapter.actions, bank.action_dim) if acts else (),
        dt_s=bank.step_s,
        log=f"{bank.num_episodes} episodes, {bank.num_steps} observations of {cfg.data}",
        robot=adapter.to_dict(),
        embodiment=bank.origin.get("embodiment", ""),
    )


def read_of(cfg: DictConfig, bank: FrameBank | MixedBank) -> dict[str, Any]:
    """Location and statistics of the log."""
    statistics = {name: stats.to_dict() for name, stats in adapter_of(cfg, bank).statistics.items()}
    return {"source": bank.origin["source"], "statistics": statistics}


@dataclass(frozen=True, kw_only=True)
class Workshop:
    """The components of one training, built and checked."""

    cfg: DictConfig
    data: Data
    objective: nn.Module
    keeper: Keeper
    settings: FitSettings
    start: FitState | None
    stop: Stop

    @property
    def done(self) -> int:
        """Steps finished before this process."""
        return 0 if self.start is None else self.start.step


def prepare(cfg: DictConfig, device: torch.device, *, stop: Stop) -> Workshop:
    """Read the log, build the network and load the state to resume from.

    Raises:
        ValueError: If the folder holds a training that cannot be resumed.
    """
    finder = load_object_finder(str(cfg.finder)) if cfg.finder else None
    data = load_data(cfg, device, finder=finder)
    if cfg.best == "hand" and not knows_hand(data.train):
        raise ValueError(f"best=hand needs a log with hand poses, {cfg.data} has none: use best=loss")
    system = system_of(cfg, data.train)
    if finder is not None and "finder" in system:
        system["finder"] = finder.described
    encoder: Any = OmegaConf.to_container(cfg.encoder, resolve=True) if cfg.get("encoder") else None
    if encoder:
        system = with_encoder(system, encoder, picture=(3 * len(data.train.cameras), *data.train.picture))
    objective = build_objective(system, seed=int(cfg.seed), freeze=list(cfg.freeze)).to(device)
    check_input(data.train, main_input(objective))
    measure_scene(objective, data.train)
    if encoder and is_released(encoder):
        arguments = {name: value for name, value in encoder.items() if name != "_target_"}
        fill_encoder(objective, load_released(**arguments), str(encoder["hub"]))
    if cfg.pretrained:
        begin_with_encoder(objective, str(cfg.pretrained))
    if finder is not None and "finder" in system:
        weights = finder.network.state_dict()
        load_strict(objective.get_submodule("finder"), weights, f"the finder (weights of {cfg.finder})")
    settings: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True)  # type: ignore[assignment]
    interface = interface_of(cfg, data.train, acts="action_dim" in system)
    protocol = {name: settings.get(name) for name in ("validation", "window", "max_stride", "probe", "evaluate")}
    keeper = Keeper(
        Path(cfg.out), settings, system=system, objective=objective, interface=interface,
        facts=read_of(cfg, data.train), best=BEST[str(cfg.best)], protocol=protocol,
    )  # fmt: skip
    start = keeper.last()
    return Workshop(
        cfg=cfg, data=data, objective=objective, keeper=keeper, settings=fit_settings(cfg), start=start, stop=stop
    )


@dataclass(frozen=True, kw_only=True)
class Trained:
    """Result of a training.

    Args:
        folder: The world model.
        doubts: Reasons against using it, each a short sentence.
    """

    folder: Path
    doubts: list[str]


def train(cfg: DictConfig) -> Path:
    """Train as configured; returns the world model's folder.

    Raises:
        Stopped: If interrupted; the state is saved, unless it was interrupted twice.
    """
    return run_training(cfg).folder


def run_training(cfg: DictConfig) -> Trained:
    """Train as configured; see `train`."""
    check_options(cfg)
    fit_settings(cfg)
    folder, device = Path(cfg.out), device_of(str(cfg.device))
    refuse_strangers(folder, "a training", lambda name: name in (STATE, CONFIG))
    torch.set_num_threads(int(cfg.threads))
    try:
        return _train(cfg, folder, device)
    except Stopped:
        raise
    except KeyboardInterrupt as stop:
        saved = "resumes from the last saved state" if (folder / STATE).exists() else "starts again"
        raise Stopped(f"at once; the same command {saved}") from stop


def _train(cfg: DictConfig, folder: Path, device: torch.device) -> Trained:
    with joined(str(cfg.parallel), device) as layout, ExitStack() as held:
        stop = Stop()
        with first_alone() as first:
            if first:
                held.enter_context(only_writer(folder))
                refuse_used(folder, OmegaConf.to_container(cfg, resolve=True), resume=str(cfg.resume))  # type: ignore[arg-type]
            shop = prepare(cfg, device, stop=stop)
        callbacks = told(shop, held) if first else Callbacks(stop=stop)
        held.enter_context(stop)
        if cfg.compile != "none":
            compile_blocks(shop.objective, str(cfg.compile))
        state = fit(
            shop.objective, shop.data.draw, settings=shop.settings, seed=int(cfg.seed), device=device,
            callbacks=callbacks, start=shop.start, layout=layout,
        )  # fmt: skip
        if first:
            shop.keeper.publish(state)
    if state.step < shop.settings.steps:
        raise Stopped(
            f"at step {state.step} of {shop.settings.steps}, which is saved: the same command resumes there; "
            f"the latest world model is {folder / CHECKPOINT}"
        )
    return Trained(folder=folder / CHECKPOINT, doubts=doubts(shop.keeper.scores))


def told(shop: Workshop, held: ExitStack) -> Callbacks:
    """Callbacks of the first process: evaluation, collapse check, saving and progress."""
    cfg, data, keeper = shop.cfg, shop.data, shop.keeper
    sizes: dict[str, Any] = {"objective": shop.objective, "window": data.window, "seed": int(cfg.seed)}
    monitor = Monitor(data.train, data.held, frames=int(cfg.probe), **sizes)
    watch = CollapseWatch(
        data.held, frames=int(cfg.watch.frames), every=int(cfg.watch.every), action=cfg.on_collapse, **sizes
    )
    judges: list[Callable[[int, nn.Module], Mapping[str, float]]] = [
        monitor,
        *([reaching(shop, held)] if cfg.get("evaluate") else []),
    ]
    note_origin(keeper.folder, OmegaConf.to_yaml(cfg, resolve=True))
    journal = held.enter_context(closing(Journal(keeper.folder, done=shop.done, recorders=list(cfg.recorders))))
    bar = held.enter_context(tqdm(total=shop.settings.steps, initial=shop.done, unit="step", desc="training"))

    def evaluate(step: int, objective: nn.Module) -> Mapping[str, float]:
        numbers = {name: value for judge in judges for name, value in judge(step, objective).items()}
        keeper.consider(step, objective, numbers)
        return numbers

    return Callbacks(
        log=Display(journal, bar, batch=data.batch),
        evaluate=evaluate,
        watch=watch,
        save=keeper.save,
        tick=lambda step: bar.update(),
        stop=shop.stop,
    )


def reaching(shop: Workshop, held: ExitStack) -> Callable[[int, nn.Module], Mapping[str, float]]:
    """Episodes in the simulator; the only place here that imports it."""
    from jepa_mpc.face.training.reach_evaluation import ReachEvaluation

    judge = ReachEvaluation(
        shop.cfg.evaluate, objective=shop.objective, interface=shop.keeper.interface, stop=shop.stop
    )
    return held.enter_context(closing(judge))
