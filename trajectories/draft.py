"""An unfinished cache: files at full size, filled episode by episode; finished episodes are listed with checksums."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from jepa_mpc.files import write_json
from jepa_mpc.plain_json import read_json_file
from jepa_mpc.trajectories.cache import (
    CACHE_VERSION,
    EPISODES,
    FRAMES,
    INDEX,
    CacheOptions,
    canonical_sha256,
    sha256_of,
)
from jepa_mpc.trajectories.checksums import file_sha256
from jepa_mpc.trajectories.episode import EE_POSE, GRIPPER, IMAGES, STATE
from jepa_mpc.trajectories.formats.base import fault
from jepa_mpc.trajectories.plan import Plan, opened, row_bytes
from jepa_mpc.trajectories.robots import MappedLog
from jepa_mpc.trajectories.windows import stack_cameras

PLAN = "plan.json"
PIECE_BYTES = 64 << 20  # decoded image bytes that one process holds at a time


@dataclass(frozen=True, kw_only=True)
class Job:
    """One episode for one process: the paths of log and draft, the hash of the draft's plan, the episode number."""

    path: str
    options: CacheOptions
    draft: str
    plan_sha256: str
    place: int


def begin(draft: Path, plan: Plan) -> None:
    """A draft with all files at their full size."""
    if draft.is_symlink():
        draft.unlink()
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    needed = sum(plan.sizes().values())
    try:
        for name, size in plan.sizes().items():
            with (draft / name).open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, size)
    except OSError as error:
        shutil.rmtree(draft, ignore_errors=True)
        free = shutil.disk_usage(draft.parent).free
        reason = f"the cache needs {needed / 1e9:.2f} GB, {free / 1e9:.2f} GB are free ({error.strerror})"
        raise OSError(error.errno, reason, str(draft.parent)) from error
    (draft / EPISODES).touch()
    write_json(draft / PLAN, {"plan": plan.to_dict(), "sha256": plan.sha256()})


def resume(draft: Path, plan: Plan) -> dict[int, dict[str, Any]] | None:
    """The intact episodes of a draft, or None if it follows another plan or does not exist."""
    try:
        if draft.is_symlink() or any(entry.is_symlink() or not entry.is_file() for entry in draft.iterdir()):
            return None
        if read_json_file(draft / PLAN)["sha256"] != plan.sha256():
            return None
        lines = (draft / EPISODES).read_text().splitlines()
        if any((draft / name).stat().st_size != size for name, size in plan.sizes().items()):
            return None
    except (OSError, ValueError, KeyError, TypeError):
        return None
    found: dict[int, dict[str, Any]] = {}
    for line in lines:
        try:
            entry = json.loads(line)
            sums = _sums_on_disk(draft, plan, int(entry["place"]))
        except (ArithmeticError, LookupError, RecursionError, TypeError, ValueError):
            continue  # the line that was being written
        if sums == {"frames": entry["frames"], "rows": entry["rows"]}:
            found[entry["place"]] = entry
    (draft / EPISODES).write_text("".join(json.dumps(entry) + "\n" for entry in found.values()))
    return found


def _sums_on_disk(draft: Path, plan: Plan, place: int) -> dict[str, str]:
    span = slice(int(plan.offsets[place]), int(plan.offsets[place + 1]))
    frames = np.memmap(draft / FRAMES, np.uint8, "r", shape=(int(plan.offsets[-1]), plan.frame_bytes))
    rows = (_mapped(draft, plan, name)[span] for name in plan.columns)
    return {"frames": sha256_of([frames[span]]), "rows": sha256_of(rows)}


def _mapped(draft: Path, plan: Plan, name: str) -> np.ndarray:
    entry = plan.columns[name]
    shape = (int(plan.offsets[-1]), *entry["shape"])
    return np.memmap(draft / entry["file"], np.dtype(entry["dtype"]), "r", shape=shape)


def write_episode(job: Job) -> dict[str, Any]:
    """Read one episode in pieces and write it into the draft; returns its journal entry.

    Raises:
        BadEpisode: If it is damaged.
        OSError: If the disk fails.
    """
    draft, plan = Path(job.draft), _plan_of(job.draft, job.plan_sha256)
    log = opened(job.path, job.options, plan.source["fingerprint"])
    episode, length, first = plan.episodes[job.place], plan.lengths[job.place], int(plan.offsets[job.place])
    images = [IMAGES + camera for camera in plan.cameras]
    bytes_per_step = sum(int(np.prod(log.fields[name].shape)) for name in images)
    piece = max(PIECE_BYTES // bytes_per_step, 1)
    digest = hashlib.sha256()
    rows: dict[str, list[np.ndarray]] = {name: [] for name in plan.columns}
    with (draft / FRAMES).open("r+b", buffering=0) as file:
        file.seek(first * plan.frame_bytes)
        for start in range(0, length, piece):
            columns = log.read(episode, start, min(start + piece, length), [*images, *plan.columns])
            frames = stack_cameras({name: job.options.fit(columns[name]) for name in images}, images)
            digest.update(frames.data)
            _write(file, frames)
            for name, kept in rows.items():
                kept.append(_kept(columns[name], name, plan.columns[name], log, episode))
    whole = {name: np.concatenate(kept) for name, kept in rows.items()}
    for name, column in whole.items():
        with (draft / plan.columns[name]["file"]).open("r+b", buffering=0) as file:
            file.seek(first * row_bytes(plan.columns[name]))
            _write(file, column)
    metadata = log.metadata(episode)
    group = metadata.get("lab_index", episode)
    return {
        "place": job.place, "episode": episode, "frames": digest.hexdigest(), "rows": sha256_of(whole.values()),
        "group": group if type(group) is int and abs(group) < 2**31 else episode, "metadata": metadata,
    }  # fmt: skip


def _kept(column: np.ndarray, name: str, entry: Mapping[str, Any], log: MappedLog, episode: int) -> np.ndarray:
    """Rows in their storage dtype; checks that state, pose and gripper are finite."""
    kept = np.ascontiguousarray(column.astype(entry["dtype"], copy=False))
    if name in (STATE, EE_POSE, GRIPPER) and not np.isfinite(kept).all():
        step = int(np.argwhere(~np.isfinite(kept))[0][0])
        raise fault(log.path, field=name, problem=f"is not finite at step {step}",
                    remedy=f"leave_out=[{episode}]", episode=episode)  # fmt: skip
    return kept


def _write(file: Any, array: np.ndarray) -> None:
    """Write all bytes; a raw file may take fewer at a time."""
    left = np.ascontiguousarray(array).data.cast("B")
    while left:
        left = left[file.write(left) :]


def finish(draft: Path, plan: Plan, entries: Sequence[Mapping[str, Any]]) -> None:
    """Sort the journal, compute the column statistics, and write the index last."""
    (draft / EPISODES).write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    files: dict[str, dict[str, Any]] = {}
    for name, size in plan.sizes().items():
        files[name] = {"bytes": size} | ({} if name == FRAMES else {"sha256": file_sha256(draft / name)})
    files[EPISODES] = {"bytes": (draft / EPISODES).stat().st_size, "sha256": file_sha256(draft / EPISODES)}
    statistics = {name: column_statistics(_mapped(draft, plan, name)) for name in plan.columns}
    index: dict[str, Any] = {
        "version": CACHE_VERSION, "source": plan.source, "options": plan.options, "robot": plan.robot,
        "fit": {"size": plan.options["image_size"], "aspect": plan.options["aspect"]},
        "cameras": list(plan.cameras), "picture": list(plan.picture), "dt_s": plan.dt_s,
        "lengths": list(plan.lengths), "episodes": list(plan.episodes), "groups": [e["group"] for e in entries],
        "columns": plan.columns, "statistics": statistics, "statistics_sha256": canonical_sha256(statistics),
        "files": files,
    }  # fmt: skip
    write_json(draft / INDEX, index | {"sha256": canonical_sha256(index)})
    (draft / PLAN).unlink()


def column_statistics(rows: np.ndarray) -> dict[str, list[float]]:
    """Mean, standard deviation and extremes of each axis over rows `G A`, in the unit of the column."""
    wide = rows.reshape(len(rows), -1)
    total, squares = np.zeros(wide.shape[1]), np.zeros(wide.shape[1])
    shift = wide[0].astype(np.float64)
    for start in range(0, len(wide), 1 << 16):
        moved = wide[start : start + (1 << 16)].astype(np.float64) - shift  # keeps the squares small
        total, squares = total + moved.sum(0), squares + (moved**2).sum(0)
    mean = total / len(wide)
    std = np.sqrt(np.maximum(squares / len(wide) - mean**2, 0))
    ends = {"low": wide.min(0), "high": wide.max(0), "mean": mean + shift, "std": std}
    return {name: values.astype(np.float64).tolist() for name, values in ends.items()}


@lru_cache(maxsize=2)
def _plan_of(draft: str, sha256: str) -> Plan:
    """The plan of a draft, read once per process."""
    plan = json.loads((Path(draft) / PLAN).read_bytes())["plan"]
    listed = {name: tuple(plan[name]) for name in ("cameras", "episodes", "lengths", "picture")}
    return Plan(**{**plan, **listed})
