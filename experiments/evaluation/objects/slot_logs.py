"""Episodes as slots, from simulator state or learned from images; and positions read out from slots."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from jepa_mpc.encoders.slot_sources import StateSlots
from jepa_mpc.envs.pucks import NUM_BODIES, WALL_M
from jepa_mpc.experiments.evaluation.objects.puck_recording import Episodes
from jepa_mpc.seeding import generator
from jepa_mpc.types import Latents

KINDS = NUM_BODIES
NOBODY = -1
RIDGE = 1e-4
FAINT = 0.5
"""Weight of the identity of a body relative to its position, so that positions dominate the loss."""


@dataclass(frozen=True, kw_only=True)
class SlotLog:
    """Episodes with slots instead of images; all with the same number of slots.

    Args:
        slots: `B T N D`.
        actions: `B T 2` (m).
        bodies: int64 `B N`: the body of each slot, -1 for none.
        places_m: `B T N 2` of those bodies.
        met: bool `B T N N`: which of them touched during action t.
        episodes: int64 `B`: numbers in the recording.
    """

    slots: Latents
    actions: Tensor
    bodies: Annotated[Tensor, "B N"]
    places_m: Tensor
    met: Tensor
    episodes: Annotated[Tensor, "B"]

    def windows(self, batch: int, length: int, stream: torch.Generator) -> dict[str, Tensor]:
        """Windows sampled uniformly: slots `B T N D` and actions `B T-1 2`."""
        rows = torch.randint(len(self.slots), (batch,), generator=stream)
        begin = torch.randint(self.slots.shape[1] - length + 1, (batch,), generator=stream)
        times = begin[:, None] + torch.arange(length)
        return {"slots": self.slots[rows[:, None], times], "actions": self.actions[rows[:, None], times[:, :-1]]}


@dataclass(frozen=True, kw_only=True)
class Readout:
    """A linear readout of positions from slots, fitted by ridge regression.

    Args:
        weight: `(D + 1, 2)`; the last row is the constant.
    """

    weight: Tensor

    def __call__(self, slots: Annotated[Tensor, "... D"]) -> Annotated[Tensor, "... 2"]:
        """Positions in metres."""
        return slots @ self.weight[:-1] + self.weight[-1]


def fitted(logs: dict[int, SlotLog]) -> Readout:
    """The readout fitted to all slots with a body."""
    slots = torch.cat([log.slots[_owned(log)] for log in logs.values()]).double()
    places = torch.cat([log.places_m[_owned(log)] for log in logs.values()]).double()
    inputs = F.pad(slots, (0, 1), value=1.0)
    gram = inputs.T @ inputs
    gram = gram + RIDGE * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
    return Readout(weight=torch.linalg.solve(gram, inputs.T @ places).float())


def read_error_m(readout: Readout, log: SlotLog) -> float:
    """Mean distance between the readout and the true positions."""
    owned = _owned(log)
    return float((readout(log.slots[owned]) - log.places_m[owned]).norm(dim=-1).mean())


class TrueSlots(nn.Module):
    """Slots from simulator state: position and kind of each body through a fixed network, scaled to unit deviation.

    Args:
        width: Width D of the slots.
    """

    gives_slots = True

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.network = StateSlots(2 + KINDS, width=width, generator=generator(0, "state slots"))
        line = torch.linspace(-WALL_M, WALL_M, 9)
        spots = torch.cartesian_prod(line, line)[None, :, None].expand(1, -1, KINDS, -1)
        usual = self.network(_told(spots, torch.arange(KINDS))).flatten(0, 2)
        self.register_buffer("mean", usual.mean(dim=0))
        self.register_buffer("std", usual.std(dim=0))

    def forward(self, places_m: Annotated[Tensor, "B T N 2"], bodies: Annotated[Tensor, "... N"]) -> Latents:
        """Positions of these bodies to slots `B T N D`."""
        return (self.network(_told(places_m, bodies)) - self.mean) / self.std


def _told(places_m: Annotated[Tensor, "... N 2"], bodies: Annotated[Tensor, "... N"]) -> Tensor:
    """Positions as shares of the table, and the identity of the body."""
    kinds = F.one_hot(bodies, KINDS).to(places_m.dtype)
    return torch.cat([places_m / WALL_M, FAINT * kinds.expand(*places_m.shape[:-1], KINDS)], dim=-1)


def true_slots(episodes: Episodes, network: TrueSlots, counts: tuple[int, ...]) -> dict[int, SlotLog]:
    """Slots from simulator state, one log for every number of pucks: as many slots as there are bodies."""
    logs = {}
    for count in counts:
        rows = episodes.counted(count)
        bodies = torch.nonzero(episodes.present[rows])[:, 1].view(len(rows), 1 + count)
        logs[count] = made(episodes, rows, bodies, slots=None, network=network)
    return logs


def made(
    episodes: Episodes,
    rows: Annotated[Tensor, "B"],
    bodies: Annotated[Tensor, "B N"],
    *,
    slots: Latents | None,
    network: TrueSlots | None = None,
) -> SlotLog:
    """The log of some episodes whose slots belong to these bodies; without slots, the network computes them."""
    at = bodies.clamp(min=0)
    steps, count = episodes.actions.shape[1], bodies.shape[1]
    wide = at[:, None].expand(-1, steps, -1)
    places = episodes.places_m[rows].gather(2, wide[..., None].expand(-1, -1, -1, 2))
    met = episodes.met[rows].gather(2, wide[..., None].expand(-1, -1, -1, NUM_BODIES))
    met = met.gather(3, wide[:, :, None].expand(-1, -1, count, -1))
    owned = bodies != NOBODY
    met = met & (owned[:, :, None] & owned[:, None, :])[:, None]
    if slots is None:
        assert network is not None
        slots = network(places, at[:, None])
    return SlotLog(slots=slots, actions=episodes.actions[rows], bodies=bodies, places_m=places, met=met, episodes=rows)


def _owned(log: SlotLog) -> Annotated[Tensor, "B T N"]:
    return (log.bodies != NOBODY)[:, None].expand(log.slots.shape[:3])
