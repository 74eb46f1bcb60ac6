"""What a solver returns: the best point it saw, what it cost, and why it stopped, as numbers."""

from __future__ import annotations

from typing import Any, NamedTuple

from jaxtyping import Array, Float, Int, PyTree

RUNNING = -1
CONVERGED = 0
MAX_ITERATIONS = 1
LINE_SEARCH_FAILED = 2
NOT_FINITE = 3
STALLED = 4

STATUS_MESSAGES = (
    "converged: the gradient's largest entry or the last decrease is within tolerance",
    "max_iterations was reached before the tolerance",
    "the line search found no lower point, not even along the negative gradient: "
    "the precision of the dtype is reached, or the gradient is wrong",
    "the value or the gradient is not finite at the starting point, or became so",
    "neither value nor gradient improves any more: the precision of the dtype is reached",
)
"""What each status means: `STATUS_MESSAGES[int(result.status)]`."""


class Result(NamedTuple):
    """The outcome of a solver; under `vmap` every field has the lanes in front.

    Attributes:
      params: the best parameters seen, of the structure and dtypes of `x0`;
        never worse than `x0`.
      value: the objective there.
      gradient_norm: the largest absolute entry of the gradient there.
      iterations: steps taken (accepted line searches, or updates of an `Optimizer`).
      evaluations: evaluations of the objective with its gradient, the first included.
      status: one of `CONVERGED`, `MAX_ITERATIONS`, `LINE_SEARCH_FAILED`,
        `NOT_FINITE`, `STALLED`, numbers that index `STATUS_MESSAGES`.
    """

    params: PyTree
    value: Float[Array, "..."]
    gradient_norm: Float[Array, "..."]
    iterations: Int[Array, "..."]
    evaluations: Int[Array, "..."]
    status: Int[Array, "..."]


def status_message(status: Any) -> str:
    """The meaning of one concrete status.

    >>> status_message(1)
    'max_iterations was reached before the tolerance'
    """
    return STATUS_MESSAGES[int(status)]
