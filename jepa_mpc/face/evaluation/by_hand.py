"""One episode towards a goal picture of one's own: a file, or a frame of a log."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from jepa_mpc.envs.reach import ReachEnv
from jepa_mpc.episode import PlayedEpisode, run_episode
from jepa_mpc.errors import BadObservation
from jepa_mpc.face.evaluation.lab_episodes import LabJob
from jepa_mpc.face.evaluation.methods import WORLD_MODEL
from jepa_mpc.face.viewing import open_view
from jepa_mpc.files import write_json
from jepa_mpc.reporting.video import save_picture
from jepa_mpc.seeding import seed_of
from jepa_mpc.trajectories.episode import IMAGES
from jepa_mpc.trajectories.formats import open_log
from jepa_mpc.trajectories.resizing import PictureFit
from jepa_mpc.types import Observation

Picture = NDArray[np.uint8]


class GivenGoal:
    """An environment whose goal image is another than its own.

    Args:
        env: The environment.
        goal: The goal image.
    """

    def __init__(self, env: Any, goal: Observation) -> None:
        self.env, self._goal = env, goal

    def __getattr__(self, name: str) -> Any:
        return getattr(self.env, name)

    @property
    def unwrapped(self) -> GivenGoal:
        """Itself: the environment within has another goal."""
        return self

    def goal(self) -> Observation:
        """The goal image that was given."""
        return self._goal


def play_by_hand(job: LabJob, goal: Any, out: Path) -> Path:
    """Play one episode of the world model in the job's lab, and leave pictures, numbers and the recording, if wanted.

    How far the hand is from such a goal nobody knows but the agent, so there is no score: `episode.json` holds how far
    away it believed the goal to be.

    Args:
        job: The lab and the methods.
        goal: A picture file, one per camera in a list, or `log:episode:frame`.
        out: The run folder.

    Raises:
        BadObservation: If the goal cannot be read, or there is not one picture per camera.
        BadEpisode: If the log is damaged.
    """
    env = ReachEnv(robot=job.robot, cameras=job.cameras, image_size=job.image_size, budget=job.budget)
    try:
        seed = seed_of(job.seed, job.lab.seed, job.lab.index, 0)
        env.reset(seed=seed, options={"lab": job.lab})
        wanted = goal_observation(goal, cameras=job.cameras, image_size=job.image_size)
        agent = job.methods.agent(WORLD_MODEL, env, stream=seed)
        asked: Any = GivenGoal(env, wanted)
        view_path = None if job.view is None else out / "views" / job.view.name
        with open_view(view_path) as view:
            if view is not None:
                view.begin(agent, wanted)

            def decided(played: PlayedEpisode) -> None:
                if view is not None:
                    view.decided(env, played)

            played = run_episode(asked, agent, steps=job.budget, decided=decided)
        out.mkdir(parents=True, exist_ok=True)
        save_picture(_side_by_side(wanted), out / "goal.png")
        save_picture(_side_by_side(env.observation()), out / "end.png")
        write_json(out / "episode.json", {"goal": str(goal), "lab": job.lab.name, "steps": _steps(played)})
    finally:
        env.close()
    return out


def goal_observation(goal: Any, *, cameras: Sequence[str], image_size: int) -> Observation:
    """The goal image that is described, at the size of the world model.

    Args:
        goal: A picture file, one per camera in a list, or `log:episode:frame`.
        cameras: Names of the cameras.
        image_size: Width and height (px).

    Raises:
        BadObservation: If it cannot be read, or there is not one picture per camera.
        BadEpisode: If the log is damaged.
    """
    files = [goal] if isinstance(goal, str) else [str(one) for one in goal]
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
            f"need one goal picture per camera ({', '.join(cameras)}), got {len(files)}: goal=[LEFT.png,RIGHT.png], "
            "or log:episode:frame"
        )
    try:
        return [np.asarray(Image.open(file).convert("RGB")) for file in files]
    except (OSError, ValueError) as error:
        raise BadObservation(f"goal={','.join(map(str, files))} cannot be read: {error}") from error


def _side_by_side(seen: Observation) -> Picture:
    return np.concatenate([part.permute(1, 2, 0).numpy() for part in seen.frames[0, -1].split(3)], axis=1)


def _steps(played: PlayedEpisode) -> list[dict[str, Any]]:
    return [
        {
            "action": action.tolist(),
            "believed_goal_distance_m": None
            if log is None or log.goal_distance is None
            else float(log.goal_distance[0]),
            "decision_ms": ms,
        }
        for action, log, ms in zip(played.actions, played.logs, played.wall_ms, strict=True)
    ]
