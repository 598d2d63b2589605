"""Energy of each action in a world model: `python experiments/energy_landscape.py checkpoint=runs/x/checkpoint`.

The hand executes a known move, and the image after it is the goal. The plot shows the energy of every action on a grid
in x and y, and in x and z, beside the true action; a good model has its minimum there (Assran et al. 2025,
arXiv:2506.09985, figure on the energy landscape).
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hydra
import numpy as np
import torch
import torch._dynamo  # noqa: F401  before the first OpenGL context: loading it later crashes some drivers
from matplotlib.figure import Figure
from numpy.typing import NDArray
from omegaconf import DictConfig
from torch import Tensor

from jepa_mpc import envs  # noqa: F401  chooses the OpenGL backend
from jepa_mpc.envs.labs import sample_lab
from jepa_mpc.envs.reach import ReachEnv
from jepa_mpc.errors import BadCheckpoint, BadObservation, MissingPackage, UnknownName
from jepa_mpc.face.evaluation.methods import world_model_at
from jepa_mpc.face.evaluation.reach_task import reach_env
from jepa_mpc.files import write_json
from jepa_mpc.places import CONFIGS
from jepa_mpc.reporting.saving import save_figure
from jepa_mpc.runs.run_folder import claim_run
from jepa_mpc.seeding import numpy_generator
from jepa_mpc.types import Context, Goal, Observation
from jepa_mpc.world_model.dynamics.model import WorldModel

PLANES = {"xy": (0, 1), "xz": (0, 2)}
MISTAKES = (BadCheckpoint, BadObservation, MissingPackage, UnknownName, ValueError, OSError)


@dataclass(frozen=True, kw_only=True)
class Landscape:
    """Energies over one plane of actions.

    Args:
        lab: Name of the lab.
        plane: "xy" or "xz".
        axis_m: Values of each of the two actions `G`.
        energy: `G G`, first action along the first axis.
        true_m: The true action in the plane `2`.
        least_m: The action with the lowest energy `2`.
    """

    lab: str
    plane: str
    axis_m: NDArray[np.float64]
    energy: NDArray[np.float64]
    true_m: NDArray[np.float64]
    least_m: NDArray[np.float64]

    @property
    def missed_m(self) -> float:
        """Distance of the minimum from the true action."""
        return float(np.linalg.norm(self.least_m - self.true_m))


def situation(env: ReachEnv, cfg: DictConfig, index: int) -> tuple[Observation, Observation, NDArray[np.float64]]:
    """Observations before and after a move, and the measured move per step (m)."""
    lab = sample_lab(index, split=str(cfg.split), seed=int(cfg.lab_seed), level=cfg.level)
    env.reset(seed=int(cfg.seed), options={"lab": lab})
    draw = numpy_generator(int(cfg.seed), "landscape", index)
    low, high = env.arm.workspace()
    before, begin = env.observation(), env.hand_m()
    move = np.where(begin > (low + high) / 2, -1, 1) * draw.uniform(0.3, 0.8, size=3) * cfg.range_m
    action = np.concatenate([move, np.zeros(env.action_box.dim - 3)]).astype(np.float32)
    for _ in range(cfg.steps):
        env.step(action)
    return before, env.observation(), (env.hand_m() - begin) / cfg.steps


@torch.no_grad()
def energies(model: WorldModel, before: Observation, after: Observation, plans: Tensor) -> Tensor:
    """The energy `G` of each plan `G H A` from the observation before to the observation after."""
    device = next(model.objective.parameters()).device
    seen, wanted = (
        model.perception(Observation(frames=x.frames.to(device), cameras=x.cameras)) for x in (before, after)
    )
    proprio = None
    if model.needs_proprio and before.proprio is not None:
        model.check_proprio(before.proprio)
        proprio = before.proprio.to(device)
    context = Context(latents=seen, actions=plans.new_zeros(1, 0, plans.shape[-1]).to(device), proprio=proprio)
    cost, goal, candidates = model.goal_cost, Goal(latents=wanted[:, -1]), plans[None].to(device)
    count = model.dynamics.at_once(context, plans.shape[1])
    parts = [cost(model.dynamics.rollout(context, part), part, goal) for part in candidates.split(count, dim=1)]
    return torch.cat(parts, dim=1)[0].cpu()


def landscape(model: WorldModel, env: ReachEnv, cfg: DictConfig, index: int) -> list[Landscape]:
    """Both planes of one lab; the third coordinate of an action is the true one."""
    before, after, true = situation(env, cfg, index)
    axis = torch.linspace(-cfg.range_m, cfg.range_m, cfg.points)
    found = []
    for plane, (first, second) in PLANES.items():
        actions = torch.zeros(cfg.points**2, env.action_box.dim)
        actions[:, :3] = torch.from_numpy(true).float()
        grid = torch.cartesian_prod(axis, axis)
        actions[:, first], actions[:, second] = grid.T
        energy = energies(model, before, after, actions[:, None].expand(-1, cfg.steps, -1).contiguous())
        at = grid[energy.argmin()].double().numpy()
        found.append(
            Landscape(
                lab=env.lab.name,
                plane=plane,
                axis_m=axis.double().numpy(),
                energy=energy.double().numpy().reshape(cfg.points, cfg.points),
                true_m=true[[first, second]],
                least_m=at,
            )
        )
    return found


def draw(rows: list[list[Landscape]], path: Path) -> None:
    """One row of planes per lab: dark is low, a cross marks the true action, a circle the minimum."""
    figure = Figure(figsize=(3.4 * len(PLANES) + 0.6, 3.1 * len(rows)), layout="constrained")
    cells = figure.subplots(len(rows), len(PLANES), squeeze=False)
    for line, parts in zip(cells, rows, strict=True):
        for axes, part in zip(line, parts, strict=True):
            edge = 100 * part.axis_m
            axes.contourf(edge, edge, part.energy.T, levels=20, cmap="cividis")
            axes.plot(*(100 * part.true_m), "x", color="white", markersize=9, markeredgewidth=2.2, label="true")
            axes.plot(
                *(100 * part.least_m), "o", color="#D55E00", markersize=10, fillstyle="none", markeredgewidth=2,
                label="least energy",
            )  # fmt: skip
            axes.set(xlabel=f"d{part.plane[0]} (cm)", ylabel=f"d{part.plane[1]} (cm)", aspect="equal")
            axes.set_title(f"{part.lab}: {100 * part.missed_m:.1f} cm apart", fontsize=9)
    cells[0][0].legend(fontsize=8, loc="upper right")
    save_figure(figure, path)


def study(cfg: DictConfig) -> dict[str, Any]:
    """All labs: writes the plot and the numbers, and returns the numbers."""
    if cfg.points < 3 or cfg.steps < 1 or cfg.labs < 1 or not cfg.range_m > 0:
        raise ValueError("need points >= 3, steps >= 1, labs >= 1 and range_m > 0")
    folder = Path(str(cfg.out))
    claim_run(folder, "energy_landscape")
    model = world_model_at(Path(str(cfg.checkpoint)), str(cfg.device))
    env = reach_env(model.interface, budget=cfg.steps + 1)
    try:
        rows = [landscape(model, env, cfg, index) for index in range(cfg.labs)]
    finally:
        env.close()
    draw(rows, folder / "landscape.png")
    parts = [part for row in rows for part in row]
    facts = {
        "checkpoint": str(cfg.checkpoint),
        "fingerprint": model.fingerprint,
        "mean_missed_cm": 100 * float(np.mean([part.missed_m for part in parts])),
        "landscapes": [
            {
                "lab": part.lab,
                "plane": part.plane,
                "true_m": part.true_m.tolist(),
                "least_m": part.least_m.tolist(),
                "missed_m": part.missed_m,
                "energy": part.energy.tolist(),
            }
            for part in parts
        ],
    }
    write_json(folder / "landscape.json", facts)
    return facts


@hydra.main(version_base=None, config_path=str(CONFIGS), config_name="energy_landscape")
def main(cfg: DictConfig) -> None:
    """Run, draw, print the distance of the minima from the true action."""
    torch.set_num_threads(1)
    try:
        facts = study(cfg)
    except MISTAKES as error:
        sys.exit(f"energy_landscape: {error}")
    print(f"least energy {facts['mean_missed_cm']:.1f} cm from the true action on average: {cfg.out}/landscape.png")
