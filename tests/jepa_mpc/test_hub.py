"""Checkpoints of the Hub: names, a fetch and a push that meet a folder in place of the network."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
import torch

from jepa_mpc.checkpoint import checkpoint_hash, load_checkpoint, save_checkpoint
from jepa_mpc.errors import BadCheckpoint
from jepa_mpc.hub import fetch, hub_name, push


class FolderHub:
    """The Hub's two calls that are used, over a folder."""

    def __init__(self, root: Path) -> None:
        self.root, self.made = root, []

    def create_repo(self, name: str, *, exist_ok: bool) -> None:
        assert exist_ok
        self.made.append(name)

    def upload_folder(self, *, repo_id: str, folder_path: str, commit_message: str, revision: str | None) -> str:
        shutil.copytree(folder_path, self.root / repo_id, dirs_exist_ok=True)
        return f"https://hub/{repo_id}/commit/{commit_message}"

    def snapshot_download(self, name: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        if not (self.root / name).exists():
            raise OSError(f"{name} is not here")
        return str(self.root / name)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    hub = FolderHub(tmp_path / "hub")
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: hub)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", hub.snapshot_download)
    return hub


@pytest.mark.parametrize(
    "place, name",
    [
        ("hf://user/model", "user/model"),
        (Path("hf://user/model"), "user/model"),
        ("hf://user/model@v1.0", "user/model@v1.0"),
        ("runs/model", None),
    ],
)
def test_a_place_of_the_hub_is_recognised(place, name):
    assert hub_name(place) == name


@pytest.mark.parametrize("place", ["hf://model", "hf://", "hf://a/b/c", "hf://../../etc/passwd"])
def test_what_names_no_repository_is_refused(place):
    with pytest.raises(BadCheckpoint, match="hf://owner/name"):
        hub_name(place)


@pytest.mark.parametrize("as_path", [str, Path])
def test_what_was_pushed_is_loaded_bit_for_bit(hub, tmp_path, as_path):
    save_checkpoint(tmp_path / "m", {"weight": torch.arange(3.0)}, {"width": 3}, files={"README.md": b"hello"})
    assert "user/model" in push(tmp_path / "m", "user/model", message="first") and hub.made == ["user/model"]
    tensors, config = load_checkpoint(as_path("hf://user/model"))
    assert torch.equal(tensors["weight"], torch.arange(3.0)) and config == {"width": 3}
    assert checkpoint_hash("hf://user/model") == checkpoint_hash(tmp_path / "m")


def test_a_repository_that_was_tampered_with_is_refused(hub, tmp_path):
    save_checkpoint(tmp_path / "m", {"weight": torch.arange(3.0)}, {"width": 3})
    push(tmp_path / "m", "user/model", message="first")
    (hub.root / "user/model/config.json").write_text("{}")
    with pytest.raises(BadCheckpoint):
        load_checkpoint("hf://user/model")


def test_without_a_network_the_sentence_says_what_to_do(hub):
    with pytest.raises(BadCheckpoint, match="hf download user/gone"):
        fetch("user/gone")


class ConnectError(Exception):
    """What the HTTP client raises, which is not always an OSError."""


@pytest.mark.parametrize("kind", [OSError, ConnectError])
def test_a_push_that_fails_says_what_to_do(hub, tmp_path, monkeypatch, kind):
    monkeypatch.setitem(sys.modules, "httpx2", SimpleNamespace(HTTPError=ConnectError))

    def offline(*args: object, **facts: object) -> None:
        raise kind("no route to host")

    monkeypatch.setattr(hub, "create_repo", offline)
    with pytest.raises(OSError, match="no route to host.*hf auth login"):
        push(tmp_path, "user/model", message="first")
