"""What a header claims is compared with the file before memory is taken: 2 x file + 256 MB, and seconds, at most."""

from __future__ import annotations

import io
import json
import shutil
import struct
import zipfile
import zlib

import h5py
import numpy as np
import pytest

pytest.importorskip("av")
pytest.importorskip("pyarrow")
pytest.importorskip("zstandard")

import pyarrow
import zstandard
from PIL import Image
from pyarrow import parquet

from jepa_mpc.errors import BadEpisode
from jepa_mpc.trajectories.formats import h5_filters, open_log
from jepa_mpc.trajectories.formats.image_codec import decode_picture
from jepa_mpc.trajectories.formats.layouts import LAYOUTS
from jepa_mpc.trajectories.formats.mcap_file import MAGIC
from jepa_mpc.trajectories.formats.npz import NpzStore
from jepa_mpc.trajectories.formats.parquet_pages import unpacked_bytes
from jepa_mpc.trajectories.formats.videos import VideoEncoder
from jepa_mpc.trajectories.synthetic import synthetic_log
from tests.trajectories.corruption import LIMIT_S, judge, size_of


def film(place, frames=4):
    with VideoEncoder(place, fps=10, codec="h264_lossless") as encoder:
        encoder.write(np.zeros((frames, 16, 16, 3), np.uint8))


def long_table(place, rows=14_000_000):
    """Equal rows are stored once for all."""
    film(place / "a.mp4")
    part = pyarrow.table({"speed": np.zeros(1_000_000)})
    with parquet.ParquetWriter(place / "a.parquet", part.schema) as writer:
        for _ in range(rows // len(part)):
            writer.write_table(part)


def long_texts(place):
    film(place / "a.mp4")
    texts = pyarrow.DictionaryArray.from_arrays(np.zeros(20_000, np.int32), ["x" * 500_000])
    table = pyarrow.table({"speed": np.zeros(20_000), "note": texts})
    parquet.write_table(table, place / "a.parquet", store_schema=False)


def wide_csv(place):
    film(place / "a.mp4")
    header, row = ",".join(f"c{i}x" for i in range(500)), ",".join("0" * 500)
    (place / "a.csv").write_text("\n".join([header, *[row] * 45_000]) + "\n")


def endless_line(place):
    film(place / "a.mp4")
    (place / "a.csv").write_text("speed\n" + "1" * 50_000_000)


def record(opcode, data):
    return struct.pack("<BQ", opcode, len(data)) + data


def mcap_of(*chunks):
    footer = record(2, bytes(20))
    return MAGIC + record(1, bytes(8)) + b"".join(record(6, chunk) for chunk in chunks) + footer + MAGIC


def chunk(data, claimed, method=b"zstd"):
    head = struct.pack("<QQQI", 0, 0, claimed, 0) + struct.pack("<I", len(method)) + method
    return head + struct.pack("<Q", len(data)) + data


def zeros_in_mcap(place):
    packed = zstandard.ZstdCompressor().compress(bytes(150 << 20))
    (place / "a.mcap").write_bytes(mcap_of(chunk(packed, 150 << 20)))


def small_claim_in_mcap(place):
    """The frame itself knows how much it becomes, the chunk tells less."""
    packed = zstandard.ZstdCompressor().compress(bytes(150 << 20))
    (place / "a.mcap").write_bytes(mcap_of(chunk(packed, 1 << 20)))


def many_chunks_in_mcap(place):
    message = record(5, struct.pack("<HIQQ", 1, 0, 0, 0))
    defined = record(3, struct.pack("<HI", 1, 1) + b"a" + struct.pack("<II", 0, 0))
    channel = record(4, struct.pack("<HHI", 1, 1, 1) + b"a" + struct.pack("<II", 0, 0))
    data = defined + channel + message * 50_000
    packed = zstandard.ZstdCompressor().compress(data)
    (place / "a.mcap").write_bytes(mcap_of(*[chunk(packed, len(data))] * 50))


def heavy_json(place):
    (place / "meta").mkdir()
    (place / "meta/info.json").write_text("[" + "[]," * 10_000_000 + "[]]")


def packed_zeros(place):
    with h5py.File(place / "a.h5", "w") as file:
        file.create_dataset("action", data=np.zeros((2_000_000, 7)), chunks=(100_000, 7), compression="gzip")


def looped_groups(place):
    with h5py.File(place / "a.h5", "w") as file:
        for episode in range(3):
            group = file.create_group(f"episode_{episode}")
            group["action"] = np.zeros((5, 2))
            for link in range(20):
                group[f"again_{link}"] = group


def long_names(place):
    with h5py.File(place / "a.h5", "w") as file:
        group = file.create_group("data")
        for member in range(50):
            group["demo" + "a" * 60_000 + str(member)] = np.zeros(3)


def wide_picture(place):
    def part(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 65_000, 65_000, 8, 2, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + part(b"IHDR", header) + part(b"IDAT", zlib.compress(bytes(1000))) + part(b"IEND", b"")
    with h5py.File(place / "a.h5", "w") as file:
        cells = file.create_dataset("observations/images/top", (3,), h5py.vlen_dtype(np.uint8))
        for step in range(3):
            cells[step] = np.frombuffer(png, np.uint8)
        file["action"] = np.zeros((3, 2))


def many_members(place):
    with zipfile.ZipFile(place / "episode_000000.npz", "w") as archive:
        for member in range(5_000):
            archive.writestr(f"m{member}.npy", b"x")


def many_frames(place):
    """A table of frames that need no byte each, and runs of them."""
    film(place / "a.mp4")
    data = (place / "a.mp4").read_bytes()
    at = data.rfind(b"stsz") + 8
    data = data[:at] + struct.pack(">II", 1, 2**31 - 1) + data[at + 8 :]
    at = data.rfind(b"stsc") + 8 + 4 + 4
    (place / "a.mp4").write_bytes(data[:at] + struct.pack(">I", 2**31 - 1) + data[at + 4 :])


def swollen_chunk(place, packed, **how):
    """A chunk that unpacks to far more than its dataset claims."""
    with h5py.File(place / "a.h5", "w") as file:
        file["action"] = np.zeros((64, 3), np.float32)
        column = file.create_dataset("state", (64, 3), np.float32, chunks=(64, 3), **how)
        column.id.write_direct_chunk((0, 0), packed)


def swollen_gzip(place):
    swollen_chunk(place, zlib.compress(bytes(400 << 20), 9), compression="gzip")


def swollen_lzf(place):
    repeated = bytes([0, 0, 0xE0, 0xFF, 0x00])
    swollen_chunk(place, repeated[:2] + repeated[2:] * 1_500_000, compression="lzf")


def packed_twice(place):
    with h5py.File(place / "a.h5", "w") as file:
        file["action"] = np.zeros((64, 3), np.float32)
        created = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        created.set_chunk((64, 3))
        created.set_deflate(9)
        created.set_deflate(9)
        space = h5py.h5s.create_simple((64, 3))
        column = h5py.h5d.create(file.id, b"state", h5py.h5t.NATIVE_FLOAT, space, created)
        column.write_direct_chunk((0, 0), zlib.compress(zlib.compress(bytes(400 << 20), 9), 9))


def number(value):
    """Thrift's compact form of a whole number."""
    value, found = 2 * value, b""
    while value > 127:
        value, found = value >> 7, found + bytes([value & 127 | 128])
    return found + bytes([value])


def swollen_page(place):
    """A page that unpacks to 400 MB in a column of ten numbers, as the footer has it."""
    film(place / "a.mp4", frames=10)
    packed = zstandard.ZstdCompressor().compress(bytes(400 << 20))
    page = b"\x15\0\x15" + number(400 << 20) + b"\x15" + number(len(packed))
    page += b"\x2c\x15" + number(10) + b"\x15\0\x15\x06\x15\x06\0\0" + packed
    facts = b"\x15\x0a\x19\x15\0\x19\x18\x05speed\x15\x0c\x16" + number(10) + b"\x16" + number(100)
    facts += b"\x16" + number(len(page)) + b"\x26" + number(4) + b"\0"
    group = b"\x19\x1c\x26" + number(4) + b"\x1c" + facts + b"\0\x16" + number(100) + b"\x16" + number(10) + b"\0"
    schema = b"\x19\x2c\x48\x06schema\x15\x02\0\x15\x0a\x25\0\x18\x05speed\0"
    footer = b"\x15\x02" + schema + b"\x16" + number(10) + b"\x19\x1c" + group + b"\0"
    whole = b"PAR1" + page + footer + struct.pack("<I", len(footer)) + b"PAR1"
    (place / "a.parquet").write_bytes(whole)


def flat_picture(place):
    """A picture of one bit a pixel: half a gigabyte from 8 kB."""
    Image.new("1", (8192, 8192)).save(place / "a.png")


def cloud_of_zeros(place):
    with (
        zipfile.ZipFile(place / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("points.npy", "w") as file,
    ):
        np.lib.format.write_array_header_1_0(file, {"descr": "<f8", "fortran_order": False, "shape": (10_000_000, 3)})
        for _ in range(240):
            file.write(bytes(1_000_000))


BOMBS = [long_table, long_texts, wide_csv, endless_line, zeros_in_mcap, small_claim_in_mcap, many_chunks_in_mcap,
         heavy_json, packed_zeros, looped_groups, long_names, wide_picture, many_members, many_frames,
         swollen_gzip, swollen_lzf, packed_twice, swollen_page, flat_picture, cloud_of_zeros]  # fmt: skip


@pytest.mark.parametrize("bomb", BOMBS, ids=lambda bomb: bomb.__name__)
def test_a_log_that_claims_too_much_is_refused_in_little_time_and_memory(bomb, tmp_path):
    bomb(tmp_path)
    answer, seconds, more = judge(tmp_path)
    assert answer.startswith("refused") and "field '" in answer, answer
    assert "Error" not in answer.split("(")[0] and len(answer) < 2000
    assert more <= 2 * size_of(tmp_path) + (256 << 20), f"{more >> 20} MB for {size_of(tmp_path)} bytes"
    assert seconds < LIMIT_S


def test_pictures_of_a_recording_are_decompressed_as_they_are_read(tmp_path):
    """A long recording of still pictures is read in parts, each in little memory."""
    pytest.importorskip("mcap_ros2")
    from mcap_ros2.writer import Writer

    with (tmp_path / "a.mcap").open("wb") as file:
        writer = Writer(file)
        definition = "uint32 height\nuint32 width\nstring encoding\nuint8 is_bigendian\nuint32 step\nuint8[] data\n"
        kind = writer.register_msgdef("sensor_msgs/msg/Image", definition)
        for step in range(120):
            picture = np.full((512, 512, 3), step, np.uint8)
            message = {"height": 512, "width": 512, "encoding": "rgb8", "is_bigendian": 0, "step": 1536,
                       "data": picture.tobytes()}  # fmt: skip
            writer.write_message("/top/image", kind, message, log_time=step * 50_000_000)
        writer.finish()
    log = open_log(tmp_path)
    assert log.lengths == [120] and log.dt_s == pytest.approx(0.05)
    got = log.read(0, 97, 100, ["observation.images.top"])["observation.images.top"]
    assert got.shape == (3, 512, 512, 3) and [int(picture[0, 0, 0]) for picture in got] == [97, 98, 99]


def test_sound_tables_of_pictures_and_texts_still_open(tmp_path):
    ours = NpzStore(synthetic_log(tmp_path / "npz", episodes=2))
    path = LAYOUTS["lerobot"](ours, tmp_path / "lerobot")
    shutil.copytree(path, tmp_path / "copy")
    assert json.loads((path / "meta/info.json").read_text())["total_episodes"] == 2
    first, second = judge(path), judge(tmp_path / "copy")
    assert first[0] == second[0] and not first[0].startswith(("refused", "crash"))


@pytest.mark.parametrize(
    "how",
    [{"compression": "gzip"}, {"compression": "lzf"}, {"compression": "gzip", "shuffle": True, "fletcher32": True}],
)
def test_large_chunks_that_are_sound_are_read(tmp_path, how):
    rows = np.random.default_rng(0).integers(0, 9, (40, 64, 64, 3), dtype=np.uint8)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["action"] = np.zeros((40, 2))
        file.create_dataset("images/top", data=np.repeat(rows, 4, 2), chunks=(40, 64, 256, 3), **how)
    found = open_log(tmp_path).read(0, 3, 9, ["observation.images.top"])["observation.images.top"]
    assert np.array_equal(found, np.repeat(rows, 4, 2)[3:9])


def test_a_checksum_behind_a_packed_chunk_is_not_taken_for_data(tmp_path, monkeypatch):
    """Read as a control byte, the first byte of some checksums stands for up to 264 bytes."""
    monkeypatch.setattr(h5_filters, "GRACE_BYTES", 0)
    rows = np.repeat(np.random.default_rng(0).integers(0, 9, (60, 64), dtype=np.int64), 4, axis=1)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("action", data=rows, chunks=(1, 256), compression="lzf", fletcher32=True)
    assert np.array_equal(open_log(tmp_path).read(0, 0, 60, ["action"])["action"], rows)


HEADERS = {
    "numbers without an end": b"\x19\xf7" + b"\xff" * 8 + b"\x7f",
    "nested lists": b"\x19" + b"\x19" * 40,
    "a text behind the end": b"\x18" + b"\xff" * 8 + b"\x7f",
    "another size": b"\x15\0\x16\0\x15\0\0",
}


@pytest.mark.parametrize("name", HEADERS)
def test_a_header_of_a_page_that_is_none_ends(tmp_path, name):
    (tmp_path / "a").write_bytes(HEADERS[name])
    with pytest.raises(ValueError):
        unpacked_bytes(tmp_path / "a", 0, 100)


def test_a_size_of_a_page_counts_in_the_type_that_readers_accept(tmp_path):
    """A second one of 64 bits, which readers skip, does not replace it."""
    header = b"\x15\0\x15" + number(400 << 20) + b"\x06" + number(2) + number(0) + b"\x15" + number(0) + b"\0"
    (tmp_path / "a").write_bytes(header)
    assert unpacked_bytes(tmp_path / "a", 0, len(header)) == 400 << 20


def test_a_large_picture_is_read_like_a_small_one(tmp_path):
    """Strips that are converted one after another are the picture."""
    colours = np.random.default_rng(1).integers(0, 256, (1100, 1000), dtype=np.uint8)
    for index, picture in enumerate([Image.fromarray(colours), Image.fromarray(colours).convert("P")]):
        picture.save(tmp_path / f"{index}.png")
    log = open_log(tmp_path)
    for index in range(2):
        found = log.read(index, 0, 1, list(log.fields))["observation.images.camera"][0]
        assert np.array_equal(found, np.repeat(colours[..., None], 3, 2))


def test_a_jpeg_that_begins_anew_without_end_is_refused():
    file = io.BytesIO()
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(file, format="JPEG", progressive=True)
    data = file.getvalue()
    last = data.rindex(b"\xff\xda")
    assert decode_picture(data, (64, 64, 3)).shape == (64, 64, 3)
    with pytest.raises(BadEpisode, match="a JPEG of 5[0-9]+ scans, expected at most 100"):
        decode_picture(data[:last] + data[last:-2] * 500 + data[-2:], (64, 64, 3))
