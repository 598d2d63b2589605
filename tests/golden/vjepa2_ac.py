"""Kinds of V-JEPA 2-AC: predictor, rollout, losses, planner, representation of frames, and poses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from jepa_mpc.costs import PlanCost, last
from jepa_mpc.encoders.adapters.files import Released
from jepa_mpc.encoders.adapters.vjepa2 import build as build_encoder
from jepa_mpc.encoders.adapters.vjepa2 import describe
from jepa_mpc.encoders.frozen import FrozenFrames
from jepa_mpc.encoders.layers.normed import LatentNorm
from jepa_mpc.encoders.preprocessing import RobotPixels
from jepa_mpc.planners import EliteRefit, GripperProjection, SamplingPlanner
from jepa_mpc.types import ActionBox, Context, Goal, PlanRequest
from jepa_mpc.world_model.adapters.vjepa2_ac import fill
from jepa_mpc.world_model.costs.goal import GoalDistance, absolute
from jepa_mpc.world_model.dynamics.learned import LearnedDynamics
from jepa_mpc.world_model.parts.distances import AbsoluteError
from jepa_mpc.world_model.parts.objectives.autoregression import Autoregression
from jepa_mpc.world_model.parts.objectives.dynamics import Course, DynamicsObjective
from jepa_mpc.world_model.parts.poses import euler_to_matrix, in_camera, integrate, pose_motion
from jepa_mpc.world_model.parts.predictors.block_causal import BlockCausalPredictor, BlockCausalSizes
from jepa_mpc.world_model.parts.predictors.trunk import frame_causal_mask
from tests.golden.cases import Case

EXACT = (1e-8, 1e-7)
SINGLE = (1e-5, 1e-5)


def predictor_of(case: Case, *, normalise: nn.Module | None = None) -> BlockCausalPredictor:
    config: dict[str, Any] = case.meta["config"]
    rows, columns = (side // config["patch_size"] for side in config["img_size"])
    sizes = BlockCausalSizes(
        state_dim=config["embed_dim"],
        rows=rows,
        columns=columns,
        width=config["predictor_embed_dim"],
        depth=config["depth"],
        heads=config["num_heads"],
        mlp_dim=int(config["predictor_embed_dim"] * config["mlp_ratio"]),
        cameras=config["use_extrinsics"],
        eps=config["norm_eps"],
        qkv_bias=config["qkv_bias"],
    )
    predictor = BlockCausalPredictor(sizes, normalise=normalise)
    fill(predictor, case.under("param."))
    return predictor.eval()


def normed(latents: Tensor) -> Tensor:
    return F.layer_norm(latents, latents.shape[-1:])


@torch.no_grad()
def check_predictor(case: Case) -> None:
    """Teacher forcing: every block's stream, the mask, the outputs, and that no output sees a later frame."""
    predictor = predictor_of(case, normalise=nn.Identity())
    count = predictor.num_patches
    latents = case.tensors["in.tokens"].unflatten(1, (-1, count))
    actions, states, cameras = (case.tensors.get(f"in.{name}") for name in ("actions", "states", "extrinsics"))
    assert actions is not None
    streams: list[Tensor] = []
    for block in predictor.blocks:
        block.register_forward_hook(lambda *call: streams.append(call[-1]))
    out, _ = predictor.predict(latents, actions, states, cameras=cameras)
    case.check("out.tokens", out.flatten(1, 2))
    for number, stream in enumerate(streams):
        case.check(f"out.block.{number}", stream)
    mask = frame_causal_mask(
        latents.shape[1], count + predictor.num_leading, window=latents.shape[1], device=latents.device
    )
    case.check("out.attn_mask", torch.ones(1) if mask is None else mask.to(torch.uint8))
    shorter = case.tensors["out.tokens_prefix"].shape[1] // count
    given = [None if x is None else x[:, :shorter] for x in (latents, actions, states, cameras)]
    prefix, _ = predictor.predict(given[0], given[1], given[2], cameras=given[3])  # type: ignore[arg-type]
    case.check("out.tokens_prefix", prefix.flatten(1, 2))


@torch.no_grad()
def check_rollout(case: Case) -> None:
    """The cached rollout, and the one that runs everything anew, with and without the layer norm."""
    raw, goal = case.tensors["in.z0_raw"], case.tensors["in.goal_raw"]
    plans, poses = case.tensors["in.actions"], case.tensors["in.pose0"]
    past = case.tensors.get("in.past_actions", plans[:, :0])
    for name, norm in (("normed", normed), ("raw", nn.Identity())):
        predictor = predictor_of(case, normalise=None if name == "normed" else nn.Identity())
        start, wanted = norm(raw), norm(goal)
        context = Context(latents=start, actions=past, proprio=poses)
        found = LearnedDynamics(predictor, max_context=start.shape[1]).rollout(context, plans[:, None])
        assert found.proprio is not None
        frames = torch.cat([start, found.latents[:, 0]], dim=1)
        course = torch.cat([poses, found.proprio[:, 0]], dim=1)
        case.check(f"out.{name}.z", frames)
        again, poses_again = anew(predictor, start, torch.cat([past, plans], dim=1), poses)
        case.check(f"out.{name}.z", again)
        for angles in (course, poses_again):
            case.compare(f"{name} rotations", rotations(angles), rotations(case.tensors[f"out.{name}.poses"]))
        case.check(f"out.{name}.poses", course)
        energy = (frames - wanted[:, None]).abs().mean(dim=(-2, -1))
        case.check(f"out.{name}.energy_per_step", energy)
        case.check(f"out.{name}.energy", energy[:, -1])


def anew(predictor: BlockCausalPredictor, latents: Tensor, actions: Tensor, poses: Tensor) -> tuple[Tensor, Tensor]:
    """The rollout of one plan per world with nothing kept: every step runs the whole history."""
    first = poses.shape[1]
    for step in range(first, actions.shape[1] + 1):
        out, _ = predictor.predict(latents, actions[:, :step], poses)
        latents = torch.cat([latents, out[:, -1:]], dim=1)
        poses = torch.cat([poses, integrate(poses[:, -1:], actions[:, step - 1 : step])], dim=1)
    return latents, poses


def rotations(poses: Tensor) -> Tensor:
    return euler_to_matrix(poses[..., 3:6])


def check_poses(case: Case) -> None:
    """Motions between poses, poses after motions, and poses as a camera sees them."""
    course, motions = case.tensors["in.traj"], case.tensors["in.actions"]
    deltas = pose_motion(course[:-1], course[1:])
    stepwise = course[:1]
    for motion in deltas:
        stepwise = torch.cat([stepwise, integrate(stepwise[-1], motion)[None]])
    found = {
        "out.traj_deltas": deltas,
        "out.pair_deltas": deltas,
        "out.new_pose": integrate(course, motions),
        "out.new_pose_f32": integrate(course.float(), motions.float()),
        "out.integrated": stepwise,
        "out.camera_frame": in_camera(course, case.tensors["in.extrinsics"]),
    }
    for name, poses in found.items():
        expected = case.tensors[name]
        tolerance = SINGLE if expected.dtype == torch.float32 else EXACT
        case.checked.add(name)
        case.compare(f"{name} rotations", rotations(poses), rotations(expected), tolerance)
        places = [0, 1, 2, 6]
        case.compare(f"{name} places", poses[..., places], expected[..., places], tolerance)


@torch.no_grad()
def check_losses(case: Case) -> None:
    """Teacher forcing and roll-out, with the poses of the log; all numbers of steps that the case has."""
    predictor = predictor_of(case)
    frames = case.tensors["in.h_raw"].unflatten(1, (-1, predictor.num_patches))
    batch = {"frames": frames[:, :, None], "actions": case.tensors["in.actions"], "proprio": case.tensors["in.states"]}
    lengths = sorted(int(key.rsplit(".", 1)[-1]) for key in case.under("out.") if key.startswith("z_ar."))
    for steps in lengths:
        kept: dict[str, Tensor] = {}
        part = _Watched(Autoregression(steps=steps), kept)
        objective = DynamicsObjective(
            encoder=_NormOnly(),
            predictor=predictor,
            preprocess=nn.Identity(),
            distance=AbsoluteError(),
            open_loop=part,
        )
        loss = objective(batch, torch.Generator())
        case.check("out.z_tf", kept["z_tf"].flatten(1, 2))
        case.check("out.loss_teacher_forcing", loss.terms["prediction"])
        case.check(f"out.z_ar.{steps}", kept["z_ar"].flatten(1, 2))
        case.check(f"out.loss_rollout.{steps}", loss.terms["open_loop"])
        case.check(f"out.loss_total.{steps}", loss.total)


class _NormOnly(nn.Module):
    """Stands for a frozen encoder whose tokens are given as one channel of a picture."""

    def forward(self, x: Tensor) -> Tensor:
        return LatentNorm()(x[:, 0])


class _Watched:
    """A loss on fed-back predictions that also keeps what it saw."""

    weight = 1.0

    def __init__(self, inner: Autoregression, kept: dict[str, Tensor]) -> None:
        self.inner, self.kept = inner, kept

    def __call__(self, course: Course) -> Tensor:
        self.kept.update(z_tf=course.predicted, z_ar=self.inner.fed_back(course))
        return self.inner(course)


class _Recorded:
    """Noise of a case, one round after the other: `(I, H, S, 4)` for x, y, z and the gripper."""

    def __init__(self, noise: Tensor) -> None:
        self.rounds = iter(noise.transpose(1, 2))

    def __call__(self, shape: Sequence[int], generator: object, like: Tensor) -> Tensor:
        drawn = next(self.rounds)  # (S, H, 4)
        noise = like.new_zeros(tuple(shape))
        noise[0, ..., [0, 1, 2, 6]] = drawn
        return noise


def planned(noise: Tensor, options: dict[str, Any], evaluate: Callable[[Tensor], Tensor]) -> Tensor:
    """The plans `(I, H, 7)` after one round, two rounds, and so on."""
    fixed = {(0, 1, 2, 6)[int(axis)]: value for axis, value in options.get("axis", {}).items()}  # the gripper is axis 3
    high = torch.tensor([options.get("maxnorm", 0.05)] * 3 + [0.0] * 3 + [1.0])
    low = -high
    for axis, value in fixed.items():
        low[axis] = high[axis] = value
    box = ActionBox(low=low, high=high)
    found = []
    for rounds in range(1, len(noise) + 1):
        planner = SamplingPlanner(
            refit=EliteRefit(
                num_elites=options.get("topk", 10),
                momentum=options.get("momentum_mean", 0.25),
                std_momentum=options.get("momentum_std", 0.95),
                axis_momenta={
                    6: (options.get("momentum_mean_gripper", 0.15), options.get("momentum_std_gripper", 0.15))
                },
                correction=1,
            ),
            projection=GripperProjection(axis=6, close_from=options.get("close_gripper")),
            num_samples=options["samples"],
            num_iterations=rounds,
            initial_std=1.0,
            try_mean="end",
            answer="mean",
            noise=_Recorded(noise),  # type: ignore[arg-type]
        )
        request = PlanRequest(
            evaluate=evaluate, box=box, batch=1, horizon=options["rollout"], generator=torch.Generator()
        )
        found.append(planner.plan(request).actions[0])
    return torch.stack(found)


@torch.no_grad()
def check_toy_planner(case: Case) -> None:
    """The planner over a linear world, every variant, after every round."""
    frame, goal, change = (case.tensors[f"in.{name}"] for name in ("context", "goal", "dynamics"))

    def evaluate(plans: Tensor) -> Tensor:
        moved = (plans @ change).sum(dim=2).unflatten(-1, frame.shape[-2:])
        return (frame[0, -1] + moved - goal[0, -1]).abs().mean(dim=(-2, -1))

    for name, options in case.meta["variants"].items():
        options = {**case.meta["defaults_of_unlisted_options"], **options}
        plans = planned(case.tensors[f"in.noise.{name}"], options, evaluate)
        case.check(f"out.action_after_iter.{name}", plans)


@torch.no_grad()
def check_planner(case: Case) -> None:
    """The planner over the predictor, after every round; the energy is that of the last frame."""
    options = {**case.meta["config"]["mpc_args"], "close_gripper": case.meta["config"]["close_gripper"]}
    predictor = predictor_of(case, normalise=None if case.meta["config"]["normalize_reps"] else nn.Identity())
    start, poses = case.tensors["in.z0"].unflatten(1, (-1, predictor.num_patches)), case.tensors["in.pose"]
    context = Context(latents=start, actions=start.new_zeros(1, 0, 7), proprio=poses)
    goal = Goal(latents=case.tensors["in.goal"].unflatten(1, (-1, predictor.num_patches))[:, -1])
    cost = PlanCost(GoalDistance(distance=absolute), last)
    dynamics = LearnedDynamics(predictor)
    plans = planned(
        case.tensors["in.noise"], options, lambda plans: cost(dynamics.rollout(context, plans), plans, goal)
    )
    case.check("out.action_after_iter", plans, (1e-4, 1e-3))


@torch.no_grad()
def check_encode(case: Case) -> None:
    """How a camera frame becomes a latent: prepared, repeated to a clip, encoded alone, normalised."""
    config: dict[str, Any] = case.meta["config"]
    released = Released(source=str(case.path), section="encoder", encoder=case.under("param."))
    encoder = FrozenFrames(build_encoder(released, describe(released, heads=config["num_heads"])))
    frames = case.tensors["in.frames"].movedim(-1, -3)
    prepared = RobotPixels(config["crop_size"])(frames)
    case.check("out.clip", prepared.transpose(0, 1))
    case.check("out.reps_raw", encoder.encoder(prepared))
    case.check("out.reps", encoder(prepared))
