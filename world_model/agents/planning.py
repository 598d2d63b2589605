"""The agent: perceive, remember, imagine, judge, act."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from time import perf_counter
from typing import Annotated

import torch
from torch import Generator, Tensor

from jepa_mpc.actions import shifted
from jepa_mpc.errors import BadObservation
from jepa_mpc.interfaces import Cost, Dynamics, Memory, Perception, Planner, Proposal
from jepa_mpc.types import (
    ActionBox,
    Context,
    Goal,
    Latents,
    MpcSettings,
    Observation,
    Plan,
    PlanRequest,
    PlanResult,
    Plans,
    Rollout,
    State,
)
from jepa_mpc.world_model.agents.pace import Moment
from jepa_mpc.world_model.agents.step_log import StepLog
from jepa_mpc.world_model.costs.constraints import costs_of
from jepa_mpc.world_model.dynamics.evaluator import Evaluator as _Evaluator
from jepa_mpc.world_model.dynamics.step_model import known_steps


class Agent:
    """Moves towards a goal image by planning in a world model, for B worlds side by side.

    Each step it perceives the observation, remembers it, judges the present, searches (every `settings.execute` steps)
    for the plan whose imagined future is cheapest, and answers with that plan's next action. A world whose present
    cost is below `settings.hold_below` answers with the zero action instead. Only observations reach the agent.

    Args:
        perception: Frames to latents.
        memory: The last latents and the actions between them.
        dynamics: The world model, learned or true.
        cost: What is wanted.
        planner: Searches for plans.
        box: The actions that the robot accepts, in physical units.
        settings: How far to look ahead and how often to plan anew.
        generator: Source of the planner's randomness, on the device of the box.
        proposal: Names plans that every search begins with (a policy): its best guess takes the place of the last
            plan, which becomes a candidate beside the others. None begins with the last plan alone.
    """

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
        generator: Generator,
        proposal: Proposal | None = None,
    ) -> None:
        self.perception, self.memory, self.dynamics = perception, memory, dynamics
        self.cost, self.planner, self.proposal = cost, planner, proposal
        self.box, self.settings, self.generator = box, settings, generator
        self.last: StepLog | None = None
        self._goal: Goal | None = None
        self._plan: Plan | None = None
        self._result: PlanResult | None = None
        self._imagined: Latents | None = None
        self._age = 0

    def reset(self, goal: Observation, *, sensors: Annotated[Tensor, "B Q"] | None = None) -> None:
        """Begin an episode: encode the goal image once and forget everything else.

        Args:
            goal: The goal; its last frame counts.
            sensors: Simulator sensors at the goal, for costs on true dynamics.
        """
        self.aim(goal, sensors=sensors)
        self.memory.clear()
        self.last = None

    def aim(self, goal: Observation, *, sensors: Annotated[Tensor, "B Q"] | None = None) -> None:
        """Go on towards another goal: the memory stays, the plan for the old one goes.

        Args:
            goal: The goal; its last frame counts.
            sensors: Simulator sensors at the goal, for costs on true dynamics.
        """
        self._goal = Goal(latents=self.perception(goal)[:, -1], sensors=sensors)
        self._plan = self._result = self._imagined = None
        self._age = 0

    def act(self, observation: Observation) -> Annotated[Tensor, "B A"]:
        """Choose the next action `B A`: physical units, finite, inside the box.

        Raises:
            RuntimeError: If `reset` was not called.
            BadObservation: If the observation is not what the perception was made for, or has another batch than
                the goal.
        """
        times = [perf_counter()]
        state = self._perceive(observation)
        times.append(perf_counter())
        present = self.present_cost()
        held = present < self.settings.hold_below
        times.append(perf_counter())
        due = not bool(held.all()) and (self._plan is None or self._age >= self.settings.execute)
        if due:
            self._think()
            times.append(perf_counter())
            self._imagined = self._imagine()
            times.append(perf_counter())
        action = self._next_action(held)
        self.memory.did(action)
        self.last = StepLog(
            present=state,
            plan=self._result,
            imagined=self._imagined,
            planned=due,
            present_cost=present,
            held=held,
            action=action,
            seconds=_durations(times),
        )
        return action

    def think(self, moments: Sequence[Moment], guess: Plan | None) -> PlanResult:
        """Search for a plan without acting or remembering: what `RecedingHorizon` runs, in a thread of its own.

        A world whose present cost is below `settings.hold_below` gets the plan of standing still.

        Args:
            moments: Observations and the actions between them, oldest first.
            guess: A first guess `B H A`, or None.

        Raises:
            RuntimeError: If `reset` was not called.
            BadObservation: If an observation is not what the perception was made for, or has another batch than the
                goal.
        """
        states = [self._encode(moment.observation) for moment in moments]
        actions = [moment.action for moment in moments[:-1] if moment.action is not None]
        between = (
            torch.stack(actions, dim=1) if actions else self.box.low.new_zeros(states[0].shape[0], 0, self.box.dim)
        )
        felt = [newest for moment in moments if (newest := _newest(moment.observation)) is not None]
        proprio = torch.stack(felt, dim=1) if len(felt) == len(moments) else None
        context = Context(latents=torch.stack(states, dim=1), actions=between, proprio=proprio)
        result = self._search(context, guess)
        held = self._cost_of(context) < self.settings.hold_below
        return replace(result, actions=torch.where(held[:, None, None], self._still(context), result.actions))

    def present_cost(self) -> Annotated[Tensor, "B"]:
        """The cost `B` of the state seen last, as if it were all the future there is.

        Where the goal is given by simulator sensors, those of one step of standing still stand for the present.
        """
        return self._cost_of(self.memory.read())

    @torch.no_grad()
    def _cost_of(self, context: Context) -> Annotated[Tensor, "B"]:
        goal = self._known_goal()
        still = self._still(context)[:, None, :1]
        if goal.sensors is None:
            rollout = Rollout(latents=context.latents[:, None, -1:])
        else:
            rollout = self.dynamics.rollout(context, still)
        return costs_of(self.cost(rollout, still, goal))[:, 0]

    def _perceive(self, observation: Observation) -> State:
        state = self._encode(observation)
        self.memory.see(state, _newest(observation))
        return state

    def _encode(self, observation: Observation) -> State:
        goal = self._known_goal()
        state: State = self.perception(observation)[:, -1]
        if state.shape != goal.latents.shape:
            raise BadObservation(
                f"the observation gives latents {tuple(state.shape)} and the goal gave {tuple(goal.latents.shape)}: "
                "both need the same number of worlds and the same encoder"
            )
        return state

    def _think(self) -> None:
        """Search for a new plan, from the last one shifted by what was carried out."""
        context = self.memory.read()
        still = self._still(context)
        guess = None if self._plan is None else shifted(self._plan, self._age, tail=still)
        kept = None if self._result is None else self._result.elites
        again = None if kept is None else shifted(kept, self._age, tail=_for_each(still, kept.shape[1]))
        self._result = self._search(context, guess, again)
        self._plan, self._age = self._result.actions, 0

    def _search(self, context: Context, guess: Plan | None, again: Plans | None = None) -> PlanResult:
        still = self._still(context)
        begin, candidates = self._begin(context, guess, again)
        return self.planner.plan(
            PlanRequest(
                evaluate=_Evaluator(self.dynamics, self.cost, context, self._known_goal()),
                box=self.box,
                batch=still.shape[0],
                horizon=self.settings.horizon,
                generator=self.generator,
                warm_start=begin,
                candidates=candidates,
                fallback=still if guess is None else guess,
                deadline_s=self.settings.deadline_s,
                steps=known_steps(self.dynamics, self.cost, context=context, goal=self._known_goal()),
            )
        )

    def _begin(self, context: Context, guess: Plan | None, again: Plans | None) -> tuple[Plan | None, Plans | None]:
        """Where a search begins, and what it tries besides: the proposal first, the last search's plans beside it."""
        if self.proposal is None:
            return guess, again
        proposed = self.proposal(context, self._known_goal(), horizon=self.settings.horizon)
        proposed = torch.where(proposed.isfinite(), proposed, 0.0)
        others = [proposed[:, 1:]] + ([] if guess is None else [guess[:, None]]) + ([] if again is None else [again])
        candidates = torch.cat(others, dim=1)
        return self.box.clip(proposed[:, 0]), candidates if candidates.shape[1] else None

    @torch.no_grad()
    def _imagine(self) -> Latents:
        """What the chosen plan is imagined to lead to, `B H N D`."""
        assert self._plan is not None
        return self.dynamics.rollout(self.memory.read(), self._plan[:, None]).latents[:, 0]

    def _next_action(self, held: Annotated[Tensor, "B"]) -> Annotated[Tensor, "B A"]:
        """The plan's next action, or zero for held worlds, whose plan is put aside until the next search."""
        still = self._still(self.memory.read())
        if self._plan is None or bool(held.all()):
            self._plan, self._age = None, 0
            return still[:, 0]
        self._plan = torch.where(held[:, None, None], still, self._plan)
        self._age += 1
        return self.box.clip(self._plan[:, self._age - 1])

    def _still(self, context: Context) -> Plan:
        """The plan of zero actions `B H A`, or of the nearest ones that the box allows."""
        shape = (context.latents.shape[0], self.settings.horizon, self.box.dim)
        return self.box.clip(self.box.low.new_zeros(shape))

    def _known_goal(self) -> Goal:
        if self._goal is None:
            raise RuntimeError("the agent has no goal yet: call reset(goal) before act(observation)")
        return self._goal


def _for_each(plan: Plan, count: int) -> Plans:
    """The plan `B H A` once per candidate."""
    return plan[:, None].expand(-1, count, -1, -1)


def _newest(observation: Observation) -> Annotated[Tensor, "B P"] | None:
    """The last proprioception, if there is any."""
    return None if observation.proprio is None else observation.proprio[:, -1]


def _durations(times: list[float]) -> dict[str, float]:
    stages = ("perceive", "judge", "plan", "imagine")
    spans = [after - before for before, after in zip(times, times[1:], strict=False)]
    return dict(zip(stages, spans + [0.0] * (len(stages) - len(spans)), strict=True))
