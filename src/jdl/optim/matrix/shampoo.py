"""Shampoo: a preconditioner for each axis of a parameter, an inverse root of its statistics."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from jdl._checks import Count, check_choice, check_count, check_number
from jdl._promotion import promoting
from jdl.optim._leaves import (
    Mask,
    check_real,
    given,
    leafwise,
    moments,
    over,
    resolve_mask,
    values_at,
    wide,
)
from jdl.optim.base import (
    Number,
    Optimizer,
    Params,
    State,
    Updates,
    check_learning_rate,
    next_count,
)
from jdl.optim.matrix._axes import along, gram
from jdl.optim.matrix.layerwise import norm
from jdl.optim.matrix.matrix_function import inverse_power, inverse_root
from jdl.tree import root


class ShampooState(NamedTuple):
    """The state of `shampoo`.

    Attributes:
      step: the number of updates made.
      momentum: sum of preconditioned gradients, shaped as the parameters.
      statistics: for each parameter a tuple with one entry per axis, `n x n`, or
        `n` where only the diagonal is kept.
      preconditioners: inverse roots of the `n x n` statistics, empty for the others.
      accumulator: sum of squared gradients for `graft="adagrad"`, else empty.
    """

    step: Int[Array, ""]
    momentum: Updates
    statistics: Updates
    preconditioners: Updates
    accumulator: Updates


def shampoo(
    learning_rate: Number,
    momentum: Number = 0.9,
    b2: Number = 1.0,
    eps: Number = 1e-6,
    weight_decay: Number = 0.0,
    mask: Mask = None,
    *,
    exponent: Number | None = None,
    precondition_frequency: Number = 1,
    max_precond_dim: Count = 2048,
    graft: str | None = None,
    method: str = "eigh",
    newton_steps: Count = 40,
) -> Optimizer:
    """Shampoo: the gradient between inverse roots of its row and column statistics.

        L = L + g g';    R = R + g' g
        u = (L + eps*I)**(-1/4) g (R + eps*I)**(-1/4);    m = momentum*m + u
        w -= lr * (m + weight_decay*w)

    A tensor of k axes has k statistics and exponents 1/(2k). An axis longer than
    `max_precond_dim`, and the axis of a vector, keeps the diagonal of its statistic,
    which makes the rule Adagrad for vectors. For real parameters.

    Args:
      learning_rate: in (0, inf).
      momentum: in [0, 1); 0 is off.
      b2: 1 sums the statistics, as above; in (0, 1) they are averaged,
        `L = b2*L + (1-b2)*g g'`.
      eps: added to the eigenvalues, in [0, inf).
      weight_decay: decoupled decay, scaled by the rate, in [0, inf); 0 is off.
      mask: which parameters decay: a tree of booleans, a function that gives one, `None` for all.
      exponent: of each statistic, in (0, inf); `None` is 1/(2k). 1/k (1/2 for a
        matrix) is closer to full-matrix Adagrad.
      precondition_frequency: updates between two computations of the roots, in
        [1, inf). Where the step is batched by `vmap` the roots are computed at every
        update and used at these.
      max_precond_dim: longest axis with a matrix, static.
      graft: the length of the step is that of "sgd" (`|g|`), of "adagrad", or with
        `None` Shampoo's own; static.
      method: "eigh" or "newton" (products alone), see `inverse_root`; static.
      newton_steps: iterations of "newton", static.

    Returns:
      An `Optimizer` with two `n x n` matrices of state per axis beside the momentum.

    Raises:
      ValueError: a number out of range, or `update` without the parameters.

    Gupta, Koren and Singer, Shampoo: preconditioned stochastic tensor optimization
    (2018), algorithms 1 and 2, the diagonal form of section 5; grafting from Anil
    et al., Scalable second order optimization for deep learning (2020). Neither
    optax nor torch has it.
    """
    check_learning_rate(learning_rate)
    check_number("momentum", momentum, "[0, 1)")
    check_number("b2", b2, "(0, 1]")
    check_number("eps", eps, "[0, inf)")
    check_number("weight_decay", weight_decay, "[0, inf)")
    check_number("precondition_frequency", precondition_frequency, "[1, inf)")
    max_precond_dim = check_count("max_precond_dim", max_precond_dim)
    newton_steps = check_count("newton_steps", newton_steps, 0)
    check_choice("graft", graft, [None, "sgd", "adagrad"])
    check_choice("method", method, ["eigh", "newton"])
    if exponent is not None:
        check_number("exponent", exponent, "(0, inf)")

    def full(w: Any) -> list[bool]:
        """For each axis, whether its statistic is a matrix. A scalar has one axis of length 1."""
        return [jnp.ndim(w) > 1 and n <= max_precond_dim for n in jnp.shape(w) or (1,)]

    @promoting
    def init(params: Params) -> ShampooState:
        check_real(params, "shampoo")
        structure: Any = jax.tree.structure(params)
        statistics, roots = [], []
        for w in jax.tree.leaves(params):
            zeros, axes = wide(w), list(zip(jnp.shape(w) or (1,), full(w), strict=True))
            statistics.append(
                tuple(jnp.zeros((n, n) if matrix else (n,), zeros.dtype) for n, matrix in axes)
            )
            roots.append(tuple(jnp.zeros((n * matrix,) * 2, zeros.dtype) for n, matrix in axes))
        zeros = moments(params)
        return ShampooState(
            jnp.zeros((), jnp.int32),
            zeros,
            structure.unflatten(statistics),
            structure.unflatten(roots),
            jax.tree.map(
                lambda m: jnp.zeros_like(m if graft == "adagrad" else m.ravel()[:0]), zeros
            ),
        )

    @promoting
    def update(
        grads: Updates, state: State, params: Params | None = None, **extra: Any
    ) -> tuple[Updates, ShampooState]:
        params = given(params, "shampoo")
        lr, mu, beta, e, decay, every = values_at(
            state.step, learning_rate, momentum, b2, eps, weight_decay, precondition_frequency
        )
        share = jnp.where(beta == 1, 1, 1 - beta)

        def observe(g: Any, statistics: Any) -> tuple[Any]:
            g = jnp.atleast_1d(wide(g))
            now = (
                gram(g, axis)
                if s.ndim == 2
                else jnp.sum(g**2, [a for a in range(g.ndim) if a != axis])
                for axis, s in enumerate(statistics)
            )
            return (tuple(beta * s + share * new for s, new in zip(statistics, now, strict=True)),)

        (statistics,) = leafwise(observe, (state.statistics,), grads, state.statistics)

        def power(count: int) -> Any:
            return 1 / (2 * count) if exponent is None else values_at(state.step, exponent)[0]

        def roots(statistics: Updates) -> Updates:
            def leaf(g: Any, entries: Any) -> tuple[Any]:
                p = power(len(entries))
                return (
                    tuple(
                        inverse_root(s, p, e, method, newton_steps)
                        if s.ndim == 2
                        else jnp.zeros((0, 0))
                        for s in entries
                    ),
                )

            return leafwise(leaf, (state.preconditioners,), grads, statistics)[0]

        preconditioners = jax.lax.cond(
            state.step % every.astype(jnp.int32) == 0,
            roots,
            lambda _: state.preconditioners,
            statistics,
        )

        def rule(
            g: Any, m: Any, entries: Any, matrices: Any, c: Any, w: Any, decays: bool
        ) -> tuple[Any, Any, Any]:
            g = u = jnp.atleast_1d(wide(g))
            for axis, (s, matrix) in enumerate(zip(entries, matrices, strict=True)):
                if s.ndim == 2:
                    u = along(matrix, u, axis)
                else:
                    size = inverse_power(s + e, power(len(entries)))
                    u = u * size.reshape([-1 if a == axis else 1 for a in range(u.ndim)])
            u, g = u.reshape(m.shape), g.reshape(m.shape)
            if graft == "adagrad":
                c = c + g**2
                u = u * over(norm(over(g, root(c + e))), norm(u))
            elif graft == "sgd":
                u = u * over(norm(g), norm(u))
            m = mu * m + u
            return -lr * (m + decay * wide(w) if decays else m), m, c

        updates, velocity, accumulator = leafwise(
            rule,
            (params, state.momentum, state.accumulator),
            grads,
            state.momentum,
            statistics,
            preconditioners,
            state.accumulator,
            params,
            resolve_mask(mask, params),
        )
        return updates, ShampooState(
            next_count(state.step), velocity, statistics, preconditioners, accumulator
        )

    return Optimizer(init, update)
