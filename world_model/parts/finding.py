"""Finding an object by an image of it, learned from logs of handling without object poses.

    loss = mean over known t of w_t (smooth-L1(p_t - x_t) + d sg(s_t) (sg|p_t - x_t| / s_t + log s_t))      in 10 cm
    p_t, log s_t = finder(image_t, image_r, height_t),   w_t = 0.15 where the object is in the hand, else 1

x_t is the object's position seen from the hand in hindsight (`trajectories/hindsight.py`). r is a frame of the same
window in which the object is known to be in or below the hand, as in goal images: drawn anew for each window. The
second term teaches the expected error (beta-NLL, Seitzer et al. 2022, arXiv:2203.09168, as in `readouts.py`).
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from jepa_mpc.encoders.object_finder import UNIT_M, ObjectFinder
from jepa_mpc.interfaces import Batch
from jepa_mpc.shapes import check_shape
from jepa_mpc.types import Loss
from jepa_mpc.world_model.parts.augment import CHANNELS_PER_CAMERA, Augmentation
from jepa_mpc.world_model.parts.objectives.dynamics import total_of
from jepa_mpc.world_model.parts.readouts import misjudged

COLUMN = "object_felt"
HEIGHT = -4  # entry of proprioception: the height of the hand, m
BELOW_M, BESIDE_M = (-0.16, 0.02), 0.04  # where a frame shows the object that stands for a goal image
IN_HAND_M = 0.01


class ObjectFindingObjective(nn.Module):
    """The loss above.

    Args:
        encoder: Finds the object.
        augment: Augments windows, in training.
        bend: Error (m) at which the loss turns from squared to straight.
        in_hand: Weight of frames in which the object is in the hand.
        doubt: Weight of the term of the expected error.
    """

    def __init__(
        self,
        encoder: ObjectFinder,
        *,
        augment: Augmentation,
        bend: float = 0.02,
        in_hand: float = 0.15,
        doubt: float = 0.3,
    ) -> None:
        super().__init__()
        self.encoder, self.augment = encoder, augment
        self.bend, self.in_hand, self.doubt = bend, in_hand, doubt

    def forward(self, batch: Batch, generator: Generator) -> Loss:
        """The loss of windows: frames `B T 3 h w` of a hand camera, `proprio` `B T P`, `object_felt` `B T 3` or NaN, m.

        Raises:
            ValueError: If the batch lacks a column, or the frames are of more than one camera.
        """
        sizes = check_shape(batch["frames"], "B T C h w")
        for column in (COLUMN, "proprio"):
            if column not in batch:
                raise ValueError(f"finding objects needs {column!r}, which the log lacks: collect policy=handle")
        if sizes["C"] != CHANNELS_PER_CAMERA:
            raise ValueError(
                f"objects are found in images of the hand camera alone, got {sizes['C']} channels: cameras=[wrist]"
            )
        labels = batch[COLUMN]
        known = labels.isfinite().all(dim=-1)  # (B, T)
        usable, chosen = _shown(labels, generator)
        frames = self.augment(batch["frames"], generator) if self.training else batch["frames"].float()
        shown = frames[torch.arange(len(frames)), chosen]
        place, log_scale = self.encoder(frames / 255, shown / 255, batch["proprio"][..., HEIGHT].to(frames.dtype))
        wanted = labels.nan_to_num() / UNIT_M
        weight = (known & usable[:, None]).to(place.dtype)
        weight = weight * torch.where(wanted.norm(dim=-1) < IN_HAND_M / UNIT_M, self.in_hand, 1.0)
        off = (place - wanted).norm(dim=-1).detach()
        bent = functional.smooth_l1_loss(place, wanted, reduction="none", beta=self.bend / UNIT_M).sum(dim=-1)
        share = weight / weight.sum().clamp_min(1.0)
        terms = {"place": (1.0, (share * bent).sum()), "doubt": (self.doubt, (share * misjudged(off, log_scale)).sum())}
        return total_of({**terms, "off_cm": (0.0, 100 * UNIT_M * (share * off).sum())})

    def after_step(self, progress: float) -> None:
        """Nothing follows a step."""

    @property
    def published(self) -> ObjectFinder:
        """The finder."""
        return self.encoder


def shows_object(labels: Annotated[Tensor, "... 3"]) -> Annotated[Tensor, "..."]:
    """Whether the object is known to be in or below the hand, where goal images show it; labels (m), NaN unknown."""
    low, high = BELOW_M
    return (labels[..., :2].norm(dim=-1) < BESIDE_M) & (labels[..., 2] > low) & (labels[..., 2] < high)


def _shown(labels: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
    """For each window whether a frame shows the object in or below the hand `B`, and the number of a random one `B`."""
    shows = shows_object(labels)
    lots = torch.rand(shows.shape, generator=generator, device=generator.device).to(shows.device)
    return shows.any(dim=-1), torch.where(shows, lots, -1.0).argmax(dim=-1)
