"""The forms of a convolution: a NumPy loop in every role, and which form is taken when."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdl import nn
from jdl.nn.convolution import paddings
from jdl.nn.convolution_accelerator import on_accelerator
from jdl.nn.convolution_cpu import on_cpu
from jdl.nn.convolution_spec import ROLES, Spec

# x, kernel, stride, padding, dilation, groups: together they reach every form and
# every branch of it (folds of 2 to 8, strides that leave pixels over, padding wider
# than the window, odd batches, blocks of groups).
CASES = {
    "plain": ((2, 5, 6, 2), (3, 2, 2, 3), 1, "SAME", 1, 1),
    "wide": ((3, 4, 5, 17), (3, 3, 17, 2), 1, "VALID", 1, 1),
    "fold_2": ((2, 4, 6, 3), (3, 3, 3, 16), 1, "SAME", 1, 1),
    "fold_8": ((1, 3, 8, 1), (2, 5, 1, 3), 1, ((1, 0), (2, 2)), 1, 1),
    "strided": ((3, 7, 6, 2), (3, 3, 2, 4), 2, 1, 1, 1),
    "left_over": ((2, 9, 10, 2), (2, 3, 2, 5), (3, 2), "VALID", 1, 1),
    "dilated": ((2, 8, 7, 3), (3, 2, 3, 2), 1, ((1, 2), 2), (2, 3), 1),
    "both": ((2, 9, 8, 2), (2, 3, 2, 3), (2, 3), ((3, 1), (0, 2)), (3, 2), 1),
    "rows": ((2, 5, 6, 8), (3, 2, 8, 16), 1, "SAME", 1, 1),
    "shifts": ((3, 5, 6, 9), (2, 3, 9, 10), 1, ((2, 1), (0, 1)), 1, 1),
    "taps": ((3, 7, 6, 18), (3, 2, 18, 4), 2, ((1, 0), (2, 1)), (1, 2), 1),
    "padded": ((2, 3, 4, 2), (2, 1, 2, 3), 1, ((3, 2), (1, 4)), 1, 1),
    "point": ((2, 5, 6, 3), (1, 1, 3, 20), 2, "SAME", 1, 1),
    "grouped": ((2, 4, 5, 6), (3, 2, 2, 9), (1, 2), "SAME", 1, 3),
    "pairs": ((2, 4, 5, 4), (3, 1, 2, 6), 1, "SAME", 1, 2),
    "blocks": ((2, 3, 4, 72), (2, 2, 12, 6), 1, "SAME", 1, 6),
    "depthwise": ((2, 5, 6, 3), (3, 2, 1, 3), (2, 1), ((1, 0), 1), (1, 2), 3),
    "depthwise_64": ((2, 5, 4, 64), (2, 3, 1, 64), (1, 2), "SAME", (2, 1), 64),
    "multiplied": ((2, 4, 5, 3), (3, 3, 1, 6), 1, "SAME", 1, 3),
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


@pytest.mark.parametrize("name", CASES)
def test_the_forms_for_accelerators_are_the_same(x64, name):
    x_shape, k_shape, stride, padding, dilation, groups = CASES[name]
    pads = paddings(padding, x_shape[1:3], k_shape[:2], pair(stride), pair(dilation))
    spec = Spec("output", x_shape[1:3], k_shape[:2], pair(stride), pads, pair(dilation), groups)
    rng = np.random.default_rng(3)
    x, k = rng.normal(size=(2, *x_shape)), rng.normal(size=(2, *k_shape))
    y = rng.normal(size=(2, x_shape[0], *spec.output, k_shape[-1]))
    given = {"input": (k, y), "kernel": (x, y), "output": (x, k)}

    @jax.jit
    def run(given):
        found = {role: [] for role in given}
        for role, (a, b) in given.items():
            this = spec._replace(missing=role)
            found[role].append(on_accelerator(a[1], b[1], this))
            found[role].append(on_accelerator(a, b, this._replace(laned=(True, True)))[1])
            found[role].append(on_accelerator(a, b[1], this._replace(laned=(True, False)))[1])
            found[role].append(on_accelerator(a[1], b, this._replace(laned=(False, True)))[1])
        return found

    found = run(given)
    outputs = loop(x[1], k[1], y[1], pair(stride), pads, pair(dilation), groups)
    for role, expected in zip(("output", "input", "kernel"), outputs, strict=True):
        for got in found[role]:
            np.testing.assert_allclose(got, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("laned", [(True, False), (False, True), (True, True)])
@pytest.mark.parametrize("missing", ROLES)
def test_lanes_are_those_of_the_operand_that_has_them(x64, missing, laned):
    """Three lanes, and nearly every other axis of length 1, which must not pass for one lane."""
    shapes = {"input": (1, 1, 4, 2), "kernel": (1, 2, 2, 1), "output": (1, 1, 3, 1)}
    spec = Spec(missing, (1, 4), (1, 2), (1, 1), ((0, 0), (0, 0)), (1, 1), 1)
    rng = np.random.default_rng(1)
    a, b = (
        rng.normal(size=((3,) if has else ()) + shapes[role])
        for role, has in zip(spec.given, laned, strict=True)
    )

    @jax.jit
    def run(a, b):
        lanes = [(a[i] if laned[0] else a, b[i] if laned[1] else b) for i in range(3)]
        together = on_cpu(a, b, spec._replace(laned=laned))
        one = on_cpu(a[:1] if laned[0] else a, b[:1] if laned[1] else b,
                           spec._replace(laned=laned))  # fmt: skip
        return together, one, [on_cpu(*lane, spec) for lane in lanes]

    together, one, alone = run(a, b)
    assert together.shape == (3, *shapes[missing])
    np.testing.assert_allclose(together, jnp.stack(alone), rtol=1e-13)
    np.testing.assert_allclose(one, alone[0][None], rtol=1e-13)


@pytest.mark.parametrize("missing", ROLES)
def test_half_precision_is_rounded_once_at_the_end(missing):
    shapes = {"input": (2, 4, 5, 3), "kernel": (2, 3, 3, 4), "output": (2, 4, 5, 4)}
    spec = Spec(missing, (4, 5), (2, 3), (1, 1), ((0, 1), (1, 1)), (1, 1), 1)
    rng = np.random.default_rng(2)
    low = [jnp.asarray(rng.normal(size=shapes[role]), jnp.bfloat16) for role in spec.given]
    got = jax.jit(lambda a, b: on_cpu(a, b, spec))(*low)
    wide = jax.jit(lambda a, b: on_cpu(a, b, spec))(*(v.astype(jnp.float32) for v in low))
    assert got.dtype == jnp.bfloat16 and (got == wide.astype(jnp.bfloat16)).all()


def array(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def convolutions(missing, a, b, stride=1, padding="SAME", dilation=1, groups=1, space=None):
    """The convolutions that XLA is asked for: shapes of both operands, and the padding."""
    shapes = dict(zip([role for role in ROLES if role != missing], (a, b), strict=True))
    space = space or shapes["input"][1:3]
    window = shapes["kernel"][:2] if "kernel" in shapes else (3, 3)
    stride, dilation = pair(stride), pair(dilation)
    pads = paddings(padding, space, window, stride, dilation)
    spec = Spec(missing, space, window, stride, pads, dilation, groups)
    found = []

    def visit(jaxpr):
        for equation in jaxpr.eqns:
            if equation.primitive.name == "conv_general_dilated":
                left, right = (v.aval.shape for v in equation.invars)
                found.append((left, right, equation.params["padding"]))
            for value in equation.params.values():
                inner = getattr(value, "jaxpr", value)
                if hasattr(inner, "eqns"):
                    visit(inner)

    visit(jax.make_jaxpr(lambda a, b: on_cpu(a, b, spec))(array(*a), array(*b)).jaxpr)
    return found


@pytest.mark.parametrize(
    ("channels", "features", "width", "fold"),
    [
        (1, 16, 28, 2), (4, 16, 6, 2), (1, 8, 16, 4), (1, 3, 8, 8), (3, 2, 48, 8), (1, 2, 64, 16),
        (1, 1, 64, 32), (1, 3, 7, 1), (1, 8, 10, 1), (7, 4, 7, 1), (17, 2, 8, 1), (2, 17, 8, 1),
    ],
)  # fmt: skip
def test_neighbours_are_folded_into_channels_until_there_are_more_than_16(
    channels, features, width, fold
):
    ((left, right, _),) = convolutions(
        "output", (2, 5, width, channels), (3, 3, channels, features)
    )
    blocks = -(-(fold + 2) // fold)
    if fold == 1:
        assert left == (2, 5, width, channels) and right == (3, 3, channels, features)
    else:
        assert left == (2, 7, width // fold + blocks - 1, fold * channels)
        assert right == (3, blocks, fold * channels, fold * features)


def test_only_a_plain_convolution_is_folded():
    for stride, dilation, plain in [
        (1, 1, True), (2, 1, False), (1, 2, False), (2, 2, False), ((1, 2), (1, 2), False),
    ]:  # fmt: skip
        ((_, right, _),) = convolutions("output", (1, 8, 8, 1), (3, 3, 1, 16), stride,
                                           dilation=dilation)  # fmt: skip
        assert (right[2] == 2) is plain


def test_an_output_larger_than_the_input_is_padded_before():
    shape, kernel = (2, 3, 4, 20), (2, 1, 20, 3)
    ((left, _, padding),) = convolutions("output", shape, kernel, padding=((1, 1), (0, 0)))
    assert left == (2, 5, 4, 20) and padding == ((0, 0), (0, 0))
    ((left, _, padding),) = convolutions("output", shape, kernel, padding=((1, 0), (0, 0)))
    assert left == shape and padding == ((1, 0), (0, 0))


def test_an_odd_batch_is_filled_up_for_the_kernels_gradient():
    # The batch stands where a convolution has its channels.
    for batch, height, filled in [(3, 4, 4), (4, 4, 4), (4, 3, 4), (1, 4, 1), (3, 1, 4), (2, 5, 2)]:
        x, y = (batch, height, 6, 6), (batch, height, 6, 7)
        ((left, right, _),) = convolutions("kernel", x, y)
        assert (left[3], right[2]) == (filled, filled)


def test_few_channels_are_folded_along_the_width_unless_sixteen_come_in():
    """By the least factor that takes the wider side over 16 channels and divides the width."""
    for channels, features, width, fold in [
        (1, 16, 8, 2), (15, 16, 8, 2), (3, 4, 8, 8), (3, 8, 12, 4), (3, 4, 6, 1), (8, 16, 7, 1),
        (16, 1, 8, 1), (16, 16, 8, 1), (2, 17, 8, 1), (17, 2, 8, 1),
    ]:  # fmt: skip
        shapes = (2, 6, width, channels), (3, 3, channels, features)
        ((left, right, _),) = convolutions("output", *shapes)
        assert (left[3], right[3]) == (fold * channels, fold * features)


def test_groups_are_merged_into_blocks_of_at_most_32_channels():
    for groups, cin, cout, merged in [
        (32, 2, 2, 16), (6, 10, 1, 3), (6, 1, 10, 3), (5, 7, 2, 1), (3, 30, 30, 1),
        (2, 100, 3, 1), (2, 16, 5, 2), (4, 3, 10, 2),
    ]:  # fmt: skip
        x, k = (2, 4, 5, groups * cin), (3, 3, cin, groups * cout)
        # Dilated, so that nothing but a convolution will do.
        ((_, right, _),) = convolutions("output", x, k, dilation=2, groups=groups)
        assert right[2:] == (merged * cin, merged * cout)


def test_a_strided_gradient_of_the_input_computes_no_more_than_its_phases():
    """Ceil(9/2) x ceil(8/3) blocks of 2 x 3 phases as channels, from the 5x3 output."""
    ((left, right, _),) = convolutions("input", (3, 3, 20, 18), (2, 5, 3, 18), (2, 3), space=(9, 8))
    assert left[0] == 2 and right == (2, 1, 18, 2 * 3 * 20)
    k, y = array(3, 3, 20, 18), array(2, 5, 3, 18)
    spec = Spec("input", (9, 8), (3, 3), (2, 3), ((1, 1), (0, 1)), (1, 1), 1)
    outputs = [
        equation.outvars[0].aval.shape
        for equation in jax.make_jaxpr(lambda k, y: on_cpu(k, y, spec))(k, y).jaxpr.eqns
        if equation.primitive.name == "conv_general_dilated"
    ]
    assert outputs == [(2, 5, 3, 120)]


def test_depthwise_of_many_channels_is_no_convolution():
    for channels, features, groups, expected in [
        (64, 64, 64, 0), (63, 63, 63, 1), (64, 128, 64, 1), (128, 128, 64, 1),
    ]:  # fmt: skip
        x, k = (2, 8, 8, channels), (3, 3, channels // groups, features)
        y = (2, 8, 8, features)
        for missing, operands in (("output", (x, k)), ("input", (k, y)), ("kernel", (x, y))):
            found = convolutions(missing, *operands, groups=groups, space=(8, 8))
            assert len(found) == expected
