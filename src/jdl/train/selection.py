"""Greedy ensemble selection: which networks, and how often, from a library of predictions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jdl._checks import check_count

PerExample = Callable[[Any, Any], Any]


def likelihood(predictions: Float[Any, "examples ..."], y: Any) -> Float[Array, " examples"]:
    """The log of the label's probability; for real targets less the mean squared error."""
    predictions, y = jnp.asarray(predictions), jnp.asarray(y)
    if jnp.issubdtype(y.dtype, jnp.integer):
        own = jnp.take_along_axis(predictions, y[..., None], -1)[..., 0]
        score = jnp.log(jnp.maximum(own, jnp.finfo(own.dtype).tiny))
    else:
        score = -jnp.square(predictions - y.reshape(predictions.shape))
    return score.reshape(len(score), -1).mean(1)


def greedy_weights(
    predictions: Float[Any, "members examples ..."],
    y: Any,
    *,
    rounds: int = 50,
    start: int = 1,
    score: PerExample = likelihood,
) -> Float[Array, " members"]:
    """How much of each member an ensemble should take, chosen greedily with replacement.

    It begins with the first `start` members. Every round adds the member, one
    more time perhaps, with which the average of all that was taken scores best.
    Of all the rounds the best average stays, so that the result scores no worse
    than the beginning.

    Args:
      predictions: of every member on a split that none was trained on, the best
        member first.
      y: labels or targets of that split.
      rounds: how many are added.
      start: from 1 to the number of members; more of them overfits a small
        split less.
      score: `score(predictions, y)`, larger is better, a number an example.

    Returns:
      Weights that sum to 1.

    Raises:
      ValueError: a number is out of range.

    >>> import jax.numpy as jnp
    >>> said = jnp.array([[[0.9, 0.1], [0.6, 0.4]], [[0.4, 0.6], [0.1, 0.9]]])
    >>> greedy_weights(said, jnp.array([0, 1]), rounds=4).round(3).tolist()
    [0.5, 0.5]

    Caruana, Niculescu-Mizil, Crew, Ksikes 2004, sections 2.1 and 2.2.
    """
    predictions, y = jnp.asarray(predictions), jnp.asarray(y)
    members = len(predictions)
    rounds, start = check_count("rounds", rounds), check_count("start", start)
    if start > members:
        raise ValueError(f"`start` must be from 1 to {members}, the members, got start={start}.")

    def score_of(average: Array) -> Array:
        return jnp.mean(score(average, y))

    def add(carry: tuple[Array, Array], taken: Array) -> tuple[Any, Any]:
        total, counts = carry
        scores = jax.lax.map(lambda one: score_of((total + one) / (taken + 1)), predictions)
        chosen = jnp.argmax(scores)
        counts = counts.at[chosen].add(1)
        return (total + predictions[chosen], counts), (scores[chosen], counts)

    total, counts = predictions[:start].sum(0), (jnp.arange(members) < start).astype(jnp.float32)
    taken = start + jnp.arange(rounds, dtype=jnp.float32)
    _, (scores, path) = jax.lax.scan(add, (total, counts), taken)
    scores = jnp.concatenate([score_of(total / start)[None], scores])
    path = jnp.concatenate([counts[None], path])
    best = path[jnp.argmax(scores)]
    return best / best.sum()
