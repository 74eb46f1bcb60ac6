"""The derivative of a validation loss with respect to an optimizer's numbers, through training."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from jdl._checks import Count, check_choice, check_count
from jdl.optim.base import Optimizer, Params, apply_updates


class Hypergradient(NamedTuple):
    """What `hypergradient` returns.

    Attributes:
      value: the validation loss after the last step.
      gradient: its derivative with respect to each number, a tree like `numbers`.
      params: the parameters after the last step.
    """

    value: Float[Array, ""]
    gradient: PyTree
    params: Params


def unroll(
    make_optimizer: Callable[[Any], Optimizer],
    numbers: Any,
    loss: Callable[..., Any],
    params: Params,
    batches: PyTree,
    segment: Count = 0,
) -> Params:
    """The parameters after one step on each batch, differentiable in `numbers` and `params`.

    Args:
      make_optimizer: `numbers -> Optimizer`.
      numbers: what the optimizer is made of.
      loss: `loss(params, batch)`.
      params: where training starts.
      batches: a tree of arrays whose leading axis is the steps.
      segment: how many steps to recompute at a time in reverse mode, so that
        memory holds `steps / segment + segment` states instead of `steps`; 0
        keeps every step.

    Returns:
      The trained parameters.
    """
    segment = check_count("segment", segment, 0)
    optimizer = make_optimizer(numbers)
    steps = _steps(batches)

    def step(carry: Any, batch: Any) -> tuple[Any, None]:
        params, state = carry
        value, grads = jax.value_and_grad(loss)(params, batch)
        updates, state = optimizer.update(
            grads, state, params, value=value, grad=grads, value_fn=lambda p: loss(p, batch)
        )
        return (apply_updates(params, updates), state), None

    def walk(carry: Any, some: Any) -> tuple[Any, None]:
        return jax.lax.scan(step, carry, some)

    params = jax.tree.map(jnp.asarray, params)
    carry = (params, optimizer.init(params))
    if segment == 0:
        return walk(carry, batches)[0][0]
    whole = steps // segment * segment
    blocks = jax.tree.map(
        lambda x: x[:whole].reshape(whole // segment, segment, *x.shape[1:]), batches
    )
    carry, _ = jax.lax.scan(jax.checkpoint(walk), carry, blocks)
    rest = jax.tree.map(lambda x: x[whole:], batches)
    return jax.checkpoint(walk)(carry, rest)[0][0]


def _steps(batches: PyTree) -> int:
    lengths = {x.shape[0] for x in jax.tree.leaves(batches)}
    if len(lengths) != 1 or 0 in lengths:
        raise ValueError(
            "`batches` must hold arrays with one leading axis, the steps, at least 1; "
            f"got leading sizes {sorted(lengths)}."
        )
    return lengths.pop()


def hypergradient(
    make_optimizer: Callable[[Any], Optimizer],
    numbers: Any,
    loss: Callable[..., Any],
    valid_loss: Callable[[Params], Any],
    params: Params,
    batches: PyTree,
    mode: str = "reverse",
    segment: Count | None = None,
) -> Hypergradient:
    """The derivative of `valid_loss` after training with respect to the optimizer's numbers.

        value = valid_loss(w_k),   w_{t+1} = w_t + update(grad loss(w_t, batch_t); numbers)
        gradient = d value / d numbers

    Forward mode carries one tangent for each number through the training: `n`
    times the work, no memory for the steps; for few numbers and many steps.
    Reverse mode costs a few trainings whatever the number of numbers (a rate
    for each step, say), and recomputes the steps segment by segment, so that
    memory grows with the square root of their number.

    Args:
      make_optimizer: `numbers -> Optimizer`, as in
        `lambda h: optim.adam(h["lr"], b1=h["b1"])`.
      numbers: a tree of floating-point numbers.
      loss: the training loss, `loss(params, batch)`.
      valid_loss: `valid_loss(params)`.
      params: where training starts.
      batches: a tree of arrays whose leading axis is the steps; for full-batch
        training an index, as in `jnp.arange(steps)`.
      mode: "reverse" or "forward".
      segment: steps recomputed at a time in reverse mode; None is the square
        root of their number, 0 keeps every step.

    Returns:
      A `Hypergradient`: value, gradient, and the trained parameters.

    Raises:
      ValueError: an unknown mode, or batches without one leading axis.

    Maclaurin, Duvenaud and Adams, 2015; Franceschi et al., 2017, compare the
    modes. Over many steps at too high a rate training is chaotic and the
    gradient, though exact, grows without bound: tune on few steps, or on rates
    that converge.

    Tuning a rate by its gradient, for five steps down a quadratic:

    >>> import jax, jax.numpy as jnp
    >>> from jdl import optim
    >>> loss = lambda w, batch: 0.5 * jnp.sum(w**2)
    >>> @jax.jit
    ... def tune(log_rate):
    ...     h = optim.hypergradient(
    ...         lambda h: optim.sgd(jnp.exp(h)), log_rate, loss, lambda w: loss(w, None),
    ...         jnp.array([1.0, -2.0]), jnp.arange(5), mode="forward")
    ...     return log_rate - 0.1 * h.gradient, h.value
    >>> log_rate = jnp.log(0.1)
    >>> for _ in range(20):
    ...     log_rate, value = tune(log_rate)
    >>> round(float(jnp.exp(log_rate)), 2), round(float(value), 2)
    (0.33, 0.05)
    """
    check_choice("mode", mode, ["reverse", "forward"])
    steps = _steps(batches)
    if segment is None:
        segment = math.isqrt(steps)
    segment = check_count("segment", segment, 0)
    numbers = jax.tree.map(jnp.asarray, numbers)

    def trained(numbers: Any) -> tuple[Any, tuple[Any, Params]]:
        size = segment if mode == "reverse" else 0
        end = unroll(make_optimizer, numbers, loss, params, batches, size)
        value = valid_loss(end)
        return value, (value, end)

    if mode == "forward":
        gradient, (value, end) = jax.jacfwd(trained, has_aux=True)(numbers)
    else:
        gradient, (value, end) = jax.grad(trained, has_aux=True)(numbers)
    return Hypergradient(value, gradient, end)
