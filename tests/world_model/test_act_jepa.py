"""ACT-JEPA: what is learned from a log, what padding may touch, how the target moves, and acting by chunks."""

from __future__ import annotations

import pytest
import torch

from jepa_mpc.encoders.feature_grid import FeatureGrid
from jepa_mpc.encoders.layers.interleaved import alternating, alternating_grid
from jepa_mpc.encoders.resnet import ResNet, basic, bottleneck
from jepa_mpc.errors import BadCheckpoint, BadObservation
from jepa_mpc.seeding import generator
from jepa_mpc.types import ActionBox, Context, Goal, Observation
from jepa_mpc.world_model.adapters.act_jepa import picture_encoder, sizes_of
from jepa_mpc.world_model.agents.chunk import ChunkAgent, SeededAgent
from jepa_mpc.world_model.checkpoints.loader import save_world_model
from jepa_mpc.world_model.checkpoints.policies import load_chunk_policy
from jepa_mpc.world_model.parts.objectives.chunk import ChunkObjective, gap
from jepa_mpc.world_model.parts.objectives.lessons import ChunkLesson, Demonstrations, HindsightGoals
from jepa_mpc.world_model.parts.predictors.chunk import ContextEncoder
from jepa_mpc.world_model.parts.targets import linear_momentum
from jepa_mpc.world_model.perception.images import ImagePerception
from jepa_mpc.world_model.policies.chunk import ChunkPolicy, ChunkProposal
from jepa_mpc.world_model.recipes.act_jepa import build, build_control
from tests import tiny
from tests.rounding import rounding

BOX = ActionBox(low=-torch.tensor([0.05, 0.05, 0.0]), high=torch.tensor([0.05, 0.05, 0.0]))
SYSTEM = {
    "_target_": "act_jepa",
    "preset": "tiny",
    "action_dim": 3,
    "state_dim": 5,
    "action_scale": [0.05, 0.05, 1.0],
}


def made(recipe=build, seed: int = 0, **changes) -> ChunkObjective:
    options = {key: value for key, value in SYSTEM.items() if key != "_target_"} | changes
    return recipe(**options, generator=generator(seed, "weights"))


def windows(worlds: int = 6, times: int = 4) -> dict[str, torch.Tensor]:
    draw = generator(3)
    return {
        "frames": tiny.frames(worlds, times, channels=3),
        "actions": 0.05 * torch.randn(worlds, times - 1, 3, generator=draw),
        "proprio": torch.randn(worlds, times, 5, generator=draw),
    }


def look(seed: int, worlds: int = 2) -> Observation:
    felt = torch.randn(worlds, 1, 5, generator=generator(seed, "felt"))
    return Observation(frames=tiny.frames(worlds, 1, seed=seed, channels=3), cameras=("eye",), proprio=felt)


def policy(**changes) -> ChunkPolicy:
    networks = made(**changes).eval()
    seeing = ImagePerception(
        networks.encoder, cameras=("eye",), image_size=(tiny.SIZE, tiny.SIZE), prepare=networks.preprocess
    )
    return ChunkPolicy(networks, perception=seeing, box=BOX)


# lessons


def test_a_goal_in_hindsight_is_an_observation_of_the_window_and_steps_tell_which():
    batch = windows()
    lesson = HindsightGoals()(batch, generator(0), chunk=3, horizon=4)
    rows = torch.arange(6)
    assert torch.equal(lesson.frames[:, 0], batch["frames"][:, 0])
    assert torch.equal(lesson.frames[:, 1], batch["frames"][rows, lesson.task])
    assert set(HindsightGoals()(windows(200), generator(1), chunk=3, horizon=4).task.tolist()) == {1, 2, 3}


def test_after_the_goal_one_stands_still():
    batch = windows()
    lesson = HindsightGoals()(batch, generator(0), chunk=3, horizon=4)
    for row, steps in enumerate(lesson.task.tolist()):
        assert torch.equal(lesson.actions[row, :steps], batch["actions"][row, :steps])
        assert not lesson.actions[row, steps:].any()
        assert (lesson.states[row, steps:] == batch["proprio"][row, steps]).all()


def test_demonstrations_end_in_padding():
    lesson = Demonstrations()(windows(2, 4), generator(0), chunk=5, horizon=6)
    assert lesson.padded_actions.tolist() == [[False] * 3 + [True] * 2] * 2
    assert lesson.padded_states.tolist() == [[False] * 4 + [True] * 2] * 2
    assert lesson.frames.shape[1] == 1 and lesson.actions.shape == (2, 5, 3)


def test_longer_windows_than_the_network_knows_are_refused():
    with pytest.raises(ValueError, match="use window=4"):
        made()(windows(2, 6), generator(0))


def test_a_batch_without_states_is_refused():
    batch = {name: value for name, value in windows().items() if name != "proprio"}
    with pytest.raises(ValueError, match="needs proprio"):
        made()(batch, generator(0))


# loss


def demonstrated(times: int = 4) -> tuple[ChunkObjective, ChunkLesson]:
    objective = made(lessons=Demonstrations()).eval()
    padded = torch.zeros(3, 4, dtype=torch.bool)
    padded[:, 2:] = True
    batch = windows(3, times)
    return objective, ChunkLesson(
        task=torch.zeros(3, dtype=torch.int64),
        frames=batch["frames"][:, :1],
        states=batch["proprio"],
        actions=batch["actions"],
        padded_states=padded,
        padded_actions=padded[:, :3],
    )


def test_padded_steps_change_nothing():
    objective, lesson = demonstrated()
    tokens = objective.encode(lesson.frames)
    states, actions = lesson.states.clone(), lesson.actions.clone()
    states[:, 2:], actions[:, 2:] = 7.0, -3.0
    changed = ChunkLesson(**vars(lesson) | {"states": states, "actions": actions})
    assert torch.equal(objective.loss(lesson, tokens).total, objective.loss(changed, tokens).total)
    kept = ChunkLesson(**vars(changed) | {"padded_states": None, "padded_actions": None})
    assert not torch.equal(objective.loss(lesson, tokens).total, objective.loss(kept, tokens).total)


def test_the_mean_is_taken_over_the_steps_that_are_there():
    there = torch.tensor([[True, False], [True, True]])
    wanted = torch.tensor([[[1.0], [50.0]], [[2.0], [3.0]]])
    assert gap(torch.zeros(2, 2, 1), wanted, there) == 2.0
    assert gap(torch.zeros(2, 2, 1), wanted, torch.zeros(2, 2, dtype=torch.bool)) == 0.0


def test_the_total_is_the_sum_of_both_terms_at_their_weights():
    for weight in (1.0, 0.25):
        loss = made(latent_weight=weight)(windows(), generator(0))
        assert torch.isclose(loss.total, loss.terms["action"] + weight * loss.terms["latent"])


def test_the_control_has_the_same_first_weights_and_the_same_action_term():
    ours, control = made(), made(build_control)
    assert control.state_dict().keys() < ours.state_dict().keys()
    first, second = (objective(windows(), generator(0)) for objective in (ours, control))
    assert torch.equal(first.terms["action"], second.total) and "latent" not in second.terms


def test_the_action_term_alone_leaves_the_latent_predictor_untouched():
    objective = made(latent_weight=0.0)
    objective(windows(), generator(0)).total.backward()
    assert all(weight.grad is None for weight in objective.latents.parameters())
    assert all(weight.grad is None for weight in objective.target.parameters())


def test_the_target_follows_by_its_momentum_and_only_after_a_step():
    objective = made()
    with torch.no_grad():
        objective.context.norm.bias += 1.0
    before = objective.target.encoder.norm.bias.clone()
    objective(windows(), generator(0))
    assert torch.equal(objective.target.encoder.norm.bias, before)
    objective.after_step(0.5)
    share = 1 - linear_momentum()(0.5)
    assert torch.allclose(objective.target.encoder.norm.bias, before + share, atol=1e-6)
    objective.after_step(1.0)
    assert torch.allclose(objective.target.encoder.norm.bias, before + share, atol=1e-6)


def test_latents_without_a_target_are_refused():
    objective = made()
    with pytest.raises(ValueError, match="belong together"):
        ChunkObjective(
            encoder=objective.encoder, context=objective.context, decoder=objective.decoder, latents=objective.latents
        )


def test_context_and_lessons_must_show_the_same_pictures():
    objective = made()
    with pytest.raises(ValueError, match="have 1 images and the context takes 2"):
        ChunkObjective(
            encoder=objective.encoder,
            context=objective.context,
            decoder=objective.decoder,
            lessons=Demonstrations(),
        )


# parts


def test_sines_and_cosines_take_turns():
    table = alternating(torch.arange(3), 4)
    assert torch.allclose(table[1], torch.tensor([1.0, 1.0, 0.01, 0.01]).mul(1).sin().where(
        torch.tensor([True, False, True, False]), torch.tensor([1.0, 1.0, 0.01, 0.01]).cos()
    ))  # fmt: skip
    with pytest.raises(ValueError, match="even width"):
        alternating(torch.arange(3), 5)


def test_grid_places_tell_the_row_first_and_end_at_the_same_turn():
    table = alternating_grid(2, 3, 8).unflatten(0, (2, 3))
    assert torch.equal(table[0, 0, :4], table[0, 2, :4]) and torch.equal(table[0, 1, 4:], table[1, 1, 4:])
    assert torch.allclose(table[-1, -1, :4], alternating_grid(5, 5, 8)[-1, :4], atol=1e-5)


@pytest.mark.parametrize(("block", "width"), [(basic, 6), (bottleneck, 8)])
def test_a_residual_network_halves_the_map_in_every_stage_but_the_first(block, width):
    network = ResNet(stem=4, widths=(width, 2 * width), depths=(2, 1), block=block)
    assert network(torch.randn(2, 3, 32, 24)).shape == (2, 2 * width, 4, 3)


def test_cameras_share_the_network_of_a_feature_grid():
    encoder = FeatureGrid(ResNet(stem=4, widths=(4,), depths=(1,)), width=8, num_cameras=2).eval()
    one = torch.randn(2, 3, 16, 16, generator=generator(0))
    tokens = encoder(torch.cat([one, one], dim=1))
    assert tokens.shape == (2, 32, 8) and torch.allclose(tokens[:, :16], tokens[:, 16:])
    with pytest.raises(BadObservation, match="expected images"):
        encoder(one)


def test_states_of_another_length_are_refused():
    context: ContextEncoder = made().context
    with pytest.raises(ValueError, match="P=5"):
        context(torch.zeros(1, dtype=torch.int64), torch.zeros(1, 4), torch.zeros(1, 2, 1, 32))


def test_weights_of_something_else_are_refused():
    with pytest.raises(BadCheckpoint, match="not the weights"):
        sizes_of({"decoder.pos_emb": torch.zeros(3, 4)}, heads=2)
    with pytest.raises(BadCheckpoint, match="not the weights"):
        picture_encoder({"decoder.pos_emb": torch.zeros(3, 4)})


# acting


def test_chunks_lie_in_the_box_and_follow_the_steps_asked_for():
    acting = policy()
    acting.reset(look(1))
    acting.see(look(2))
    one, three = acting.chunk(1), acting.chunk(3)
    assert one.shape == (2, 3, 3) and not torch.equal(one, three)
    assert (one >= BOX.low).all() and (one <= BOX.high).all()
    assert torch.equal(acting.chunk(99), acting.chunk(acting.max_steps))


def test_each_world_has_a_plan_of_its_own():
    acting = policy()
    acting.reset(look(1))
    acting.see(look(2))
    both = acting.chunk(2)
    first = [
        Observation(frames=seen.frames[:1], cameras=seen.cameras, proprio=seen.proprio[:1])
        for seen in (look(1), look(2))
    ]
    acting.reset(first[0])
    acting.see(first[1])
    assert torch.allclose(acting.chunk(2), both[:1], **rounding(products=24, terms=32))


@pytest.mark.parametrize("execute", [1, 2, 3])
def test_it_asks_again_exactly_after_what_it_carries_out(execute, monkeypatch):
    acting = policy()
    asked = []
    answer = acting.chunk
    monkeypatch.setattr(acting, "chunk", lambda steps: asked.append(steps) or answer(steps))
    agent = ChunkAgent(acting, execute=execute, budget=3)
    agent.reset(look(1))
    actions = [agent.act(look(10 + step)) for step in range(6)]
    assert asked == [max(1, 3 - age) for age in range(0, 6, execute)]
    assert all(action.shape == (2, 3) for action in actions)


def test_another_goal_has_the_whole_budget_again(monkeypatch):
    acting = policy()
    asked = []
    answer = acting.chunk
    monkeypatch.setattr(acting, "chunk", lambda steps: asked.append(steps) or answer(steps))
    agent = ChunkAgent(acting, budget=3)
    agent.reset(look(1))
    agent.act(look(10))
    agent.act(look(11))
    agent.aim(look(2))
    agent.act(look(12))
    assert asked == [3, 2, 3]
    torch.testing.assert_close(acting.goal, acting.perception(look(2))[:, -1])


def test_acting_without_a_goal_or_without_joints_is_refused():
    agent = ChunkAgent(policy())
    with pytest.raises(RuntimeError, match="no goal yet"):
        agent.act(look(1))
    agent.reset(look(1))
    blind = Observation(frames=look(2).frames, cameras=("eye",))
    with pytest.raises(BadObservation, match="needs proprioception"):
        agent.act(blind)
    with pytest.raises(BadObservation, match="same number of worlds"):
        agent.act(look(2, worlds=3))


def test_settings_out_of_range_are_refused():
    with pytest.raises(ValueError, match="execute"):
        ChunkAgent(policy(), execute=4)
    with pytest.raises(ValueError, match="within"):
        ChunkProposal(policy(), within=())
    with pytest.raises(ValueError, match="HindsightGoals"):
        policy(lessons=Demonstrations())
    with pytest.raises(ValueError, match="the robot has 3"):
        policy(action_dim=2, action_scale=[1.0, 1.0])


def test_proposals_stand_still_after_the_chunk():
    acting = policy()
    acting.reset(look(1))
    acting.see(look(2))
    nowhere = Context(latents=torch.zeros(2, 1, 1, 4), actions=torch.zeros(2, 0, 3))
    plans = ChunkProposal(acting, within=(1, 3))(nowhere, Goal(latents=torch.zeros(2, 1, 4)), horizon=5)
    assert plans.shape == (2, 2, 5, 3) and not plans[:, :, 3:].any()
    assert torch.equal(plans[:, 1, :3], acting.chunk(3))


def test_the_policy_of_a_seeded_agent_sees_what_the_agent_sees():
    class Watching:
        def reset(self, goal):
            self.goal = goal

        def act(self, observation):
            return acting.chunk(1)[:, 0]

    acting = policy()
    agent = SeededAgent(Watching(), policy=acting)
    agent.reset(look(1))
    first, second = agent.act(look(2)), agent.act(look(3))
    assert torch.equal(agent.agent.goal.frames, look(1).frames) and not torch.equal(first, second)


def test_a_policy_comes_back_from_its_folder_with_the_same_answers(tmp_path):
    networks = made().eval()
    facts = tiny.interface(cameras=("eye",), actions=("dx", "dy", "dz"))
    save_world_model(tmp_path / "policy", networks, system=SYSTEM, interface=facts)
    again, before = load_chunk_policy(tmp_path / "policy", box=BOX), policy()
    for acting in (again, before):
        acting.reset(look(1))
        acting.see(look(2))
    assert torch.allclose(
        again.chunk(2), before.chunk(2), **rounding(products=24, terms=32)
    )  # other places in memory, other rounding


def test_a_folder_of_a_world_model_answers_no_chunks(tmp_path):
    tiny.save(tmp_path / "model")
    with pytest.raises(BadCheckpoint, match="not a system that predicts action chunks"):
        load_chunk_policy(tmp_path / "model", box=BOX)
