"""Publishing that is killed before each of its steps, and readers beside writers."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import numpy as np
import torch
from PIL import Image

from jepa_mpc.checkpoint import load_checkpoint, save_checkpoint
from jepa_mpc.errors import Busy
from jepa_mpc.files import published, write_json
from jepa_mpc.reporting.video import VideoWriter, save_picture
from jepa_mpc.trajectories.formats import open_log
from jepa_mpc.trajectories.formats.npz_writer import write_npz
from jepa_mpc.trajectories.synthetic import synthetic_log

MOVES = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.chmod", "fcntl.flock")


def write_checkpoint(folder: Path, version: int) -> None:
    save_checkpoint(folder / "model", {"x": torch.full((64,), float(version))}, {"version": version})


def read_checkpoint(folder: Path) -> int:
    tensors, config = load_checkpoint(folder / "model")
    assert (tensors["x"] == config["version"]).all(), "a mixture"
    return int(config["version"])


def write_dataset(folder: Path, version: int) -> None:
    write_npz(open_log(folder.parent / f"source_{version}"), folder / "log")


def read_dataset(folder: Path) -> int:
    log = open_log(published(folder / "log"))
    rows = [log.read(index, 0, length, list(log.fields)) for index, length in enumerate(log.lengths)]
    assert all(len(row) for row in rows)
    return len(log.lengths)


def write_report(folder: Path, version: int) -> None:
    write_json(folder / "report.json", {"version": version, "rows": [version] * 500})
    save_picture(np.full((8, 8, 3), version, np.uint8), folder / "sheet.png")


def read_report(folder: Path) -> int:
    content = json.loads((folder / "report.json").read_text())
    assert content["rows"] == [content["version"]] * 500, "a mixture"
    assert int(np.asarray(Image.open(folder / "sheet.png"))[0, 0, 0]) in (1, 2)
    return int(content["version"])


def write_film(folder: Path, version: int) -> None:
    with VideoWriter(folder / "film.mp4", 10.0) as film:
        for _ in range(4 * version):
            film.write(np.full((16, 16, 3), 100 * version, np.uint8))


def read_film(folder: Path) -> int:
    count, _ = imageio_ffmpeg.count_frames_and_secs(str(folder / "film.mp4"))
    assert count in (4, 8), "a film that was cut short"
    return int(count) // 4


WHAT: dict[str, tuple[Callable[[Path, int], None], Callable[[Path], int]]] = {
    "checkpoint": (write_checkpoint, read_checkpoint),
    "dataset": (write_dataset, read_dataset),
    "report": (write_report, read_report),
    "film": (write_film, read_film),
}


def dies_at(step: int, folder: Path) -> None:
    """Kill this process before its file system call of that number; files are opened within a folder."""
    left, within = step, str(folder)

    def hook(event: str, given: tuple[Any, ...]) -> None:
        nonlocal left
        if event not in MOVES and not (event == "open" and within in str(given[0])):
            return
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1

    sys.addaudithook(hook)


def killed(folder: Path, what: str) -> int:
    """Kill a writer before each step and read after each kill; returns the number of kills."""
    write, read = WHAT[what]
    for version in (1, 2):
        synthetic_log(folder / f"source_{version}", episodes=version)
    place = folder / "place"
    place.mkdir()
    write(place, 1)
    now, seen = 1, set()
    for step in range(10_000):
        number = os.fork()
        if number == 0:
            dies_at(step, place)
            write(place, 3 - now)
            os._exit(0)
        status = os.waitpid(number, 0)[1]
        now = read(place)
        seen.add(now)
        if os.WIFEXITED(status):
            assert os.WEXITSTATUS(status) == 0
            break
    assert seen == {1, 2}, "neither old nor new"
    write(place, 1)
    litter = sorted(entry.name for entry in place.iterdir() if entry.name.startswith("."))
    assert not litter, litter
    return step


def raced(folder: Path, reads: int, *, size: int = 100_000) -> None:
    """Two writers and a reader of one checkpoint, until the reader has read so many times."""
    place = folder / "model"
    save_checkpoint(place, {"x": torch.zeros(size)}, {"version": 0})
    numbers = [_start(lambda version=version: _publish_on(place, version, size)) for version in (1, 2)]
    try:
        seen = {read_checkpoint(folder) for _ in range(reads)}
        patience = time.monotonic() + 60  # a machine that is busy may not have let both writers come yet
        while not {1, 2} <= seen and time.monotonic() < patience:
            seen.add(read_checkpoint(folder))
    finally:
        (folder / "stop").touch()
        ended = [os.WEXITSTATUS(os.waitpid(number, 0)[1]) for number in numbers]
    assert ended == [0, 0], "a writer failed with something else than Busy"
    assert {1, 2} <= seen
    read_checkpoint(folder)
    save_checkpoint(place, {"x": torch.zeros(1)}, {})
    assert sorted(entry.name for entry in folder.iterdir()) == ["model", "stop"]


def _start(work: Callable[[], None]) -> int:
    number = os.fork()
    if number == 0:
        try:
            work()
        except BaseException as error:  # noqa: BLE001  the parent sees the exit status alone
            os.write(2, f"{type(error).__name__}: {error}\n".encode())
            os._exit(3)
        os._exit(0)
    return number


def _publish_on(place: Path, version: int, size: int) -> None:
    while not (place.parent / "stop").exists():
        try:
            save_checkpoint(place, {"x": torch.full((size,), float(version))}, {"version": version})
        except Busy:
            time.sleep(0.001)
