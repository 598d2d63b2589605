"""The real LeRobot opens, merges, edits and goes on with logs of ours, and we read what it leaves.

Wants LEROBOT_PYTHON, the Python of an environment with `lerobot[dataset]`; docs/logs.md says how to make one.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from jepa_mpc.trajectories.episode import ACTION, DEPTH, STATE
from jepa_mpc.trajectories.formats import open_log
from jepa_mpc.trajectories.formats.lerobot_writer import write_lerobot
from tests.trajectories.memory_log import AXES, MemoryLog

PYTHON = os.environ.get("LEROBOT_PYTHON")
TOOLS = Path(__file__).with_name("lerobot_tools.py")
FIRST = [["open"] * 6, ["open"] * 4 + ["close"] * 3]
SECOND = [["close"] * 5, ["lift"] * 4]
ADDED = ["lift"] * 3 + ["wave"] * 3
FRAMES_MM = {"image": 1e-3, "h264": 2.5}  # the largest step between two codes below 10 m is 2.2 mm
NOT_SEEN_MM = 10.0  # what LeRobot reads from films where nothing was measured

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(PYTHON is None, reason="LEROBOT_PYTHON names no Python with lerobot: see docs/logs.md"),
]


@pytest.fixture(scope="module", params=FRAMES_MM)
def seen(request, tmp_path_factory):
    """What LeRobot said, where it left its logs, and how exact depth must be."""
    place = tmp_path_factory.mktemp(request.param)
    for name, steps in (("first", FIRST), ("second", SECOND)):
        write_lerobot(MemoryLog(steps, seed=len(name)), place / name, frames=request.param)
    done = subprocess.run(
        [str(PYTHON), str(TOOLS), *(str(place / name) for name in ("first", "second", "."))],
        capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1]), place, FRAMES_MM[request.param]


def flat(episodes):
    return [text for episode in episodes for text in episode]


EDITED = [["shut"] * 6, ["look"] * 7]
WANTED = {
    "first": FIRST, "second": SECOND, "merged": FIRST + SECOND, "deleted": FIRST[1:], "edited": EDITED,
    "resumed": [*SECOND, ADDED],
}  # fmt: skip


@pytest.mark.parametrize("name", WANTED)
def test_every_frame_has_its_task(seen, name):
    assert seen[0][name] == flat(WANTED[name])


@pytest.mark.parametrize("name", WANTED)
def test_what_lerobot_leaves_is_read_with_its_tasks(seen, name):
    folder = seen[1] / name
    (folder / "checksums.json").unlink(missing_ok=True)  # the change was meant
    log = open_log(folder)
    assert [log.metadata(i)["tasks"] for i in range(len(log))] == [list(dict.fromkeys(t)) for t in WANTED[name]]
    assert list(log.lengths) == [len(texts) for texts in WANTED[name]] and not log.remarks


def test_nothing_in_the_log_makes_lerobot_warn(seen):
    assert seen[0]["warnings"] == []


def test_names_of_axes_are_kept(seen):
    assert {name: seen[0]["features"][name] for name in (STATE, ACTION)} == AXES


def test_depth_is_read_by_lerobot(seen):
    found, _, exact_mm = seen
    wanted = 1000 * MemoryLog(FIRST, seed=len("first")).episodes[0][DEPTH + "top"][3]
    gap = np.abs(np.array(found["depth_mm"]) - wanted)
    assert gap[wanted > NOT_SEEN_MM].max() <= exact_mm
    assert gap[wanted == 0].max() <= (NOT_SEEN_MM if exact_mm > 1 else 0.0)


def test_depth_that_lerobot_adds_is_what_it_was(seen):
    found, place, exact_mm = seen
    assert np.abs(np.array(found["resumed_depth_mm"]) - 1500).max() <= exact_mm
    (place / "resumed/checksums.json").unlink(missing_ok=True)
    ours = open_log(place / "resumed").read(2, 0, 6, [DEPTH + "top"])[DEPTH + "top"]
    assert np.abs(1000 * ours - 1500).max() <= exact_mm
