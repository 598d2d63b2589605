"""One episode to a goal image given by the user: a file, or a frame of a log."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jepa_mpc.envs.reach import ReachEnv
from jepa_mpc.episode import PlayedEpisode, run_episode
from jepa_mpc.face.evaluation.lab_episodes import LabJob
from jepa_mpc.face.evaluation.methods import WORLD_MODEL
from jepa_mpc.face.goals import goal_observation
from jepa_mpc.face.viewing import open_view
from jepa_mpc.files import write_json
from jepa_mpc.reporting.video import save_picture
from jepa_mpc.seeding import seed_of
from jepa_mpc.types import Observation

Picture = NDArray[np.uint8]


class GivenGoal:
    """An environment with a replaced goal image.

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
        """Itself: the wrapped environment has another goal."""
        return self

    def goal(self) -> Observation:
        """The goal image that was given."""
        return self._goal


def play_by_hand(job: LabJob, goal: Any, out: Path) -> Path:
    """Play one episode of the world model in the job's lab and write images, results and, on request, a recording.

    The true distance to such a goal is unknown, so there is no score: `episode.json` holds the distance that the agent
    estimates.

    Args:
        job: The lab and the methods.
        goal: An image file, a list with one per camera, or `log:episode:frame`.
        out: The run folder.

    Raises:
        BadObservation: If the goal cannot be read, or the number of images is not that of the cameras.
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
