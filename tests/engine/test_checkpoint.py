"""Checkpoints: what is written is read back to the bit, and damage is noticed."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from jdl.engine import checkpoint
from jdl.train import CheckpointError, load, save

DTYPES = ["float32", "float64", "int32", "uint32", "uint8", "bool", "float16"]
arrays = st.sampled_from(DTYPES).flatmap(
    lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=3, max_side=3))
)
trees = st.recursive(
    arrays,
    lambda inner: st.one_of(
        st.dictionaries(st.text("abc/.| ", max_size=3), inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
    ),
    max_leaves=6,
)


@settings(max_examples=60, deadline=None)
@given(trees)
def test_round_trip(tree):
    try:
        paths = checkpoint.tree.named_leaves(tree)
        assume_distinct = len(paths) == len(jax.tree.leaves(tree))
    except ValueError:
        assume_distinct = False
    if not assume_distinct:
        return
    leaves, notes = checkpoint.from_bytes(checkpoint.to_bytes(tree, {"step": 3}))
    back = checkpoint.fill(tree, leaves)
    assert notes == {"step": 3}
    assert jax.tree.structure(back) == jax.tree.structure(tree)
    for a, b in zip(jax.tree.leaves(tree), jax.tree.leaves(back)):
        assert a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


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
