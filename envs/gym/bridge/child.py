"""The child of a bridge: makes an environment and serves requests, in a Python that need not have this package.

    python child.py SOCKET MEMORY

Both are file descriptors inherited from the parent. Needs gymnasium 1.x and numpy, and ends with the parent.
"""

from __future__ import annotations

import importlib.util
import mmap
import os
import select
import socket
import sys
import threading
from pathlib import Path
from types import ModuleType
from typing import Any

HERE = Path(__file__).resolve().parent
LONGEST_LIST = 64
"""Maximum length of an `info` entry that is passed on."""


def beside(path: Path) -> ModuleType:
    """Load a file of the parent's package as a module, without the package."""
    spec = importlib.util.spec_from_file_location(f"bridge_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


wire: Any = beside(HERE / "wire.py")


class Served:
    """An environment and its shared memory.

    Args:
        told: Id and settings of the environment.
        memory: File descriptor of the shared memory.
    """

    def __init__(self, told: dict[str, Any], memory: int) -> None:
        import gymnasium
        import numpy

        self.numpy, self.gymnasium = numpy, gymnasium
        env: Any = gymnasium.make(told["id"], **told["settings"])
        self.spec = env.spec
        wrappers = gymnasium.wrappers
        while isinstance(env, (wrappers.TimeLimit, wrappers.OrderEnforcing, wrappers.PassiveEnvChecker)):
            env = env.env
        first = env.reset(seed=0)[0]  # some build their simulator at the first reset
        self.states = states = beside(HERE.parent / "states.py")
        self.keeping: Any = states.states_of(env, whole=True)
        first = self._row(first)
        if not told.get("shadows", True):
            states.unshadow(env)
        if told.get("viewpoint"):
            states.aim(env, told["viewpoint"])
        picture = self._picture() if told["settings"].get("render_mode") == "rgb_array" else None
        shape = (0, 0, 0) if picture is None else picture.shape
        actions = int(numpy.prod(getattr(env.action_space, "shape", None) or (0,)))
        self.layout = wire.Layout(actions, len(first), len(self.keeping.take(0)), shape)
        *starts, drawn, end = self.layout.starts
        os.ftruncate(memory, max(end, 1))
        view = memoryview(mmap.mmap(memory, max(end, 1)))
        self.action, self.observation, self.state, plan, outcome = (
            numpy.frombuffer(view[begin:stop], numpy.float64)
            for begin, stop in zip(starts, [*starts[1:], drawn], strict=True)
        )
        self.plan, self.outcome = plan.reshape(wire.PLAN, -1), outcome.reshape(wire.PLAN, -1)
        self.picture = numpy.frombuffer(view[drawn:end], numpy.uint8).reshape(shape)
        self.observation[:] = first

    @property
    def env(self) -> Any:
        """The current environment."""
        return self.keeping.env

    def facts(self) -> dict[str, Any]:
        """Facts about it for the parent."""
        space, inner = self.env.action_space, self.env.unwrapped
        box = isinstance(space, self.gymnasium.spaces.Box)
        seconds = getattr(inner, "dt", None) or 1 / (inner.metadata.get("render_fps") or 1)
        return {
            "version": wire.VERSION,
            "layout": self.layout.to_dict(),
            "id": self.spec.id,
            "budget": self.spec.max_episode_steps,
            "actions": {"low": space.low.tolist(), "high": space.high.tolist()} if box else str(space),
            "dt_s": float(seconds),
        }

    def answer(self, kind: int, asked: dict[str, Any]) -> dict[str, Any]:
        """Serve a request; arrays are left in the shared memory."""
        if kind == wire.STEP:
            row, reward, ended, info = self._step(self.action)
            self.observation[:] = row
            return {"reward": reward, "ended": ended, "info": plain(info)}
        if kind == wire.PLAY:
            self._play(asked["steps"], asked["repeat"])
        elif kind == wire.RENDER:
            self.picture[:] = self._picture()
        elif kind == wire.RESET:
            seen, info = self.states.seeded_reset(self.env, seed=asked["seed"], options=asked["options"])
            self.observation[:] = self._row(seen)
            goal = self.numpy.asarray(info.get(wire.RENDERED_GOAL))
            if shows := self.picture.size > 0 and goal.shape == self.picture.shape:
                self.picture[:] = goal
            return {"info": plain(info), wire.RENDERED_GOAL: bool(shows)}
        elif kind == wire.TAKE:
            self.state[:] = self.keeping.take(asked["steps"])
        elif kind == wire.PUT:
            try:
                return {"steps": self.keeping.put(self.state.copy())}
            except ValueError as error:
                return {"refused": str(error)}
        else:
            raise ValueError(f"unknown request {kind}")
        return {}

    def _step(self, action: Any) -> tuple[Any, float, bool, dict[str, Any]]:
        """Carry out one action: the observation as a row, the reward, whether the episode ended, and the info."""
        space = self.env.action_space
        seen, reward, ended, _, info = self.env.step(action.reshape(space.shape).astype(space.dtype))
        return self._row(seen), float(reward), bool(ended), info

    def _play(self, steps: int, repeat: int) -> None:
        """Carry out the first actions of the plan, each `repeat` times; nothing moves after the end of the episode."""
        row, ended = None, False
        for action, outcome in zip(self.plan[:steps], self.outcome[:steps], strict=True):
            total = 0.0
            for _ in range(repeat):
                if ended:
                    break
                row, reward, ended, _ = self._step(action)
                total += reward
            outcome[:-2], outcome[-2:] = row, (total, ended)

    def _row(self, seen: Any) -> Any:
        """An observation as one row; images are excluded."""
        space = self.env.observation_space
        if isinstance(space, self.gymnasium.spaces.Box):
            return self.numpy.zeros(0) if len(space.shape) == 3 else self.numpy.array(seen, dtype="f8").ravel()
        return self.numpy.asarray(self.gymnasium.spaces.flatten(space, seen), dtype="f8")

    def _picture(self) -> Any:
        return self.numpy.ascontiguousarray(self.env.render(), dtype=self.numpy.uint8)


def plain(info: Any) -> dict[str, Any]:
    """Entries of an environment's info that are numbers, strings, or short lists of numbers."""
    told = {}
    for name, value in info.items():
        value = value.tolist() if hasattr(value, "tolist") and getattr(value, "size", 1) <= LONGEST_LIST else value
        short = isinstance(value, list) and all(isinstance(one, (bool, int, float)) for one in value)
        if value is None or isinstance(value, (bool, int, float)) or short or isinstance(value, str):
            told[str(name)] = value[:LONGEST_LIST] if isinstance(value, (str, list)) else value
    return told


def serve(line: socket.socket, memory: int) -> None:
    """Serve requests until the parent is gone; errors are reported to it."""
    served: Served | None = None
    while True:
        try:
            kind, asked = wire.receive(line)
        except EOFError:
            return
        if kind == wire.END:
            return
        try:
            if served is None:
                served = Served(asked, memory)
                told = served.facts()
            else:
                told = served.answer(kind, asked)
        except BaseException as error:
            words = " ".join(str(error).split())[:1000]
            wire.send(line, wire.FAULT, {"kind": type(error).__name__, "words": words, "versions": versions()})
            raise
        wire.send(line, wire.DONE, told)


def leave_with(line: socket.socket) -> None:
    """End this process when the other end of the line is closed, whatever the environment is doing."""
    watched = select.poll()
    watched.register(line, 0)  # only hang-up events
    watched.poll()
    os._exit(1)


def versions() -> dict[str, str]:
    """Versions of Python and of the relevant packages."""
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": sys.version.split()[0]}
    for name in ("gymnasium", "mujoco", "numpy"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


if __name__ == "__main__":
    sys.path.pop(0)  # this folder, whose files must not shadow the environment's modules
    parent = socket.socket(fileno=int(sys.argv[1]))
    threading.Thread(target=leave_with, args=(parent,), daemon=True).start()
    serve(parent, int(sys.argv[2]))
    os._exit(0)  # remaining threads of the environment must not block the exit
