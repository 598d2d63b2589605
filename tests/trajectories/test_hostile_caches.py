"""A cache that somebody made up is refused in one sentence, and nothing outside of its folder is read or written."""

from __future__ import annotations

import hashlib
import json
import os
import shutil

import pytest

from jepa_mpc.errors import BadEpisode
from jepa_mpc.files import atomic_file, atomic_folder, only_writer, write_text
from jepa_mpc.trajectories.bank import load_bank
from jepa_mpc.trajectories.cache import Cache, canonical_sha256
from jepa_mpc.trajectories.ingest import ingest
from jepa_mpc.trajectories.synthetic import synthetic_log


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    place = tmp_path_factory.mktemp("sound")
    ingest(synthetic_log(place / "log", episodes=3), place=place / "cache")
    return place / "cache"


@pytest.fixture
def copied(sound, tmp_path):
    return shutil.copytree(sound, tmp_path / "cache")


def change(cache, *keys, value=None):
    """Set an entry of the index, or drop it, and sum the index up again."""
    index = json.loads((cache / "cache.json").read_text())
    index.pop("sha256")
    here = index
    for key in keys[:-1]:
        here = here[key]
    if value is None:
        here.pop(keys[-1])
    else:
        here[keys[-1]] = value
    (cache / "cache.json").write_text(json.dumps({**index, "sha256": canonical_sha256(index)}))


STATE = "observation.state"
CHANGES = [
    *[((key,), None) for key in ("lengths", "groups", "cameras", "dt_s", "robot", "fit", "columns", "picture")],
    *[((key,), None) for key in ("files", "source", "options", "episodes")],
    *[(("lengths",), value) for value in ([], [-1, 9, 10], [10**6, 9, 10], [10**30], ["a"], "abc")],
    *[(("dt_s",), value) for value in ("nan", -1, 1e9)],
    *[(("picture",), value) for value in ([10**6, 10**6], [-1, 8], [8], "ab")],
    *[(("cameras",), value) for value in ("left", ["left", "left"], [1], [])],
    *[(("columns", STATE, "shape"), value) for value in ([-1], [10**12], "a")],
    *[(("columns", STATE, "file"), value) for value in ("../outside", "/etc/hostname", "frames.bin", 5)],
    (("columns", STATE, "dtype"), "O"), (("groups",), [1]), (("fit", "more"), 1), (("robot",), [1]),
    (("files",), [1]), (("files", "../outside"), {"bytes": 7, "sha256": "0"}), (("files", "frames.bin"), None),
    (("files",), ["frames.bin"]), (("columns", STATE, "hz"), "10"), (("columns", STATE, "shape"), [1] * 70),
    (("files", "column_00.bin", "sha256"), None), (("files", "column_00.bin"), {"bytes": "many"}),
]  # fmt: skip


@pytest.mark.parametrize("keys, value", CHANGES, ids=str)
def test_an_index_that_contradicts_its_files_is_refused(copied, keys, value):
    (copied.parent / "outside").write_text("outside")
    change(copied, *keys, value=value)
    with pytest.raises(BadEpisode, match="field '") as told:
        load_bank(copied)
    assert "\n" not in str(told.value)


def test_an_index_with_a_number_that_is_not_finite_is_refused(copied):
    text = (copied / "cache.json").read_text()
    (copied / "cache.json").write_text(text.replace("{", '{"more": NaN, ', 1))
    with pytest.raises(BadEpisode, match="cache.json: field 'file' is unreadable"):
        Cache(copied)


PLACES = [(file, kind) for file in ("frames.bin", "column_00.bin", "episodes.jsonl") for kind in ("link", "pipe")]


@pytest.mark.parametrize("file, kind", [*PLACES, ("cache.json", "pipe")])
def test_only_plain_files_of_a_cache_are_read(copied, file, kind):
    (copied / file).rename(copied.parent / "outside")
    (copied / file).symlink_to(copied.parent / "outside") if kind == "link" else os.mkfifo(copied / file)
    with pytest.raises(BadEpisode, match="is a (link|pipe)|no plain file"):
        Cache(copied)


@pytest.mark.parametrize("text", ["", "{\n{\n{\n", "[]\n[]\n[]\n", "{}, {}, {}\n", '{"frames": 1}\n' * 3])
def test_lines_of_episodes_that_are_none_are_refused(copied, text):
    (copied / "episodes.jsonl").write_text(text)
    entry = {"bytes": len(text), "sha256": hashlib.sha256(text.encode()).hexdigest()}
    change(copied, "files", "episodes.jsonl", value=entry)
    with pytest.raises(BadEpisode, match="episodes.jsonl: field 'file' is unreadable"):
        load_bank(copied)


def test_a_link_in_the_place_of_a_workspace_or_lock_is_refused_and_what_it_leads_to_stays(tmp_path):
    """Somebody's folder must not let our writers empty or cut short what lies elsewhere."""
    home = tmp_path / "home"
    home.mkdir()
    (home / "letter").write_text("dear")
    for name in (".model.tmp", ".a.txt.0.tmp"):
        (tmp_path / name).symlink_to(home)
    with pytest.raises(OSError, match="is a link: remove it"), atomic_folder(tmp_path / "model"):
        pass
    with pytest.raises(OSError, match="is a link: remove it"), atomic_file(tmp_path / "a.txt"):
        pass
    run = tmp_path / "run"
    run.mkdir()
    (run / ".lock").symlink_to(home / "letter")
    with pytest.raises(OSError), only_writer(run):
        pass
    (run / ".lock").unlink()
    os.mkfifo(run / ".lock")
    with pytest.raises(OSError, match="no plain file"), only_writer(run):
        pass
    assert [path.name for path in home.iterdir()] == ["letter"] and (home / "letter").read_text() == "dear"
    write_text(tmp_path / "b.txt", "sound")


def test_a_link_in_the_place_of_a_draft_or_lock_of_a_cache_is_not_followed(tmp_path):
    log = synthetic_log(tmp_path / "log", episodes=2)
    (tmp_path / "letter").write_text("dear")
    (tmp_path / "home").mkdir()
    (tmp_path / ".cache.lock").symlink_to(tmp_path / "letter")
    with pytest.raises(OSError):
        ingest(log, place=tmp_path / "cache")
    (tmp_path / ".cache.lock").unlink()
    (tmp_path / ".cache.draft").symlink_to(tmp_path / "home")
    assert len(ingest(log, place=tmp_path / "cache")) == 2
    assert (tmp_path / "letter").read_text() == "dear" and not list((tmp_path / "home").iterdir())
