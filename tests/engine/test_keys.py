"""Keys of a trial: streams by number from Threefry, and typed keys as words and back."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdl.engine.keys import Words, keys_of, to_keys, to_words, trial_keys, trial_words


def words(key):
    return np.asarray(jax.random.key_data(key)).tolist()


@pytest.mark.parametrize(("root", "stream"), [(0, 0), (7, 3), (2**32 - 1, 123456)])
def test_the_streams_of_a_trial(root, stream):
    """The step's own stream is its number, so init and data take the last two."""
    root, stream = np.uint32(root), np.uint32(stream)
    with jax.debug_key_reuse(False):
        keys = trial_keys(root, stream)
        trial = jax.random.fold_in(jax.random.key(root, impl="threefry2x32"), stream)
        init = jax.random.fold_in(trial, np.uint32(0xFFFFFFFF))
        data = jax.random.fold_in(trial, np.uint32(0xFFFFFFFE))
        assert keys._fields == ("init", "data", "trial")
        for key, expected in zip(keys, (init, data, trial)):
            assert words(key) == words(expected)
            assert str(jax.random.key_impl(key)) == "threefry2x32"


def test_the_generator_does_not_depend_on_the_default():
    with jax.debug_key_reuse(False):
        before = words(trial_keys(np.uint32(5), np.uint32(6)).trial)
        with jax.default_prng_impl("rbg"):
            keys = trial_keys(np.uint32(5), np.uint32(6))
    assert words(keys.trial) == before


@pytest.mark.parametrize("generator", ["threefry2x32", "rbg"])
def test_typed_keys_as_words_and_back(generator):
    key = jax.random.key(9, impl=generator)
    state = {"a": jnp.arange(3.0), "key": key, "n": 4, "pair": (jax.random.split(key, 2), None)}
    with jax.debug_key_reuse(False):
        plain = to_words(state)
        assert isinstance(plain["key"], Words) and plain["key"].words.dtype == jnp.uint32
        assert plain["a"] is state["a"] and plain["n"] == 4
        leaves = jax.tree.leaves(plain)
        assert len(leaves) == 4 and leaves[1].tolist() == words(key)
        back = to_keys(plain)
        assert jax.tree.structure(back) == jax.tree.structure(state)
        assert words(back["key"]) == words(key)
        assert words(back["pair"][0]) == words(state["pair"][0])
        assert jax.random.key_impl(back["key"]) == jax.random.key_impl(key)
        assert back["a"] is state["a"]


@pytest.mark.parametrize("root", [0, 7, 2**32 - 1])
def test_the_host_computes_the_words_of_the_keys(root):
    """Streams of several blocks, the last one there is among them, in any order."""
    streams = np.array([0, 3, 255, 256, 123456, 2**32 - 1, 3], np.uint32)
    with jax.debug_key_reuse(False):
        keys = [trial_keys(np.uint32(root), stream) for stream in streams]
    expected = [[words(key) for key in one] for one in keys]
    got = trial_words(root, streams)
    assert got.dtype == np.uint32 and got.tolist() == expected
    assert [words(key) for key in keys_of(got[3])] == expected[3]
