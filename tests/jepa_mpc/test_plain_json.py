"""JSON files that others wrote: bounded, plain files, one sentence."""

from __future__ import annotations

import os

import pytest

from jepa_mpc.plain_json import parse_json_lines, read_json_file
from jepa_mpc.row_file import RowFile, draft_folder
from jepa_mpc.runs.run_folder import RUN, claim_run

STRANGE = {
    "nested": ("[" * 100_000, "nested too deep"),
    "heavy": ("[" + "[]," * 4_000_000 + "[]]", "too many values"),
    "twice": ('{"a": 1, "a": 2}', "occurs twice"),
    "half a pair": ('{"a": "\\ud800"}', "surrogates"),
    "no text": (b"\xff\xfe\xfa", "utf-8"),
    "nothing": ("", "Expecting value"),
}


@pytest.mark.parametrize("name", STRANGE)
def test_strange_json_is_told_in_one_sentence(tmp_path, name):
    text, said = STRANGE[name]
    data = text if isinstance(text, bytes) else text.encode()
    for file in (tmp_path / "a.json", tmp_path / RUN):
        file.write_bytes(data)
    with pytest.raises(ValueError, match=f"a.json is not JSON .*{said}"):
        read_json_file(tmp_path / "a.json")
    with pytest.raises(ValueError, match="choose a new folder"):
        claim_run(tmp_path, "probe")


def test_lines_hold_one_value_each():
    assert parse_json_lines(b'{"a": 1}\n\n[2, 3]\r\n4') == [{"a": 1}, [2, 3], 4]
    for text in (b"1, 2", b'"a\nb"', b"1],[2", b"]\n["):
        with pytest.raises(ValueError):
            parse_json_lines(text)


def test_nothing_but_a_plain_file_is_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(65 << 20)
    for name in ("pipe", "loop", "huge", "."):
        with pytest.raises(ValueError, match="cannot be read|is no plain file"):
            read_json_file(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        read_json_file(tmp_path / "nothing")


@pytest.mark.parametrize(
    "text", ["[]", '{"settings": {}, "done": "1", "row_shape": []}', '{"settings": [], "done": 1}']
)
def test_a_damaged_note_of_a_draft_is_refused(tmp_path, text):
    folder = draft_folder(tmp_path / "a.safetensors")
    folder.mkdir()
    (folder / "progress.json").write_text(text)
    with pytest.raises(ValueError, match="is not the note of a draft: delete"):
        RowFile(tmp_path / "a.safetensors", {"features": (2,)}, settings={}, dtype="float32")
