"""The planning agent: perceive, remember, predict, evaluate, act."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from time import perf_counter
from typing import Annotated, Any

import torch
from torch import Tensor

from jepa_mpc.errors import BadObservation
from jepa_mpc.interfaces import Cost, Dynamics, GoalReader, Memory, Perception, Planner, Proposal
from jepa_mpc.step_log import StepLog
from jepa_mpc.types import ActionBox, Context, Goal, Latents, MpcSettings, Observation, Plan, PlanResult, State, Streams
from jepa_mpc.world_model.agents.goals import EncodedGoal
from jepa_mpc.world_model.agents.pace import Moment
from jepa_mpc.world_model.agents.search import PlanSearch
from jepa_mpc.world_model.memory.replay_buffer import seen

Felt = Callable[[Observation], Annotated[Tensor, "B P"] | None]
"""Maps an observation to the world model's proprioception, or None."""


class PlanningAgent:
    """Moves towards a goal image by planning in a world model, for B worlds in parallel.

    Each step it perceives the observation, stores it, evaluates the current state, searches (every `settings.execute`
    steps) for the plan with the cheapest predicted future, and returns that plan's next action. A world whose current
    cost is below `settings.hold_below` gets the zero action instead. The agent sees observations only. An error during
    a step leaves the agent unchanged, so that it can act on the next observation.

    Args:
        perception: Frames to latents.
        memory: Stores the last latents and the actions between them.
        dynamics: The world model, learned or true.
        cost: The cost to minimise.
        planner: Searches for plans.
        box: The actions that the robot accepts, in physical units; observations are moved to its device.
        settings: Horizon and replanning interval.
        generator: Source of the planner's randomness, on the device of the box; or one per world.
        proposal: Proposes plans for every search (a policy), or None; see `PlanSearch`.
        goals: Reads the goal; by default it encodes the image once.
        position_head: Maps latents to positions (m), for the step log; or None.
        felt: Selects the world model's proprioception; by default the newest, if there is any.
    """

    _plan: Plan | None
    _result: PlanResult | None
    _imagined: Latents | None
    _age: int

    def __init__(
        self,
        *,
        perception: Perception,
        memory: Memory,
        dynamics: Dynamics,
        cost: Cost,
        planner: Planner,
        box: ActionBox,
        settings: MpcSettings,
        generator: Streams,
        proposal: Proposal | None = None,
        goals: GoalReader | None = None,
        position_head: Callable[[Tensor], Tensor] | None = None,
        felt: Felt | None = None,
    ) -> None:
        self.perception, self.memory = perception, memory
        self.search = PlanSearch(
            dynamics=dynamics,
            cost=cost,
            planner=planner,
            box=box,
            settings=settings,
            generator=generator,
            proposal=proposal,
        )
        self.goals: GoalReader = EncodedGoal(perception) if goals is None else goals
        self.position_head, self.felt = position_head, felt or newest_proprio
        self.last: StepLog | None = None
        self._goal: Goal | None = None
        self._forget_plan()

    def reset(self, goal: Observation) -> None:
        """Begin an episode: read the goal once and clear all other state. Only the last frame of the goal is used."""
        self._take_up(self.goals.reset, goal)
        self.memory.begin(goal=self._known_goal().latents)
        self.last = None

    def aim(self, goal: Observation) -> None:
        """Continue towards another goal: keeps the memory, drops the plan."""
        self._take_up(self.goals.aim, goal)
        self.memory.aim(goal=self._known_goal().latents)

    def limit(self, deadline_s: float) -> None:
        """Limit each following search to this many seconds.

        Raises:
            ValueError: If that is not a positive number.
        """
        self.search = replace(self.search, settings=replace(self.search.settings, deadline_s=deadline_s))

    def act(self, observation: Observation) -> Annotated[Tensor, "B A"]:
        """Choose the next action `B A`: physical units, finite, inside the box.

        Raises:
            RuntimeError: If `reset` was not called.
            BadObservation: If the observation does not fit the perception, or has another batch size than the goal.
        """
        times = [perf_counter()]
        observation = observation.to(self.search.box.low.device)
        state = self._perceive(observation)
        self._goal = self.goals.update(observation, state)
        times.append(perf_counter())
        with seen(self.memory, state, self.felt(observation)) as context:
            present = self.search.present_cost(context, self._goal)
            held = present < self.search.settings.hold_below
            times.append(perf_counter())
            due = not bool(held.all()) and (self._plan is None or self._age >= self.search.settings.execute)
            if due:
                self._think(context, times)
            action = self._next_action(held)
            self.memory.did(action)
        self.goals.did(action)
        self.last = self._log(action, state=state, present=present, held=held, due=due, times=times)
        return action

    def think(self, moments: Sequence[Moment], guess: Plan | None) -> PlanResult:
        """Search for a plan without acting or storing; `RecedingHorizon` runs this in its own thread.

        A world whose current cost is below `settings.hold_below` gets the zero plan.

        Args:
            moments: Observations and the actions between them, oldest first.
            guess: An initial plan `B H A`, or None.

        Raises:
            RuntimeError: If `reset` was not called.
            BadObservation: If an observation does not fit the perception, or has another batch size than the goal.
        """
        goal, box = self._known_goal(), self.search.box
        seen = [moment.observation.to(box.low.device) for moment in moments]
        states = [self._perceive(observation) for observation in seen]
        actions = [moment.action for moment in moments[:-1] if moment.action is not None]
        between = torch.stack(actions, dim=1) if actions else box.low.new_zeros(states[0].shape[0], 0, box.dim)
        felt = [proprio for observation in seen if (proprio := self.felt(observation)) is not None]
        proprio = torch.stack(felt, dim=1) if len(felt) == len(moments) else None
        context = Context(latents=torch.stack(states, dim=1), actions=between, proprio=proprio)
        result = self.search.run(context, goal, guess)
        held = self.search.present_cost(context, goal) < self.search.settings.hold_below
        still = self.search.still(states[0].shape[0])
        return replace(result, actions=torch.where(held[:, None, None], still, result.actions))

    def _take_up(self, read: Callable[[Observation], Goal], goal: Observation) -> None:
        self._goal = read(goal.to(self.search.box.low.device))
        self._forget_plan()

    def _perceive(self, observation: Observation) -> State:
        goal = self._known_goal()
        state: State = self.perception(observation)[:, -1]
        check_state(state, goal.latents)
        return state

    def _think(self, context: Context, times: list[float]) -> None:
        """Search for a new plan, starting from the last one shifted by the executed steps."""
        goal = self._known_goal()
        guess = None if self._plan is None else self.search.moved_on(self._plan, self._age)
        self._result = self.search.go_on(context, goal, guess=guess, last=self._result, age=self._age)
        self._plan, self._age = self._result.actions, 0
        times.append(perf_counter())
        self._imagined = self.search.imagine(context, self._plan).latents[:, 0]
        times.append(perf_counter())

    def _next_action(self, held: Annotated[Tensor, "B"]) -> Annotated[Tensor, "B A"]:
        """The plan's next action, or zero for held worlds, whose plan is dropped until the next search."""
        still = self.search.still(len(held))
        if self._plan is None or bool(held.all()):
            self._plan, self._age = None, 0
            return still[:, 0]
        self._plan = torch.where(held[:, None, None], still, self._plan)
        self._age += 1
        return self.search.box.clip(self._plan[:, self._age - 1])

    @torch.no_grad()
    def _log(
        self, action: Tensor, *, state: State, present: Tensor, held: Tensor, due: bool, times: list[float]
    ) -> StepLog:
        goal, head, imagined = self._known_goal(), self.position_head, self._imagined
        return StepLog(
            action=action,
            held=held,
            present=state,
            goal=goal,
            plan=self._result,
            imagined=imagined,
            planned=due,
            present_cost=present,
            seconds=_durations(times),
            **({} if head is None else believed(head, state, goal=goal, imagined=imagined)),
        )

    def _forget_plan(self) -> None:
        self._plan = self._result = self._imagined = None
        self._age = 0

    def _known_goal(self) -> Goal:
        if self._goal is None:
            raise RuntimeError("the agent has no goal yet: call reset(goal) before act(observation)")
        return self._goal


def newest_proprio(observation: Observation) -> Annotated[Tensor, "B P"] | None:
    """The last proprioception, if there is any."""
    return None if observation.proprio is None else observation.proprio[:, -1]


def no_proprio(observation: Observation) -> None:
    """None: the world model takes images only."""


def check_state(state: State, goal: State) -> None:
    """Refuse a state that cannot be compared with the goal.

    Raises:
        BadObservation: If their shapes differ.
    """
    if state.shape != goal.shape:
        raise BadObservation(
            f"the observation gives latents {tuple(state.shape)} and the goal gave {tuple(goal.shape)}: both need the "
            "same number of worlds and the same encoder"
        )


@torch.no_grad()
def believed(
    head: Callable[[Tensor], Tensor], state: State, *, goal: Goal, imagined: Annotated[Tensor, "B H N D"] | None
) -> dict[str, Any]:
    """Position, path and goal distance estimated by a position head: entries of a `StepLog`."""
    position = head(state)
    target = head(goal.latents) if goal.position is None else goal.position
    path = None if imagined is None else head(imagined)
    return {"position": position, "path": path, "goal_distance": (target - position).norm(dim=-1)}


def _durations(times: list[float]) -> dict[str, float]:
    stages = ("perceive", "judge", "plan", "imagine")
    spans = [after - before for before, after in zip(times, times[1:], strict=False)]
    return dict(zip(stages, spans + [0.0] * (len(stages) - len(spans)), strict=True))
