"""The command lines of README and docs as a short session: every one in settings that end in seconds."""

from __future__ import annotations

import re
import shutil
import wave
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from jepa_mpc.places import CHECKPOINTS
from tests.docs_blocks import shell_lines

SHRUNKEN: dict[str, list[str]] = {
    "collect": ["labs=4", "episodes=1", "steps=30", "workers=1"],
    "train": ["fit.steps=2", "fit.log_every=1", "batch=2", "probe=8", "watch.frames=8", "validation=0.25"],
    "zero_shot_reach": ["labs=1", "episodes=1", "budget=1", "baselines=false", "films=false", "factors=false"],
    "evaluate": ["episodes=1", "films=0", "methods=[world model,random]"],
    "probe": ["train=24", "held=12", "seeds=[0]", "readers=[linear]", "validation=0.25"],
    "energy_landscape": ["labs=1", "points=3"],
    "publish": [],
    "inspect_logs": [],
    "convert": [],
    "ingest": ["workers=1"],
    "features": [],
    "train_policy": ["episodes=4", "validation=0.25", "fit.steps=2", "fit.evaluate_every=1", "policy.hidden=16"],
    "train_critic": ["episodes=4", "fit.steps=2", "fit.log_every=1", "batch=8", "hidden=16"],
    "workflow": ["dry=true"],
    "zero_shot_pick": ["labs=1", "episodes=1", "budget=1", "baselines=false", "films=false", "workers=1"],
}
"""Script -> options that come last and make it short."""

EXCEPTIONS: dict[str, str] = {
    r"\bbench_\w+": "benchmarks run in tests/experiments in small settings; here their options are checked",
    r"\bagent_ablations\b": "minutes each; its parts run in tests/experiments/test_agent_ablations.py",
    r"\bimport_weights\b": "needs released weights",
    r"\brender_masks\b": "pictures are drawn in tests/experiments/test_render_masks.py",
    r"\brender_rollouts\b": "films run in tests/experiments in small settings; here their options are checked",
    r"\bserve\b": "runs until it is stopped; tests/compat/test_openpi.py runs it",
    r"device=cuda|torchrun": "needs a GPU, or several",
    r"vjepa2-ac-vitg\.pt|hub=|runs/(lewm|vjepa2_ac)\b": "needs released weights",
    r"hf://": "needs an account of the Hugging Face Hub",
    r"system=lejepa fit=lejepa": "a network of 22 million weights at 128 px: minutes on a CPU",
}
"""What is not run, and why."""

INPUTS = ("data", "path", "source", "checkpoint", "pretrained", "run", "agent.points")
PRODUCED = ("out", "to")
STANDS_IN = {"runs/flow/seed_0/checkpoint": "runs/mc_jepa/checkpoint"}
"""What an exception would have written -> what has the same form."""


def session() -> list[tuple[str, list[str]]]:
    """Scripts and options, each after those whose output it reads."""
    waiting: list[tuple[str, list[str]]] = []
    for line in shell_lines():
        for script, words in line.commands():
            entry = (script, [re.sub(r"=\[S\]|=S\b|_sS\b", lambda m: m[0].replace("S", "0"), word) for word in words])
            if entry not in waiting and not any(re.search(rule, f"{line.text} {script}") for rule in EXCEPTIONS):
                waiting.append(entry)
    return list(_in_order(waiting))


def _in_order(waiting: list[tuple[str, list[str]]]) -> Iterator[tuple[str, list[str]]]:
    while waiting:
        for entry in waiting:
            others = {place for other in waiting if other is not entry for place in _values(other[1], PRODUCED)}
            needed = {STANDS_IN.get(place, place) for place in _values(entry[1], INPUTS)}
            if not any(place.startswith(other) for place in needed for other in others):
                break
        else:
            entry = waiting[0]
        waiting.remove(entry)
        yield entry


def _values(words: Sequence[str], names: Sequence[str]) -> list[str]:
    found = [word.split("=", 1) for word in words if "=" in word]
    return [value for name, value in found if name in names and "/" in value]


def shrunken(script: str, words: Sequence[str], number: int) -> list[str]:
    """The options of a command with those that make it short, and a place of its own where none is named."""
    place = [] if script in ("publish", "convert", "features") or _named(words) else [f"out=runs/{script}_{number}"]
    own = ["split=look"] if script == "zero_shot_reach" else []
    if script == "collect" and any(word.startswith("task=gym:") for word in words):
        own = ["episodes=40"]  # they may end after a few steps
    return [*words, *(word for word in place if script not in ("collect", "ingest")), *SHRUNKEN[script], *own]


def _named(words: Sequence[str]) -> bool:
    return any(word.startswith("out=") for word in words)


def furnish(folder: Path) -> None:
    """What the commands find in the directory: shipped checkpoints, and folders of a user's own files."""
    shutil.copytree(CHECKPOINTS, folder / "experiments" / "checkpoints")
    draws = np.random.default_rng(0)
    (folder / "CLOUDS").mkdir()
    for number in range(8):
        np.save(folder / "CLOUDS" / f"{number}.npy", draws.standard_normal((1100, 3)).astype(np.float32))
    (folder / "FOLDER").mkdir()
    (folder / "SOUNDS").mkdir()
    for number in range(4):
        with wave.open(str(folder / "SOUNDS" / f"{number}.wav"), "wb") as file:
            file.setnchannels(1), file.setsampwidth(2), file.setframerate(16_000)
            file.writeframes(draws.integers(-9000, 9000, 32_000).astype("<i2").tobytes())
    import imageio.v2 as imageio

    for number in range(4):
        frames = draws.integers(0, 255, (40, 64, 64, 3), dtype=np.uint8)
        imageio.mimwrite(folder / "FOLDER" / f"{number}.mp4", list(frames), fps=8, macro_block_size=1)
    (folder / "arm.yaml").write_text("hz: 4.1666667\n")
