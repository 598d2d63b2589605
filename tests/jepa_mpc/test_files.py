from __future__ import annotations

import errno
import os
import signal
from pathlib import Path

import pytest

from jepa_mpc.errors import Busy
from jepa_mpc.files import atomic_file, atomic_folder, only_writer, published, write_bytes, write_json, write_text


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flushing reveals that the disk is full."""

    def fsync(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fsync)


@pytest.fixture
def in_two_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """The file system cannot swap two folders in one step."""
    monkeypatch.setattr("jepa_mpc.files.exchange", lambda one, other: False)


def test_a_file_appears_with_its_parents(tmp_path):
    write_bytes(tmp_path / "a" / "b.bin", b"123")
    assert (tmp_path / "a" / "b.bin").read_bytes() == b"123"
    assert names(tmp_path / "a") == ["b.bin"]


def test_the_temporary_file_keeps_the_suffix(tmp_path):
    with atomic_file(tmp_path / "film.mp4") as temporary:
        assert temporary.suffix == ".mp4"
        assert temporary.parents[1] == tmp_path
        temporary.write_bytes(b"film")
    assert names(tmp_path) == ["film.mp4"]


def test_an_error_leaves_the_old_file_and_no_litter(tmp_path):
    write_text(tmp_path / "a.txt", "old")
    with pytest.raises(RuntimeError), atomic_file(tmp_path / "a.txt") as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert (tmp_path / "a.txt").read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_a_replaced_file_keeps_its_mode(tmp_path):
    write_text(tmp_path / "a.txt", "old")
    (tmp_path / "a.txt").chmod(0o640)
    write_text(tmp_path / "a.txt", "new")
    assert (tmp_path / "a.txt").stat().st_mode & 0o777 == 0o640


@pytest.mark.usefixtures("full_disk")
def test_a_full_disk_is_named_with_the_file_and_harms_nothing(tmp_path):
    (tmp_path / "a.txt").write_text("old")
    with pytest.raises(OSError, match="No space left on device") as caught:
        write_text(tmp_path / "a.txt", "new")
    assert caught.value.errno == errno.ENOSPC
    assert str(tmp_path / "a.txt") in str(caught.value)
    assert (tmp_path / "a.txt").read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(OSError, match="file/b.txt"):
        write_text(tmp_path / "file" / "b.txt", "new")


def test_json_refuses_what_is_no_json_before_it_writes(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", {"x": float("nan")})
    assert names(tmp_path) == []


def test_a_folder_is_replaced_as_a_whole(tmp_path):
    for content in ("one", "two"):
        with atomic_folder(tmp_path / "run") as temporary:
            (temporary / content).write_text(content)
    assert names(tmp_path) == ["run"]
    assert names(tmp_path / "run") == ["two"]


def test_an_error_leaves_the_old_folder_and_no_litter(tmp_path):
    with atomic_folder(tmp_path / "run") as temporary:
        (temporary / "old").write_text("old")
    with pytest.raises(RuntimeError), atomic_folder(tmp_path / "run") as temporary:
        (temporary / "new").write_text("half")
        raise RuntimeError
    assert names(tmp_path) == ["run"]
    assert names(tmp_path / "run") == ["old"]


def test_what_a_killed_writer_left_behind_is_ignored_and_cleared(tmp_path):
    (tmp_path / ".run.tmp").mkdir()
    (tmp_path / ".run.tmp" / "half").write_text("half")
    with atomic_folder(tmp_path / "run") as temporary:
        (temporary / "new").write_text("new")
    assert names(tmp_path) == ["run"]
    assert names(tmp_path / "run") == ["new"]


@pytest.mark.usefixtures("in_two_steps")
def test_a_swap_that_fails_puts_the_old_folder_back(tmp_path, monkeypatch):
    with atomic_folder(tmp_path / "run") as temporary:
        (temporary / "old").write_text("old")
    rename = os.rename

    def refuse_new(source: Path, target: Path) -> None:
        if source.parent.name == ".run.tmp":
            raise OSError(errno.EACCES, "not allowed")
        rename(source, target)

    monkeypatch.setattr(os, "rename", refuse_new)
    with pytest.raises(OSError, match="not allowed"), atomic_folder(tmp_path / "run") as temporary:
        (temporary / "new").write_text("new")
    assert names(tmp_path / "run") == ["old"]


def test_in_mid_swap_the_older_folder_is_found(tmp_path):
    assert published(tmp_path / "run") == tmp_path / "run"
    (tmp_path / ".run.previous").mkdir()
    assert published(tmp_path / "run") == tmp_path / ".run.previous"
    (tmp_path / "run").mkdir()
    assert published(tmp_path / "run") == tmp_path / "run"


def test_a_folder_that_another_process_writes_is_refused(tmp_path):
    with atomic_folder(tmp_path / "run") as temporary:
        (temporary / "first").write_text("first")
        with pytest.raises(Busy, match="another process is writing"), atomic_folder(tmp_path / "run"):
            pass
    assert names(tmp_path) == ["run"] and names(tmp_path / "run") == ["first"]


def test_a_held_folder_names_its_holder_and_is_free_after_it(tmp_path):
    with (
        only_writer(tmp_path / "run"),
        pytest.raises(Busy, match=f"process {os.getpid()}"),
        only_writer(tmp_path / "run"),
    ):
        pass
    with only_writer(tmp_path / "run"):
        pass


def test_the_lock_of_a_killed_process_is_taken_over(tmp_path):
    child = os.fork()
    if child == 0:
        with only_writer(tmp_path / "run"), atomic_folder(tmp_path / "model") as temporary:
            (temporary / "half").write_text("half")
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    with only_writer(tmp_path / "run"), atomic_folder(tmp_path / "model") as temporary:
        (temporary / "whole").write_text("whole")
    assert names(tmp_path / "model") == ["whole"]
