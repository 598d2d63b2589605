"""The LeRobot distributions in `integrations/`: without LeRobot they say what they need, with it their tests pass.

Wants LEROBOT_PYTHON, the Python of an environment that `integrations/make_lerobot_env.sh` made.
"""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
INTEGRATIONS = ROOT / "integrations"
NAMES = ("lerobot_policy_jepampc", "lerobot_env_jepampc")
PYTHON = os.environ.get("LEROBOT_PYTHON")


@pytest.mark.parametrize("name", NAMES)
def test_without_lerobot_the_package_says_what_it_needs(name, monkeypatch):
    monkeypatch.syspath_prepend(str(INTEGRATIONS / name / "src"))
    monkeypatch.setitem(sys.modules, "lerobot", None)
    with monkeypatch.context() as older, pytest.raises(ImportError, match=f"{name} needs Python >= 3.12"):
        older.setattr(sys, "version_info", (3, 11, 7))
        importlib.import_module(name)
    with monkeypatch.context() as newer, pytest.raises(ImportError, match=f"{name} needs LeRobot: pip install"):
        newer.setattr(sys, "version_info", (3, 12, 1))
        importlib.import_module(name)


def test_the_environment_is_not_made_with_an_older_python(tmp_path):
    older = tmp_path / "python3.11"
    older.write_text("#!/bin/sh\nexit 1\n")
    older.chmod(0o755)
    done = subprocess.run(
        ["bash", str(INTEGRATIONS / "make_lerobot_env.sh"), str(tmp_path / "env")],
        env={**os.environ, "PYTHON": str(older)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 1 and "LeRobot needs Python >= 3.12" in done.stderr
    assert not (tmp_path / "env").exists()


@pytest.mark.slow
@pytest.mark.render
@pytest.mark.skipif(PYTHON is None, reason="LEROBOT_PYTHON names no Python with lerobot: see docs/lerobot.md")
@pytest.mark.parametrize("name", NAMES)
def test_within_lerobot_its_own_tests_pass(name):
    done = subprocess.run(
        [str(PYTHON), "-m", "pytest", "-q", "-o", "addopts=--import-mode=importlib", str(INTEGRATIONS / name)],
        cwd=ROOT, capture_output=True, text=True, timeout=900,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
