"""The speed-up of V-JEPA 2-AC rollouts by a key-value cache: `python experiments/bench_rollout.py`.

Cached and uncached rollouts alternate in one process, on random weights; the table shows the median time of each (CPU
time of the process, or device time on a GPU), their ratio, and the difference of the results.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import hydra
import torch
from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table
from torch import Tensor

from jepa_mpc.experiments.evaluation.throughput.rollout_times import instructions
from jepa_mpc.places import CONFIGS
from jepa_mpc.runs.run_folder import claim_run
from jepa_mpc.seeding import generator
from jepa_mpc.world_model.parts.poses import integrate
from jepa_mpc.world_model.parts.predictors.block_causal import BlockCausalPredictor, BlockCausalSizes

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """The context and the candidate plans of one world."""

    latents: Tensor
    actions: Tensor
    poses: Tensor
    plans: Tensor


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table."""

    device: str
    precision: str
    context: int
    anew_s: float
    kept_s: float
    ratio: float
    gap: float


def inputs_of(cfg: DictConfig, *, context: int, device: torch.device, dtype: torch.dtype) -> Inputs:
    """Random inputs of the configured sizes."""
    draw = generator(int(cfg.seed), "inputs", context)
    latents = torch.randn(1, context, cfg.side**2, cfg.state_dim, generator=draw)
    poses = torch.rand(1, context, 7, generator=draw)
    plans = 0.05 * torch.randn(1, cfg.candidates, cfg.horizon, 7, generator=draw)
    actions = 0.05 * torch.randn(1, context - 1, 7, generator=draw)
    latents = torch.nn.functional.layer_norm(latents, latents.shape[-1:]).to(device, dtype)
    return Inputs(latents=latents, actions=actions.to(device), poses=poses.to(device), plans=plans.to(device))


def predictor_of(cfg: DictConfig, *, device: torch.device, dtype: torch.dtype) -> BlockCausalPredictor:
    """A predictor of the configured sizes with random weights."""
    sizes = BlockCausalSizes(
        state_dim=cfg.state_dim,
        rows=cfg.side,
        columns=cfg.side,
        width=cfg.width,
        depth=cfg.depth,
        heads=cfg.heads,
        mlp_dim=4 * cfg.width,
        window=max(cfg.contexts),
    )
    predictor = BlockCausalPredictor(sizes)
    predictor.draw(generator(int(cfg.seed), "weights"))
    return predictor.to(device, dtype).eval()


@torch.no_grad()
def kept(predictor: BlockCausalPredictor, given: Inputs) -> Tensor:
    """The package's rollout `(S, H, N, D)`, with a key-value cache."""
    return predictor.rollout(given.latents, given.actions, given.plans, given.poses)[0][0]


@torch.no_grad()
def anew(predictor: BlockCausalPredictor, given: Inputs) -> Tensor:
    """The same without a cache: every step processes the whole history of every candidate, as the public code does."""
    count, horizon = given.plans.shape[1:3]
    latents = given.latents.expand(count, -1, -1, -1)
    poses = given.poses.expand(count, -1, -1)
    actions = torch.cat([given.actions.expand(count, -1, -1), given.plans[0]], dim=1)
    context = latents.shape[1]
    for step in range(context, context + horizon):
        newest = predictor.predict(latents, actions[:, :step], poses)[0][:, -1:]
        latents = torch.cat([latents, newest], dim=1)
        poses = torch.cat([poses, integrate(poses[:, -1:], actions[:, step - 1 : step])], dim=1)
    return latents[:, context:]


def timed(call: Callable[[], Tensor], device: torch.device) -> float:
    """Seconds of a call: CPU time of this process, or time of the GPU."""
    if device.type == "cpu":
        start = time.process_time()
        call()
        return time.process_time() - start
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    call()
    end.record()
    torch.cuda.synchronize(device)
    return begin.elapsed_time(end) / 1000


def measure(cfg: DictConfig, *, device: torch.device, precision: str, context: int) -> Row:
    """Time both variants in turn and compare their results."""
    dtype = DTYPES[precision]
    predictor = predictor_of(cfg, device=device, dtype=dtype)
    given = inputs_of(cfg, context=context, device=device, dtype=dtype)
    gap = float((kept(predictor, given) - anew(predictor, given)).abs().max())
    times = [
        (timed(lambda: anew(predictor, given), device), timed(lambda: kept(predictor, given), device))
        for _ in range(cfg.repeats)
    ]
    before, after = (median(column) for column in zip(*times, strict=True))
    ratio = median(slow / quick for slow, quick in times)
    return Row(
        device=device.type, precision=precision, context=context, anew_s=before, kept_s=after, ratio=ratio, gap=gap
    )


def bench(cfg: DictConfig) -> list[Row]:
    """All lines of the table; also writes them to `out`."""
    folder = Path(str(cfg.out))
    claim_run(folder, "bench_rollout")
    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])] if cfg.device == "auto" else [str(cfg.device)]
    rows = [
        measure(cfg, device=torch.device(device), precision=precision, context=context)
        for device in devices
        for precision in cfg.precisions
        for context in cfg.contexts
    ]
    sizes = {name: cfg[name] for name in ("width", "depth", "heads", "side", "state_dim", "candidates", "horizon")}
    hardware = torch.cuda.get_device_name() if "cuda" in devices else f"{os.cpu_count()} x {platform.machine()}"
    hardware = f"{hardware}; instructions {instructions()}"
    facts = {"sizes": sizes, "hardware": hardware, "torch": torch.__version__, "rows": [asdict(row) for row in rows]}
    (folder / "rollout.json").write_text(json.dumps(facts, indent=2) + "\n")
    return rows


@hydra.main(version_base=None, config_path=str(CONFIGS), config_name="bench_rollout")
def main(cfg: DictConfig) -> None:
    """Measure, write, print."""
    torch.set_num_threads(1)
    try:
        rows = bench(cfg)
    except (ValueError, KeyError, RuntimeError, OSError) as error:
        sys.exit(f"bench_rollout: {error}")
    print(f"instructions: {instructions()}")
    table = Table(title=f"Rollout of {cfg.candidates} candidates over {cfg.horizon} steps, width {cfg.width}")
    for column in ("device", "precision", "context", "anew", "kept", "times faster", "largest gap"):
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(
            row.device, row.precision, str(row.context), f"{row.anew_s:.3f} s", f"{row.kept_s:.3f} s",
            f"{row.ratio:.2f}", f"{row.gap:.1e}",
        )  # fmt: skip
    Console().print(table)
