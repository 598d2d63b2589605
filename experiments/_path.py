"""Puts the root of the checkout on the import path, so that a fresh clone runs uninstalled: `import _path` first."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))
