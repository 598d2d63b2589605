"""Counterfactuals (a puck removed or moved): predictions compared with the simulator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from jepa_mpc.envs.pucks import NUM_BODIES, WALL_M, PuckTable, radii_m
from jepa_mpc.experiments.evaluation.objects.puck_recording import Episodes
from jepa_mpc.experiments.evaluation.objects.slot_logs import Readout, TrueSlots
from jepa_mpc.experiments.evaluation.objects.slot_predictors import SlotWindows
from jepa_mpc.seeding import numpy_generator
from jepa_mpc.world_model.parts.predictors.object_world import ObjectWorld

Change = Literal["removed", "moved"]
Role = Literal["in the way", "far away"]
SHIFT_M = 0.12
STAYS_M, CHANGES_M = 0.002, 0.01
"""A displacement below the first bound counts as untouched, above the second as touched."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One puck of one window, and the simulated result of removing or moving it.

    Args:
        window: Number of the window.
        slot: The puck.
        change: The kind of change.
        role: Whether it touches anything in the window.
        offset_m: Its displacement; zero if it is removed.
        after_m: Final positions of all slots' bodies, `(N, 2)`.
    """

    window: int
    slot: int
    change: Change
    role: Role
    offset_m: NDArray[np.float64]
    after_m: NDArray[np.float64]


def ask_simulator(episodes: Episodes, windows: SlotWindows, *, most: int, seed: int = 0) -> list[Case]:
    """Cases of both changes and both roles, at most `most` of each, simulated with the same actions."""
    table, rng, cases = PuckTable(), numpy_generator(seed, "what if"), []
    left = {(change, role): most for change in ("removed", "moved") for role in ("in the way", "far away")}
    for window in rng.permutation(len(windows.known)):
        for slot in torch.nonzero(windows.pucks[window]).flatten().tolist():
            role: Role = "in the way" if bool(windows.met[window, :, slot].any()) else "far away"
            for change in ("removed", "moved"):
                offset = np.zeros(2) if change == "removed" else _offset(windows, int(window), slot, rng)
                if left[change, role] and offset is not None:
                    left[change, role] -= 1
                    after = _again(table, episodes, windows, int(window), slot, offset, gone=change == "removed")
                    cases.append(
                        Case(
                            window=int(window),
                            slot=slot,
                            change=change,  # type: ignore[arg-type]
                            role=role,
                            offset_m=offset,
                            after_m=after,
                        )
                    )
    return cases


def _offset(windows: SlotWindows, window: int, slot: int, rng: np.random.Generator) -> NDArray[np.float64] | None:
    """A displacement to a position that is free in all known frames, or None."""
    times = windows.known.shape[1]
    places = windows.places_m[window, :times].double().numpy()
    radii = radii_m()[windows.bodies[window].numpy()]
    others = np.arange(len(radii)) != slot
    for _ in range(20):
        angle = rng.uniform(-np.pi, np.pi)
        offset = SHIFT_M * np.array([np.cos(angle), np.sin(angle)])
        there = places[:, slot] + offset
        gaps = np.linalg.norm(places[:, others] - there[:, None], axis=-1) - radii[others] - radii[slot]
        if (gaps > 0).all() and (np.abs(there) < WALL_M - radii[slot]).all():
            return offset
    return None


def _again(
    table: PuckTable,
    episodes: Episodes,
    windows: SlotWindows,
    window: int,
    slot: int,
    offset_m: NDArray[np.float64],
    *,
    gone: bool,
) -> NDArray[np.float64]:
    """Simulate the actions again from the last known frame, with one puck changed."""
    (episode, begin), times = windows.at[window].tolist(), windows.known.shape[1]
    state = episodes.states[episode, begin + times - 1].numpy().copy()
    body = int(windows.bodies[window, slot])
    present = episodes.present[episode].numpy().copy()
    state[2 * body : 2 * body + 2] += offset_m
    present[body] = not gone
    table.lay(np.clip(state[: 2 * NUM_BODIES].reshape(-1, 2), -WALL_M, WALL_M), present)
    table.set_state(state)
    for action in windows.actions[window, times - 1 :].numpy():
        table.step(action)
    return table.places_m()[windows.bodies[window].numpy()]


@torch.no_grad()
def ask_model(
    world: ObjectWorld, windows: SlotWindows, cases: list[Case], readout: Readout, network: TrueSlots
) -> dict[Change, tuple[Tensor, Tensor]]:
    """Predicted final positions of all bodies `(G, N, 2)`, without and with the change.

    A removed puck stays at its old position as an empty slot.
    """
    answers = {}
    for change in ("removed", "moved"):
        asked = [case for case in cases if case.change == change]
        rows, slots = torch.tensor([case.window for case in asked]), torch.tensor([case.slot for case in asked])
        before = _ends(world, windows.known[rows], windows.actions[rows], readout)
        offsets = torch.as_tensor(np.stack([case.offset_m for case in asked]), dtype=torch.float32)
        if change == "moved":
            known = _shifted(windows, rows, slots, offsets, network)
            after = _ends(world, known, windows.actions[rows], readout)
        else:
            keep = torch.arange(before.shape[1]) != slots[:, None]
            fewer = windows.known[rows].transpose(1, 2)[keep].unflatten(0, (len(rows), -1)).transpose(1, 2)
            after = before.clone()
            after[keep] = _ends(world, fewer, windows.actions[rows], readout).flatten(0, 1)
        answers[change] = (before, after)
    return answers  # type: ignore[return-value]


def _ends(world: ObjectWorld, known: Tensor, actions: Tensor, readout: Readout) -> Tensor:
    return readout(world.imagine(known, actions)[:, -1, : known.shape[2]])


def _shifted(windows: SlotWindows, rows: Tensor, slots: Tensor, offsets: Tensor, network: TrueSlots) -> Tensor:
    """The history with the puck displaced in all frames."""
    times = windows.known.shape[1]
    places = windows.places_m[rows, :times].clone()
    number = torch.arange(len(rows))
    places[number, :, slots] += offsets[:, None]
    return network(places, windows.bodies[rows][:, None])


def compare(
    windows: SlotWindows, cases: list[Case], answers: dict[Change, tuple[Tensor, Tensor]]
) -> dict[str, dict[str, float]]:
    """Changes of the other pucks, by the simulator and by the predictor, for every change and role, in mm."""
    table = {}
    for change, (before, after) in answers.items():
        asked = [case for case in cases if case.change == change]
        rows = torch.tensor([case.window for case in asked])
        truth = torch.as_tensor(np.stack([case.after_m for case in asked]), dtype=torch.float32)
        true_change = truth - windows.places_m[rows, -1]
        slots = torch.tensor([case.slot for case in asked])
        others = windows.pucks[rows] & (torch.arange(before.shape[1]) != slots[:, None])
        own = torch.arange(len(asked)), slots
        for role in ("in the way", "far away"):
            chosen = torch.tensor([case.role == role for case in asked])
            row = _row(true_change[chosen], (after - before)[chosen], others[chosen])
            row["cases"] = float(chosen.sum())
            if change == "moved":
                row["own_error_mm"] = _mean_mm((after[own] - truth[own])[chosen].norm(dim=-1))
                row["own_before_error_mm"] = _mean_mm(
                    (before[own] - windows.places_m[rows, -1][own])[chosen].norm(dim=-1)
                )
            table[f"{change}, {role}"] = row
    return table


def _row(truth: Tensor, answer: Tensor, others: Annotated[Tensor, "G N"]) -> dict[str, float]:
    size, said = truth.norm(dim=-1), answer.norm(dim=-1)
    stay, change = others & (size < STAYS_M), others & (size > CHANGES_M)
    row = {
        "stay": float(stay.sum()),
        "stay_said_mm": _mean_mm(said[stay]),
        "change": float(change.sum()),
        "change_true_mm": _mean_mm(size[change]),
        "change_said_mm": _mean_mm(said[change]),
        "change_gap_mm": _mean_mm((answer - truth)[change].norm(dim=-1)),
        "auroc": float("nan"),
    }
    if bool(stay.any()) and bool(change.any()):
        gap = said[change][:, None] - said[stay][None]
        row["auroc"] = float(((gap > 0).double() + 0.5 * (gap == 0).double()).mean())
    return row


def _mean_mm(distances_m: Tensor) -> float:
    return float(1000 * distances_m.mean()) if len(distances_m) else float("nan")
