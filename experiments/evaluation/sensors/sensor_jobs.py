"""What a robot reads of clouds and sounds: labels, scores, and plain features without a network."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import scipy
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from jepa_mpc.encoders.mel import LogMel
from jepa_mpc.encoders.points import summary
from jepa_mpc.encoders.sound import over_time
from jepa_mpc.envs.materials import MATERIALS
from jepa_mpc.face.evaluation.feature_probes import NEAR, Distance
from jepa_mpc.face.evaluation.feature_sources import moments
from jepa_mpc.trajectories.episode import CLOUDS, HEARD, OBJECT, OBJECT_YAW, SOUND
from jepa_mpc.world_model.recipes.audio_jepa import PRESETS

Score = Callable[[Tensor, Tensor], float]
Labels = dict[str, Tensor]

LOW_M = 0.07
"""Height in the base frame below which a point belongs to what lies on the table, or to the tips of the fingers."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """One thing that is read of a sensor.

    Args:
        unit: Of the score.
        score: Read and known numbers `G Q` to the score.
        best: The score of a perfect reading.
        distance: The loss of standardised numbers; squares estimate the probability of a class.
    """

    unit: str
    score: Score
    best: float = 0.0
    distance: Distance = NEAR


@dataclass(frozen=True, kw_only=True)
class Sensor:
    """A sensor, its encoders and its jobs.

    Args:
        field: Its entry in a log.
        steps: Steps of a window.
        systems: Encoders by name.
        jobs: What is read.
        needs: Entry of a log that has the labels.
        labels: Windows of a log and seconds of a step to labels `G Q` by job, NaN where there is none.
        plain: Inputs `G ...` and seconds of a step to features `G 1 D` without a network.
        pooled: Tokens `G N D` of an encoder to those that the linear probe takes, as the system's authors pool them.
    """

    field: str
    steps: int
    systems: tuple[str, ...]
    jobs: Mapping[str, Job]
    needs: str
    labels: Callable[[Mapping[str, Tensor], float], Labels]
    plain: Callable[[Tensor, float], Tensor]
    pooled: Callable[[Tensor, nn.Module], Tensor]


def off_cm(read: Tensor, known: Tensor) -> float:
    """Mean distance, cm."""
    return 100 * float((read - known).norm(dim=1).mean())


def off_degrees(read: Tensor, known: Tensor) -> float:
    """Mean difference of two yaws that are given as cosine and sine of four times the angle; 45 degrees at most."""
    apart = torch.atan2(read[:, 1], read[:, 0]) - torch.atan2(known[:, 1], known[:, 0])
    return float(torch.rad2deg(torch.atan2(apart.sin(), apart.cos()).abs().mean() / 4))


def off_ms(read: Tensor, known: Tensor) -> float:
    """Mean difference of two times, ms."""
    return 1000 * float((read - known).abs().mean())


def auroc(read: Tensor, known: Tensor) -> float:
    """Probability that a window with the event is rated above one without; NaN where all are alike."""
    with_it = known[:, 0].numpy() > 0.5
    count, others = int(with_it.sum()), int((~with_it).sum())
    if not count * others:
        return math.nan
    ranks = scipy.stats.rankdata(read[:, 0].numpy())
    return float((ranks[with_it].sum() - count * (count + 1) / 2) / (count * others))


def share_right(read: Tensor, known: Tensor) -> float:
    """Share of the rows with the right class."""
    return float((read.argmax(1) == known.argmax(1)).float().mean())


def poses(drawn: Mapping[str, Tensor], step_s: float) -> Labels:
    """Position of the object in the plane (m), and its yaw as cosine and sine of four times the angle."""
    found = {"position": drawn[OBJECT][:, 0, :2]}
    if OBJECT_YAW in drawn:  # a block looks the same after a quarter turn
        angle = 4 * drawn[OBJECT_YAW][:, 0]
        found["yaw"] = torch.cat([angle.cos(), angle.sin()], dim=1)
    return found


def contacts(drawn: Mapping[str, Tensor], step_s: float) -> Labels:
    """Whether something is touched anew in the window, when first (s), whether something slips, and the material."""
    heard = drawn[HEARD]
    new = (heard[..., 0] > 0).float()
    first = new.argmax(1, keepdim=True)
    touched, number = new.amax(1, keepdim=True), heard[..., 4].amax(1).long()
    onset = first * step_s + heard[..., 1].gather(1, first)
    classes = F.one_hot(number, len(MATERIALS) + 1)[:, 1:].float()
    return {
        "touch": touched,
        "onset": onset.where(touched > 0, math.nan),
        "slip": (heard[..., 2].sum(1, keepdim=True) > 0).float(),
        "material": classes.where(number[:, None] > 0, math.nan),
    }


def cloud_shape(clouds: Tensor, step_s: float) -> Tensor:
    """Moments of the whole cloud, and centre, extent, spread and fourfold symmetry of its low part."""
    flat, low = clouds[..., :2], (clouds[..., 2:] < LOW_M).float()
    count = low.sum(1).clamp_min(1)
    centre = (flat * low).sum(1) / count
    away = (flat - centre[:, None]) * low
    spread = torch.einsum("gpi,gpj->gij", away, away).flatten(1) / count
    turned = torch.view_as_complex(away.contiguous()) ** 4
    square = torch.view_as_real(turned.sum(1) / turned.abs().sum(1).clamp_min(1e-12))
    parts = [moments(clouds).flatten(1), centre, away.amax(1), away.amin(1), spread, square, count]
    return torch.cat(parts, dim=1)[:, None]


def mel_means(sound: Tensor, step_s: float) -> Tensor:
    """Means of the log-mel spectrogram over time, and over the bands."""
    rate = round(sound.shape[1] / (HEARING.steps * step_s))
    mel = LogMel(PRESETS["small"].mel.at(rate), level=nn.Identity())
    found = mel(sound)[:, 0]
    return torch.cat([found.mean(1), found.mean(2)], dim=1)[:, None]


SEEING = Sensor(
    field=CLOUDS,
    steps=1,
    systems=("point_jepa_small", "jepa_3d_small"),
    jobs={"position": Job(unit="cm", score=off_cm), "yaw": Job(unit="degrees", score=off_degrees)},
    needs=OBJECT,
    labels=poses,
    plain=cloud_shape,
    pooled=lambda tokens, encoder: summary(tokens)[:, None],
)
HEARING = Sensor(
    field=SOUND,
    steps=4,
    systems=("audio_jepa_small",),
    jobs={
        "touch": Job(unit="AUROC", score=auroc, best=1.0, distance=F.mse_loss),
        "onset": Job(unit="ms", score=off_ms),
        "slip": Job(unit="AUROC", score=auroc, best=1.0, distance=F.mse_loss),
        "material": Job(unit="accuracy", score=share_right, best=1.0, distance=F.mse_loss),
    },
    needs=HEARD,
    labels=contacts,
    plain=mel_means,
    pooled=lambda tokens, encoder: over_time(tokens, encoder.trunk),  # type: ignore[arg-type]
)
SENSORS = {"clouds": SEEING, "sound": HEARING}
"""Name -> sensor."""
