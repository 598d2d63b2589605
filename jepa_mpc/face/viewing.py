"""Episodes as Rerun recordings (`.rrd`): cameras, goal, predicted path, candidate costs per round, decision time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from jepa_mpc.episode import PlayedEpisode
from jepa_mpc.errors import MissingPackage
from jepa_mpc.files import atomic_file
from jepa_mpc.interfaces import Planner
from jepa_mpc.step_log import StepLog
from jepa_mpc.types import Costs, Observation, PlanRequest, PlanResult, Plans, Scores

APPLICATION = "jepa_mpc"


class WatchedPlanner:
    """A planner wrapper that keeps the costs of all candidates of the last search; plans are unchanged.

    Args:
        planner: The wrapped planner.
    """

    def __init__(self, planner: Planner) -> None:
        self.planner = planner
        self.rounds: list[Tensor] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.planner, name)

    def plan(self, request: PlanRequest) -> PlanResult:
        """Search, and record the costs `S` of each batch of candidates in the first world."""
        self.rounds = []

        def evaluate(plans: Plans) -> Costs | Scores:
            scores = request.evaluate(plans)
            costs = scores.costs if isinstance(scores, Scores) else scores
            self.rounds.append(costs[0].detach().cpu())
            return scores

        return self.planner.plan(replace(request, evaluate=evaluate))


class EpisodeView:
    """Writes episodes to a Rerun recording, one after another.

    Args:
        recording: A `rerun.RecordingStream`.
        rerun: The package.
    """

    def __init__(self, recording: Any, rerun: ModuleType) -> None:
        self.recording, self.rerun = recording, rerun
        self.planner: WatchedPlanner | None = None
        self._step = 0

    def begin(self, agent: Any, goal: Observation) -> None:
        """Log the goal of the next episode and watch the agent's searches; call it before playing the episode."""
        self.planner = watched(agent)
        self._time()
        self._pictures("goal", goal)

    def decided(self, env: Any, played: PlayedEpisode) -> None:
        """Log one decision: camera images and the agent's estimates."""
        self._time()
        self._pictures("cameras", env.observation())
        rr = self.rerun
        self._log("decision/time_ms", rr.Scalars(played.wall_ms[-1]))
        if played.distances:
            self._log("goal/distance_m", rr.Scalars(played.distances[-1]))
        log = played.logs[-1]
        if log is not None:
            self._thought(log)
        self._step += 1

    def _thought(self, log: StepLog) -> None:
        rr = self.rerun
        if log.position is not None:
            self._log("predicted/hand", rr.Points3D(_array(log.position[:1])))
        if log.position is not None and log.path is not None:
            path = torch.cat([log.position[:1], log.path[0].to(log.position)])
            self._log("predicted/path", rr.LineStrips3D([_array(path)]))
        if log.goal_distance is not None:
            self._log("predicted/goal_distance_m", rr.Scalars(float(log.goal_distance[0])))
        for name, milliseconds in log.milliseconds.items():
            self._log(f"decision/{name}_ms", rr.Scalars(milliseconds))
        if log.planned and self.planner is not None:
            for number, costs in enumerate(self.planner.rounds):
                finite = costs[costs.isfinite()].sort().values
                if len(finite):
                    self._log(f"costs/round_{number}", rr.BarChart(_array(finite)))
                    self._log(f"costs/best_of_round_{number}", rr.Scalars(float(finite[0])))

    def _pictures(self, place: str, seen: Observation) -> None:
        for name, picture in zip(seen.cameras, seen.frames[0, -1].split(3), strict=True):
            self._log(f"{place}/{name}", self.rerun.Image(_array(picture.permute(1, 2, 0))))

    def _log(self, path: str, what: Any) -> None:
        self.recording.log(path, what)

    def _time(self) -> None:
        self.recording.set_time("step", sequence=self._step)


@contextmanager
def open_view(path: str | Path | None) -> Iterator[EpisodeView | None]:
    """A recording that is published when the block succeeds, or None without a path.

    Raises:
        MissingPackage: If rerun-sdk is not installed.
        OSError: If the file cannot be written.
    """
    if path is None:
        yield None
        return
    rerun = package()
    with atomic_file(path) as draft:
        recording = rerun.RecordingStream(APPLICATION)
        recording.save(draft)
        yield EpisodeView(recording, rerun)
        recording.disconnect()  # flushes pending data to the file


def package() -> Any:
    """Import rerun.

    Raises:
        MissingPackage: If it is not installed.
    """
    try:
        import rerun
    except ImportError as error:
        raise MissingPackage("rerun-sdk", "view=rerun") from error
    return rerun


def watched(agent: Any) -> WatchedPlanner | None:
    """Wrap the planner of an agent to record its searches; None for an agent without a planner.

    Finds agents inside wrappers (action blocks, environments).
    """
    while not hasattr(agent, "search") and hasattr(agent, "agent"):
        agent = agent.agent
    if not hasattr(agent, "search"):
        return None
    if not isinstance(agent.search.planner, WatchedPlanner):
        agent.search = replace(agent.search, planner=WatchedPlanner(agent.search.planner))
    planner: WatchedPlanner = agent.search.planner
    return planner


def _array(values: Tensor) -> NDArray[Any]:
    return np.ascontiguousarray(values.detach().cpu().numpy())
