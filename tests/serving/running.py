"""A policy server in a thread of its own, agents that need no world model, and a client of forty lines."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from websockets.sync.client import ClientConnection, connect

from jepa_mpc.serving.server import Limits, PolicyServer
from jepa_mpc.serving.session import Keys, Session
from jepa_mpc.serving.wire import pack, unpack
from jepa_mpc.step_log import StepLog
from jepa_mpc.types import Observation

KEYS = Keys(cameras=("left",), images=("observation/image",), goals=("goal/image",))
METADATA = {"protocol": 1, "rate_hz": 15, "keys": ["actions"]}


class Mirror:
    """Answers with the mean brightness of picture and goal, and the number of actions so far in this episode."""

    def __init__(self, think_s: float = 0.0) -> None:
        self.think_s, self.last, self.limits = think_s, None, []
        self.goal: Observation | None = None
        self.count = 0

    def reset(self, goal: Observation) -> None:
        self.goal, self.count = goal, 0

    def aim(self, goal: Observation) -> None:
        self.goal = goal

    def limit(self, deadline_s: float) -> None:
        self.limits.append(deadline_s)

    def act(self, observation: Observation) -> torch.Tensor:
        assert self.goal is not None
        time.sleep(min(self.think_s, self.limits[-1]))
        self.count += 1
        seen, wanted = (float(picture.frames.float().mean()) for picture in (observation, self.goal))
        action = torch.tensor([[seen, wanted, float(self.count)]])
        self.last = StepLog(action=action)
        return action


def session(agent: Any = None, **settings: Any) -> Session:
    return Session(Mirror() if agent is None else agent, KEYS, fit=lambda pictures: pictures, **settings)


def picture(brightness: int = 0, size: int = 8) -> np.ndarray:
    return np.full((size, size, 3), brightness, np.uint8)


def request(brightness: int = 0, goal: int = 9, *, size: int = 8, **more: Any) -> dict[str, Any]:
    return {"observation/image": picture(brightness, size), "goal/image": picture(goal, size), **more}


@contextmanager
def running(begin: Any = session, **settings: Any) -> Iterator[tuple[PolicyServer, int]]:
    """Serve on a free port; at the end the server must have stopped in time."""
    server = PolicyServer(begin, METADATA, **settings)
    ready, held = threading.Event(), {}

    async def serve() -> None:
        held["stop"], held["loop"] = asyncio.Event(), asyncio.get_running_loop()

        def listening(port: int) -> None:
            held["port"] = port
            ready.set()

        await server.run("127.0.0.1", 0, stop=held["stop"], listening=listening)

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    try:
        assert ready.wait(20)
        yield server, held["port"]
    finally:
        held["loop"].call_soon_threadsafe(held["stop"].set)
        thread.join(20)
        assert not thread.is_alive()


class Client:
    """A client as openpi's: it is greeted, asks, and takes text for an error."""

    def __init__(self, port: int, *, key: str | None = None) -> None:
        headers = {"Authorization": f"Api-Key {key}"} if key else None
        opening = connect(f"ws://127.0.0.1:{port}", compression=None, max_size=None, additional_headers=headers)
        self.socket: ClientConnection = opening.__enter__()
        self.metadata = unpack(self.socket.recv())

    def infer(self, message: dict[str, Any]) -> dict[str, Any]:
        return self.ask(pack(message))

    def ask(self, frame: bytes | str) -> dict[str, Any]:
        self.socket.send(frame)
        answer = self.socket.recv()
        if isinstance(answer, str):
            raise RuntimeError(answer)
        return unpack(answer)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *error: object) -> None:
        self.socket.close()


__all__ = ["KEYS", "METADATA", "Client", "Limits", "Mirror", "picture", "request", "running", "session"]
