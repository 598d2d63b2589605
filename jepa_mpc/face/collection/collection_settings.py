"""What is recorded: the settings of a log, noted beside it and compared when it is continued."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from jepa_mpc import envs
from jepa_mpc.errors import choose
from jepa_mpc.face.collection.gym_recording import is_gym
from jepa_mpc.files import write_json
from jepa_mpc.plain_json import read_json_file
from jepa_mpc.runs.run_folder import refuse_strangers
from jepa_mpc.trajectories.formats.npz import MANIFEST
from jepa_mpc.trajectories.handling import Handle, fumble, play, survey
from jepa_mpc.trajectories.motion import Motion, Reach, reward_free_motion

SETTINGS = "collect.json"
LATER = ("task", "policy", "robot", "env", "goal", "checkpoint")  # not named by older logs, which have the defaults
TASKS = {"reach": "reach-v1", "push": "push-v1", "pick": "pick-v1"}
POLICIES: dict[str, Callable[[Reach], Motion]] = {
    "wander": reward_free_motion, "handle": Handle, "fumble": fumble, "play": play,
    "survey": survey,
}  # fmt: skip
PRACTICE = "practice"
BY_FEEL = ("handle", "fumble", "play", "survey", PRACTICE)
CAMERAS = {"reach": ("left", "right"), "push": ("left", "right"), "pick": ("left", "right", "wrist")}
HEARING = ("rate", "noise", "materials")


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


def check_strangers(folder: Path) -> None:
    """Refuse a folder with other files than those of a log.

    Raises:
        ValueError: If there are only others.
    """
    refuse_strangers(folder, "a log", lambda name: name in (SETTINGS, MANIFEST) or name.startswith("episode_"))


def settle(collection: Collection, folder: Path) -> None:
    """Note the settings beside a new log; refuse to mix other settings into an old one (more episodes may be added).

    A log without an episode takes new settings.
    """
    check_strangers(folder)
    path = folder / SETTINGS
    wanted = OmegaConf.to_container(OmegaConf.create(asdict(collection)))
    assert isinstance(wanted, dict)
    if path.exists() and any(folder.rglob("episode_*")):
        known = read_json_file(path)
        if not isinstance(known, dict):
            raise ValueError(f"{path} holds no settings: use another folder")
        found: dict[str, Any] = {**_defaults(), **known}  # older logs do not name them
        more = "labs" if has_labs(collection.task) else "episodes"
        other = [name for name in map(str, wanted) if name != more and found.get(name) != wanted[name]]
        if other:
            listed = ", ".join(f"{name}={found.get(name)} (asked for {wanted[name]})" for name in other)
            raise ValueError(f"{folder} was recorded with {listed}: use these settings or another folder")
        if type(found.get(more)) is not int or found[more] > wanted[more]:
            raise ValueError(f"{folder} holds {found.get(more)} {more}, asked for {wanted[more]}: use another folder")
    write_json(path, wanted)  # type: ignore[arg-type]


def _defaults() -> dict[str, Any]:
    """What older logs have where they do not say."""
    known = {one.name: one for one in fields(Collection)}
    return {name: {} if known[name].default is MISSING else known[name].default for name in LATER}


def collection_of(cfg: DictConfig) -> Collection:
    """What a command's options ask for; what they leave open follows from task and policy.

    Raises:
        ValueError: If an option cannot be used.
    """
    names = {field.name for field in fields(Collection)}
    plain = {name: value for name, value in OmegaConf.to_container(cfg, resolve=True).items() if name in names}  # type: ignore[union-attr]
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
    return Collection(**{**plain, **usual, "task": task, "cameras": tuple(cameras)})
