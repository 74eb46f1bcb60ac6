"""Losses: one number per example, computed in float32 or wider; the caller averages."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Num, Shaped

from jdl import _checks
from jdl._promotion import at_least_float32, promoting

Number = Any


@promoting
def softmax_cross_entropy(
    logits: Float[Array, "batch *steps classes"],
    targets: Num[Array, "*_"],
    label_smoothing: Number = 0.0,
    where: Bool[Array, "batch *steps"] | None = None,
) -> Float[Array, "batch"]:
    """`-sum_c t_c * log softmax(logits)_c`, with `t = (1-s) * target + s / classes`.

    Args:
      logits: unnormalised log-probabilities; with axes between (the steps of a
        sequence) the loss of an example is the mean over them.
      targets: integer classes `(batch, *steps)`, or probabilities of the
        logits' shape. A class outside [0, classes) gives NaN.
      label_smoothing: `s` in [0, 1]; 0 is off.
      where: true where a step counts (not padding); the mean is over those. An
        example without any has loss 0.

    Returns:
      One loss per example.

    Raises:
      ValueError: `label_smoothing` is outside its range; shapes do not fit.

    >>> import jax.numpy as jnp
    >>> softmax_cross_entropy(jnp.zeros((2, 4)), jnp.array([0, 3])).round(4).tolist()
    [1.386299967765808, 1.386299967765808]
    """
    _checks.check_number("label_smoothing", label_smoothing, "[0, 1]")
    logits = _wide(logits)
    classes = logits.shape[-1]
    if where is not None:
        logits = jnp.where(where[..., None], logits, 0)
    smoothing = jnp.asarray(label_smoothing, logits.dtype)
    log_probabilities = jax.nn.log_softmax(logits)
    if jnp.issubdtype(targets.dtype, jnp.integer):
        targets = _checks.check_classes("targets", targets, logits.shape[:-1])
        # A comparison instead of a gather: its gradient is no scatter, which vmap makes slow.
        index = jnp.arange(classes).reshape((1,) * targets.ndim + (classes,))
        picked = jnp.where(targets[..., None] == index, log_probabilities, 0).sum(-1)
        loss = -jnp.where((targets >= 0) & (targets < classes), picked, jnp.nan)
    else:
        _same_shape(targets, logits.shape, "probabilities")
        targets = targets.astype(logits.dtype)
        loss = -jnp.where(targets == 0, 0, targets * log_probabilities).sum(-1)
    # A class ruled out by a logit of -inf makes the mean infinite, and 0 * inf is NaN.
    even = -jnp.where(smoothing > 0, log_probabilities.mean(-1), 0)
    return _per_example((1 - smoothing) * loss + smoothing * even, where)


def sigmoid_cross_entropy(
    logits: Float[Array, "batch *tasks"],
    targets: Shaped[Array, "*_"],
    label_smoothing: Number = 0.0,
) -> Float[Array, "batch"]:
    """`-t * log sigmoid(logits) - (1-t) * log(1 - sigmoid(logits))`, `t = (1-s)*target + s/2`.

    Args:
      logits: `(batch,)`, or `(batch, tasks)` for labels that do not exclude
        each other; an example's loss is the mean over tasks.
      targets: 0 or 1 (or booleans), or probabilities, one per logit.
      label_smoothing: `s` in [0, 1]; 0 is off.

    Returns:
      One loss per example.

    Raises:
      ValueError: `label_smoothing` is outside its range; shapes do not fit.
    """
    _checks.check_number("label_smoothing", label_smoothing, "[0, 1]")
    logits, targets = _pair(logits, targets)
    smoothing = jnp.asarray(label_smoothing, logits.dtype)
    t = (1 - smoothing) * targets + smoothing / 2
    return _per_example(t * jax.nn.softplus(-logits) + (1 - t) * jax.nn.softplus(logits))


def squared_error(
    predictions: Float[Array, "batch *outputs"], targets: Shaped[Array, "*_"]
) -> Float[Array, "batch"]:
    """`(prediction - target)**2`, averaged over an example's outputs. There is no factor 1/2.

    Args:
      predictions: `(batch, *outputs)`; `(batch, 1)` may meet targets `(batch,)`.
      targets: of the same shape.

    Raises:
      ValueError: shapes do not fit, where broadcasting would compare every
        prediction with every target.

    >>> import jax.numpy as jnp
    >>> squared_error(jnp.array([[1.0, 2.0]]), jnp.array([[0.0, 5.0]])).tolist()
    [5.0]
    """
    return _per_example(jnp.square(_error(predictions, targets)))


def absolute_error(
    predictions: Float[Array, "batch *outputs"], targets: Shaped[Array, "*_"]
) -> Float[Array, "batch"]:
    """`|prediction - target|`, averaged over an example's outputs; shapes as in `squared_error`."""
    return _per_example(jnp.abs(_error(predictions, targets)))


def huber(
    predictions: Float[Array, "batch *outputs"],
    targets: Shaped[Array, "*_"],
    delta: Number = 1.0,
) -> Float[Array, "batch"]:
    """`e**2 / 2` where the error `e` is at most `delta`, else `delta * (|e| - delta/2)`.

    Args:
      predictions: as in `squared_error`.
      targets: as in `squared_error`.
      delta: where the square turns into a line, in (0, inf]; inf is half the
        squared error.

    Huber 1964. Averaged over an example's outputs, as in torch's `HuberLoss`.
    """
    _checks.check_number("delta", delta, "(0, inf]")
    error = jnp.abs(_error(predictions, targets))
    inside = jnp.clip(error, max=jnp.asarray(delta, error.dtype))
    # For delta = inf the second factor is 0 and must not meet the infinity.
    return _per_example(jnp.square(inside) / 2 + inside * (error - inside))


def hinge(
    scores: Float[Array, "batch *tasks"], targets: Shaped[Array, "*_"], margin: Number = 1.0
) -> Float[Array, "batch"]:
    """`max(0, margin - y * score)` with `y` = 1 where the target is positive, else -1.

    Args:
      scores: one per label.
      targets: 1 or True against 0, -1 or False.
      margin: in [0, inf).

    An example's loss is the mean over its tasks.
    """
    _checks.check_number("margin", margin, "[0, inf)")
    scores, targets = _pair(scores, targets)
    return _per_example(
        jax.nn.relu(jnp.asarray(margin, scores.dtype) - jnp.where(targets > 0, scores, -scores))
    )


@promoting
def multiclass_hinge(
    scores: Float[Array, "batch classes"], targets: Num[Array, "*_"], margin: Number = 1.0
) -> Float[Array, "batch"]:
    """`sum over c != target of max(0, margin + score_c - score_target)`.

    Args:
      scores: one per class.
      targets: integer classes; one outside [0, classes) gives NaN.
      margin: in [0, inf).

    Weston, Watkins 1999. torch's `MultiMarginLoss` divides by the number of classes.
    """
    _checks.check_number("margin", margin, "[0, inf)")
    scores = _wide(scores)
    classes = scores.shape[1]
    targets = _checks.check_classes("targets", targets, scores.shape[:1])
    own = targets[:, None] == jnp.arange(classes)[None, :]
    score = jnp.where(own, scores, 0).sum(1, keepdims=True)
    loss = jnp.where(own, 0, jax.nn.relu(jnp.asarray(margin, scores.dtype) + scores - score)).sum(1)
    return jnp.where((targets >= 0) & (targets < classes), loss, jnp.nan)


def kl_divergence(
    logits: Float[Array, "batch classes"], targets: Float[Array, "batch classes"]
) -> Float[Array, "batch"]:
    """`sum_c t_c * (log t_c - log softmax(logits)_c)`: cross-entropy less the targets' entropy.

    Args:
      logits: unnormalised log-probabilities.
      targets: probabilities; 0 contributes 0.
    """
    logits = _wide(logits)
    targets = targets.astype(logits.dtype)
    # Where a probability is 0, its logarithm's gradient would be NaN even unused.
    log_targets = jnp.log(jnp.where(targets == 0, 1, targets))
    return softmax_cross_entropy(logits, targets) + (targets * log_targets).sum(1)


def _wide(x: Array) -> Array:
    return x.astype(at_least_float32(x))


def _same_shape(targets: Array, shape: tuple[int, ...], what: str) -> None:
    if targets.shape != shape:
        raise ValueError(
            f"`targets` as {what} must have shape {shape}, got {targets.dtype} of shape "
            f"{targets.shape}."
        )


def _pair(predictions: Array, targets: Array) -> tuple[Array, Array]:
    if predictions.shape == (*targets.shape, 1):
        predictions = predictions.reshape(targets.shape)
    _same_shape(targets, predictions.shape, "one number per prediction")
    predictions = _wide(predictions)
    return predictions, targets.astype(predictions.dtype)


def _error(predictions: Array, targets: Array) -> Array:
    return jnp.subtract(*_pair(predictions, targets))


def _per_example(losses: Array, where: Array | None = None) -> Array:
    axes = tuple(range(1, losses.ndim))
    if where is None:
        return losses.mean(axes)
    count = jnp.clip(where.sum(axes), min=1)
    return jnp.where(where, losses, 0).sum(axes) / count.astype(losses.dtype)
