"""Safetensors files that are read without a mapping: the library's own files, and headers that do not fit."""

from __future__ import annotations

import io
import json

import pytest
import safetensors.torch
import torch

from jepa_mpc.weights import read_tensors

TENSORS = {
    "a.weight": torch.arange(6, dtype=torch.float32).reshape(2, 3),
    "a.count": torch.tensor(7),
    "b": torch.linspace(-1, 1, 5, dtype=torch.bfloat16),
    "none": torch.zeros(0, 4),
    "flags": torch.tensor([True, False, True]),
}


def content_of(header: dict[str, object], num_bytes: int) -> bytes:
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + bytes(num_bytes)


def read(content: bytes) -> dict[str, torch.Tensor]:
    return read_tensors(io.BytesIO(content), len(content))


def test_files_of_the_library_are_read_as_it_reads_them():
    found = read(safetensors.torch.save(TENSORS))
    assert found.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert found[name].dtype == tensor.dtype and found[name].shape == tensor.shape
        assert torch.equal(found[name], tensor)


def test_tensors_share_no_memory():
    content = content_of({name: {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} for name in "ab"}, 16)
    found = read(content)
    found["a"].fill_(1.0)
    assert torch.equal(found["b"], torch.zeros(2))


@pytest.mark.parametrize(
    ("offsets", "shape", "message"),
    [
        ([0, 4], [2], "no valid entry"),
        ([8, 16], [2], "begins at byte 8 of 8"),
        ([-8, 0], [2], "begins at byte -8 of 8"),
        ([0.0, 8.0], [2], "no valid entry"),
        (None, [2], "no valid entry"),
        ([0, 8], [2**40, 2**40], "no valid entry"),
    ],
)
def test_places_outside_the_file_are_refused(offsets, shape, message):
    entry = {"dtype": "F32", "shape": shape} | ({} if offsets is None else {"data_offsets": offsets})
    with pytest.raises(ValueError, match=message):
        read(content_of({"a": entry}, 8))


def test_a_file_that_ends_early_is_refused():
    with pytest.raises(ValueError, match="need 24 bytes"):
        read(content_of({"a": {"dtype": "F32", "shape": [6], "data_offsets": [0, 24]}}, 20))
