"""Loaders give what was written, from every layout of folder, gzipped or not, mapped or not."""

import gzip

import numpy as np
import pytest
from tests import needs
from tests.data.formats import CODES, cifar_bytes, idx_bytes, random, write_mnist

from jdl import data


@pytest.mark.parametrize("kind", CODES)
@pytest.mark.parametrize("zipped", [False, True])
def test_idx(tmp_path, kind, zipped):
    array = random(3, 4, 2, high=100) - (0 if kind == "u1" else 50)
    path = tmp_path / "x"
    path.write_bytes(gzip.compress(idx_bytes(array, kind)) if zipped else idx_bytes(array, kind))
    read = data.idx(path)
    np.testing.assert_array_equal(read, array)
    assert read.dtype.isnative and read.dtype == np.dtype(kind).newbyteorder("=")
    assert read.flags.writeable
    if not zipped:
        mapped = data.idx(path, mmap=True)
        assert isinstance(mapped, np.memmap)
        np.testing.assert_array_equal(mapped, array)


@pytest.mark.parametrize(
    ("load", "inside"),
    [
        (data.mnist, ""),
        (data.mnist, "mnist"),
        (data.mnist, "MNIST/raw"),
        (data.fashion_mnist, "fashion-mnist"),
        (data.fashion_mnist, "FashionMNIST/raw"),
    ],
)
@pytest.mark.parametrize("how", ["argument", "environment"])
def test_mnist_folders(tmp_path, monkeypatch, load, inside, how):
    x, y, x_test, y_test = write_mnist(tmp_path / inside, ".gz" if how == "argument" else "")
    monkeypatch.setenv("JDL_DATA_DIR", str(tmp_path if how == "environment" else "/nowhere"))
    splits = load(tmp_path if how == "argument" else None, valid=10, standardize=False)
    assert [s[0].shape for s in splits] == [(30, 28, 28, 1), (10, 28, 28, 1), (20, 28, 28, 1)]
    assert all(s[0].dtype == np.float32 and s[1].dtype == np.int32 for s in splits)
    np.testing.assert_allclose(splits.test[0][..., 0], x_test / 255, rtol=1e-6)
    np.testing.assert_array_equal(splits.test[1], y_test)
    seen = np.concatenate([splits.train[0], splits.valid[0]]).reshape(40, -1).sum(1)
    np.testing.assert_allclose(np.sort(seen), np.sort(x.reshape(40, -1).sum(1) / 255), rtol=1e-5)
    assert sorted([*splits.train[1], *splits.valid[1]]) == sorted(y)


def test_mnist_as_floats_and_as_bytes(tmp_path):
    x, *_ = write_mnist(tmp_path)
    splits = data.mnist(tmp_path, valid=0, flat=True)
    assert splits.valid is None and splits.train[0].shape == (40, 784)
    mean, deviation = x.mean(), x.std()
    ordered = splits.train[0][np.argsort(splits.train[0].sum(1))]
    expected = (x.reshape(40, -1)[np.argsort(x.reshape(40, -1).sum(1))] - mean) / deviation
    np.testing.assert_allclose(ordered, expected, atol=1e-5)
    fashion = data.fashion_mnist(tmp_path, valid=0)
    np.testing.assert_array_equal(fashion.test[0].reshape(20, 784), splits.test[0])
    assert fashion.test[0].shape == (20, 28, 28, 1)
    whole = data.mnist(tmp_path, valid=0, standardize=False, dtype=np.uint8)
    assert whole.train[0].dtype == np.uint8 and whole.train[0].max() == x.max()
    with pytest.raises(data.DataError, match="uint8 with standardize=False; got dtype=uint8"):
        data.mnist(tmp_path, dtype=np.uint8)
    with pytest.raises(data.DataError, match=r"`valid` must be in \[0, 40\), got valid=40"):
        data.mnist(tmp_path, valid=40)


def test_a_missing_set_says_where_it_was_looked_for(tmp_path, monkeypatch):
    monkeypatch.delenv("JDL_DATA_DIR", raising=False)
    with pytest.raises(data.DataError, match=rf"MNIST was not found: .*{tmp_path}/mnist"):
        data.mnist(tmp_path)
    with pytest.raises(data.DataError, match=r"in no folder\. Give the folder .* JDL_DATA_DIR"):
        data.mnist()
    write_mnist(tmp_path)
    (tmp_path / "t10k-images-idx3-ubyte").unlink()
    with pytest.raises(data.DataError, match=r"t10k-images-idx3-ubyte \(or .*gz\) .* is missing"):
        data.mnist(tmp_path)


@pytest.mark.slow
@needs.fashion_mnist
def test_fashion_mnist_as_debian_installs_it():
    splits = data.fashion_mnist()
    assert [len(s[1]) for s in splits] == [50_000, 10_000, 10_000]
    np.testing.assert_array_equal(np.bincount(splits.test[1]), [1000] * 10)
    np.testing.assert_array_equal(np.bincount(splits.valid[1]), [1000] * 10)


def test_cifar10(tmp_path):
    images, labels = random(12, 32, 32, 3).astype("u1"), random(12, high=10)
    for i in range(6):
        name = "test_batch.bin" if i == 5 else f"data_batch_{i + 1}.bin"
        part = slice(2 * i, 2 * i + 2)
        (tmp_path / name).write_bytes(cifar_bytes(labels[part, None].tolist(), images[part]))
    splits = data.cifar10(tmp_path, valid=0, standardize=False, dtype=np.uint8)
    assert splits.train[0].shape == (10, 32, 32, 3)
    np.testing.assert_array_equal(splits.test[0].sum((1, 2)), images[10:].sum((1, 2)))
    np.testing.assert_array_equal(splits.test[0][1, 3, 5], images[11, 3, 5])
    np.testing.assert_array_equal(splits.test[1], labels[10:])
    scaled = data.cifar10(tmp_path, valid=3).train[0]
    np.testing.assert_allclose(scaled.mean((0, 1, 2), float), 0, atol=1e-6)
    np.testing.assert_allclose(scaled.std((0, 1, 2), float), 1, atol=1e-6)


def test_cifar100(tmp_path):
    images = random(4, 32, 32, 3).astype("u1")
    labels = [[3, 77], [19, 99], [0, 5], [4, 0]]
    (tmp_path / "train.bin").write_bytes(cifar_bytes(labels, images))
    (tmp_path / "test.bin").write_bytes(cifar_bytes(labels[:3], images[:3]))
    assert data.cifar100(tmp_path, valid=0).test[1].tolist() == [77, 99, 5]
    assert data.cifar100(tmp_path, valid=0, coarse=True).test[1].tolist() == [3, 19, 0]


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz(tmp_path, save):
    x, y = random(30, 3) / 7, random(30, high=3)
    path = tmp_path / "a.npz"
    save(path, x=np.asfortranarray(x), y=y, note=np.array({"a": 1}, object))
    ours, theirs = data.npz(path, seed=2), data.from_arrays(x, y, seed=2)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(a[0], b[0])
        np.testing.assert_array_equal(a[1], b[1])
    save(path, x_train=x[:20], y_train=y[:20], x_test=x[20:], y_test=y[20:])
    splits = data.npz(path, valid=5)
    assert [len(s[1]) for s in splits] == [15, 5, 10]
    np.testing.assert_array_equal(splits.test[0], x[20:].astype("f4"))
    scaled = data.npz(path, valid=0, standardize=True)
    np.testing.assert_allclose(scaled.train[0].std(0, float), 1, atol=1e-6)


def test_npy(tmp_path):
    for array in (random(5, 3, 2), np.asfortranarray(random(4, 3) / 3), random(7).astype(">i4")):
        np.save(tmp_path / "a.npy", array)
        for mmap in (False, True):
            read = data.npy(tmp_path / "a.npy", mmap=mmap)
            np.testing.assert_array_equal(read, array)
            assert isinstance(read, np.memmap) == mmap
        content = (tmp_path / "a.npy").read_bytes()
        (tmp_path / "b.npy").write_bytes(gzip.compress(content))
        np.testing.assert_array_equal(data.npy(tmp_path / "b.npy"), array)


def rows_of(splits):
    return sorted(zip(splits.train[0].tolist(), splits.train[1].tolist(), strict=True))


@pytest.mark.parametrize(
    ("text", "options", "expected"),
    [
        ("1,2,0\n3,4,1\n5,6,0\n", {}, [([1, 2], 0), ([3, 4], 1), ([5, 6], 0)]),
        ("a,b,c\r\n1,2,.5\r\n\r\n3,4,7\r\n5,6,1e1", {}, [([1, 2], 0.5), ([3, 4], 7), ([5, 6], 10)]),
        ('y;"b";c\nred;1;2\nblue;3;4\nred;5;6', {"target": "y", "delimiter": ";"}, "colours"),
        ("red,1,2\nblue,3,4\nred,5,6", {"target": 0}, "colours"),
        ("\ufeff1,red,2\n3,blue,4\n5,red,6", {"target": -2}, "colours"),
        ('"1","re""d",2\n3,blue,4\n5,"re""d",6', {"target": 1}, "colours"),
    ],
)
def test_csv(tmp_path, text, options, expected):
    if expected == "colours":
        expected = [([1, 2], 1), ([3, 4], 0), ([5, 6], 1)]
    path = tmp_path / "a.csv"
    for content in (text.encode(), gzip.compress(text.encode())):
        path.write_bytes(content)
        splits = data.csv(path, valid=0, test=0, **options)
        assert rows_of(splits) == expected
        labels = isinstance(expected[0][1], int)
        assert splits.train[1].dtype == (np.int32 if labels else np.float32)


def test_by_name(tmp_path):
    assert data.by_name("Fashion_MNIST") is data.fashion_mnist
    np.savez(tmp_path / "a.npz", x=random(30, 3), y=random(30, high=3))
    assert data.by_name(str(tmp_path / "a.npz"))(valid=0).valid is None
    (tmp_path / "a.csv").write_text("1,0\n" * 9)
    assert len(data.by_name(str(tmp_path / "a.csv"))(valid=0, test=2).test[1]) == 2
    with pytest.raises(ValueError, match=r"must be one of 'digits', 'mnist'.*, got .*imagen"):
        data.by_name("imagenet")


NAMES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte")
NAMES += ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


@pytest.mark.parametrize("named", ["{pointed}", "{pointed}.gz", "{name}/{name}"])
def test_mnist_as_kaggle_has_it(tmp_path, named):
    _, _, x_test, y_test = write_mnist(tmp_path, ".gz" if named.endswith("gz") else "")
    for name in NAMES:
        path = next(tmp_path.glob(f"{name}*")).rename(tmp_path / "moved")
        new = tmp_path / named.format(name=name, pointed=name.replace("-idx", ".idx"))
        new.parent.mkdir(exist_ok=True)
        path.rename(new)
    splits = data.mnist(tmp_path, valid=10, standardize=False, dtype=np.uint8)
    np.testing.assert_array_equal(splits.test[0][..., 0], x_test)
    np.testing.assert_array_equal(splits.test[1], y_test)


def test_the_home_folder_in_every_path(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    x, y = random(12, 2) / 7, random(12, high=2)
    write_mnist(tmp_path / "mnist")
    np.save(tmp_path / "a.npy", x)
    np.savez(tmp_path / "a.npz", x=x, y=y)
    (tmp_path / "a").write_bytes(idx_bytes(x * 7))
    (tmp_path / "a.csv").write_text("1,0\n2,1\n" * 6)
    (tmp_path / "a.txt").write_text("some words " * 40)
    (tmp_path / "cifar").mkdir()
    for name in ("train.bin", "test.bin"):
        records = cifar_bytes([[1, 9], [2, 8]], random(2, 32, 32, 3).astype("u1"))
        (tmp_path / "cifar" / name).write_bytes(records)
    for mmap in (False, True):
        assert data.npy("~/a.npy", mmap=mmap).shape == data.idx("~/a", mmap=mmap).shape == (12, 2)
    loaders = [data.npz, data.csv, data.by_name("~/a.npz"), data.by_name("~/a.csv")]
    for load, path in zip(loaders, ("~/a.npz", "~/a.csv", None, None)):
        assert len((load(path) if path else load()).train[1]) == 9
    assert data.text("~/a.txt", 8).train[0].shape[1] == 8
    monkeypatch.setenv("JDL_DATA_DIR", "~")
    for folder in ("~", "~/mnist", None):
        assert len(data.mnist(folder, valid=10).test[1]) == 20
    assert len(data.cifar100("~/cifar", valid=0).test[1]) == 2
    with pytest.raises(data.DataError, match=r"^~/none.csv: cannot be opened: No such file"):
        data.csv("~/none.csv")


@pytest.mark.parametrize("load", [data.mnist, data.fashion_mnist, data.cifar10, data.cifar100])
def test_a_data_folder_that_is_not_there_is_an_error(tmp_path, monkeypatch, load):
    (tmp_path / "file").touch()
    for name in ("nowhere", "file"):
        monkeypatch.setenv("JDL_DATA_DIR", str(tmp_path / name))
        with pytest.raises(
            data.DataError, match=rf"JDL_DATA_DIR must name a folder, got '.*{name}'"
        ):
            load()
        with pytest.raises(data.DataError, match=rf"was not found: looked for .* in {tmp_path}"):
            load(tmp_path)
