"""openpi's own client drives the arm: OPENPI_PYTHON names an interpreter that has openpi-client.

python3 -m venv openpi && openpi/bin/pip install --no-deps openpi-client==0.1.2
openpi/bin/pip install msgpack websockets numpy dm-tree typing-extensions pillow
OPENPI_PYTHON=openpi/bin/python pytest tests/compat/test_openpi.py -m slow
"""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jepa_mpc import envs

ROOT = Path(__file__).resolve().parents[2]
KEY = "tests-only"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.render,
    pytest.mark.skipif("OPENPI_PYTHON" not in os.environ, reason="OPENPI_PYTHON names no interpreter"),
]


def told(process: subprocess.Popen[str]) -> dict[str, Any]:
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, process.wait(10)
    return json.loads(line)


def sent(process: subprocess.Popen[str], entries: dict[str, Any]) -> dict[str, Any]:
    assert process.stdin is not None
    process.stdin.write(json.dumps({key: _plain(value) for key, value in entries.items()}) + "\n")
    process.stdin.flush()
    return told(process)


def _plain(value: Any) -> Any:
    if not isinstance(value, np.ndarray):
        return value
    return {"data": base64.b64encode(value.tobytes()).decode(), "dtype": value.dtype.str, "shape": value.shape}


@pytest.fixture
def port():
    """The command itself, on a free port; it must stop by itself when asked."""
    command = [sys.executable, "experiments/serve.py", "port=0"]
    environment = {**os.environ, "JEPA_MPC_API_KEY": KEY, "OMP_NUM_THREADS": "1"}
    server = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    line = server.stdout.readline()
    assert line.startswith("serving on ws://127.0.0.1:"), line
    yield int(line.rpartition(":")[2])
    server.send_signal(signal.SIGTERM)
    rest, _ = server.communicate(timeout=30)
    assert server.returncode == 0 and "stopped after" in rest, rest


def test_openpis_client_brings_the_arm_to_the_goal(port):
    client = subprocess.Popen(
        [os.environ["OPENPI_PYTHON"], Path(__file__).with_name("openpi_episode.py"), str(port), KEY],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    metadata = told(client)
    assert metadata["protocol"] == 1 and metadata["cameras"] == ["left", "right"] and not metadata["has_goal"]
    env = envs.make("reach-v1", image_size=metadata["image_size"], split="look")
    observation, _ = env.reset(seed=3)
    began_m = env.distance_m()
    goals = dict(zip(metadata["keys"]["goals"], pictures(observation["goal"]), strict=True))
    more: dict[str, Any] = {**goals, "episode/start": True}
    for _ in range(env.budget):
        seen = dict(zip(metadata["keys"]["images"], pictures(observation["frames"]), strict=True))
        answer = sent(client, {**seen, **more, "observation/time_s": time.monotonic()})
        assert "actions" in answer, answer
        observation, *_ = env.step(np.array(answer["actions"][0], np.float32))
        more = {"plan/deadline_ms": 5000.0}
    assert env.success() and env.distance_m() < 0.05 < began_m
    assert answer["timing"]["prev_total_ms"] > 0
    assert "lacks the image" in sent(client, {"prompt": "go"})["error"]
    client.communicate(timeout=20)
    env.close()


def pictures(frames: np.ndarray) -> list[np.ndarray]:
    """Stacked frames `(3 per camera, h, w)` as pictures `(h, w, 3)`."""
    return [np.ascontiguousarray(part.transpose(1, 2, 0)) for part in np.split(frames, len(frames) // 3)]
