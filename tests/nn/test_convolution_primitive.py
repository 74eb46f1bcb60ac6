"""The convolution's primitive: every way to map it, every derivative, every backend's lowering."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import PartitionSpec as P

from jdl import nn
from jdl.nn.convolution_primitive import convolution_p
from jdl.nn.convolution_spec import ROLES, Spec

LAYOUT = ("NHWC", "HWIO", "NHWC")

SMALL = Spec("output", (3, 4), (2, 2), (1, 1), ((0, 1), (1, 0)), (1, 1), 1)
OPERANDS = {"input": (2, 3, 4, 2), "kernel": (2, 2, 2, 3), "output": (2, 3, 4, 3)}


@pytest.mark.parametrize("missing", ROLES)
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


def test_types_follow_the_rank_under_an_explicit_mesh():
    """Where shapes carry shardings, a result is typed after the operand of its own rank."""
    x, k = jnp.ones((2, 4, 4, 2)), jnp.ones((2, 2, 2, 3))
    many_x, many_k = jnp.ones((5, *x.shape)), jnp.ones((5, *k.shape))
    mesh = jax.make_mesh((2,), ("d",), axis_types=(jax.sharding.AxisType.Explicit,))

    def all_of(x, k, many_x, many_k):
        dk = jax.grad(lambda k, x: (nn.convolve(x, k) ** 2).sum())
        return (
            nn.convolve(x, k),
            jax.vmap(nn.convolve, (None, 0))(x, many_k),
            jax.vmap(dk, (None, 0))(k, many_x),
            jax.vmap(dk, (0, None))(many_k, x),
        )

    with jax.set_mesh(mesh):
        types = jax.tree.map(jax.typeof, jax.eval_shape(all_of, x, k, many_x, many_k))
    assert [t.shape for t in types] == [
        (2, 4, 4, 3), (5, 2, 4, 4, 3), (5, *k.shape), (5, *k.shape),
    ]  # fmt: skip
    for kind in types:
        assert not kind.weak_type and len(kind.sharding.spec) == kind.ndim


@pytest.mark.parametrize("lanes", [None, 3])
def test_gradients_of_a_batch_that_is_sharded_explicitly(x64, lanes):
    """As `jax.make_mesh` makes meshes: the gradient of the images stays sharded."""
    mesh = jax.make_mesh((2,), ("d",), axis_types=(jax.sharding.AxisType.Explicit,))
    rng = np.random.default_rng(0)
    x, k = rng.normal(size=(4, 5, 5, 2)), rng.normal(size=(3, 3, 2, 3))
    if lanes:
        k = rng.normal(size=(lanes, *k.shape))

    def loss(convolve):
        def one(x, k):
            return (convolve(x, k) ** 2).sum()

        return jax.jit(
            jax.vmap(jax.grad(one, (0, 1)), (None, 0)) if lanes else jax.grad(one, (0, 1))
        )

    with jax.set_mesh(mesh):
        sharded = jax.device_put(x, jax.NamedSharding(mesh, P("d")))
        got = loss(nn.convolve)(sharded, jnp.asarray(k))
    assert got[0].sharding.spec[-4] == "d" and got[1].sharding.is_fully_replicated
    plain = loss(
        lambda x, k: lax.conv_general_dilated(x, k, (1, 1), "SAME", dimension_numbers=LAYOUT)
    )
    for a, b in zip(got, plain(x, k), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-11)


def operations(platform, function, *shapes):
    """The types of the convolutions and products that a platform is asked for."""
    arrays = [jax.ShapeDtypeStruct(shape, "float32") for shape in shapes]
    text = jax.jit(function).trace(*arrays).lower(lowering_platforms=(platform,)).as_text()
    assert "gather" not in text
    lines = [line for line in text.splitlines() if "convolution" in line or "dot_gen" in line]
    return [line[line.rindex(": (") + 3 :] for line in lines if ": (" in line]


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_an_accelerator_is_given_one_convolution_or_for_lanes_a_product(platform):
    x, k = (4, 5, 6, 2), (3, 2, 2, 7)
    assert operations(platform, nn.convolve, x, k) == [
        "tensor<4x5x6x2xf32>, tensor<3x2x2x7xf32>) -> tensor<4x5x6x7xf32>"
    ]
    assert operations(platform, jax.vmap(nn.convolve, (None, 0)), x, (9, *k)) == [
        "tensor<4x5x6x12xf32>, tensor<9x12x7xf32>) -> tensor<4x5x6x9x7xf32>"
    ]


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_lanes_are_gathered_along_one_axis_where_that_makes_fewer_copies(platform):
    """Three copies of 5 channels in, three of 7 features out, instead of nine; not with stride."""
    x, k = (9, 4, 5, 6, 5), (9, 3, 3, 5, 7)
    pull = lambda x, k, y: jax.vjp(jax.vmap(nn.convolve), x, k)[1](y)  # noqa: E731
    assert operations(platform, jax.vmap(nn.convolve), x, k) == [
        "tensor<9x4x5x6x15xf32>, tensor<9x15x21xf32>) -> tensor<9x4x5x6x21xf32>"
    ]
    assert sorted(operations(platform, pull, x, k, (9, 4, 5, 6, 7))) == [
        "tensor<9x4x5x6x21xf32>, tensor<9x15x21xf32>) -> tensor<9x4x5x6x15xf32>",
        "tensor<9x4x5x6x21xf32>, tensor<9x4x5x6x15xf32>) -> tensor<9x21x15xf32>",
    ]
    strided = jax.vmap(lambda x, k: nn.convolve(x, k, stride=2))
    assert operations(platform, strided, x, k) == [
        "tensor<9x4x3x3x45xf32>, tensor<9x45x7xf32>) -> tensor<9x4x3x3x7xf32>"
    ]


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_depthwise_lanes_are_neither_products_nor_grouped_convolutions(platform):
    conv = jax.vmap(lambda x, k: nn.convolve(x, k, groups=6))
    grads = jax.grad(lambda x, k: (conv(x, k) ** 2).sum(), (0, 1))
    assert operations(platform, grads, (3, 2, 5, 5, 6), (3, 3, 3, 1, 6)) == []


def test_what_the_forward_gathers_is_not_kept_for_the_gradient():
    """XLA would share it, had the kernel's gradient not its own copy, after the cotangent."""
    conv = jax.vmap(nn.convolve)
    shapes = [jax.ShapeDtypeStruct(s, "float32") for s in ((3, 2, 4, 4, 5), (3, 3, 3, 5, 5))]
    for wanted, barriers in ((0, 0), (1, 1)):
        grad = jax.jit(jax.grad(lambda x, k: (conv(x, k) ** 2).sum(), wanted))
        text = grad.trace(*shapes).lower(lowering_platforms=("cuda",)).as_text()
        assert text.count("optimization_barrier") == barriers


def test_operations_are_counted_in_each_role():
    x, k = jnp.zeros((2, 5, 6, 4)), jnp.zeros((3, 2, 2, 6))
    one = 2 * (2 * 5 * 3 * 6) * (3 * 2 * 2)
    conv = lambda x, k: nn.convolve(x, k, stride=(1, 2), groups=2)  # noqa: E731
    assert nn.flops(conv, x, k) == one
    pull = lambda x, k, y: jax.vjp(conv, x, k)[1](y)  # noqa: E731
    assert nn.flops(pull, x, k, jnp.zeros((2, 5, 3, 6))) == 3 * one
    assert nn.flops(jax.vmap(conv, (None, 0)), x, jnp.zeros((7, *k.shape))) == 7 * one
