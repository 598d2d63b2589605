"""The agent of two modes in closed loop with points that move as they are told."""

from __future__ import annotations

import math
from dataclasses import fields, replace

import pytest
import torch

from jepa_mpc.planners import cem, gradient, icem
from jepa_mpc.seeding import generator
from jepa_mpc.types import ActionBox, Observation, PlanRequest, Rollout
from jepa_mpc.world_model.agents.arbitration import Arbitration
from jepa_mpc.world_model.agents.configurator import AgentConfig, Configurator, Rule, TaskSpec
from jepa_mpc.world_model.agents.modules import Modules
from jepa_mpc.world_model.agents.two_modes import TwoModeAgent
from jepa_mpc.world_model.costs.critic import Critic
from jepa_mpc.world_model.costs.goal import GoalDistance
from jepa_mpc.world_model.costs.intrinsic import IntrinsicCost
from jepa_mpc.world_model.costs.terms import Effort, RangeLimit
from jepa_mpc.world_model.memory.replay_buffer import ReplayBuffer
from jepa_mpc.world_model.perception.images import StatePerception
from jepa_mpc.world_model.training.critic import CriticObjective, Judgement
from jepa_mpc.world_model.training.critic_learner import CriticLearner

BOX = ActionBox(low=torch.tensor([-0.05, -0.05, 0.0]), high=torch.tensor([0.05, 0.05, 0.0]))
START = torch.tensor([[0.0, 0.0], [0.2, -0.1]])
GOAL = torch.tensor([[0.2, 0.1], [0.0, 0.1]])
BASE = AgentConfig(weights={"goal": 1.0, "effort": 0.0}, horizon=4)
INTRINSIC = IntrinsicCost({"goal": GoalDistance(), "effort": Effort()})
CALM = Arbitration(surprise_below=1e-6)


class Points:
    """x' = x + a; the place is also the proprioception."""

    def rollout(self, context, plans):
        places = context.latents[:, None, -1:, 0] + plans[..., :2].cumsum(dim=2)
        return Rollout(latents=places[..., None, :], proprio=places)


class Straight:
    """The policy: straight towards the goal, as fast as may be; counts how often it is asked."""

    def __init__(self, *, share: float = 1.0) -> None:
        self.share, self.asked = share, 0

    def __call__(self, context, goal, *, horizon):
        self.asked += 1
        way = self.share * (goal.latents[:, 0] - context.latents[:, -1, 0])
        plan = torch.zeros(len(way), horizon, 3)
        for step in range(horizon):
            plan[:, step, :2] = way.clamp(-0.05, 0.05)
            way = way - plan[:, step, :2]
        return plan[:, None]


def look(places: torch.Tensor) -> Observation:
    frames = torch.zeros(len(places), 1, 3, 1, 1, dtype=torch.uint8)
    return Observation(frames=frames, cameras=("none",), proprio=places[:, None])


def build(*, base=BASE, rules=(), task=None, intrinsic=INTRINSIC, planners=None, **modules) -> TwoModeAgent:
    return TwoModeAgent(
        perception=StatePerception(),
        memory=ReplayBuffer(capacity=2, window=2, action_dim=3),
        dynamics=Points(),
        intrinsic=intrinsic,
        planners=planners or {"default": cem(num_samples=64, num_elites=8, num_iterations=5)},
        configurator=Configurator(base, rules=rules, task=task),
        box=BOX,
        generator=generator(0, "agent"),
        modules=Modules(**modules),
    )


def experience() -> ReplayBuffer:
    return ReplayBuffer(capacity=64, action_dim=3)


def walk(agent: TwoModeAgent, steps: int, start: torch.Tensor = START, push=lambda step: 0.0):
    """Places, and the log of each step; `push` moves the points beside what they were told."""
    places, logs = [start], []
    for step in range(steps):
        action = agent.act(look(places[-1]))
        assert action.isfinite().all() and torch.equal(BOX.clip(action), action)
        places.append(places[-1] + action[:, :2] + push(step))
        logs.append(agent.last)
    return places, logs


def test_without_optional_parts_it_plans_and_arrives():
    agent = build()
    agent.reset(look(GOAL))
    places, logs = walk(agent, 12)
    assert (places[-1] - GOAL).norm(dim=-1).max() < 0.015
    assert not any(log.reactive.any() for log in logs) and all(log.planned for log in logs)


def test_it_begins_in_mode_two_and_hands_over_after_two_calm_steps():
    agent = build(actor=Straight(), arbitration=CALM, experience=experience())
    agent.reset(look(GOAL))
    places, logs = walk(agent, 10)
    assert [log.reactive.all().item() for log in logs] == [False, False, *[True] * 8]
    assert [log.planned for log in logs] == [True, True, *[False] * 8]
    assert (places[-1] - GOAL).norm(dim=-1).max() < 1e-6


def test_a_push_brings_the_planner_back():
    agent = build(actor=Straight(), arbitration=CALM, experience=experience())
    agent.reset(look(GOAL))
    _, logs = walk(agent, 9, push=lambda step: 0.03 if step in (4, 5) else 0.0)
    assert [log.reactive.all().item() for log in logs] == [
        False,
        False,
        True,
        True,
        True,
        True,
        False,
        False,
        True,
    ]
    assert logs[5].surprise.min() > 1e-4 and logs[4].surprise.max() < 1e-8


def test_a_policy_that_is_dearer_than_the_plan_never_acts():
    agent = build(actor=Straight(share=-1.0), arbitration=CALM, experience=experience())
    agent.reset(look(GOAL))
    places, logs = walk(agent, 12)
    assert not any(log.reactive.any() for log in logs)
    assert (places[-1] - GOAL).norm(dim=-1).max() < 0.02


def test_worlds_think_in_modes_of_their_own():
    agent = build(actor=Straight(), arbitration=CALM, experience=experience())
    agent.reset(look(GOAL))
    _, logs = walk(agent, 6, push=lambda step: torch.tensor([[0.0, 0.0], [0.02, 0.0]]))
    assert logs[-1].reactive.tolist() == [True, False]


def test_without_a_memory_the_last_prediction_tells_the_surprise():
    agent = build(actor=Straight(), arbitration=CALM)
    agent.reset(look(GOAL))
    _, logs = walk(agent, 4)
    assert logs[0].surprise.isnan().all() and logs[3].reactive.all()


@pytest.mark.parametrize(("mode", "planned"), [("mode1", False), ("mode2", True)])
def test_the_configurator_may_insist_on_a_mode(mode, planned):
    agent = build(base=replace(BASE, mode=mode), actor=Straight(), arbitration=CALM)
    agent.reset(look(GOAL))
    places, logs = walk(agent, 12)
    assert all(log.planned == planned for log in logs)
    assert (places[-1] - GOAL).norm(dim=-1).max() < 0.015


def test_the_policy_is_asked_once_per_step():
    actor = Straight()
    agent = build(actor=actor, arbitration=CALM)
    agent.reset(look(GOAL))
    walk(agent, 5)
    assert actor.asked == 5


def test_every_field_of_the_configuration_is_in_the_log():
    rules = [Rule(name="near", quantity="present_cost", below=0.02, changes={"planner": "short", "horizon": 2})]
    planners = {"default": gradient(num_iterations=5), "short": cem(num_samples=16, num_elites=4, num_iterations=2)}
    agent = build(rules=rules, planners=planners)
    agent.reset(look(GOAL))
    _, logs = walk(agent, 6)
    assert {item.name for item in fields(AgentConfig)} <= set(vars(logs[0].config))
    assert (logs[0].config.planner, logs[0].imagined.shape[1]) == ("default", 4)
    last = logs[-1].config
    assert (last.planner, last.applied, logs[-1].imagined.shape[1]) == ("short", ("near",), 2)
    assert logs[-1].iterations == 2


def test_the_log_adds_up():
    agent = build(base=replace(BASE, weights={"goal": 1.0, "effort": 0.5}, discount=0.9), experience=experience())
    agent.reset(look(GOAL))
    _, logs = walk(agent, 3)
    for log in logs:
        torch.testing.assert_close(sum(log.terms.values()), log.energy_after)
        assert (log.energy_after <= log.energy_before + 1e-6).all()
        assert set(log.milliseconds) == {
            "perceive", "remember", "judge", "configure", "arbitrate", "plan", "imagine", "store", "learn",
        }  # fmt: skip
        assert log.iterations == 5 and log.evaluations > 5 * 64


def test_it_stands_still_once_it_has_arrived():
    agent = build(base=replace(BASE, hold_below=1e-3), actor=Straight(), arbitration=CALM)
    agent.reset(look(GOAL))
    places, logs = walk(agent, 12)
    assert logs[-1].held.all() and torch.equal(places[-1], places[-2])
    assert (places[-1] - GOAL).square().sum(-1).max() < 1e-3


def test_predicted_proprioception_keeps_it_in_its_workspace():
    wall = RangeLimit(low=(-1.0,), high=(0.1,), axes=(0,), unit=0.01)
    intrinsic = IntrinsicCost({"goal": GoalDistance(), "workspace": wall}, floors={"workspace": 1.0})
    base = replace(BASE, weights={"goal": 1.0, "workspace": 1.0})
    agent = build(base=base, intrinsic=intrinsic)
    agent.reset(look(GOAL[:1]))
    places, logs = walk(agent, 12, START[:1])
    assert max(place[0, 0] for place in places) < 0.105 and places[-1][0, 0] > 0.09
    assert logs[-1].terms["workspace"].max() < 1e-2
    with pytest.raises(ValueError, match="workspace.*at least 1.0"):
        build(base=replace(base, weights={"goal": 1.0, "workspace": 0.0}), intrinsic=intrinsic)


def test_a_dead_camera_is_replaced_by_what_was_expected():
    agent = build(experience=experience(), blind=lambda seen: seen.frames.new_tensor([True, True]).bool() & dark[0])
    dark = [torch.tensor(False)]
    agent.reset(look(GOAL))
    places, _ = walk(agent, 2)
    dark[0] = torch.tensor(True)
    agent.act(look(torch.full((2, 2), 9.0)))
    torch.testing.assert_close(agent.last.present[:, 0], places[-1])


def test_a_dead_camera_without_a_prediction_is_taken_as_it_is():
    agent = build(experience=experience(), blind=lambda seen: torch.ones(2, dtype=torch.bool))
    agent.reset(look(GOAL))
    agent.act(look(START))
    assert torch.equal(agent.last.present[:, 0], START)


def test_the_critic_learns_on_the_way_and_the_intrinsic_cost_stays():
    critic = Critic(width=2, hidden=8)
    judgement = Judgement(intrinsic=INTRINSIC, weights=BASE.weights, form="sum", steps=2)
    objective = CriticObjective(critic, form="sum")
    learner = CriticLearner(objective, judgement, generator=generator(0), every=4, steps=2, batch=16)
    before, weights = INTRINSIC.fingerprint(), critic.network[0].weight.detach().clone()
    agent = build(base=replace(BASE, critic=1.0), critic=critic, learner=learner, experience=experience())
    agent.reset(look(GOAL))
    _, logs = walk(agent, 8)
    assert [bool(log.learned) for log in logs] == [False] * 3 + [True] + [False] * 3 + [True]
    assert not torch.equal(critic.network[0].weight, weights) and INTRINSIC.fingerprint() == before
    assert "critic" in logs[0].terms


def test_experience_survives_an_episode_and_predictions_do_not():
    memory = experience()
    agent = build(experience=memory)
    agent.reset(look(GOAL))
    walk(agent, 4)
    agent.reset(look(GOAL))
    assert len(memory.pairs(1).costs) == 6 and not memory.expected()[1].any()
    _, logs = walk(agent, 2)
    assert logs[0].surprise.isnan().all() and logs[0].novelty.max() < 1e-6
    torch.testing.assert_close(memory.pairs(1).goals[:, 0], GOAL.repeat_interleave(4, dim=0))
    agent.reset(look(GOAL[:1]))
    assert agent.act(look(START[:1])).shape == (1, 3)


def test_the_same_seeds_and_configuration_give_the_same_actions():
    walks = []
    for _ in range(2):
        agent = build(actor=Straight(share=0.7), arbitration=CALM, experience=experience())
        agent.reset(look(GOAL))
        walks.append(torch.stack(walk(agent, 6)[0]))
    assert torch.equal(*walks)


def test_plans_of_several_steps_are_carried_out_and_elites_tried_again():
    requests: list[PlanRequest] = []
    inner = icem(num_samples=16, num_iterations=2)

    class Watch:
        def plan(self, request):
            requests.append(request)
            return inner.plan(request)

    agent = build(base=replace(BASE, execute=2), planners={"default": Watch()})
    agent.reset(look(GOAL))
    _, logs = walk(agent, 4)
    assert [log.planned for log in logs] == [True, False, True, False]
    first, elites = logs[0].plan.actions, logs[0].plan.elites
    assert torch.equal(logs[1].action, first[:, 1])
    assert requests[0].warm_start is None and torch.equal(requests[1].warm_start[:, :2], first[:, 2:])
    assert torch.equal(requests[1].candidates[:, :, :2], elites[:, :, 2:])


def test_rules_on_time_and_profile_reach_the_agent():
    rules = [Rule(name="hurry", quantity="steps_left", below=2.5, changes={"execute": 2})]
    agent = build(rules=rules, task=TaskSpec(steps=4))
    agent.reset(look(GOAL))
    _, logs = walk(agent, 4)
    assert [log.config.execute for log in logs] == [1, 1, 2, 2]


def test_mode_one_without_a_policy_is_refused():
    with pytest.raises(ValueError, match="no actor"):
        build(base=replace(BASE, mode="mode1"))
    with pytest.raises(KeyError, match="planner of this agent"):
        build(base=replace(BASE, planner="other"))


def test_doubt_that_is_not_small_keeps_the_planner_at_work():
    arbitration = Arbitration(surprise_below=1.0, disagreement_below=0.5)
    agent = build(actor=Straight(), arbitration=arbitration, doubt=lambda state, goal: torch.tensor([0.1, 0.9]))
    agent.reset(look(GOAL))
    _, logs = walk(agent, 4)
    assert logs[-1].reactive.tolist() == [True, False]
    assert logs[-1].disagreement.tolist() == pytest.approx([0.1, 0.9]) and math.isfinite(logs[-1].seconds["plan"])
