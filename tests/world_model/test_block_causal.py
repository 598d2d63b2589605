"""The block-causal predictor: what sees what, kept keys and values, chunks, gradients, dtypes and refusals."""

from __future__ import annotations

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from jepa_mpc.seeding import generator
from jepa_mpc.types import Context
from jepa_mpc.world_model.dynamics.learned import LearnedDynamics
from jepa_mpc.world_model.parts.poses import integrate
from jepa_mpc.world_model.parts.predictors.block_causal import BlockCausalPredictor, BlockCausalSizes, ChangePredictor
from tests.rounding import rounding

SIZES = BlockCausalSizes(state_dim=12, rows=2, columns=3, width=48, depth=3, heads=2, mlp_dim=64, window=3)
N = 6


FORMS = (BlockCausalPredictor, ChangePredictor)


def predictor(form: type[BlockCausalPredictor] = BlockCausalPredictor, **changes: object) -> BlockCausalPredictor:
    made = form(BlockCausalSizes(**{**vars(SIZES), **changes}))
    made.draw(generator(0))
    with torch.no_grad():
        for weight in made.parameters():  # strong enough that every token matters
            weight.mul_(6.0 if weight.dim() == 2 else 1.0)
    return made.eval()


def given(worlds: int = 2, context: int = 2, candidates: int = 3, horizon: int = 4) -> tuple[torch.Tensor, ...]:
    draw = generator(1)
    latents = torch.nn.functional.layer_norm(torch.randn(worlds, context, N, 12, generator=draw), (12,))
    actions = 0.3 * torch.randn(worlds, context - 1, 7, generator=draw)
    plans = 0.3 * torch.randn(worlds, candidates, horizon, 7, generator=draw)
    return latents, actions, plans, torch.rand(worlds, context, 7, generator=draw)


def anew(model: BlockCausalPredictor, latents, actions, plans, poses) -> tuple[torch.Tensor, torch.Tensor]:
    """Every step runs the whole history of every candidate."""
    count, horizon = plans.shape[1:3]
    latents, actions, poses = (x.repeat_interleave(count, dim=0) for x in (latents, actions, poses))
    actions = torch.cat([actions, plans.flatten(0, 1)], dim=1)
    for step in range(latents.shape[1], latents.shape[1] + horizon):
        newest = model(latents, actions[:, :step], poses)[:, -1:]
        latents = torch.cat([latents, newest], dim=1)
        poses = torch.cat([poses, integrate(poses[:, -1:], actions[:, step - 1 : step])], dim=1)
    return latents[:, -horizon:].unflatten(0, (-1, count)), poses[:, -horizon:].unflatten(0, (-1, count))


@pytest.mark.parametrize("context", [1, 2, 3])
@pytest.mark.parametrize("horizon", [1, 4])
@pytest.mark.parametrize("form", FORMS)
@torch.no_grad()
def test_kept_keys_and_values_change_no_number(form, context, horizon):
    model, inputs = predictor(form), given(context=context, horizon=horizon)
    torch.nn.init.normal_(model.output.weight, generator=generator(2))
    kept, poses = model.rollout(inputs[0], inputs[1], inputs[2], inputs[3])
    wanted, wanted_poses = anew(model, *inputs)
    assert torch.allclose(kept, wanted, atol=2e-5) and torch.allclose(
        poses, wanted_poses, **rounding(products=4, terms=9)
    )


@torch.no_grad()
def test_a_fresh_predictor_of_changes_says_that_nothing_moves():
    latents, _, plans, poses = given(context=1)
    imagined, _ = predictor(ChangePredictor).rollout(latents, plans[:, 0, :0], plans, poses)
    assert torch.allclose(imagined, latents[:, :1, None].expand_as(imagined), atol=1e-5)


@torch.no_grad()
def test_a_teacher_forced_pass_over_a_rollout_gives_the_rollout():
    model, (latents, actions, plans, poses) = predictor(), given(context=1, candidates=1)
    imagined, after = model.rollout(latents, actions, plans, poses)
    frames = torch.cat([latents, imagined[:, 0, :-1]], dim=1)
    course = torch.cat([poses, after[:, 0, :-1]], dim=1)
    assert torch.allclose(model(frames, plans[:, 0], course), imagined[:, 0], atol=2e-5)


@torch.no_grad()
def test_no_prediction_sees_a_later_frame_action_or_pose():
    model, (latents, _, plans, _) = predictor(), given(context=4, horizon=4)
    poses, actions = torch.rand(2, 4, 7, generator=generator(3)), plans[:, 0]
    before = model(latents, actions, poses)
    for number, part in enumerate((latents, actions, poses)):
        changed = part.clone()
        changed[:, 2] += 1.0
        inputs = [latents, actions, poses]
        inputs[number] = changed
        after = model(*inputs)
        assert torch.equal(after[:, :2], before[:, :2]) and not torch.allclose(after[:, 2:], before[:, 2:], atol=1e-3)


@torch.no_grad()
def test_every_patch_sees_the_action_and_the_pose_of_its_own_step():
    model, (latents, _, plans, poses) = predictor(), given(context=1, horizon=1)
    before = model(latents, plans[:, 0], poses)
    for actions, states in ((plans[:, 0] + 0.5, poses), (plans[:, 0], poses + 0.5)):
        assert ((model(latents, actions, states) - before).abs().amax(dim=-1) > 1e-4).all()


@torch.no_grad()
def test_chunks_that_fit_memory_change_nothing():
    model, (latents, actions, plans, poses) = predictor(), given(candidates=5)
    context = Context(latents=latents, actions=actions, proprio=poses)
    whole = LearnedDynamics(model, max_context=3).rollout(context, plans)
    narrow = LearnedDynamics(model, max_context=3, max_bytes=2 * model.bytes_per_candidate(N, 4))
    assert narrow.at_once(context, 4) == 1
    pieces = narrow.rollout(context, plans)
    assert torch.allclose(whole.latents, pieces.latents, atol=2e-5) and torch.equal(whole.proprio, pieces.proprio)


class Waits(TorchDispatchMode):
    """Counts operations whose result the processor must wait for."""

    KINDS = (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default)

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func in self.KINDS
        return func(*args, **(kwargs or {}))


@torch.no_grad()
def test_a_rollout_never_waits_for_the_device():
    model, (latents, actions, plans, poses) = predictor(), given()
    with Waits() as waits:
        model.rollout(latents, actions, plans, poses)
        assert waits.count == 0
        bool((plans > 0).any())
    assert waits.count == 1


@torch.no_grad()
def test_older_frames_are_read_once_whatever_the_number_of_candidates():
    model = predictor()
    rows: list[int] = []
    model.blocks[0].attention.to_qkv.register_forward_hook(lambda *call: rows.append(call[-1].shape[0]))
    latents, actions, plans, poses = given(worlds=1, context=3, candidates=5, horizon=2)
    model.rollout(latents, actions, plans, poses)
    assert rows == [1, 5, 5]  # the older frames of the world, then a frame per candidate and step


def test_the_rollout_has_a_gradient_to_plans_and_weights():
    model, (latents, actions, plans, poses) = predictor(), given()
    plans.requires_grad_()
    model.rollout(latents, actions, plans, poses)[0][:, :, -1].square().mean().backward()
    assert (plans.grad.abs().sum(dim=-1) > 0).all()
    assert all(weight.grad is not None for weight in model.parameters())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@torch.no_grad()
def test_half_precision_gives_nearly_the_same_future(dtype):
    latents, actions, plans, poses = given()
    exact, _ = predictor().rollout(latents, actions, plans, poses)
    rough, after = predictor().to(dtype).rollout(latents.to(dtype), actions, plans, poses)
    assert rough.dtype == dtype and after.dtype == torch.float32
    assert (rough.float() - exact).abs().mean() < 0.05


def test_cameras_get_a_token_and_must_come_where_expected():
    model, (latents, _, plans, poses) = predictor(cameras=True), given(context=1, horizon=1)
    cameras = torch.rand(2, 1, 6, generator=generator(4))
    first = model.predict(latents, plans[:, 0], poses, cameras=cameras)[0]
    assert not torch.allclose(first, model.predict(latents, plans[:, 0], poses, cameras=cameras + 1)[0], atol=1e-3)
    with pytest.raises(ValueError, match="needs the place of the camera"):
        model.predict(latents, plans[:, 0], poses)
    with pytest.raises(ValueError, match="takes no place of a camera"):
        predictor().predict(latents, plans[:, 0], poses, cameras=cameras)


def test_wrong_inputs_are_refused_with_what_was_expected():
    model, (latents, actions, plans, poses) = predictor(), given()
    with pytest.raises(ValueError, match=r"2 x 3 = 6 patches per frame, got 5"):
        model.rollout(latents[:, :, :5], actions, plans, poses)
    with pytest.raises(ValueError, match="pose of the hand"):
        model.rollout(latents, actions, plans)
    with pytest.raises(ValueError, match="quaternion"):
        model.rollout(latents, actions, plans, torch.cat([poses, poses[..., :1]], dim=-1))
    with pytest.raises(ValueError, match="expected a tensor of shape"):
        model.rollout(latents, actions, plans[..., :6], poses)
    with pytest.raises(ValueError, match="12 channels each"):
        predictor(heads=6)
