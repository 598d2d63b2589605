"""Goal images given by the user: image files, or a frame of a log."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from jepa_mpc.errors import BadEpisode, BadObservation
from jepa_mpc.trajectories.episode import IMAGES
from jepa_mpc.trajectories.formats import open_log
from jepa_mpc.trajectories.formats.image_codec import opened_picture, pixels_of
from jepa_mpc.trajectories.guards import read_plain
from jepa_mpc.trajectories.resizing import PictureFit
from jepa_mpc.types import Observation

Picture = NDArray[np.uint8]


def goal_observation(
    goal: str | Path | Sequence[str | Path], *, cameras: Sequence[str], image_size: int
) -> Observation:
    """Load the described goal image at the world model's image size.

    Args:
        goal: A PNG or JPEG file, a list with one per camera, or `log:episode:frame`.
        cameras: Names of the cameras.
        image_size: Width and height (px).

    Raises:
        BadObservation: If it cannot be read, or the number of images is not that of the cameras.
        BadEpisode: If the log is damaged.
    """
    files = [str(goal)] if isinstance(goal, str | Path) else [str(one) for one in goal]
    logged = _log_frame(files[0]) if len(files) == 1 else None
    pictures = _pictures(files, cameras) if logged is None else _logged(*logged, cameras)
    fit = PictureFit(size=image_size)
    frames = np.concatenate([fit(picture[None])[0].transpose(2, 0, 1) for picture in pictures])
    return Observation(frames=torch.from_numpy(np.ascontiguousarray(frames))[None, None], cameras=tuple(cameras))


def _log_frame(goal: str) -> tuple[Path, int, int] | None:
    place, *numbers = goal.rsplit(":", 2)
    if len(numbers) == 2 and all(number.isdigit() for number in numbers) and Path(place).exists():
        return Path(place), int(numbers[0]), int(numbers[1])
    return None


def _logged(path: Path, episode: int, frame: int, cameras: Sequence[str]) -> list[Picture]:
    log = open_log(path)
    names = [IMAGES + camera for camera in cameras]
    missing = [name for name in names if name not in log.fields]
    if missing:
        raise BadObservation(f"{path} has no {', '.join(missing)}; its cameras are {', '.join(log.cameras)}")
    if not (episode < len(log.lengths) and frame < log.lengths[episode]):
        raise BadObservation(f"{path} has no frame {frame} of episode {episode}; it has {len(log.lengths)} episodes")
    found = log.read(episode, frame, frame + 1, names)
    return [found[name][0] for name in names]


def _pictures(files: Sequence[str], cameras: Sequence[str]) -> list[Picture]:
    if len(files) != len(cameras):
        raise BadObservation(
            f"need one goal image per camera ({', '.join(cameras)}), got {len(files)}: goal=[LEFT.png,RIGHT.png], "
            "or log:episode:frame"
        )
    try:
        return [_decoded(Path(file)) for file in files]
    except (OSError, ValueError, BadEpisode) as error:
        raise BadObservation(f"goal={','.join(map(str, files))} cannot be read: {error}") from error


def _decoded(file: Path) -> Picture:
    """A PNG or JPEG `h w 3` of bounded size; only regular files are opened."""
    with opened_picture(read_plain(file, file)) as picture:
        return pixels_of(picture)
