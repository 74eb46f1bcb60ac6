"""Pooling: torch's recorded values, ties among them, every derivative, NaN, errors."""

import itertools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdl import nn

GOLDEN = np.load(pathlib.Path(__file__).parents[1] / "golden" / "conv.npz")
POOLS = {
    "max_side_by_side": nn.max_pool((2, 3)),
    "max_overlapping": nn.max_pool(3, 2, 1),
    "max_sequence": nn.max_pool(3, 2),
    "avg_side_by_side": nn.avg_pool((2, 3)),
    "avg_counting": nn.avg_pool(3, 2, 1),
    "avg_not_counting": nn.avg_pool(3, 2, 1, count_padding=False),
    "avg_sequence": nn.avg_pool(4, 3),
}


def test_outputs_and_gradients_are_torchs(x64):
    cases = {
        name: [GOLDEN[f"{name}/{field}"] for field in ("x", "cotangent", "y", "dx")]
        for name in POOLS
    }

    @jax.jit
    def run(cases):
        results = {}
        for name, (x, cotangent, _, _) in cases.items():
            y, back = jax.vjp(lambda x, name=name: POOLS[name].apply({}, {}, x)[0], x)
            results[name] = y, back(cotangent)[0]
        return results

    for name, (y, dx) in run(cases).items():
        np.testing.assert_allclose(y, cases[name][2], rtol=1e-13, atol=1e-13, err_msg=name)
        np.testing.assert_allclose(dx, cases[name][3], rtol=1e-13, atol=1e-13, err_msg=name)
    assert [pool.name for pool in POOLS.values()] == ["max_pool"] * 3 + ["avg_pool"] * 4
    assert POOLS["avg_counting"].init(jax.random.key(0), cases["avg_counting"][0]) == ({}, {})


def test_defaults_are_windows_of_two_side_by_side():
    x = jnp.arange(36.0).reshape(1, 6, 6, 1)
    for pool, expected in (
        (nn.max_pool(), x[:, 1::2, 1::2]),
        (nn.avg_pool(), x[:, ::2, ::2] + 3.5),
    ):
        assert (pool.apply({}, {}, x)[0] == expected).all()
    # An odd end is left out, or filled by "SAME".
    assert nn.max_pool().apply({}, {}, x[:, :5, :5])[0].shape == (1, 2, 2, 1)
    same = nn.max_pool(padding="SAME").apply({}, {}, -x[:, :5, :5] - 1)[0]
    assert same[0, :, :, 0].tolist() == [[-1, -3, -5], [-13, -15, -17], [-25, -27, -29]]


def pooled_by_a_loop(x, size, step, pads, reduce):
    """`reduce` of what each window covers of `x`, the padding left out, window by window."""
    counts = [(n + sum(p) - k) // s + 1 for n, k, s, p in zip(x.shape[1:3], size, step, pads)]
    y = np.zeros((x.shape[0], *counts, x.shape[3]))
    for i, j in itertools.product(*map(range, counts)):
        top, left = i * step[0] - pads[0][0], j * step[1] - pads[1][0]
        rows, columns = slice(max(top, 0), top + size[0]), slice(max(left, 0), left + size[1])
        y[:, i, j] = reduce(x[:, rows, columns], axis=(1, 2))
    return y


@pytest.mark.parametrize(
    ("size", "step", "pads"),
    [
        ((3, 2), None, ((1, 2), (0, 1))),  # side by side, with some to fill up and some left over
        ((2, 4), None, ((0, 0), (3, 0))),
        ((3, 4), (1, 3), ((2, 0), (1, 3))),  # overlapping
        ((1, 2), (2, 3), ((0, 0), (0, 1))),  # apart
    ],
)
def test_evaluation_is_a_loop(x64, size, step, pads):
    """Without a derivative, which takes another path."""
    x = np.random.default_rng(3).normal(size=(2, 7, 6, 3))
    total = np.prod(size)
    expected = {
        nn.max_pool(size, step, pads): np.max,
        nn.avg_pool(size, step, pads, count_padding=False): np.mean,
        nn.avg_pool(size, step, pads): lambda v, axis: v.sum(axis) / total,
    }
    run = jax.jit(lambda x: [pool.apply({}, {}, x)[0] for pool in expected])
    for y, reduce in zip(run(x), expected.values(), strict=True):
        wanted = pooled_by_a_loop(x, size, step or size, pads, reduce)
        np.testing.assert_allclose(y, wanted, rtol=1e-13, atol=1e-13)


def test_global_pools(x64):
    rng = np.random.default_rng(1)
    x = rng.integers(-2, 3, size=(2, 3, 4, 5)).astype(float)
    flat = x.reshape(2, 12, 5)
    cotangent = rng.normal(size=(2, 5))
    y, back = jax.vjp(nn.global_max_pool, x)
    expected = np.zeros_like(flat)
    for n in range(2):
        for c in range(5):
            expected[n, int(np.argmax(flat[n, :, c])), c] = cotangent[n, c]
    assert (y == flat.max(1)).all()
    assert (back(cotangent)[0] == expected.reshape(x.shape)).all()
    mean, back = jax.vjp(nn.global_avg_pool, x)
    np.testing.assert_allclose(mean, flat.mean(1), rtol=1e-14)
    share = np.broadcast_to(cotangent[:, None, None] / 12, x.shape)
    np.testing.assert_allclose(back(cotangent)[0], share, rtol=1e-14)


def test_derivatives_of_second_order_and_forwards(x64):
    rng = np.random.default_rng(2)
    x, v = rng.normal(size=(2, 1, 5, 6, 2))
    pool = nn.max_pool(3, 2, 1)

    def plain(x):
        padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-jnp.inf)
        taps = [padded[:, i : i + 5 : 2, j : j + 5 : 2] for i in range(3) for j in range(3)]
        return jnp.stack(taps).max(0)

    def derivatives(pool):
        def loss(x):
            return (jnp.sin(pool(x)) * x.sum()).sum()

        return jax.jvp(pool, (x,), (v,)), jax.jvp(jax.grad(loss), (x,), (v,))

    @jax.jit
    def run():
        return derivatives(lambda x: pool.apply({}, {}, x)[0]), derivatives(plain)

    for a, b in zip(*map(jax.tree.leaves, run()), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)


def test_nan_is_the_largest_wherever_it_stands():
    for place in range(4):
        x = jnp.arange(4.0).at[place].set(jnp.nan).reshape(1, 2, 2, 1)
        assert jnp.isnan(nn.max_pool(2).apply({}, {}, x)[0]).all()
        assert jnp.isnan(nn.global_max_pool(x)).all()


def test_half_precision_keeps_its_dtype_and_adds_up_in_float32():
    x = jnp.ones((1, 30, 30, 1), jnp.bfloat16)
    for y in (nn.avg_pool(30).apply({}, {}, x)[0], nn.global_avg_pool(x)):
        assert y.dtype == jnp.bfloat16 and float(y.ravel()[0]) == 1.0
    assert nn.max_pool(2).apply({}, {}, x)[0].dtype == nn.global_max_pool(x).dtype == jnp.bfloat16


@pytest.mark.parametrize(
    ("pool", "shape", "match"),
    [
        (nn.max_pool(2), (2, 5), r"Pooling needs .* got shape \(2, 5\)"),
        (nn.avg_pool(4), (2, 3, 3, 1), r"`window` must fit .* window=\(4, 4\) for size \(3, 3\)"),
        (nn.max_pool(2, padding=2), (2, 3, 3, 1), "larger than the padding"),
        (nn.max_pool(0), (2, 3, 3, 1), "got window=0"),
        (nn.max_pool(2, (1, 2)), (2, 3, 1), r"got stride=\(1, 2\)"),
    ],
)
def test_errors(pool, shape, match):
    with pytest.raises(ValueError, match=match):
        pool.apply({}, {}, jnp.zeros(shape))


def test_integers_have_a_largest_and_a_mean():
    pixels = jnp.array([[250, 3], [7, 255], [0, 1]], jnp.uint8).reshape(1, 3, 2, 1)
    largest, _ = nn.max_pool(2, 1, "SAME").apply({}, {}, pixels)
    assert largest.dtype == jnp.uint8 and largest.ravel().tolist() == [255, 255, 255, 255, 1, 1]
    mean, _ = nn.avg_pool((1, 2)).apply({}, {}, pixels)
    assert mean.ravel().tolist() == [126.5, 131.0, 0.5]
