"""The intrinsic cost: what an agent wants and shuns by its nature. It is set once; nothing can train or change it.

    IC(s_h, a_h) = sum over i of u_i IC_i(s_h, a_h)        the u_i are chosen by the configurator, above their floors

Reference: LeCun 2022, A path towards autonomous machine intelligence, section 3.2 (hard-wired intrinsic cost).
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
from collections.abc import Iterator, Mapping
from types import MappingProxyType, ModuleType

from torch import Tensor, nn

from jepa_mpc.costs import StepCost, StepCosts, per_step
from jepa_mpc.errors import UnknownName
from jepa_mpc.types import Goal, Plans, Rollout


class IntrinsicCost:
    """Named terms without a trainable parameter, sealed when they are made.

    The terms are copied, their tensors frozen. Assignments are refused, and a tensor that was written to all the same
    is noticed at the next call. Another list of terms needs another object.

    Args:
        terms: Name -> term.
        floors: Least weight that each term may be given; 0 for those not named. A positive floor cannot be switched
            off (limits that keep the robot safe), a negative one lets a term be sought (uncertainty, to explore).

    Raises:
        ValueError: If there is no term.
        UnknownName: If a floor has no term.
    """

    __slots__ = ("_floors", "_marks", "_terms")

    _terms: Mapping[str, StepCost]
    _floors: Mapping[str, float]
    _marks: tuple[tuple[Tensor, int], ...]

    def __init__(self, terms: Mapping[str, StepCost], *, floors: Mapping[str, float] | None = None) -> None:
        if not terms:
            raise ValueError("an intrinsic cost needs at least one term")
        for name in (floors or {}).keys() - terms.keys():
            raise UnknownName("intrinsic term", name, terms)
        own = {name: copy.deepcopy(term) for name, term in terms.items()}
        tensors = [tensor for term in own.values() for tensor in _tensors(term)]
        for tensor in tensors:
            tensor.requires_grad_(False)
        object.__setattr__(self, "_terms", MappingProxyType(own))
        object.__setattr__(self, "_floors", MappingProxyType({n: float((floors or {}).get(n, 0.0)) for n in own}))
        object.__setattr__(self, "_marks", tuple((tensor, tensor._version) for tensor in tensors))

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"the intrinsic cost is sealed: {name} cannot be set; make another IntrinsicCost")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"the intrinsic cost is sealed: {name} cannot be removed")

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the terms, in order."""
        return tuple(self._terms)

    @property
    def floors(self) -> Mapping[str, float]:
        """Least weight of each term (read only)."""
        return self._floors

    def fingerprint(self) -> str:
        """Twelve hexadecimal digits of the terms and every number in them."""
        digest = hashlib.sha256()
        for name, term in self._terms.items():
            digest.update(f"{name}={type(term).__qualname__}:{_settings(term)};".encode())
            for tensor in _tensors(term):
                digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()[:12]

    def check_weights(self, weights: Mapping[str, float]) -> None:
        """Refuse weights that do not name each term, or fall below a floor.

        Raises:
            UnknownName: If a weight has no term.
            ValueError: If a term has no weight, or one below its floor.
        """
        for name in weights.keys() - self._terms.keys():
            raise UnknownName("intrinsic term", name, self._terms)
        for name, least in self._floors.items():
            if name not in weights:
                raise ValueError(f"the intrinsic term {name!r} has no weight; name them all: {', '.join(self.names)}")
            if not weights[name] >= least:
                raise ValueError(f"the weight of {name!r} may not fall below {least}, got {weights[name]}")

    def terms(self, rollout: Rollout, plans: Plans, goal: Goal) -> dict[str, StepCosts]:
        """Each term without its weight, by name.

        Raises:
            RuntimeError: If a number inside of a term was overwritten since the object was made.
        """
        if any(tensor._version != version for tensor, version in self._marks):
            raise RuntimeError("a number inside of the intrinsic cost was overwritten: it may not change at run time")
        return {name: per_step(term(rollout, plans, goal)) for name, term in self._terms.items()}

    def __call__(self, rollout: Rollout, plans: Plans, goal: Goal, *, weights: Mapping[str, float]) -> StepCosts:
        """The weighted sum `B S H`; terms of weight 0 are left out."""
        wanted = self.terms(rollout, plans, goal)
        parts = [weights[name] * cost for name, cost in wanted.items() if weights[name] != 0]
        if not parts:
            return next(iter(wanted.values())) * 0
        return sum(parts[1:], start=parts[0])


def _tensors(thing: object, seen: set[int] | None = None) -> Iterator[Tensor]:
    """Every tensor that a term holds: its own, those of modules and of whatever else it calls."""
    seen = set() if seen is None else seen
    if id(thing) in seen or isinstance(thing, type | ModuleType):
        return
    seen.add(id(thing))
    if isinstance(thing, Tensor):
        yield thing
        return
    if isinstance(thing, nn.Module):
        yield from (*thing.parameters(), *thing.buffers())
    for part in _parts(thing):
        yield from _tensors(part, seen)


def _parts(thing: object) -> list[object]:
    """What lies directly inside of a thing: items, the object of a method, what a function closes over, attributes."""
    if isinstance(thing, Mapping):
        return list(thing.values())
    if isinstance(thing, list | tuple | set | frozenset):
        return list(thing)
    cells = [cell.cell_contents for cell in getattr(thing, "__closure__", None) or ()]
    held = [] if isinstance(thing, nn.Module) else list(getattr(thing, "__dict__", {}).values())
    return [*cells, *held, *([thing.__self__] if hasattr(thing, "__self__") else [])]


def _settings(term: object) -> str:
    """The plain numbers of a term, as text."""
    if not dataclasses.is_dataclass(term):
        return ""
    values = {item.name: getattr(term, item.name) for item in dataclasses.fields(term)}
    return ", ".join(f"{k}={v}" for k, v in values.items() if isinstance(v, int | float | str | tuple | None))
