"""Frames as openpi-client 0.1.2 packs them, and what is not let in."""

from __future__ import annotations

import contextlib
from pathlib import Path

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jepa_mpc.errors import BadObservation
from jepa_mpc.serving.wire import pack, unpack

FRAMES = Path(__file__).resolve().parents[1] / "golden" / "data" / "openpi"


@pytest.mark.parametrize("name", ["observation", "action", "metadata"])
def test_frames_of_openpi_are_read_and_written_to_the_byte(name):
    frame = (FRAMES / f"{name}.msgpack").read_bytes()
    assert pack(unpack(frame)) == frame


def test_arrays_of_openpi_are_read_with_value_shape_and_dtype():
    message = {side: unpack((FRAMES / f"{name}.msgpack").read_bytes()) for side, name in SIDES.items()}
    with np.load(FRAMES / "arrays.npz") as stored:
        for name, wanted in stored.items():
            side, key = name.split("|")
            got = message[side][key]
            assert got.dtype == wanted.dtype and np.array_equal(got, wanted)
    assert message["obs"]["scalar"] == np.float32(1.5) and message["obs"]["scalar"].dtype == np.float32
    assert message["obs"]["prompt"] == "reach the goal"


SIDES = {"obs": "observation", "act": "action"}


def an_array(**changes) -> bytes:
    entry = {b"__ndarray__": True, b"data": bytes(8), b"dtype": "<f4", b"shape": [2]}
    return msgpack.packb({"x": {**entry, **{key.encode(): value for key, value in changes.items()}}})


@pytest.mark.parametrize(
    "frame",
    [
        an_array(dtype="|O"),
        an_array(dtype="O"),
        an_array(dtype="<c8"),
        an_array(dtype="f4,f4"),
        an_array(dtype="(1000000000,)f4"),
        an_array(dtype=7),
        an_array(dtype="nonsense"),
        an_array(shape=[3]),
        an_array(shape=[-1, -2]),
        an_array(shape=[2**62, 2**62]),
        an_array(shape=["2"]),
        an_array(shape=2),
        an_array(shape=[1] * 40),
        an_array(data="text"),
        msgpack.packb({"x": {b"__ndarray__": True}}),
        msgpack.packb({"x": {b"__npgeneric__": True, b"data": "a", b"dtype": "<f4"}}),
        msgpack.packb([1, 2]),
        msgpack.packb({b"bytes": 1}),
        msgpack.packb({1: 1}),
        b"",
        b"\xc1",
        b"\x91" * 5000,
        b"\xdf\xff\xff\xff\xff",
        b"\xdd\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        msgpack.packb({"a": 1}) + b"\x00",
    ],
    ids=lambda frame: frame[:24].hex() if isinstance(frame, bytes) else None,
)
def test_a_damaged_frame_is_refused_in_one_sentence(frame):
    with pytest.raises(BadObservation) as refusal:
        unpack(frame)
    assert "\n" not in str(refusal.value) and len(str(refusal.value)) < 300


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200), st.integers(0, 3300), st.integers(0, 255))
def test_no_bytes_lead_to_any_other_error(noise, at, value):
    frame = bytearray((FRAMES / "observation.msgpack").read_bytes())
    frame[at % len(frame)] = value
    for damaged in (noise, bytes(frame)):
        with contextlib.suppress(BadObservation):
            unpack(damaged)


@pytest.mark.parametrize("value", [np.array([None]), np.zeros(2, "c8"), np.zeros(1, "f4,f4"), object()])
def test_what_openpi_refuses_is_not_sent(value):
    with pytest.raises(TypeError, match="cannot be sent"):
        pack({"x": value})


def test_arrays_that_are_empty_or_have_no_axes_survive():
    message = unpack(pack({"none": np.zeros((0, 3), np.float32), "point": np.array(2.5), "list": [1, "a", None]}))
    assert message["none"].shape == (0, 3) and message["point"].shape == () and message["point"] == 2.5
    assert message["list"] == [1, "a", None]
