"""Errors whose messages say what was expected, what was found and what to do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

Part = TypeVar("Part")


class _Told(Exception):
    """An error that keeps its message when pickled from a worker process to its parent.

    Without this, Python would call the constructor again with the finished message as its argument.
    """

    def __reduce__(self) -> tuple[Any, ...]:
        return _told_again, (type(self), self.args, self.__dict__)


class UnknownName(_Told, KeyError):
    """A registry has no member of that name; the message lists the known ones."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        self.message = f"unknown {kind} {name!r}; known: {', '.join(sorted(known))}"
        super().__init__(self.message)

    def __str__(self) -> str:
        return self.message


class MissingPackage(_Told, ImportError):
    """An optional package is needed and not installed; the message says how to install it."""

    def __init__(self, package: str, wanted_by: str) -> None:
        super().__init__(f"{wanted_by} needs the package {package}: pip install {package}")


class BadCheckpoint(ValueError):
    """A checkpoint is damaged, incomplete, of another format, or incompatible with its use."""


class Busy(OSError):
    """Another process writes to the same path."""


class BadEpisode(ValueError):
    """An episode file is damaged or does not have the declared fields; the message names file and field."""


class BadObservation(ValueError):
    """An observation or goal does not have the size, dtype or cameras that the model was trained with."""


def choose(known: Mapping[str, Part], name: str, kind: str = "name") -> Part:
    """Look up `name` in a registry.

    Raises:
        UnknownName: If there is no such member; lists the known ones.
    """
    if name not in known:
        raise UnknownName(kind, name, known)
    return known[name]


def _told_again(kind: type[_Told], args: tuple[Any, ...], facts: Mapping[str, Any]) -> _Told:
    error = kind.__new__(kind, *args)
    error.__dict__.update(facts)
    return error
