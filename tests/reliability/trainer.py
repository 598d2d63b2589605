"""A small training that is killed and starved, in processes of its own."""

from __future__ import annotations

import os
import random
import resource
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir

import jepa_mpc.face.training.keeper as keeper
from jepa_mpc.checkpoint import checkpoint_hash
from jepa_mpc.face.training.training_run import train
from jepa_mpc.trajectories.synthetic import synthetic_log

ROOT = Path(__file__).resolve().parents[2]
SAVE = keeper.save_checkpoint
TINY = [
    *("++system.encoder.widths=[8,8,8,8]", "++system.encoder.keypoints=4", "++system.encoder.hidden=16"),
    *("fit.save_every=5", "fit.log_every=5", "fit.evaluate_every=50", "batch=4", "window=4"),
    *("++max_stride=2", "probe=16", "validation=0.34", "fit.learning_rate=1e-4"),
]


def configured(folder: Path, name: str, *more: str) -> Any:
    log = folder / "log"
    if not log.exists():
        synthetic_log(log, episodes=6)
    with initialize_config_dir(str(ROOT / "configs"), version_base=None):
        return compose("train", [*TINY, "fit.steps=200", f"data={log}", f"out={folder / name}", *more])


def quiet() -> None:
    """Say nothing: what pytest captures goes into files, which may not grow where the disk is full."""
    sys.stdout = sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115


def child(work: Callable[[], Any], *, said: int | None = None) -> int:
    """Do it in a process of its own, tell its number; what stops it goes to the descriptor `said` and is status 3."""
    number = os.fork()
    if number:
        return number
    status = 3
    try:
        quiet()
        work()
        status = 0
    except BaseException as error:  # noqa: BLE001  the parent sees the exit status alone
        if said is not None:
            os.write(said, f"{type(error).__name__}: {error}\n".encode())
    finally:
        os._exit(status)


def dies_in_a_save(after: int, share: float) -> None:
    """Kill the process in the middle of one of the saves that come."""
    count = 0

    def save(folder: Any, tensors: Any, config: Any, **more: Any) -> None:
        nonlocal count
        count += 1
        if count > after:
            write = Path.write_bytes

            def half(path: Path, data: bytes) -> int:
                write(path, data[: int(share * len(data))])
                os.kill(os.getpid(), signal.SIGKILL)
                return 0

            Path.write_bytes = half  # type: ignore[method-assign]
        SAVE(folder, tensors, config, **more)

    keeper.save_checkpoint = save


def killed(folder: Path, kills: int, *, steps: int) -> None:
    """Train once through, once with kills at random moments, every fourth in a save; leave both folders behind."""
    length, chance = f"fit.steps={steps}", random.Random(0)
    start = time.monotonic()
    number = child(lambda: train(configured(folder, "whole", length)))
    assert os.waitpid(number, 0)[1] == 0
    whole_s = time.monotonic() - start
    for index in range(kills):
        in_save, share = index % 4 == 3, chance.random()

        def work(in_save: bool = in_save, share: float = share) -> None:
            if in_save:
                dies_in_a_save(chance.randrange(2), share)
            train(configured(folder, "killed", length))

        number = child(work)
        if not in_save:
            time.sleep(chance.uniform(0.0, 0.35) * whole_s)
            os.kill(number, signal.SIGKILL)
        status = os.waitpid(number, 0)[1]
        assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, status
        state = folder / "killed" / keeper.STATE
        if keeper.published(state).exists():
            keeper.load_checkpoint(state)
    number = child(lambda: train(configured(folder, "killed", length)))
    assert os.waitpid(number, 0)[1] == 0


def starved(folder: Path, places: int) -> str:
    """Let the disk be full at several points of a training's saves; answers what the trainings said."""
    reading, writing = os.pipe()  # no limit on the size of files holds for it
    train(configured(folder, "run", "fit.steps=10"))
    before = checkpoint_hash(folder / "run" / keeper.STATE)
    size = (folder / "run" / keeper.STATE / "model.safetensors").stat().st_size
    for index in range(places):

        def work(limit: int = int(size * index / places)) -> None:
            cfg = configured(folder, "run", "fit.steps=10", "recorders=[]")
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            save = keeper.save_checkpoint

            def starving(*given: Any, **more: Any) -> None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
                save(*given, **more)

            keeper.save_checkpoint = starving
            keeper.Keeper.last = lambda self: None  # type: ignore[method-assign]
            train(cfg)

        status = os.waitpid(child(work, said=writing), 0)[1]
        assert os.WEXITSTATUS(status) == 3, status
        assert checkpoint_hash(folder / "run" / keeper.STATE) == before
        keeper.load_checkpoint(folder / "run" / keeper.STATE)
        assert not list((folder / "run").glob(".*.tmp")), "litter"
    os.close(writing)
    with os.fdopen(reading) as told:
        return told.read()
