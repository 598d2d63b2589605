"""Causal-JEPA: what is hidden, what may leak, who is who, and planning and asking about a toy world of objects."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch

from jepa_mpc.checkpoint import load_checkpoint
from jepa_mpc.costs import PlanCost, last
from jepa_mpc.encoders.layers.weights import draw_weights
from jepa_mpc.errors import BadCheckpoint, BadObservation
from jepa_mpc.planners import PLANNERS
from jepa_mpc.seeding import generator
from jepa_mpc.types import ActionBox, Context, Goal, Observation, PlanRequest, Rollout
from jepa_mpc.world_model.adapters import causal_jepa as released
from jepa_mpc.world_model.checkpoints.loader import load_world_model, save_world_model
from jepa_mpc.world_model.costs.goal import GoalDistance
from jepa_mpc.world_model.dynamics.interventions import (
    attention_influence,
    counterfactual,
    edge_recovery,
    influence,
    moved,
    without,
)
from jepa_mpc.world_model.dynamics.objects import AlignedDynamics, MatchedGap, SlotPerception, aligned
from jepa_mpc.world_model.parts.masks import OBJECTS, LegacyObjectMask, ObjectMask, TokenMask, TubeMask
from jepa_mpc.world_model.parts.masks.objects import given, hidden_grid
from jepa_mpc.world_model.parts.matching import assign, gaps, matched, matching_loss, reorder
from jepa_mpc.world_model.parts.objectives.slots import ObjectObjective
from jepa_mpc.world_model.parts.predictors.object_world import NumbersNode, ObjectWorld
from jepa_mpc.world_model.parts.predictors.slots import SlotPredictor, SlotSizes
from jepa_mpc.world_model.recipes import video_slots
from jepa_mpc.world_model.recipes.causal_jepa import CausalJepaSizes, as_world_model, build, goal_cost
from tests import tiny
from tests.rounding import rounding

SIZES = SlotSizes(width=8, depth=2, heads=2, mlp_dim=16, history=3, future=2)
SYSTEM = {"_target_": "causal_jepa", "preset": "tiny", "action_dim": 2}


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=generator(seed, "noise"))


def predictor(**changes) -> SlotPredictor:
    made = SlotPredictor(replace(SIZES, **changes))
    draw_weights(made, generator(0))
    return made.eval()


def hiding(nodes: torch.Tensor, *places: tuple[int, int]) -> torch.Tensor:
    hidden = torch.zeros(nodes.shape[:3], dtype=torch.bool)
    for time, node in places:
        hidden[:, time, node] = True
    return hidden


# masks


@pytest.mark.parametrize("name", sorted(OBJECTS))
def test_seen_and_hidden_tokens_are_disjoint_and_are_all_of_them(name):
    sampler = OBJECTS[name](frames=4, objects=5, hidden=2, each="sample")
    masks = sampler(6, generator(1))
    both = torch.cat([masks.context, masks.targets[:, 0]], dim=1)
    assert torch.equal(both.sort(dim=1).values, torch.arange(20).expand(6, -1))


@pytest.mark.parametrize("name", sorted(OBJECTS))
def test_the_first_moment_of_every_object_is_seen(name):
    masks = OBJECTS[name](frames=4, objects=5, hidden=2)(6, generator(1))
    assert not hidden_grid(masks, frames=4, objects=5)[:, 0].any()


def test_a_hidden_object_is_hidden_at_all_later_moments():
    masks = ObjectMask(frames=4, objects=5, hidden=2, each="sample")(50, generator(1))
    grid = hidden_grid(masks, frames=4, objects=5)
    assert (grid[:, 1:].sum(dim=2) == 2).all() and torch.equal(grid[:, 1], grid[:, 3])
    assert len(grid[:, 1].unique(dim=0)) == 10  # all pairs of five turn up among fifty draws


def test_a_draw_counts_for_the_batch_unless_each_sample_is_asked_for():
    grid = hidden_grid(ObjectMask(frames=3, objects=6, hidden=3)(20, generator(1)), frames=3, objects=6)
    assert len(grid.unique(dim=0)) == 1


def test_other_draws_hide_other_objects_and_the_legacy_mask_never_does():
    fresh, legacy = (kind(frames=3, objects=7, hidden=3) for kind in (ObjectMask, LegacyObjectMask))
    drawn = [[sampler(2, generator(seed)).targets for seed in range(4)] for sampler in (fresh, legacy)]
    assert len({tuple(mask.flatten().tolist()) for mask in drawn[0]}) > 1
    assert len({tuple(mask.flatten().tolist()) for mask in drawn[1]}) == 1


def test_tubes_are_shorter_and_tokens_lie_anywhere():
    tube = hidden_grid(TubeMask(frames=6, objects=4, hidden=1, length=2)(30, generator(1)), frames=6, objects=4)
    assert (tube.sum(dim=(1, 2)) == 2).all() and (tube.any(dim=1).sum(dim=1) == 1).all()
    token = hidden_grid(TokenMask(frames=6, objects=4, hidden=1)(30, generator(1)), frames=6, objects=4)
    assert (token.sum(dim=(1, 2)) == 5).all() and (token.any(dim=1).sum(dim=1) > 1).any()


def test_masks_that_cannot_be_are_refused():
    for wrong in ({"hidden": 6}, {"frames": 1}, {"each": "epoch"}):
        with pytest.raises(ValueError, match="cannot mask|each must be"):
            ObjectMask(**{"frames": 3, "objects": 5, "hidden": 1} | wrong)
    with pytest.raises(ValueError, match="does not fit"):
        TubeMask(frames=3, objects=5, hidden=1, length=3)
    with pytest.raises(ValueError, match="objects=4"):
        hidden_grid(ObjectMask(frames=3, objects=5, hidden=1)(2, generator(0)), frames=3, objects=4)


# matching


@pytest.mark.parametrize("number", [1, 3, 5, 7])
def test_the_assignment_is_the_cheapest_of_all_permutations(number):
    costs = noise(4, number, number)
    chosen = costs.gather(2, assign(costs)[..., None]).sum(dim=(1, 2))
    every = torch.tensor(list(itertools.permutations(range(number))))
    best = costs[:, torch.arange(number), every].sum(dim=2).min(dim=1).values
    assert torch.allclose(chosen, best, atol=1e-5)


def test_many_slots_are_assigned_one_to_one_even_where_costs_tie_or_are_not_finite():
    costs = torch.randint(0, 3, (20, 9, 9), generator=generator(0)).float()
    costs[0, 0, 0], costs[1] = torch.nan, torch.inf
    assert torch.equal(assign(costs).sort(dim=1).values, torch.arange(9).expand(20, -1))


def test_shuffled_slots_are_found_again():
    slots, order = noise(2, 3, 5, 8), torch.tensor([3, 1, 4, 0, 2])
    assert float(matched(slots, slots[:, :, order]).abs().max()) < 1e-12
    back = reorder(slots[:, :, order], assign(gaps(slots[:, 0], slots[:, 0, order])))
    assert torch.equal(back, slots)
    with pytest.raises(ValueError, match="square"):
        assign(torch.zeros(2, 3, 4))


def test_matching_is_differentiable_and_counts_the_width_in_the_loss_alone():
    first, second = noise(2, 1, 3, 4).requires_grad_(), noise(2, 1, 3, 4, seed=1)
    loss = matching_loss(first, second)
    loss.backward()
    assert torch.isclose(loss, 4 * matched(first, second).mean()) and first.grad.abs().sum() > 0


def test_earlier_frames_are_put_into_the_order_of_the_last():
    still = noise(2, 1, 4, 8).expand(-1, 3, -1, -1)
    mixed = torch.cat([still[:, :1, [1, 2, 0, 3]], still[:, 1:2, [2, 0, 1, 3]], still[:, 2:]], dim=1)
    assert torch.equal(aligned(mixed, extra=1), still)


# predictor


def test_permuted_objects_give_permuted_predictions():
    net, nodes, order = predictor(), noise(2, 3, 4, 8), torch.tensor([2, 0, 3, 1])
    hidden = hiding(nodes, (1, 0), (2, 0), (2, 3))
    assert torch.allclose(net(nodes, hidden)[:, :, order], net(nodes[:, :, order], hidden[:, :, order]), atol=1e-5)


def test_what_is_hidden_leaks_nowhere():
    net, nodes = predictor(), noise(2, 3, 4, 8)
    hidden, other = hiding(nodes, (1, 2), (2, 2)), nodes.clone()
    other[:, 1:, 2] = 7.0
    assert torch.equal(net(nodes, hidden), net(other, hidden))
    other[:, 0, 2] = 7.0
    assert not torch.equal(net(nodes, hidden), net(other, hidden))


def test_hiding_the_first_moment_changes_nothing():
    net, nodes = predictor(), noise(2, 3, 4, 8)
    assert torch.equal(net(nodes, hiding(nodes, (0, 1))), net(nodes))


def test_short_histories_use_the_last_times():
    net, nodes = predictor(), noise(1, 2, 3, 8)
    assert torch.equal(net.grid(nodes)[:, :2], nodes + net.times[:, 1:3])
    with pytest.raises(ValueError, match="1 to 3 frames, got 4"):
        net(noise(1, 4, 3, 8))


def test_attention_shares_sum_to_one_over_everything_looked_at():
    probe = predictor().attention_probe(noise(2, 3, 4, 8), layer=0)
    assert probe.shape == (2, 5, 4, 5, 4) and torch.allclose(probe.sum(dim=(3, 4)), torch.ones(2, 5, 4), atol=1e-5)


def test_a_longer_future_cannot_be_kept_than_is_predicted():
    with pytest.raises(ValueError, match="predicts 2 frames"):
        ObjectWorld(predictor(), per_round=3)


# loss


def windows(worlds: int = 4, *, objects: int = 3, width: int = 16, seed: int = 0) -> dict[str, torch.Tensor]:
    return {
        "slots": noise(worlds, 4, objects, width, seed=seed),
        "actions": noise(worlds, 3, 2, seed=seed + 1),
        "proprio": noise(worlds, 4, 5, seed=seed + 2),
    }


def made(**changes) -> ObjectObjective:
    return build(**{"preset": "tiny", "action_dim": 2, "generator": generator(0)} | changes)


def test_the_loss_is_the_mean_over_hidden_trajectories_and_all_of_the_future():
    objective, batch = made().eval(), windows()
    world, slots = objective.predictor, batch["slots"]
    hidden = hidden_grid(given(torch.tensor([1]), batch=4, frames=3, objects=3), frames=3, objects=3)
    nodes = world.nodes(slots[:, :3], batch["actions"])
    loss = objective.loss(nodes, slots, hidden)
    predicted = world.slots(nodes, torch.cat([hidden, torch.zeros(4, 3, 1, dtype=torch.bool)], dim=2))
    gap = (predicted[:, :, :3] - slots).square()
    assert torch.isclose(loss.terms["history"], gap[:, :3, 1].mean())
    assert torch.isclose(loss.total, gap[:, :3, 1].mean() + gap[:, 3:].mean())


def test_without_hidden_objects_the_past_costs_nothing():
    objective = made(masks=ObjectMask(frames=3, objects=3, hidden=0))
    assert objective(windows(), generator(0)).terms["history"] == 0


def test_actions_that_leave_the_future_and_missing_numbers_do_not_matter():
    objective, batch = made(), windows()
    loss = objective(batch, generator(0)).total
    batch["actions"] = torch.cat([batch["actions"], torch.full((4, 1, 2), 9.0)], dim=1)
    assert torch.equal(objective(batch, generator(0)).total, loss)
    node = NumbersNode(2, width=4)
    assert torch.equal(node(torch.tensor([torch.nan, 1.0])), node(torch.tensor([0.0, 1.0])))


def test_proprioception_is_a_node_that_learns_through_its_input_alone():
    objective, batch = made(proprio_dim=5), windows()
    loss = objective(batch, generator(0))
    assert {"proprio", "proprio_std"} <= loss.terms.keys()
    assert torch.isclose(loss.total, sum(loss.terms[name] for name in ("history", "future", "proprio")))
    loss.total.backward()
    assert objective.predictor.felt.map.weight.grad.abs().sum() > 0
    with pytest.raises(ValueError, match="5 numbers per frame"):
        objective({key: value for key, value in batch.items() if key != "proprio"}, generator(0))


def test_a_world_that_nobody_acts_in_learns_without_actions_and_goes_on_by_itself():
    objective, slots = made(action_dim=None), windows()["slots"]
    objective({"slots": slots}, generator(0)).total.backward()
    world = objective.predictor.eval()
    rolled, _ = world.rollout(slots[:, :2], torch.zeros(4, 1, 0), torch.zeros(4, 1, 5, 0))
    assert rolled.shape == (4, 1, 5, 3, 16)


def test_windows_of_another_length_and_slots_of_another_width_are_refused():
    with pytest.raises(ValueError, match="use window=4"):
        made()({key: value[:, :3] for key, value in windows().items()}, generator(0))
    with pytest.raises(ValueError, match="predictor expects 16"):
        made(encoder=video_slots.PRESETS["lab"].form(video_slots.PRESETS["lab"]))


def test_the_encoder_is_frozen_and_follows_slots_from_where_they_were():
    objective = made().train()
    assert not objective.encoder.training and not any(w.requires_grad for w in objective.encoder.parameters())
    frames = tiny.frames(2, 3, channels=3, size=28)
    whole = objective.encode(frames)
    later = objective.follow(frames[:, 2:], whole[:, 1])
    assert later.shape == (2, 1, 3, 16) and not torch.equal(later, objective.encode(frames[:, 2:]))


# rollouts and agents


def test_one_step_of_a_rollout_is_the_prediction_of_that_step():
    world = made().predictor.eval()
    latents, actions = noise(2, 3, 3, 16), noise(2, 3, 2)
    rolled, _ = world.rollout(latents, actions[:, :2], actions[:, None, 2:])
    assert torch.allclose(rolled[:, 0, 0], world.predict(latents, actions)[0][:, -1], **rounding(products=12, terms=32))


def test_a_candidate_is_imagined_as_if_it_were_alone_and_in_any_chunk():
    objective = made()
    context = Context(latents=noise(2, 2, 3, 16), actions=noise(2, 1, 2))
    plans = noise(2, 5, 4, 2)
    whole = as_world_model(objective).rollout(context, plans).latents
    small = AlignedDynamics(objective.predictor, max_bytes=2 * objective.predictor.bytes_per_candidate(3, 4))
    assert whole.shape == (2, 5, 4, 3, 16) and torch.allclose(whole, small.rollout(context, plans).latents, atol=1e-5)


def test_imagined_objects_stay_in_the_order_of_the_frame_before():
    world = made().predictor.eval()
    nodes = world.imagine(noise(6, 1, 3, 16), noise(6, 4, 2))
    same = torch.arange(3).expand(6, -1)
    for time in range(1, 5):
        assert torch.equal(assign(gaps(nodes[:, time - 1, :3], nodes[:, time, :3])), same)


def test_several_frames_of_a_round_can_be_kept():
    world = ObjectWorld(predictor(), action=NumbersNode(2, width=8), per_round=2).eval()
    assert world.imagine(noise(2, 1, 3, 8), noise(2, 4, 2)).shape == (2, 5, 4, 8)
    with pytest.raises(ValueError, match="at least as many actions"):
        world.imagine(noise(2, 2, 3, 8), noise(2, 1, 2))


def test_the_goal_may_show_its_slots_in_any_order_but_not_its_proprioception():
    cost, rollout = PlanCost(GoalDistance(distance=MatchedGap(extra=1)), last), Rollout(latents=noise(2, 3, 2, 4, 8))
    goal, plans = noise(2, 4, 8, seed=3), noise(2, 3, 2, 1)
    order, wrong = torch.tensor([2, 0, 1, 3]), torch.tensor([3, 0, 1, 2])
    first, second, third = (cost(rollout, plans, Goal(latents=goal[:, way])) for way in (torch.arange(4), order, wrong))
    assert torch.allclose(first, second) and not torch.allclose(first, third)


def test_a_world_model_of_objects_comes_back_from_its_folder(tmp_path):
    facts = tiny.interface(cameras=("eye",), actions=("dx", "dy"), image_size=28)
    for proprio_dim in (None, 5):
        objective = made(proprio_dim=proprio_dim).eval()
        save_world_model(tmp_path / "m", objective, system=SYSTEM | {"proprio_dim": proprio_dim}, interface=facts)
        model = load_world_model(tmp_path / "m")
        assert model.needs_proprio == (proprio_dim is not None)
        felt = None if proprio_dim is None else noise(2, 1, 5)
        seen = Observation(frames=tiny.frames(2, 1, channels=3, size=28), cameras=("eye",), proprio=felt)
        states = model.perception(seen)
        assert torch.equal(states[:, :, :3], objective.encode(seen.frames))
        rollout = model.dynamics.rollout(Context(latents=states, actions=noise(2, 0, 2)), noise(2, 3, 2, 2))
        assert model.goal_cost(rollout, noise(2, 3, 2, 2), Goal(latents=states[:, 0])).shape == (2, 3)
    blind = Observation(frames=tiny.frames(1, 1, channels=3, size=28), cameras=("eye",))
    with pytest.raises(BadObservation, match="proprioception of width 5 per frame"):
        SlotPerception(objective, cameras=("eye",), image_size=(28, 28))(blind)
    assert load_checkpoint(tmp_path / "m")[1]["system"]["preset"] == "tiny"


# released weights


def theirs(world: ObjectWorld, prefix: str) -> dict[str, torch.Tensor]:
    return {prefix + released.spelling(name): value for name, value in world.slots.state_dict().items()}


@pytest.mark.parametrize("prefix", ["", "predictor.", "model.predictor."])
def test_weights_fit_with_any_prefix(prefix):
    world = made().predictor.eval()
    again = released.world(
        theirs(world, prefix) | {"model.encoder.x": torch.zeros(1)} if prefix else theirs(world, ""), heads=2
    )
    nodes = noise(1, 3, 3, 16)
    assert torch.equal(again.eval().slots(nodes), world.slots(nodes)) and again.action is None


def test_pickled_modules_and_strange_weights_are_refused(tmp_path):
    torch.save({"whole": made()}, tmp_path / "module.ckpt")
    with pytest.raises(BadCheckpoint, match="cannot be read"):
        released.load_released(tmp_path / "module.ckpt")
    weights = theirs(made().predictor, "")
    with pytest.raises(BadCheckpoint, match="time_pos_embed is missing"):
        released.world({"other": torch.zeros(1)})
    with pytest.raises(BadCheckpoint, match="to_out.bias"):
        released.world({name: value for name, value in weights.items() if name != "to_out.bias"}, heads=2)
    with pytest.raises(BadCheckpoint, match="3 heads"):
        released.world(weights, heads=3)
    torch.save(weights, tmp_path / "plain.ckpt")
    assert released.load_released(tmp_path / "plain.ckpt", heads=2).window == 3
    kept = [released.world(weights, heads=2, future=2, per_round=per_round).per_round for per_round in (None, 1)]
    assert kept == [2, 1]  # the authors keep every frame that a round predicts


# interventions


def test_a_removed_object_is_as_if_it_had_never_been_there():
    net, nodes, kept = predictor(), noise(2, 3, 4, 8), [0, 1, 3]
    after = counterfactual(net, nodes, without(net, nodes, 2))
    assert torch.allclose(after[:, :, kept], net.ahead(nodes[:, :, kept]), atol=1e-5)


def test_no_change_predicts_what_is_predicted_anyway_and_strange_changes_are_refused():
    net, nodes = predictor(), noise(2, 3, 4, 8)
    assert torch.equal(counterfactual(net, nodes, {}), net.ahead(nodes))
    with pytest.raises(ValueError, match="no node 4"):
        counterfactual(net, nodes, {(0, 4): "remove"})
    with pytest.raises(ValueError, match="times before 3"):
        counterfactual(net, nodes, {(3, 0): torch.zeros(8)})
    with pytest.raises(ValueError, match="'remove'"):
        counterfactual(net, nodes, {(0, 0): "hide"})


def test_edges_are_recovered_by_their_rank():
    edges = torch.zeros(1, 3, 3, dtype=torch.bool)
    edges[0, 0, 1] = True
    assert edge_recovery(edges.float(), edges) == 1 and edge_recovery(torch.zeros(1, 3, 3), edges) == 0.5
    assert edge_recovery(-edges.float(), edges) == 0
    with pytest.raises(ValueError, match="needs edges"):
        edge_recovery(torch.zeros(1, 3, 3), torch.zeros(1, 3, 3, dtype=torch.bool))


# a toy world: a hand that is commanded, a follower that stands where the hand was, a drifter that minds nobody

CODE = torch.tensor([1.0, -1.0, 2.0, -2.0, 0.5])  # how a slot shows its place


def courses(worlds: int, seed: int, times: int = 4) -> dict[str, torch.Tensor]:
    draw = generator(seed, "courses")
    place = 1.4 * torch.rand(worlds, 3, generator=draw) - 0.7
    drift = 0.3 * (2 * torch.rand(worlds, generator=draw) - 1)
    actions = 0.6 * (2 * torch.rand(worlds, times - 1, 1, generator=draw) - 1)
    places = [place]
    for time in range(times - 1):
        hand, _, drifter = places[-1].unbind(dim=1)
        places.append(torch.stack([hand + actions[:, time, 0], hand, drifter + drift], dim=1))
    shown = torch.stack(places, dim=1)[..., None] * CODE
    kinds = 3 * torch.eye(3).expand(worlds, times, 3, 3)  # larger than any move: matching keeps them apart
    return {"slots": torch.cat([shown, kinds], dim=-1), "actions": actions}


@pytest.fixture(scope="module")
def toy() -> ObjectObjective:
    sizes = CausalJepaSizes(
        slots=replace(video_slots.PRESETS["tiny"], slot_dim=8),
        predictor=SlotSizes(width=8, depth=2, heads=2, mlp_dim=64, history=3),
        hidden=1,
    )
    objective = build(preset=sizes, action_dim=1, action_scale=[0.4], generator=generator(0))
    optimiser = torch.optim.Adam([weight for weight in objective.parameters() if weight.requires_grad])
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 1e-2, total_steps=400)
    for number in range(400):
        optimiser.zero_grad()
        objective(courses(64, number), generator(number)).total.backward()
        optimiser.step()
        schedule.step()
    return objective.eval()


def test_moving_the_hand_moves_its_follower_and_not_the_drifter(toy):
    batch = courses(128, 9999)
    nodes = toy.predictor.nodes(batch["slots"][:, :3], batch["actions"])
    shift = torch.cat([0.3 * CODE, torch.zeros(3)])
    answers = influence(toy.predictor.slots, nodes, by=moved(shift), objects=3).mean(dim=0)
    assert answers[0, 1] > 10 * answers[0, 2]  # trained once: a hundred times
    assert answers[2, :2].max() < 0.2 * answers[0, 1]
    edges = torch.zeros(128, 3, 3, dtype=torch.bool)
    edges[:, 0, 1] = True
    assert edge_recovery(influence(toy.predictor.slots, nodes, by=moved(shift), objects=3), edges) > 0.8


def test_attention_is_read_per_pair_of_objects(toy):
    batch = courses(8, 9999)
    nodes = toy.predictor.nodes(batch["slots"][:, :3], batch["actions"])
    shares = attention_influence(toy.predictor.slots, nodes, objects=3)
    assert shares.shape == (8, 3, 3) and (shares >= 0).all() and (shares.sum(dim=1) <= 1 + 1e-5).all()


def test_a_hidden_hand_is_inferred_from_its_follower(toy):
    batch = courses(256, 9999)
    hidden = hidden_grid(given(torch.tensor([0]), batch=256, frames=3, objects=3), frames=3, objects=3)
    nodes = toy.predictor.nodes(batch["slots"][:, :3], batch["actions"])
    spare = torch.zeros(256, 3, 1, dtype=torch.bool)
    with torch.no_grad():
        answer = toy.predictor.slots(nodes, torch.cat([hidden, spare], dim=2))[:, 1, 0]
    truth, middle = batch["slots"][:, 1, 0], batch["slots"][:, 1, 0].mean(dim=0)
    assert (answer - truth).square().mean() < 0.25 * (middle - truth).square().mean()


@pytest.mark.parametrize("planner", ["cem", "gradient"])
def test_a_planner_brings_the_hand_to_the_goal_over_slots(toy, planner):
    batch, horizon = courses(16, 77, times=5), 2
    start, wanted = batch["slots"][:, :3], batch["slots"][:, 4][:, [2, 0, 1]]
    context, goal = Context(latents=start, actions=batch["actions"][:, :2]), Goal(latents=wanted)
    dynamics, cost = as_world_model(toy), goal_cost(toy)
    settings = {"cem": {"num_samples": 64, "num_elites": 8, "num_iterations": 6}}.get(planner, {})
    request = PlanRequest(
        evaluate=lambda plans: cost(dynamics.rollout(context, plans), plans, goal),
        box=ActionBox(low=torch.tensor([-0.6]), high=torch.tensor([0.6])),
        batch=16,
        horizon=horizon,
        generator=generator(0, "planner"),
    )
    plan = PLANNERS[planner](**settings).plan(request).actions
    way = batch["actions"][:, 2:].sum(dim=(1, 2))  # from where the hand is to where the goal shows it
    missed = (plan.sum(dim=(1, 2)) - way).abs().mean()
    assert missed < 0.5 * way.abs().mean()  # standing still misses all of it, this short training a third
