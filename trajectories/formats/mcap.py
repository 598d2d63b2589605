"""MCAP files of ROS 2 messages, one episode each: vectors and pictures, brought to the clock of the first camera.

Each step takes the newest message of every topic at that time. Known are sensor_msgs Image, CompressedImage and
JointState, geometry_msgs Pose and Twist (stamped or not), and the numbers and arrays of std_msgs.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from jepa_mpc.errors import BadEpisode, MissingPackage
from jepa_mpc.interfaces import Field
from jepa_mpc.trajectories.episode import IMAGES, TIMESTAMP
from jepa_mpc.trajectories.formats.base import LogReader, cameras_in, fault, image_shape
from jepa_mpc.trajectories.formats.h5log import numbered
from jepa_mpc.trajectories.formats.pictures import decode_picture, picture_size

PICTURES = ("sensor_msgs/Image", "sensor_msgs/CompressedImage")
ENDINGS = ("compressed", "image_raw", "image_rect", "image_color", "image", "color")
COMMANDS = ("action", "command", "cmd")
Topic = tuple[str, list[int], list[Any]]


class McapReader(LogReader):
    """ROS 2 recordings.

    Topic `/camera/left/image_raw` is the camera `camera_left`; `/arm/joint_states` becomes
    `observation.arm.joint_states.position` (and `.velocity`); topics with `action`, `command` or `cmd` in their name
    become `action.<...>`.

    Args:
        path: One .mcap file, or a folder of them, an episode each.

    Raises:
        BadEpisode: If a file is damaged, has no picture or other topics than the first.
        MissingPackage: If mcap or mcap-ros2-support is not installed.
    """

    format: ClassVar[str] = "mcap"

    def __init__(self, path: str | Path) -> None:
        super().__init__(path)
        self.files = [self.path] if self.path.is_file() else numbered(self.path.glob("*.mcap"))
        if not self.files:
            raise fault(self.path, field="file", problem="holds no .mcap", remedy="name the folder of the recordings")
        self._kept: tuple[int, dict[str, Topic]] = (-1, {})
        self.lengths = [len(self._clock(index)) for index in range(len(self.files))]
        times_s = self._clock(0) * 1e-9
        self.dt_s = float(np.median(np.diff(times_s))) if len(times_s) > 1 else 0.0
        hz = 1.0 / self.dt_s if self.dt_s > 0 else None
        self.fields = {TIMESTAMP: Field((), "float64", "s", hz)}
        for name, (kind, _, messages) in sorted(self._topics(0).items()):
            if kind in PICTURES:
                self.fields[name] = Field(self._size(messages[0], name), "uint8", "RGB", hz)
            else:
                self.fields[name] = Field(messages[0].shape, "float64", "SI", hz)
        self.cameras = cameras_in(self.fields)

    def sources(self, index: int) -> tuple[Path, ...]:
        """The file of one episode."""
        return (self.files[index],)

    def columns(self, episode: int, start: int, stop: int, names: Sequence[str]) -> dict[str, np.ndarray]:
        """Steps start..stop-1 of the named fields."""
        clock, topics, found = self._clock(episode), self._topics(episode), {}
        for name in names:
            if name == TIMESTAMP:
                found[name] = ((clock - clock[0]) * 1e-9)[start:stop]
                continue
            if name not in topics:
                raise fault(self.files[episode], field=name, problem="is missing", episode=episode)
            kind, times, messages = topics[name]
            newest = np.maximum(np.searchsorted(times, clock[start:stop], side="right") - 1, 0)
            rows = [messages[at] for at in newest]
            if kind in PICTURES:
                rows = [self._picture(row, name, episode) for row in rows]
            try:
                found[name] = np.stack(rows)
            except ValueError as error:
                raise fault(self.files[episode], field=name, problem="changes its size", episode=episode) from error
        return found

    def _clock(self, index: int) -> np.ndarray:
        """Times of the first camera's pictures, ns."""
        topics = self._topics(index)
        cameras = sorted(name for name in topics if name.startswith(IMAGES))
        if not cameras:
            raise fault(self.files[index], field=IMAGES + "*", problem="is on no topic", episode=index)
        return np.asarray(topics[cameras[0]][1])

    def _topics(self, index: int) -> dict[str, Topic]:
        if self._kept[0] != index:
            self.checksums.check(self.files[index])
            self._kept = (index, read_topics(self.files[index]))
        return self._kept[1]

    def _size(self, message: Any, name: str) -> tuple[int, int, int]:
        if hasattr(message, "height"):
            return image_shape((message.height, message.width, 3), where=self.files[0], field=name)
        return image_shape(picture_size(bytes(message.data)), where=self.files[0], field=name)

    def _picture(self, message: Any, name: str, episode: int) -> np.ndarray:
        shape = self.fields[name].shape
        try:
            if not hasattr(message, "height"):
                return decode_picture(bytes(message.data), shape)
            if message.encoding not in ("rgb8", "bgr8"):
                raise ValueError(f"encoding {message.encoding!r}, expected rgb8 or bgr8")
            rows = np.frombuffer(bytes(message.data), np.uint8).reshape(message.height, message.step)
            picture = rows[:, : 3 * message.width].reshape(message.height, message.width, 3)
            return picture if message.encoding == "rgb8" else picture[..., ::-1]
        except (BadEpisode, ValueError, OSError, SyntaxError) as error:
            where = self.files[episode]
            raise fault(where, field=name, problem=f"holds a damaged picture ({error})", episode=episode) from error


def read_topics(path: Path) -> dict[str, Topic]:
    """All known topics of a file by field name: kind, times in ns, and messages (vectors as float64).

    Raises:
        BadEpisode: If the file is damaged or holds no known topic.
        MissingPackage: If the packages that read it are not installed.
    """
    try:
        from mcap.exceptions import McapError
        from mcap.reader import SeekingReader
        from mcap_ros2.decoder import DecoderFactory
    except ImportError as error:
        raise MissingPackage("mcap-ros2-support", "jepa_mpc.trajectories.formats.mcap") from error
    topics: dict[str, Topic] = {}
    limit = max(path.stat().st_size * 1100, 1 << 26) if path.exists() else 0
    try:
        with path.open("rb") as file:
            reader = SeekingReader(
                file, validate_crcs=True, decoder_factories=[DecoderFactory()], record_size_limit=limit
            )
            for schema, channel, message, decoded in reader.iter_decoded_messages():
                kind = (schema.name if schema else "").replace("/msg/", "/")
                for name, value in _values(kind, channel.topic, decoded):
                    _, times, messages = topics.setdefault(name, (kind, [], []))
                    times.append(int(message.log_time))
                    messages.append(value)
    except (McapError, OSError, ValueError, KeyError, IndexError, TypeError, AttributeError, RuntimeError, EOFError,
            struct.error, OverflowError, MemoryError) as error:  # fmt: skip
        problem = f"is damaged or no MCAP of ROS 2 ({error})"
        raise fault(path, field="file", problem=problem, remedy="restore it; `mcap recover` may help") from error
    if not topics:
        raise fault(path, field="topics", problem="are none that is known", remedy="see docs/logs.md for the list")
    return topics


def _values(kind: str, topic: str, message: Any) -> list[tuple[str, Any]]:
    """Field names and values of one message."""
    if kind in PICTURES:
        words = [word for word in topic.strip("/").split("/") if word not in ENDINGS]
        return [(IMAGES + ("_".join(words) or "camera"), message)]
    dotted = topic.strip("/").replace("/", ".")
    head = "action" if any(word in topic for word in COMMANDS) else "observation"
    name = dotted if dotted == head else f"{head}.{dotted}"
    if kind == "sensor_msgs/JointState":
        parts = [(part, getattr(message, part)) for part in ("position", "velocity")]
        return [(f"{name}.{part}", np.array(values, dtype=np.float64)) for part, values in parts if len(values)]
    make = VECTORS.get(kind)
    return [] if make is None else [(name, np.array(make(message), dtype=np.float64).reshape(-1))]


def _pose(message: Any) -> list[float]:
    place, turn = message.position, message.orientation
    return [place.x, place.y, place.z, turn.x, turn.y, turn.z, turn.w]


def _twist(message: Any) -> list[float]:
    return [getattr(part, axis) for part in (message.linear, message.angular) for axis in ("x", "y", "z")]


VECTORS: dict[str, Callable[[Any], Any]] = {
    "geometry_msgs/Pose": _pose,
    "geometry_msgs/PoseStamped": lambda message: _pose(message.pose),
    "geometry_msgs/Twist": _twist,
    "geometry_msgs/TwistStamped": lambda message: _twist(message.twist),
    **{f"std_msgs/{name}": lambda message: message.data
       for name in ("Float32", "Float64", "Float32MultiArray", "Float64MultiArray", "Bool", "Int32", "Int64")},
}  # fmt: skip
