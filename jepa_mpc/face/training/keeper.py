"""What a run folder keeps: the state to resume from, the latest world model, and the best one so far."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from torch import nn

from jepa_mpc.checkpoint import load_checkpoint, pack_state, save_checkpoint, unpack_state
from jepa_mpc.files import published
from jepa_mpc.reading import open_checkpoint
from jepa_mpc.world_model.checkpoints.loader import save_world_model
from jepa_mpc.world_model.dynamics.model import Interface
from jepa_mpc.world_model.training.loop import FitSettings, FitState

STATE, CHECKPOINT, BEST = "state", "checkpoint", "best"
ALWAYS = {"skip": 1, "blocks": "joined"}  # values of trainings older than these options
FREE = (  # may change when a training resumes
    *("out", "device", "resume", "threads", "data", "ingest", "hydra"),
    *("parallel", "compile", "recorders", "on_collapse", "watch", "best", "evaluate"),
)
USUAL_FIT = {field.name: field.default for field in fields(FitSettings) if isinstance(field.default, int | float)}


class Keeper:
    """Publishes the state of a training and its world model.

    Args:
        folder: The run folder.
        settings: All options of the training.
        system: Configuration of the network.
        objective: The network, for its structure.
        interface: Its inputs and actions.
        facts: Further facts for the checkpoint (about the log).
        best: Metric that selects the best world model; lower is better.
        protocol: How the metrics were measured.
    """

    def __init__(
        self,
        folder: Path,
        settings: Mapping[str, Any],
        *,
        system: Mapping[str, Any],
        objective: nn.Module,
        interface: Interface,
        facts: Mapping[str, Any],
        best: str,
        protocol: Mapping[str, Any],
    ) -> None:
        self.folder, self.system, self.settings, self.interface = folder, system, settings, interface
        self.facts = {"settings": settings, **facts, "evaluation": {"protocol": protocol}}
        self.shown = copy.deepcopy(objective)
        self.best, self.least = best, float("inf")
        self.scores: Mapping[str, float] = {}

    def save(self, state: FitState) -> None:
        """Write the state first, then the world model (with averaged weights if there are any)."""
        tensors, layout = pack_state(vars(state))
        save_checkpoint(self.folder / STATE, tensors, {"layout": layout, "settings": self.settings})
        self.publish(state)

    def publish(self, state: FitState) -> None:
        """Write the latest world model."""
        weights = state.objective if state.average is None else state.average
        self.shown.load_state_dict({name: weights[name] for name in state.objective})
        self._publish(CHECKPOINT, self.shown, {"steps": state.step, **self.facts})

    def consider(self, step: int, objective: nn.Module, scores: Mapping[str, float]) -> None:
        """Note the scores of a world model, and write it if it is the best so far."""
        self.scores = scores
        value = scores.get(self.best, float("nan"))
        if value < self.least:
            self.least = value
            known = {name: number for name, number in scores.items() if abs(number) < float("inf")}
            judged = {**self.facts["evaluation"], "decided by": self.best, "scores": known}
            self._publish(BEST, objective, {"steps": step, **self.facts, "evaluation": judged})

    def last(self) -> FitState | None:
        """The last saved state, or None; also restores the best score so far.

        Raises:
            BadCheckpoint: If it is damaged.
            ValueError: If it was made with other settings.
        """
        if not published(self.folder / STATE).exists():
            return None
        tensors, config = load_checkpoint(self.folder / STATE)
        _refuse_other(self.folder, config["settings"], self.settings)
        if published(self.folder / BEST).exists():
            judged = load_checkpoint(self.folder / BEST)[1]["training"]["evaluation"]
            self.least = judged["scores"][self.best] if judged["decided by"] == self.best else self.least
        return FitState(**unpack_state(tensors, config["layout"]))

    def _publish(self, name: str, objective: nn.Module, training: Mapping[str, Any]) -> None:
        save_world_model(self.folder / name, objective, system=self.system, interface=self.interface, training=training)


def refuse_used(folder: Path, settings: Mapping[str, Any], *, resume: str) -> None:
    """Refuse a folder whose training cannot be resumed, before any work; reads no weights.

    Args:
        folder: The run folder.
        settings: All options of the training.
        resume: "auto" resumes a training of the same settings, "never" resumes none.

    Raises:
        BadCheckpoint: If the saved state is damaged.
        ValueError: If the training there has other settings, or must not be resumed.
    """
    if not published(folder / STATE).exists():
        return
    with open_checkpoint(folder / STATE) as opened:
        config = opened.config
    _refuse_other(folder, config["settings"], settings)
    if resume == "never":
        steps = dict(config["layout"]["mapping"])["step"]
        raise ValueError(f"{folder} holds a training of {steps} steps: use resume=auto, or choose another folder")


def _refuse_other(folder: Path, then: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    other = other_settings(then, now)
    if other:
        raise ValueError(f"{folder} was trained with other settings of {', '.join(other)}: choose another folder")


def other_settings(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Names of the settings that differ and must not; options unknown at that time had their defaults."""
    then, now = ({**ALWAYS, **one, "fit": {**USUAL_FIT, **one["fit"]}} for one in (then, now))
    names = sorted((then.keys() | now.keys()) - set(FREE))
    return [str(name) for name in names if then.get(name) != now.get(name)]
