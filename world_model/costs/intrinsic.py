"""The intrinsic cost: fixed cost terms that no training can change.

    IC(s_h, a_h) = sum over i of u_i IC_i(s_h, a_h)        the configurator sets u_i, above their floors

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
    """Named terms without trainable parameters, sealed at construction.

    The terms are copied and their tensors frozen. Assignments are refused, and a tensor that was overwritten anyway is
    detected at the next call. Create a new object for another list of terms.

    Args:
        terms: Name -> term.
        floors: Minimum weight of each term; 0 for those not named. A term with a positive floor cannot be switched off
            (safety limits); a negative floor allows a term to be rewarded (uncertainty, for exploration).

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
        raise AttributeError(f"the intrinsic cost is sealed: {name} cannot be set; create a new IntrinsicCost")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"the intrinsic cost is sealed: {name} cannot be removed")

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the terms, in order."""
        return tuple(self._terms)

    @property
    def floors(self) -> Mapping[str, float]:
        """Minimum weight of each term (read only)."""
        return self._floors

    def fingerprint(self) -> str:
        """Twelve hexadecimal digits that identify the terms and all their numbers."""
        digest = hashlib.sha256()
        for name, term in self._terms.items():
            digest.update(f"{name}={type(term).__qualname__}:{_settings(term)};".encode())
            for tensor in _tensors(term):
                digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()[:12]

    def check_weights(self, weights: Mapping[str, float]) -> None:
        """Refuse weights that do not name each term, or are below a floor.

        Raises:
            UnknownName: If a weight has no term.
            ValueError: If a term has no weight, or one below its floor.
        """
        for name in weights.keys() - self._terms.keys():
            raise UnknownName("intrinsic term", name, self._terms)
        for name, least in self._floors.items():
            if name not in weights:
                raise ValueError(
                    f"the intrinsic term {name!r} has no weight; give one for each of {', '.join(self.names)}"
                )
            if not weights[name] >= least:
                raise ValueError(f"the weight of {name!r} must be at least {least}, got {weights[name]}")

    def terms(self, rollout: Rollout, plans: Plans, goal: Goal) -> dict[str, StepCosts]:
        """Each unweighted term, by name.

        Raises:
            RuntimeError: If a number inside a term was overwritten after construction.
        """
        if any(tensor._version != version for tensor, version in self._marks):
            raise RuntimeError("a number inside the intrinsic cost was overwritten: it must not change at run time")
        return {name: per_step(term(rollout, plans, goal)) for name, term in self._terms.items()}

    def __call__(self, rollout: Rollout, plans: Plans, goal: Goal, *, weights: Mapping[str, float]) -> StepCosts:
        """The weighted sum `B S H`; terms of weight 0 are skipped."""
        wanted = self.terms(rollout, plans, goal)
        parts = [weights[name] * cost for name, cost in wanted.items() if weights[name] != 0]
        if not parts:
            return next(iter(wanted.values())) * 0
        return sum(parts[1:], start=parts[0])


def _tensors(thing: object, seen: set[int] | None = None) -> Iterator[Tensor]:
    """Every tensor of a term: its own, and those of modules and other objects that it uses."""
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
    """Direct components of an object: items, the object of a method, closure variables, attributes."""
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
