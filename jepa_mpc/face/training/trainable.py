"""World models for external training loops: built, described, saved and loaded here, trained elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from jepa_mpc.errors import choose
from jepa_mpc.places import CONFIGS
from jepa_mpc.seeding import generator
from jepa_mpc.world_model.checkpoints.assembly import assemble
from jepa_mpc.world_model.checkpoints.loader import interface_of, save_world_model
from jepa_mpc.world_model.checkpoints.restore import MISFITS, load_network
from jepa_mpc.world_model.dynamics.model import Interface, WorldModel
from jepa_mpc.world_model.parts.objectives.dynamics import DynamicsObjective
from jepa_mpc.world_model.recipes import as_world_model

STILL = 1e-3
"""In the action's own unit; an axis with a smaller spread counts as fixed."""


@dataclass(frozen=True, kw_only=True)
class TrainableModel:
    """A world model to be trained by an external loop.

    Args:
        objective: Network and loss: `objective({"frames": B T C h w, "actions": B T-1 A}, generator)` gives a `Loss`.
        system: The configuration from which `assemble` builds it.
        interface: Its inputs and actions.
    """

    objective: DynamicsObjective
    system: Mapping[str, Any]
    interface: Interface

    def world_model(self) -> WorldModel:
        """Perception, dynamics and goal cost with the current weights.

        Raises:
            BadCheckpoint: If the system does not predict the effects of actions.
        """
        return as_world_model(self.objective, self.interface)

    def describe(self) -> dict[str, Any]:
        """Plain values from which `described_model` rebuilds the same network."""
        return {"system": dict(self.system), "interface": self.interface.to_dict()}

    def save(self, folder: str | Path) -> None:
        """Publish a checkpoint with the current weights; it replaces an older one at this path as a whole."""
        save_world_model(folder, self.objective, system=self.system, interface=self.interface)


def new_model(
    system: str,
    interface: Interface,
    *,
    spread: Tensor | Sequence[float],
    seed: int = 0,
) -> TrainableModel:
    """A world model with fresh weights.

    Args:
        system: The name of a file in configs/system.
        interface: Its inputs and actions; defines the number of cameras and the action width.
        spread: Standard deviation of the actions per axis.
        seed: Seed of the weights.

    Raises:
        UnknownName: If there is no such system.
        ValueError: If the system does not accept such images or actions, or is not a world model.
    """
    files = {path.stem: path for path in (CONFIGS / "system").glob("*.yaml")}
    entries = yaml.safe_load(choose(files, system, "system").read_text(encoding="utf-8"))
    entries |= {"action_dim": len(interface.actions), "action_scale": usual_size(torch.as_tensor(spread)).tolist()}
    if "num_cameras" in entries.get("encoder", {}):
        entries["encoder"]["num_cameras"] = len(interface.cameras)
    size_scene(entries, picture=(3 * len(interface.cameras), *interface.side))
    return _built(entries, interface, seed=seed, name=system)


def size_scene(system: Mapping[str, Any], *, picture: Sequence[int]) -> None:
    """Give the system's mean image, if it takes one, the channels, height and width of the frames."""
    if (system.get("preprocess") or {}).get("_target_") == "scene_pixels":
        system["preprocess"]["size"] = list(picture)


def described_model(value: Mapping[str, Any]) -> TrainableModel:
    """Rebuild a model from `TrainableModel.describe`; its weights must be loaded separately.

    Raises:
        ValueError: If the description has another version.
    """
    try:
        system, interface = value["system"], interface_of(value)
    except (KeyError, TypeError) as error:
        raise ValueError(f"this does not describe a world model: {error!r}") from error
    return _built(system, interface, seed=0, name=str(system.get("_target_")))


def open_model(checkpoint: str | Path) -> TrainableModel:
    """Open the world model of a checkpoint for further training.

    Args:
        checkpoint: The name of a shipped one, a folder, or `hf://owner/name`.

    Raises:
        BadCheckpoint: If it is missing or damaged, or is an ensemble.
    """
    objective, config = load_network(checkpoint, kind="world model", form=DynamicsObjective)
    return TrainableModel(objective=objective, system=config["system"], interface=interface_of(config))


def usual_size(spread: Tensor) -> Tensor:
    """Typical action size `(A,)` from the standard deviation of each axis; 1 for a fixed axis."""
    return torch.where(spread > STILL, spread, torch.ones_like(spread)).float()


def _built(system: Mapping[str, Any], interface: Interface, *, seed: int, name: str) -> TrainableModel:
    try:
        objective = assemble(system, generator=generator(seed, "weights"))
        model = TrainableModel(objective=objective, system=system, interface=interface)
        objective.eval()
        with torch.no_grad():
            model.world_model().try_out()
    except MISFITS as error:
        raise ValueError(
            f"the system {name} is not a world model for {len(interface.cameras)} images of {interface.image_size} px "
            f"and actions of {len(interface.actions)} numbers: {error}"
        ) from error
    return model
