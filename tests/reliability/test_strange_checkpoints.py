"""Checkpoints that describe something gigantic, sick or impossible: one sentence, at once, in little memory."""

from __future__ import annotations

import copy
import json
import os
import pickle
import random
import re
import resource
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from torch import nn

from jepa_mpc.checkpoint import CONFIG, MANIFEST, MODEL, checkpoint_hash, load_checkpoint, save_checkpoint
from jepa_mpc.encoders.adapters.files import read_released
from jepa_mpc.errors import BadCheckpoint
from jepa_mpc.reading import manifest_of
from jepa_mpc.strict import kind_of
from jepa_mpc.types import ActionBox
from jepa_mpc.world_model.checkpoints.assembly import assemble
from jepa_mpc.world_model.checkpoints.blueprint import blueprint
from jepa_mpc.world_model.checkpoints.loader import load_world_model
from tests import tiny

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
MB = 2**20
MOST_MB, MOST_S = 256, 5.0
VIT = {
    "_target_": "vision_transformer",
    "sizes": {
        "_target_": "vit_sizes",
        "image": 32,
        "patch": 4,
        "width": 64,
        "depth": 2,
        "heads": 2,
        "mlp_dim": 64,
        "channels": 6,
    },
}


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    return tiny.save(tmp_path_factory.mktemp("sound") / "model")


@pytest.fixture
def copied(sound, tmp_path):
    return Path(shutil.copytree(sound, tmp_path / "model"))


def described(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """The same weights under another description."""
    tensors, config = load_checkpoint(folder)
    change(config)
    save_checkpoint(folder, tensors, config)


def noted_again(folder: Path, **entries: Any) -> None:
    """A manifest that agrees with what lies in the folder now; entries given are noted as they are."""
    contents = {p.name: p.read_bytes() for p in folder.iterdir() if p.name not in (MANIFEST, *entries)}
    (folder / MANIFEST).write_text(json.dumps(manifest_of(contents) | entries))


def written_header(folder: Path, header: Any, *, size: int | None = None) -> None:
    """Weights whose file has another header; with a size, the rest is a hole that takes no room on the disk."""
    data = header if isinstance(header, bytes) else json.dumps(header).encode()
    with (folder / MODEL).open("wb") as file:
        file.write(len(data).to_bytes(8, "little") + data)
        if size is not None:
            file.truncate(8 + len(data) + size)
    if size is None:
        noted_again(folder)
    else:
        noted_again(folder, **{MODEL: {"bytes": 8 + len(data) + size, "sha256": "0" * 64}})


def header_of(folder: Path) -> dict[str, Any]:
    data = (folder / MODEL).read_bytes()
    header: dict[str, Any] = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    return header


def refusal(work: Callable[[], Any]) -> str:
    """What a child process is told when it is refused; it may take neither long nor much memory."""
    reading, writing = os.pipe()
    number = os.fork()
    if number == 0:
        before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
        try:
            work()
            said = "nothing was refused"
        except BadCheckpoint as error:
            said = str(error)
        except BaseException as error:  # noqa: BLE001  the parent tells it
            said = f"{type(error).__name__} raised: {error}"
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024
        os.write(writing, json.dumps([said, grown, time.process_time() - start]).encode())
        os._exit(0)
    os.waitpid(number, 0)
    os.close(writing)
    with os.fdopen(reading) as told:
        said, grown, seconds = json.loads(told.read())
    assert grown <= MOST_MB, f"{grown} MB: {said}"
    assert seconds <= MOST_S, f"{seconds} s: {said}"
    assert "\n" not in said
    return str(said)


def vit(**sizes: int) -> Callable[[dict[str, Any]], None]:
    encoder = copy.deepcopy(VIT)
    encoder["sizes"].update(sizes)  # type: ignore[attr-defined]
    return lambda config: config["system"].update(encoder=encoder)


def many(config: dict[str, Any]) -> None:
    config["systems"] = [config.pop("system")] * 3000


GIGANTIC: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "a million blocks": (vit(depth=1_000_000), "more than [0-9]+ parts, far more than its weights"),
    "pictures of 30000 px": (vit(image=30_000), "a tensor of 14.4 GB"),
    "blocks as wide as a billion": (vit(width=10**9), "a tensor of"),
    "a hundred thousand convolutions": (
        lambda config: config["system"]["encoder"].update(widths=[8] * 100_000),
        "does not describe|more than|do not fit",
    ),
    "3000 systems": (many, "describes 3000 networks"),
    "an interface of 30000 px": (lambda config: config["interface"].update(image_size=30_000), "own interface"),
    "a thousand cameras": (lambda config: config["interface"].update(cameras=["c"] * 100_000), "own interface"),
}


@pytest.mark.parametrize("name", GIGANTIC)
def test_a_gigantic_network_is_refused_before_memory_is_spent_on_it(copied, name):
    change, words = GIGANTIC[name]
    described(copied, change)
    said = refusal(lambda: load_world_model(copied))
    assert re.search(words, said), said


def test_weights_of_60_gb_that_take_no_room_on_the_disk_are_refused(copied, monkeypatch):
    header = header_of(copied)
    name = next(key for key in sorted(header) if key != "__metadata__")
    header = {name: {"dtype": "F32", "shape": [15 * 10**9], "data_offsets": [0, 60 * 10**9]}} | {
        "__metadata__": header["__metadata__"]
    }
    written_header(copied, header, size=60 * 10**9)
    assert "these weights do not fit" in refusal(lambda: load_world_model(copied))
    monkeypatch.setattr("jepa_mpc.reading._free_bytes", lambda: 10**9)
    assert "needs 120.0 GB of memory" in refusal(lambda: load_checkpoint(copied))


def test_a_world_model_is_loaded_in_twice_its_size(tmp_path):
    system = tiny.system()
    system["encoder"]["hidden"] = 2048  # 17 MB
    model = assemble(system)
    save_checkpoint(tmp_path / "large", model.state_dict(), {"system": system, "interface": tiny.interface().to_dict()})
    size = (tmp_path / "large" / MODEL).stat().st_size
    assert size > 16 * MB
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    load_world_model(tmp_path / "large")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before <= 2 * size + MOST_MB * MB


def systems() -> dict[str, Any]:
    found = {"tiny": tiny.SYSTEM}
    with initialize_config_dir(str(CONFIGS), version_base=None):
        for path in sorted((CONFIGS / "system").glob("*.yaml")):
            measured = ["system.action_dim=2", "system.preprocess.size=[3,64,64]"]  # else as in the log
            made = compose("train", [f"system={path.stem}", *(measured if path.stem.startswith("environment") else [])])
            found[path.stem] = OmegaConf.to_container(made.system, resolve=True)
    return found


def test_every_system_has_a_blueprint_with_the_shapes_of_the_network_itself():
    for name, system in systems().items():
        drawn = blueprint(system, name, num_tensors=2000, num_bytes=10**9)
        kinds = {key: kind_of(tensor.shape, tensor.dtype) for key, tensor in drawn.state_dict().items()}
        assert kinds, name
        if sum(tensor.nbytes for tensor in drawn.state_dict().values()) < 8 * MB:
            built = assemble(system).state_dict()
            assert kinds == {key: kind_of(tensor.shape, tensor.dtype) for key, tensor in built.items()}, name


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_finite_are_refused_by_name(sound, tmp_path, value):
    weights, config = load_checkpoint(sound)
    name = sorted(weights)[3]
    weights[name].view(-1)[0] = value
    save_checkpoint(tmp_path / "sick", weights, config)
    with pytest.raises(BadCheckpoint, match=f"NaN or infinite numbers in 1 tensors: {name}"):
        load_world_model(tmp_path / "sick")


@pytest.mark.parametrize("dt_s", ["nan", "inf", -0.24, 0])
def test_steps_that_take_no_time_are_refused(copied, dt_s):
    described(copied, lambda config: config["interface"].update(dt_s=dt_s))
    with pytest.raises(BadCheckpoint, match="dt_s must be a positive number of seconds"):
        load_world_model(copied)


def test_a_robot_without_a_rate_is_refused(sound):
    model = load_world_model(sound)
    robot = {"cameras": ("left", "right"), "image_size": tiny.SIZE}
    box = ActionBox(low=torch.full((7,), -0.05), high=torch.full((7,), 0.05))
    with pytest.raises(BadCheckpoint, match="the robot has steps of nan s"):
        model.check_robot(box=box, dt_s=float("nan"), **robot)


HEADERS: dict[str, Any] = {
    "notes that are null": {"__metadata__": None},
    "notes that are numbers": {"__metadata__": {CONFIG: 3}},
    "brackets without end": b"[" * 100_000,
    "a list": [],
    "a tensor without a shape": {"x": {"dtype": "F32", "data_offsets": [0, 0]}},
    "a shape of words": {"x": {"dtype": "F32", "shape": ["a"], "data_offsets": [0, 0]}},
    "a negative shape": {"x": {"dtype": "F32", "shape": [-1, -1], "data_offsets": [0, 4]}},
    "an unknown dtype": {"x": {"dtype": "F1", "shape": [0], "data_offsets": [0, 0]}},
    "half a surrogate pair": {"\ud800": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}},
    "no header": b"",
    "a name twice": b'{"x":{"dtype":"F32","shape":[0]},"x":{"dtype":"F32","shape":[0]}}',
    "sizes without end": b'{"x":{"dtype":"F32","shape":[' + b",".join([b"9"] * 1_000_000) + b"]}}",
    "values without end": b'{"x":[' + b",".join([b"[]"] * 7_000_000) + b"]}",
}


@pytest.mark.parametrize("name", HEADERS)
def test_a_strange_header_is_told_in_one_sentence(copied, name):
    written_header(copied, HEADERS[name])
    assert "is not a safetensors file" in refusal(lambda: load_world_model(copied))


def strange_place(kind: str, folder: Path) -> Path:
    """A checkpoint that cannot be read because of what stands in the place of its files."""
    match kind:
        case "folder in a circle":
            (folder.parent / "a").symlink_to(folder.parent / "b")
            (folder.parent / "b").symlink_to(folder.parent / "a")
            return folder.parent / "a"
        case "weights in a circle":
            (folder / MODEL).unlink()
            (folder / MODEL).symlink_to(MODEL)
        case "pipe in place of the manifest":
            (folder / MANIFEST).unlink()
            os.mkfifo(folder / MANIFEST)
        case "pipe in place of the weights":
            (folder / MODEL).unlink()
            os.mkfifo(folder / MODEL)
        case "surrogate in the manifest":
            noted_again(folder, **{"\ud800": {"bytes": 1, "sha256": ""}})
        case "name of 300 letters in the manifest":
            noted_again(folder, **{"x" * 300: {"bytes": 1, "sha256": ""}})
        case "sizes that are words":
            noted_again(folder, **{MODEL: {"bytes": "many", "sha256": ""}})
        case "manifest of lists":
            (folder / MANIFEST).write_text(json.dumps({name: [] for name in (MODEL, CONFIG)}))
        case "configuration 900 lists deep":
            text = (
                (folder / CONFIG)
                .read_text()
                .replace('"system": {', '"deep": ' + "[" * 900 + "]" * 900 + ', "system": {')
            )
            (folder / CONFIG).write_text(text)
            noted_again(folder)
        case "path with a zero byte":
            return Path("a\0b")
        case "path that is no text":
            return Path("\ud800")
        case "path of 5000 letters":
            return Path("a" * 5000)
        case "configuration of twenty million lists":
            (folder / CONFIG).write_bytes(b'{"config": [' + b",".join([b"[]"] * 20_000_000) + b"]}")
            noted_again(folder)
        case "manifest that names a file twice":
            text = (folder / MANIFEST).read_text().strip()
            (folder / MANIFEST).write_text(text[:-1] + "," + text[1:])
    return folder


PLACES = (
    *("folder in a circle", "weights in a circle", "pipe in place of the manifest", "pipe in place of the weights"),
    *("surrogate in the manifest", "name of 300 letters in the manifest", "sizes that are words"),
    *("manifest of lists", "configuration 900 lists deep", "path with a zero byte", "path that is no text"),
    *("path of 5000 letters", "configuration of twenty million lists", "manifest that names a file twice"),
)


@pytest.mark.parametrize("kind", PLACES)
def test_what_cannot_be_read_is_told_in_one_sentence(copied, kind):
    place = strange_place(kind, copied)
    said = refusal(lambda: load_world_model(place))
    assert "raised" not in said and "nothing was refused" not in said, said


def test_a_configuration_that_nobody_could_read_again_is_not_written(copied):
    before = checkpoint_hash(copied)
    with pytest.raises(ValueError, match="could not be read again: it is nested too deep"):
        described(copied, lambda config: config.update(system=json.loads("[" * 900 + "]" * 900)))
    with pytest.raises(ValueError, match="could not be read again"):
        described(copied, lambda config: config.update(note="\ud800"))
    assert checkpoint_hash(copied) == before


@pytest.mark.usefixtures("copied")
def test_the_hash_of_a_place_that_cannot_be_read_is_refused_too(tmp_path):
    with pytest.raises(BadCheckpoint, match="no checkpoint|cannot be read"):
        checkpoint_hash(strange_place("folder in a circle", tmp_path / "model"))


OBJECTS: dict[str, Callable[[Path], Any]] = {
    "a module": lambda path: torch.save(nn.Linear(2, 2), path),
    "a module in a table": lambda path: torch.save({"model": nn.Linear(2, 2)}, path),
    "a module in the old layout": lambda path: torch.save(nn.Linear(2, 2), path, _use_new_zipfile_serialization=False),
    "a plain pickle": lambda path: path.write_bytes(pickle.dumps({"a": 1}, protocol=2)),
    "numbers as names": lambda path: torch.save({1: torch.zeros(1)}, path),
    "a list": lambda path: torch.save([torch.zeros(1)], path),
    "text": lambda path: path.write_text("hello"),
    "nothing": lambda path: path.write_bytes(b""),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", OBJECTS)
def test_objects_in_place_of_tensors_are_told_in_one_sentence(tmp_path, name):
    OBJECTS[name](tmp_path / "x.pt")
    said = refusal(lambda: read_released(tmp_path / "x.pt"))
    assert "cannot be read as weights" in said or "should hold a table" in said or "holds no encoder" in said, said


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("count", [40, pytest.param(500, marks=pytest.mark.slow)])
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "old_layout"])
def test_damaged_files_of_a_trainer_raise_nothing_raw(tmp_path, count, zipped):
    torch.save({"encoder": nn.Linear(3, 2).state_dict()}, tmp_path / "x.pt", _use_new_zipfile_serialization=zipped)
    whole, chance = (tmp_path / "x.pt").read_bytes(), random.Random(0)
    refused = 0
    for index in range(count):
        broken = bytearray(whole)
        for _ in range(chance.randrange(1, 4)):
            broken[chance.randrange(len(broken))] ^= 1 << chance.randrange(8)
        (tmp_path / "y.pt").write_bytes(broken[: chance.randrange(len(broken))] if index % 3 == 0 else broken)
        try:
            read_released(tmp_path / "y.pt")
        except BadCheckpoint as error:
            refused += 1
            assert "\n" not in str(error)
    assert refused >= count // 3


@pytest.mark.parametrize("listed", [[], None, {"a": 1}, {"a": "../../secret"}])
def test_an_index_that_leads_elsewhere_is_refused(tmp_path, listed):
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": listed}))
    with pytest.raises(BadCheckpoint, match="should map tensors to files beside it"):
        read_released(tmp_path)
