"""The protocol between parent and child of a bridge; both load this file, the child in its own Python.

A message is a header (magic, kind, length) and a JSON value of at most `MOST` bytes. Arrays (action, observation,
state, plan and its outcome, image) are in shared memory at offsets that the child sends once.
"""

from __future__ import annotations

import json
import socket
import struct
from dataclasses import asdict, dataclass
from itertools import accumulate
from typing import Any

VERSION = 2
MAGIC = 0x4A4D
HEADER = struct.Struct("<HHI")
MOST = 1 << 16
LARGEST_MEMORY = 1 << 28
"""Maximum size of the shared memory in bytes."""

PLAN = 64
"""Actions that fit in the shared memory at once; longer plans are sent in parts."""

RENDERED_GOAL = "goal_rendered"
"""The entry of a reset's info with the goal image, as in OGBench; passed through shared memory."""

MAKE, RESET, STEP, RENDER, TAKE, PUT, END, PLAY = range(1, 9)
DONE, FAULT = 100, 101


class Garbled(ValueError):
    """A received message violates this protocol."""


@dataclass(frozen=True)
class Layout:
    """Array sizes in the shared memory, in this order: action, observation, state, plan, outcome (float64), image.

    A plan is `PLAN` actions; its outcome an observation, the reward, and whether the episode has ended for each.

    Args:
        action: Width of an action.
        observation: Width of an observation.
        state: Width of a state.
        picture: Height, width and channels of an image; zeros without rendering.
    """

    action: int
    observation: int
    state: int
    picture: tuple[int, int, int]

    @property
    def starts(self) -> tuple[int, ...]:
        """Byte offsets of action, observation, state, plan, outcome and image, and the total size."""
        height, width, colours = self.picture
        numbers = (self.action, self.observation, self.state, PLAN * self.action, PLAN * (self.observation + 2))
        return tuple(accumulate([*(8 * count for count in numbers), height * width * colours], initial=0))

    def to_dict(self) -> dict[str, Any]:
        """A JSON value."""
        return asdict(self)

    @classmethod
    def of(cls, told: dict[str, Any]) -> Layout:
        """A layout from a received JSON value.

        Raises:
            Garbled: If it is invalid, or asks for too much memory.
        """
        try:
            height, width, colours = map(int, told["picture"])
            action, observation, state = (int(told[name]) for name in ("action", "observation", "state"))
        except (KeyError, TypeError, ValueError) as error:
            raise Garbled(f"expected a layout of the shared memory, got {told}") from error
        layout = cls(action, observation, state, (height, width, colours))
        if min(action, observation, state, height, width, colours) < 0 or layout.starts[-1] > LARGEST_MEMORY:
            raise Garbled(f"expected a layout of at most {LARGEST_MEMORY} bytes, got {told}")
        return layout


def send(line: socket.socket, kind: int, content: dict[str, Any]) -> None:
    """Send a message.

    Raises:
        Garbled: If it is too long.
        OSError: If the connection is closed.
    """
    body = json.dumps(content).encode()
    if len(body) > MOST:
        raise Garbled(f"a message of {len(body)} bytes is longer than {MOST}")
    line.sendall(HEADER.pack(MAGIC, kind, len(body)) + body)


def receive(line: socket.socket) -> tuple[int, dict[str, Any]]:
    """The next message: its kind and content.

    Raises:
        EOFError: If the other side is gone.
        TimeoutError: If it takes too long.
        Garbled: If it is not a valid message.
    """
    magic, kind, length = HEADER.unpack(_exactly(line, HEADER.size))
    if magic != MAGIC or length > MOST:
        raise Garbled(f"expected a message, got a header of {magic:#x} with {length} bytes")
    try:
        content = json.loads(_exactly(line, length))
    except ValueError as error:
        raise Garbled(f"expected a JSON message: {error}") from error
    if not isinstance(content, dict):
        raise Garbled(f"a message holds names and values, got a {type(content).__name__}")
    return kind, content


def _exactly(line: socket.socket, count: int) -> bytes:
    parts = bytearray()
    while len(parts) < count:
        part = line.recv(count - len(parts))
        if not part:
            raise EOFError("the other side is gone")
        parts += part
    return bytes(parts)
