"""Raw DROID episodes: a folder each with `trajectory.h5`, `metadata_*.json` and videos under `recordings/MP4`.

The robot state is recorded at 15 Hz: `observation/robot_state/cartesian_position` (x y z in m, extrinsic xyz Euler
angles in rad), `gripper_position` (0 open, 1 closed), joints; `action/*` holds the commands.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from jepa_mpc.errors import BadEpisode
from jepa_mpc.interfaces import Field
from jepa_mpc.trajectories.episode import IMAGES
from jepa_mpc.trajectories.formats.apart import Answer, ForkedReader, Send
from jepa_mpc.trajectories.formats.base import LogReader, cameras_in, fault, read_json
from jepa_mpc.trajectories.formats.h5 import datasets, field_of, member_of, open_h5, read_all_h5, read_h5, read_rows
from jepa_mpc.trajectories.formats.videos import VideoFile

HZ = 15.0
MAX_NAME = 255
TABLE, FILMS = "trajectory.h5", "recordings/MP4"
STATES = "observation/robot_state/"
POSES = STATES + "cartesian_position"
UNITS = {"cartesian_position": "m, rad", "joint_positions": "rad", "joint_velocities": "rad/s", "gripper_position": "",
         "joint_position": "rad", "joint_velocity": "rad/s", "cartesian_velocity": "m/s, rad/s"}  # fmt: skip


class DroidReader(LogReader):
    """Raw DROID episodes below a folder, at any depth.

    Cameras are named by the keys of `metadata_*.json` (`left`, `wrist`, `ext1`, ...), without `_mp4_path`; without such
    a file, by the names of the videos.

    Args:
        path: One episode's folder, or any folder above.

    Raises:
        BadEpisode: If an episode is damaged, or its cameras or fields differ from the first.
    """

    format: ClassVar[str] = "droid"

    def __init__(self, path: str | Path) -> None:
        super().__init__(path)
        self._reader = ForkedReader(self._serve)
        self.folders = find_episodes(self.path)
        if not self.folders:
            raise fault(self.path, field=TABLE, problem="is nowhere below this folder", remedy="name a DROID folder")
        self.dt_s = 1.0 / HZ
        self.films = [self.unless_damaged(index, self._films_of) or {} for index in range(len(self.folders))]
        self.lengths = self.count_steps(len(self.folders), partial(self._length, self._count_rows()))
        self._open: dict[Path, VideoFile] = {}
        self.datasets: dict[str, str] = {}
        self.fields = self.first_sound(self._read_fields)
        self.cameras = cameras_in(self.fields)

    def metadata(self, index: int) -> dict[str, Any]:
        """The episode's own JSON, with its folder and task."""
        found = self._header(index)
        return {"folder": self.folders[index].name, "tasks": [str(found.get("current_task", ""))], **found}

    def where(self, index: int) -> str:
        """The folder and table of an episode (every table has the same name)."""
        return f"{self.folders[index].name}/{TABLE}"

    def sources(self, index: int) -> tuple[Path, ...]:
        """Table, header and videos of one episode."""
        headers = sorted(self.folders[index].glob("metadata_*.json"))
        return (self.folders[index] / TABLE, *headers, *self.films[index].values())

    def columns(self, episode: int, start: int, stop: int, names: Sequence[str]) -> dict[str, np.ndarray]:
        """Steps start..stop-1 of the named fields."""
        path = self.folders[episode] / TABLE
        request = (int(episode), int(start), int(stop), [name for name in names if not name.startswith(IMAGES)])
        frames = {n: self._frames(episode, start, stop, n) for n in names if n.startswith(IMAGES)}
        return {**self._reader.ask(path, request)[1], **frames}

    def _serve(self, request: tuple[int, int, int, list[str]], send: Send) -> None:
        """Send the steps that `columns` asks for, but frames."""
        episode, start, stop, names = request
        path = self.folders[episode] / TABLE

        def read(file: Any, send: Send) -> None:
            self._compare(set(filter(_rename, datasets(file, path))), episode)
            for name in names:
                dataset = member_of(file, self.datasets[name], where=path, field=self.datasets[name])
                self._check_length(dataset, episode, self.datasets[name])
                send(name, read_rows(dataset, start, stop, where=path, field=self.datasets[name]))

        open_h5(path, read, send)

    def _compare(self, found: set[str], episode: int) -> None:
        """Refuse an episode whose fields or cameras differ from the first."""
        cameras = {IMAGES + camera for camera in self.films[episode]}
        wanted = {name for name in self.fields if name.startswith(IMAGES)} | set(self.datasets.values())
        other = (found | cameras) ^ wanted
        if other:
            name = min(other)
            problem = "is missing" if name in wanted else "is not in the first episode"
            remedy = "leave the episode out: all episodes of a log have the same fields"
            raise fault(self.where(episode), field=name, problem=problem, remedy=remedy, episode=episode)

    def _frames(self, episode: int, start: int, stop: int, name: str) -> np.ndarray:
        path = self.films[episode].get(name.removeprefix(IMAGES))
        if path is None:
            remedy = "leave the episode out or choose other cameras"
            raise fault(self.where(episode), field=name, problem="has no video", remedy=remedy, episode=episode)
        if path not in self._open:
            while len(self._open) > 8:
                self._open.pop(next(iter(self._open)))
            self._open[path] = VideoFile(self.check_file(path))
        if len(self._open[path]) != self.lengths[episode]:
            problem = f"has {len(self._open[path])} frames, {TABLE} has {self.lengths[episode]} steps"
            remedy = "leave the episode out: its images would be shifted"
            where = f"{self.folders[episode].name}/{path.name}"
            raise fault(where, field=name, problem=problem, remedy=remedy, episode=episode)
        return self._open[path].read(start, stop)

    def _films_of(self, index: int) -> dict[str, Path]:
        """Camera name -> video, only for videos in the episode's own folder."""
        place = self.folders[index] / FILMS
        named = {
            key.removesuffix("_mp4_path"): place / self._film_name(value, key, index)
            for key, value in self._header(index).items()
            if key.endswith("_mp4_path") and value
        }
        there = {camera: film for camera, film in named.items() if os.path.lexists(film)}
        plain = sorted(film for film in place.glob("*.mp4") if "stereo" not in film.name)
        return there or {film.stem: film for film in plain}

    def _film_name(self, value: Any, key: str, index: int) -> str:
        """The name of a film, out of a path on another machine."""
        name = Path(value.replace("\\", "/")).name if isinstance(value, str) else ""
        if not name or "\0" in name or len(name) > MAX_NAME:
            header = f"{self.folders[index].name}/metadata"
            raise fault(header, field=key, problem=f"is {str(value)[:80]!r}", remedy="expected the path of a film")
        return name

    def _header(self, index: int) -> dict[str, Any]:
        found = sorted(self.folders[index].glob("metadata_*.json"))
        if not found:
            return {}
        self.check_file(found[0])
        return read_json(found[0])

    def _count_rows(self) -> dict[int, Answer | BadEpisode]:
        """Rows of the poses of each episode whose files are sound, or why they cannot be counted."""
        tables = {index: self.unless_damaged(index, self._table) for index in range(len(self.folders))}
        sound = {index: table for index, table in tables.items() if table is not None}
        counted = read_all_h5([(table, partial(_rows, table)) for table in sound.values()])
        return dict(zip(sound, counted, strict=True))

    def _table(self, index: int) -> Path:
        return self.check_file(self.folders[index] / TABLE)

    def _length(self, rows: Mapping[int, Answer | BadEpisode], index: int) -> int:
        """Steps of an episode, counted by its poses."""
        answer = rows[index]
        if isinstance(answer, BadEpisode):
            raise answer
        length = int(answer[0])
        noted = self._header(index).get("trajectory_length")
        if length < 1 or noted not in (None, length) or isinstance(noted, bool | float):
            problem = f"has {length} steps" + ("" if noted is None else f", the header notes {str(noted)[:80]}")
            raise fault(self.where(index), field=POSES, problem=problem, remedy="restore the episode", episode=index)
        return length

    def _check_length(self, dataset: Any, episode: int, name: str) -> None:
        if not getattr(dataset, "shape", None) or dataset.shape[0] != self.lengths[episode]:
            problem = f"has shape {getattr(dataset, 'shape', None)}, the episode has {self.lengths[episode]} steps"
            raise fault(self.where(episode), field=name, problem=problem, remedy="restore it", episode=episode)

    def _read_fields(self, index: int) -> dict[str, Field]:
        path, films = self.folders[index] / TABLE, self.films[index]
        fields = {}
        self.datasets = {}
        for camera, film in sorted(films.items()):
            fields[IMAGES + camera] = Field((*VideoFile(self.check_file(film)).size, 3), "uint8", "RGB", HZ)

        def read(file: Any, send: Send) -> dict[str, Any]:
            vectors = {}
            for name, dataset in datasets(file, path).items():
                field = _rename(name)
                if field is not None and dataset.dtype.kind in "fiub" and dataset.shape:
                    if len(dataset.shape) > 2:
                        problem = f"has steps of shape {dataset.shape[1:]}, expected a vector"
                        raise fault(path, field=name, problem=problem, remedy="restore it", episode=index)
                    unit = UNITS.get(field.rpartition(".")[2], "")
                    vectors[field] = (name, asdict(field_of(dataset, where=path, field=name, unit=unit, hz=HZ)))
            return vectors

        for field, (name, told) in read_h5(path, read)[0].items():
            self.datasets[field] = name
            fields[field] = Field(**{**told, "shape": tuple(told["shape"])})
        return fields


def find_episodes(path: Path) -> list[Path]:
    """The folders that hold a table, including broken links."""
    return sorted(table.parent for table in path.rglob(f"*{Path(TABLE).suffix}") if table.name == TABLE)


def _rows(path: Path, file: Any, send: Send) -> int:
    dataset = member_of(file, POSES, where=path, field=POSES)
    return int(dataset.shape[0]) if getattr(dataset, "shape", None) else 0


def _rename(name: str) -> str | None:
    """`observation.<state>` and `action.<command>`; controller details and times are skipped."""
    if name.startswith(STATES):
        return "observation." + name.removeprefix(STATES).replace("/", ".")
    return "action." + name.removeprefix("action/") if name.startswith("action/") and name.count("/") == 1 else None
