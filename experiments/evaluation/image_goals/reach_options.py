"""The options of the reaching experiment, checked before any work begins."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

from jepa_mpc.envs.labs import SPLITS
from jepa_mpc.envs.true_dynamics import DYNAMICS
from jepa_mpc.errors import choose

COUNTS = ("labs", "episodes", "budget", "horizon", "workers")
SEEDS = ("seed", "lab_seed")
AMOUNTS = ("effort", "hold_m")
SWITCHES = ("baselines", "films", "factors")
LEVELS = ("held", "validation", "dev")
VIEWS = ("none", "rerun")
OTHERS = (
    *("planner", "out", "split", "level", "cameras", "checkpoint", "control", "policy", "dynamics", "device"),
    *("goal", "view"),
)


def check_options(options: Mapping[str, Any]) -> None:
    """Refuse invalid options.

    Raises:
        UnknownName: If split or dynamics are unknown.
        ValueError: If an option is missing or unknown, or its value has the wrong type or is out of range.
    """
    known = (*COUNTS, *SEEDS, *AMOUNTS, *SWITCHES, *OTHERS)
    for name in options:
        if name not in (*known, "system", "agent"):
            raise ValueError(f"there is no option {name!r}; known: {', '.join(sorted(known))}")
    for name in known:
        if name not in options:
            raise ValueError(f"the option {name} is missing")
    for name in (*COUNTS, *SEEDS):
        value = options[name]
        if type(value) is not int or (name in COUNTS and value < 1):
            raise ValueError(f"{name} must be a whole number{' from 1' if name in COUNTS else ''}, got {value!r}")
    for name in AMOUNTS:
        value = options[name]
        if type(value) not in (int, float) or not 0 <= value < math.inf:
            raise ValueError(f"{name} must be a number from 0, got {value!r}")
    for name in SWITCHES:
        if not isinstance(options[name], bool | None):
            raise ValueError(f"{name} must be true or false, got {options[name]!r}")
    choose(SPLITS, str(options["split"]), "split")
    choose(DYNAMICS, str(options["dynamics"]), "dynamics")
    if options["view"] not in VIEWS:
        raise ValueError(f"view must be {' or '.join(VIEWS)}, got {options['view']!r}")
    if options["level"] not in LEVELS:
        raise ValueError(f"level must be held, validation or dev, got {options['level']!r}")
    usable_device(str(options["device"]))


def usable_device(name: str) -> torch.device:
    """The device of that name.

    Raises:
        ValueError: If the name is invalid, or the device is not available on this machine.
    """
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"unknown device {name!r}: use cpu, cuda or cuda:1") from error
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"device={name} is not supported: use cpu, cuda or cuda:1")
    found = torch.cuda.device_count() if device.type == "cuda" and torch.cuda.is_available() else 0
    if device.type == "cuda" and (device.index or 0) >= found:
        raise ValueError(f"device={name}: PyTorch finds {found} usable GPUs here; use device=cpu")
    return device
