"""Optimizers that keep the second moment of a matrix as a row and a column: Adafactor."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from jdl._checks import Count, check_count, check_number
from jdl._promotion import promoting
from jdl.optim._leaves import Mask, given, leafwise, resolve_mask, square, values_at, wide
from jdl.optim.base import (
    Number,
    Optimizer,
    Params,
    State,
    Updates,
    check_learning_rate,
    next_count,
)
from jdl.optim.schedules.decay import minus
from jdl.tree import root


class AdafactorState(NamedTuple):
    """The state of `adafactor`.

    Attributes:
      step: the number of updates made.
      rows: the second moment averaged over the longest axis where it is factored, else None.
      columns: the second moment averaged over the second longest axis, likewise.
      second_moment: the second moment itself where it is not factored, else None.
      momentum: average of the updates, shaped as the parameters; None without momentum.
    """

    step: Int[Array, ""]
    rows: Updates
    columns: Updates
    second_moment: Updates
    momentum: Updates


def adafactor(
    learning_rate: Number | None = None,
    min_dim_size_to_factor: Count = 128,
    decay_rate: Number = 0.8,
    decay_offset: Number = 0,
    multiply_by_parameter_scale: bool = True,
    clipping_threshold: Number | None = 1.0,
    momentum: Number | None = None,
    dtype_momentum: Any = jnp.float32,
    weight_decay_rate: Number | None = None,
    eps: Number = 1e-30,
    factored: bool = True,
    weight_decay_mask: Mask = None,
) -> Optimizer:
    """Adafactor: a second moment of rank one, so that its state is rows plus columns.

        d = 1 - (t - decay_offset)**-decay_rate
        r = d*r + (1-d)*mean(g**2 + eps, columns); c = d*c + (1-d)*mean(g**2 + eps, rows)
        u = g / sqrt(r*c / mean(r))
        u = u / max(1, rms(u) / clipping_threshold) * lr * max(rms(w), 1e-3)
        w -= ema(u) + weight_decay_rate*w

    The factored axes are the two longest. A leaf with fewer than two axes of
    `min_dim_size_to_factor` keeps its whole second moment.

    Args:
      learning_rate: in (0, inf); `None` leaves the parameters' scale to set the step.
      min_dim_size_to_factor: least length of the second longest axis to factor, static.
      decay_rate: exponent of the decay, in [0, 1]; 0 keeps the last square alone.
      decay_offset: the step at which the decay starts afresh; before it the last
        square is kept alone.
      multiply_by_parameter_scale: whether the step is relative to the weights.
      clipping_threshold: greatest root mean square of an update before it is scaled,
        in (0, inf]; inf and `None` are off.
      momentum: decay of an average of the updates, in [0, 1); 0 and `None` are off,
        and `None` keeps no memory for it.
      dtype_momentum: dtype of that average.
      weight_decay_rate: decay not scaled by the rate, in [0, inf); 0 and `None` are off.
      eps: added to the squared gradient, in (0, inf).
      factored: whether to factor at all.
      weight_decay_mask: which parameters decay.

    Returns:
      An `Optimizer` whose state for a factored matrix is its rows plus its columns.

    Raises:
      ValueError: a number out of range, or `update` without the parameters.

    Shazeer and Stern, Adafactor: adaptive learning rates with sublinear memory
    cost (2018), algorithms 4 to 6. As optax, which gives NaN before `decay_offset`.
    torch's `Adafactor` factors the last two axes whatever their length and takes
    `min(lr, 1/sqrt(t))` for the rate.
    """
    min_dim_size_to_factor = check_count("min_dim_size_to_factor", min_dim_size_to_factor)
    for name, value, interval in (
        ("decay_rate", decay_rate, "[0, 1]"),
        ("decay_offset", decay_offset, "[0, inf)"),
        ("clipping_threshold", clipping_threshold, "(0, inf]"),
        ("momentum", momentum, "[0, 1)"),
        ("weight_decay_rate", weight_decay_rate, "[0, inf)"),
        ("eps", eps, "(0, inf)"),
    ):
        if value is not None:
            check_number(name, value, interval)
    if learning_rate is not None:
        check_learning_rate(learning_rate)

    def axes_of(w: Any) -> tuple[int, int] | None:
        """The second longest and the longest axis of a leaf, or None if it is not factored."""
        order = np.argsort(np.shape(w))
        if not factored or np.ndim(w) < 2 or np.shape(w)[order[-2]] < min_dim_size_to_factor:
            return None
        return int(order[-2]), int(order[-1])

    @promoting
    def init(params: Params) -> AdafactorState:
        def leaf(w: Any) -> tuple[Array | None, ...]:
            whole, axes = jnp.zeros_like(jnp.real(wide(w))), axes_of(w)
            kept = None if momentum is None else jnp.zeros(np.shape(w), dtype_momentum)
            if axes is None:
                return None, None, whole, kept
            short, long = axes
            rows = jnp.zeros(np.delete(w.shape, long), whole.dtype)
            return rows, jnp.zeros(np.delete(w.shape, short), whole.dtype), None, kept

        structure: Any = jax.tree.structure(params)
        leaves = [leaf(w) for w in jax.tree.leaves(params)]
        trees = (structure.unflatten([parts[i] for parts in leaves]) for i in range(4))
        return AdafactorState(jnp.zeros((), jnp.int32), *trees)

    @promoting
    def update(
        grads: Updates, state: State, params: Params | None = None, **extra: Any
    ) -> tuple[Updates, AdafactorState]:
        params = given(params, "adafactor")
        lr, rate, offset, threshold, mu, decay, e = values_at(
            state.step,
            1.0 if learning_rate is None else learning_rate,
            decay_rate,
            decay_offset,
            jnp.inf if clipping_threshold is None else clipping_threshold,
            0.0 if momentum is None else momentum,
            0.0 if weight_decay_rate is None else weight_decay_rate,
            eps,
        )
        t = next_count(state.step)
        d = 1 - jnp.maximum(minus(t, offset), 1) ** -rate

        def rule(
            g: Any, row: Any, column: Any, v: Any, m: Any, w: Any, decays: bool
        ) -> tuple[Any, ...]:
            g, axes = wide(g), axes_of(g)
            squares = square(g) + e
            if axes is None:
                v = d * v + (1 - d) * squares
                u = g / root(v)
            else:
                short, long = axes
                row = d * row + (1 - d) * jnp.mean(squares, axis=long)
                column = d * column + (1 - d) * jnp.mean(squares, axis=short)
                average = jnp.mean(row, axis=short - (short > long), keepdims=True)
                u = g / jnp.expand_dims(root(row / average), long)
                u = u / jnp.expand_dims(root(column), short)
            u = u / jnp.maximum(1, _rms(u) / threshold)
            u = lr * u * jnp.maximum(_rms(wide(w)), 1e-3) if multiply_by_parameter_scale else lr * u
            if momentum is not None:
                m = u = mu * wide(m) + (1 - mu) * u
            if weight_decay_rate is not None and decays:
                u = u + decay * wide(w)
            return -u, row, column, v, m

        updates, *trees = leafwise(
            rule,
            (params, *state[1:]),
            grads,
            *state[1:],
            params,
            resolve_mask(weight_decay_mask, params),
        )
        return updates, AdafactorState(t, *trees)

    return Optimizer(init, update)


def _rms(x: Array) -> Array:
    return root(jnp.mean(square(x)))
