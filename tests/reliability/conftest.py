"""Python puts a script's folder on the path, where scripts find `_path`; tests that import them need the same."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2] / "experiments"))
