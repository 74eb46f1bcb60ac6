"""Convolution: torch's recorded values, `lax.conv` over everything, padding, errors."""

import itertools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jdl import nn
from jdl.nn.convolution import paddings

GOLDEN = np.load(pathlib.Path(__file__).parents[1] / "golden" / "conv.npz")
TORCH = {
    "plain": {"padding": (2, 1)},
    "strided": {"stride": 2, "padding": 1},
    "dilated": {"stride": (1, 2), "dilation": (2, 3), "padding": (1, 2)},
    "grouped": {"stride": (2, 1), "padding": 1, "groups": 3},
    "sequence": {"stride": 3, "padding": 2, "dilation": 2, "groups": 2},
}


@pytest.mark.parametrize("name", TORCH)
def test_the_layer_is_torchs(x64, name):
    case = {key[len(name) + 1 :]: GOLDEN[key] for key in GOLDEN if key.startswith(f"{name}/")}
    window = case["kernel"].shape[:-2]
    layer = nn.conv(case["y"].shape[-1], window, **TORCH[name])
    params = {"kernel": case["kernel"], "bias": case["bias"]}
    drawn = jax.eval_shape(layer.init, jax.random.key(0), case["x"])[0]
    assert jax.tree.map(jnp.shape, drawn) == jax.tree.map(jnp.shape, params)

    @jax.jit
    def pull(params, x, cotangent):
        y, back = jax.vjp(lambda params, x: layer.apply(params, {}, x)[0], params, x)
        return y, *back(cotangent)

    y, grads, dx = pull(params, case["x"], case["cotangent"])
    np.testing.assert_allclose(y, case["y"], rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(dx, case["dx"], rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(grads["kernel"], case["dkernel"], rtol=1e-10, atol=1e-12)
    dbias = case["cotangent"].reshape(-1, case["bias"].size).sum(0)
    np.testing.assert_allclose(grads["bias"], dbias, rtol=1e-10)


def test_half_precision_adds_up_in_float32_and_eager_is_jit():
    # 2049 ones: a bfloat16 sum would stop at 256.
    x, k = jnp.ones((1, 1, 3, 683), jnp.bfloat16), jnp.ones((1, 3, 683, 1), jnp.bfloat16)
    y = nn.convolve(x, k, padding="VALID")
    assert y.dtype == jnp.bfloat16 and float(y[0, 0, 0, 0]) == 2048.0
    assert nn.convolve(x, k.astype(jnp.float32), padding="VALID").dtype == jnp.float32


def test_padding_same_is_laxs():
    for n, k, s, d in itertools.product((1, 2, 5, 8), (1, 2, 3, 4), (1, 2, 3), (1, 2)):
        ours = paddings("SAME", (n,), (k,), (s,), (d,))
        assert list(ours) == lax.padtype_to_pads((n,), (d * (k - 1) + 1,), (s,), "SAME")
    assert paddings("VALID", (3, 4), (2, 2), (1, 1), (1, 1)) == ((0, 0), (0, 0))
    assert paddings(2, (3, 4), (2, 2), (1, 1), (1, 1)) == ((2, 2), (2, 2))
    assert paddings((1, (2, 0)), (3, 4), (2, 2), (1, 1), (1, 1)) == ((1, 1), (2, 0))


def test_the_layer_draws_its_kernel_for_any_rank():
    image, sequence = jnp.zeros((2, 5, 6, 4)), jnp.zeros((2, 9, 4))
    layer = nn.conv(6, 3, groups=2, bias_init=nn.initializer.constant(0.5))
    params, state = layer.init(jax.random.key(0), image)
    assert params["kernel"].shape == (3, 3, 2, 6) and state == {}
    assert (params["bias"] == 0.5).all() and params["bias"].shape == (6,)
    assert float(layer.apply(params, {}, image)[0].max()) == 0.5
    params, _ = nn.conv(6, 3, groups=2, use_bias=False).init(jax.random.key(0), sequence)
    assert {name: leaf.shape for name, leaf in params.items()} == {"kernel": (3, 2, 6)}
    assert layer.name == "conv"


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda x, k: nn.convolve(x[0, 0], k), ValueError, "`x` and `kernel` must both have 3"),
        (lambda x, k: nn.convolve(x[None], k[None]), ValueError, r"shapes \(1, 2, 5, 6, 4\)"),
        (lambda x, k: nn.convolve(x, k[0]), ValueError, r"got shapes \(2, 5, 6, 4\) and \(3, 4"),
        (lambda x, k: nn.convolve(x, k[:, :, :3]), ValueError, "4 channels and 5 features"),
        (lambda x, k: nn.convolve(x, k[:, :, :2], groups=2), ValueError, "With groups=2, 4"),
        (lambda x, k: nn.convolve(x, k, padding="same"), ValueError, "got padding='same'"),
        (lambda x, k: nn.convolve(x, k, padding=-1), ValueError, "at least 0"),
        (lambda x, k: nn.convolve(x, k, padding=((0, 1),)), ValueError, "for each of 2 axes"),
        (lambda x, k: nn.convolve(x, k, padding=((0, 1, 2), 1)), ValueError, "a pair"),
        (lambda x, k: nn.convolve(x, k, stride=0), ValueError, "`stride` must be an integer"),
        (lambda x, k: nn.convolve(x, k, stride=(1, 1, 1)), ValueError, r"got stride=\(1, 1, 1\)"),
        (lambda x, k: nn.convolve(x, k, dilation=1.5), TypeError, "dilation"),
        (lambda x, k: nn.convolve(x, k, groups=0), ValueError, "got groups=0"),
        (lambda x, k: nn.convolve(x[:, :2], k, padding="VALID"), ValueError, "must fit into"),
        (lambda x, k: nn.convolve(x.astype(int), k.astype(int)), TypeError, "got int32"),
        (lambda x, k: nn.conv(0, 3), ValueError, "got features=0"),
        (lambda x, k: nn.conv(4, 3, groups=-1), ValueError, "got groups=-1"),
        (lambda x, k: nn.conv(4, (3,)).init(jax.random.key(0), x), ValueError, "kernel_size"),
    ],
)  # fmt: skip
def test_errors(call, error, match):
    with pytest.raises(error, match=match):
        call(jnp.zeros((2, 5, 6, 4)), jnp.zeros((3, 3, 4, 5)))


@pytest.mark.slow
@pytest.mark.parametrize("rank", [1, 2])
def test_equals_lax_over_everything(x64, rank):
    from hypothesis import HealthCheck, given, settings
    from hypothesis import strategies as st

    def each(low, high):
        return st.tuples(*[st.integers(low, high)] * rank)

    pads = st.tuples(*[st.tuples(st.integers(0, 3), st.integers(0, 3))] * rank)
    layout = (("NWC", "WIO", "NWC"), ("NHWC", "HWIO", "NHWC"))[rank - 1]

    @settings(
        max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
    )
    @given(
        st.integers(1, 3), each(5, 9), each(1, 3), st.integers(1, 9), st.integers(1, 9),
        each(1, 3), st.one_of(st.sampled_from(["SAME", "VALID"]), pads), each(1, 2),
        st.sampled_from([1, 1, 2, 3]), st.sampled_from([None, (None, 0), (0, None), (0, 0)]),
    )  # fmt: skip
    def check(batch, space, window, cin, out, stride, padding, dilation, groups, lanes):
        rng = np.random.default_rng(0)
        x = rng.normal(size=(2, batch, *space, cin * groups))
        k = rng.normal(size=(2, *window, cin, out * groups))
        x = x if lanes and lanes[0] == 0 else x[0]
        k = k if lanes and lanes[1] == 0 else k[0]

        def ours(x, k):
            return nn.convolve(
                x, k, stride=stride, padding=padding, dilation=dilation, groups=groups
            )

        def plain(x, k):
            return lax.conv_general_dilated(
                x, k, stride, padding, rhs_dilation=dilation, feature_group_count=groups,
                dimension_numbers=layout,
            )  # fmt: skip

        @jax.jit
        def run(x, k):
            results = []
            for conv in (ours, plain):
                y, back = jax.vjp(jax.vmap(conv, lanes) if lanes else conv, x, k)
                results.append((y, *back(jnp.cos(y))))
            return results

        for a, b in zip(*run(x, k), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10)

    check()


def test_windows_that_read_only_padding_leave_the_kernel_alone():
    def total(k):
        return jnp.sum(nn.convolve(jnp.ones((1, 3, 1)), k, stride=9, padding=[(4, 0)]))

    k = jnp.ones((1, 1, 1))
    assert total(k) == 0
    np.testing.assert_array_equal(jax.grad(total)(k), 0)
    np.testing.assert_array_equal(jax.vmap(jax.grad(total))(jnp.ones((2, 1, 1, 1))), 0)


@pytest.mark.parametrize("groups", [1, 2])
def test_a_batch_of_nothing(groups):
    x, k = jnp.ones((0, 4, 5, 2)), jnp.ones((3, 1, 2 // groups, 4))
    y, back = jax.vjp(lambda x, k: nn.convolve(x, k, groups=groups, padding="VALID"), x, k)
    assert y.shape == (0, 2, 5, 4)
    assert [leaf.shape for leaf in back(y)] == [x.shape, k.shape] and not back(y)[1].any()
    many = jax.vmap(jax.vmap(lambda k: nn.convolve(x, k, groups=groups)))(k[None, None])
    assert many.shape == (1, 1, 0, 4, 5, 4)
    assert nn.global_max_pool(x).shape == (0, 2)
    layer, steps = nn.multi_head_attention(2), jnp.ones((0, 3, 4))
    params, _ = layer.init(jax.random.key(0), jnp.ones((1, 3, 4)))
    assert layer.apply(params, {}, steps)[0].shape == steps.shape
