"""Serve a planning agent over openpi's websocket protocol: `jepa-mpc serve checkpoint=reach_wide`.

Each connection is an episode of its own. Ctrl-C or SIGTERM ends the server after the pending requests are answered.
docs/serving.md describes the requests.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from ipaddress import ip_address

import hydra
import torch
from omegaconf import DictConfig, OmegaConf

from jepa_mpc.errors import BadCheckpoint, MissingPackage, UnknownName
from jepa_mpc.face.serving import service
from jepa_mpc.face.training.distributed import device_of
from jepa_mpc.places import CONFIGS
from jepa_mpc.serving.server import Limits, PolicyServer

MISTAKES = (BadCheckpoint, MissingPackage, UnknownName, ValueError, OSError)


def prepared(cfg: DictConfig) -> PolicyServer:
    """The server that the options describe.

    Raises:
        BadCheckpoint: If the checkpoint cannot be read or is of another robot.
        BadObservation: If the goal cannot be read.
        ValueError: If an option is out of range.
    """
    torch.set_num_threads(int(cfg.threads))
    served = service(
        cfg.checkpoint,
        robot=cfg.robot,
        goal=[cfg.goal] if isinstance(cfg.goal, str) else list(cfg.goal),
        images=list(cfg.images),
        goals=list(cfg.goals),
        state=list(cfg.state),
        kind=cfg.kind,
        deadline_ms=float(cfg.deadline_ms),
        max_age_ms=float(cfg.max_age_ms),
        seed=int(cfg.seed),
        device=str(device_of(str(cfg.device))),
        planner=OmegaConf.to_container(cfg.planner),
        horizon=int(cfg.horizon),
        effort=float(cfg.effort),
        hold_m=float(cfg.hold_m),
    )
    return PolicyServer(
        served.begin,
        served.metadata,
        api_key=None if cfg.api_key is None else str(cfg.api_key),
        limits=Limits(connections=int(cfg.connections), frame_bytes=int(float(cfg.frame_mib) * 2**20)),
        workers=int(cfg.workers),
    )


async def serve(server: PolicyServer, *, host: str, port: int) -> None:
    """Run until Ctrl-C or SIGTERM."""
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for sign in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(sign, stop.set)
    await server.run(host, port, stop=stop, listening=lambda got: print(f"serving on ws://{host}:{got}", flush=True))
    print(f"stopped after {server.metrics.answered} answers", flush=True)


def is_open(host: str) -> bool:
    """Whether other machines can connect to that address."""
    if host == "localhost":
        return False
    try:
        return not ip_address(host).is_loopback
    except ValueError:
        return True


@hydra.main(version_base=None, config_path=str(CONFIGS), config_name="serve")
def main(cfg: DictConfig) -> None:
    """Prepare and serve."""
    try:
        server = prepared(cfg)
        if is_open(cfg.host) and cfg.api_key is None:
            print(f"anyone who reaches {cfg.host} can drive this agent: set JEPA_MPC_API_KEY to ask for a key")
        asyncio.run(serve(server, host=cfg.host, port=int(cfg.port)))
    except MISTAKES as mistake:
        sys.exit(f"serve: {mistake}")
