"""Converts a log of any format into a cache (`trajectories.cache`): parallel, resumable and atomic.

The draft beside the cache has its full size from the start, so that a lack of disk space shows at once. The draft's
journal records each finished episode with checksums of the written data; after a kill, episodes that match their
checksums are kept.
"""

from __future__ import annotations

import fcntl
import json
import logging
import multiprocessing
import os
import re
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing.connection import wait as wait_for
from pathlib import Path
from typing import Any

from jepa_mpc.errors import BadEpisode
from jepa_mpc.files import publish_folder, published
from jepa_mpc.trajectories.cache import EPISODES, FRAMES, INDEX, Cache, CacheOptions, is_cache, source_fingerprint
from jepa_mpc.trajectories.draft import Job, begin, finish, resume, write_episode
from jepa_mpc.trajectories.formats.base import fault
from jepa_mpc.trajectories.plan import make_plan
from jepa_mpc.workspaces import open_lock

LOGGER = logging.getLogger(__name__)
Progress = Callable[[Iterable[int]], Iterable[int]]


def ingest(
    path: str | Path,
    *,
    options: CacheOptions | None = None,
    place: str | Path | None = None,
    workers: int = 1,
    progress: Progress = iter,
) -> Cache:
    """The cache of a log: opened if it exists and is up to date, otherwise built.

    Args:
        path: A log of any known format.
        options: What the cache takes from the log.
        place: Folder of the cache; by default beside the log, one folder per set of options.
        workers: Number of processes.
        progress: Wraps the loop over the missing episodes (a progress bar).

    Raises:
        BadEpisode: If an episode is damaged; the finished ones are kept for the next attempt.
        FileExistsError: If `place` holds the log, or anything else that is not a cache.
        ValueError: If the log lacks what the options ask for.
        OSError: If the disk is full; an older cache is kept.
        UnknownName, MissingPackage: If the format is unknown or needs a package.
    """
    if workers < 1:
        raise ValueError(f"workers must be at least 1, got {workers}")
    path, options = Path(path), options or CacheOptions()
    fingerprint = source_fingerprint(path)
    place = cache_place(path, options) if place is None else _own_folder(Path(place), path)
    found = look_up(place, options, fingerprint)
    if isinstance(found, Cache):
        return found
    place.parent.mkdir(parents=True, exist_ok=True)
    with os.fdopen(open_lock(place.with_name(f".{place.name}.lock")), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # freed by the system even if this process is killed
        found = look_up(place, options, fingerprint)
        if isinstance(found, Cache):
            return found
        if is_cache(place):
            _refuse_strangers(place)
            LOGGER.warning("%s is made anew: %s", place, found)
        _build(path, options, place, fingerprint, workers=workers, progress=progress)
    return Cache(place)


def _own_folder(place: Path, path: Path) -> Path:
    """A folder for a cache; refuses one that holds anything else, since a cache replaces it as a whole.

    Raises:
        FileExistsError: Names the folder.
    """
    found, log = place.resolve(), path.resolve()
    if found == log or found in log.parents:
        raise FileExistsError(f"{place} holds the log itself: choose a folder of its own for the cache")
    if place.is_file() or (place.is_dir() and not is_cache(place) and any(place.iterdir())):
        raise FileExistsError(f"{place} holds something other than a cache: choose a new folder")
    return place


def _refuse_strangers(place: Path) -> None:
    """Refuse to replace a cache that holds files of others.

    Raises:
        FileExistsError: Names one of them.
    """
    ours = re.compile(rf"{re.escape(INDEX)}|{re.escape(FRAMES)}|{re.escape(EPISODES)}|column_\d+\.bin|\..*")
    strange = sorted(entry.name for entry in published(place).iterdir() if not ours.fullmatch(entry.name))
    if strange:
        raise FileExistsError(f"{place / strange[0]} is not part of the cache there, which is made anew: move it first")


def cache_place(path: Path, options: CacheOptions) -> Path:
    """The default folder of a log's cache: `.cache/` inside a folder, beside a file."""
    home = path / ".cache" if path.is_dir() else path.with_name(f".{path.name}.cache")
    return home / options.key()


def cached_elsewhere(path: Path, options: CacheOptions) -> Cache | None:
    """An up-to-date cache of the same log and options with more cameras, the requested ones adjacent and in order."""
    wanted = options.cameras
    if wanted is None or not wanted:
        return None
    home = cache_place(path, options).parent
    if is_cache(home / options.key()) or not home.is_dir():
        return None
    fingerprint = source_fingerprint(path)
    for place in sorted(entry for entry in home.iterdir() if not entry.name.startswith(".") and is_cache(entry)):
        held = look_up(place, None, fingerprint)
        if not isinstance(held, Cache):
            continue
        same = {**held.index["options"], "cameras": None} == {**options.to_dict(), "cameras": None}
        if same and any(held.cameras[at : at + len(wanted)] == wanted for at in range(len(held.cameras))):
            return held
    return None


def look_up(place: Path, options: CacheOptions | None, fingerprint: str) -> Cache | str:
    """The cache in a folder, or the reason why it cannot be used, in words.

    Args:
        place: The folder.
        options: The requested options; None accepts any.
        fingerprint: Current fingerprint of the log.
    """
    if not is_cache(place):
        return "there is none yet"
    try:
        cache = Cache(place)
    except BadEpisode as error:
        return str(error)
    asked = {} if options is None else options.to_dict()
    other = [name for name in asked if cache.index["options"].get(name) != asked[name]]
    if other:
        return f"it was made with other {', '.join(other)}"
    return cache if cache.index["source"]["fingerprint"] == fingerprint else "the log has changed since"


def _build(
    path: Path, options: CacheOptions, place: Path, fingerprint: str, *, workers: int, progress: Progress
) -> None:
    plan = make_plan(path, options, fingerprint)
    draft = place.with_name(f".{place.name}.draft")
    done = resume(draft, plan)
    if done is None:
        begin(draft, plan)
        done = {}
    sha256 = plan.sha256()
    jobs = [
        Job(path=str(path), options=options, draft=str(draft), plan_sha256=sha256, place=i)
        for i in range(len(plan.lengths))
        if i not in done
    ]
    with (draft / EPISODES).open("a") as journal:
        steps = iter(progress([job.place for job in jobs]))
        for entry in _run(jobs, workers=workers):
            done[entry["place"]] = entry
            journal.write(json.dumps(entry) + "\n")
            journal.flush()
            next(steps, None)
        next(steps, None)  # lets a progress bar finish
    if source_fingerprint(path) != fingerprint:
        raise fault(str(path), field="file", problem="changed while it was read", remedy="begin again")
    finish(draft, plan, [done[i] for i in range(len(plan.lengths))])
    publish_folder(draft, place)


def _run(jobs: Sequence[Job], *, workers: int) -> Iterator[dict[str, Any]]:
    """Journal entries as they finish; with one worker in this process and in order."""
    if workers == 1 or len(jobs) < 2:
        yield from map(write_episode, jobs)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(jobs)), mp_context=context, initializer=_follow_parent) as pool:
        futures = [pool.submit(write_episode, job) for job in jobs]
        try:
            for future in as_completed(futures):
                yield future.result()
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _follow_parent() -> None:
    """Ignore signals, which the parent handles, and end with the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    parent = multiprocessing.parent_process()
    assert parent is not None
    sentinel = parent.sentinel

    def follow() -> None:
        wait_for([sentinel])
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
