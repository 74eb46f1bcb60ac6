"""How a rule for one leaf moves a tree: dtypes, masks, structures."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdl.optim import _leaves

PARAMS = {
    "h": jnp.array([1.0, 2.0], jnp.bfloat16),
    "c": jnp.array([3 + 4j], jnp.complex64),
    "f": jnp.array([[0.5]], jnp.float32),
}


def dtypes(tree):
    return jax.tree.map(lambda x: str(x.dtype), tree)


def test_wide_keeps_or_widens():
    found = jax.tree.map(lambda x: str(_leaves.wide(x).dtype), PARAMS)
    assert found == {"h": "float32", "c": "complex64", "f": "float32"}
    assert _leaves.wide(jnp.int8(3)).dtype == jnp.float32
    with jax.enable_x64(True):
        assert _leaves.wide(jnp.float64(3)).dtype == jnp.float64


def test_squares_and_quotients():
    np.testing.assert_allclose(_leaves.square(jnp.array([3 + 4j, -2j])), [25, 4])
    assert _leaves.square(PARAMS["c"]).dtype == jnp.float32
    np.testing.assert_allclose(_leaves.square(jnp.array([3.0, -0.5])), [9, 0.25])
    over = _leaves.over(jnp.array([6.0, 0.0, 5.0]), jnp.array([4.0, 0.0, 0.0]))
    assert over.tolist() == [1.5, 0.0, 0.0]


def test_moments_and_copies_have_dtypes_of_their_own():
    zeros = _leaves.moments(PARAMS)
    assert dtypes(zeros) == {"h": "float32", "c": "complex64", "f": "float32"}
    assert all(not np.any(x) for x in jax.tree.leaves(zeros))
    assert dtypes(_leaves.moments(PARAMS["h"], jnp.bfloat16)) == "bfloat16"
    squares = _leaves.square_moments(PARAMS, lambda step: 0.25 + step)
    assert dtypes(squares) == {"h": "float32", "c": "float32", "f": "float32"}
    assert [x.ravel()[0] for x in jax.tree.leaves(squares)] == [0.25] * 3
    assert not np.any(_leaves.square_moments(PARAMS["h"]))
    copies = _leaves.copies(PARAMS)
    assert dtypes(copies) == dtypes(zeros)
    assert copies["f"].unsafe_buffer_pointer() != PARAMS["f"].unsafe_buffer_pointer()
    np.testing.assert_array_equal(copies["c"], PARAMS["c"])
    assert _leaves.values_at(3, 0.5, lambda step: 2.0 * step) == [0.5, 6.0]


def test_the_widest_real_dtype_of_a_tree():
    assert _leaves.widest(PARAMS) == jnp.float32
    assert _leaves.widest({"h": PARAMS["h"]}) == jnp.float32
    with jax.enable_x64(True):
        assert _leaves.widest({"a": jnp.ones(1, jnp.complex128)}) == jnp.float64


def test_a_mask_is_a_tree_a_prefix_a_function_or_nothing():
    nested = {"a": {"x": 1.0, "y": 2.0}, "b": 3.0}
    every = {"a": {"x": True, "y": True}, "b": True}
    assert _leaves.resolve_mask(None, nested) == every
    assert _leaves.resolve_mask(True, nested) == every
    prefix = {"a": False, "b": True}
    expected = {"a": {"x": False, "y": False}, "b": True}
    assert _leaves.resolve_mask(prefix, nested) == expected
    assert _leaves.resolve_mask(lambda params: prefix, nested) == expected


def test_a_rule_sees_wide_leaves_and_outputs_take_the_dtypes_of_their_models():
    grads = jax.tree.map(lambda w: 2 * w, PARAMS)
    moments = _leaves.moments(PARAMS)
    seen = []

    def rule(g, w, m):
        seen.append((str(g.dtype), str(w.dtype), str(m.dtype)))
        return g - 3 * w, m + 5 * g

    updates, new = _leaves.per_leaf(rule, grads, PARAMS, moments)
    assert seen == [(kind,) * 3 for kind in ("complex64", "float32", "float32")]
    assert dtypes(updates) == dtypes(PARAMS) and dtypes(new) == dtypes(moments)
    np.testing.assert_array_equal(updates["c"], -PARAMS["c"])
    np.testing.assert_array_equal(new["h"], [10, 20])

    def without(g, w, m):
        assert w is None
        return g, m - g

    updates, new = _leaves.per_leaf(without, grads, None, moments)
    assert dtypes(updates) == dtypes(grads)
    np.testing.assert_array_equal(new["f"], [[-1.0]])


def test_a_tuple_in_the_place_of_a_leaf_is_given_whole():
    grads = jnp.array([1.0, 2.0])
    (found,) = _leaves.leafwise(lambda g, pair: (g * pair[1],), (grads,), grads, (3.0, 4.0))
    assert found.tolist() == [4.0, 8.0]
    assert _leaves.leafwise(lambda g: (g, g), ({}, {}), {}) == ({}, {})


def test_trees_of_two_structures_are_shown():
    tree = {"a": jnp.ones(1), "b": jnp.ones(1)}
    with pytest.raises(ValueError, match=r"one structure, got PyTreeDef\({'a': \*, 'b': \*}\)"):
        _leaves.leafwise(lambda g, m: (g,), (tree,), tree, {"a": jnp.ones(1)})


def test_a_rule_with_another_number_of_outputs_is_a_mistake():
    g = jnp.ones(2)
    with pytest.raises(ValueError, match="zip"):
        _leaves.leafwise(lambda g: (g, g), (g,), g)
    tree = [g, g]
    with pytest.raises(ValueError, match="zip"):
        _leaves.leafwise(lambda g, flag: (g,) * flag, (tree,), tree, [1, 2])


def test_missing_parameters_are_named():
    assert _leaves.given({"w": 1.0}, "lion") == {"w": 1.0}
    match = r"lion needs the parameters: call `update\(grads, state, params\)`, got params=None"
    with pytest.raises(ValueError, match=match):
        _leaves.given(None, "lion")
