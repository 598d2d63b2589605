"""Policies that stand in for planning: the network, learning in hindsight, acting, proposing, and their folders."""

from __future__ import annotations

import json

import pytest
import torch

from jepa_mpc.checkpoint import load_checkpoint, save_checkpoint
from jepa_mpc.costs import PlanCost
from jepa_mpc.encoders.layers.weights import draw_weights
from jepa_mpc.errors import BadCheckpoint, BadObservation
from jepa_mpc.planners import cem
from jepa_mpc.seeding import generator
from jepa_mpc.types import (
    ActionBox,
    Context,
    Goal,
    MpcSettings,
    Observation,
    PlanRequest,
    PlanResult,
    PlanStatus,
    Rollout,
)
from jepa_mpc.world_model.agents.planning import PlanningAgent
from jepa_mpc.world_model.agents.reactive import ReactiveAgent
from jepa_mpc.world_model.checkpoints.loader import load_world_model
from jepa_mpc.world_model.checkpoints.policies import load_policy, save_policy
from jepa_mpc.world_model.costs.goal import GoalDistance
from jepa_mpc.world_model.memory.hindsight import LatentLog
from jepa_mpc.world_model.memory.replay_buffer import ReplayBuffer
from jepa_mpc.world_model.perception.images import StatePerception
from jepa_mpc.world_model.policies.goal import GoalPolicy, PolicyProposal
from jepa_mpc.world_model.policies.imitation import Imitation
from jepa_mpc.world_model.training.loop import FitSettings, fit
from tests import tiny

BOX = ActionBox(low=torch.tensor([-0.05, -0.05, 0.0]), high=torch.tensor([0.05, 0.05, 0.0]))
SCALE = [0.05, 0.05, 0.0]


def drawn(**changes) -> GoalPolicy:
    arguments = {"width": 2, "action_scale": SCALE, "chunk": 2, "hidden": 32, "depth": 1, "max_steps": 8}
    policy = GoalPolicy(**arguments | changes)
    draw_weights(policy, generator(0, "policy"))
    return policy


def wandering(episodes: int = 40, length: int = 12) -> LatentLog:
    """Points that walk about: the state is the place, the actions are steps within the box."""
    steps = (torch.rand(episodes, length, 3, generator=generator(0, "walk")) * 2 - 1) * torch.tensor(SCALE)
    steps = steps[:, :1].expand_as(steps) * 0.7 + steps * 0.3
    steps[:, -1] = 0
    places = torch.cat([torch.zeros(episodes, 1, 2), steps[:, :-1, :2].cumsum(1)], dim=1)
    return LatentLog(
        latents=10 * places.flatten(0, 1)[:, None],
        actions=steps.flatten(0, 1),
        offsets=torch.arange(episodes + 1) * length,
        groups=torch.arange(episodes) // 2,
    )


def look(places: torch.Tensor) -> Observation:
    frames = torch.zeros(len(places), 1, 3, 1, 1, dtype=torch.uint8)
    return Observation(frames=frames, cameras=("none",), proprio=10 * places[:, None])


class Points:
    """z' = z + 10 a."""

    def rollout(self, context, plans):
        return Rollout(latents=(context.latents[:, None, -1:, 0] + 10 * plans[..., :2].cumsum(dim=2))[..., None, :])


@pytest.fixture(scope="module")
def taught() -> GoalPolicy:
    """A policy that learned from the wandering alone."""
    objective, log = Imitation(drawn()), wandering()

    def batches(stream):
        samples = log.hindsight(256, chunk=2, max_steps=8, generator=stream)
        return samples | {"planned": torch.zeros(256, dtype=torch.bool)}

    fit(objective, batches, settings=FitSettings(steps=250, learning_rate=5e-3), seed=0)
    return objective.policy.eval()


def test_hindsight_goals_are_later_states_of_the_same_episode():
    log = wandering()
    made = log.hindsight(512, chunk=2, max_steps=5, generator=generator(0))
    assert set(made["steps"].tolist()) == {1, 2, 3, 4, 5}
    for state, goal, steps, actions in zip(
        *(made[name] for name in ("state", "goal", "steps", "actions")), strict=True
    ):
        here = int((log.latents == state).all(dim=-1).all(dim=-1).nonzero()[-1 if state.any() else 0])
        if state.any():  # the start of every episode is the same place
            assert torch.equal(log.latents[here + steps], goal) and here // 12 == (here + int(steps)) // 12
            assert torch.equal(actions[0], log.actions[here])
            assert torch.equal(actions[1], log.actions[here + 1] if steps > 1 else torch.zeros(3))


def test_hindsight_actions_lead_to_the_goal_that_is_near():
    made = wandering().hindsight(256, chunk=2, max_steps=2, generator=generator(1))
    assert torch.allclose(made["state"][:, 0] + 10 * made["actions"].sum(1)[:, :2], made["goal"][:, 0], atol=1e-5)


def test_pairs_come_from_one_place():
    log = wandering()
    marked = LatentLog(
        latents=log.groups.repeat_interleave(12)[:, None, None].float(),
        actions=log.actions,
        offsets=log.offsets,
        groups=log.groups,
    )
    here, there = marked.pairs(300, generator=generator(0))
    assert torch.equal(here, there) and len(here.unique()) == 20


def test_a_log_of_some_episodes_holds_their_steps():
    log = wandering()
    some = log.only(torch.tensor([3, 7]))
    assert torch.equal(some.latents[12:], log.latents[84:96]) and some.groups.tolist() == [1, 3]


def test_a_log_that_does_not_fit_is_refused():
    log = wandering()
    with pytest.raises(ValueError, match="do not form a log"):
        LatentLog(latents=log.latents[1:], actions=log.actions, offsets=log.offsets, groups=log.groups)


def test_axes_without_a_scale_are_never_moved():
    made = drawn()(torch.randn(4, 1, 2, generator=generator(0)), torch.zeros(4, 1, 2), torch.ones(4))
    assert made.shape == (4, 2, 3) and (made[..., 2] == 0).all() and (made[..., :2] != 0).all()


def test_every_weight_learns_and_terms_are_by_source():
    objective = Imitation(drawn())
    samples = wandering().hindsight(8, chunk=2, max_steps=5, generator=generator(0))
    loss = objective(samples | {"planned": torch.arange(8) < 2}, generator(0))
    loss.total.backward()
    assert all(weight.grad is not None and weight.grad.any() for weight in objective.parameters())
    assert torch.allclose(loss.total, 0.25 * loss.terms["planner"] + 0.75 * loss.terms["log"])


def test_the_policy_alone_arrives(taught):
    agent = ReactiveAgent(perception=StatePerception(), policy=taught, box=BOX)
    goal = torch.tensor([[0.2, 0.1], [-0.1, 0.15]])
    agent.reset(look(goal))
    place = torch.zeros(2, 2)
    for _ in range(10):
        action = agent.act(look(place))
        assert torch.equal(BOX.clip(action), action)
        place = place + action[:, :2]
    assert (place - goal).norm(dim=-1).max() < 0.03  # it began 18 to 22 cm away


def test_told_of_more_time_it_moves_more_slowly(taught):
    state, goal = torch.zeros(1, 1, 2), torch.full((1, 1, 2), 0.8)
    sizes = [taught(state, goal, torch.tensor([steps]))[0, 0].norm() for steps in (2, 4, 8)]
    assert sizes[0] > sizes[1] > sizes[2]


def test_the_reactive_agent_counts_its_budget_down():
    seen = []

    class Noting(GoalPolicy):
        def forward(self, state, goal, steps):
            seen.append(int(steps[0]))
            return super().forward(state, goal, steps)

    policy = Noting(width=2, action_scale=SCALE)
    agent = ReactiveAgent(perception=StatePerception(), policy=policy, box=BOX, within=2, budget=4)
    for _ in range(2):
        agent.reset(look(torch.ones(1, 2)))
        for _ in range(4):
            agent.act(look(torch.zeros(1, 2)))
    assert seen == [4, 3, 2, 2] * 2


def test_the_reactive_agent_wants_a_goal_of_the_same_batch_first():
    agent = ReactiveAgent(perception=StatePerception(), policy=drawn(), box=BOX)
    with pytest.raises(RuntimeError, match="reset"):
        agent.act(look(torch.zeros(1, 2)))
    agent.reset(look(torch.zeros(2, 2)))
    with pytest.raises(BadObservation, match="same number of worlds"):
        agent.act(look(torch.zeros(1, 2)))


def test_proposals_are_continued_in_the_imagined_world(taught):
    proposal = PolicyProposal(taught, dynamics=Points(), box=BOX, within=(1, 5))
    context = Context(latents=torch.zeros(2, 1, 1, 2), actions=torch.zeros(2, 0, 3))
    goal = Goal(latents=torch.tensor([[[1.0, 0.5]], [[-1.0, 0.0]]]))
    plans = proposal(context, goal, horizon=5)
    assert plans.shape == (2, 2, 5, 3) and bool(BOX.contains(plans).all())
    start, after = torch.zeros(2, 1, 2), Points().rollout(context, plans[:, :, :2]).latents[:, 0, -1]
    assert torch.allclose(plans[:, 0, :2], BOX.clip(taught(start, goal.latents, torch.tensor([1, 1]))))
    assert torch.allclose(plans[:, 0, 2:4], BOX.clip(taught(after, goal.latents, torch.tensor([1, 1]))))


class Asked:
    """A planner that notes what it is asked and answers with the warm start."""

    def __init__(self) -> None:
        self.requests: list[PlanRequest] = []

    def plan(self, request: PlanRequest) -> PlanResult:
        self.requests.append(request)
        return cem(num_samples=8, num_elites=2, num_iterations=1).plan(request)


def agent_with(planner, proposal) -> PlanningAgent:
    return PlanningAgent(
        perception=StatePerception(),
        memory=ReplayBuffer(capacity=1, window=1, action_dim=3),
        dynamics=Points(),
        cost=PlanCost(GoalDistance()),
        planner=planner,
        box=BOX,
        settings=MpcSettings(horizon=3),
        generator=generator(0, "agent"),
        proposal=proposal,
    )


def test_a_search_begins_with_the_proposal_and_keeps_the_last_plan_as_a_candidate(taught):
    planner, proposal = Asked(), PolicyProposal(taught, dynamics=Points(), box=BOX, within=(1, 5))
    agent = agent_with(planner, proposal)
    agent.reset(look(torch.tensor([[0.2, 0.1]])))
    for _ in range(2):
        agent.act(look(torch.zeros(1, 2)))
    first, second = planner.requests
    assert first.candidates is not None and first.candidates.shape == (1, 1, 3, 3)
    assert second.candidates is not None and second.candidates.shape == (1, 2, 3, 3)
    goal = Goal(latents=torch.tensor([[[2.0, 1.0]]]))
    context = Context(latents=torch.zeros(1, 1, 1, 2), actions=torch.zeros(1, 0, 3))
    assert torch.equal(second.warm_start, proposal(context, goal, horizon=3)[:, 0])


def test_a_broken_proposal_does_not_break_the_agent():
    def broken(context, goal, *, horizon):
        return torch.full((1, 2, horizon, 3), torch.nan)

    agent = agent_with(cem(num_samples=8, num_elites=2, num_iterations=2), broken)
    agent.reset(look(torch.tensor([[0.2, 0.1]])))
    assert agent.act(look(torch.zeros(1, 2))).isfinite().all()
    assert agent.last is not None and agent.last.plan is not None
    assert agent.last.plan.status[0] is not PlanStatus.NO_VALID


def test_a_seeded_search_finds_cheaper_plans_with_fewer_evaluations(taught):
    places = 0.4 * torch.rand(16, 2, generator=generator(3)) - 0.2
    costs = []
    for proposal, rounds in ((None, 4), (PolicyProposal(taught, dynamics=Points(), box=BOX), 2)):
        agent = agent_with(cem(num_samples=16, num_elites=4, num_iterations=rounds), proposal)
        agent.reset(look(places))
        agent.act(look(torch.zeros(16, 2)))
        assert agent.last is not None and agent.last.plan is not None
        costs.append(float(agent.last.plan.cost.mean()))
    assert costs[1] <= costs[0]


@pytest.mark.parametrize(
    "arguments",
    [{"width": 0}, {"chunk": 0}, {"depth": -1}, {"action_scale": [0.0]}, {"action_scale": [-1.0, 1.0]}],
    ids=str,
)
def test_impossible_sizes_are_refused(arguments):
    with pytest.raises(ValueError, match="need|must be"):
        GoalPolicy(**{"width": 2, "action_scale": SCALE} | arguments)


def test_states_of_another_width_and_robots_with_other_actions_are_refused():
    with pytest.raises(ValueError, match="takes states of width 2, got 3"):
        drawn()(torch.zeros(1, 1, 3), torch.zeros(1, 1, 3), torch.ones(1))
    with pytest.raises(ValueError, match="actions of width 2"):
        PolicyProposal(drawn(action_scale=[1.0, 1.0]), dynamics=Points(), box=BOX)


DESCRIBED = {
    "_target_": "goal_policy",
    "width": 64,
    "action_scale": [0.05] * 3 + [0.0] * 4,
    "hidden": 16,
    "depth": 1,
}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return [load_world_model(tiny.save(folder / str(seed), seed=seed)) for seed in (0, 1)]


def made_for(described) -> GoalPolicy:
    return GoalPolicy(**{name: value for name, value in described.items() if name != "_target_"})


def test_a_policy_comes_back_from_its_folder_with_the_same_answers(models, tmp_path):
    policy = made_for(DESCRIBED)
    save_policy(tmp_path / "policy", policy, described=DESCRIBED, model=models[0], training={"steps": 3})
    again = load_policy(tmp_path / "policy", models[0])
    state, goal = torch.randn(2, 4, 1, 64, generator=generator(0))
    assert torch.equal(again(state, goal, torch.ones(4)), policy(state, goal, torch.ones(4)))
    assert not any(weight.requires_grad for weight in again.parameters())


def test_a_policy_of_another_world_model_is_refused(models, tmp_path):
    save_policy(tmp_path / "policy", made_for(DESCRIBED), described=DESCRIBED, model=models[0])
    with pytest.raises(BadCheckpoint, match=f"belongs to the world model {models[0].fingerprint}"):
        load_policy(tmp_path / "policy", models[1])


def test_a_policy_that_does_not_fit_its_world_model_is_refused(models, tmp_path):
    for change, words in (
        ({"width": 32}, "does not fit the states"),
        ({"action_scale": [1.0]}, "actions of width 1"),
    ):
        described = DESCRIBED | change
        save_policy(tmp_path / "policy", made_for(described), described=described, model=models[0])
        with pytest.raises(BadCheckpoint, match=words):
            load_policy(tmp_path / "policy", models[0])


@pytest.mark.parametrize(
    "policy",
    [None, {"_target_": "os.system", "command": "true"}, {"_target_": "given_pose"}, {"width": 2}],
    ids=["none", "foreign", "another part", "no part"],
)
def test_folders_that_describe_no_policy_are_refused(policy, models, tmp_path):
    save_policy(tmp_path / "policy", made_for(DESCRIBED), described=DESCRIBED, model=models[0])
    tensors, config = load_checkpoint(tmp_path / "policy")
    save_checkpoint(tmp_path / "policy", tensors, json.loads(json.dumps(config | {"policy": policy})))
    with pytest.raises(BadCheckpoint, match="describe"):
        load_policy(tmp_path / "policy", models[0])
