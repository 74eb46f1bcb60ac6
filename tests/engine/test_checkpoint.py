"""Checkpoints: what is written is read back to the bit, and damage is noticed."""

from __future__ import annotations

import os
import threading
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from jdl.engine import checkpoint
from jdl.engine.keys import to_words
from jdl.train import CheckpointError, load, save

FOREIGN = [
    name
    for name, kind in vars(ml_dtypes).items()
    if isinstance(kind, type) and issubclass(kind, np.generic) and name != "bcomplex32"
]
DTYPES = [
    *("float16", "float32", "float64", ">f2", ">f4", ">f8", "complex64", "complex128", ">c8"),
    *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *(">i2", ">i4", ">i8", ">u2", ">u4", ">u8"),
    *FOREIGN,
]
REFUSED = [
    "text",
    b"bytes",
    object(),
    2**70,
    np.datetime64("2020-01-01"),
    np.array(["a"]),
    np.array([(1, 2.0)], "i4,f4"),
    np.ma.masked_array([1.0, 2.0], [True, False]),
    np.zeros(2, np.longdouble),
]


def bits(dtype):
    """Arrays of `dtype` whose every bit is drawn, in C or Fortran order."""
    shapes = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3)

    def made(shape):
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        words = st.binary(min_size=size, max_size=size)
        return words.map(lambda b: np.frombuffer(b, dtype).reshape(shape))

    whole = shapes.flatmap(made)
    if dtype == "bool" or dtype.startswith(("int1", "int2", "int4", "uint1", "uint2", "uint4")):
        # Not every byte is one of their values.
        whole = hnp.arrays("uint8", shapes, elements=st.integers(0, 1)).map(
            lambda a: a.astype(dtype)
        )
    return whole.flatmap(lambda a: st.sampled_from([a, np.asfortranarray(a), a.T]))


class Pair(NamedTuple):
    a: Any
    b: Any


numbers = st.one_of(
    st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(), st.complex_numbers()
)
typed = st.builds(
    lambda seed, impl: jax.random.key(seed, impl=impl),
    st.integers(0, 9),
    st.sampled_from(["threefry2x32", "rbg", "unsafe_rbg"]),
)
leaves = st.one_of(st.sampled_from(DTYPES).flatmap(bits), numbers, typed, st.sampled_from(REFUSED))
texts = st.one_of(
    st.sampled_from(["__metadata__", "a/b", "a", "b", "", "/", "0", "\ud800", "a\0b"]),
    st.text(max_size=3),
)
trees = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.dictionaries(texts, inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.builds(Pair, inner, inner),
        st.none(),
    ),
    max_leaves=6,
)


def same(a, b):
    if hasattr(a, "dtype") and jax.dtypes.issubdtype(a.dtype, jax.dtypes.prng_key):
        assert a.dtype == b.dtype
        a, b = jax.random.key_data(a), jax.random.key_data(b)
    assert hasattr(a, "dtype") or type(a) is type(b)
    x, y = np.asarray(a), np.asarray(b)
    assert x.dtype == y.dtype and x.shape == y.shape and x.tobytes() == y.tobytes()


def refused(tree):
    """Whether `save` may refuse, by rules of its own: what a leaf is, and what paths are."""
    named, _ = jax.tree_util.tree_flatten_with_path(to_words(tree))  # typed keys have parts
    paths = [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in named]
    if len({*paths}) < len(paths) or "__metadata__" in paths or "\ud800" in "".join(paths):
        return True
    return any(leaf is bad for _, leaf in named for bad in REFUSED)


@settings(max_examples=150, deadline=None)
@given(trees)
def test_what_is_saved_is_loaded_or_refused(tmp_path_factory, tree):
    path = tmp_path_factory.getbasetemp() / "tree"
    if refused(tree):
        with pytest.raises(CheckpointError):
            save(path, tree)
        return
    save(path, tree)
    back = load(path, tree)
    assert jax.tree.structure(back) == jax.tree.structure(tree)
    for a, b in zip(jax.tree.leaves(tree), jax.tree.leaves(back)):
        same(a, b)


@pytest.mark.parametrize("name", DTYPES)
def test_every_dtype(tmp_path, name):
    """Zero and one, which are values of all, as an array and as a scalar."""
    dtype = np.dtype(getattr(ml_dtypes, name, name))
    tree = {"w": np.array([0, 1, 1], np.int8).astype(dtype), "s": np.ones((), dtype)}
    save(tmp_path / "a", tree)
    back = load(tmp_path / "a", tree)
    assert back["w"].dtype == dtype and back["w"].tobytes() == tree["w"].tobytes()
    assert back["s"].shape == () and back["s"].tobytes() == tree["s"].tobytes()


@pytest.mark.parametrize("bad", REFUSED, ids=lambda bad: type(bad).__name__)
def test_other_leaves_are_refused_by_path(tmp_path, bad):
    with pytest.raises(CheckpointError, match="The leaf 'a/0' must be an array of numbers or"):
        save(tmp_path / "a", {"a": (bad,)})
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        (
            {"a/b": np.ones(2), "a": {"b": np.zeros(2)}},
            r"Two leaves have the path 'a/b', because a key has a '/'",
        ),
        ({"a": {"/b": np.ones(2)}, "a/": {"b": np.zeros(2)}}, r"Two leaves have the path 'a//b'"),
        ({"__metadata__": np.ones(2)}, "cannot have the path '__metadata__'. Rename the key"),
        ({"\udcff": np.ones(2)}, r"cannot have the path '\\udcff'"),
    ],
)
def test_paths_that_cannot_be_kept(tmp_path, tree, message):
    with pytest.raises(CheckpointError, match=message):
        save(tmp_path / "a", tree)


def test_notes_and_leaves_by_path():
    tree = {"a": (np.arange(3, dtype="i2"), {"b": jnp.zeros((0, 2))})}
    leaves, notes = checkpoint.from_bytes(checkpoint.to_bytes(tree, {"step": 3}))
    assert notes == {"step": 3} and {*leaves} == {"a/0", "a/1/b"}
    assert leaves["a/0"].tolist() == [0, 1, 2] and leaves["a/1/b"].shape == (0, 2)


def test_typed_keys_and_shapes_alone(tmp_path):
    """A key comes back as a key, and `like` may be what `jax.eval_shape` gives."""

    def init(seed):
        return {"key": jax.random.split(jax.random.key(seed), 3), "step": jnp.int32(7)}

    tree = init(5)
    save(tmp_path / "a", tree)
    back = load(tmp_path / "a", jax.eval_shape(init, 0))
    same(tree["key"], back["key"])
    assert back["step"] == 7
    with pytest.raises(CheckpointError, match="does not fit"):
        load(tmp_path / "a", {"key": np.zeros((3, 2), np.uint32), "step": 7})


def test_bfloat16(tmp_path):
    tree = {"w": jnp.array([1.5, -2.25], jnp.bfloat16), "n": jnp.int32(4)}
    save(tmp_path / "a.safetensors", tree)
    back = load(tmp_path / "a.safetensors", tree)
    assert back["w"].dtype == jnp.bfloat16
    np.testing.assert_array_equal(back["w"].astype(np.float32), [1.5, -2.25])
    assert back["n"] == 4


def test_every_flipped_byte_is_noticed():
    tree = {"w": np.arange(4, dtype=np.float32), "b": np.ones(2, np.int32)}
    whole = checkpoint.to_bytes(tree)
    for at in range(len(whole)):
        damaged = bytearray(whole)
        damaged[at] ^= 0x41
        try:
            leaves, _ = checkpoint.from_bytes(bytes(damaged))
            back = checkpoint.fill(tree, leaves)
        except CheckpointError:
            continue
        # What is left is a change in the notes or in white space, never in the values.
        np.testing.assert_array_equal(back["w"], tree["w"])
        np.testing.assert_array_equal(back["b"], tree["b"])


@pytest.mark.parametrize("length", [0, 5, 40, -1])
def test_a_truncated_file(tmp_path, length):
    path = tmp_path / "a.safetensors"
    save(path, {"w": jnp.ones(3)})
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(CheckpointError, match=r"a\.safetensors is not a readable checkpoint"):
        load(path, {"w": jnp.ones(3)})


@pytest.mark.parametrize(
    "like,message",
    [
        ({"w": jnp.ones(4)}, r"'w' is float32\[3\], expected float32\[4\]"),
        ({"w": jnp.ones(3, jnp.int32)}, r"'w' is float32\[3\], expected int32\[3\]"),
        ({"v": jnp.ones(3)}, "'v' is missing"),
        ({}, "'w' is unexpected"),
    ],
)
def test_what_does_not_fit(tmp_path, like, message):
    save(tmp_path / "a", {"w": jnp.ones(3)})
    with pytest.raises(CheckpointError, match=message):
        load(tmp_path / "a", like)


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a"
    save(path, {"w": jnp.ones(3)})
    before = path.read_bytes()

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        save(path, {"w": jnp.zeros(3)})
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_threads_that_save_to_one_path(tmp_path):
    """At any moment the file is one of those that were saved, and no temporary file is left."""
    path, wrong = tmp_path / "a", []
    like = {"w": np.zeros(50_000)}

    def write(value):
        try:
            for _ in range(8):
                save(path, {"w": np.full(50_000, value)})
                read = load(path, like)["w"]
                if not (read == read[0]).all():
                    wrong.append("mixed")
        except Exception as error:
            wrong.append(error)

    threads = [threading.Thread(target=write, args=(float(i),)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong and os.listdir(tmp_path) == ["a"]


def test_a_symbolic_link_stays_and_its_target_is_replaced(tmp_path):
    (tmp_path / "there").mkdir()
    target, link = tmp_path / "there" / "a", tmp_path / "link"
    link.symlink_to(target)
    for value in (1.0, 2.0):  # the target is first missing, then there
        save(link, {"w": np.full(2, value)})
        assert link.is_symlink() and not target.is_symlink()
        assert load(target, {"w": np.zeros(2)})["w"].tolist() == [value, value]


names = st.text(
    st.characters(codec="utf-8", exclude_characters="/\x00"), min_size=1, max_size=40
).filter(lambda name: name not in (".", ".."))


@settings(max_examples=60, deadline=None)
@given(names)
def test_any_name_of_a_file(tmp_path_factory, name):
    """ "~" alone at the front of a whole path is the home folder; inside of one it is a letter."""
    folder = tmp_path_factory.mktemp("names")
    for path in (folder / name, str(folder / name)):
        save(path, {"w": np.arange(3.0)})
        assert load(path, {"w": np.zeros(3)})["w"].tolist() == [0, 1, 2]
    assert [path.name for path in folder.iterdir()] == [name]


def test_a_name_as_long_as_a_file_may_have(tmp_path):
    save(tmp_path / ("é" * 127), {"w": np.ones(2)})
    assert [len(p.name) for p in tmp_path.iterdir()] == [127]


def test_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    save("~/a", {"w": np.ones(2)})
    assert load("~/a", {"w": np.zeros(2)})["w"].tolist() == [1, 1] and (tmp_path / "a").exists()


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere/a\.safetensors'$"):
        save(tmp_path / "nowhere" / "a.safetensors", {"w": np.ones(2)})
