"""Arithmetic on pytrees against NumPy on the concatenated leaves."""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from jdl import tree

# The square of what is smaller is no normal number of float32, and is flushed to zero.
numbers = st.floats(-100, 100, width=32).map(lambda v: np.float32(v if abs(v) > 1e-15 else 0))
leaves = hnp.arrays(np.float32, hnp.array_shapes(max_dims=2, max_side=3), elements=numbers)
trees = st.dictionaries(st.text("ab", min_size=1, max_size=2), leaves, min_size=1, max_size=3)


def flat(a):
    return np.concatenate([np.ravel(x) for x in jax.tree.leaves(a)]).astype(np.float64)


@settings(max_examples=12, deadline=None)
@given(trees, st.floats(-3, 3, width=32))
def test_against_flat_vectors(a, factor):
    a = jax.tree.map(jnp.asarray, a)
    b = jax.tree.map(lambda x: x[::-1] * 2 + 1, a)
    x, y = flat(a), flat(b)

    def close(ours, theirs, largest):
        """To a few roundings of float32 at the size of the largest term."""
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=5e-7 * largest + 1e-30)

    size = np.abs(x).max() + np.abs(y).max()
    close(flat(tree.add(a, b)), x + y, size)
    close(flat(tree.subtract(a, b)), x - y, size)
    close(flat(tree.scale(factor, a)), factor * x, 3 * size)
    close(flat(tree.add_scaled(a, factor, b)), x + factor * y, 4 * size)
    close(tree.dot(a, b), x @ y, np.abs(x * y).sum())
    close(tree.norm(a), np.linalg.norm(x), np.linalg.norm(x))
    assert tree.size(a) == x.size and tree.nbytes(a) == 4 * x.size


def test_where_takes_one_side_whole():
    a, b = {"x": jnp.ones(2)}, {"x": jnp.full(2, jnp.nan)}
    chex.assert_trees_all_equal(tree.where(True, a, b), a)
    assert np.isnan(tree.where(False, a, b)["x"]).all()


def test_dtypes():
    a = {"x": jnp.ones(2, jnp.bfloat16)}
    assert tree.scale(0.5, a)["x"].dtype == jnp.bfloat16
    assert tree.add_scaled(a, 0.5, {"x": jnp.ones(2)})["x"].dtype == jnp.bfloat16
    assert tree.zeros_like(a)["x"].dtype == jnp.bfloat16
    assert tree.zeros_like(a, jnp.float32)["x"].dtype == jnp.float32
    assert tree.cast_like({"x": jnp.ones(2)}, a)["x"].dtype == jnp.bfloat16
    # 4096 ones summed in bfloat16 stop growing at 256.
    assert (
        tree.dot({"x": jnp.ones(4096, jnp.bfloat16)}, {"x": jnp.ones(4096, jnp.bfloat16)}) == 4096
    )


def test_the_norm_of_complex_leaves_is_real():
    assert tree.norm({"z": jnp.array([3 + 4j])}) == 5.0


def test_all_finite():
    assert tree.all_finite({"x": jnp.ones(2), "n": jnp.arange(3)})
    assert not tree.all_finite({"x": jnp.ones(2), "y": jnp.array(jnp.inf)})
    assert tree.all_finite({"n": jnp.arange(3)})


def test_named_leaves():
    named = tree.named_leaves(({"kernel": 1}, [2, {"a": 3}]))
    assert named == {"0/kernel": 1, "1/0": 2, "1/1/a": 3}


def test_two_leaves_of_one_path_are_refused():
    for colliding in ({"a/b": 1.0, "a": {"b": 2.0}}, {"a": {"b": 1.0, "b/c": {}}, "a/b": 3.0}):
        with pytest.raises(ValueError, match="Two leaves have the path 'a/b', because a key has a"):
            tree.named_leaves(colliding)
    assert tree.named_leaves({"a/b": 1.0, "a": {"c": 2.0}}) == {"a/c": 2.0, "a/b": 1.0}
