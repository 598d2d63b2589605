"""What LeRobot itself makes of two logs: run by the Python of an environment that has `lerobot[dataset]`.

    python lerobot_tools.py FIRST SECOND PLACE

opens both, merges them, deletes an episode, names other tasks and adds an episode, each in a new folder below PLACE,
and tells what it sees as one line of JSON.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import sys
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
from lerobot.datasets.dataset_tools import delete_episodes, merge_datasets, modify_tasks
from lerobot.datasets.lerobot_dataset import LeRobotDataset

ADDED = ("lift", "lift", "lift", "wave", "wave", "wave")
ADDED_DEPTH_M = 1.5


class Kept(logging.Handler):
    """Keeps the warnings of LeRobot about the logs."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if "torchcodec" not in record.getMessage():  # of the environment, not of the log
            self.messages.append(record.getMessage())


def opened(root: Path) -> LeRobotDataset:
    return LeRobotDataset("log/" + root.name, root=root, video_backend="pyav")


def tasks(root: Path) -> list[str]:
    """The text of every frame."""
    dataset = opened(root)
    return [dataset[i]["task"] for i in range(len(dataset))]


def depth_mm(root: Path, index: int) -> list[list[float]]:
    """One depth map, mm."""
    dataset = opened(root)
    return dataset[index][dataset.meta.depth_keys[0]][0].tolist()


def resume(root: Path) -> None:
    """Record one more episode."""
    dataset = LeRobotDataset.resume("log/" + root.name, root=root)
    values = {
        name: np.zeros(feature["shape"], feature["dtype"])
        for name, feature in dataset.features.items()
        if feature["dtype"] not in ("image", "video")
        and name not in ("timestamp", "frame_index", "episode_index", "index", "task_index")
    }
    for camera in dataset.meta.camera_keys:
        shape = dataset.features[camera]["shape"]
        far = np.full(shape, ADDED_DEPTH_M, np.float32)
        values[camera] = far if camera in dataset.meta.depth_keys else np.zeros(shape, np.uint8)
    for task in ADDED:
        dataset.add_frame({**values, "task": task})
    dataset.save_episode()
    dataset.finalize()


def main(first: Path, second: Path, place: Path) -> dict[str, object]:
    kept = Kept()
    logging.getLogger().addHandler(kept)
    found: dict[str, object] = {"first": tasks(first), "second": tasks(second), "depth_mm": depth_mm(first, 3)}
    found["features"] = {name: feature["names"] for name, feature in opened(first).features.items()}
    found["warnings"] = list(kept.messages)
    merge_datasets([opened(first), opened(second)], output_repo_id="log/merged", output_dir=place / "merged")
    delete_episodes(opened(first), [0], output_dir=place / "deleted", repo_id="log/deleted")
    shutil.copytree(first, place / "edited")
    modify_tasks(opened(place / "edited"), new_task="look", episode_tasks={0: "shut"})
    shutil.copytree(second, place / "resumed")
    resume(place / "resumed")
    for name in ("merged", "deleted", "edited", "resumed"):
        found[name] = tasks(place / name)
    found["resumed_depth_mm"] = depth_mm(place / "resumed", -1)
    return found


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(*map(Path, sys.argv[1:]))) + "\n")
