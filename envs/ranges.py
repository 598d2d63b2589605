"""Ranges of all quantities that vary between labs, in four levels.

A continuous quantity has a union of intervals per level; a discrete one has a tuple of choices. Training logs draw
every quantity from "train"; "validation" lies just beside it; "held" is for scores; "dev" is as far out as "held" but
disjoint from it, for comparing agents during development. Intervals of different levels do not overlap, except that the
azimuth of "dev" shares that of "validation", since all values between 0 and 85 degrees are used.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

Level = Literal["train", "validation", "held", "dev"]
Interval = tuple[float, float]

FACTORS = ("camera", "light", "texture", "colour", "clutter", "base", "table", "image", "dynamics")


@dataclass(frozen=True)
class Span:
    """A continuous quantity: the intervals of each level; `signed` draws a random sign."""

    train: tuple[Interval, ...]
    validation: tuple[Interval, ...]
    held: tuple[Interval, ...]
    dev: tuple[Interval, ...]
    unit: str = ""
    signed: bool = False

    def draw(self, rng: np.random.Generator, level: Level) -> float:
        """A value, uniform over the union of the level's intervals."""
        intervals: tuple[Interval, ...] = getattr(self, level)
        widths = np.array([high - low for low, high in intervals])
        share = widths / widths.sum() if widths.sum() > 0 else np.full(len(widths), 1 / len(widths))
        low, high = intervals[int(rng.choice(len(intervals), p=share))]
        value = float(rng.uniform(low, high))
        return -value if self.signed and rng.random() < 0.5 else value


@dataclass(frozen=True)
class Choice:
    """A discrete quantity: the values of each level."""

    train: tuple[Any, ...]
    validation: tuple[Any, ...]
    held: tuple[Any, ...]
    dev: tuple[Any, ...]

    def draw(self, rng: np.random.Generator, level: Level) -> Any:
        """One of the level's values."""
        values = getattr(self, level)
        return values[int(rng.integers(len(values)))]


Table = dict[str, Span | Choice]

# Azimuth 0 faces the robot; the right camera has the negative angles.
CAMERA: Table = {
    "azimuth": Span(((30, 60),), ((25, 30), (60, 65)), ((0, 25), (65, 85)), ((25, 30), (60, 65)), "deg"),
    "elevation": Span(((25, 40),), ((22, 25), (40, 43)), ((15, 22), (43, 55)), ((10, 15),), "deg"),
    "distance": Span(
        ((1.0, 1.4),), ((0.95, 1.0), (1.4, 1.5)), ((0.85, 0.95), (1.5, 1.8)), ((0.78, 0.85), (1.8, 2.0)), "m"
    ),
    "roll": Span(((0, 2),), ((2, 3),), ((3, 6),), ((6, 8),), "deg", signed=True),
    "look_at": Span(((0, 0.03),), ((0.03, 0.04),), ((0.04, 0.08),), ((0.08, 0.10),), "m", signed=True),
    "fovy": Span(((45, 55),), ((42, 45), (55, 60)), ((38, 42), (60, 68)), ((35, 38), (68, 72)), "deg"),
}
LIGHT: Table = {
    "count": Choice((2, 3), (2, 3), (1, 4), (2, 3)),
    "elevation": Span(((45, 90),), ((40, 45),), ((15, 40),), ((10, 15),), "deg"),
    "intensity": Span(
        ((0.5, 0.9),),
        ((0.45, 0.5), (0.9, 1.0)),
        ((0.2, 0.4), (1.0, 1.3)),
        ((0.4, 0.45), (1.3, 1.5)),
        "diffuse, of all lights",
    ),
    "tint": Span(((0, 0.05),), ((0.05, 0.08),), ((0.08, 0.20),), ((0.20, 0.25),), "of 1, per channel", signed=True),
}
TEXTURE: Table = {
    "seed": Choice(tuple(range(60)), tuple(range(60, 80)), tuple(range(80, 110)), tuple(range(110, 140))),
    "family": Choice(
        ("plain", "noise", "checker", "stripes"),
        ("plain", "noise", "checker", "stripes"),
        ("plain", "noise", "checker", "stripes", "marble", "gradient", "marble", "gradient"),
        ("plain", "noise", "checker", "stripes"),
    ),
    "hue": Span(((0.0, 0.62),), ((0.62, 0.70),), ((0.72, 0.98),), ((0.70, 0.72), (0.98, 1.0)), "of the colour circle"),
}
COLOUR: Table = {
    "grey": Span(
        ((0, 0.10),), ((0.10, 0.13),), ((0.13, 0.30),), ((0.30, 0.36),), "of the nominal brightness", signed=True
    ),
    "tint": Choice((None,), (None,), (None, (0.55, 0.75, 1.0)), (None,)),
}
CLUTTER: Table = {
    "count": Choice((0, 1, 2), (3,), (4, 5, 6), (3,)),
    "shape": Choice(
        ("box", "cylinder", "sphere"),
        ("box", "cylinder", "sphere"),
        ("box", "cylinder", "sphere", "capsule", "ellipsoid", "mesh"),
        ("box", "cylinder", "sphere"),
    ),
    "hue": Span(((0.0, 0.62),), ((0.62, 0.70),), ((0.72, 0.98),), ((0.70, 0.72), (0.98, 1.0)), "of the colour circle"),
    "drift": Choice((0.0,), (0.0,), (0.0, 0.03), (0.0,)),  # m/s, of one object
}
BASE: Table = {
    "shift": Span(((0, 0.05),), ((0.05, 0.10),), ((0.10, 0.20),), ((0.20, 0.23),), "m, on each axis", signed=True),
    "yaw": Span(((0, 5),), ((5, 10),), ((10, 25),), ((25, 30),), "deg", signed=True),
}
TABLE: Table = {"height": Span(((0, 0.02),), ((0.02, 0.05),), ((0.05, 0.08),), ((0.08, 0.10),), "m", signed=True)}
IMAGE: Table = {
    "noise": Span(((0, 4),), ((4, 5),), ((5, 12),), ((12, 15),), "of 255"),
    "blur": Span(((0, 0),), ((0, 0),), ((0, 1),), ((1, 1.5),), "px at 128 px"),
    "jpeg": Choice((95,), (85, 90), tuple(range(50, 81)), tuple(range(35, 50))),
    "gain": Span(
        ((0.95, 1.05),),
        ((0.90, 0.95), (1.05, 1.10)),
        ((0.80, 0.90), (1.10, 1.25)),
        ((0.72, 0.80), (1.25, 1.40)),
        "of 1",
    ),
    "latency": Choice((0,), (0,), (1,), (0,)),  # frames
}
DYNAMICS: Table = {
    "damping": Span(((0, 0.10),), ((0.10, 0.15),), ((0.15, 0.30),), ((0.30, 0.36),), "of nominal", signed=True),
    "friction": Span(((0, 0.10),), ((0.10, 0.15),), ((0.15, 0.30),), ((0.30, 0.36),), "of nominal", signed=True),
    "servo": Span(((0, 0.10),), ((0.10, 0.15),), ((0.15, 0.30),), ((0.30, 0.36),), "of nominal", signed=True),
    "payload": Span(((0, 0),), ((0, 0.1),), ((0.1, 0.5),), ((0.5, 0.7),), "kg"),
}
RANGES: dict[str, Table] = dict(
    zip(FACTORS, (CAMERA, LIGHT, TEXTURE, COLOUR, CLUTTER, BASE, TABLE, IMAGE, DYNAMICS), strict=True)
)
