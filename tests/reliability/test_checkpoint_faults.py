"""Checkpoints that were mixed up, made by a stranger, or have rotted: refused with a reason, and nothing is run."""

from __future__ import annotations

import io
import json
import os
import pickle
import random
import resource
import shutil
import struct
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from omegaconf import OmegaConf
from yaml import YAMLError

from jepa_mpc.checkpoint import (
    CONFIG,
    MANIFEST,
    MODEL,
    load_checkpoint,
    load_part,
    load_strict,
    save_checkpoint,
)
from jepa_mpc.encoders.adapters.files import read_released
from jepa_mpc.errors import BadCheckpoint, BadEpisode
from jepa_mpc.reading import manifest_of
from jepa_mpc.trajectories.formats.npz import NpzStore
from jepa_mpc.world_model.checkpoints.loader import load_world_model
from tests import tiny

SIZES = [12, pytest.param(200, marks=pytest.mark.slow)]


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    return tiny.save(tmp_path_factory.mktemp("sound") / "model")


@pytest.fixture
def copied(sound, tmp_path):
    return Path(shutil.copytree(sound, tmp_path / "model"))


def noted_again(folder: Path) -> None:
    """A manifest that agrees with what lies in the folder now."""
    contents = {path.name: path.read_bytes() for path in folder.iterdir() if path.name != MANIFEST}
    (folder / MANIFEST).write_bytes(json.dumps(manifest_of(contents)).encode())


def weights_mutations() -> dict[str, Any]:
    """Each takes the weights of a sound world model and gives others."""

    def renamed(old: str, new: str) -> Any:
        return lambda w: {(new + k[len(old) :] if k.startswith(old) else k): v for k, v in w.items()}

    def other(name: str, change: Any) -> Any:
        return lambda w: {k: (change(v) if k == name else v) for k, v in w.items()}

    shapes = {name: weight.shape for name, weight in tiny.objective().state_dict().items()}
    names = sorted(shapes)
    oblong = [n for n in names if len(shapes[n]) == 2][:5]
    oblong = [n for n in oblong if shapes[n][0] != shapes[n][1]]
    chosen = random.Random(0).sample(names, 8)
    found: dict[str, Any] = {f"missing {n}": lambda w, n=n: {k: v for k, v in w.items() if k != n} for n in chosen}
    found |= {f"extra {n}": lambda w, n=n: w | {n: torch.zeros(2)} for n in ("encoder.more", "head.weight", "x")}
    found |= {f"all below {p}": lambda w, p=p: {p + k: v for k, v in w.items()} for p in ("module.", "backbone.")}
    found |= {f"{a} as {b}": renamed(a, b) for a, b in (("encoder.", "target."), ("predictor.", "encoder."))}
    found |= {"without a part": lambda w: {k: v for k, v in w.items() if not k.startswith("encoder.")}}
    found |= {f"transposed {n}": other(n, lambda v: v.T.contiguous()) for n in oblong}
    found |= {f"half {n}": other(n, lambda v: v.half()) for n in chosen[:4]}
    found |= {f"cut {n}": other(n, lambda v: v.reshape(-1)[:-1].clone()) for n in chosen[4:7]}
    return found


def config_mutations() -> dict[str, Any]:
    """Each changes the description of a sound world model in place."""

    def put(path: str, value: Any) -> Any:
        def change(config: dict[str, Any]) -> None:
            *way, last = path.split(".")
            for step in way:
                config = config[step]
            config[last] = value

        return change

    return {
        "other action width": put("system.action_dim", 6),
        "longer actions": put("system.action_dim", 9),
        "fewer action names": put("interface.actions", ["dx", "dy"]),
        "another encoder": put("system.encoder.widths", [8, 8, 8, 16]),
        "more keypoints": put("system.encoder.keypoints", 8),
        "one camera": put("system.encoder.num_cameras", 1),
        "no cameras": put("interface.cameras", []),
        "other preset": put("system.preset", "tiny"),
        "unknown preset": put("system.preset", "huge"),
        "another normaliser": put("system.preprocess.mean", [0.1, 0.1]),
        "no interface": put("interface", None),
        "stranger's part": put("system._target_", "os.system"),
    }


WEIGHTS, CONFIGS = weights_mutations(), config_mutations()


@pytest.mark.parametrize("name", WEIGHTS)
def test_weights_that_do_not_fit_are_refused_with_their_names(sound, tmp_path, name):
    weights, config = load_checkpoint(sound)
    save_checkpoint(tmp_path / "m", WEIGHTS[name](weights), config)
    with pytest.raises(BadCheckpoint, match="missing|unexpected|of another shape or dtype"):
        load_world_model(tmp_path / "m")


@pytest.mark.parametrize("name", CONFIGS)
def test_a_description_that_does_not_fit_is_refused(sound, tmp_path, name):
    weights, config = load_checkpoint(sound)
    CONFIGS[name](config)
    save_checkpoint(tmp_path / "m", weights, config)
    with pytest.raises(BadCheckpoint):
        load_world_model(tmp_path / "m")


def test_at_least_forty_mutations_are_tried():
    assert len(WEIGHTS) + len(CONFIGS) + 4 >= 40


@pytest.mark.parametrize("file", [MODEL, CONFIG])
@pytest.mark.parametrize("anew", [False, True], ids=["old_checksums", "new_checksums"])
def test_a_file_of_another_model_is_refused(copied, tmp_path, file, anew):
    other = tiny.save(tmp_path / "other", seed=1, dt_s=0.1)
    shutil.copy(other / file, copied / file)
    if anew:
        noted_again(copied)
    with pytest.raises(BadCheckpoint, match="SHA-256|cut short or too long|not the configuration"):
        load_world_model(copied)


def test_one_part_may_be_taken_alone_if_all_of_it_is_there(sound):
    weights, _ = load_checkpoint(sound)
    fresh = tiny.objective(seed=1).encoder
    load_part(fresh, weights, "encoder", "the encoder")
    assert all(torch.equal(value, weights[f"encoder.{name}"]) for name, value in fresh.state_dict().items())
    gone = next(name for name in weights if name.startswith("encoder."))
    short = {name: value for name, value in weights.items() if name != gone}
    with pytest.raises(BadCheckpoint, match=f"1 missing: {gone.removeprefix('encoder.')}"):
        load_part(fresh, short, "encoder", "the encoder")
    with pytest.raises(BadCheckpoint, match="no part 'soul'"):
        load_part(fresh, weights, "soul", "the encoder")


@pytest.mark.parametrize("flips", SIZES)
def test_every_flipped_bit_of_a_world_model_is_refused(copied, flips):
    chance, files = random.Random(1), sorted(copied.iterdir())
    refused = 0
    for _ in range(flips):
        path = chance.choice(files)
        whole = path.read_bytes()
        broken = bytearray(whole)
        broken[chance.randrange(len(whole))] ^= 1 << chance.randrange(8)
        path.write_bytes(broken)
        try:
            load_checkpoint(copied)
        except BadCheckpoint:
            refused += 1
        path.write_bytes(whole)
    assert refused == flips


class Trap:
    """Leaves a mark when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.mark),)


def hostile(kind: str, folder: Path, mark: Path) -> Any:
    """What tries to open a file of that kind; the file is made below `folder`."""
    trap = pickle.dumps(Trap(mark))
    match kind:
        case "pickle as weights":
            (folder / MODEL).write_bytes(trap)
            noted_again(folder)
        case "pickle as configuration":
            (folder / CONFIG).write_bytes(trap)
            noted_again(folder)
        case "header of 2^60 bytes":
            (folder / MODEL).write_bytes(struct.pack("<Q", 2**60) + b"{}")
            noted_again(folder)
        case "tensor of 2^60 numbers":
            header = json.dumps({"x": {"dtype": "F32", "shape": [2**60], "data_offsets": [0, 2**62]}}).encode()
            (folder / MODEL).write_bytes(struct.pack("<Q", len(header)) + header)
            noted_again(folder)
        case "path out of the folder":
            noted = json.loads((folder / MANIFEST).read_text())
            (folder / MANIFEST).write_text(json.dumps(noted | {"../../../etc/passwd": {"bytes": 1, "sha256": ""}}))
        case "brackets without end":
            (folder / CONFIG).write_text("[" * 10_000_000)
        case "device in place of weights":
            (folder / MODEL).unlink()
            (folder / MODEL).symlink_to("/dev/zero")
        case "target outside of the list":
            weights, config = load_checkpoint(folder)
            config["system"] = {"_target_": "os.mkdir", "path": str(mark)}
            save_checkpoint(folder, weights, config)
            return lambda: load_world_model(folder)
        case "pt with code":
            torch.save(Trap(mark), folder / "x.pt")
            return lambda: read_released(folder / "x.pt")
        case "pt that swells":
            with zipfile.ZipFile(folder / "x.pt", "w", zipfile.ZIP_DEFLATED) as archive:
                archive.writestr("x/data.pkl", trap)
                archive.writestr("x/data/0", bytes(200 * 2**20))
            return lambda: read_released(folder / "x.pt")
        case "npz with objects":
            log = folder / "log"
            log.mkdir()
            array = io.BytesIO()
            np.save(array, np.array([Trap(mark)], dtype=object), allow_pickle=True)
            with zipfile.ZipFile(log / "episode_000000.npz", "w") as archive:
                archive.writestr("action.npy", array.getvalue())
            return lambda: NpzStore(log).read(0, 0, 1, ["action"])
        case "yaml with a tag":
            (folder / "x.yaml").write_text(f"!!python/object/apply:os.mkdir ['{mark}']")
            return lambda: OmegaConf.load(folder / "x.yaml")
    return lambda: load_checkpoint(folder)


KINDS = (
    *("pickle as weights", "pickle as configuration", "header of 2^60 bytes", "tensor of 2^60 numbers"),
    *("path out of the folder", "brackets without end", "device in place of weights", "target outside of the list"),
    *("pt with code", "pt that swells", "npz with objects", "yaml with a tag"),
)


@pytest.mark.parametrize("kind", KINDS)
def test_a_hostile_file_is_refused_quickly_and_runs_nothing(copied, tmp_path, kind):
    mark = tmp_path / "mark"
    attempt = hostile(kind, copied, mark)
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    with pytest.raises((BadCheckpoint, BadEpisode, YAMLError)):
        attempt()
    assert not mark.exists()
    assert time.process_time() - start <= 2
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before <= 512 * 1024  # kB


def test_a_sound_world_model_still_loads(sound):
    model = load_world_model(sound)
    load_strict(model.objective, load_checkpoint(sound)[0], "itself")
    assert safetensors.torch.load_file(sound / MODEL).keys() == model.objective.state_dict().keys()
