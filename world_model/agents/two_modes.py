"""The two-mode agent of six modules: perceive, compare, configure, choose a mode, act, remember.

    Mode-1   the policy acts in one forward pass
    Mode-2   a planner searches for the cheapest future, starting from the policy's proposal

All modules beyond those of the planning agent are optional. Reference: LeCun 2022, A path towards autonomous machine
intelligence, sections 3.1 and 3.2; thresholds, hysteresis and the order of the steps are ours.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Annotated

import torch
from torch import Generator, Tensor

from jepa_mpc.errors import choose
from jepa_mpc.interfaces import Cost, Dynamics, GoalReader, Memory, Perception, Planner
from jepa_mpc.step_log import StepLog
from jepa_mpc.types import (
    ActionBox,
    Context,
    Costs,
    Goal,
    Latents,
    MpcSettings,
    Observation,
    Plan,
    PlanResult,
    Rollout,
    State,
)
from jepa_mpc.world_model.agents.arbitration import Evidence, Modes
from jepa_mpc.world_model.agents.configurator import AgentConfig, Configurator
from jepa_mpc.world_model.agents.goals import EncodedGoal
from jepa_mpc.world_model.agents.modules import Modules, Once, Stopwatch, fitted, worst
from jepa_mpc.world_model.agents.planning import believed, check_state, newest_proprio
from jepa_mpc.world_model.agents.search import PlanSearch
from jepa_mpc.world_model.costs.constraints import costs_of
from jepa_mpc.world_model.costs.energy import Energy
from jepa_mpc.world_model.costs.intrinsic import IntrinsicCost
from jepa_mpc.world_model.dynamics.evaluator import Evaluator
from jepa_mpc.world_model.dynamics.predictor_ensemble import OverParticles
from jepa_mpc.world_model.memory.replay_buffer import seen


@dataclass(frozen=True, kw_only=True)
class TwoModeStepLog(StepLog):
    """One step of a two-mode agent: the outputs of its further modules.

    Args:
        reactive: Worlds that acted by the policy (Mode-1) `B` (bool); the others planned (Mode-2).
        energy_before: Energy of continuing the last plan `B`.
        energy_after: Energy of the chosen plan `B`.
        terms: Weighted cost terms of `energy_after` `B`, by name.
        surprise: Mean squared difference between the perceived and the predicted state `B`; NaN without a prediction.
        disagreement: Disagreement of the ensemble members `B`; 0 without an ensemble.
        novelty: Distance of the current state to the nearest stored one `B`; NaN without a replay buffer.
        iterations: Rounds of this step's search; 0 if there was none.
        evaluations: Candidate plans scored in this step, per world.
        config: The configurator's output, every field.
        learned: Metrics of the critic's training in this step, by name; empty if there was none.
    """

    reactive: Annotated[Tensor, "B"]
    energy_before: Annotated[Tensor, "B"]
    energy_after: Annotated[Tensor, "B"]
    terms: Mapping[str, Costs]
    surprise: Annotated[Tensor, "B"]
    disagreement: Annotated[Tensor, "B"]
    novelty: Annotated[Tensor, "B"]
    iterations: int
    evaluations: int
    config: AgentConfig
    learned: Mapping[str, float]


class TwoModeAgent:
    """Moves towards a goal image, by a policy where possible and by planning otherwise, for B worlds in parallel.

    Args:
        perception: Frames to latents.
        memory: Stores states; its window is the world model's context. Replaced by `modules.experience` if there is
            one.
        dynamics: The world model.
        intrinsic: The frozen cost.
        planners: The planners available to the configurator, by name.
        configurator: Sets all other parameters for the current task.
        box: The actions that the robot accepts; observations are moved to its device.
        generator: Source of the planners' randomness.
        modules: The optional modules.
        deadline_s: Time limit of one search (s).
        goals: Reads the goal; by default it encodes the image once.
        position_head: Maps latents to positions (m), for the step log; or None.

    Raises:
        UnknownName: If the configurator names an unknown planner.
        ValueError: If it needs Mode-1 or a critic and there is none, or sets a weight below its floor.
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
        intrinsic: IntrinsicCost,
        planners: Mapping[str, Planner],
        configurator: Configurator,
        box: ActionBox,
        generator: Generator,
        modules: Modules | None = None,
        deadline_s: float = float("inf"),
        goals: GoalReader | None = None,
        position_head: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.intrinsic, self.planners, self.configurator = intrinsic, dict(planners), configurator
        self.modules = modules or Modules()
        self.perception, self.position_head = perception, position_head
        self.memory: Memory = self.modules.experience or memory
        self.goals: GoalReader = EncodedGoal(perception) if goals is None else goals
        self.config = configurator.base
        self.energy = self._energy(self.config)
        self.search = PlanSearch(
            dynamics=dynamics,
            cost=self._judge(),
            planner=choose(self.planners, self.config.planner, "planner of this agent"),
            box=box,
            settings=MpcSettings(horizon=self.config.horizon, execute=self.config.execute, deadline_s=deadline_s),
            generator=generator,
            proposal=None if self.modules.actor is None else Once(self.modules.actor),
        )
        self.last: TwoModeStepLog | None = None
        self._goal: Goal | None = None
        self._modes: Modes | None = None
        self._steps = 0
        self._forget_plan()

    def reset(self, goal: Observation) -> None:
        """Begin an episode: read the goal once. Learned parameters and stored states stay; plans are dropped."""
        self._take_up(self.goals.reset, goal)
        self.memory.begin(goal=self._known_goal().latents)
        self.last = None

    def aim(self, goal: Observation) -> None:
        """Continue towards another goal: keeps learned parameters and stored states, drops plans and predictions."""
        self._take_up(self.goals.aim, goal)
        self.memory.aim(goal=self._known_goal().latents)

    def act(self, observation: Observation) -> Annotated[Tensor, "B A"]:
        """Choose the next action `B A`: physical units, finite, inside the box.

        Raises:
            RuntimeError: If `reset` was not called.
            BadObservation: If the observation does not fit the perception, or has another batch size than the goal.
        """
        watch = Stopwatch()
        observation = observation.to(self.search.box.low.device)
        state = self._fill(observation, self._encode(observation))
        watch("perceive")
        felt = newest_proprio(observation)
        surprise, novelty = self._compare(state, felt)
        self._goal = self.goals.update(observation, state)
        with seen(self.memory, state, felt) as context:
            watch("remember")
            present, doubt = self._present_cost(context), self._doubt_of(state)
            watch("judge")
            self._configure(present, surprise=surprise, doubt=doubt, novelty=novelty)
            held = present < self.config.hold_below
            watch("configure")
            course, answer, before, reactive = self._choose(context, surprise=surprise, doubt=doubt)
            watch("arbitrate")
            due = bool((~reactive & ~held).any()) and (self._plan is None or self._age >= self.search.settings.execute)
            if due:
                course = self._deliberate(context, course)
                watch("plan")
            course = torch.where((reactive & ~held)[:, None, None], answer, course)
            course = torch.where(held[:, None, None], self.search.still(len(state)), course)
            rollout = self.search.imagine(context, course)
            self._imagined = rollout.latents[:, 0]
            terms = self._shares(rollout, course)
            watch("imagine")
            action = self.search.box.clip(course[:, 0])
            self.memory.did(action)
        self.goals.did(action)
        self._age += 1
        self._note(present, rollout)
        watch("store")
        learned = self._learn()
        watch("learn")
        goal, head, searched = self._known_goal(), self.position_head, self._result if due else None
        self.last = TwoModeStepLog(
            present=state,
            goal=goal,
            plan=self._result,
            imagined=self._imagined,
            planned=due,
            present_cost=present,
            held=held,
            action=action,
            seconds=watch.spans,
            reactive=reactive & ~held,
            energy_before=before,
            energy_after=torch.stack(tuple(terms.values())).sum(dim=0),
            terms=terms,
            surprise=surprise,
            disagreement=doubt,
            novelty=novelty,
            iterations=searched.iterations if searched else 0,
            evaluations=2 + (searched.evaluations if searched else 0),
            config=self.config,
            learned=learned,
            **({} if head is None else believed(head, state, goal=goal, imagined=self._imagined)),
        )
        self._plan, self._steps = course, self._steps + 1
        return action

    def _take_up(self, read: Callable[[Observation], Goal], goal: Observation) -> None:
        self._goal = read(goal.to(self.search.box.low.device))
        latents = self._goal.latents
        self._modes, self._steps = Modes.planning(len(latents), latents.device), 0
        self._forget_plan()

    def _encode(self, observation: Observation) -> State:
        state: State = self.perception(observation)[:, -1]
        check_state(state, self._known_goal().latents)
        return state

    def _present_cost(self, context: Context) -> Annotated[Tensor, "B"]:
        """Weighted intrinsic cost of the current state under the zero action."""
        still = self.search.still(context.latents.shape[0])[:, None, :1]
        felt = None if context.proprio is None else context.proprio[:, -1]
        with torch.no_grad():
            return self.energy.at(context.latents[:, -1], still, self._known_goal(), felt)

    def _fill(self, observation: Observation, state: State) -> State:
        """The state; where the image is unusable, the prediction or a similar stored state replaces it."""
        blind, experience = self.modules.blind, self.modules.experience
        if blind is None or experience is None or not experience.batch:
            return state
        expected, there = experience.expected()
        usable = ~blind(observation) | ~there
        return torch.where(usable[:, None, None], state, expected)

    def _compare(self, state: State, felt: Tensor | None) -> tuple[Tensor, Tensor]:
        """Surprise and novelty of a state `B`; NaN where there is nothing to compare with."""
        experience = self.modules.experience
        surprise = novelty = state.new_full((len(state),), torch.nan)
        if experience is not None and experience.batch:
            expected, there = experience.expected()
            surprise = torch.where(there, (state - expected).square().mean(dim=(-2, -1)), torch.nan)
            novelty = experience.novelty(experience.key(state, felt))
        elif self._imagined is not None:
            surprise = (state - self._imagined[:, 0]).square().mean(dim=(-2, -1))
        return surprise, novelty

    @torch.no_grad()
    def _doubt_of(self, state: State) -> Annotated[Tensor, "B"]:
        if self.modules.doubt is None:
            return state.new_zeros(len(state))
        return self.modules.doubt(state, self._known_goal().latents)

    def _configure(self, present: Tensor, *, surprise: Tensor, doubt: Tensor, novelty: Tensor) -> None:
        """Run the configurator and apply its output to this step."""
        values = {"present_cost": present, "surprise": surprise, "disagreement": doubt, "novelty": novelty}
        quantities = {name: worst(value) for name, value in values.items()}
        left = self.configurator.task.steps - self._steps
        config = self.configurator.configure({**quantities, "step": self._steps, "steps_left": left})
        if config == self.config:
            return
        if config.horizon != self.config.horizon:
            self._plan = None if self._plan is None else fitted(self._plan, config.horizon)
            self._result = None
        self.config, self.energy = config, self._energy(config)
        self.search = replace(
            self.search,
            cost=self._judge(),
            planner=choose(self.planners, config.planner, "planner of this agent"),
            settings=replace(self.search.settings, horizon=config.horizon, execute=config.execute),
        )

    def _energy(self, config: AgentConfig) -> Energy:
        if config.mode == "mode1" and self.modules.actor is None:
            raise ValueError("mode1 needs a policy, but this agent has no actor")
        return Energy(
            intrinsic=self.intrinsic,
            weights=config.weights,
            critic=self.modules.critic,
            critic_weight=config.critic,
            discount=config.discount,
            tokens=config.tokens,
        )

    def _judge(self) -> Cost:
        """The energy as the planner's cost."""
        return self.energy if self.modules.worst == 1.0 else OverParticles(cost=self.energy, alpha=self.modules.worst)

    @torch.no_grad()
    def _choose(self, context: Context, *, surprise: Tensor, doubt: Tensor) -> tuple[Plan, Plan, Tensor, Tensor]:
        """The shifted last plan, the policy's plan, the energy of the former, and the mask of worlds in Mode-1."""
        assert self._modes is not None
        search, goal, first = self.search, self._known_goal(), self._plan is None
        course = search.still(context.latents.shape[0]) if self._plan is None else search.moved_on(self._plan, 1)
        evaluate = Evaluator(search.dynamics, search.cost, context, goal)
        if search.proposal is None:
            return course, course, costs_of(evaluate(course[:, None]))[:, 0], torch.zeros_like(self._modes.reactive)
        proposed = search.proposal(context, goal, horizon=search.settings.horizon)[:, 0]
        answer = search.box.clip(torch.where(proposed.isfinite(), proposed, 0.0))
        before, by_policy = costs_of(evaluate(torch.stack([course, answer], dim=1))).unbind(dim=1)
        known = torch.full_like(before, torch.nan) if first else before
        evidence = Evidence(surprise=surprise, disagreement=doubt, policy_energy=by_policy, plan_energy=known)
        if self.modules.arbitration is not None and self.config.mode == "auto":
            self._modes = self.modules.arbitration.step(self._modes, evidence)
        insisted = {"mode1": True, "mode2": False}.get(self.config.mode)
        reactive = self._modes.reactive if insisted is None else torch.full_like(self._modes.reactive, insisted)
        return course, answer, before, reactive

    def _deliberate(self, context: Context, course: Plan) -> Plan:
        """Search from the last plan, and from the elites of the last search."""
        guess = None if self._plan is None else course
        self._result = self.search.go_on(context, self._known_goal(), guess=guess, last=self._result, age=self._age)
        self._age = 0
        return self._result.actions

    @torch.no_grad()
    def _shares(self, rollout: Rollout, course: Plan) -> dict[str, Annotated[Tensor, "B"]]:
        """The weighted terms of a plan's energy, by name; mean over its particles."""
        plans = course[:, None].expand(-1, rollout.latents.shape[1], -1, -1)
        shares = self.energy.terms(rollout, plans, self._known_goal())
        return {name: share.mean(dim=1) for name, share in shares.items()}

    def _note(self, cost: Tensor, rollout: Rollout) -> None:
        """Store the cost of the perceived state, and the predictions for the coming steps."""
        if self.modules.experience is not None:
            self.modules.experience.judge(cost)
            self.modules.experience.expect(rollout.latents[:, 0])

    def _learn(self) -> dict[str, float]:
        learner, experience = self.modules.learner, self.modules.experience
        return {} if learner is None or experience is None else learner.tick(experience)

    def _forget_plan(self) -> None:
        self._plan = self._result = self._imagined = None
        self._age = 0

    def _known_goal(self) -> Goal:
        if self._goal is None:
            raise RuntimeError("the agent has no goal yet: call reset(goal) before act(observation)")
        return self._goal
