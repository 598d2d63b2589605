"""The critic: its targets in closed form, what it learns from, and that nothing else learns."""

from __future__ import annotations

import pytest
import torch

from jepa_mpc.encoders.layers.weights import draw_weights
from jepa_mpc.seeding import generator
from jepa_mpc.world_model.costs.critic import AttentionPool, Critic
from jepa_mpc.world_model.costs.goal import GoalDistance, euclidean
from jepa_mpc.world_model.costs.intrinsic import IntrinsicCost
from jepa_mpc.world_model.memory.hindsight import LatentLog
from jepa_mpc.world_model.memory.replay_buffer import ReplayBuffer
from jepa_mpc.world_model.training.critic import CriticLessons, CriticObjective, Judgement
from jepa_mpc.world_model.training.critic_learner import CriticLearner
from jepa_mpc.world_model.training.critic_targets import bootstrapped, delayed, discounted_sum
from jepa_mpc.world_model.training.loop import FitSettings, fit

LENGTH = 9
AWAY = IntrinsicCost({"goal": GoalDistance(distance=euclidean)})
WEIGHTS = {"goal": 1.0}
GAMMA = 0.9


def chain(episodes: int = 4, length: int = LENGTH) -> LatentLog:
    """Points that walk 0, 1, 2, ... to the right; the cost is the distance from the goal."""
    places = torch.arange(length, dtype=torch.float32).repeat(episodes)
    return LatentLog(
        latents=places[:, None, None],
        actions=torch.ones(len(places), 1),
        offsets=torch.arange(episodes + 1) * length,
        groups=torch.zeros(episodes, dtype=torch.int64),
    )


def test_delayed_and_summed_targets_match_the_closed_form_on_a_chain():
    """IC_t = 8 - t: IC_{t+3} = 5 - t, and sum_{k=1..3} g^(k-1) (8 - t - k)."""
    costs = torch.arange(8.0, -1.0, -1.0)[None].repeat(2, 1)
    lengths = torch.tensor([9, 6])
    late = delayed(costs, delay=3, lengths=lengths)
    steps = torch.arange(9.0)
    assert late.known.tolist() == [[True] * 6 + [False] * 3, [True] * 3 + [False] * 6]
    torch.testing.assert_close(late.values[0, :6], 5 - steps[:6])
    total = discounted_sum(costs, steps=3, discount=GAMMA, lengths=lengths)
    wanted = (7 - steps) + GAMMA * (6 - steps) + GAMMA**2 * (5 - steps)
    assert torch.equal(total.known, late.known)
    torch.testing.assert_close(total.values[0, :6], wanted[:6])
    torch.testing.assert_close(total.values[1, :3], wanted[:3])


def test_targets_that_look_past_a_short_course_do_not_exist():
    assert not delayed(torch.ones(2, 3), delay=3).known.any()
    with pytest.raises(ValueError, match="from 1|1 step"):
        delayed(torch.ones(2, 3), delay=0)


def test_the_bootstrapped_target_of_a_chain_is_the_value_at_every_length():
    """V(t) = sum_{k>=1} g^(k-1) IC_{t+k} fulfils its own n-step target, and nothing counts after the end."""
    costs = torch.arange(8.0, -1.0, -1.0)
    value = torch.stack([sum(GAMMA**k * c for k, c in enumerate(costs[t + 1 :])) + torch.zeros(()) for t in range(9)])
    for steps in (1, 2, 4):
        window = torch.stack([costs[t + 1 : t + 1 + steps] for t in range(9 - steps)])
        torch.testing.assert_close(bootstrapped(window, value[steps:], discount=GAMMA), value[: 9 - steps])
    over = torch.tensor([[False, True, False]])
    ended = bootstrapped(torch.tensor([[1.0, 2.0, 4.0]]), torch.tensor([100.0]), discount=0.5, over=over)
    assert ended.tolist() == [2.0]


def test_hindsight_lessons_end_where_the_goal_was_reached():
    """On the chain the distance from a goal k steps on is k - 1, k - 2, ..., 0 and then nothing."""
    judgement = Judgement(intrinsic=AWAY, weights=WEIGHTS, steps=4)
    batch = CriticLessons(log=chain(), judgement=judgement, batch=64, later=1.0)(generator(0))
    left = (batch["goal"] - batch["state"])[:, 0, 0]
    assert left.min() >= 1 and left.max() <= LENGTH - 1
    ahead = left[:, None] - torch.arange(1.0, 5.0)
    torch.testing.assert_close(batch["costs"], ahead.clamp(min=0))
    assert torch.equal(batch["over"], ahead <= 0)


def test_goals_elsewhere_never_end_a_course():
    judgement = Judgement(intrinsic=AWAY, weights=WEIGHTS, steps=2)
    batch = CriticLessons(log=chain(), judgement=judgement, batch=64, later=0.0)(generator(0))
    assert not batch["over"].any()
    gap = (batch["state"] + torch.tensor([1.0, 2.0])[None, :, None] - batch["goal"])[..., 0].abs()
    torch.testing.assert_close(batch["costs"], gap)


@pytest.mark.parametrize(("form", "steps"), [("delayed", 2), ("sum", 3), ("td", 1), ("td", 3)])
def test_a_trained_critic_knows_the_chain(form, steps):
    """Distance left k: delayed k - d, sum over n steps, td the whole way (both until arrival)."""
    critic = Critic(width=1, hidden=32, unit=4.0, state_scale=4.0)
    draw_weights(critic, generator(0, form))
    objective = CriticObjective(critic, form=form, discount=GAMMA, momentum=0.9)
    judgement = Judgement(intrinsic=AWAY, weights=WEIGHTS, form=form, steps=steps, discount=GAMMA)
    lessons = CriticLessons(log=chain(), judgement=judgement, batch=64, later=1.0)
    fit(objective, lessons, settings=FitSettings(steps=500, learning_rate=4e-3, weight_decay=0.0), seed=0)
    way = torch.arange(1.0, 8.0)
    left = [[max(0.0, k - j) for j in range(1, 9)] for k in way.tolist()]
    exact = {
        "delayed": [row[steps - 1] for row in left],
        "sum": [sum(GAMMA**i * c for i, c in enumerate(row[:steps])) for row in left],
        "td": [sum(GAMMA**i * c for i, c in enumerate(row)) for row in left],
    }[form]
    with torch.no_grad():
        guess = critic(torch.zeros(7, 1, 1), way[:, None, None])
    assert (guess - torch.tensor(exact)).abs().mean() < 0.12 * max(exact)


def test_only_the_critic_learns():
    critic = Critic(width=3, hidden=8)
    draw_weights(critic, generator(0))
    state, goal = (torch.randn(4, 2, 3, generator=generator(0, name)).requires_grad_() for name in "sg")
    objective = CriticObjective(critic)
    batch = {"state": state, "goal": goal, "next": state, "costs": torch.ones(4, 1), "over": torch.zeros(4, 1).bool()}
    objective(batch, generator(0)).total.backward()
    assert state.grad is None and goal.grad is None
    assert all(p.grad is None for p in objective.slow.parameters())
    assert all(p.grad is not None for p in critic.network.parameters())


def test_the_slow_copy_follows():
    critic = Critic(width=2, hidden=4)
    objective = CriticObjective(critic, momentum=0.75)
    before = objective.slow.network[0].weight.clone()
    with torch.no_grad():
        critic.network[0].weight.add_(1.0)
    objective.after_step(0.5)
    torch.testing.assert_close(objective.slow.network[0].weight, before + 0.25)


def test_a_low_expectile_is_optimistic():
    """Targets 0 and 1 for the same state: the mean is 1/2, a low expectile lies near 0."""
    guesses = []
    for expectile in (0.5, 0.1):
        critic = Critic(width=1, hidden=8)
        draw_weights(critic, generator(0))
        objective = CriticObjective(critic, expectile=expectile)
        optimiser = torch.optim.Adam(critic.parameters(), lr=0.01)
        place = torch.zeros(2, 1, 1)
        batch = {"state": place, "goal": place, "target": torch.tensor([0.0, 1.0])}
        for _ in range(300):
            optimiser.zero_grad()
            objective(batch, generator(0)).total.backward()
            optimiser.step()
        guesses.append(critic(place, place)[0].item())
    assert abs(guesses[0] - 0.5) < 0.05 and guesses[1] < 0.2


def test_predicted_states_weigh_less():
    critic = Critic(width=1, hidden=8)
    draw_weights(critic, generator(0))
    objective = CriticObjective(critic)
    place = torch.zeros(2, 1, 1)
    batch = {"state": place, "goal": place, "target": torch.tensor([0.0, 9.0])}
    even = objective({**batch, "weight": torch.tensor([1.0, 1.0])}, generator(0)).total
    light = objective({**batch, "weight": torch.tensor([1.0, 0.5])}, generator(0)).total
    torch.testing.assert_close(even, objective(batch, generator(0)).total)
    assert light < even


def test_the_pool_of_one_token_is_that_token():
    token = torch.randn(5, 1, 3, generator=generator(0))
    torch.testing.assert_close(AttentionPool(3)(token), token[:, 0])


def test_it_learns_on_the_way_from_what_was_remembered():
    memory = ReplayBuffer(capacity=64, action_dim=1)
    for step in range(30):
        memory.see(torch.full((2, 1, 1), float(step % 10)))
        memory.did(torch.ones(2, 1))
        if step % 10 == 9:
            memory.begin()
    critic = Critic(width=1, hidden=16, unit=4.0, state_scale=4.0)
    draw_weights(critic, generator(0))
    judgement = Judgement(intrinsic=AWAY, weights=WEIGHTS, form="delayed")
    learner = CriticLearner(
        CriticObjective(critic, form="delayed"), judgement, generator=generator(0), every=3, steps=40, later=1.0
    )
    losses = [learner.tick(memory).get("loss") for _ in range(30)]
    told = [loss for loss in losses if loss is not None]
    assert len(told) == 10 and losses[0] is None and told[-1] < 0.2 * told[0]


def test_a_memory_too_short_to_learn_from_teaches_nothing():
    memory = ReplayBuffer(capacity=8, action_dim=1)
    memory.see(torch.zeros(1, 1, 1))
    judgement = Judgement(intrinsic=AWAY, weights=WEIGHTS)
    learner = CriticLearner(CriticObjective(Critic(width=1, hidden=4)), judgement, generator=generator(0), every=1)
    assert learner.tick(memory) == {}


def test_odd_settings_are_refused():
    with pytest.raises(ValueError, match="form"):
        Judgement(intrinsic=AWAY, weights=WEIGHTS, form="best")
    with pytest.raises(ValueError, match="expectile"):
        CriticObjective(Critic(width=1), expectile=1.0)
    with pytest.raises(ValueError, match="proprioception of width 2, got none"):
        Critic(width=1, proprio=2)(torch.zeros(1, 1, 1), torch.zeros(1, 1, 1))
    with pytest.raises(ValueError, match="longer than the 20 steps"):
        CriticLessons(log=chain(), judgement=Judgement(intrinsic=AWAY, weights=WEIGHTS, steps=20))
