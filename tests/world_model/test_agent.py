"""The agent in closed loop with a world of points that move as they are told."""

from __future__ import annotations

import math

import pytest
import torch

from jepa_mpc.costs import PlanCost, WeightedSum, last
from jepa_mpc.envs.costs import squared, task_cost
from jepa_mpc.errors import BadObservation
from jepa_mpc.interfaces import Planner
from jepa_mpc.planners import cem, cem_gradient, gradient, icem, random_shooting
from jepa_mpc.seeding import generator
from jepa_mpc.types import ActionBox, MpcSettings, Observation, PlanRequest, PlanResult, PlanStatus, Rollout
from jepa_mpc.world_model.agents.goals import EncodedGoal
from jepa_mpc.world_model.agents.planning import PlanningAgent
from jepa_mpc.world_model.costs.goal import GoalDistance, euclidean
from jepa_mpc.world_model.costs.terms import Effort
from jepa_mpc.world_model.memory.replay_buffer import ReplayBuffer
from jepa_mpc.world_model.perception.images import ImagePerception, StatePerception

BOX = ActionBox(low=torch.tensor([-0.05, -0.05, 0.0]), high=torch.tensor([0.05, 0.05, 0.0]))
START = torch.tensor([[0.0, 0.0], [0.2, -0.1]])
GOAL = torch.tensor([[0.2, 0.1], [0.0, 0.1]])


class Points:
    """x' = x + a: the true world and its own model; sensors are the place, too far right it breaks down."""

    def __init__(self, *, wall: float = math.inf) -> None:
        self.wall = wall
        self.contexts: list[tuple[int, int]] = []

    def rollout(self, context, plans):
        self.contexts.append((context.latents.shape[1], context.actions.shape[1]))
        places = context.latents[:, None, -1:, 0] + plans[..., :2].cumsum(dim=2)  # (B, S, H, 2)
        valid = (places[..., 0] < self.wall).all(dim=-1)
        return Rollout(latents=places[..., None, :], sensors=places, valid=valid)


def look(places: torch.Tensor) -> Observation:
    frames = torch.zeros(len(places), 1, 3, 1, 1, dtype=torch.uint8)
    return Observation(frames=frames, cameras=("none",), proprio=places[:, None])


def build(
    *,
    planner: Planner | None = None,
    cost=None,
    dynamics=None,
    max_frames: int = 1,
    perception=None,
    goals=None,
    **settings,
) -> PlanningAgent:
    return PlanningAgent(
        perception=perception or StatePerception(),
        goals=goals,
        memory=ReplayBuffer(capacity=max_frames, window=max_frames, action_dim=3),
        dynamics=dynamics or Points(),
        cost=cost or PlanCost(GoalDistance()),
        planner=planner or gradient(),
        box=BOX,
        settings=MpcSettings(**({"horizon": 5} | settings)),
        generator=generator(0, "agent"),
    )


def walk(agent: PlanningAgent, steps: int, start: torch.Tensor = START) -> list[torch.Tensor]:
    places = [start]
    for _ in range(steps):
        action = agent.act(look(places[-1]))
        assert action.isfinite().all() and torch.equal(BOX.clip(action), action) and (action[:, 2] == 0).all()
        places.append(places[-1] + action[:, :2])
    return places


@pytest.mark.parametrize("planner", [cem(), gradient(), cem_gradient()], ids=["cem", "gradient", "cem_gradient"])
def test_it_arrives_and_stays(planner):
    agent = build(planner=planner)
    agent.reset(look(GOAL))
    places = walk(agent, 12)
    assert all((place - GOAL).norm(dim=-1).max() < 0.01 for place in places[8:])


def test_random_shooting_comes_near():
    agent = build(planner=random_shooting())
    agent.reset(look(GOAL))
    assert (walk(agent, 12)[-1] - GOAL).norm(dim=-1).max() < 0.05


def test_judging_the_end_alone_arrives_when_the_whole_plan_is_carried_out():
    agent = build(cost=PlanCost(GoalDistance(), last), horizon=5, execute=5)
    agent.reset(look(GOAL))
    assert (walk(agent, 10)[-1] - GOAL).norm(dim=-1).max() < 0.01


def test_it_holds_still_once_it_is_near_enough():
    agent = build(cost=PlanCost(GoalDistance(distance=euclidean)), hold_below=0.03)
    agent.reset(look(GOAL))
    places = walk(agent, 12)
    assert torch.equal(places[-1], places[-2])
    assert agent.last.held.all() and not agent.last.planned
    gap = (places[-1] - GOAL).norm(dim=-1)
    assert (gap < 0.03).all()
    torch.testing.assert_close(agent.last.present_cost, gap)


def test_one_world_holds_while_another_walks():
    start = torch.stack([GOAL[0], START[1]])
    agent = build(cost=PlanCost(GoalDistance(distance=euclidean)), hold_below=0.03, execute=2)
    agent.reset(look(GOAL))
    places = walk(agent, 3, start)
    assert torch.equal(places[-1][0], start[0]) and (places[-1][1] - start[1]).norm() > 0.05
    assert agent.last.held.tolist() == [True, False]


@pytest.mark.parametrize("planner", [cem(), gradient(), cem_gradient()], ids=["cem", "gradient", "cem_gradient"])
def test_at_the_goal_it_hardly_moves(planner):
    agent = build(planner=planner)
    agent.reset(look(GOAL))
    assert agent.act(look(GOAL)).abs().max() <= 0.05 * 0.05


def test_several_steps_of_a_plan_are_carried_out_before_the_next():
    agent = build(execute=3)
    agent.reset(look(GOAL))
    planned, places = [], [START]
    for _ in range(7):
        action = agent.act(look(places[-1]))
        planned.append(agent.last.planned)
        age = (len(planned) - 1) % 3
        assert torch.equal(action, agent.last.plan.actions[:, age])
        places.append(places[-1] + action[:, :2])
    assert planned == [True, False, False, True, False, False, True]


def test_the_next_search_starts_from_the_shifted_plan():
    requests: list[PlanRequest] = []

    class Watch:
        def plan(self, request: PlanRequest) -> PlanResult:
            requests.append(request)
            return gradient(num_iterations=5).plan(request)

    agent = build(planner=Watch(), execute=2)
    agent.reset(look(GOAL))
    agent.act(look(START))
    first = agent.last.plan.actions
    walk(agent, 2)
    assert requests[0].warm_start is None
    assert torch.equal(requests[1].warm_start[:, :3], first[:, 2:])
    assert (requests[1].warm_start[:, 3:] == 0).all()


def test_the_elites_of_a_search_are_tried_again_one_step_on():
    requests: list[PlanRequest] = []

    class Watch:
        def plan(self, request: PlanRequest) -> PlanResult:
            requests.append(request)
            return icem(num_samples=16, num_iterations=2).plan(request)

    agent = build(planner=Watch())
    agent.reset(look(GOAL))
    agent.act(look(START))
    elites = agent.last.plan.elites
    walk(agent, 1)
    assert requests[0].candidates is None and elites.shape[1] > 0
    assert torch.equal(requests[1].candidates[:, :, :-1], elites[:, :, 1:])
    assert (requests[1].candidates[:, :, -1] == 0).all()


def test_the_log_tells_what_was_imagined():
    agent = build()
    agent.reset(look(GOAL))
    agent.act(look(START))
    log = agent.last
    torch.testing.assert_close(log.imagined[:, :, 0], START[:, None] + log.plan.actions[..., :2].cumsum(dim=1))
    assert set(log.seconds) == {"perceive", "judge", "plan", "imagine"}
    torch.testing.assert_close(log.present_cost, (START - GOAL).square().sum(dim=-1))


def test_the_model_is_told_the_remembered_past():
    dynamics = Points()
    agent = build(dynamics=dynamics, max_frames=3)
    agent.reset(look(GOAL))
    walk(agent, 4)
    assert dynamics.contexts[0] == (1, 0) and dynamics.contexts[-1] == (3, 2)


def test_futures_that_break_down_are_never_chosen():
    """A wall at 0.1: what lies beyond is cheap and invalid."""
    agent = build(planner=cem(), dynamics=Points(wall=0.1))
    agent.reset(look(GOAL))
    agent.act(look(torch.zeros(2, 2)))
    assert agent.last.plan.status == (PlanStatus.DEGRADED, PlanStatus.DEGRADED)
    assert (agent.last.imagined[..., 0] < 0.1).all()


def test_without_a_valid_future_it_stands_still():
    agent = build(dynamics=Points(wall=-1.0))
    agent.reset(look(GOAL))
    assert (agent.act(look(START)) == 0).all()
    assert agent.last.plan.status == (PlanStatus.NO_VALID, PlanStatus.NO_VALID)


def test_true_dynamics_are_judged_by_their_sensors():
    cost = WeightedSum({"place": (1.0, task_cost(squared)), "effort": (1e-4, PlanCost(Effort()))})
    agent = build(cost=cost, hold_below=1e-4, goals=EncodedGoal(StatePerception(), sensors=lambda: GOAL))
    agent.reset(look(torch.zeros(2, 2)))
    places = walk(agent, 12)
    assert (places[-1] - GOAL).norm(dim=-1).max() < 0.011
    assert agent.last.held.all()


def test_images_are_enough():
    """A picture whose red and green tell the place: the same loop through ImagePerception."""

    def picture(places: torch.Tensor) -> Observation:
        colours = torch.cat([(places + 1) * 100, torch.zeros(2, 1)], dim=1).round().to(torch.uint8)
        return Observation(frames=colours[:, None, :, None, None].expand(2, 1, 3, 4, 4), cameras=("front",))

    looking = ImagePerception(
        lambda images: images[:, :2].mean(dim=(-2, -1))[:, None] * 2.55 - 1,
        cameras=["front"],
        image_size=(4, 4),
        mean=(0, 0, 0),
        std=(1, 1, 1),
    )
    agent = build(perception=looking)
    agent.reset(picture(GOAL))
    place = START
    for _ in range(10):
        place = place + agent.act(picture(place))[:, :2]
    assert (place - GOAL).norm(dim=-1).max() < 0.02
    with pytest.raises(BadObservation, match="cameras"):
        agent.reset(Observation(frames=torch.zeros(2, 1, 3, 4, 4, dtype=torch.uint8), cameras=("side",)))


def test_the_same_seed_gives_the_same_walk():
    walks = []
    for _ in range(2):
        agent = build(planner=cem())
        agent.reset(look(GOAL))
        walks.append(torch.stack(walk(agent, 4)))
    assert torch.equal(*walks)


def test_a_new_episode_forgets_the_old_one():
    agent = build()
    agent.reset(look(GOAL))
    walk(agent, 2)
    agent.reset(look(GOAL[:1]))
    assert agent.last is None
    assert agent.act(look(START[:1])).shape == (1, 3)


def test_acting_without_a_goal_or_with_other_worlds_is_refused():
    agent = build()
    with pytest.raises(RuntimeError, match="reset"):
        agent.act(look(START))
    agent.reset(look(GOAL))
    with pytest.raises(BadObservation, match="worlds"):
        agent.act(look(START[:1]))


class Failing:
    """Points whose third rollout goes wrong."""

    def __init__(self) -> None:
        self.points, self.calls = Points(), 0

    def rollout(self, context, plans):
        self.calls += 1
        if self.calls == 3:
            raise RuntimeError("out of memory")
        return self.points.rollout(context, plans)


def test_an_error_in_one_step_leaves_the_agent_able_to_act():
    agent = build(planner=random_shooting(num_samples=8), dynamics=Failing())
    agent.reset(look(GOAL))
    agent.act(look(START))
    with pytest.raises(RuntimeError, match="out of memory"):
        agent.act(look(START))
    assert agent.act(look(START)).isfinite().all()
