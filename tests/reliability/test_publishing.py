"""Whatever happens to a writer, and however many there are: readers see the old or the new, whole."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from jepa_mpc.checkpoint import MANIFEST, checkpoint_hash, load_checkpoint, open_checkpoint, save_checkpoint
from jepa_mpc.errors import Busy
from jepa_mpc.files import atomic_file, atomic_folder, published, write_text
from jepa_mpc.reporting.video import VideoWriter
from tests.reliability import publisher

READS = [150, pytest.param(10_000, marks=pytest.mark.slow)]
LEAST_KILLS = {"checkpoint": 20, "dataset": 20, "report": 20, "film": 9}


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


@pytest.fixture(params=["one_step", "two_steps"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How the file system can put a folder in the place of another."""
    if request.param == "two_steps":
        monkeypatch.setattr("jepa_mpc.files.exchange", lambda one, other: False)
    return request.param


@pytest.mark.parametrize("what", publisher.WHAT)
def test_a_writer_killed_before_any_step_leaves_the_old_or_the_new(tmp_path, what):
    assert publisher.killed(tmp_path, what) >= LEAST_KILLS[what]


def test_the_same_where_folders_cannot_be_swapped_in_one_step(tmp_path, monkeypatch):
    monkeypatch.setattr("jepa_mpc.files.exchange", lambda one, other: False)
    assert publisher.killed(tmp_path, "checkpoint") >= LEAST_KILLS["checkpoint"]


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("reads", READS)
def test_a_reader_beside_two_writers_sees_whole_checkpoints(tmp_path, reads):
    publisher.raced(tmp_path, reads)


@pytest.mark.usefixtures("way")
def test_a_draft_that_came_after_publishing_is_another_writers_and_stays(tmp_path, monkeypatch):
    """The first writer is held up after its last rename, while a second one begins and fills its own draft."""
    second = atomic_folder(tmp_path / "model")
    drafts: list[Path] = []
    removal = os.rmdir

    def slow(path, **where) -> None:
        removal(path, **where)
        if str(path).endswith(".model.tmp") and not drafts:
            drafts.append(second.__enter__())
            (drafts[0] / "second").write_text("second")

    with monkeypatch.context() as patched:
        patched.setattr(os, "rmdir", slow)
        with atomic_folder(tmp_path / "model") as draft:
            (draft / "first").write_text("first")
    assert names(tmp_path / "model") == ["first"]
    assert names(drafts[0]) == ["second"]
    second.__exit__(None, None, None)
    assert names(tmp_path / "model") == ["second"] and names(tmp_path) == ["model"]


def test_a_second_writer_is_told_that_the_first_is_busy(tmp_path):
    save_checkpoint(tmp_path / "model", {"x": torch.zeros(1)}, {})
    with (
        atomic_folder(tmp_path / "model") as draft,
        pytest.raises(Busy, match=r"another process is writing .*model: wait for it"),
    ):
        assert draft.is_dir()
        save_checkpoint(tmp_path / "model", {"x": torch.ones(1)}, {})
    assert names(tmp_path) == ["model"]


def test_threads_that_write_one_file_do_not_disturb_each_other(tmp_path):
    texts = [str(number) * 20_000 for number in range(8)]
    writers = [threading.Thread(target=write_text, args=(tmp_path / "a.txt", text)) for text in texts]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert (tmp_path / "a.txt").read_text() in texts and names(tmp_path) == ["a.txt"]


def test_what_a_killed_film_left_is_cleared_when_it_is_drawn_again(tmp_path):
    for _ in range(2):
        number = os.fork()
        if number == 0:
            with VideoWriter(tmp_path / "film.mp4", 10.0) as film:
                film.write(np.zeros((16, 16, 3), np.uint8))
                os._exit(0)
        os.waitpid(number, 0)
    assert names(tmp_path) == [".film.mp4.0.tmp"]
    publisher.write_film(tmp_path, 1)
    assert names(tmp_path) == ["film.mp4"] and publisher.read_film(tmp_path) == 1


def test_two_writers_killed_at_once_leave_nothing_either(tmp_path):
    number = os.fork()
    if number == 0:
        with atomic_file(tmp_path / "a.txt") as one, atomic_file(tmp_path / "a.txt") as other:
            one.write_text("half")
            other.write_text("half")
            os._exit(0)
    os.waitpid(number, 0)
    assert len(names(tmp_path)) == 2
    write_text(tmp_path / "a.txt", "whole")
    assert names(tmp_path) == ["a.txt"]


@pytest.mark.usefixtures("way")
def test_a_link_to_a_folder_stays_a_link(tmp_path):
    save_checkpoint(tmp_path / "disk" / "v1", {"x": torch.zeros(1)}, {})
    (tmp_path / "model").symlink_to(tmp_path / "disk" / "v1")
    save_checkpoint(tmp_path / "model", {"x": torch.ones(1)}, {})
    assert (tmp_path / "model").is_symlink()
    assert load_checkpoint(tmp_path / "disk" / "v1")[0]["x"] == 1
    assert names(tmp_path) == ["disk", "model"] and names(tmp_path / "disk") == ["v1"]


def test_a_link_to_a_file_stays_a_link(tmp_path):
    write_text(tmp_path / "disk" / "a.txt", "old")
    (tmp_path / "a.txt").symlink_to(tmp_path / "disk" / "a.txt")
    write_text(tmp_path / "a.txt", "new")
    assert (tmp_path / "a.txt").is_symlink() and (tmp_path / "disk" / "a.txt").read_text() == "new"


def test_links_that_lead_round_in_a_circle_are_refused(tmp_path):
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    with pytest.raises(OSError, match="Too many levels of symbolic links"):
        write_text(tmp_path / "a", "text")
    with pytest.raises(OSError, match="Too many levels of symbolic links"):
        save_checkpoint(tmp_path / "a", {"x": torch.zeros(1)}, {})


def test_a_file_in_the_place_of_a_folder_stays(tmp_path):
    (tmp_path / "model").write_text("thesis")
    with pytest.raises(OSError, match="a file stands there"):
        save_checkpoint(tmp_path / "model", {"x": torch.zeros(1)}, {})
    assert (tmp_path / "model").read_text() == "thesis" and names(tmp_path) == ["model"]


@pytest.mark.usefixtures("way")
def test_what_somebody_laid_beside_a_checkpoint_stays(tmp_path):
    folder = tmp_path / "model"
    save_checkpoint(folder, {"x": torch.zeros(1)}, {}, files={"README.md": b"first"})
    (folder / "notes.txt").write_text("works best at night")
    (folder / "plots").mkdir()
    (folder / "plots" / "loss.txt").write_text("down")
    (folder / "latest").symlink_to("notes.txt")
    for value in (1.0, 2.0):
        save_checkpoint(folder, {"x": torch.full((1,), value)}, {})
    assert load_checkpoint(folder)[0]["x"] == 2
    assert (folder / "notes.txt").read_text() == "works best at night"
    assert (folder / "plots" / "loss.txt").read_text() == "down" and (folder / "latest").is_symlink()
    assert "README.md" not in names(folder), "a file of the older checkpoint"
    assert names(tmp_path) == ["model"]


def test_a_file_of_somebody_is_not_replaced_by_one_of_the_same_name(tmp_path):
    save_checkpoint(tmp_path / "model", {"x": torch.zeros(1)}, {})
    (tmp_path / "model" / "README.md").write_text("mine")
    with pytest.raises(FileExistsError, match="README.md is not part of the checkpoint"):
        save_checkpoint(tmp_path / "model", {"x": torch.ones(1)}, {}, files={"README.md": b"theirs"})
    assert (tmp_path / "model" / "README.md").read_text() == "mine"
    assert load_checkpoint(tmp_path / "model")[0]["x"] == 0


@pytest.mark.usefixtures("way")
def test_an_opened_checkpoint_stays_of_one_version_while_another_is_published(tmp_path):
    save_checkpoint(tmp_path / "model", {"x": torch.zeros(9)}, {"version": 1})
    first = checkpoint_hash(tmp_path / "model")
    with open_checkpoint(tmp_path / "model") as opened:
        save_checkpoint(tmp_path / "model", {"x": torch.ones(9)}, {"version": 2})
        assert (opened.tensors()["x"] == 0).all()
        assert opened.config == {"version": 1} and opened.fingerprint == first
    assert checkpoint_hash(tmp_path / "model") != first
    assert (published(tmp_path / "model") / MANIFEST).exists()
