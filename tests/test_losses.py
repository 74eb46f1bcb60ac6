"""Losses: torch's recorded values and gradients, hand-worked cases, and what is refused."""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdl import losses

GOLDEN = np.load(pathlib.Path(__file__).parent / "golden" / "nn.npz")
# name: the loss, its first argument's name in the recording, its targets'.
TORCH = {
    "classes": (losses.softmax_cross_entropy, "logits", "classes"),
    "smoothed": (
        functools.partial(losses.softmax_cross_entropy, label_smoothing=0.3),
        "logits",
        "classes",
    ),
    "probabilities": (
        functools.partial(losses.softmax_cross_entropy, label_smoothing=0.3),
        "logits",
        "probabilities",
    ),
    "sigmoid": (
        functools.partial(losses.sigmoid_cross_entropy, label_smoothing=0.2),
        "logits",
        "labels",
    ),
    "squared": (losses.squared_error, "values", "numbers"),
    "absolute": (losses.absolute_error, "values", "numbers"),
    "huber": (functools.partial(losses.huber, delta=0.7), "values", "numbers"),
    "multiclass_hinge": (
        functools.partial(losses.multiclass_hinge, margin=1.4),
        "logits",
        "classes",
    ),
    "kl": (losses.kl_divergence, "logits", "probabilities"),
}


def test_values_and_gradients_are_torchs(x64):
    def run(loss, predictions, targets):
        value, pull = jax.vjp(lambda p: loss(p, targets), predictions)
        return value, pull(jnp.ones_like(value))[0]

    inputs = {
        name: (jnp.asarray(GOLDEN[f"loss/{x}"]), jnp.asarray(GOLDEN[f"loss/{y}"]))
        for name, (_, x, y) in TORCH.items()
    }
    results = jax.jit(lambda i: {name: run(TORCH[name][0], *pair) for name, pair in i.items()})(
        inputs
    )
    for name, (value, gradient) in results.items():
        assert value.shape == (6,)
        np.testing.assert_allclose(value, GOLDEN[f"loss/{name}/value"], rtol=1e-11, err_msg=name)
        np.testing.assert_allclose(
            gradient, GOLDEN[f"loss/{name}/gradient"], rtol=1e-9, atol=1e-13, err_msg=name
        )


class quick:  # noqa: N801
    """The losses compiled whole, which takes a test less than one operation at a time."""

    softmax_cross_entropy = jax.jit(losses.softmax_cross_entropy)
    sigmoid_cross_entropy = jax.jit(losses.sigmoid_cross_entropy)
    squared_error = jax.jit(losses.squared_error)
    absolute_error = jax.jit(losses.absolute_error)
    huber = jax.jit(losses.huber)
    hinge = jax.jit(losses.hinge)
    multiclass_hinge = jax.jit(losses.multiclass_hinge)
    kl_divergence = jax.jit(losses.kl_divergence)


def test_hinge_by_hand():
    scores, targets = jnp.array([0.5, 2.0, -0.3, 0.4]), jnp.array([1, 1, 0, -1])
    assert quick.hinge(scores, targets, margin=1.5).tolist() == pytest.approx([1.0, 0, 1.2, 1.9])
    np.testing.assert_allclose(quick.hinge(scores, targets), [0.5, 0, 0.7, 1.4], rtol=1e-6)
    booleans = quick.hinge(scores.reshape(2, 2), targets.reshape(2, 2) > 0)
    np.testing.assert_allclose(booleans, [0.25, 1.05], rtol=1e-6)
    default = quick.multiclass_hinge(jnp.array([[2.0, 1.5, -1.0]]), jnp.array([0]))
    assert default.tolist() == [0.5]


def test_steps_are_averaged_over_those_that_count():
    logits = jax.random.normal(jax.random.key(0), (3, 4, 5))
    targets = jnp.arange(12).reshape(3, 4) % 5
    each = -np.take_along_axis(
        np.asarray(jax.nn.log_softmax(logits)), np.asarray(targets)[..., None], -1
    )[..., 0]
    np.testing.assert_allclose(
        quick.softmax_cross_entropy(logits, targets), each.mean(1), rtol=1e-6
    )
    where = jnp.array([[True] * 4, [True, True, False, False], [False] * 4])
    # What stands in the padding may be no class at all.
    targets = jnp.where(where, targets, -1)
    value, gradient = jax.value_and_grad(
        lambda x: quick.softmax_cross_entropy(x, targets, 0.0, where).sum()
    )(logits)
    np.testing.assert_allclose(value, each[0].mean() + each[1, :2].mean(), rtol=1e-6)
    assert (
        jnp.isfinite(gradient).all() and (gradient[1, 2:] == 0).all() and (gradient[2] == 0).all()
    )


@pytest.mark.parametrize("loss", [quick.softmax_cross_entropy, quick.multiclass_hinge])
def test_a_label_that_is_no_class_gives_nan(loss):
    value = loss(jnp.zeros((4, 3)), jnp.array([0, 3, -1, 2]))
    assert jnp.isnan(value).tolist() == [False, True, True, False]


def test_a_class_ruled_out_by_minus_infinity():
    logits = jnp.array([[1.0, 0.0, -jnp.inf]])
    for targets in (jnp.array([1]), jnp.array([[0.0, 1.0, 0.0]])):
        value, gradient = jax.value_and_grad(
            lambda x, t=targets: quick.softmax_cross_entropy(x, t, jnp.float32(0.0)).sum()
        )(logits)
        np.testing.assert_allclose(value, np.log(1 + np.e), rtol=1e-6)
        np.testing.assert_allclose(
            gradient, [[np.e / (1 + np.e), -np.e / (1 + np.e), 0]], rtol=1e-5
        )
    assert quick.softmax_cross_entropy(logits, jnp.array([1]), 0.1)[0] == jnp.inf


def test_large_logits_neither_overflow_nor_lose_the_gradient():
    logits = jnp.array([[1e4, -1e4], [-1e4, 1e4]])
    targets = jnp.array([0, 0])
    np.testing.assert_allclose(quick.softmax_cross_entropy(logits, targets), [0, 2e4])
    values = quick.sigmoid_cross_entropy(jnp.array([1e4, 1e4]), jnp.array([1, 0]))
    np.testing.assert_allclose(values, [0, 1e4])


def test_entropy_of_zero_probabilities():
    targets = jnp.array([[0.0, 1.0, 0.0], [0.5, 0.5, 0.0]])
    value, gradient = jax.value_and_grad(lambda t: quick.kl_divergence(jnp.zeros((2, 3)), t).sum())(
        targets
    )
    np.testing.assert_allclose(value, np.log(3) + np.log(1.5), rtol=1e-6)
    assert jnp.isfinite(gradient).all()


def test_huber_at_infinity_is_half_the_square():
    x = jnp.array([3.0, -0.5])
    assert quick.huber(x, jnp.zeros(2), jnp.float32(jnp.inf)).tolist() == [4.5, 0.125]
    gradient = jax.grad(lambda x: quick.huber(x, jnp.zeros(2), jnp.inf).sum())(x)
    assert gradient.tolist() == [3.0, -0.5]
    assert quick.huber(x, jnp.zeros(2)).tolist() == [2.5, 0.125]


def test_half_precision_is_computed_in_float32():
    logits = jnp.array([[3.0, 1.0]], jnp.bfloat16)
    number = jnp.array([3.0], jnp.bfloat16)
    exact = np.log(1 + np.exp(-2.0))
    value = quick.softmax_cross_entropy(logits, jnp.array([0]))
    assert value.dtype == jnp.float32
    np.testing.assert_allclose(value, exact, rtol=1e-6)
    for loss in (quick.squared_error, quick.absolute_error, quick.huber, quick.hinge):
        assert loss(number, jnp.array([1.0])).dtype == jnp.float32
    assert quick.sigmoid_cross_entropy(number, jnp.array([1])).dtype == jnp.float32
    assert quick.multiclass_hinge(logits, jnp.array([0])).dtype == jnp.float32
    assert quick.kl_divergence(logits, jnp.array([[0.5, 0.5]])).dtype == jnp.float32


def test_numbers_are_traced_and_lanes_equal_lone_runs():
    logits = jax.random.normal(jax.random.key(0), (4, 3))
    classes, labels = jnp.array([0, 2, 1, 1]), jnp.array([[0, 1, 1]] * 4)
    table = {
        "softmax": (lambda n: quick.softmax_cross_entropy(logits, classes, n), [0.0, 0.1, 1.0]),
        "sigmoid": (lambda n: quick.sigmoid_cross_entropy(logits, labels, n), [0.0, 0.1, 1.0]),
        "huber": (lambda n: quick.huber(logits, jnp.zeros((4, 3)), n), [0.2, 0.9, jnp.inf]),
        "hinge": (lambda n: quick.hinge(logits, labels, n), [0.0, 0.5, 2.0]),
        "multi": (lambda n: quick.multiclass_hinge(logits, classes, n), [0.0, 0.5, 2.0]),
    }
    for name, (loss, numbers) in table.items():
        lanes = jax.jit(jax.vmap(loss))(jnp.array(numbers))
        for lane, number in zip(lanes, numbers, strict=True):
            np.testing.assert_allclose(lane, loss(number), rtol=1e-5, atol=1e-6, err_msg=name)
        assert not np.allclose(lanes[0], lanes[1]) and not np.allclose(lanes[1], lanes[2]), name


def test_one_output_meets_a_row_of_targets_and_nothing_else_broadcasts():
    x = jnp.array([[1.0], [2.0]])
    assert losses.squared_error(x, jnp.array([0.0, 5.0])).tolist() == [1.0, 9.0]
    assert losses.squared_error(x, jnp.array([[0], [5]])).tolist() == [1.0, 9.0]
    for loss in (
        losses.squared_error,
        losses.absolute_error,
        losses.huber,
        losses.hinge,
        losses.sigmoid_cross_entropy,
    ):
        with pytest.raises(ValueError, match=r"`targets` as one number per .* shape \(2,\), got"):
            loss(jnp.zeros(2), jnp.zeros((2, 1)))
    with pytest.raises(ValueError, match=r"`targets` as integer classes must have shape \(2,\)"):
        losses.softmax_cross_entropy(jnp.zeros((2, 3)), jnp.zeros((2, 3), jnp.int32))
    with pytest.raises(ValueError, match=r"`targets` as probabilities must have shape \(2, 3\)"):
        losses.softmax_cross_entropy(jnp.zeros((2, 3)), jnp.zeros(2))


def test_ranges():
    x, y = jnp.zeros((2, 3)), jnp.zeros(2, jnp.int32)
    for wrong, match in [
        (lambda: losses.softmax_cross_entropy(x, y, 1.5), r"`label_smoothing` must be in \[0"),
        (
            lambda: losses.sigmoid_cross_entropy(x, x, -0.1),
            r"`label_smoothing` must be in \[0",
        ),
        (lambda: losses.huber(x, x, 0.0), r"`delta` must be in \(0, inf\], got delta=0"),
        (lambda: losses.hinge(x, x, -1.0), r"`margin` must be in \[0, inf\), got margin=-1"),
        (lambda: losses.multiclass_hinge(x, y, -1.0), r"`margin` must be in \[0, inf\)"),
    ]:
        with pytest.raises(ValueError, match=match):
            wrong()
