"""The optimizer: a pair of pure functions, how pairs are chained, and how numbers may vary."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from jdl._checks import check_number
from jdl._promotion import promoting

Params = PyTree
Updates = PyTree
State = PyTree
Schedule = Callable[[Any], Any]
"""A function of the step, counted from 0, that gives the value to use at that step."""
Number = Any
"""A Python number, a traced scalar or a `Schedule`: what every numeric argument may be."""


class Update(Protocol):
    """`update(grads, state, params=None, *, value=None, value_fn=None, **extra)`."""

    def __call__(
        self, grads: Updates, state: State, params: Params | None = None, **extra: Any
    ) -> tuple[Updates, State]:
        """Gives the updates, which `apply_updates` adds to the parameters, and the next state."""
        ...


class Optimizer(NamedTuple):
    """A gradient transformation as two pure functions.

    Attributes:
      init: `init(params) -> state`.
      update: `update(grads, state, params=None, *, value=None, value_fn=None,
        **extra) -> (updates, state)`. Keyword arguments that an optimizer does
        not know are ignored, so that one loop can drive them all.
    """

    init: Callable[[Params], State]
    update: Update


def at_step(number: Number, step: Any) -> jax.Array:
    """The value of `number` at `step`, in float32 or wider.

    A schedule is called, anything else is itself. A Python number becomes an
    array here, so that an expression such as `1 - b2` is rounded in the same way
    whether `b2` was written in the program or is a traced lane of it.
    """
    value = jnp.asarray(number(step) if callable(number) else number)
    if not jnp.issubdtype(value.dtype, jnp.floating):
        return value.astype(float)  # float64 where that is on
    return value if value.dtype.itemsize >= 4 else value.astype(jnp.float32)


def apply_updates(params: Params, updates: Updates) -> Params:
    """`params + updates`, arrays in the dtypes of the parameters, which may be Python numbers.

    >>> import jax.numpy as jnp
    >>> apply_updates({"w": jnp.array([1.0, 2.0])}, {"w": jnp.array([0.5, -0.5])})["w"].tolist()
    [1.5, 1.5]
    """

    @promoting
    def moved(w: Any, u: Any) -> jax.Array:
        w = jnp.asarray(w)
        return jnp.asarray(w + u, w.dtype)

    return jax.tree.map(moved, params, updates)


def chain(*optimizers: Optimizer) -> Optimizer:
    """One optimizer that passes the gradients through `optimizers` in order.

    The state is the tuple of their states; each is given the same parameters
    and keyword arguments.
    """

    @promoting
    def init(params: Params) -> State:
        return tuple(optimizer.init(params) for optimizer in optimizers)

    @promoting
    def update(
        grads: Updates, state: State, params: Params | None = None, **extra: Any
    ) -> tuple[Updates, State]:
        states: list[State] = []
        before: State
        for optimizer, before in zip(optimizers, state, strict=True):
            grads, after = optimizer.update(grads, before, params, **extra)
            states.append(after)
        return grads, tuple(states)

    return Optimizer(init, update)


@promoting
def next_count(count: jax.Array) -> jax.Array:
    """`count + 1`, staying at the largest int32 instead of wrapping to a negative number."""
    return jnp.where(count < jnp.iinfo(jnp.int32).max, count + 1, count)


def check_learning_rate(learning_rate: Number) -> None:
    """Raises unless a concrete learning rate is positive."""
    check_number(
        "learning_rate",
        learning_rate,
        "(0, inf)",
        fix="To keep some parameters as they are, use `optim.freeze`.",
    )
