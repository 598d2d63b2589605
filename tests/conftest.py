"""What every test relies on: one thread per process, a headless renderer, and the options of the command line."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # or each process that tests start compiles all modules anew
sys.dont_write_bytecode = False
if not os.environ.get("DISPLAY"):
    os.environ.setdefault("MUJOCO_GL", "egl")

PROBE = """
import mujoco
model = mujoco.MjModel.from_xml_string("<mujoco><worldbody><geom size='.1'/></worldbody></mujoco>")
renderer = mujoco.Renderer(model, 8, 8)
data = mujoco.MjData(model)
mujoco.mj_forward(model, data)
renderer.update_scene(data)
renderer.render()
renderer.close()
"""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--golden",
        action="append",
        default=[],
        metavar="DIR",
        help="also check the reference cases below DIR (may be given several times)",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Load PyTorch where tests run: the process that hands them out to others does not need it."""
    if config.getoption("dist", "no") != "no" and not hasattr(config, "workerinput"):
        return
    import absl.logging
    import torch
    import torch._dynamo  # before the first OpenGL context: the other order can crash the first optimiser

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    # dm_control brings absl, whose log handler would hold pytest's captured stream and close it when hydra logs
    absl.logging.get_absl_handler().python_handler.stream = sys.__stderr__


@pytest.fixture(scope="session")
def renderable() -> None:
    """Skip where nothing can be drawn; fail instead if REQUIRE_RENDER=1."""
    probe = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True, timeout=120)
    if probe.returncode == 0:
        return
    backend = os.environ.get("MUJOCO_GL", "the default backend")
    last_line = (probe.stderr.strip().splitlines() or [f"exit status {probe.returncode}"])[-1]
    reason = f"no image can be drawn with {backend} ({last_line}); on Debian: apt-get install libegl1 libgl1"
    if os.environ.get("REQUIRE_RENDER") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(autouse=True)
def _render_mark(request: pytest.FixtureRequest) -> None:
    """A test marked `render` asks for `renderable`."""
    if request.node.get_closest_marker("render"):
        request.getfixturevalue("renderable")
