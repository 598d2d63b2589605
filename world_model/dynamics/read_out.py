"""A world model of handling as a plant with sensors: hand, object and grip along imagined plans.

    hand_h   = hand + a_1 + ... + a_h, kept within the workspace        (the model's action is the measured motion)
    object_h = object_h-1 + k_h (hand_h + r_object(z_h) + bias - object_h-1)  (z_h is predicted, r_* and s_* are heads)
    bias     = object_0 - hand_0 - r_object(z_0)                         (r_object also depends on the hand's height)
    k_h      = max(w_h r_held(z_h),  v_h / (v_h + s_object(z_h)^2)),          v_h = (5 cm w_h)^2
    grip_h   = commanded opening - widest * (shares so far), within [0, widest]
    w_h      = exp(-(d_h / 4.5 cm)^2),   d_h the distance of the object from the nearer end of the hand's step

Predicted readings are corrected by the error of the present one, so that no plan seems to move the object by that
error. What the hand is not near stays where it is: there the readings are poor. What the hand holds (r_held, within
[0, 1]) goes where it is read to be. What it merely touches is filtered as observations are (`HandlingEyes`): the surer
the head is of its reading, the more. So costs that are written for a simulator's sensors judge a learned world, too,
and whatever the hand does to the object was predicted in latents.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import torch
from torch import Tensor

from jepa_mpc.interfaces import Dynamics
from jepa_mpc.shapes import check_shape
from jepa_mpc.types import Context, Plans, Rollout

KNOWN_DIM = 7  # positions of hand and object, and the commanded opening, m
REACH_M, PUSHED_M = 0.045, 0.05  # so near, the hand acts on the object; so far, it pushes it in one step
GRIPPER = 6
HEIGHT = 2  # of a position


class ReadOutDynamics:
    """Plans of the arm in, latents and sensors out.

    Args:
        dynamics: The world model's; its actions are those of `trajectories.actions.HandAndGrip`.
        read_object: Maps latents `... N D` and heights of the hand `...` (m) to the object's place seen from the hand
            `... 3`, m.
        doubt_m: Maps the same to the expected error of that reading `...`, m.
        read_held: Maps latents `... N D` to whether something is in the hand `... 1`, 0 to 1.
        low: Lowest corner `3` of where the hand is kept, m.
        high: Highest corner.
        widest_m: Largest opening of a finger.
    """

    def __init__(
        self,
        dynamics: Dynamics,
        read_object: Callable[[Tensor, Tensor], Tensor],
        doubt_m: Callable[[Tensor, Tensor], Tensor],
        read_held: Callable[[Tensor], Tensor],
        *,
        low: Annotated[Tensor, "3"],
        high: Annotated[Tensor, "3"],
        widest_m: float,
    ) -> None:
        self.dynamics, self.read_object, self.doubt_m, self.read_held = dynamics, read_object, doubt_m, read_held
        self.low, self.high, self.widest_m = low, high, widest_m

    @torch.no_grad()
    def rollout(self, context: Context, plans: Plans) -> Rollout:
        """Imagine plans `B S H 7` from the newest state; its proprioception is hand, object and commanded opening `7`.

        Returns:
            Latents, and sensors `B S H 10`: hand, object, upright axis (always upright), grip.

        Raises:
            ValueError: If the context does not say where hand and object are.
        """
        sizes = check_shape(plans, "B S H A")
        if context.proprio is None or context.proprio.shape[-1] != KNOWN_DIM:
            raise ValueError(
                "this world starts from the positions of hand and object and the commanded opening: proprio 7"
            )
        known = context.proprio[:, -1, None].expand(-1, sizes["S"], -1)  # (B, S, 7)
        felt, found = known[..., [0, 1, 2, 6]], known[..., 3:6]
        places, openings = self._led(felt, plans)
        before = torch.cat([felt[:, :, None], torch.cat([places, openings], dim=-1)[:, :, :-1]], dim=2)
        actions = torch.cat([places - before[..., :3], before[..., 3:], openings], dim=-1)
        newest = Context(latents=context.latents[:, -1:], actions=actions[:, 0, :0])
        imagined = self.dynamics.rollout(newest, actions)
        now = self.read_object(context.latents[:, -1, None], felt[:, :1, HEIGHT])  # the same for all plans
        bias = found - felt[..., :3] - now
        heights = places[..., HEIGHT]
        read = places + self.read_object(imagined.latents, heights) + bias[:, :, None]
        held = self.read_held(imagined.latents)[..., 0].clamp(0.0, 1.0)
        hand = torch.cat([felt[:, :, None, :3], places], dim=2)
        objects = followed(found, read, hand, held, self.doubt_m(imagined.latents, heights))
        return Rollout(latents=imagined.latents, sensors=sensors(places, objects, openings))

    def over(self, dynamics: Dynamics) -> ReadOutDynamics:
        """The same heads over other predictions of latents."""
        heads = self.read_object, self.doubt_m, self.read_held
        return ReadOutDynamics(dynamics, *heads, low=self.low, high=self.high, widest_m=self.widest_m)

    def _led(self, felt: Annotated[Tensor, "B S 4"], plans: Plans) -> tuple[Tensor, Tensor]:
        """Places `B S H 3` and openings `B S H 1` that plans lead to."""
        place, opening = felt[..., :3], felt[..., 3:]
        places, openings = [], []
        for action in plans.unbind(dim=2):
            place = torch.maximum(torch.minimum(place + action[..., :3], self.high), self.low)
            opening = (opening - self.widest_m * action[..., GRIPPER : GRIPPER + 1]).clamp(0.0, self.widest_m)
            places.append(place)
            openings.append(opening)
        return torch.stack(places, dim=2), torch.stack(openings, dim=2)


class StillLatents:
    """A predictor that predicts nothing: the last latent state stays."""

    def rollout(self, context: Context, plans: Plans) -> Rollout:
        """The last state of the context `B T N D` at each step of plans `B S H A`."""
        latents = context.latents[:, -1, None, None]
        return Rollout(latents=latents.expand(-1, *plans.shape[1:3], -1, -1))


def followed(
    start: Annotated[Tensor, "B S 3"],
    read: Annotated[Tensor, "B S H 3"],
    hand: Annotated[Tensor, "B S H+1 3"],
    held: Annotated[Tensor, "B S H"],
    doubt_m: Annotated[Tensor, "B S H"],
) -> Annotated[Tensor, "B S H 3"]:
    """Where an object goes that is read to be somewhere along a plan (m), and moves only where a hand is near it."""
    place, places = start, []
    for step, there in enumerate(read.unbind(dim=2)):
        away = torch.minimum((hand[:, :, step] - place).norm(dim=-1), (hand[:, :, step + 1] - place).norm(dim=-1))
        share = near(away)
        pushed = (PUSHED_M * share) ** 2
        gain = torch.maximum(share * held[:, :, step], pushed / (pushed + doubt_m[:, :, step] ** 2))
        place = place + gain[..., None] * (there - place)
        places.append(place)
    return torch.stack(places, dim=2)


def near(away_m: Tensor) -> Tensor:
    """How much a hand at some distance (m) may move an object: 1 at the object, 0 far away."""
    return (-((away_m / REACH_M) ** 2)).exp()


def sensors(
    hand: Annotated[Tensor, "... 3"], thing: Annotated[Tensor, "... 3"], opening: Annotated[Tensor, "... 1"]
) -> Annotated[Tensor, "... 10"]:
    """What a simulator's sensors would read: hand, object, its upright axis (always upright), grip."""
    return torch.cat([hand, thing, hand.new_tensor([0.0, 0.0, 1.0]).expand_as(hand), opening], dim=-1)
