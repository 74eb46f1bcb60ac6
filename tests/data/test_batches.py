"""Batches: bijections of every length, uniform over orders and pairs, the same in every lane."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jdl import data


def orders(length, count, seed):
    keys = jax.random.split(jax.random.key(seed), count)
    permute = jax.jit(jax.vmap(lambda key: data.permute(jnp.arange(length), length, key)))
    return np.asarray(permute(keys))


@pytest.mark.parametrize("length", [1, 2, 3, 7, 64, 1257, 50_001])
def test_permute_is_a_bijection(length):
    found = orders(length, 4, seed=1)
    np.testing.assert_array_equal(np.sort(found, 1), np.tile(np.arange(length), (4, 1)))
    if length > 10:
        assert len({row.tobytes() for row in found}) == 4


def test_permute_of_the_largest_length_stays_in_range_and_apart():
    length = 2**31 - 1
    index = np.concatenate([np.arange(5000), length - 1 - np.arange(5000)]).astype(np.int32)
    found = np.asarray(data.permute(index, length, jax.random.key(3)))
    assert found.min() >= 0 and found.max() < length
    assert len(np.unique(found)) == len(index)
    assert stats.kstest(found / length, "uniform").pvalue > 1e-3


def test_permute_is_swap_or_not():
    """The same shuffle, written with Python integers from the paper's formulation."""
    from jdl.data.batches import round_keys

    length, key = 11, jax.random.key(5)
    keys = np.asarray(round_keys(key, length)).tolist()

    def image(x):
        x = (keys[0][0] - x) % length
        for pivot, add, flip in keys[1:]:
            partner = (pivot - x) % length
            larger = max(x, partner)
            if ((larger + add) * (larger ^ flip)) % 2**32 >= 2**31:
                x = partner
        return x

    expected = [image(x) for x in range(length)]
    assert data.permute(jnp.arange(length), length, key).tolist() == expected


@pytest.mark.parametrize("length", [2, 3, 4, 5])
def test_every_order_of_a_short_length_is_equally_likely(length):
    found = orders(length, 60_000, seed=2)
    codes = np.unique(found @ length ** np.arange(length), return_counts=True)[1]
    assert len(codes) == math.factorial(length)
    assert stats.chisquare(codes).pvalue > 1e-3


@pytest.mark.parametrize(("length", "count"), [(10, 40_000), (64, 20_000), (1257, 2_000)])
def test_positions_and_pairs_are_uniform(length, count):
    found = orders(length, count, seed=7)
    tests = []
    for i, j in [(0, 1), (0, length - 1), (length // 2, length // 2 + 1), (0, length // 2)]:
        # The difference of two images is uniform over 1 ... length - 1.
        seen = np.bincount((found[:, i] - found[:, j]) % length, minlength=length)[1:]
        tests += [stats.chisquare(seen).pvalue]
        bins = np.arange(length) * 10 // length
        expected = count * np.bincount(bins) / length
        tests += [stats.chisquare(np.bincount(bins[found[:, i]]), expected).pvalue]
    assert min(tests) > 1e-3, tests
    # Neighbours that stay neighbours: 2 (n - 1) / n expected, variance near 2.
    stay = (np.abs(np.diff(found, axis=1)) == 1).sum(1)
    assert abs(stay.mean() - 2 * (length - 1) / length) < 4 * np.sqrt(2 / count)
    # Fixed points: 1 expected, variance 1.
    assert abs((found == np.arange(length)).sum(1).mean() - 1) < 4 / np.sqrt(count)


def test_orders_of_two_epochs_are_independent():
    index = data.batch_indices(jax.random.key(11), 0, 2 * 1257, 1, 1257)
    first, second = np.asarray(index).reshape(2, 1257)
    assert abs(stats.spearmanr(first, second).statistic) < 4 / np.sqrt(1257)


def test_an_epoch_visits_each_example_once_and_drops_the_remainder():
    length, size = 50, 8
    per_epoch = data.steps_per_epoch(length, size)
    assert per_epoch == 6
    index = np.asarray(data.batch_indices(jax.random.key(0), 0, 3 * per_epoch, size, length))
    epochs = index.reshape(3, -1)
    assert index.dtype == np.int32 and index.min() >= 0 and index.max() < length
    assert [len(np.unique(epoch)) for epoch in epochs] == [48] * 3
    assert len({tuple(epoch) for epoch in epochs}) == 3
    dropped = [set(range(length)) - set(epoch) for epoch in epochs.tolist()]
    assert dropped[0] != dropped[1] or dropped[1] != dropped[2]


@pytest.mark.parametrize(("size", "length"), [(5, 12), (4, 4)])
def test_a_window_holds_the_same_batches_wherever_it_begins(size, length):
    key = jax.random.key(4)
    windows = jax.jit(
        lambda step, steps: data.batch_indices(key, step, steps, size, length), static_argnums=1
    )
    whole = np.asarray(windows(0, 23))
    for step in range(20):
        np.testing.assert_array_equal(windows(step, 3), whole[step : step + 3])


def test_batches_do_not_depend_on_the_lanes():
    keys = jax.random.split(jax.random.key(8), 5)
    steps = jnp.array([0, 3, 3, 40, 7])
    lanes = jax.jit(jax.vmap(lambda key, step: data.batch_indices(key, step, 6, 4, 21)))(
        keys, steps
    )
    assert len({lane.tobytes() for lane in np.asarray(lanes)}) == 5
    for lane, key, step in zip(lanes, keys, steps, strict=True):
        np.testing.assert_array_equal(lane, data.batch_indices(key, step, 6, 4, 21))


def test_a_key_may_be_used_for_many_windows():
    key = jax.random.key(2)
    found = [data.batch_indices(key, step, 3, 3, 10) for step in (0, 3)]
    assert not np.array_equal(*found)


def test_the_order_is_one_that_later_versions_must_keep():
    found = data.batch_indices(jax.random.key(0), 2, 3, 3, 10).tolist()
    assert found == [[3, 2, 9], [9, 6, 5], [2, 0, 7]]


@pytest.mark.parametrize("size", [0, 11])
def test_a_batch_that_does_not_fit_is_refused(size):
    with pytest.raises(ValueError, match=rf"training examples, 10, got batch_size={size}\."):
        data.batch_indices(jax.random.key(0), 0, 1, size, 10)


@pytest.mark.parametrize("length", [0, 2**31])
def test_a_length_out_of_range_is_refused(length):
    with pytest.raises(ValueError, match=f"got length={length}"):
        data.permute(jnp.arange(1), length, jax.random.key(0))


def test_take_gathers_from_every_array():
    x, y = np.arange(12.0).reshape(6, 2), np.arange(6)
    index = jnp.array([[5, 0], [3, 3]])
    taken = data.take((jnp.asarray(x), jnp.asarray(y)), index)
    np.testing.assert_array_equal(taken[0], x[np.asarray(index)])
    np.testing.assert_array_equal(taken[1], y[np.asarray(index)])


def test_rounds_grow_with_the_length():
    from jdl.data.batches import rounds

    assert [rounds(length) for length in (1, 2**14 - 1, 2**14, 60_000)] == [20, 20, 21, 22]


def test_indices_are_the_same_with_wide_integers():
    narrow = data.batch_indices(jax.random.key(3), 5, 7, 2, 11).tolist()
    with jax.enable_x64(True):
        assert data.batch_indices(jax.random.key(3), 5, 7, 2, 11).tolist() == narrow
        assert data.batch_indices(jax.random.key(3), np.int64(5), 7, 2, 11).tolist() == narrow
