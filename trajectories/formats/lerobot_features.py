"""The features that `meta/info.json` of a LeRobot log declares: its columns and cameras, with their types."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jepa_mpc.interfaces import Field
from jepa_mpc.trajectories.episode import COLUMNS, DEPTH, DONE, IMAGES, TIMESTAMP
from jepa_mpc.trajectories.formats.base import fault, image_shape
from jepa_mpc.trajectories.formats.depth import DepthCodes, depth_codes

INFO = "meta/info.json"
NUMERIC = {"float16", "float32", "float64", "int64", "int32", "int16", "int8", "uint8", "uint16", "uint32", "bool"}
TEXTS = {"string", "language"}
THEIR_NAMES: dict[str, str] = {DONE: "next.done"}
OUR_NAMES: dict[str, str] = {theirs: ours for ours, theirs in THEIR_NAMES.items()}


@dataclass(frozen=True, kw_only=True)
class Depth:
    """How the depth of one camera is stored.

    Args:
        codes: The mapping from grey levels of its videos to metres.
        unit: `m` or `mm` of its images, if the log declares it.
    """

    codes: DepthCodes
    unit: str | None


@dataclass(frozen=True, kw_only=True)
class Feature:
    """One column or camera.

    Args:
        key: Its name in the log.
        kind: `video`, `image` or a dtype.
        field: The field that is read from it.
        depth: How its depth is stored; None for a colour camera.
    """

    key: str
    kind: str
    field: Field
    depth: Depth | None = None


def read_features(info: Mapping[str, Any], *, fps: float) -> tuple[dict[str, Feature], list[str]]:
    """The features by schema name, and a sentence on each that is skipped.

    Raises:
        BadEpisode: If the declarations are damaged.
    """
    declared = info.get("features")
    if not isinstance(declared, dict) or not all(isinstance(feature, dict) for feature in declared.values()):
        raise fault(INFO, field="features", problem="is missing or no object", remedy="restore the file")
    found: dict[str, Feature] = {}
    remarks: list[str] = []
    one: Feature | str
    for key, feature in declared.items():
        kind, shape = str(feature.get("dtype")), _shape(key, feature.get("shape"))
        if kind in ("video", "image"):
            name, one = _camera(key, kind, shape, feature, fps)
        elif kind in NUMERIC and key != "index":  # the running number of the row
            name, one = _numbers(key, kind, shape, feature, fps)
        elif kind in TEXTS or key == "index":
            continue
        else:
            name, one = key, f"{key}: has the dtype {kind}, known are {', '.join(sorted(NUMERIC))}"
        if name.endswith("_depth") and key.removesuffix("_depth") in declared:  # the depth of that camera
            name = name.removesuffix("_depth")
        if name in found:
            one = f"{key}: {found[name].key} has its name, {name}"
        if isinstance(one, str):
            remarks.append(f"{one}; it is left out")
        else:
            found[name] = one
    return found, remarks


def _shape(key: str, shape: Any) -> Sequence[int]:
    if not isinstance(shape, list | tuple) or not all(type(size) is int and 0 <= size < 2**31 for size in shape):
        raise fault(INFO, field=key, problem=f"has the shape {shape!r}", remedy="expected whole numbers")
    return shape


def _numbers(key: str, kind: str, shape: Sequence[int], feature: Mapping[str, Any], fps: float) -> tuple[str, Feature]:
    name = OUR_NAMES.get(key, key)
    known = COLUMNS.get(name, ("", 2, None, ""))
    scalar = key in OUR_NAMES or (list(shape) == [1] and known[1] == 1)
    dtype = "float64" if name == TIMESTAMP else kind
    field = Field(() if scalar else tuple(shape), dtype, known[3], fps, None if scalar else feature.get("names"))
    return name, Feature(key=key, kind=kind, field=field)


def _camera(
    key: str, kind: str, shape: Sequence[int], feature: Mapping[str, Any], fps: float
) -> tuple[str, Feature | str]:
    """A colour or depth camera, or the reason why it is neither."""
    place, channels = (shape[1:], shape[0]) if _channels_first(shape) else (shape[:2], shape[2] if shape[2:] else 1)
    if channels == 1:
        name = DEPTH + key.removeprefix(IMAGES).removeprefix("observation.")
        return name, _depth_camera(key, kind, place, feature, fps)
    names = feature.get("names")
    if isinstance(names, list) and len(names) == 3 and _channels_first(shape):
        names = [*names[1:], names[0]]
    name = key if key.startswith(IMAGES) else IMAGES + key
    picture = image_shape((*place, channels), where=INFO, field=key)
    return name, Feature(key=key, kind=kind, field=Field(picture, "uint8", "RGB", fps, names))


def _depth_camera(key: str, kind: str, place: Sequence[int], feature: Mapping[str, Any], fps: float) -> Feature | str:
    told = [told for name in ("info", "video_info") if isinstance(told := feature.get(name), dict)]
    if not any(info.get("is_depth_map") or info.get("video.is_depth_map") for info in told):
        return f"{key}: has images of one channel and is not marked as depth (is_depth_map)"
    info = {name: value for one in reversed(told) for name, value in one.items()}
    unit = info.get("depth_unit")
    if unit not in ("m", "mm", None):
        return f"{key}: has the depth_unit {unit!r}, known are 'm' and 'mm'"
    try:
        depth = Depth(codes=depth_codes(info), unit=unit)
    except ValueError as error:
        return f"{key}: {error}"
    shape = image_shape((*place, 3), where=INFO, field=key)[:2]
    return Feature(key=key, kind=kind, field=Field(shape, "float32", "m", fps), depth=depth)


def _channels_first(shape: Sequence[int]) -> bool:
    return len(shape) == 3 and shape[0] in (1, 3) and shape[2] not in (1, 3)
