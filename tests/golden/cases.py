"""Reference cases: one NAME.json (with its `kind`) and, mostly, one NAME.safetensors."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

OUTPUT = (2e-5, 1e-4)
GRADIENT = (2e-5, 1e-3)


@dataclass
class Case:
    """A reference case, and the deviations found so far."""

    path: Path
    meta: dict[str, Any]
    misses: list[str] = field(default_factory=list)
    checked: set[str] = field(default_factory=set)

    @property
    def kind(self) -> str:
        return str(self.meta.get("kind"))

    def load(self) -> None:
        file = self.path.with_suffix(".safetensors")
        self.tensors: dict[str, Tensor] = load_file(file) if file.exists() else {}

    def under(self, prefix: str) -> dict[str, Tensor]:
        return {key.removeprefix(prefix): value for key, value in self.tensors.items() if key.startswith(prefix)}

    def check(self, name: str, actual: Tensor, tolerance: tuple[float, float] = OUTPUT) -> None:
        """Compare with the tensor `name` (shapes up to axes of size one).

        A compact case keeps the first sample alone of the outputs that `first_samples` lists.
        """
        self.checked.add(name)
        if name in self.meta.get("first_samples", ()):
            actual = actual[:1]
        self.compare(name, actual, self.tensors[name], tolerance)

    def compare(
        self, name: str, actual: Tensor, expected: Tensor | float, tolerance: tuple[float, float] = OUTPUT
    ) -> None:
        own = self.meta.get("tolerance", {})
        absolute, relative = max(tolerance[0], own.get("atol", 0)), max(tolerance[1], own.get("rtol", 0))
        expected = torch.as_tensor(expected, dtype=torch.float64).squeeze()
        actual = actual.detach().to(torch.float64).squeeze()
        if actual.shape != expected.shape:
            self.misses.append(f"{name}: shape {tuple(actual.shape)}, expected {tuple(expected.shape)}")
            return
        excess = (actual - expected).abs() - absolute - relative * expected.abs()
        if not bool((excess <= 0).all()):
            gap = (actual - expected).abs().max().item()
            self.misses.append(f"{name}: off by {gap:.3g} where values reach {expected.abs().max().item():.3g}")

    def finish(self) -> None:
        """Every output of the reference was looked at, and every one agrees."""
        forgotten = {key for key in self.tensors if key.startswith(("out.", "grad."))} - self.checked
        assert not forgotten, f"outputs of {self.path.stem} that nothing was compared with: {sorted(forgotten)}"
        assert not self.misses, f"{self.path.stem}: " + "; ".join(self.misses)


def find_cases(folders: Iterable[str | Path]) -> list[Case]:
    """All cases below the folders; a JSON file without a `kind` is none."""
    cases = []
    for folder in folders:
        if not Path(folder).is_dir():
            raise FileNotFoundError(f"no folder of reference cases at {folder}")
        for path in sorted(Path(folder).rglob("*.json")):
            meta = json.loads(path.read_text())
            if isinstance(meta, dict) and "kind" in meta:
                cases.append(Case(path, meta))
    return cases
