"""Convolution: a NumPy loop, torch's recorded values, every derivative, every way to map it."""

import itertools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jdl import nn
from jdl.nn import convolution_forms as forms
from jdl.nn.convolution import paddings
from jdl.nn.convolution_primitive import convolution_p

GOLDEN = np.load(pathlib.Path(__file__).parents[1] / "golden" / "conv.npz")
LAYOUT = ("NHWC", "HWIO", "NHWC")

# x, kernel, stride, padding, dilation, groups: together they reach every form and
# every branch of it (folds of 2 to 8, strides that leave pixels over, padding wider
# than the window, odd batches, blocks of groups).
CASES = {
    "plain": ((2, 5, 6, 2), (3, 2, 2, 3), 1, "SAME", 1, 1),
    "wide": ((3, 4, 5, 17), (3, 3, 17, 2), 1, "VALID", 1, 1),
    "fold_2": ((2, 4, 6, 3), (3, 3, 3, 16), 1, "SAME", 1, 1),
    "fold_8": ((1, 3, 8, 1), (2, 5, 1, 3), 1, ((1, 0), (2, 2)), 1, 1),
    "strided": ((3, 7, 6, 2), (3, 3, 2, 4), 2, 1, 1, 1),
    "left_over": ((2, 8, 9, 2), (2, 3, 2, 3), (3, 2), "VALID", 1, 1),
    "dilated": ((2, 8, 7, 3), (3, 2, 3, 2), 1, ((1, 2), 2), (2, 3), 1),
    "both": ((2, 9, 8, 2), (2, 3, 2, 3), (2, 3), ((3, 1), (0, 2)), (3, 2), 1),
    "padded": ((2, 3, 4, 2), (2, 1, 2, 3), 1, ((3, 2), (1, 4)), 1, 1),
    "point": ((2, 5, 6, 3), (1, 1, 3, 20), 2, "SAME", 1, 1),
    "grouped": ((2, 4, 5, 6), (3, 2, 2, 9), (1, 2), "SAME", 1, 3),
    "blocks": ((2, 3, 4, 72), (2, 2, 12, 6), 1, "SAME", 1, 6),
}  # fmt: skip


def loop(x, kernel, cotangent, stride, padding, dilation, groups):
    """Output and both gradients, tap by tap and group by group."""
    (top, bottom), (left, right) = padding
    kh, kw, cin, features = kernel.shape
    padded = np.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)))
    y, dk, dpadded = np.zeros_like(cotangent), np.zeros_like(kernel), np.zeros_like(padded)
    height, width = y.shape[1:3]
    for i, j, g in itertools.product(range(kh), range(kw), range(groups)):
        rows = slice(i * dilation[0], i * dilation[0] + (height - 1) * stride[0] + 1, stride[0])
        columns = slice(j * dilation[1], j * dilation[1] + (width - 1) * stride[1] + 1, stride[1])
        ins = slice(g * cin, (g + 1) * cin)
        outs = slice(g * features // groups, (g + 1) * features // groups)
        seen = padded[:, rows, columns, ins]
        y[..., outs] += seen @ kernel[i, j][:, outs]
        dk[i, j][:, outs] += np.einsum("nhwc,nhwo->co", seen, cotangent[..., outs])
        dpadded[:, rows, columns, ins] += cotangent[..., outs] @ kernel[i, j][:, outs].T
    return y, dpadded[:, top : top + x.shape[1], left : left + x.shape[2]], dk


def pair(value):
    return (value, value) if isinstance(value, int) else value


@pytest.mark.parametrize("name", CASES)
def test_output_and_gradients_are_those_of_a_loop(x64, name):
    x_shape, k_shape, stride, padding, dilation, groups = CASES[name]
    rng = np.random.default_rng(len(name))
    x, k = rng.normal(size=x_shape), rng.normal(size=k_shape)

    def convolve(x, k):
        return nn.convolve(x, k, stride=stride, padding=padding, dilation=dilation, groups=groups)

    shape = jax.eval_shape(convolve, x, k).shape
    cotangent = rng.normal(size=shape)
    pads = paddings(padding, x_shape[1:3], k_shape[:2], pair(stride), pair(dilation))
    expected = loop(x, k, cotangent, pair(stride), pads, pair(dilation), groups)

    def pull(x, k, cotangent):
        y, back = jax.vjp(convolve, x, k)
        return y, *back(cotangent)

    for got, wanted in zip(jax.jit(pull)(x, k, cotangent), expected, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", ["dilated", "left_over", "grouped"])
def test_the_forms_for_accelerators_are_the_same(x64, name):
    x_shape, k_shape, stride, padding, dilation, groups = CASES[name]
    pads = paddings(padding, x_shape[1:3], k_shape[:2], pair(stride), pair(dilation))
    spec = forms.Spec(
        "output", x_shape[1:3], k_shape[:2], pair(stride), pads, pair(dilation), groups
    )
    rng = np.random.default_rng(3)
    x, k = rng.normal(size=(2, *x_shape)), rng.normal(size=(2, *k_shape))
    y = rng.normal(size=(2, x_shape[0], *spec.output, k_shape[-1]))
    given = {"input": (k, y), "kernel": (x, y), "output": (x, k)}

    @jax.jit
    def run(given):
        alone, laned = {}, {}
        for role, (a, b) in given.items():
            this = spec._replace(missing=role)
            alone[role] = forms.on_accelerator(a[1], b[1], this)
            laned[role] = forms.on_accelerator(a, b[1], this._replace(laned=(True, False)))[1]
        return alone, laned

    alone, laned = run(given)
    outputs = loop(x[1], k[1], y[1], pair(stride), pads, pair(dilation), groups)
    for role, expected in zip(("output", "input", "kernel"), outputs, strict=True):
        np.testing.assert_allclose(alone[role], expected, rtol=1e-10, atol=1e-10)
        np.testing.assert_allclose(laned[role], expected, rtol=1e-10, atol=1e-10)


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


SMALL = forms.Spec("output", (3, 4), (2, 2), (1, 1), ((0, 1), (1, 0)), (1, 1), 1)
OPERANDS = {"input": (2, 3, 4, 2), "kernel": (2, 2, 2, 3), "output": (2, 3, 4, 3)}


@pytest.mark.parametrize("missing", forms.ROLES)
def test_every_way_to_map_the_primitive_is_a_loop(x64, missing):
    spec = SMALL._replace(missing=missing)
    rng = np.random.default_rng(5)
    first, second = (rng.normal(size=(2, 3, *OPERANDS[role])) for role in spec.given)
    bind = lambda a, b: convolution_p.bind(a, b, spec=spec)  # noqa: E731
    one = jax.jit(bind)
    last = {"in": -1, "out": -1}

    # Axes mapped by the outer and by the inner vmap, for each operand, and where they stand.
    ways = [((0, 0), (None, None)), ((0, None), (None, None)), ((None, 0), (None, None)),
            ((0, 0), (0, 0)), ((0, 0), (0, None)), ((0, 0), (None, 0)), ((0, None), (0, 0)),
            ((None, 0), (0, 0)), ((None, 0), (0, None)), ((0, None), (None, 0)),
            ((0, None), (0, None)), ((None, 0), (None, 0))]  # fmt: skip

    def operands(outer, inner):
        a, b = first, second
        a = a if outer[0] is not None else a[:1]
        a = a[:, :] if inner[0] is not None else a[:, :1]
        b = b if outer[1] is not None else b[:1]
        b = b[:, :] if inner[1] is not None else b[:, :1]
        return a, b

    @jax.jit
    def mapped(first, second):
        results = []
        for outer, inner in ways:
            a, b = operands(outer, inner)
            a = a if outer[0] is not None else a[0]
            b = b if outer[1] is not None else b[0]
            squeeze = lambda v, o, i: v if i is not None else v.squeeze(int(o is not None))  # noqa: E731
            a, b = squeeze(a, outer[0], inner[0]), squeeze(b, outer[1], inner[1])
            function = bind
            if inner != (None, None):
                function = jax.vmap(function, inner, last["out"])
            results.append(jax.vmap(function, outer)(a, b))
        moved = jax.vmap(bind, (2, -1), -1)(
            jnp.moveaxis(first[0], 0, 2), jnp.moveaxis(second[0], 0, -1)
        )
        return results, moved

    results, moved = mapped(first, second)
    for (outer, inner), result in zip(ways, results, strict=True):
        a, b = operands(outer, inner)
        for o, i in itertools.product(range(2), range(3)):
            expected = one(a[o % a.shape[0], i % a.shape[1]], b[o % b.shape[0], i % b.shape[1]])
            got = result[o][..., i] if inner != (None, None) else result[o]
            np.testing.assert_allclose(got, expected, rtol=1e-11, atol=1e-11)
            if inner == (None, None):
                break
    for i in range(3):
        np.testing.assert_allclose(
            moved[..., i], one(first[0, i], second[0, i]), rtol=1e-11, atol=1e-11
        )


def test_lanes_are_never_a_grouped_convolution():
    x, k = jnp.ones((4, 2, 5, 5, 3)), jnp.ones((4, 3, 3, 3, 5))

    def step(x, k):
        return jax.grad(lambda x, k: (nn.convolve(x, k) ** 2).sum(), (0, 1))(x, k)

    text = jax.jit(jax.vmap(step)).lower(x, k).as_text()
    assert "convolution" in text
    for line in text.splitlines():
        if "stablehlo.convolution" in line:
            assert "feature_group_count = 1" in line and "batch_group_count = 1" in line


def test_derivatives_of_second_order_and_forwards(x64):
    rng = np.random.default_rng(7)
    x, k = rng.normal(size=(2, 4, 3, 2)), rng.normal(size=(2, 3, 2, 3))
    v, u = rng.normal(size=x.shape), rng.normal(size=k.shape)

    def plain(x, k):
        return lax.conv_general_dilated(x, k, (2, 1), ((1, 0), (1, 1)), dimension_numbers=LAYOUT)

    def ours(x, k):
        return nn.convolve(x, k, stride=(2, 1), padding=((1, 0), 1))

    def derivatives(conv):
        def loss(x, k):
            return (jnp.sin(conv(x, k)) * jnp.cos(conv(x, k) + 1)).sum()

        grad = jax.grad(loss, (0, 1))
        forwards = jax.jvp(conv, (x, k), (v, u))
        hessian_vector = jax.jvp(grad, (x, k), (v, u))[1]
        reverse = jax.grad(
            lambda x, k: sum((g * w).sum() for g, w in zip(grad(x, k), (v, u))), (0, 1)
        )
        return forwards, hessian_vector, reverse(x, k)

    got, expected = jax.jit(lambda: (derivatives(ours), derivatives(plain)))()
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10)


def test_gradient_of_a_mapped_and_mapped_gradient_agree(x64):
    rng = np.random.default_rng(9)
    x, k = rng.normal(size=(2, 3, 3, 2)), rng.normal(size=(3, 2, 2, 2, 2))

    def loss(x, k):
        return (nn.convolve(x, k) ** 3).sum()

    @jax.jit
    def run(x, k):
        together = jax.grad(lambda x, k: jax.vmap(loss, (None, 0))(x, k).sum(), (0, 1))(x, k)
        apart = [jax.grad(loss, (0, 1))(x, kernel) for kernel in k]
        return together, (sum(dx for dx, _ in apart), jnp.stack([dk for _, dk in apart]))

    for a, b in zip(*run(x, k), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-11)


def test_types_follow_devices_inside_shard_map(x64):
    mesh = jax.make_mesh((2,), ("lane",), axis_types=(jax.sharding.AxisType.Auto,))
    lane, none = jax.P("lane"), jax.P()
    rng = np.random.default_rng(11)
    x, k = rng.normal(size=(4, 4, 4, 2)), rng.normal(size=(2, 2, 2, 3))

    def grads(x, k):
        # Strided: the gradients' own zeros must be typed as well.
        return jax.grad(lambda x, k: (nn.convolve(x, k, stride=2) ** 2).sum(), (0, 1))(x, k)

    specs = (lane, none)
    sharded = jax.jit(jax.shard_map(grads, mesh=mesh, in_specs=specs, out_specs=specs))
    got = jax.device_get(sharded(x, k))
    for a, b in zip(got, jax.jit(grads)(x, k), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-11)


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


def test_operations_are_counted_in_each_role():
    x, k = jnp.zeros((2, 5, 6, 4)), jnp.zeros((3, 2, 2, 6))
    one = 2 * (2 * 5 * 3 * 6) * (3 * 2 * 2)
    conv = lambda x, k: nn.convolve(x, k, stride=(1, 2), groups=2)  # noqa: E731
    assert nn.flops(conv, x, k) == one
    pull = lambda x, k, y: jax.vjp(conv, x, k)[1](y)  # noqa: E731
    assert nn.flops(pull, x, k, jnp.zeros((2, 5, 3, 6))) == 3 * one
    assert nn.flops(jax.vmap(conv, (None, 0)), x, jnp.zeros((7, *k.shape))) == 7 * one


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda x, k: nn.convolve(x[0, 0], k), ValueError, "`x` and `kernel` must both have 3"),
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
def test_equals_lax_over_everything(x64):
    from hypothesis import HealthCheck, given, settings
    from hypothesis import strategies as st

    pads = st.tuples(st.integers(0, 3), st.integers(0, 3))

    @settings(
        max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
    )
    @given(
        st.integers(1, 3), st.tuples(st.integers(5, 9), st.integers(5, 9)),
        st.tuples(st.integers(1, 3), st.integers(1, 3)), st.integers(1, 9), st.integers(1, 9),
        st.tuples(st.integers(1, 3), st.integers(1, 3)),
        st.one_of(st.sampled_from(["SAME", "VALID"]), st.tuples(pads, pads)),
        st.tuples(st.integers(1, 2), st.integers(1, 2)), st.sampled_from([1, 1, 2, 3]),
    )  # fmt: skip
    def check(batch, space, window, cin, out, stride, padding, dilation, groups):
        rng = np.random.default_rng(0)
        x = rng.normal(size=(batch, *space, cin * groups))
        k = rng.normal(size=(*window, cin, out * groups))

        def ours(x, k):
            return nn.convolve(
                x, k, stride=stride, padding=padding, dilation=dilation, groups=groups
            )

        def plain(x, k):
            return lax.conv_general_dilated(
                x, k, stride, padding, rhs_dilation=dilation, feature_group_count=groups,
                dimension_numbers=LAYOUT,
            )  # fmt: skip

        @jax.jit
        def run(x, k):
            results = []
            for conv in (ours, plain):
                y, back = jax.vjp(conv, x, k)
                results.append((y, *back(jnp.cos(y))))
            return results

        for a, b in zip(*run(x, k), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10)

    check()
