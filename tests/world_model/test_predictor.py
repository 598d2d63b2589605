"""The causal predictor: causality, and rollouts that equal running everything anew."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from jepa_mpc.encoders.layers.blocks import GatedModulation
from jepa_mpc.encoders.layers.weights import draw_weights
from jepa_mpc.seeding import generator
from jepa_mpc.types import Context
from jepa_mpc.world_model.dynamics.learned import LearnedDynamics
from jepa_mpc.world_model.parts.actions import ActionEncoder, ActionMap
from jepa_mpc.world_model.parts.predictors.causal import CausalPredictor, ProprioStream, ResidualOutput
from jepa_mpc.world_model.parts.predictors.frame_positions import RotaryPositions, WindowPositions
from jepa_mpc.world_model.parts.predictors.trunk import ConditionedTransformer, TrunkSizes
from tests.rounding import rounding

D, A, P = 12, 7, 3


def make(*, num_tokens: int = 1, window: int = 4, restarts: bool = False, proprio: bool = False) -> CausalPredictor:
    sizes = TrunkSizes(width=16, depth=2, heads=2, head_dim=8, mlp_dim=32)
    positions = (
        WindowPositions(window=window, width=D, num_tokens=num_tokens)
        if restarts
        else RotaryPositions(window=window, head_dim=8, width=D, num_tokens=num_tokens)
    )
    predictor = CausalPredictor(
        trunk=ConditionedTransformer(D, sizes=sizes, output_dim=16, modulation_init=GatedModulation()),
        action_encoder=ActionEncoder(A, width=D, action_map=ActionMap(torch.full((A,), 0.5))),
        positions=positions,
        output=ResidualOutput(16, state_dim=D, scale=1.0),
        proprio=ProprioStream(torch.ones(P), cond_dim=D, raw_dim=16) if proprio else None,
    )
    draw_weights(predictor, generator(0))
    return predictor


def data(
    frames: int, num_tokens: int = 1, worlds: int = 2, candidates: int = 3, horizon: int = 4
) -> list[torch.Tensor]:
    draw = generator(1, frames)
    shapes = [(worlds, frames, num_tokens, D), (worlds, frames - 1, A), (worlds, candidates, horizon, A)]
    return [torch.randn(shape, generator=draw) for shape in (*shapes, (worlds, frames, P))]


def naive(predictor: CausalPredictor, latents, actions, plans, proprio=None):
    """Each step runs all frames (or the last window, where positions restart) anew."""
    candidates = plans.shape[1]
    latents, actions = (x.repeat_interleave(candidates, dim=0) for x in (latents, actions))
    proprio = None if proprio is None else proprio.repeat_interleave(candidates, dim=0)
    first, actions = latents.shape[1], torch.cat([actions, plans.flatten(0, 1)], dim=1)
    view = predictor.window if predictor.positions.restarts else 10**6
    for now in range(first, first + plans.shape[2]):
        start = max(0, now - view)
        known = None if proprio is None else proprio[:, start:]
        after, joints = predictor.predict(latents[:, start:], actions[:, start:now], known)
        latents = torch.cat([latents, after[:, -1:]], dim=1)
        proprio = None if proprio is None else torch.cat([proprio, joints[:, -1:]], dim=1)
    return latents[:, first:].unflatten(0, plans.shape[:2])


@settings(max_examples=25, deadline=None)
@given(
    frames=st.integers(1, 6),
    num_tokens=st.integers(1, 3),
    window=st.integers(1, 5),
    restarts=st.booleans(),
    proprio=st.booleans(),
)
def test_a_rollout_equals_running_everything_anew(frames, num_tokens, window, restarts, proprio) -> None:
    predictor = make(num_tokens=num_tokens, window=window, restarts=restarts, proprio=proprio)
    latents, actions, plans, joints = data(frames, num_tokens)
    given_joints = joints if proprio else None
    with torch.no_grad():
        imagined, _ = predictor.rollout(latents, actions, plans, given_joints)
        torch.testing.assert_close(
            imagined, naive(predictor, latents, actions, plans, given_joints), atol=1e-5, rtol=1e-5
        )


def test_steps_one_by_one_equal_the_rollout() -> None:
    predictor = make()
    latents, actions, plans, _ = data(3)
    unrolling = predictor.start(latents, actions, candidates=3)
    steps = torch.stack([unrolling.step(plans[:, :, h]) for h in range(4)], dim=2)
    torch.testing.assert_close(steps, predictor.rollout(latents, actions, plans)[0])


@pytest.mark.parametrize("restarts", [False, True])
def test_later_frames_and_actions_do_not_reach_earlier_predictions(restarts: bool) -> None:
    predictor = make(num_tokens=2, restarts=restarts)
    latents, actions, _, _ = data(5, 2)
    latents, before = latents[:, :4], predictor(latents[:, :4], actions)
    latents[:, 2:] += 1
    actions[:, 2:] += 1
    after = predictor(latents, actions)
    torch.testing.assert_close(after[:, :2], before[:, :2])
    assert not torch.allclose(after[:, 2], before[:, 2], atol=1e-3)


def test_rotary_predictions_do_not_depend_on_when_a_window_begins() -> None:
    predictor = make(window=2)
    latents, actions, _, _ = data(6)
    whole = predictor(latents[:, :5], actions)
    # two blocks of two frames reach back two frames: the third and later predictions need no earlier frame
    torch.testing.assert_close(predictor(latents[:, 2:5], actions[:, 2:])[:, 2:], whole[:, 4:], atol=1e-5, rtol=1e-5)


def test_worlds_and_candidates_do_not_influence_each_other() -> None:
    predictor = make()
    latents, actions, plans, _ = data(2)
    before = predictor.rollout(latents, actions, plans)[0]
    plans[0, 1] = torch.nan
    after = predictor.rollout(latents, actions, plans)[0]
    assert torch.equal(after[1], before[1])
    torch.testing.assert_close(after[0, [0, 2]], before[0, [0, 2]])


def test_chunks_change_nothing_and_old_context_is_left_out() -> None:
    predictor = make()
    latents, actions, plans, _ = data(5)
    whole = LearnedDynamics(predictor, max_context=2)
    context = Context(latents=latents, actions=actions)
    imagined = whole.rollout(context, plans).latents
    for fits in (1, 2, 4):
        max_bytes = fits * predictor.bytes_per_candidate(1, 4)
        pieces = LearnedDynamics(predictor, max_context=2, max_bytes=max_bytes).rollout(context, plans).latents
        torch.testing.assert_close(pieces, imagined, **rounding(products=4 * 2 * 6, terms=32))  # steps, blocks
    recent = Context(latents=latents[:, 3:], actions=actions[:, 3:])
    assert torch.equal(whole.rollout(recent, plans).latents, imagined)


@pytest.mark.parametrize("restarts", [False, True])
def test_the_gradient_in_the_plan_is_the_slope(restarts: bool) -> None:
    predictor = make(restarts=restarts).double()
    latents, actions, plans, _ = (x.double() for x in data(2, worlds=1, candidates=1, horizon=3))
    assert torch.autograd.gradcheck(
        lambda plan: predictor.rollout(latents, actions, plan)[0], plans.requires_grad_(), atol=1e-6
    )


def test_a_rollout_leaves_the_training_mode_as_it_was() -> None:
    predictor = make().train()
    latents, actions, plans, _ = data(1)
    LearnedDynamics(predictor).rollout(Context(latents=latents, actions=actions), plans)
    assert predictor.training
    assert predictor.trunk.training


def test_strangers_get_a_clear_sentence() -> None:
    predictor = make()
    latents, actions, plans, joints = data(2)
    with pytest.raises(ValueError, match="actions of width 7, got 4"):
        predictor.rollout(latents, actions[..., :4], plans[..., :4])
    with pytest.raises(ValueError, match="built without proprioception"):
        predictor.rollout(latents, actions, plans, joints)
    with pytest.raises(ValueError, match="expected a tensor of shape"):
        LearnedDynamics(predictor, max_context=3).rollout(Context(latents=latents, actions=actions), plans[:1])
    with pytest.raises(ValueError, match="at most 4 frames"):
        make(restarts=True)(torch.zeros(1, 5, 1, D), torch.zeros(1, 5, A))
