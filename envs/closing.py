"""Frees OpenGL contexts as the process exits, before OpenGL itself is shut down.

`atexit` runs what was registered last first. MuJoCo registers the end of EGL with its first context, dm_control on
import; whatever frees a context after either prints a traceback. So ours is registered anew after each of them.
"""

from __future__ import annotations

import atexit
from collections.abc import Callable

_CLOSERS: list[Callable[[], object]] = []


def close_at_exit(close: Callable[[], object]) -> None:
    """Call `close` as the process exits; to be called after the first context exists."""
    _CLOSERS.append(close)
    close_first()


def close_first() -> None:
    """Move these calls before all that is registered with `atexit` so far."""
    atexit.unregister(_close)
    atexit.register(_close)


def _close() -> None:
    while _CLOSERS:
        _CLOSERS.pop()()
