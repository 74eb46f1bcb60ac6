"""Malformed files end in `DataError` with the file and the byte: by hand and by Hypothesis."""

import gzip
import io
import os
import struct
import tracemalloc
import warnings
import zipfile
import zlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.data.formats import cifar_bytes, idx_bytes, random, write_mnist

from jdl import data

IDX = idx_bytes(random(3, 4, 4))
NPY = io.BytesIO()
np.save(NPY, random(6, 3) / 3)
NPY = NPY.getvalue()


def npz_bytes(compressed=True, **arrays):
    file = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(file, **arrays)
    return file.getvalue()


def header(shape, descr="<f8", extra=""):
    text = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape!r}, {extra}}}\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode()


def zipped(members, method=zipfile.ZIP_DEFLATED):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return file.getvalue()


XY = {"x": random(12, 2) / 9, "y": random(12, high=3)}
NPZ = npz_bytes(**XY)
STORED = npz_bytes(False, **XY)
CSV = b"a,b,label\n" + b"".join(b"%d,%d.5,%d\n" % (i, i * i, i % 3) for i in range(12))
ZIPPED = gzip.compress(IDX, mtime=0)
NOT_DEFLATE = ZIPPED[:10] + b"\xff" * 20 + ZIPPED[30:]
BAD_SUM = ZIPPED[:-8] + b"\0\0\0\0" + ZIPPED[-4:]

BY_HAND = [
    # IDX: magic, axes, sizes, length.
    (data.idx, b"", 0, "file ends inside the magic number: expected 4 bytes more"),
    (data.idx, b"\0\0\x08", 3, "expected 1 bytes more"),
    (data.idx, b"\0\1" + IDX[2:], 0, "magic number .* got 00 01 08 03"),
    (data.idx, b"\0\0\x0a\x01" + IDX[4:], 0, "magic number"),
    (data.idx, b"\x89PNG\r\n", 0, "magic number"),
    (data.idx, b"\0\0\x08\0", 3, "from 1 to 8 axes, got 0"),
    (data.idx, b"\0\0\x08\xff" + IDX[4:], 3, "from 1 to 8 axes, got 255"),
    (data.idx, b"\0\0\x08\x09" + bytes(36), 3, "from 1 to 8 axes, got 9"),
    (data.idx, IDX[:10], 10, "ends inside the sizes of the axes: expected 6"),
    (data.idx, IDX[:-1], len(IDX) - 1, r"too short for an array of shape \(3, 4, 4\)"),
    (data.idx, IDX + b"\0", len(IDX), "expected the end of the file after an array"),
    (data.idx, IDX[:4] + b"\xff" * 12 + IDX[16:], 16, "more than max_bytes"),
    (data.idx, IDX[:4] + b"\0\0\xff\xff" + IDX[8:], len(IDX), "hold at most 48"),
    # gzip: cut, corrupt, checksum, a bomb that says its size, one that does not fit its header.
    (data.idx, ZIPPED[:30], None, "compressed stream breaks off"),
    (data.idx, ZIPPED[:2], 0, "compressed stream breaks off"),
    (data.idx, NOT_DEFLATE, 0, "compressed stream breaks off or is corrupt"),
    (data.idx, BAD_SUM, None, "compressed stream ends badly .*CRC check failed"),
    (data.idx, gzip.compress(IDX[:-5]), len(IDX) - 5, "ends inside an array"),
    (data.idx, gzip.compress(IDX + bytes(10**7)), len(IDX), "expected the end of the file"),
    (data.idx, gzip.compress(IDX[:4] + b"\0\1\0\0" * 3), 16, "takes .* bytes, more than max_bytes"),
    (data.idx, gzip.compress(IDX[:4] + b"\0\0\1\0" * 3), 16, "too short .* hold at most"),
    # npy and npz.
    (data.npy, b"", 0, "no valid .npy header"),
    (data.npy, b"\x93NUMPY\x09\0" + NPY[8:], 0, r"version \(9, 0\) is unknown"),
    (data.npy, NPY[:-3], len(NPY) - 3, r"too short for an array of shape \(6, 3\)"),
    (data.npy, NPY + b"12", len(NPY), "expected the end of the file"),
    (data.npy, header((3, 10**15)), None, "more than max_bytes"),
    (data.npy, header((-3, 2)), 0, r"got float64 of shape \(-3, 2\)"),
    (data.npy, header((2,), "|O") + b"12", 0, "expected an array of numbers, got object"),
    (data.npy, header((2,), "|S4") + b"12345678", 0, r"expected an array of numbers, got \|S4"),
    (data.npy, header((2,), "<f8", "'more': 1"), 0, "no valid .npy header"),
    (data.npy, header("(" * 300), 0, "no valid .npy header"),
    (data.npz, b"", 0, "not a readable .npz file"),
    (data.npz, NPZ[:-9], 0, "not a readable .npz file"),
    (data.npz, gzip.compress(NPZ), 0, "got a gzip stream"),
    (data.npz, npz_bytes(a=np.ones(3)), None, r"expected arrays x and y, .* got a.npy"),
    (data.npz, npz_bytes(x=np.ones(3)), None, r"expected arrays x and y, .* got \['x'\]"),
    (data.npz, npz_bytes(**XY, x_test=np.ones(3)), None, "both x_test and y_test or neither"),
    (data.npz, npz_bytes(x=np.array([{}])), 0, r"x\.npy: expected an array of numbers, got object"),
    (data.npz, npz_bytes(x=np.ones((5, 2)), y=np.arange(4)), None, "5 examples and .* 4"),
    (data.npz, npz_bytes(x=np.full((5, 2), np.inf), y=np.arange(5)), None, "is inf: every value"),
    (data.npz, zipped({"x": header((10**12,)), "y": header((4,))}), 0, "archive holds"),
    (data.npz, zipped({"x": NPY[:-8], "y": NPY}), 0, "expected 272 bytes .* archive holds 264"),
    (data.npz, zipped({"x": NPY, "y": NPY}, zipfile.ZIP_BZIP2), 0, "not stored or deflated"),
    # CSV.
    (data.csv, b"", 0, "expected at least one line of numbers"),
    (data.csv, b"\n\n \n", 0, "expected at least one line of numbers"),
    (data.csv, b"a,b\n", 0, "expected at least one line of numbers"),
    (data.csv, b"1\n2\n3\n", 0, "no column -1 beside others in 1 columns"),
    (data.csv, b"1,2,0\n3,1\n", 6, "line 2: expected 3 fields, got 2"),
    (data.csv, b"1,2,0\n3,x,1\n", 6, "line 2, column 2: expected a number, got 'x'"),
    (data.csv, b"1,2,0\n3,,1\n", 6, "column 2: expected a number, got ''"),
    (data.csv, b"1,2,0\n3,\xff4,1\n", 8, "line 2: .* can't decode"),
    (data.csv, b'1,2,0\n"3,4,1\n', 6, "line 2: unexpected end of data"),
    (data.csv, b"1,2,0\n3,nan,1\n4,5,0\n6,7,1\n", 6, "line 2, column 2: the value is nan: every"),
    (data.csv, gzip.compress(CSV)[:-20], None, "compressed stream breaks off"),
]


@pytest.mark.parametrize(
    ("load", "content", "byte", "message"),
    BY_HAND,
    ids=[f"{case[0].__name__}-{i}" for i, case in enumerate(BY_HAND)],
)
def test_by_hand(tmp_path, load, content, byte, message):
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(data.DataError, match=message) as error:
        load(path)
    assert error.value.path == str(path) and str(path) in str(error.value)
    if byte is not None:
        assert error.value.byte == byte and f"byte {byte}: " in str(error.value)


def test_bombs_take_no_memory(tmp_path):
    """128 MiB of zeros behind 130 kB: too much, which is seen before it is inflated."""
    squeeze = zlib.compressobj(9, zlib.DEFLATED, 31)
    bomb = b"".join(squeeze.compress(bytes(2**24)) for _ in range(8)) + squeeze.flush()
    (tmp_path / "bomb.csv").write_bytes(bomb)
    head = gzip.compress(b"\0\0\x08\x01" + struct.pack(">I", 2**27))
    (tmp_path / "bomb").write_bytes(head + bomb)
    tracemalloc.start()
    with pytest.raises(data.DataError, match="more content than max_bytes=1000000"):
        data.csv(tmp_path / "bomb.csv", max_bytes=10**6)
    with pytest.raises(data.DataError, match="takes 134217728 bytes, more than max_bytes=1000000"):
        data.idx(tmp_path / "bomb", max_bytes=10**6)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2e7


def test_what_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name in ("pipe", "."):
        with pytest.raises(data.DataError, match="expected a file, got a folder or a device"):
            data.idx(tmp_path / name)
    with pytest.raises(data.DataError, match="cannot be opened: No such file"):
        data.npz(tmp_path / "none")
    with pytest.raises(data.DataError, match="cannot be opened: embedded null"):
        data.csv("a\0b")


def test_mapping(tmp_path):
    for load, content in ((data.idx, IDX), (data.npy, NPY)):
        for wrong, byte in ((content[:-1], len(content) - 1), (content + b"1", len(content))):
            (tmp_path / "file").write_bytes(wrong)
            with pytest.raises(data.DataError, match=rf"byte {byte}: expected {len(content)} byt"):
                load(tmp_path / "file", mmap=True)
        (tmp_path / "file").write_bytes(gzip.compress(content))
        with pytest.raises(data.DataError, match="gzipped file cannot be memory-mapped"):
            load(tmp_path / "file", mmap=True)


def replace(path, at, new):
    content = bytearray(path.read_bytes())
    content[at : at + len(new)] = new
    path.write_bytes(content)


def test_mnist(tmp_path):
    labels = tmp_path / "train-labels-idx1-ubyte"
    write_mnist(tmp_path)
    replace(labels, 8 + 17, b"\x0a")
    with pytest.raises(data.DataError, match=rf"{labels}: byte 25: .* label from 0 to 9, got 10"):
        data.mnist(tmp_path)
    labels.write_bytes(idx_bytes(random(39, high=10)))
    with pytest.raises(data.DataError, match=rf"{labels}: byte 4: 39 labels for 40 images"):
        data.mnist(tmp_path)
    labels.write_bytes(idx_bytes(random(40, 1, high=10)))
    with pytest.raises(data.DataError, match=r"bytes in 1 axes, got uint8 of shape \(40, 1\)"):
        data.mnist(tmp_path)
    labels.write_bytes(idx_bytes(random(40, high=10), ">i4"))
    with pytest.raises(data.DataError, match="bytes in 1 axes, got int32"):
        data.mnist(tmp_path)


def test_cifar(tmp_path):
    records = cifar_bytes([[1, 9], [2, 8]], random(2, 32, 32, 3).astype("u1"))
    (tmp_path / "test.bin").write_bytes(records)
    (tmp_path / "train.bin").write_bytes(records[:-1])
    with pytest.raises(data.DataError, match=r"train.bin: byte 6147: .* from byte 3074, has 3073"):
        data.cifar100(tmp_path)
    (tmp_path / "train.bin").write_bytes(records)
    replace(tmp_path / "train.bin", 3074, b"\x14")
    with pytest.raises(data.DataError, match=r"byte 3074: expected a label from 0 to 19, got 20"):
        data.cifar100(tmp_path)
    replace(tmp_path / "train.bin", 3074, b"\0\x64")
    with pytest.raises(data.DataError, match=r"byte 3075: expected a label from 0 to 99, got 100"):
        data.cifar100(tmp_path)
    (tmp_path / "train.bin").write_bytes(b"")
    with pytest.raises(data.DataError, match=r"train.bin: byte 0: expected records of 3074 bytes"):
        data.cifar100(tmp_path)


def mangled(content):
    """`content` cut, with bytes overwritten, removed, doubled, or with others put between."""
    at = st.integers(0, len(content) - 1)
    cut = at.map(lambda i: content[:i])
    noise = st.tuples(at, st.binary(min_size=1, max_size=6))
    written = noise.map(lambda c: content[: c[0]] + c[1] + content[c[0] + len(c[1]) :])
    put = noise.map(lambda c: content[: c[0]] + c[1] + content[c[0] :])
    removed = st.tuples(at, at).map(lambda c: content[: min(c)] + content[max(c) :])
    return st.one_of(cut, written, put, removed, st.binary(max_size=64))


VALID = {
    "idx": (data.idx, IDX),
    "idx.gz": (data.idx, ZIPPED),
    "npy": (data.npy, NPY),
    "npz": (data.npz, NPZ),
    "npz stored": (data.npz, STORED),
    "csv": (data.csv, CSV),
}


@pytest.mark.parametrize("kind", VALID)
def test_mangled_files_load_or_end_in_data_error(tmp_path, kind):
    load, content = VALID[kind]
    path, refused = tmp_path / "file", []

    @settings(
        max_examples=60,
        deadline=5000,
        derandomize=True,
        database=None,
        suppress_health_check=[HealthCheck.too_slow],
    )
    @given(mangled(content))
    def run(broken):
        path.write_bytes(broken)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            try:
                load(path, max_bytes=10**6)
            except data.DataError as error:
                assert str(path) in str(error)
                refused.append(broken)

    run()
    load_whole = path.write_bytes(content) and load(path)
    assert load_whole is not None and len(refused) > 20
