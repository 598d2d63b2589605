"""Slots learned from images without labels: training, comparison with the segmentation, and figures."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from jepa_mpc.encoders.slot_broadcast import BroadcastDecoder
from jepa_mpc.encoders.slot_patches import begin_at_clusters, over_bare_patches
from jepa_mpc.encoders.slot_places import PlacedSlots, middles
from jepa_mpc.encoders.slot_sources import adjusted_rand
from jepa_mpc.envs.pucks import VIEW_M
from jepa_mpc.experiments.evaluation.objects.kept_training import fit_shown, trained_once
from jepa_mpc.experiments.evaluation.objects.puck_recording import Episodes
from jepa_mpc.experiments.evaluation.objects.slot_logs import NOBODY
from jepa_mpc.seeding import generator
from jepa_mpc.types import Frames
from jepa_mpc.world_model.parts.matching import assign
from jepa_mpc.world_model.parts.objectives.slot_features import SlotFeatureObjective
from jepa_mpc.world_model.recipes import video_slots
from jepa_mpc.world_model.recipes.video_slots import VideoSlotSizes
from jepa_mpc.world_model.training.loop import FitSettings

SEEN, CELL = 2, 4
"""Side in pixels of the patches that the encoder reads, and of those that the decoder reconstructs."""
CLUSTERED, SHARPNESS = 200, 8.0
AT_ONCE = 512
NOWHERE = 1.0


@dataclass(frozen=True, kw_only=True)
class SlotLesson:
    """The settings of the slot training.

    Args:
        image: Side of the images in pixels.
        num_slots: Slots N.
        slot_dim: Their width D.
        decoder: Widths of the decoder's layers.
        fit: Of the training.
        batch: Frames of a step.
        seed: Of weights and batches.
    """

    image: int
    num_slots: int
    slot_dim: int
    decoder: tuple[int, ...]
    fit: FitSettings
    batch: int
    seed: int = 0


def drawing(lesson: SlotLesson) -> SlotFeatureObjective:
    """Slots over raw patches, with a decoder that reconstructs each slot separately with a mask for every pixel."""
    sizes = VideoSlotSizes(
        image=lesson.image,
        cell=CELL,
        num_slots=lesson.num_slots,
        slot_dim=lesson.slot_dim,
        features=lesson.slot_dim,
        hidden=2 * lesson.slot_dim,
        decoder=lesson.decoder,
        form=lambda sizes: over_bare_patches(
            image=sizes.image, cell=SEEN, num_slots=sizes.num_slots, slot_dim=sizes.slot_dim
        ),
    )
    decoder = BroadcastDecoder(
        sizes.slot_dim,
        num_places=(sizes.image // CELL) ** 2,
        output_dim=3 * CELL**2,
        hidden=sizes.decoder,
        parts=CELL**2,
    )
    return video_slots.build(preset=sizes, decoder=decoder, generator=generator(lesson.seed, "weights"))


def trained_slots(folder: Path, lesson: SlotLesson, episodes: Episodes) -> tuple[SlotFeatureObjective, float]:
    """The slots, and the CPU seconds of their training: loaded if they exist, else trained and saved.

    Each frame is encoded by itself: the learned initial slots keep the slots apart, so that no tracking is needed.

    Raises:
        BadCheckpoint: If the existing one has other settings.
    """
    objective, all_frames = drawing(lesson), episodes.frames.flatten(0, 1)

    def draw(stream: Generator, count: int = lesson.batch) -> dict[str, Tensor]:
        return {"frames": all_frames[torch.randint(len(all_frames), (count, 1), generator=stream)]}

    def train() -> None:
        stream = generator(lesson.seed, "clusters")
        pictures = objective.preprocess(draw(stream, CLUSTERED)["frames"][:, 0])
        begin_at_clusters(objective.encoder, pictures, generator=stream, sharpness=SHARPNESS)
        fit_shown(objective, draw, lesson.fit, seed=lesson.seed, title="slots")

    return objective, trained_once(folder, objective, {"lesson": str(lesson)}, train)


def placed(objective: SlotFeatureObjective) -> PlacedSlots:
    """The slots with their positions, computed from their attention."""
    encoder = objective.encoder
    count = encoder.start(1).shape[1]
    return PlacedSlots(encoder, num_slots=count, width=encoder.width, generator=generator(0, "placed slots"))


@torch.no_grad()
def found(encoder: PlacedSlots, prepare: Callable[[Tensor], Tensor], frames: Frames) -> tuple[Tensor, Tensor]:
    """Slots `B T N D` of frames, each encoded by itself, and the centres of their attention `B T N 2` (m)."""
    parts = frames.flatten(0, 1).split(AT_ONCE)
    places = torch.cat([middles(encoder.encoder.track(prepare(part)[:, None]).shares[:, 0]) for part in parts])
    times = frames.shape[:2]
    return encoder.at(places).unflatten(0, times), (VIEW_M / 2 * places).unflatten(0, times)


@torch.no_grad()
def attended(objective: SlotFeatureObjective, pictures: Tensor) -> Tensor:
    """Attention of each slot per pixel `B N h w` on images `B 3 h w`."""
    shares = objective.encoder.track(objective.preprocess(pictures)[:, None]).shares[:, 0]
    side = math.isqrt(shares.shape[2])
    grid = shares.unflatten(2, (side, side))
    return F.interpolate(grid, size=pictures.shape[-2:])


def agreement(masks: Tensor, owners: Tensor) -> dict[str, float]:
    """Adjusted Rand index of masks `B N h w` against the segmentation `B h w`: of bodies alone, and with the table."""
    shares, truth = masks.flatten(2), owners.flatten(1).long()
    return {
        "ari_foreground": float(adjusted_rand(shares, truth).nanmean()),
        "ari_all": float(adjusted_rand(shares, truth, background=None).nanmean()),
    }


def owners_of(middles: Tensor, places_m: Tensor, present: Tensor) -> Tensor:
    """The body of each slot `B N`, -1 for none: the best assignment of attention centres to positions over time.

    Args:
        middles: Attention centres of the slots, `B T N 2` (m).
        places_m: Positions of all bodies `B T 5 2`.
        present: `B 5`.
    """
    slots, bodies = middles.shape[2], places_m.shape[2]
    gaps = (middles[:, :, :, None] - places_m[:, :, None]).square().sum(dim=-1).mean(dim=1)  # (B, N, bodies)
    side = max(slots, bodies)
    square = torch.full((len(gaps), side, side), NOWHERE)
    square[:, :slots, :bodies] = torch.where(present[:, None], gaps, NOWHERE)
    chosen = assign(square)[:, :slots]
    real = (chosen < bodies) & present.gather(1, chosen.clamp(max=bodies - 1))
    return torch.where(real, chosen, NOBODY)
