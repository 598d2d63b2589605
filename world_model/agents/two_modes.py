"""The agent of six modules: perceive, compare, configure, decide how to think, act, remember.

    Mode-1   the policy answers in one pass
    Mode-2   a planner searches for the cheapest future, beginning at the policy's answer

Every module beyond those of `Agent` is an optional part. Reference: LeCun 2022, A path towards autonomous machine
intelligence, sections 3.1 and 3.2; thresholds, hysteresis and the order of the steps are ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated

import torch
from torch import Generator, Tensor

from jepa_mpc.actions import shifted
from jepa_mpc.errors import choose
from jepa_mpc.interfaces import Cost, Dynamics, Memory, Perception, Planner
from jepa_mpc.types import ActionBox, Context, MpcSettings, Observation, Plan, Plans, Rollout, State
from jepa_mpc.world_model.agents.arbitration import Evidence, Modes
from jepa_mpc.world_model.agents.configurator import AgentConfig, Configurator
from jepa_mpc.world_model.agents.energy import Energy
from jepa_mpc.world_model.agents.modules import Modules, Once, Watch, fitted, worst
from jepa_mpc.world_model.agents.planning import Agent
from jepa_mpc.world_model.agents.step_log import StepLog, Thought
from jepa_mpc.world_model.costs.constraints import costs_of
from jepa_mpc.world_model.costs.intrinsic import IntrinsicCost
from jepa_mpc.world_model.dynamics.evaluator import Evaluator
from jepa_mpc.world_model.dynamics.predictor_ensemble import OverParticles


class TwoModeAgent(Agent):
    """Moves towards a goal image, by a policy where it can and by planning where it must, for B worlds side by side.

    Args:
        perception: Frames to latents.
        memory: The last latents and the actions between them: what the world model is told.
        dynamics: The world model.
        intrinsic: The frozen cost.
        planners: The planners that the configurator may choose from, by name.
        configurator: Sets everything else for the task at hand.
        box: The actions that the robot accepts.
        generator: Source of the planners' randomness.
        modules: The optional parts.
        deadline_s: Seconds that one search may take.

    Raises:
        UnknownName: If the configurator wants an unknown planner.
        ValueError: If it wants Mode-1 or a critic and there is none, or a weight below its floor.
    """

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
    ) -> None:
        self.intrinsic, self.planners, self.configurator = intrinsic, dict(planners), configurator
        self.modules = modules or Modules()
        self.config = configurator.base
        self.energy = self._energy(self.config)
        super().__init__(
            perception=perception,
            memory=memory,
            dynamics=dynamics,
            cost=self._judge(),
            planner=choose(self.planners, self.config.planner, "planner of this agent"),
            box=box,
            settings=MpcSettings(horizon=self.config.horizon, execute=self.config.execute, deadline_s=deadline_s),
            generator=generator,
            proposal=None if self.modules.actor is None else Once(self.modules.actor),
        )
        self._modes: Modes | None = None
        self._steps = 0

    def aim(self, goal: Observation, *, sensors: Annotated[Tensor, "B Q"] | None = None) -> None:
        """Go on towards another goal: what was learned and seen stays, plans and predictions for the old one go."""
        super().aim(goal, sensors=sensors)
        latents, experience = self._known_goal().latents, self.modules.experience
        self._modes, self._steps = Modes.planning(len(latents), latents.device), 0
        if experience is not None:
            if experience.batch not in (0, len(latents)):
                experience.clear()
            experience.begin(goal=latents)

    def act(self, observation: Observation) -> Annotated[Tensor, "B A"]:
        """Choose the next action `B A`: physical units, finite, inside the box.

        Raises:
            RuntimeError: If `reset` was not called.
            BadObservation: If the observation is not what the perception was made for, or has another batch than
                the goal.
        """
        watch = Watch()
        state = self._fill(observation, self._encode(observation))
        watch("perceive")
        felt = None if observation.proprio is None else observation.proprio[:, -1]
        surprise, novelty = self._compare(state, felt)
        self.memory.see(state, felt)
        context = self.memory.read()
        watch("remember")
        present, doubt = self._cost_of(context), self._doubt_of(state)
        watch("judge")
        self._configure(present, surprise=surprise, doubt=doubt, novelty=novelty)
        held = present < self.config.hold_below
        watch("configure")
        course, answer, before, reactive = self._choose(context, surprise=surprise, doubt=doubt)
        watch("arbitrate")
        due = bool((~reactive & ~held).any()) and (self._plan is None or self._age >= self.settings.execute)
        if due:
            course = self._deliberate(context, course)
            watch("plan")
        course = torch.where((reactive & ~held)[:, None, None], answer, course)
        course = torch.where(held[:, None, None], self._still(context), course)
        rollout = self._imagined_by(context, course)
        terms = self._shares(rollout, course)
        watch("imagine")
        action = self.box.clip(course[:, 0])
        self._remember(state, felt, present, action, rollout)
        watch("store")
        learned = self._learn()
        watch("learn")
        self.last = StepLog(
            present=state,
            plan=self._result,
            imagined=self._imagined,
            planned=due,
            present_cost=present,
            held=held,
            action=action,
            seconds=watch.spans,
            thought=Thought(
                reactive=reactive & ~held,
                energy_before=before,
                energy_after=torch.stack(tuple(terms.values())).sum(dim=0),
                terms=terms,
                surprise=surprise,
                disagreement=doubt,
                novelty=novelty,
                iterations=self._result.iterations if due and self._result else 0,
                evaluations=2 + (self._result.evaluations if due and self._result else 0),
                config=self.config,
                learned=learned,
            ),
        )
        self._plan, self._steps = course, self._steps + 1
        return action

    def _cost_of(self, context: Context) -> Annotated[Tensor, "B"]:
        """Weighted intrinsic cost of the present state, if nothing is done."""
        still = self._still(context)[:, None, :1]
        felt = None if context.proprio is None else context.proprio[:, -1]
        with torch.no_grad():
            return self.energy.at(context.latents[:, -1], still, self._known_goal(), felt)

    def _fill(self, observation: Observation, state: State) -> State:
        """The state, with what had been predicted, or is remembered of the like, where nothing can be seen."""
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
        """Let the configurator set everything for this step."""
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
        self.cost, self.planner = self._judge(), choose(self.planners, config.planner, "planner of this agent")
        self.settings = replace(self.settings, horizon=config.horizon, execute=config.execute)

    def _energy(self, config: AgentConfig) -> Energy:
        if config.mode == "mode1" and self.modules.actor is None:
            raise ValueError("mode1 acts by a policy, and this agent has no actor")
        return Energy.configured(self.intrinsic, self.modules.critic, config)

    def _judge(self) -> Cost:
        """The energy as the planner is given it."""
        return self.energy if self.modules.worst == 1.0 else OverParticles(cost=self.energy, alpha=self.modules.worst)

    @torch.no_grad()
    def _choose(self, context: Context, *, surprise: Tensor, doubt: Tensor) -> tuple[Plan, Plan, Tensor, Tensor]:
        """The last course moved on, the policy's answer, the energy of the former, and who acts by the latter."""
        assert self._modes is not None
        still, first = self._still(context), self._plan is None
        course = still if self._plan is None else shifted(self._plan, 1, tail=still)
        evaluate = Evaluator(self.dynamics, self.cost, context, self._known_goal())
        if self.proposal is None:
            return course, course, costs_of(evaluate(course[:, None]))[:, 0], torch.zeros_like(self._modes.reactive)
        proposed = self.proposal(context, self._known_goal(), horizon=self.settings.horizon)[:, 0]
        answer = self.box.clip(torch.where(proposed.isfinite(), proposed, 0.0))
        before, by_policy = costs_of(evaluate(torch.stack([course, answer], dim=1))).unbind(dim=1)
        known = torch.full_like(before, torch.nan) if first else before
        evidence = Evidence(surprise=surprise, disagreement=doubt, policy_energy=by_policy, plan_energy=known)
        if self.modules.arbitration is not None and self.config.mode == "auto":
            self._modes = self.modules.arbitration.step(self._modes, evidence)
        insisted = {"mode1": True, "mode2": False}.get(self.config.mode)
        reactive = self._modes.reactive if insisted is None else torch.full_like(self._modes.reactive, insisted)
        return course, answer, before, reactive

    def _deliberate(self, context: Context, course: Plan) -> Plan:
        """Search from the last course on, and from the elites of the last search."""
        still = self._still(context)
        kept = None if self._result is None else self._result.elites
        again = None if kept is None else shifted(kept, self._age, tail=still[:, None].expand_as(kept))
        self._result = self._search(context, None if self._plan is None else course, again)
        self._age = 0
        return self._result.actions

    @torch.no_grad()
    def _imagined_by(self, context: Context, course: Plan) -> Rollout:
        rollout = self.dynamics.rollout(context, course[:, None])
        self._imagined = rollout.latents[:, 0]
        return rollout

    @torch.no_grad()
    def _shares(self, rollout: Rollout, course: Plan) -> dict[str, Annotated[Tensor, "B"]]:
        """The weighted shares of the energy of a course, by name; the mean over its particles."""
        plans: Plans = course[:, None].expand(-1, rollout.latents.shape[1], -1, -1)
        shares = self.energy.terms(rollout, plans, self._known_goal())
        return {name: share.mean(dim=1) for name, share in shares.items()}

    def _remember(self, state: State, felt: Tensor | None, cost: Tensor, action: Tensor, rollout: Rollout) -> None:
        """Store the state that was seen with its cost and action, and what is expected of the steps to come."""
        self.memory.did(action)
        self._age += 1
        experience = self.modules.experience
        if experience is None:
            return
        experience.see(state, felt)
        experience.judge(cost)
        experience.did(action)
        experience.expect(rollout.latents[:, 0])

    def _learn(self) -> dict[str, float]:
        learner, experience = self.modules.learner, self.modules.experience
        return {} if learner is None or experience is None else learner.tick(experience)
