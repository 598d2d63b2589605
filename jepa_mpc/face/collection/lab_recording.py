"""Recording reward-free motion in many simulated labs, in worker processes, to a log that is whole at any time."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import asdict
from functools import cache, partial
from multiprocessing.connection import wait as wait_for
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from omegaconf import DictConfig
from tqdm import tqdm

from jepa_mpc import envs
from jepa_mpc.errors import choose
from jepa_mpc.face.collection.collection_settings import (
    POLICIES,
    PRACTICE,
    TASKS,
    check_strangers,
    collection_of,
    has_labs,
)
from jepa_mpc.face.collection.collection_settings import Collection as Collection
from jepa_mpc.face.collection.collection_settings import settle as settle
from jepa_mpc.face.collection.gym_recording import record_gym
from jepa_mpc.files import only_writer
from jepa_mpc.seeding import numpy_generator, seed_of
from jepa_mpc.trajectories.episode import CLOUDS, CONTACT, GRIPPER_COMMAND, HEARD, OBJECT, OBJECT_YAW, SOUND, Episode
from jepa_mpc.trajectories.formats.npz import MANIFEST, NpzStore, write_episode
from jepa_mpc.trajectories.motion import Reach
from jepa_mpc.trajectories.recording import publish_staged, record_episode, repair, staged_path, write_manifest

if TYPE_CHECKING:
    from jepa_mpc.world_model.dynamics.model import WorldModel

LOGGER = logging.getLogger(__name__)
SIZES = (0.7, 1.4)
"""Smallest and largest block that is heard, in the size of `MATERIALS`."""

HANDED_OVER = {"handle": 0.8, "fumble": 0.8, "play": 0.95, "survey": 1.0}
"""Share of the episodes that begin with the object in the hand."""


def record_one(collection: Collection, folder: Path, index: int) -> int:
    """Record one episode into the staging folder (in a worker process); returns its number."""
    episode = record_lab(collection, index) if has_labs(collection.task) else record_gym(collection, index)
    write_episode(staged_path(folder, index), episode)
    return index


def record_lab(collection: Collection, index: int) -> Episode:
    """One episode in a lab of ours."""
    from jepa_mpc.envs.labs import sample_lab

    env = _environment(collection.task, collection.robot, collection.cameras, collection.image_size, collection.steps)
    lab_index = index // collection.episodes
    lab = sample_lab(lab_index, split=collection.split, seed=collection.lab_seed)

    sensors: dict[str, Callable[[], Any]] = {}
    if collection.clouds is not None:
        sensors[CLOUDS] = partial(_cloud_sensor(env, collection), env.scene.data)
    facts: dict[str, Any] = {}
    if collection.sound is not None:
        microphone, facts = _microphone(env, collection, lab_index, index)
        sensors |= {SOUND: microphone.listen, HEARD: microphone.labels}

    if collection.task == "pick":
        sensors |= {
            GRIPPER_COMMAND: env.gripper_command_m,
            CONTACT: env.contact_n,
            OBJECT: lambda: env.object_m().astype(np.float32),
        }
    if collection.task == "push":
        sensors |= {
            OBJECT: lambda: env.block_m().astype(np.float32),
            OBJECT_YAW: lambda: np.array([env.block_yaw()], dtype=np.float32),
        }
    mover = _mover(collection, env, index)
    return record_episode(
        env,
        mover.motion,
        index=index,
        steps=collection.steps,
        seed=seed_of(collection.seed, "reset", index),
        options={"lab": lab, **mover.options},
        metadata={
            "env": TASKS[collection.task],
            "robot": collection.robot,
            "lab_index": lab_index,
            "lab": lab.to_dict(),
            **facts,
            **mover.facts,
        },
        generator=numpy_generator(collection.seed, "motion", index),
        sensors=sensors,
    )


class Mover(NamedTuple):
    """What moves the arm in an episode.

    Args:
        motion: Makes the motion once the task is reset.
        options: How the task is reset for it.
        facts: What the log says about it.
    """

    motion: Callable[[], Any]
    options: Mapping[str, Any] = {}
    facts: Mapping[str, Any] = {}


def _mover(collection: Collection, env: Any, index: int) -> Mover:
    if collection.task == "push":
        return Mover(env.motion)
    if collection.policy == PRACTICE:
        from jepa_mpc.face.collection.practice import Practice, goals_of

        model = _practising(collection)
        return Mover(lambda: Practice(env, model), goals_of(index), {"practised_by": model.fingerprint})

    def by_rule() -> Any:
        low, high = env.arm.workspace()
        return POLICIES[collection.policy](Reach(box=env.action_box, low=low, high=high))

    if collection.policy not in HANDED_OVER:
        return Mover(by_rule)
    share = HANDED_OVER[collection.policy]
    return Mover(by_rule, {"in_hand": bool(numpy_generator(collection.seed, "handed over", index).random() < share)})


def collect(collection: Collection, folder: Path, *, workers: int) -> NpzStore:
    """Record what is still missing and write the manifest.

    Raises:
        ValueError: If the folder holds a log that was made with other settings, or something else, or if the world
            model that is to practise sees other images.
        BadCheckpoint: If that world model cannot be read or cannot handle.
        Busy: If another process records into it.
        Stopped: If a signal came; the log is in order.
        OSError: If the disk is full; the log is in order.
    """
    check_strangers(folder)
    if collection.policy == PRACTICE:
        _practising(collection)  # refused before anything is written
    with only_writer(folder, what="recording"):
        settle(collection, folder)
        good = repair(folder)
        missing = [index for index in range(collection.total) if index not in good]
        if missing or not (folder / MANIFEST).exists():
            (folder / MANIFEST).unlink(missing_ok=True)
            one = partial(record_one, collection, folder)
            record_all(one, missing, folder, workers=workers, total=collection.total)
            publish_staged(folder, next(i for i in range(collection.total + 1) if not _is_there(folder, i)))
            (folder / ".staging").rmdir()
            write_manifest(folder, dict(enumerate(NpzStore(folder).lengths)), asdict(collection))
        return NpzStore(folder)


def record_all(record: Callable[[int], int], missing: list[int], folder: Path, *, workers: int, total: int) -> None:
    """Hand the missing numbers to worker processes, in order, and publish what can be published."""
    done = next(i for i in range(total + 1) if not _is_there(folder, i))
    pool = ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"), initializer=_prepare_worker)
    todo, running = iter(missing), set[Future[int]]()
    try:
        with tqdm(total=total, initial=total - len(missing), unit="episode", desc="collecting") as bar:
            for index in todo:
                running.add(pool.submit(record, index))
                if len(running) < 2 * workers:
                    continue
                finished, running = wait(running, return_when=FIRST_COMPLETED)
                bar.update(sum(future.result() >= 0 for future in finished))
                done = publish_staged(folder, done)
            for future in running:
                future.result()
                bar.update()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)  # episodes in progress are finished
        publish_staged(folder, done)


def _is_there(folder: Path, index: int) -> bool:
    return (folder / f"episode_{index:06d}.npz").exists()


@cache
def _environment(name: str, robot: str, cameras: tuple[str, ...], image_size: int, steps: int) -> Any:
    """The one environment (and OpenGL context) of this process."""
    return envs.make(TASKS[name], robot=robot, cameras=cameras, image_size=image_size, budget=steps)


def _practising(collection: Collection) -> WorldModel:
    """The world model that practises."""
    from jepa_mpc.face.collection.practice import practising

    return practising(collection.checkpoint, cameras=collection.cameras, image_size=collection.image_size)


def _microphone(env: Any, collection: Collection, lab: int, index: int) -> tuple[Any, dict[str, Any]]:
    """A microphone that hears the block and the table, whose materials and sizes differ by lab; and what they are."""
    from jepa_mpc.envs.materials import MATERIALS
    from jepa_mpc.envs.sound import ContactSound

    told = dict(collection.sound or {})
    names = choose_materials(told.pop("materials", list(MATERIALS)), MATERIALS)
    draws = numpy_generator(collection.lab_seed, "materials", lab)
    block, table = (str(draws.choice(list(known))) for known in (names, MATERIALS))
    size = float(draws.uniform(*SIZES))
    microphone = ContactSound(env.scene.model, dt_s=env.dt_s, **told)
    env.arm.watchers[:] = [microphone]
    things = {"block": MATERIALS[block].scaled(size), "table": MATERIALS[table]}
    microphone.begin(things, numpy_generator(collection.seed, "microphone", index))
    return microphone, {"materials": {"block": block, "table": table}, "size": size}


def choose_materials(names: Sequence[str], known: Mapping[str, Any]) -> list[str]:
    """The names, after a look whether each is known."""
    for name in names:
        choose(known, name, "material")
    return list(names)


def _cloud_sensor(env: Any, collection: Collection) -> Any:
    """The depth cameras of an environment, as one sensor."""
    from jepa_mpc.envs.clouds import CloudSensor, Crop

    told = dict(collection.clouds or {})
    crop = Crop(**{name: tuple(told.pop(name)) for name in ("low", "high", "leave_out") if name in told})
    return CloudSensor(env.scene.model, cameras=collection.cameras, crop=crop, **told)


def _prepare_worker() -> None:
    """Leave signals to the parent, use one thread, and end when the parent is gone."""
    import torch

    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        wait_for([parent.sentinel])
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def record(cfg: DictConfig) -> NpzStore:
    """Collect as configured and return the log.

    Raises:
        ValueError: If an option cannot be used.
        BadEpisode: If the log that is to be continued is damaged.
        OSError: If the log cannot be written.
    """
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    return collect(collection_of(cfg), Path(cfg.out), workers=int(cfg.workers))
