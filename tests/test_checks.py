"""Checks of numbers: boundaries, what passes unseen, and the messages."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdl import metrics, nn, optim
from jdl._checks import check_choice, check_count, check_number


@pytest.mark.parametrize(
    "interval,inside,outside",
    [
        ("[0, 1)", [0, 0.0, 0.999], [-1e-9, 1, 1.0]),
        ("(0, 1]", [1e-9, 1], [0, 1.0001]),
        ("(0, inf)", [1e-30, 1e30], [0, -1, float("inf")]),
        ("[0, inf]", [0, float("inf")], [-1e-3]),
        ("(-inf, inf)", [-5, 5], [float("inf"), -float("inf")]),
    ],
)
def test_boundaries(interval, inside, outside):
    for value in inside:
        check_number("x", value, interval)
        check_number("x", np.float32(value), interval)
    for value in [*outside, float("nan")]:
        with pytest.raises(ValueError, match="`x` must be in"):
            check_number("x", value, interval)


def test_messages():
    with pytest.raises(
        ValueError, match=r"^`rate` must be in \[0, 1\), got rate=1\.5\. Halve it\.$"
    ):
        check_number("rate", 1.5, "[0, 1)", "Halve it.")
    with pytest.raises(ValueError, match=r"got rate=\[0\.5 2\. \]"):
        check_number("rate", np.array([0.5, 2.0]), "[0, 1)")
    with pytest.raises(TypeError, match=r"`rate` must be a number in .* got rate='fast'"):
        check_number("rate", "fast", "[0, 1)")
    with pytest.raises(ValueError, match=r"`form` must be one of 'a', 'b', got form='c'\."):
        check_choice("form", "c", ["a", "b"])


SCALARS = [
    *(np.dtype(code).type for code in np.typecodes["AllInteger"] + np.typecodes["Float"]),
    *(jnp.int8, jnp.uint32, jnp.float16, jnp.bfloat16, jnp.float32, jnp.float8_e4m3fn),
]


@pytest.mark.parametrize("kind", SCALARS, ids=lambda kind: kind.__name__)
def test_a_number_may_be_of_any_real_type(kind):
    check_number("x", kind(1), "(0, 1]")
    check_number("x", np.asarray(1, kind), "(0, 1]")
    with pytest.raises(ValueError, match=r"`x` must be in \[0, 1\), got x=1"):
        check_number("x", kind(1), "[0, 1)")


@pytest.mark.parametrize(
    "value", [True, np.bool_(True), jnp.array(True), 1j, jnp.array(1j), np.timedelta64(1)]
)
def test_what_has_no_order_is_no_number(value):
    with pytest.raises(TypeError, match="`x` must be a number in"):
        check_number("x", value, "[0, 2]")


X, IMAGE = jax.ShapeDtypeStruct((3, 4), "float32"), jax.ShapeDtypeStruct((3, 6, 6, 2), "float32")
KEY = jax.random.key(0)


def parameters(layer, x):
    """The shapes of the parameters of `layer` for inputs as `x`."""
    return jax.tree.map(jnp.shape, jax.eval_shape(layer.init, KEY, x)[0])


def outputs(layer, x):
    """The shapes that `layer` makes of `x`."""
    params, state = jax.eval_shape(layer.init, KEY, x)
    return jax.eval_shape(layer.apply, params, state, x)[0].shape


def unrolled(segment):
    batches, loss = jnp.zeros((5, 2)), lambda w, batch: jnp.sum((w - batch) ** 2)
    return optim.unroll(optim.sgd, 0.1, loss, jnp.ones(2), batches, segment).tolist()


def optimizer_state(make):
    return jax.tree.map(jnp.shape, jax.eval_shape(make.init, X))


# name, least: a use of the argument that shows what it was taken for. A new count joins here.
COUNTS = {
    ("features", 1): lambda n: outputs(nn.dense(n), X),
    ("size", 1): lambda n: parameters(nn.embedding(n, 3), X)["embedding"],
    ("pieces", 1): lambda n: parameters(nn.maxout(3, n), X)["kernel"],
    ("kernel_size", 1): lambda n: outputs(nn.conv(3, n, padding="VALID"), IMAGE),
    ("stride", 1): lambda n: outputs(nn.conv(3, 2, n), IMAGE),
    ("dilation", 1): lambda n: outputs(nn.conv(3, 2, 1, "VALID", n), IMAGE),
    ("groups", 1): lambda n: parameters(nn.conv(4, 1, groups=n), IMAGE)["kernel"],
    ("padding", 0): lambda n: outputs(nn.conv(3, 2, 1, n), IMAGE),
    ("window", 1): lambda n: outputs(nn.max_pool(n), IMAGE),
    ("heads", 1): lambda n: parameters(nn.multi_head_attention(n), X)["out"]["kernel"],
    ("length", 1): lambda n: parameters(nn.learned_positions(n), X)["embedding"],
    ("samples", 1): lambda n: nn.monte_carlo_prediction(
        nn.dropout(0.5, "monte_carlo"), {}, {}, jnp.ones((1, 2)), key=jax.random.key(1), samples=n
    )[0].tolist(),
    ("k", 1): lambda n: metrics.top_k_accuracy(jnp.arange(5.0)[None], jnp.array([3]), n).tolist(),
    ("memory_size", 1): lambda n: optimizer_state(optim.lbfgs(memory_size=n)),
    ("max_precond_dim", 1): lambda n: (
        optimizer_state(optim.shampoo(0.1, max_precond_dim=n)),
        optimizer_state(optim.soap(0.1, max_precond_dim=n)),
    ),
    ("newton_steps", 0): lambda n: optimizer_state(optim.shampoo(0.1, newton_steps=n)),
    ("ns_steps", 0): lambda n: optim.orthogonalize(jnp.eye(2), ns_steps=n).tolist(),
    ("min_dim_size_to_factor", 1): lambda n: optimizer_state(
        optim.adafactor(0.1, min_dim_size_to_factor=n)
    ),
    ("segment", 0): unrolled,
}


@pytest.mark.parametrize(("name", "least"), COUNTS)
def test_a_count_is_any_integer_and_nothing_else(name, least):
    use = COUNTS[name, least]
    expected = use(2)
    for same in (np.int64(2), np.uint8(2), jnp.int32(2), np.array(2)):
        assert use(same) == expected
    for wrong in (2.0, np.float32(2), jnp.float32(2), True, np.bool_(True), jnp.array(True), None):
        with pytest.raises(TypeError, match=f"`{name}` must be an integer of at least {least}, "):
            use(wrong)
    match = f"`{name}` must be an integer of at least {least}, got {name}={least - 1}"
    with pytest.raises(ValueError, match=match):
        use(least - 1)


def test_counts():
    assert check_count("n", 0, 0) == 0 and check_count("n", 3) == 3
    for value in (np.int64(3), jnp.int8(3)):
        assert type(check_count("n", value)) is int
    with pytest.raises(TypeError, match=r"of at least 1, got n=.*known when the program is built"):
        jax.jit(lambda n: check_count("n", n))(3)
    with pytest.raises(TypeError, match="`n` must be an integer of at least 1, got n=None"):
        check_count("n", None)


def test_traced_numbers_and_schedules_pass():
    def f(x):
        check_number("x", x, "[0, 1)")
        return x

    assert jax.jit(f)(5.0) == 5.0
    check_number("x", lambda step: -1.0, "[0, 1)")
    check_number("x", jnp.bfloat16(0.5), "[0, 1)")
