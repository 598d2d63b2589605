"""Puts the root of the checkout on the import path, so that a fresh clone runs uninstalled: `import _path` first."""

from __future__ import annotations

import sys
from pathlib import Path

if sys.version_info < (3, 11):  # noqa: UP036  a checkout may be run with any Python
    sys.exit(f"this needs Python 3.11 or newer, {sys.executable} is {sys.version.split()[0]}")
ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))
