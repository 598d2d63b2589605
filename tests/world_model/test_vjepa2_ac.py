"""V-JEPA 2-AC as a whole: frozen encoder, losses, the authors' file, the agent's loop with poses, bounded memory."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from jepa_mpc.costs import PlanCost, last
from jepa_mpc.encoders.frozen import FrozenFrames
from jepa_mpc.encoders.released import vjepa2
from jepa_mpc.encoders.video import VideoSizes
from jepa_mpc.errors import BadCheckpoint
from jepa_mpc.planners import hand_cem
from jepa_mpc.seeding import generator
from jepa_mpc.types import ActionBox, Context, Goal, MpcSettings, Observation
from jepa_mpc.world_model.adapters.vjepa2_ac import from_released, load_predictor, sizes_of, to_released
from jepa_mpc.world_model.adapters.vjepa2_ac_files import load_released
from jepa_mpc.world_model.agents.planning import PlanningAgent
from jepa_mpc.world_model.checkpoints.loader import load_world_model, save_world_model
from jepa_mpc.world_model.costs.goal import GoalDistance, absolute
from jepa_mpc.world_model.dynamics.evaluator import Evaluator
from jepa_mpc.world_model.dynamics.learned import LearnedDynamics
from jepa_mpc.world_model.dynamics.model import Interface
from jepa_mpc.world_model.memory.replay_buffer import ReplayBuffer
from jepa_mpc.world_model.parts.objectives.autoregression import Autoregression
from jepa_mpc.world_model.parts.poses import ArmPose
from jepa_mpc.world_model.parts.predictors.block_causal import BlockCausalPredictor, BlockCausalSizes
from jepa_mpc.world_model.recipes import as_world_model
from jepa_mpc.world_model.recipes.vjepa2_ac import build
from tests.rounding import rounding

ACTIONS = ("dx [m]", "dy [m]", "dz [m]", "rx [rad]", "ry [rad]", "rz [rad]", "gripper")
SYSTEM = {
    "_target_": "vjepa2_ac",
    "preset": "tiny",
    "action_dim": 7,
    "action_scale": [0.05] * 3 + [1.0] * 4,
    "pose_scale": [0.15, 0.2, 0.15, 1.0, 1.0, 1.0, 0.5],
    "reader": {"_target_": "arm_pose", "attitude": [0.0, 0.0, 0.0]},
}


def objective():
    made = build(preset="tiny", reader=ArmPose(), action_scale=[0.05] * 7, generator=generator(0))
    return made.eval()


def batch(times: int = 4) -> dict[str, torch.Tensor]:
    draw = generator(1)
    return {
        "frames": torch.randint(0, 256, (2, times, 3, 28, 28), dtype=torch.uint8, generator=draw),
        "actions": 0.03 * torch.randn(2, times - 1, 7, generator=draw),
        "proprio": 0.02 * torch.rand(2, times, 14, generator=draw),
    }


def test_the_encoder_is_frozen_in_training_too():
    made = objective().train()
    assert isinstance(made.encoder, FrozenFrames) and not made.encoder.training and not made.encoder.encoder.training
    made(batch(), generator(2)).total.backward()
    assert all(weight.grad is None and not weight.requires_grad for weight in made.encoder.parameters())
    assert all(weight.grad is not None for weight in made.predictor.parameters())


def test_latents_are_normalised_over_their_width():
    latents = objective().encode(batch()["frames"])
    assert latents.shape == (2, 4, 16, 32)
    assert torch.allclose(latents.mean(-1), torch.zeros(2, 4, 16), atol=1e-5)
    assert torch.allclose(latents.var(-1, correction=0), torch.ones(2, 4, 16), atol=1e-2)


def test_the_rolled_out_loss_feeds_the_first_or_as_published_the_second_prediction_back():
    losses = {}
    for fed in ("first", "second"):
        made = objective()
        made.open_loop = Autoregression(fed=fed)
        losses[fed] = made(batch(), generator(2)).terms
    assert torch.equal(losses["first"]["prediction"], losses["second"]["prediction"])
    assert not torch.equal(losses["first"]["open_loop"], losses["second"]["open_loop"])


def test_too_short_windows_are_refused():
    made = objective()
    made.open_loop = Autoregression(steps=3)
    with pytest.raises(ValueError, match="3 steps need windows of 4 observations, got 3"):
        made(batch(times=3), generator(2))


def test_wrong_sizes_are_refused():
    with pytest.raises(ValueError, match="width 24, the predictor expects 32"):
        build(preset="tiny", encoder=vjepa2(VideoSizes(width=24, depth=1, heads=1, mlp_dim=24, patch=7)))
    with pytest.raises(ValueError, match="actions of width 7"):
        build(preset="tiny", action_dim=2)


def released(state: BlockCausalPredictor | None = None, *, prefix: str = "module.") -> dict[str, torch.Tensor]:
    """A tiny predictor as the authors' trainer wrote it: prefixed, with the camera's unused weights."""
    made = state or BlockCausalPredictor(objective().predictor.sizes)
    tensors = to_released(made.state_dict()) | {
        "extrinsics_encoder.weight": torch.zeros(48, 6),
        "extrinsics_encoder.bias": torch.zeros(48),
    }
    return {prefix + name: tensor for name, tensor in tensors.items()}


def test_released_names_go_both_ways():
    own = objective().predictor.state_dict()
    own = {name: tensor for name, tensor in own.items() if not name.startswith(("motion_map", "pose_map"))}
    there_and_back = from_released(to_released(own))
    assert there_and_back.keys() == own.keys() and all(torch.equal(there_and_back[name], own[name]) for name in own)


def test_released_weights_fill_a_predictor_and_leave_the_unused_camera_out():
    source = BlockCausalPredictor(objective().predictor.sizes)
    loaded = load_predictor(released(source), heads=2, rows=4, columns=4)
    assert all(torch.equal(loaded.state_dict()[name], tensor) for name, tensor in source.state_dict().items())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda table: table.pop("module.predictor_norm.weight"), "1 missing: norm.weight"),
        (lambda table: table.update({"module.predictor_blocks.0.attn.qkv.extra": torch.zeros(1)}), "unexpected"),
        (lambda table: table.update({"module.action_encoder.weight": torch.zeros(48, 8)}), "another shape"),
        (lambda table: table.update({"cls_token": torch.zeros(1)}), "another model's file"),
        (lambda table: table.pop("module.predictor_embed.weight"), "patches.weight is missing"),
    ],
)
def test_weights_that_do_not_fit_are_refused(change, said):
    table = released()
    change(table)
    with pytest.raises(BadCheckpoint, match=said):
        load_predictor(table, heads=2, rows=4, columns=4)


def test_the_full_size_predictor_has_the_released_names_and_shapes():
    with torch.device("meta"):
        predictor = BlockCausalPredictor(
            BlockCausalSizes(
                state_dim=1408, rows=16, columns=16, width=1024, depth=24, heads=16, mlp_dim=4096, cameras=True
            )
        )
    tensors = to_released(predictor.state_dict())
    assert sum(tensor.numel() for tensor in tensors.values()) == 305_220_992
    assert sizes_of(from_released(tensors), cameras=True) == predictor.sizes
    assert {tuple(tensors[f"{name}_encoder.weight"].shape) for name in ("action", "state")} == {(1024, 7)}


def trainer_file(folder: Path, *, with_predictor: bool = True) -> Path:
    """A tiny file in the layout of the authors' trainer."""
    from jepa_mpc.encoders.adapters.names import single_norm_spelling

    encoder = vjepa2(VideoSizes(width=64, depth=2, heads=1, mlp_dim=64, patch=16))
    weights = {"module." + single_norm_spelling(name): tensor for name, tensor in encoder.state_dict().items()}
    sizes = BlockCausalSizes(state_dim=64, rows=2, columns=2, width=48, depth=2, heads=2, mlp_dim=96)
    content = {"encoder": weights, "target_encoder": weights, "epoch": 3}
    if with_predictor:
        content["predictor"] = released(BlockCausalPredictor(sizes))
    path = folder / "vjepa2-ac-vitg.pt"
    torch.save(content, path)
    return path


def test_the_authors_file_becomes_a_world_model(tmp_path):
    model = load_released(trainer_file(tmp_path), cameras=("left",), dt_s=0.24, side=2, heads=2, encoder_heads=1)
    assert model.interface.image_size == 32 and model.needs_proprio and len(model.fingerprint) == 12
    seen = model.perception(Observation(frames=torch.zeros(1, 1, 3, 32, 32, dtype=torch.uint8), cameras=("left",)))
    plans = torch.zeros(1, 3, 2, 7)
    context = Context(latents=seen, actions=plans[:, 0, :0], proprio=torch.zeros(1, 1, 14))
    assert model.dynamics.rollout(context, plans).latents.shape == (1, 3, 2, 4, 64)
    assert model.goal_cost.reduction is last and model.goal_cost.step.distance is absolute


def test_a_file_without_a_predictor_is_refused(tmp_path):
    with pytest.raises(BadCheckpoint, match="no predictor"):
        load_released(trainer_file(tmp_path, with_predictor=False), cameras=("left",), dt_s=0.24, side=2)


def interface() -> Interface:
    return Interface(cameras=("left",), image_size=28, actions=ACTIONS, dt_s=0.24)


def test_a_checkpoint_brings_the_same_world_model_back(tmp_path):
    from jepa_mpc.world_model.checkpoints.assembly import assemble

    made = assemble(SYSTEM, generator=generator(0))
    save_world_model(tmp_path / "model", made, system=SYSTEM, interface=interface())
    model = load_world_model(tmp_path / "model")
    assert json.loads((tmp_path / "model" / "config.json").read_text())["config"]["system"] == SYSTEM
    assert model.position_head is None and model.needs_proprio
    assert torch.equal(model.objective.encode(batch()["frames"]), made.eval().encode(batch()["frames"]))


def test_wrong_poses_are_told_before_planning():
    model = as_world_model(build(preset="tiny", generator=generator(0)).eval(), interface())
    with pytest.raises(ValueError, match="degrees"):
        model.check_proprio(torch.tensor([[[0.5, 0.0, 0.3, 180.0, 0.0, 90.0, 0.5]]]))
    with pytest.raises(ValueError, match="quaternion"):
        model.check_proprio(torch.zeros(1, 1, 8))


def test_an_agent_plans_with_it_and_remembers_poses():
    model = as_world_model(objective(), interface())
    high = torch.tensor([0.05] * 3 + [0.0] * 4)
    agent = PlanningAgent(
        perception=model.perception,
        memory=ReplayBuffer(capacity=2, window=2, action_dim=7),
        dynamics=model.dynamics,
        cost=model.goal_cost,
        planner=hand_cem(num_samples=8, num_elites=3, num_iterations=2, answer="mean"),
        box=ActionBox(low=-high, high=high),
        settings=MpcSettings(horizon=2),
        generator=generator(0),
    )
    frames, proprio = batch()["frames"], batch()["proprio"]
    agent.reset(Observation(frames=frames[:, -1:], cameras=("left",)))
    for time in range(2):
        seen = Observation(frames=frames[:, time : time + 1], cameras=("left",), proprio=proprio[:, time : time + 1])
        action = agent.act(seen)
    assert action.shape == (2, 7) and action.isfinite().all() and (action.abs() <= high).all()
    agent.aim(Observation(frames=frames[:, :1], cameras=("left",)))
    assert torch.equal(agent.memory._get("proprio", agent.memory.now), proprio[:, 1])
    assert agent.act(Observation(frames=frames[:, 2:3], cameras=("left",), proprio=proprio[:, 2:3])).shape == (2, 7)


def test_judging_in_chunks_gives_the_same_costs():
    made = objective()
    latents = made.encode(batch()["frames"])
    context = Context(latents=latents[:, :1], actions=torch.zeros(2, 0, 7), proprio=batch()["proprio"][:, :1])
    plans = 0.05 * torch.randn(2, 7, 3, 7, generator=generator(5))
    goal, cost = Goal(latents=latents[:, -1]), PlanCost(GoalDistance(distance=absolute), last)
    costs = []
    for budget in (2**30, 5 * made.predictor.bytes_per_candidate(16, 3)):
        dynamics = LearnedDynamics(made.predictor, max_bytes=budget)
        costs.append(Evaluator(dynamics, cost, context, goal)(plans))
    assert dynamics.at_once(context, 3) == 2
    assert torch.allclose(*costs, **rounding(products=3 * 2 * 6, terms=32))  # steps, blocks, products in a block
