"""Timing of learned dynamics: rollouts in several variants, in turn."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from jepa_mpc.encoders.layers.weights import draw_weights
from jepa_mpc.experiments.evaluation.throughput.published_rollout import plain
from jepa_mpc.interfaces import Dynamics
from jepa_mpc.planners import cem
from jepa_mpc.seeding import generator
from jepa_mpc.types import ActionBox, Context, PlanRequest, Plans
from jepa_mpc.world_model.dynamics.captured import CapturedDynamics
from jepa_mpc.world_model.dynamics.learned import LearnedDynamics
from jepa_mpc.world_model.parts.predictors.causal import CausalPredictor
from jepa_mpc.world_model.parts.predictors.forms import published, rotary
from jepa_mpc.world_model.parts.predictors.precision import fast_dtype, lowered
from jepa_mpc.world_model.recipes.leworldmodel import PRESETS

ACTION_DIM, ELITES = 10, 30
SHORT_FLAGS = ("avx512_bf16", "amx_bf16", "avx512_fp16", "bf16", "asimdhp")
Imagine = Callable[[Plans], Tensor]


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Sizes of the measurement; see configs/bench_speed.yaml."""

    preset: str
    samples: int
    iterations: int
    horizon: int
    window: int
    contexts: tuple[int, ...]
    rounds: int
    seed: int


def predictors(sizes: Sizes) -> dict[str, CausalPredictor]:
    """The published form and our own, of the published size, with weights that make actions matter."""
    made = {}
    for name, form, window in (
        ("published", published, sizes.window),
        ("own", rotary, max(sizes.contexts) + sizes.horizon),
    ):
        preset = dataclasses.replace(PRESETS[sizes.preset], form=form, window=window)
        predictor = form(preset, action_dim=ACTION_DIM, action_map=None, proprio_scale=None, num_tokens=1)
        draw_weights(predictor, generator(sizes.seed, name))
        for number, block in enumerate(predictor.trunk.blocks):
            torch.nn.init.normal_(block.to_modulation.weight, std=0.02, generator=generator(sizes.seed, name, number))
        made[name] = predictor.eval().requires_grad_(False)
    return made


def variants(made: dict[str, CausalPredictor], context: Context, device: torch.device) -> dict[str, Imagine]:
    """Each rollout variant: plans `(1, S, H, A)` in, latents `(1, S, H, 1, D)` out."""

    def through(dynamics: Dynamics) -> Imagine:
        return lambda plans: dynamics.rollout(context, plans).latents

    ways: dict[str, Imagine] = {}
    for bits, predictor, own in (
        ("32", made["published"].to(device), made["own"].to(device)),
        ("16", lowered(made["published"]).to(device), lowered(made["own"]).to(device)),
    ):
        ways[f"plain {bits}"] = partial(plain(predictor), context.latents, context.actions)
        for name, network in (("published", predictor), ("own", own)):
            dynamics = LearnedDynamics(network, max_context=context.latents.shape[1])
            ways[f"{name} {bits}"] = through(CapturedDynamics(dynamics) if device.type == "cuda" else dynamics)
    return ways


def instructions() -> str:
    """The processor's instruction set in PyTorch, its 16-bit instructions, and the faster number format."""
    path = Path("/proc/cpuinfo")
    flags = set(path.read_text(encoding="utf-8").split()) if path.exists() else set()
    short = ", ".join(name for name in SHORT_FLAGS if name in flags) or "none"
    faster = str(fast_dtype("cpu")).removeprefix("torch.")
    return f"{torch.backends.cpu.get_cpu_capability()}; for sixteen bits: {short}; faster here: {faster}"


def seconds(task: Callable[[], Any], device: torch.device) -> float:
    """CPU time of the process, or time until the device has finished."""
    if device.type == "cpu":
        start = time.process_time()
        task()
        return time.process_time() - start
    torch.cuda.synchronize(device)
    start = time.perf_counter()
    task()
    torch.cuda.synchronize(device)
    return time.perf_counter() - start


def search(imagine: Imagine, goal: Tensor, sizes: Sizes) -> None:
    """One plan of the cross-entropy method towards a goal latent."""
    bound = torch.ones(ACTION_DIM, device=goal.device)
    cem(num_samples=sizes.samples, num_elites=ELITES, num_iterations=sizes.iterations).plan(
        PlanRequest(
            evaluate=lambda plans: (imagine(plans)[:, :, -1] - goal).square().sum(dim=(-2, -1)),
            box=ActionBox(low=-bound, high=bound),
            batch=1,
            horizon=sizes.horizon,
            generator=generator(sizes.seed, "planner", device=goal.device),
        )
    )


def measure(frames: int, sizes: Sizes, device: torch.device) -> list[dict[str, Any]]:
    """One row per variant, for a context of that many frames."""
    width, draw = PRESETS[sizes.preset].latent_dim, generator(sizes.seed, "data", frames)
    latents = torch.randn(1, frames, 1, width, generator=draw).to(device)
    actions = torch.randn(1, frames - 1, ACTION_DIM, generator=draw).to(device)
    plans = torch.randn(1, sizes.samples, sizes.horizon, ACTION_DIM, generator=draw).to(device)
    goal = torch.randn(1, 1, 1, width, generator=draw).to(device)
    ways = variants(predictors(sizes), Context(latents=latents, actions=actions), device)
    futures = {name: imagine(plans) for name, imagine in ways.items()}
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(sizes.rounds):
        for name, imagine in ways.items():
            times[name].append(seconds(partial(search, imagine, goal, sizes), device) / sizes.iterations)
    free = partial(search, lambda plans: plans[..., None, :1], goal, sizes)
    free_s = [seconds(free, device) for _ in range(sizes.rounds)]
    spent = {name: median(each) for name, each in times.items()}
    rows = []
    for name in ways:
        gap = (futures[name] - futures["plain 32"]).abs().max() / futures["plain 32"].abs().max()
        rows.append(
            {
                "context": frames,
                "variant": name,
                "ms": 1e3 * spent[name],
                "to plain 32": spent["plain 32"] / spent[name],
                "to plain of the same bits": spent[f"plain {name[-2:]}"] / spent[name],
                "gflop": operations(ways[name], plans) if device.type == "cpu" else None,
                "distance": None if name.startswith("own") else float(gap),
                "all ms": [1e3 * each for each in times[name]],
            }
        )
    rows.append({"context": frames, "variant": "planner alone", "ms": 1e3 * median(free_s) / sizes.iterations})
    return rows


def operations(imagine: Imagine, plans: Plans) -> float:
    """Floating-point operations of one rollout, in units of 1e9."""
    with FlopCounterMode(display=False) as counter:
        imagine(plans)
    return counter.get_total_flops() / 1e9


def product_rate(sizes: Sizes, dtype: torch.dtype) -> float:
    """GFLOP per CPU second of a plain matrix product of the rollout's size: a window of each plan to all heads."""
    trunk = PRESETS[sizes.preset].trunk
    rows, width, columns = sizes.samples * sizes.window, trunk.width, 3 * trunk.heads * trunk.head_dim
    left, right = torch.ones(rows, width, dtype=dtype), torch.ones(width, columns, dtype=dtype)
    best = min(seconds(lambda: [left @ right for _ in range(20)], torch.device("cpu")) for _ in range(3))
    return 20 * 2 * rows * width * columns / best / 1e9
