"""Networks of a checkpoint: described, compared with the file, built and loaded."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from torch import nn

from jepa_mpc.checkpoint import load_strict, open_checkpoint
from jepa_mpc.errors import BadCheckpoint
from jepa_mpc.reading import OpenCheckpoint
from jepa_mpc.strict import check_fit
from jepa_mpc.world_model.checkpoints.assembly import assemble
from jepa_mpc.world_model.checkpoints.blueprint import blueprint

Network = TypeVar("Network", bound=nn.Module)
Entry = TypeVar("Entry")
Result = TypeVar("Result")

MISFITS = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
"""Errors of a configuration that is well-formed but describes no network."""


def restore(
    opened: OpenCheckpoint, specs: Mapping[str, Any], name: str, *, kind: str, form: type[Network]
) -> list[Network]:
    """Build the networks of a checkpoint and load their weights.

    Nothing of a network's size is allocated before its names, shapes and dtypes match the file.

    Args:
        opened: The checkpoint.
        specs: The configuration of each network by the prefix of its tensors' names: "" for a single one.
        name: Its location, for messages.
        kind: Name of such a network in messages.
        form: The expected class.

    Raises:
        BadCheckpoint: If there is no such network, or its tensors are others, damaged, NaN or infinite.
    """
    kinds = _shares(opened.header.kinds, specs, name)
    for start, spec in specs.items():
        _attempt(lambda: _compare(opened, spec, kinds[start], name, kind, form), name, kind)  # noqa: B023  called here
    tensors = _shares(opened.tensors(), specs, name)
    networks: list[Network] = _attempt(lambda: [assemble(spec) for spec in specs.values()], name, kind)
    for network, start in zip(networks, specs, strict=True):
        load_strict(network, tensors.pop(start), name)
    return networks


def load_network(
    folder: str | Path, *, kind: str, form: type[Network], entry: str = "system"
) -> tuple[Network, dict[str, Any]]:
    """The one network of a checkpoint, and the checkpoint's configuration.

    Args:
        folder: Its location.
        kind: Name of such a network in messages.
        form: The expected class.
        entry: Key of its configuration.

    Raises:
        BadCheckpoint: If the folder is missing or damaged, describes no such network, or has other tensors.
    """
    with open_checkpoint(folder) as opened:
        if entry not in opened.config:
            raise BadCheckpoint(f"{folder} does not describe a {kind}: its configuration has no {entry!r}")
        (network,) = restore(opened, {"": opened.config[entry]}, str(folder), kind=kind, form=form)
        return network, opened.config


def _compare(
    opened: OpenCheckpoint, spec: Any, kinds: Mapping[str, str], name: str, kind: str, form: type[nn.Module]
) -> None:
    """The described network; its tensors must be those of the file."""
    network = blueprint(spec, name, num_tensors=len(kinds), num_bytes=opened.header.num_bytes)
    if not isinstance(network, form):
        raise BadCheckpoint(f"{name} describes a {type(network).__name__}, not a {kind}")
    check_fit(network, kinds, name)


def _attempt(work: Callable[[], Result], name: str, kind: str) -> Result:
    """Turn errors caused by a configuration into a one-line BadCheckpoint."""
    try:
        return work()
    except BadCheckpoint:
        raise
    except MISFITS as error:
        raise BadCheckpoint(f"{name} does not describe a {kind} of this version: {error}") from error


def _shares(entries: Mapping[str, Entry], starts: Iterable[str], name: str) -> dict[str, dict[str, Entry]]:
    """The tensors of each network by the prefix of their names, which is removed."""
    starts = list(starts)
    if starts == [""]:
        return {"": dict(entries)}
    shares: dict[str, dict[str, Entry]] = {}
    for key, entry in entries.items():
        start, dot, own = key.partition(".")
        shares.setdefault(start + dot, {})[own] = entry
    if shares.keys() != set(starts):
        raise BadCheckpoint(f"{name} describes {len(starts)} networks, but holds weights of {len(shares)}")
    return shares
