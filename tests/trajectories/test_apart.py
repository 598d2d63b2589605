"""Work on a file in a process of its own: what it sends, and how its crashes, loops and greed end."""

from __future__ import annotations

import os
import pickle
import signal
import time

import h5py
import numpy as np
import pytest

from jepa_mpc.errors import BadEpisode
from jepa_mpc.trajectories.formats import apart, open_log
from jepa_mpc.trajectories.formats.apart import Crash, ForkedReader, all_apart
from jepa_mpc.trajectories.formats.image_codec import encode_png


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "some.hdf5"
    path.write_bytes(b"bytes")
    return path


@pytest.fixture
def hasty(monkeypatch):
    """A second of CPU time is enough."""
    monkeypatch.setattr(apart, "GRACE_S", 0.0)


def forever(send):
    while True:
        pass


def test_values_and_arrays_arrive_as_they_were(file):
    sent = {"a": np.arange(6.0).reshape(2, 3).T, "b": np.zeros((3, 0), np.uint8), "c": np.array([True, False])}

    def work(send):
        for name, array in sent.items():
            send(name, array)
        return {"lengths": [1, 2], "none": None}

    ((value, arrays),) = all_apart([(file, work)])
    assert value == {"lengths": [1, 2], "none": None}
    assert arrays.keys() == sent.keys()
    for name, array in sent.items():
        assert arrays[name].dtype == array.dtype
        assert np.array_equal(arrays[name], array)
        assert arrays[name].flags.writeable


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGFPE, signal.SIGABRT])
def test_a_crash_is_told_and_the_next_file_is_read(file, number):
    def crash(send):
        os.kill(os.getpid(), number)

    first, second, third = all_apart([(file, lambda send: 1), (file, crash), (file, lambda send: 3)])
    assert (first[0], third[0]) == (1, 3)
    assert isinstance(second, Crash)
    assert str(second).startswith(f"some.hdf5: field 'file' crashes the library that reads it ({number.name})")


def test_a_loop_ends_and_the_next_file_has_time_of_its_own(file, hasty):
    first, second = all_apart([(file, forever), (file, lambda send: 2)])
    assert "busy for more than 1 s" in str(first)
    assert second[0] == 2


def test_a_crash_in_the_middle_of_an_array_is_one(file):
    def work(send):
        send("a", np.zeros(1 << 20))
        os.kill(os.getpid(), signal.SIGKILL)

    (answer,) = all_apart([(file, work)])
    assert isinstance(answer, Crash)


def test_memory_is_limited(file):
    more = apart._memory() + (300 << 20)  # free memory of this process is no growth

    def work(send):
        return len(bytearray(more))

    with pytest.raises(RuntimeError, match="MemoryError"):
        all_apart([(file, work)])


def test_refusals_are_told_and_mistakes_show_their_place(file):
    def refuse(send):
        raise BadEpisode("one sentence")

    (answer,) = all_apart([(file, refuse)])
    assert (type(answer), str(answer)) == (BadEpisode, "one sentence")
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        all_apart([(file, lambda send: 1 / 0)])


def number_of(request, send):
    """The number of the process that answers."""
    return os.getpid()


def gone(number):
    """Whether there is no such process, not even an ended one that nobody has waited for."""
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return True
    return False


def test_one_process_answers_until_it_is_idle_or_closed(file, monkeypatch):
    reader = ForkedReader(number_of)
    first = reader.ask(file, None)[0]
    assert first != os.getpid() and reader.ask(file, None)[0] == first
    reader.close()
    assert gone(first)
    monkeypatch.setattr(apart, "IDLE_S", 0.01)
    second = reader.ask(file, None)[0]
    time.sleep(0.2)
    third = reader.ask(file, None)[0]
    assert third not in (first, second) and gone(second)
    del reader
    assert gone(third)


def test_a_crash_starts_another_process_and_none_is_left_behind(file):
    def serve(request, send):
        if request == "crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        return os.getpid()

    reader = ForkedReader(serve)
    first = reader.ask(file, "")[0]
    with pytest.raises(Crash, match="SIGSEGV"):
        reader.ask(file, "crash")
    assert reader.ask(file, "")[0] != first and gone(first)


def test_a_forked_program_and_an_unpickled_reader_have_processes_of_their_own(file):
    reader = ForkedReader(number_of)
    first = reader.ask(file, None)[0]
    again = pickle.loads(pickle.dumps(reader))
    assert again.ask(file, None)[0] != first
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, str(reader.ask(file, None)[0]).encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert int(os.read(reading, 20)) != first
    assert reader.ask(file, None)[0] == first


def film(path, episodes=3):
    """Pictures of varying length: each is an object in the file's heap."""
    with h5py.File(path, "w") as opened:
        for index in range(episodes):
            opened[f"episode_{index}/action"] = np.zeros((4, 2), np.float32)
            cells = opened.create_dataset(f"episode_{index}/images/top", (4,), dtype=h5py.vlen_dtype(np.uint8))
            for step in range(4):
                cells[step] = np.frombuffer(encode_png(np.full((8, 8, 3), step, np.uint8)), np.uint8)
    return path


def test_an_open_log_can_be_pickled(tmp_path):
    log = open_log(film(tmp_path / "log.hdf5"))
    want = log.read(1, 0, 4, ["observation.images.top"])["observation.images.top"]
    again = pickle.loads(pickle.dumps(log)).read(1, 0, 4, ["observation.images.top"])["observation.images.top"]
    assert np.array_equal(again, want) and want[3, 0, 0, 0] == 3


def endless(path):
    """The heap's first object becomes a free one of size 0: libhdf5 looks for the next at the same place, for ever."""
    data = bytearray(path.read_bytes())
    first = data.index(b"GCOL") + 16
    data[first : first + 16] = bytes(16)
    path.write_bytes(data)
    return path


def test_a_heap_in_which_the_library_loops_is_refused_once_for_all_episodes(tmp_path, hasty):
    path = endless(film(tmp_path / "log.hdf5"))
    begun = sum(os.times()[:4])
    with pytest.raises(BadEpisode, match=r"log.hdf5: .*busy for more than 1 s") as told:
        open_log(path)
    assert "\n" not in str(told.value)
    assert sum(os.times()[:4]) - begun < 2.5  # not once per episode


def test_one_file_in_which_the_library_loops_is_one_damaged_episode(tmp_path, hasty):
    paths = [film(tmp_path / f"episode_{index}.hdf5", episodes=1) for index in range(3)]
    endless(paths[1])
    log = open_log(tmp_path)
    assert log.read(2, 0, 4, list(log.fields))["observation.images.top"][3, 0, 0, 0] == 3
    with pytest.raises(BadEpisode, match="busy for more than 1 s"):
        log.read(1, 0, 4, list(log.fields))
