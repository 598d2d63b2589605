"""User-defined functions named on the command line."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any


def function_of(place: str) -> Callable[..., Any]:
    """The function at `file.py:name` or `module:name`; the file is executed as an import would.

    Raises:
        ValueError: If there is no such file, module or function.
    """
    where, _, name = place.rpartition(":")
    if not where or not name.isidentifier():
        raise ValueError(f"expected file.py:function or module:function, got {place!r}")
    try:
        module = _from_file(Path(where)) if where.endswith(".py") else importlib.import_module(where)
    except (ImportError, FileNotFoundError) as error:
        raise ValueError(f"{place}: {where} cannot be imported ({error})") from error
    found: Callable[..., Any] | None = getattr(module, name, None)
    if not callable(found):
        raise ValueError(f"{place}: {where} has no function {name}")
    return found


def _from_file(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(path.stem, path.resolve())
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
