"""Calibration: how far probabilities can be trusted, and one temperature that mends them."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped

from jdl._checks import check_classes, check_count, check_number
from jdl._promotion import promoting


class Reliability(NamedTuple):
    """What was foretold and what came true, by bins of confidence.

    Attributes:
      confidence: the mean of the largest probability in each bin; NaN if it is empty.
      accuracy: the share of right answers in each bin; NaN if it is empty.
      examples: how many there are in each bin.
    """

    confidence: Float[Array, " bins"]
    accuracy: Float[Array, " bins"]
    examples: Float[Array, " bins"]


@promoting
def reliability(
    probabilities: Float[Any, "examples classes"], labels: Shaped[Any, "*_"], bins: int = 15
) -> Reliability:
    """Sorts examples by the largest probability into `bins` intervals `((b - 1)/bins, b/bins]`.

    Args:
      probabilities: rows that sum to 1.
      labels: integer classes.
      bins: how many, static.

    Raises:
      ValueError: `bins` is below 1; `labels` are no integers `(examples,)`.
    """
    bins = check_count("bins", bins)
    probabilities, labels = _wide(probabilities, labels)
    confidence = jnp.max(probabilities, -1)
    right = (jnp.argmax(probabilities, -1) == labels).astype(confidence.dtype)
    index = jnp.clip(jnp.ceil(confidence * bins) - 1, 0, bins - 1)
    member = (index[:, None] == jnp.arange(bins)[None, :]).astype(confidence.dtype)
    count = member.sum(0)
    return Reliability((confidence @ member) / count, (right @ member) / count, count)


def calibration_error(
    probabilities: Float[Any, "examples classes"], labels: Shaped[Any, "*_"], bins: int = 15
) -> Float[Array, ""]:
    """The expected calibration error: `sum_b examples_b / n * |accuracy_b - confidence_b|`.

    In [0, 1]; 0 is perfect. It falls with fewer bins and rises with few
    examples a bin, so compare at equal bins and examples.

    Args:
      probabilities: rows that sum to 1.
      labels: integer classes.
      bins: as in `reliability`.

    >>> import jax.numpy as jnp
    >>> float(calibration_error(jnp.array([[0.75, 0.25]] * 4), jnp.array([0, 0, 1, 1])))
    0.25

    Naeini, Cooper, Hauskrecht 2015; Guo, Pleiss, Sun, Weinberger 2017, equation 3.
    """
    of_bin = reliability(probabilities, labels, bins)
    gap = jnp.abs(of_bin.accuracy - of_bin.confidence)
    return jnp.sum(jnp.where(of_bin.examples > 0, of_bin.examples * gap, 0)) / of_bin.examples.sum()


def with_temperature(
    probabilities: Float[Any, "examples classes"], temperature: Any
) -> Float[Array, "examples classes"]:
    """`softmax(log(probabilities) / temperature)`: the order of the classes stays.

    Args:
      probabilities: rows that sum to 1.
      temperature: in (0, inf); 1 is off, more is less sure.

    >>> import jax.numpy as jnp
    >>> with_temperature(jnp.array([[0.5, 0.5]]), 2.0).tolist()
    [[0.5, 0.5]]
    """
    check_number("temperature", temperature, "(0, inf)")
    return jax.nn.softmax(_logits(probabilities) / temperature)


def fit_temperature(
    probabilities: Float[Any, "examples classes"], labels: Shaped[Any, "*_"]
) -> Float[Array, ""]:
    """The temperature with the smallest cross-entropy, from a split that was not trained on.

    In the inverse temperature `b` the cross-entropy is convex, with the slope
    `mean(E[z] - z_label)` under `softmax(b z)`, whose zero is found by halving.

    Args:
      probabilities: rows that sum to 1.
      labels: integer classes.

    Returns:
      From 0.001 to 1000; an end of that range where no temperature is best.

    Guo, Pleiss, Sun, Weinberger 2017, section 4.2.
    """
    probabilities, labels = _wide(probabilities, labels)
    z = _logits(probabilities)
    own = jnp.take_along_axis(z, labels[:, None], 1)[:, 0]

    def halve(_: Any, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = ends
        middle = (low + high) / 2
        expected = jnp.sum(jax.nn.softmax(jnp.exp(middle) * z) * z, 1)
        rises = jnp.mean(expected - own) > 0
        return jnp.where(rises, low, middle), jnp.where(rises, middle, high)

    ends = jnp.log(jnp.asarray([1e-3, 1e3], z.dtype))
    low, high = jax.lax.fori_loop(0, 40, halve, (ends[0], ends[1]))
    return jnp.exp(-(low + high) / 2)


def _wide(probabilities: Any, labels: Any) -> tuple[Array, Array]:
    """Probabilities in float32 or wider, and their labels as integers that fit every class."""
    probabilities = jnp.asarray(probabilities)
    labels = check_classes("labels", jnp.asarray(labels), probabilities.shape[:1])
    return probabilities.astype(jnp.promote_types(probabilities.dtype, jnp.float32)), labels


def _logits(probabilities: Any) -> Array:
    probabilities = jnp.asarray(probabilities)
    # A probability that was rounded to 0 is below the least number, not impossible.
    return jnp.log(jnp.maximum(probabilities, jnp.finfo(probabilities.dtype).tiny))
