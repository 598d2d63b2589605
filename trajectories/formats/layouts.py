"""Tiny logs in third-party layouts, field by field as the original tools write them, for tests and first trials.

All are made from the same episodes (any log), so that tests can compare a reader's output with the input.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from jepa_mpc.trajectories.checksums import write_checksums
from jepa_mpc.trajectories.episode import ACTION, EE_POSE, GRIPPER, IMAGES, STATE, TIMESTAMP
from jepa_mpc.trajectories.formats.base import Log
from jepa_mpc.trajectories.formats.droid import FILMS, HZ, TABLE
from jepa_mpc.trajectories.formats.image_codec import encode_png
from jepa_mpc.trajectories.formats.lerobot_writer import write_lerobot
from jepa_mpc.trajectories.formats.minari import MAIN, METADATA
from jepa_mpc.trajectories.formats.robomimic import write_robomimic
from jepa_mpc.trajectories.formats.tables import Table, write_table
from jepa_mpc.trajectories.formats.videos import VideoEncoder
from jepa_mpc.trajectories.rotations import euler_of_quaternion, quaternion


def lerobot_v3(log: Log, place: Path) -> Path:
    """LeRobotDataset v3.0 with videos."""
    return write_lerobot(log, place, frames="h264_lossless")


def lerobot_v21(log: Log, place: Path) -> Path:
    """LeRobotDataset v2.1: the tables and videos of v3.0, one per episode."""
    v3 = write_lerobot(log, place.with_name(place.name + "-v3"), frames="h264_lossless")
    info = json.loads((v3 / "meta/info.json").read_text())
    info |= {
        "codebase_version": "v2.1",
        "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "video_path": "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
    }
    table = Table(v3 / "data/chunk-000/file-000.parquet")
    episodes, first = [], 0
    for index, length in enumerate(log.lengths):
        rows = {name: table.array(name, start=first, stop=first + length) for name in table.columns}
        write_table(place / f"data/chunk-000/episode_{index:06d}.parquet", rows)
        for camera in log.cameras:
            film = place / f"videos/chunk-000/{IMAGES}{camera}/episode_{index:06d}.mp4"
            _film(film, _column(log, index, IMAGES + camera), fps=1 / log.dt_s)
        episodes.append({"episode_index": index, "tasks": ["reach"], "length": length})
        first += length
    (place / "meta").mkdir(parents=True, exist_ok=True)
    (place / "meta/info.json").write_text(json.dumps(info))
    (place / "meta/episodes.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in episodes))
    (place / "meta/tasks.jsonl").write_text(json.dumps({"task_index": 0, "task": "reach"}) + "\n")
    return place


def droid(log: Log, place: Path) -> Path:
    """Raw DROID: a folder per episode; poses as Euler angles, the gripper unchanged."""
    import h5py

    for index, length in enumerate(log.lengths):
        folder = place / f"lab/success/2024-01-0{index % 9 + 1}/episode_{index:03d}"
        (folder / FILMS).mkdir(parents=True)
        columns = log.read(index, 0, length, list(log.fields))
        pose = _euler_pose(columns[EE_POSE])
        with h5py.File(folder / TABLE, "w") as file:
            state, action = file.create_group("observation/robot_state"), file.create_group("action")
            joints = columns[STATE][:, :7]
            state["cartesian_position"] = pose
            state["gripper_position"] = columns[GRIPPER][:, 0].astype(np.float64)
            state["joint_positions"] = joints.astype(np.float64)
            state["joint_velocities"] = np.gradient(joints.astype(np.float64), 1 / HZ, axis=0)
            action["cartesian_velocity"] = columns[ACTION][:, :6].astype(np.float64)
            action["gripper_velocity"] = columns[ACTION][:, 6].astype(np.float64)
            action["joint_position"] = columns[STATE][:, :7].astype(np.float64)
            for number in range(len(log.cameras)):
                file[f"observation/camera_extrinsics/{1000 + number}_left"] = np.zeros((length, 6))
        header: dict[str, Any] = {"trajectory_length": length, "lab": "lab", "current_task": "reach", "success": True}
        for number, camera in enumerate(log.cameras):
            _film(folder / FILMS / f"{1000 + number}.mp4", columns[IMAGES + camera], fps=HZ)
            header[f"{camera}_mp4_path"] = f"lab/success/somewhere/recordings/MP4/{1000 + number}.mp4"
        (folder / f"metadata_episode_{index:03d}.json").write_text(json.dumps(header))
    return place


def robomimic(log: Log, place: Path) -> Path:
    """One robomimic file."""
    return write_robomimic(log, place.with_suffix(".hdf5"))


def minari(log: Log, place: Path) -> Path:
    """A Minari dataset with a dictionary of observations and images as encoded bytes."""
    import h5py

    (place / "data").mkdir(parents=True)
    with h5py.File(place / MAIN, "w") as file:
        for index, length in enumerate(log.lengths):
            columns = log.read(index, 0, length, list(log.fields))
            group = file.create_group(f"episode_{index}")
            group.attrs.update({"id": index, "total_steps": length - 1, "seed": 0})
            for name in (STATE, EE_POSE, GRIPPER):
                group[f"observations/{name.removeprefix('observation.')}"] = columns[name]
            for camera in log.cameras:
                kind = h5py.vlen_dtype(np.uint8)
                cells = group.create_dataset(f"observations/images/{camera}", (length,), dtype=kind)
                for step, picture in enumerate(columns[IMAGES + camera]):
                    cells[step] = np.frombuffer(encode_png(picture), np.uint8)
            group["actions"] = columns[ACTION][:-1]
            for name in ("rewards", "terminations", "truncations"):
                group[name] = np.zeros(length - 1, np.float32 if name == "rewards" else np.bool_)
    header = {
        "dataset_id": "arm/reach-v0", "total_episodes": len(log.lengths),
        "total_steps": sum(log.lengths) - len(log.lengths), "data_format": "hdf5", "minari_version": "0.5.4",
        "jpeg_encoding": True, "observation_space": "{}", "action_space": "{}",
    }  # fmt: skip
    (place / METADATA).write_text(json.dumps(header))
    return place


def hdf5(log: Log, place: Path) -> Path:
    """One HDF5 file per episode in the common form: `observations/{qpos, images/<camera>}` and `action`."""
    import h5py

    place.mkdir(parents=True)
    for index, length in enumerate(log.lengths):
        columns = log.read(index, 0, length, list(log.fields))
        with h5py.File(place / f"episode_{index}.hdf5", "w") as file:
            file.attrs["fps"] = 1 / log.dt_s
            file["action"] = columns[ACTION]
            file["observations/qpos"] = columns[STATE]
            for name in (EE_POSE, GRIPPER):
                file[f"observations/{name.removeprefix('observation.')}"] = columns[name]
            for camera in log.cameras:
                file[f"observations/images/{camera}"] = columns[IMAGES + camera]
    return place


def films(log: Log, place: Path) -> Path:
    """A folder per episode with a video per camera and one .csv (every second one .parquet)."""
    for index, length in enumerate(log.lengths):
        folder = place / f"episode_{index}"
        folder.mkdir(parents=True)
        columns = log.read(index, 0, length, list(log.fields))
        for camera in log.cameras:
            _film(folder / f"{camera}.mp4", columns[IMAGES + camera], fps=1 / log.dt_s)
        table = {TIMESTAMP: columns[TIMESTAMP]}
        for name in (STATE, EE_POSE, GRIPPER, ACTION):
            table |= {f"{name}_{axis}": columns[name][:, axis] for axis in range(columns[name].shape[1])}
        if index % 2:
            write_table(folder / "table.parquet", table)
        else:
            with (folder / "table.csv").open("w", newline="") as file:
                writer = csv.writer(file)
                writer.writerow(table)
                writer.writerows(zip(*([repr(float(v)) for v in rows] for rows in table.values()), strict=True))
    return place


def mcap(log: Log, place: Path) -> Path:
    """ROS 2 recordings, a file per episode: raw images, a pose, joints, a gripper and commands."""
    from mcap_ros2.writer import Writer

    place.mkdir(parents=True)
    for index, length in enumerate(log.lengths):
        columns = log.read(index, 0, length, list(log.fields))
        with (place / f"episode_{index}.mcap").open("wb") as file:
            writer = Writer(file)
            kinds = {name: writer.register_msgdef(name, text) for name, text in MESSAGES.items()}
            for step in range(length):
                time_ns = 1_000_000_000 + round(columns[TIMESTAMP][step] * 1e9)
                for topic, kind, message in _messages(columns, step, log.cameras):
                    writer.write_message(topic, kinds[kind], message, log_time=time_ns)
            writer.finish()
    return place


NUMBERS = "MultiArrayLayout layout\nfloat64[] data\n"
LAYOUT = (
    "=" * 80 + "\nMSG: std_msgs/MultiArrayLayout\nMultiArrayDimension[] dim\nuint32 data_offset\n"
    + "=" * 80 + "\nMSG: std_msgs/MultiArrayDimension\nstring label\nuint32 size\nuint32 stride\n"
)  # fmt: skip
MESSAGES = {
    "sensor_msgs/msg/CompressedImage": "string format\nuint8[] data\n",
    "std_msgs/msg/Float64MultiArray": NUMBERS + LAYOUT,
}


def _messages(columns: dict[str, Any], step: int, cameras: tuple[str, ...]) -> list[tuple[str, str, dict[str, Any]]]:
    """Topic, type and content of the messages of one step."""
    found: list[tuple[str, str, dict[str, Any]]] = [
        (f"/{camera}/image/compressed", "sensor_msgs/msg/CompressedImage",
         {"format": "png", "data": encode_png(columns[IMAGES + camera][step])})
        for camera in cameras
    ]  # fmt: skip
    for topic, name in (("/state", STATE), ("/ee_pose", EE_POSE), ("/gripper", GRIPPER), ("/action", ACTION)):
        numbers = {"layout": {"dim": [], "data_offset": 0}, "data": columns[name][step].astype(float).tolist()}
        found.append((topic, "std_msgs/msg/Float64MultiArray", numbers))
    return found


def ogbench(log: Log, place: Path) -> Path:
    """OGBench files: one for training, and one for validation with the last episode."""
    names = {STATE: "observations", ACTION: "actions", EE_POSE: "ee_pose", GRIPPER: "gripper"}
    names |= {IMAGES + camera: camera for camera in log.cameras}
    place.mkdir(parents=True)
    last = len(log.lengths) - 1
    for file, episodes in (("arm-v0.npz", range(last)), ("arm-v0-val.npz", range(last, last + 1))):
        arrays: dict[str, Any] = {
            theirs: np.concatenate([_column(log, index, ours) for index in episodes]) for ours, theirs in names.items()
        }
        ends = [np.arange(log.lengths[index]) == log.lengths[index] - 1 for index in episodes]
        arrays["terminals"] = np.concatenate(ends).astype(np.float32)
        np.savez_compressed(place / file, **arrays)
    write_checksums(place)
    return place


LAYOUTS: dict[str, Callable[[Log, Path], Path]] = {
    "lerobot": lerobot_v3,
    "lerobot_v21": lerobot_v21,
    "droid": droid,
    "robomimic": robomimic,
    "minari": minari,
    "ogbench": ogbench,
    "hdf5": hdf5,
    "films": films,
    "mcap": mcap,
}


def _film(path: Path, pictures: np.ndarray, *, fps: float) -> None:
    with VideoEncoder(path, fps=fps, codec="h264_lossless") as film:
        film.write(pictures)


def _column(log: Log, index: int, name: str) -> np.ndarray:
    column: np.ndarray = log.read(index, 0, log.lengths[index], [name])[name]
    return column


def _euler_pose(pose: np.ndarray) -> np.ndarray:
    """Pose with its rotation vector converted to Euler angles."""
    exact = pose.astype(np.float64)
    return np.concatenate([exact[:, :3], euler_of_quaternion(quaternion(exact[:, 3:]))], axis=1)
