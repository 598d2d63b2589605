"""Recording reward-free motion in many simulated labs, in worker processes, to a log that is whole at any time."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import MISSING, asdict, dataclass, field, fields
from functools import cache, partial
from multiprocessing.connection import wait as wait_for
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig, OmegaConf
from tqdm import tqdm

from jepa_mpc import envs
from jepa_mpc.errors import choose
from jepa_mpc.face.collection.gym_recording import is_gym, record_gym
from jepa_mpc.files import write_json
from jepa_mpc.runs.run_folder import refuse_strangers
from jepa_mpc.seeding import numpy_generator, seed_of
from jepa_mpc.trajectories.episode import CLOUDS, CONTACT, GRIPPER_COMMAND, HEARD, OBJECT, SOUND, Episode
from jepa_mpc.trajectories.formats.npz import MANIFEST, NpzStore, write_episode
from jepa_mpc.trajectories.handling import Handle, fumble, play
from jepa_mpc.trajectories.motion import Motion, Reach, reward_free_motion
from jepa_mpc.trajectories.recording import publish_staged, record_episode, repair, staged_path, write_manifest

LOGGER = logging.getLogger(__name__)
SETTINGS = "collect.json"
LATER = ("task", "policy", "robot", "env", "goal", "checkpoint")  # not named by older logs, which have the defaults
TASKS = {"reach": "reach-v1", "push": "push-v1", "pick": "pick-v1"}
POLICIES: dict[str, Callable[[Reach], Motion]] = {
    "wander": reward_free_motion, "handle": Handle, "fumble": fumble, "play": play,
}  # fmt: skip
PRACTICE = "practice"
BY_FEEL = ("handle", "fumble", "play", PRACTICE)
CAMERAS = {"reach": ("left", "right"), "push": ("left", "right"), "pick": ("left", "right", "wrist")}
HANDED_OVER = {"handle": 0.8, "fumble": 0.8, "play": 0.95, PRACTICE: 0.0}
"""Share of the episodes that begin with the object in the hand."""


def has_labs(task: str) -> bool:
    """Whether a task is played in labs; the others are environments of gymnasium and names of `envs.ENVS`.

    Raises:
        UnknownName: If there is no such task; lists what exists.
    """
    plain = [name for name in envs.ENVS if name not in TASKS.values()]
    return not is_gym(task) and choose({**dict.fromkeys(TASKS, True), **dict.fromkeys(plain, False)}, task, "task")


def usual_cameras(task: str) -> tuple[str, ...]:
    """The cameras that a task is recorded with unless others are asked for: its own, where it has no labs."""
    if is_gym(task):
        return ("render",)
    if has_labs(task):
        return CAMERAS[task]
    env = envs.make(task)
    env.close()
    cameras: tuple[str, ...] = env.cameras
    return cameras


@dataclass(frozen=True, kw_only=True)
class Collection:
    """What is recorded; see configs/collect.yaml for the meaning of each number."""

    labs: int
    episodes: int
    steps: int
    image_size: int
    cameras: tuple[str, ...]
    split: str
    lab_seed: int
    seed: int
    task: str = "reach"
    policy: str = "wander"
    robot: str = "panda"
    checkpoint: str = ""
    clouds: Mapping[str, Any] | None = None
    sound: Mapping[str, Any] | None = None
    env: Mapping[str, Any] = field(default_factory=dict)
    goal: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("labs", "episodes", "steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.goal and not is_gym(self.task):
            raise ValueError("goal= is for environments of gymnasium: task=gym:ID")
        if not has_labs(self.task):
            return
        if self.env:
            raise ValueError("env= is for environments without labs: task=gym:ID, or a name of envs.ENVS")
        choose({**POLICIES, PRACTICE: None}, self.policy, "policy")
        if (self.policy == PRACTICE) != bool(self.checkpoint):
            raise ValueError(
                f"policy={PRACTICE} needs checkpoint=, the world model that practises, and no other policy takes one; "
                f"got policy={self.policy} checkpoint={self.checkpoint or 'null'}"
            )
        if self.policy in BY_FEEL and self.task != "pick":
            raise ValueError(f"policy={self.policy} needs an object and a gripper: task=pick, got task={self.task}")
        if self.sound is not None and self.task != "push":
            raise ValueError(f"sound comes from a block that is pushed about: task=push, got task={self.task}")
        unknown = (self.sound or {}).keys() - HEARING
        if unknown:
            raise ValueError(f"sound takes {', '.join(HEARING)}, got {', '.join(sorted(unknown))}")

    @property
    def total(self) -> int:
        """Number of episodes."""
        return self.labs * self.episodes


HEARING = ("rate", "noise", "materials")
SIZES = (0.7, 1.4)
"""Smallest and largest block that is heard, in the size of `MATERIALS`."""


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
    heard: dict[str, Any] = {}
    if collection.sound is not None:
        microphone, heard = _microphone(env, collection, lab_index, index)
        sensors |= {SOUND: microphone.listen, HEARD: microphone.labels}

    if collection.task == "pick":
        sensors |= {
            GRIPPER_COMMAND: env.gripper_command_m,
            CONTACT: env.contact_n,
            OBJECT: lambda: env.object_m().astype(np.float32),
        }
    if collection.task == "push":
        sensors |= {OBJECT: lambda: env.block_m().astype(np.float32)}
    options: dict[str, Any] = {"lab": lab}
    if collection.policy in BY_FEEL:
        share = HANDED_OVER[collection.policy]
        options["in_hand"] = bool(numpy_generator(collection.seed, "handed over", index).random() < share)
    if collection.policy == PRACTICE:
        from jepa_mpc.face.collection.practice import Practice, vary_goals

        vary_goals(env, index)

    def motion() -> Any:
        if collection.task == "push":
            return env.motion()
        if collection.policy == PRACTICE:
            return Practice(env, _practising(collection.checkpoint))
        low, high = env.arm.workspace()
        return POLICIES[collection.policy](Reach(box=env.action_box, low=low, high=high))

    return record_episode(
        env,
        motion,
        index=index,
        steps=collection.steps,
        seed=seed_of(collection.seed, "reset", index),
        options=options,
        metadata={
            "env": TASKS[collection.task],
            "robot": collection.robot,
            "lab_index": lab_index,
            "lab": lab.to_dict(),
            **heard,
        },
        generator=numpy_generator(collection.seed, "motion", index),
        sensors=sensors,
    )


def collect(collection: Collection, folder: Path, *, workers: int) -> NpzStore:
    """Record what is still missing and write the manifest.

    Raises:
        ValueError: If the folder holds a log that was made with other settings.
        Stopped: If a signal came; the log is in order.
        OSError: If the disk is full; the log is in order.
    """
    settle(collection, folder)
    good = repair(folder)
    missing = [index for index in range(collection.total) if index not in good]
    if missing or not (folder / MANIFEST).exists():
        (folder / MANIFEST).unlink(missing_ok=True)
        record_all(partial(record_one, collection, folder), missing, folder, workers=workers, total=collection.total)
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


def settle(collection: Collection, folder: Path) -> None:
    """Note the settings beside a new log; refuse to mix other settings into an old one (more episodes may be added)."""
    refuse_strangers(folder, "a log", lambda name: name in (SETTINGS, MANIFEST) or name.startswith("episode_"))
    path = folder / SETTINGS
    wanted = OmegaConf.to_container(OmegaConf.create(asdict(collection)))
    assert isinstance(wanted, dict)
    if path.exists():
        known: Any = OmegaConf.to_container(OmegaConf.load(path))
        found: dict[str, Any] = {**_defaults(), **known}  # older logs do not name them
        more = "labs" if has_labs(collection.task) else "episodes"
        other = [name for name in map(str, wanted) if name != more and found.get(name) != wanted[name]]
        if other:
            listed = ", ".join(f"{name}={found.get(name)} (asked for {wanted[name]})" for name in other)
            raise ValueError(f"{folder} was recorded with {listed}: use these settings or another folder")
        if found[more] > wanted[more]:
            raise ValueError(f"{folder} holds {found[more]} {more}, asked for {wanted[more]}: use another folder")
    write_json(path, wanted)  # type: ignore[arg-type]


def _defaults() -> dict[str, Any]:
    """What older logs have where they do not say."""
    known = {one.name: one for one in fields(Collection)}
    return {name: {} if known[name].default is MISSING else known[name].default for name in LATER}


def _is_there(folder: Path, index: int) -> bool:
    return (folder / f"episode_{index:06d}.npz").exists()


@cache
def _environment(name: str, robot: str, cameras: tuple[str, ...], image_size: int, steps: int) -> Any:
    """The one environment (and OpenGL context) of this process."""
    from jepa_mpc import envs

    return envs.make(TASKS[name], robot=robot, cameras=cameras, image_size=image_size, budget=steps)


@cache
def _practising(checkpoint: str) -> Any:
    """The world model that practises."""
    from jepa_mpc.checkpoint import place_of
    from jepa_mpc.world_model.checkpoints.loader import load_world_model

    return load_world_model(place_of(checkpoint))


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
    names = {field.name for field in fields(Collection)}
    plain = {name: value for name, value in OmegaConf.to_container(cfg, resolve=True).items() if name in names}  # type: ignore[union-attr]
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    task = plain["task"] or ("pick" if plain["policy"] in BY_FEEL else "reach")
    labs = has_labs(task)
    cameras = plain["cameras"] or usual_cameras(task)
    usual: dict[str, Any] = {
        "policy": "wander" if labs else "held",
        "labs": 1000 if labs else 1,
        "env": {},
        "goal": {},
        "checkpoint": "",
    }
    usual = {name: value for name, value in usual.items() if plain[name] is None}
    collection = Collection(**{**plain, **usual, "task": task, "cameras": tuple(cameras)})
    return collect(collection, Path(cfg.out), workers=int(cfg.workers))
