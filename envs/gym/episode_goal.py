"""The goal of one episode in a gymnasium environment: its image, its observation, success and cost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jepa_mpc.envs.costs import task_cost
from jepa_mpc.envs.gym.bridge.wire import RENDERED_GOAL
from jepa_mpc.envs.gym.goals import GymGoal
from jepa_mpc.envs.gym.later import play_ahead
from jepa_mpc.envs.gym.moments import told
from jepa_mpc.envs.gym.states import Array
from jepa_mpc.envs.gym.view import View, fitted
from jepa_mpc.interfaces import Cost
from jepa_mpc.types import Observation


class EpisodeGoal:
    """A `GymGoal` in the current episode.

    Args:
        wanted: The goal specification for all episodes.
        view: Observes the environment.
        picture: The goal image, uint8 `(h, w, 3)`, or None.
    """

    def __init__(self, wanted: GymGoal, view: View, *, picture: NDArray[np.uint8] | None = None) -> None:
        self.wanted, self.view, self.course = wanted, view, view.course
        self.picture = None if picture is None else fitted(picture, view.image_size)
        self._ahead: Array | None = None

    @property
    def shown(self) -> bool:
        """Whether episodes have a goal image."""
        given = self.picture is not None or self.wanted.later is not None or self.wanted.photograph is not None
        return given or self.course.moment.info.get(RENDERED_GOAL) is not None

    @property
    def observation(self) -> Sequence[float | None] | None:
        """The observation at the goal, None on ignored axes; None if unknown."""
        if self.wanted.later is None or self._ahead is None:
            return self.wanted.observation
        return self.wanted.later.observation(self._ahead)

    def begin(self, seed: int, options: dict[str, Any]) -> None:
        """Begin the episode of a seed, and compute its goal."""
        wanted, course, cameras = self.wanted, self.course, self.view.cameras
        if wanted.later is not None:
            self._ahead, picture = play_ahead(course, wanted.later, seed=seed, options=options, look=self.view.frames)
            self.picture = picture if cameras else None
            return
        course.begin(seed=seed, options=options)
        if not cameras:
            return
        if wanted.photograph is not None:
            self.picture = fitted(wanted.photograph(course.own), self.view.image_size)
            course.begin(seed=seed, options=options)
        elif course.moment.info.get(RENDERED_GOAL) is not None:
            self.picture = fitted(np.asarray(course.moment.info[RENDERED_GOAL]), self.view.image_size)

    def sensors(self) -> Array:
        """The sensors at the goal `(Q,)`; zero on ignored axes.

        Raises:
            ValueError: If the goal's length is not that of the observation.
        """
        count = len(self.course.moment.observation)
        wanted = self.observation or [None] * count
        if len(wanted) != count:
            raise ValueError(
                f"{self.view.name} observes {count} numbers, the goal gives {len(wanted)}: None for those that do not "
                "matter"
            )
        return np.array([0.0 if value is None else value for value in [*wanted, None, None]], dtype=np.float64)

    def success(self) -> bool:
        """Whether the goal is currently reached.

        Raises:
            ValueError: If neither the goal nor the environment defines success.
        """
        moment = self.course.moment
        if self.wanted.later is not None:
            return self._ahead is not None and self.wanted.later.success(self._ahead)(moment)
        return (self.wanted.success or told)(moment)

    def gap(self) -> float | None:
        """Largest difference of the observation from that of a `later` goal, in tolerances; None for other goals."""
        if self.wanted.later is None or self._ahead is None:
            return None
        return self.wanted.later.gap(self._ahead, self.course.moment.observation)

    def cost(self) -> Cost:
        """Distance of the observation to the goal's; without one, the negative reward, mean over the plan."""
        self.sensors()
        return task_cost(self.wanted.stage(len(self.course.moment.observation)))

    def image(self) -> Observation:
        """The goal image, and the observation at the goal.

        Raises:
            ValueError: If there are image observations but no goal image.
        """
        if self.view.cameras and self.picture is None:
            raise ValueError(
                f"{self.view.name} has no goal image: pass picture= (uint8, h w 3) to GymEnv, or a goal with later= or "
                "photograph="
            )
        return self.view.observation(self.picture, self.sensors()[:-2])
