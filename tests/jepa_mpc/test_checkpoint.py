from __future__ import annotations

import json
import multiprocessing
import random
import resource
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from jepa_mpc.checkpoint import (
    CONFIG,
    FORMAT_VERSION,
    MANIFEST,
    MODEL,
    checkpoint_hash,
    load_checkpoint,
    load_strict,
    pack_state,
    part_hashes,
    save_checkpoint,
    unpack_state,
)
from jepa_mpc.errors import BadCheckpoint
from jepa_mpc.reading import manifest_of
from jepa_mpc.seeding import generator
from jepa_mpc.trajectories.synthetic import synthetic_log

SIZE = 200_000
FORKED = multiprocessing.get_context("fork")


def write_on(folder: Path, step: int) -> None:
    """Save one checkpoint after the other until the process is killed."""
    torch.set_num_threads(1)  # a forked process has none of the parent's threads and would wait for them
    while True:
        step += 1
        save_checkpoint(folder, {"x": torch.full((SIZE,), float(step))}, {"step": step})


@contextmanager
def writer(folder: Path, step: int) -> Iterator[None]:
    """A process that goes on writing and is killed, wherever it is, at the end."""
    process = FORKED.Process(target=write_on, args=(folder, step))
    process.start()
    try:
        yield
    finally:
        process.kill()
        process.join()


def load_newer(folder: Path, last: int) -> int:
    tensors, config = load_checkpoint(folder)
    assert (tensors["x"] == config["step"]).all(), "a mixture of two checkpoints"
    assert config["step"] >= last, "an older checkpoint came back"
    return int(config["step"])


def tensors() -> dict[str, Tensor]:
    return {"weight": torch.randn(3, 2, generator=generator(0)), "count": torch.tensor(7)}


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    save_checkpoint(tmp_path / "model", tensors(), {"width": 3})
    return tmp_path / "model"


@contextmanager
def largest_file(num_bytes: int) -> Iterator[None]:
    """Let no file grow beyond a size: the operating system refuses the next byte as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) and a[key].dtype == b[key].dtype for key in a)


def test_what_was_saved_comes_back_bit_for_bit(saved):
    loaded, config = load_checkpoint(saved)
    assert same(loaded, tensors())
    assert config == {"width": 3}


def test_the_folder_holds_three_files_and_the_versions(saved):
    assert sorted(path.name for path in saved.iterdir()) == sorted([MODEL, CONFIG, MANIFEST])
    written = json.loads((saved / CONFIG).read_text())
    assert written["format_version"] == FORMAT_VERSION
    assert written["versions"]["torch"] == torch.__version__


def test_tensors_that_share_memory_are_saved(tmp_path):
    weight = torch.randn(4, 4, generator=generator(0))
    save_checkpoint(tmp_path / "m", {"a": weight, "b": weight, "t": weight.T}, {})
    loaded, _ = load_checkpoint(tmp_path / "m")
    assert torch.equal(loaded["a"], loaded["b"])
    assert torch.equal(loaded["t"], weight.T)


def test_the_hash_names_the_content(saved, tmp_path):
    save_checkpoint(tmp_path / "same", tensors(), {"width": 3})
    save_checkpoint(tmp_path / "other", tensors(), {"width": 4})
    assert checkpoint_hash(saved) == checkpoint_hash(tmp_path / "same") != checkpoint_hash(tmp_path / "other")
    assert len(checkpoint_hash(saved)) == 12


def test_every_one_of_200_flipped_bits_is_refused(saved):
    chance = random.Random(0)
    files = sorted(saved.iterdir())
    for _ in range(200):
        path = chance.choice(files)
        sound = path.read_bytes()
        broken = bytearray(sound)
        broken[chance.randrange(len(sound))] ^= 1 << chance.randrange(8)
        path.write_bytes(broken)
        with pytest.raises(BadCheckpoint):
            load_checkpoint(saved)
        path.write_bytes(sound)
    load_checkpoint(saved)


@pytest.mark.parametrize("name", [MODEL, CONFIG, MANIFEST])
@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_truncated_file_is_refused_by_name(saved, name, share):
    data = (saved / name).read_bytes()
    (saved / name).write_bytes(data[: int(share * len(data))])
    with pytest.raises(BadCheckpoint, match=name):
        load_checkpoint(saved)


@pytest.mark.parametrize("name", [MODEL, CONFIG, MANIFEST])
def test_a_missing_file_is_named(saved, name):
    (saved / name).unlink()
    with pytest.raises(BadCheckpoint, match=f"incomplete: {name} is missing"):
        load_checkpoint(saved)


def test_a_missing_folder_is_named(tmp_path):
    for read in (load_checkpoint, checkpoint_hash):
        with pytest.raises(BadCheckpoint, match="no checkpoint at .*nowhere"):
            read(tmp_path / "nowhere")


def test_a_newer_format_is_refused_with_both_versions(saved):
    written = json.loads((saved / CONFIG).read_text()) | {"format_version": 42}
    (saved / CONFIG).write_text(json.dumps(written))
    with pytest.raises(BadCheckpoint, match=f"format 42, .* up to format {FORMAT_VERSION}"):
        load_checkpoint(saved)


def noted_again(folder: Path) -> None:
    """Write a manifest that agrees with what lies in the folder now."""
    contents = {path.name: path.read_bytes() for path in folder.iterdir() if path.name != MANIFEST}
    (folder / MANIFEST).write_bytes(json.dumps(manifest_of(contents)).encode())


def test_a_pickle_in_place_of_the_weights_is_refused_and_not_run(saved):
    torch.save({"weight": torch.zeros(2)}, saved / MODEL)
    noted_again(saved)
    with pytest.raises(BadCheckpoint, match="not a safetensors file"):
        load_checkpoint(saved)


def test_a_configuration_that_is_no_json_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(TypeError):
        save_checkpoint(tmp_path / "m", tensors(), {"width": object()})
    assert not list(tmp_path.iterdir())


def test_weights_of_another_model_are_refused_even_if_the_checksums_were_made_anew(saved, tmp_path):
    save_checkpoint(tmp_path / "other", {"weight": torch.ones(3, 2), "count": torch.tensor(7)}, {"width": 3})
    shutil.copy(tmp_path / "other" / MODEL, saved / MODEL)
    noted_again(saved)
    with pytest.raises(BadCheckpoint, match="not the configuration"):
        load_checkpoint(saved)


def test_another_configuration_is_refused_even_if_the_checksums_were_made_anew(saved):
    written = json.loads((saved / CONFIG).read_text())
    (saved / CONFIG).write_text(json.dumps(written | {"config": {"width": 4}}))
    noted_again(saved)
    with pytest.raises(BadCheckpoint, match="not the configuration"):
        load_checkpoint(saved)


def test_the_hash_of_a_part_tells_one_value_from_another():
    one = {"encoder.weight": torch.zeros(2), "encoder.bias": torch.zeros(1), "head.weight": torch.zeros(2)}
    other = one | {"encoder.bias": torch.full((1,), 1e-30)}
    assert part_hashes(one).keys() == {"encoder", "head"}
    assert part_hashes(one)["head"] == part_hashes(other)["head"]
    assert part_hashes(one)["encoder"] != part_hashes(other)["encoder"]


def test_further_files_travel_with_their_checksums(tmp_path):
    save_checkpoint(tmp_path / "m", tensors(), {}, files={"README.md": b"hello"})
    load_checkpoint(tmp_path / "m")
    (tmp_path / "m" / "README.md").write_bytes(b"hallo")
    with pytest.raises(BadCheckpoint, match="README.md is damaged"):
        load_checkpoint(tmp_path / "m")


@pytest.mark.parametrize("name", ["../out", MODEL, "", "a/b"])
def test_a_further_file_needs_a_plain_name_of_its_own(tmp_path, name):
    with pytest.raises(ValueError, match="name"):
        save_checkpoint(tmp_path / "m", tensors(), {}, files={name: b""})


def test_a_checkpoint_of_the_first_format_still_loads(tmp_path):
    folder = tmp_path / "first"
    folder.mkdir()
    described = {"format_version": 1, "versions": {"jepa-mpc": "0.1.0"}, "config": {"width": 3}}
    (folder / CONFIG).write_text(json.dumps(described))
    (folder / MODEL).write_bytes(safetensors.torch.save(tensors()))
    noted_again(folder)
    loaded, config = load_checkpoint(folder)
    assert same(loaded, tensors()) and config == {"width": 3}


def test_a_folder_with_other_files_is_not_overwritten(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(FileExistsError, match="files other than"):
        save_checkpoint(tmp_path, tensors(), {})
    assert (tmp_path / "thesis.txt").exists()


def test_a_log_is_no_checkpoint_to_write_over(tmp_path):
    log = synthetic_log(tmp_path / "log", episodes=2)
    before = {path: path.read_bytes() for path in log.iterdir()}
    with pytest.raises(FileExistsError, match="files other than a checkpoint"):
        save_checkpoint(log, tensors(), {})
    assert {path: path.read_bytes() for path in log.iterdir()} == before


@pytest.mark.parametrize("num_bytes", [0, 1, 50, 150, 250, 300])
def test_a_full_disk_leaves_the_previous_checkpoint(saved, num_bytes):
    before = checkpoint_hash(saved)
    with largest_file(num_bytes), pytest.raises(OSError, match=str(saved)):
        save_checkpoint(saved, {"weight": torch.zeros(1000)}, {"width": 4})
    assert checkpoint_hash(saved) == before
    assert same(load_checkpoint(saved)[0], tensors())
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]


def test_a_reader_sees_whole_checkpoints_although_the_writer_is_killed_20_times(tmp_path):
    folder, chance, step = tmp_path / "model", random.Random(0), 0
    save_checkpoint(folder, {"x": torch.zeros(SIZE)}, {"step": 0})
    for _ in range(20):
        with writer(folder, step):
            time.sleep(chance.uniform(0.0, 0.1))
        step = load_newer(folder, step)
    assert step > 0


def test_a_reader_beside_a_writer_sees_whole_checkpoints_200_times(tmp_path):
    folder, step = tmp_path / "model", 0
    save_checkpoint(folder, {"x": torch.zeros(SIZE)}, {"step": 0})
    with writer(folder, 0):
        for _ in range(200):
            step = load_newer(folder, step)
    assert step > 0


def test_a_reader_finds_the_older_checkpoint_in_mid_swap(saved):
    shutil.move(saved, saved.with_name(".model.previous"))
    assert same(load_checkpoint(saved)[0], tensors())


def test_strict_loading_copies_weights_that_fit():
    source, target = nn.Linear(3, 2), nn.Linear(3, 2)
    load_strict(target, source.state_dict(), "head")
    assert torch.equal(source.weight, target.weight)


def test_strict_loading_lists_every_fault_and_changes_nothing():
    target = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2))
    before = {key: value.clone() for key, value in target.state_dict().items()}
    tensors = dict(target.state_dict()) | {"0.weight": torch.zeros(2, 3).T, "1.bias": torch.zeros(2).half()}
    tensors["module.1.weight"] = tensors.pop("1.weight")
    with pytest.raises(BadCheckpoint) as caught:
        load_strict(target, tensors, "the head")
    message = str(caught.value)
    assert "do not fit the head" in message
    assert "1 missing: 1.weight;" in message
    assert "1 unexpected: module.1.weight;" in message
    assert "0.weight (expected (2, 3) float32, got (3, 2) float32)" in message
    assert "1.bias (expected (2,) float32, got (2,) float16)" in message
    assert same(before, dict(target.state_dict()))


def test_an_optimiser_goes_on_bit_for_bit_after_a_round_trip(tmp_path):
    def step(network: nn.Module, optimiser: torch.optim.Optimizer) -> None:
        optimiser.zero_grad()
        network(torch.ones(1, 3)).square().sum().backward()
        optimiser.step()

    network = nn.Linear(3, 2)
    optimiser = torch.optim.AdamW(network.parameters(), lr=0.1)
    step(network, optimiser)
    packed, layout = pack_state({"network": network.state_dict(), "optimiser": optimiser.state_dict()})
    save_checkpoint(tmp_path / "m", packed, {"layout": layout})
    step(network, optimiser)

    loaded, config = load_checkpoint(tmp_path / "m")
    state = unpack_state(loaded, config["layout"])
    twin = nn.Linear(3, 2)
    load_strict(twin, state["network"], "twin")
    twin_optimiser = torch.optim.AdamW(twin.parameters(), lr=0.5)
    twin_optimiser.load_state_dict(state["optimiser"])
    step(twin, twin_optimiser)
    assert torch.equal(network.weight, twin.weight)


def test_a_random_stream_goes_on_after_a_round_trip(tmp_path):
    stream = generator(3)
    packed, layout = pack_state({"stream": stream.get_state()})
    save_checkpoint(tmp_path / "m", packed, {"layout": layout})
    wanted = torch.rand(4, generator=stream)
    loaded, config = load_checkpoint(tmp_path / "m")
    twin = generator(9)
    twin.set_state(unpack_state(loaded, config["layout"])["stream"])
    assert torch.equal(torch.rand(4, generator=twin), wanted)


def test_every_kind_of_value_survives_packing():
    state = {
        "numbers": (1, True, None, 0.1, float("inf"), "text"),
        3: [{"a": {"b": torch.ones(1)}, "a.b": torch.zeros(1)}],
        "empty": {},
    }
    packed, layout = pack_state(state)
    back = unpack_state(packed, json.loads(json.dumps(layout, allow_nan=False)))
    assert back["numbers"] == state["numbers"]
    assert back["empty"] == {}
    assert back[3][0]["a"]["b"] == 1
    assert back[3][0]["a.b"] == 0


def test_packing_names_the_place_of_what_cannot_last():
    with pytest.raises(TypeError, match=r"state\.a\.0 is a object"):
        pack_state({"a": [object()]})


@pytest.mark.parametrize("layout", [{"tensor": "gone"}, {"mapping": [[1]]}, {"other": 1}, [1]])
def test_a_damaged_layout_is_refused(layout):
    with pytest.raises(BadCheckpoint):
        unpack_state({}, layout)
