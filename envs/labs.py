"""Labs: a seeded generator of environments for a robot.

A lab is a record of numbers; envs/scene.py builds it. Splits define which factors are outside the training range: none
in `train` (the logs) and `in` (other labs of the same ranges), the appearance in `look`, every factor in `all`, and a
single factor in the split of its name. Factors draw from independent streams, so lab 7 of `in` and lab 7 of `camera`
differ only in their cameras.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from jepa_mpc.envs.ranges import FACTORS, RANGES, Level
from jepa_mpc.errors import UnknownName
from jepa_mpc.seeding import numpy_generator

LOOK = ("light", "texture", "colour", "clutter")
SPLITS: dict[str, tuple[str, ...]] = {
    "train": (),
    "in": (),
    "look": LOOK,
    "all": FACTORS,
    **{factor: (factor,) for factor in FACTORS},
}
SIDES = {"left": 1.0, "right": -1.0}
SURFACES = ("floor", "wall", "table")
WORKSPACE_LOW = (0.30, -0.30, 0.05)
WORKSPACE_HIGH = (0.65, 0.30, 0.50)


@dataclass(frozen=True, kw_only=True)
class CameraPose:
    """A camera around the workspace centre: angles in degrees, lengths in metres."""

    azimuth_deg: float
    elevation_deg: float
    distance_m: float
    roll_deg: float
    look_at_offset_m: tuple[float, float, float]
    fovy_deg: float


@dataclass(frozen=True, kw_only=True)
class Lamp:
    """A directional light from azimuth and elevation (degrees), with its diffuse colour."""

    azimuth_deg: float
    elevation_deg: float
    rgb: tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class Texture:
    """A procedural texture: family, seed of its pattern, hue of its palette."""

    family: str
    seed: int
    hue: float


@dataclass(frozen=True, kw_only=True)
class Distractor:
    """An object on the table that is irrelevant to the task; `drift_m_s` is its slow motion."""

    shape: str
    size_m: tuple[float, float, float]
    at_m: tuple[float, float]
    yaw_rad: float
    rgb: tuple[float, float, float]
    drift_m_s: tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class ImageEffects:
    """Image effects of the camera.

    Args:
        noise: Standard deviation, of 255.
        blur_px: Radius in pixels of a 128 px image.
        jpeg_quality: 100 for no compression.
        gain: Factor on the brightness.
        latency: Delay in frames.
    """

    noise: float = 0.0
    blur_px: float = 0.0
    jpeg_quality: int = 100
    gain: float = 1.0
    latency: int = 0


@dataclass(frozen=True, kw_only=True)
class BodyDynamics:
    """Factors on joint damping, joint friction and servo gain, and the weight carried in the hand."""

    damping: float = 1.0
    friction: float = 1.0
    servo: float = 1.0
    payload_kg: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Lab:
    """One robot workplace: everything that differs between labs."""

    split: str
    index: int
    seed: int
    cameras: Mapping[str, CameraPose]
    lamps: Sequence[Lamp]
    textures: Mapping[str, Texture]
    link_rgb: tuple[float, float, float]
    distractors: Sequence[Distractor]
    base_xy_m: tuple[float, float]
    base_yaw_deg: float
    table_height_m: float
    image: ImageEffects
    dynamics: BodyDynamics

    @property
    def name(self) -> str:
        """Short name, unique within a seed."""
        return f"{self.split}-{self.index:03d}"

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, lists and strings, for JSON."""
        return json.loads(json.dumps(asdict(self)))


def sample_lab(index: int, *, split: str = "train", seed: int = 0, level: Level = "held") -> Lab:
    """Draw lab number `index` of a split.

    Args:
        index: Index of the lab in the split.
        split: A name of `SPLITS`.
        seed: Seed of the whole generator.
        level: Source of the split's factors: "held" for scores, "validation" (near) or "dev" (far) for choosing
            settings.

    Raises:
        UnknownName: If there is no such split.
        ValueError: If level is not "held", "validation" or "dev".
    """
    if split not in SPLITS:
        raise UnknownName("split", split, SPLITS)
    if level not in ("held", "validation", "dev"):
        raise ValueError(f"level must be 'held', 'validation' or 'dev', got {level!r}")
    population = "train" if split == "train" else level
    levels: dict[str, Level] = {factor: level if factor in SPLITS[split] else "train" for factor in FACTORS}
    streams = {factor: numpy_generator(seed, "lab", population, index, factor) for factor in FACTORS}

    def draw(factor: str, name: str) -> Any:
        return RANGES[factor][name].draw(streams[factor], levels[factor])

    shift = (draw("base", "shift"), draw("base", "shift"))
    yaw = draw("base", "yaw")
    grey, tint = 1.0 + draw("colour", "grey"), draw("colour", "tint") or (1.0, 1.0, 1.0)
    return Lab(
        split=split,
        index=index,
        seed=seed,
        cameras={name: _camera(draw, side) for name, side in SIDES.items()},
        lamps=_lamps(draw, streams["light"]),
        textures={
            surface: Texture(family=draw("texture", "family"), seed=draw("texture", "seed"), hue=draw("texture", "hue"))
            for surface in SURFACES
        },
        link_rgb=_rgb(0.80 * grey * np.array(tint)),
        distractors=_distractors(draw, streams["clutter"], shift, yaw),
        base_xy_m=shift,
        base_yaw_deg=yaw,
        table_height_m=draw("table", "height"),
        image=ImageEffects(
            noise=draw("image", "noise"),
            blur_px=draw("image", "blur"),
            jpeg_quality=draw("image", "jpeg"),
            gain=draw("image", "gain"),
            latency=draw("image", "latency"),
        ),
        dynamics=BodyDynamics(
            damping=1.0 + draw("dynamics", "damping"),
            friction=1.0 + draw("dynamics", "friction"),
            servo=1.0 + draw("dynamics", "servo"),
            payload_kg=draw("dynamics", "payload"),
        ),
    )


def lab_from_dict(record: Mapping[str, Any]) -> Lab:
    """The lab written by `Lab.to_dict`, equal number for number.

    Raises:
        ValueError: If an entry is missing or unknown.
    """
    try:
        return Lab(
            **{
                **record,
                "cameras": {name: CameraPose(**_tuples(pose)) for name, pose in record["cameras"].items()},
                "lamps": tuple(Lamp(**_tuples(lamp)) for lamp in record["lamps"]),
                "textures": {name: Texture(**texture) for name, texture in record["textures"].items()},
                "link_rgb": tuple(record["link_rgb"]),
                "distractors": tuple(Distractor(**_tuples(item)) for item in record["distractors"]),
                "base_xy_m": tuple(record["base_xy_m"]),
                "image": ImageEffects(**record["image"]),
                "dynamics": BodyDynamics(**record["dynamics"]),
            }
        )
    except (KeyError, TypeError) as error:
        raise ValueError(f"this is not a record of a lab: {error}") from error


def _tuples(record: Mapping[str, Any]) -> dict[str, Any]:
    """The record with tuples in place of lists."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in record.items()}


def labs_hash(labs: Sequence[Lab]) -> str:
    """A short hash of a list of labs, for protocols."""
    text = json.dumps([lab.to_dict() for lab in labs], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _rgb(values: np.ndarray) -> tuple[float, float, float]:
    red, green, blue = np.clip(values, 0.0, 1.0).tolist()
    return red, green, blue


def hsv(hue: float, saturation: float, value: float) -> np.ndarray:
    """RGB of a colour given by hue, saturation and value, each in [0, 1]."""
    channel = np.abs(np.mod(hue * 6.0 + np.array([0.0, 4.0, 2.0]), 6.0) - 3.0) - 1.0
    return value * (1.0 - saturation * (1.0 - np.clip(channel, 0.0, 1.0)))


def _camera(draw: Any, side: float) -> CameraPose:
    return CameraPose(
        azimuth_deg=side * draw("camera", "azimuth"),
        elevation_deg=draw("camera", "elevation"),
        distance_m=draw("camera", "distance"),
        roll_deg=draw("camera", "roll"),
        look_at_offset_m=(draw("camera", "look_at"), draw("camera", "look_at"), draw("camera", "look_at")),
        fovy_deg=draw("camera", "fovy"),
    )


def _lamps(draw: Any, rng: np.random.Generator) -> tuple[Lamp, ...]:
    count = draw("light", "count")
    share = rng.dirichlet(np.full(count, 4.0)) * draw("light", "intensity") * 1.4
    return tuple(
        Lamp(
            azimuth_deg=float(rng.uniform(-180, 180)),
            elevation_deg=draw("light", "elevation"),
            rgb=_rgb(part * (1.0 + np.array([draw("light", "tint") for _ in range(3)]))),
        )
        for part in share
    )


def _distractors(
    draw: Any, rng: np.random.Generator, base_xy: tuple[float, float], yaw_deg: float
) -> tuple[Distractor, ...]:
    """Objects on the table; those below the hand's workspace are low, so that the hand passes above them."""
    count, drift = draw("clutter", "count"), draw("clutter", "drift")
    objects = []
    for number in range(count):
        at = np.array([rng.uniform(0.25, 0.98), rng.uniform(-0.55, 0.55)])
        cos, sin = np.cos(np.deg2rad(yaw_deg)), np.sin(np.deg2rad(yaw_deg))
        in_base = np.array([[cos, sin], [-sin, cos]]) @ (at - np.array(base_xy))
        under_hand = bool(
            np.all(in_base > np.array(WORKSPACE_LOW[:2]) - 0.08)
            and np.all(in_base < np.array(WORKSPACE_HIGH[:2]) + 0.08)
        )
        height = rng.uniform(0.012, 0.022) if under_hand else rng.uniform(0.025, 0.075)
        heading = rng.uniform(-np.pi, np.pi)
        speed = drift if number == 0 else 0.0
        objects.append(
            Distractor(
                shape=draw("clutter", "shape"),
                size_m=(float(rng.uniform(0.02, 0.05)), float(rng.uniform(0.02, 0.05)), float(height)),
                at_m=(float(at[0]), float(at[1])),
                yaw_rad=float(rng.uniform(-np.pi, np.pi)),
                rgb=_rgb(hsv(draw("clutter", "hue"), rng.uniform(0.3, 0.9), rng.uniform(0.3, 0.95))),
                drift_m_s=(float(speed * np.cos(heading)), float(speed * np.sin(heading))),
            )
        )
    return tuple(objects)
