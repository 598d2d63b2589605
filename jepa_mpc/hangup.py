"""A terminal that closes (SIGHUP) ends a command as Ctrl-C does; under nohup the signal stays ignored."""

from __future__ import annotations

import os
import signal
import stat
from types import FrameType


class HungUp(KeyboardInterrupt):
    """The terminal has closed."""


def listened_to() -> tuple[signal.Signals, ...]:
    """SIGHUP, unless the system has none or the command was started to survive it."""
    hangup = getattr(signal, "SIGHUP", None)
    return () if hangup is None or signal.getsignal(hangup) is signal.SIG_IGN else (hangup,)


def end_on_hangup() -> None:
    """From now on SIGHUP raises `HungUp`."""
    for number in listened_to():
        signal.signal(number, _hang_up)


def leave_terminal() -> None:
    """Send what is still printed nowhere: writing to a closed terminal fails."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (1, 2):
        if stat.S_ISCHR(os.fstat(stream).st_mode):
            os.dup2(nowhere, stream)
    os.close(nowhere)


def _hang_up(number: int, frame: FrameType | None) -> None:
    leave_terminal()
    raise HungUp
