"""Record reward-free motion in many labs: `python experiments/collect.py out=logs/reach labs=400 episodes=5 workers=2`.

`policy=handle` handles an object by proprioception (see `trajectories.handling`). `task=gym:ID` records in a gymnasium
environment: `python experiments/collect.py task=gym:Reacher-v5 episodes=300 steps=50 out=logs/reacher`.

Episode i depends only on the seeds and on i, whatever the number of workers. It can be interrupted at any time: the log
stays whole and in order, and the same command resumes it. The manifest is written last.
"""

from __future__ import annotations

import signal
import sys
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from types import FrameType

import hydra
from omegaconf import DictConfig

from jepa_mpc.errors import BadEpisode, UnknownName
from jepa_mpc.face.collection.lab_recording import record
from jepa_mpc.face.command_line import Stopped
from jepa_mpc.places import CONFIGS


def _stop(number: int, frame: FrameType | None) -> None:
    raise Stopped(f"by {signal.Signals(number).name}: the log is in order; the same command continues it")


@hydra.main(version_base=None, config_path=str(CONFIGS), config_name="collect")
def main(cfg: DictConfig) -> None:
    """Read the configuration, collect, and print a summary."""
    folder = Path(cfg.out)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    try:
        store = record(cfg)
    except BrokenProcessPool:
        sys.exit(
            "a worker process died (out of memory, or no OpenGL?); the log is in order, the same command continues it"
        )
    except (ValueError, UnknownName, BadEpisode, OSError) as error:
        sys.exit(f"collect: {error}")
    print(f"{folder}: {len(store)} episodes, {sum(store.lengths)} observations")
