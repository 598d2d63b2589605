"""MCAP files of ROS 2 messages, one episode each: vectors and images, resampled at the times of the first camera.

Each step takes the latest message of every topic at that time. Supported are sensor_msgs Image, CompressedImage and
JointState, geometry_msgs Pose and Twist (stamped or not), and the numbers and arrays of std_msgs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from jepa_mpc.errors import MissingPackage
from jepa_mpc.interfaces import Field
from jepa_mpc.trajectories.episode import IMAGES, TIMESTAMP
from jepa_mpc.trajectories.formats.base import LogReader, cameras_in, fault, image_shape
from jepa_mpc.trajectories.formats.h5log import numbered
from jepa_mpc.trajectories.formats.image_codec import decode_picture, picture_size
from jepa_mpc.trajectories.formats.mcap_file import Channel, McapFile, Topic
from jepa_mpc.trajectories.guards import DECODER_ERRORS, time_step

PICTURES = ("sensor_msgs/Image", "sensor_msgs/CompressedImage")
ENDINGS = ("compressed", "image_raw", "image_rect", "image_color", "image", "color")
COMMANDS = ("action", "command", "cmd")
JOINTS = "sensor_msgs/JointState"


class McapReader(LogReader):
    """ROS 2 recordings.

    Topic `/camera/left/image_raw` is the camera `camera_left`; `/arm/joint_states` becomes
    `observation.arm.joint_states.position` (and `.velocity`); topics with `action`, `command` or `cmd` in their name
    become `action.<...>`.

    Args:
        path: One .mcap file, or a folder of them, an episode each.

    Raises:
        BadEpisode: If a file is damaged, has no image or other topics than the first.
        MissingPackage: If mcap or mcap-ros2-support is not installed.
    """

    format: ClassVar[str] = "mcap"

    def __init__(self, path: str | Path) -> None:
        super().__init__(path)
        self.files = [self.path] if self.path.is_file() else numbered(self.path.glob("*.mcap"))
        if not self.files:
            raise fault(self.path, field="file", problem="holds no .mcap", remedy="name the folder of the recordings")
        self._kept: tuple[int, _Recording | None] = (-1, None)
        self.lengths = self.count_steps(len(self.files), lambda index: len(self._clock(index)))
        self.fields = self.first_sound(self._read_fields)
        self.cameras = cameras_in(self.fields)

    def sources(self, index: int) -> tuple[Path, ...]:
        """The file of one episode."""
        return (self.files[index],)

    def columns(self, episode: int, start: int, stop: int, names: Sequence[str]) -> dict[str, np.ndarray]:
        """Steps start..stop-1 of the named fields."""
        clock, topics, found = self._clock(episode), self._recording(episode).fields, {}
        for name in names:
            if name == TIMESTAMP:
                found[name] = ((clock - clock[0]) * 1e-9)[start:stop]
                continue
            if name not in topics:
                raise fault(self.files[episode], field=name, problem="is missing", episode=episode)
            newest = np.searchsorted(topics[name].times_ns, clock[start:stop], side="right") - 1
            found[name] = self._rows(episode, name, np.maximum(newest, 0).tolist())
        return found

    def _rows(self, episode: int, name: str, numbers: Sequence[int]) -> np.ndarray:
        """The messages with those numbers, each decoded once, stacked."""
        field, recording = self.fields[name], self._recording(episode)
        rows = np.empty((len(numbers), *field.shape), field.dtype)
        fresh = [at for at, number in enumerate(numbers) if not at or number != numbers[at - 1]]
        messages = recording.messages(name, [numbers[at] for at in fresh])
        for at, end, message in zip(fresh, [*fresh[1:], len(numbers)], messages, strict=True):
            row = self._picture(message, name, episode) if name.startswith(IMAGES) else message
            if row.shape != field.shape:
                raise fault(self.files[episode], field=name, problem="changes its size", episode=episode)
            rows[at:end] = row
        return rows

    def _read_fields(self, index: int) -> dict[str, Field]:
        """Fields of the first intact file; all others must have the same topics."""
        times_s = self._clock(index) * 1e-9
        step_s = float(np.median(np.diff(times_s))) if len(times_s) > 1 else 0.0
        self.dt_s = time_step(step_s, where=self.files[index], field=TIMESTAMP, rate=False)
        hz = 1.0 / self.dt_s if self.dt_s > 0 else None
        fields = {TIMESTAMP: Field((), "float64", "s", hz)}
        recording = self._recording(index)
        for name in sorted(recording.fields):
            message = next(recording.messages(name, [0]))
            if name.startswith(IMAGES):
                fields[name] = Field(self._size(message, name, index), "uint8", "RGB", hz)
            else:
                fields[name] = Field(message.shape, "float64", "SI", hz)
        return fields

    def _clock(self, index: int) -> np.ndarray:
        """Times of the first camera's images, ns."""
        topics = self._recording(index).fields
        cameras = sorted(name for name in topics if name.startswith(IMAGES))
        if not cameras:
            raise fault(self.files[index], field=IMAGES + "*", problem="is on no topic", episode=index)
        return topics[cameras[0]].times_ns

    def _recording(self, index: int) -> _Recording:
        """One file; the last one is cached."""
        held = self._kept[1]
        if held is None or self._kept[0] != index:
            held = _Recording(self.check_file(self.files[index]))
            self._kept = (index, held)
        return held

    def _size(self, message: Any, name: str, index: int) -> tuple[int, int, int]:
        where = self.files[index]
        try:
            if hasattr(message, "height"):
                return image_shape((message.height, message.width, 3), where=where, field=name)
            return image_shape(picture_size(bytes(message.data)), where=where, field=name)
        except DECODER_ERRORS as error:
            raise fault(where, field=name, problem=f"holds a damaged image ({error})") from error

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
        except DECODER_ERRORS as error:
            where = self.files[episode]
            raise fault(where, field=name, problem=f"holds a damaged image ({error})", episode=episode) from error


class _Recording:
    """A file and its message decoder; `fields` maps a field to its topic.

    Args:
        path: The file.

    Raises:
        BadEpisode: If it is damaged or holds no supported topic.
        MissingPackage: If the packages that read it are not installed.
    """

    def __init__(self, path: Path) -> None:
        try:
            from mcap.exceptions import McapError
            from mcap.records import Schema
            from mcap_ros2._vendor.rosidl_adapter.parser import InvalidSpecification, InvalidValue
            from mcap_ros2.decoder import DecoderFactory
        except ImportError as error:
            raise MissingPackage("mcap-ros2-support", "jepa_mpc.trajectories.formats.mcap") from error
        self._schema, self._decoders = Schema, DecoderFactory()
        self._errors = (McapError, InvalidSpecification, InvalidValue, *DECODER_ERRORS)
        self.path, self.file = path, McapFile(path, _is_known)
        self.fields: dict[str, Topic] = {}
        for topic in self.file.topics.values():
            self.fields |= dict.fromkeys(next(self._values(topic, [0])), topic)
        if not self.fields:
            raise fault(path, field="topics", problem="are none that is known", remedy="see docs/logs.md for the list")

    def messages(self, name: str, numbers: Sequence[int]) -> Iterator[Any]:
        """The values of one field in some messages: a vector, or an encoded image."""
        for values in self._values(self.fields[name], numbers):
            if name not in values:
                raise fault(self.path, field=name, problem="is missing in a message", remedy="record it again")
            yield values[name]

    def _values(self, topic: Topic, numbers: Sequence[int]) -> Iterator[dict[str, Any]]:
        for channel, data in self.file.data(topic, numbers):
            try:
                yield dict(_values(topic.kind, topic.name, self._decoder(channel)(data)))
            except self._errors as error:
                problem = f"holds a message that is no {topic.kind} ({type(error).__name__}: {error})"
                raise fault(self.path, field=topic.name, problem=problem, remedy="record it anew") from error

    def _decoder(self, channel: Channel) -> Callable[[bytes], Any]:
        number, name, encoding, text = self.file.schemas[channel.schema]
        schema = self._schema(id=number, name=name, encoding=encoding, data=text)
        found: Callable[[bytes], Any] | None = self._decoders.decoder_for(channel.encoding, schema)
        if found is None:
            raise ValueError(f"encoded as {channel.encoding}, defined as {encoding}")
        return found


def _is_known(kind: str) -> bool:
    return kind in PICTURES or kind in VECTORS or kind == JOINTS


def _values(kind: str, topic: str, message: Any) -> list[tuple[str, Any]]:
    """Field names and values of one message."""
    if kind in PICTURES:
        words = [word for word in topic.strip("/").split("/") if word not in ENDINGS]
        return [(IMAGES + ("_".join(words) or "camera"), message)]
    dotted = topic.strip("/").replace("/", ".")
    head = "action" if any(word in topic for word in COMMANDS) else "observation"
    name = dotted if dotted == head else f"{head}.{dotted}"
    if kind == JOINTS:
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
