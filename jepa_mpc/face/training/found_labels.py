"""Labels of handling logs completed by sight: where the object was in frames in which nobody felt it.

In each episode a few frames show the object in or below the hand, by feel. The finder matches every frame with these;
its readings and the felt positions are joined by the agent's own filter (`Track`) forwards and by a smoother backwards
(Rauch, Tung, Striebel 1965): an object moves only where the hand is near, so what is seen before and after a push says
where it was during it. So pushes get labels, too, and the world model is taught what they do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Annotated

import torch
from torch import Tensor

from jepa_mpc.encoders.convnet import CHANNELS_PER_CAMERA
from jepa_mpc.encoders.object_finder import ObjectFinder
from jepa_mpc.trajectories.episode import OBJECT_FELT
from jepa_mpc.trajectories.framebank import FrameBank
from jepa_mpc.trajectories.mixture import MixedBank
from jepa_mpc.world_model.agents.handling_eyes import HAND, Track
from jepa_mpc.world_model.dynamics.read_out import HEIGHT
from jepa_mpc.world_model.parts.finding import shows_object

Progress = Callable[[Iterable[int]], Iterable[int]]
REFERENCES = 3  # frames of an episode that show the object; the median of what is found by them counts
APART_M = 0.03  # frames with the object below the hand are preferred to those with it in the hand
FELT_M, SEEN_M = 0.006, 0.004  # error of what was felt; least error of what was found
SURE_M = 0.02  # a label is completed where it is expected to be off by less


def complete(
    bank: FrameBank | MixedBank, finder: ObjectFinder, *, camera: str, progress: Progress = iter
) -> FrameBank | MixedBank:
    """The bank with `object_felt` completed where the finder is sure; felt labels stay.

    Args:
        bank: A log of handling, or a mixture in which some logs are.
        finder: Finds the object.
        camera: Name of the camera in whose images it does.
        progress: Wraps the loop over the episodes of each log (a progress bar).

    Raises:
        ValueError: If no log tells what the hand felt, or the log lacks the camera.
    """
    banks = bank.banks if isinstance(bank, MixedBank) else (bank,)
    if not any(OBJECT_FELT in one.extras for one in banks):
        raise ValueError("a finder completes labels of handling, which no log here has: record one with policy=handle")
    made = tuple(_complete(one, finder, camera, progress) if OBJECT_FELT in one.extras else one for one in banks)
    return replace(bank, banks=made) if isinstance(bank, MixedBank) else made[0]


def _complete(bank: FrameBank, finder: ObjectFinder, camera: str, progress: Progress) -> FrameBank:
    if camera not in bank.cameras:
        raise ValueError(
            f"the finder looks through the camera {camera}, the log is read with {', '.join(bank.cameras)}: name it in "
            "cameras=[...]"
        )
    first = CHANNELS_PER_CAMERA * bank.cameras.index(camera)
    labels = bank.extras[OBJECT_FELT].clone()
    for episode in progress(bank.episodes.tolist()):
        span = slice(int(bank.offsets[episode]), int(bank.offsets[episode + 1]))
        frames = bank.frames[span, first : first + CHANNELS_PER_CAMERA]
        labels[span] = _completed(labels[span], frames, bank.proprio[span], finder)
    return replace(bank, extras={**bank.extras, OBJECT_FELT: labels})


def _completed(labels: Tensor, frames: Tensor, proprio: Tensor, finder: ObjectFinder) -> Tensor:
    """Labels `T 3` of one episode, with those that can be found in its frames `T 3 h w`."""
    shown = _references(labels)
    if not shown:
        return labels
    known = labels.isfinite().all(dim=-1)
    hand = proprio[:, HAND].float()
    found, doubts = zip(*(finder.find(frames, frames[at], hand[:, HEIGHT]) for at in shown), strict=True)
    place = torch.stack(found).median(dim=0).values
    differ = (torch.stack(found) - place).norm(dim=-1).mean(dim=0)
    doubt = (torch.stack(doubts).median(dim=0).values + differ / 2).square().add(SEEN_M**2).sqrt()
    place, doubt = torch.where(known[:, None], labels, place), torch.where(known, FELT_M, doubt)
    smooth, spread = smoothed(place, doubt, hand)
    return torch.where((~known & (spread < SURE_M))[:, None], smooth, labels)


def smoothed(
    readings: Annotated[Tensor, "T 3"], doubts: Annotated[Tensor, "T"], hand: Annotated[Tensor, "T 3"]
) -> tuple[Annotated[Tensor, "T 3"], Annotated[Tensor, "T"]]:
    """The object seen from the hand in every frame of an episode, and the error to be expected of it (m).

    Args:
        readings: The object as read in each frame, seen from the hand.
        doubts: Expected error of each reading, positive.
        hand: Position of the hand.
    """
    track, places, spreads, before = Track(), [], [], []
    for t, (seen, doubt_m) in enumerate(zip(hand + readings, doubts.tolist(), strict=True)):
        track.stir(float((hand[max(0, t - 1) : t + 1] - track.place).norm(dim=-1).min()))
        before.append(track.variance)
        track.add(seen[None], doubt_m)
        places.append(track.place[0])
        spreads.append(track.variance)
    for t in range(len(places) - 2, -1, -1):
        back = spreads[t] / before[t + 1]
        places[t] = places[t] + back * (places[t + 1] - places[t])  # an object is expected to stay
        spreads[t] += back**2 * (spreads[t + 1] - before[t + 1])
    return torch.stack(places) - hand, torch.tensor(spreads).sqrt()


def _references(labels: Tensor) -> list[int]:
    """Up to three frames, spread over the episode, that show the object in or below the hand, below it if possible."""
    shows = shows_object(labels)
    below = shows & (labels.norm(dim=-1) > APART_M)
    at = (below if int(below.sum()) >= REFERENCES else shows).nonzero()[:, 0].tolist()
    return sorted({at[(2 * number + 1) * len(at) // (2 * REFERENCES)] for number in range(REFERENCES)}) if at else []
