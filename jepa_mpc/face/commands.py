"""Commands as functions, with the same code and options as on the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jepa_mpc.places import CONFIGS


def train(**options: Any) -> Path:
    """Train a system on logs: `train(data="logs/reach", out="runs/reach", system="arm")`.

    Args:
        **options: See `jepa-mpc train --help`; write an entry of a group as `{"fit.steps": 100}`.

    Returns:
        The checkpoint folder.
    """
    from jepa_mpc.face.training.training_run import train as run

    return run(composed("train", options))


def collect(**options: Any) -> Path:
    """Record reward-free motion in simulated labs: `collect(out="logs/reach", labs=20)`.

    Args:
        **options: See `jepa-mpc collect --help`.

    Returns:
        The log folder.
    """
    from jepa_mpc.face.collection.lab_recording import record as run

    cfg = composed("collect", options)
    run(cfg)
    return Path(cfg.out)


def composed(command: str, options: dict[str, Any]) -> Any:
    """The configuration of a command with some options overridden, composed by hydra; also inside a hydra program.

    Raises:
        ValueError: If there is no such option.
    """
    import json

    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException

    words = [
        f"{name}={value if isinstance(value, str | Path) else json.dumps(value)}" for name, value in options.items()
    ]
    running, GlobalHydra.instance().hydra = GlobalHydra.instance().hydra, None
    try:
        with initialize_config_dir(str(CONFIGS), version_base=None):
            return compose(command, words)
    except HydraException as error:
        raise ValueError(f"{command}: {' '.join(str(error).split())}") from error
    finally:
        GlobalHydra.instance().hydra = running
