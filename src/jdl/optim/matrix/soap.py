"""SOAP: Adam in the slowly turning eigenbasis of Shampoo's statistics."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from jdl._checks import Count, check_count, check_number
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
from jdl.optim.elementwise.adam import check_betas
from jdl.optim.matrix._axes import along, gram
from jdl.optim.matrix.layerwise import norm
from jdl.tree import root


class SoapState(NamedTuple):
    """The state of `soap`.

    Attributes:
      step: the number of updates made.
      momentum: average of gradients, shaped as the parameters.
      second_moment: average of squared gradients in the eigenbasis, likewise.
      statistics: for each parameter a tuple with one `n x n` matrix per axis, `0 x 0`
        for an axis that is not turned.
      bases: the eigenvectors of the statistics, in columns; likewise.
    """

    step: Int[Array, ""]
    momentum: Updates
    second_moment: Updates
    statistics: Updates
    bases: Updates


def soap(
    learning_rate: Number,
    b1: Number = 0.95,
    b2: Number = 0.95,
    shampoo_beta: Number | None = None,
    eps: Number = 1e-8,
    weight_decay: Number = 0.01,
    mask: Mask = None,
    *,
    precondition_frequency: Number = 10,
    max_precond_dim: Count = 10_000,
    precondition_1d: bool = False,
    bias_correction: bool = True,
) -> Optimizer:
    """SOAP: Adam whose second moment lives in the eigenbasis of `g g'` and `g' g`.

        h = Ql' g Qr;    m = b1*m + (1-b1)*g;    v = b2*v + (1-b2)*h**2
        u = Ql (Ql' mhat Qr * sqrt(1-b2**t) / (sqrt(v) + eps)) Qr'
        w -= lr * (u + weight_decay*w)
        L = beta*L + (1-beta)*g g';    R = beta*R + (1-beta)*g' g

    The first call only starts the statistics and takes their eigenvectors: its
    update is 0 and `t` counts from the second. Then every `precondition_frequency`
    updates `Q` becomes the orthogonal factor of `L Q`, one step of the power
    iteration, its columns ordered by eigenvalue. A vector is left to Adam. For real
    parameters.

    Args:
      learning_rate: in (0, inf).
      b1: decay of the momentum, in [0, 1).
      b2: decay of the second moment, in [0, 1).
      shampoo_beta: decay of the statistics, in [0, 1); `None` is `b2`.
      eps: outside the root, in [0, inf).
      weight_decay: decoupled decay, scaled by the rate, in [0, inf); 0 is off.
      mask: which parameters decay: a tree of booleans, a function that gives one, `None` for all.
      precondition_frequency: updates between two turns of the basis, in [1, inf).
        Where the step is batched by `vmap` the new basis is computed at every update
        and used at these.
      max_precond_dim: longest axis that is turned, static.
      precondition_1d: whether a vector is turned too, static.
      bias_correction: False uses `m` and `v` as they are.

    Returns:
      An `Optimizer` with two `n x n` matrices of state per axis beside the moments.

    Raises:
      ValueError: a number out of range, or `update` without the parameters.

    Vyas et al., SOAP: improving and stabilizing Shampoo using Adam (2024),
    algorithm 3 and the authors' code, which decays the weights after the step
    (a difference of order lr**2). Neither optax nor torch has it.
    """
    check_learning_rate(learning_rate)
    check_betas(b1=b1, b2=b2)
    check_number("eps", eps, "[0, inf)")
    check_number("weight_decay", weight_decay, "[0, inf)")
    check_number("precondition_frequency", precondition_frequency, "[1, inf)")
    max_precond_dim = check_count("max_precond_dim", max_precond_dim)
    if shampoo_beta is not None:
        check_betas(shampoo_beta=shampoo_beta)

    @promoting
    def init(params: Params) -> SoapState:
        check_real(params, "soap")
        structure: Any = jax.tree.structure(params)
        zeros = moments(params)
        turned = [
            tuple(
                n if n <= max_precond_dim and (m.ndim > 1 or precondition_1d) else 0
                for n in m.shape
            )
            for m in jax.tree.leaves(zeros)
        ]

        def matrices() -> Updates:
            dtypes = [m.dtype for m in jax.tree.leaves(zeros)]
            return structure.unflatten(
                [
                    tuple(jnp.zeros((n, n), dtype) for n in sizes)
                    for sizes, dtype in zip(turned, dtypes, strict=True)
                ]
            )

        return SoapState(jnp.zeros((), jnp.int32), zeros, moments(params), matrices(), matrices())

    @promoting
    def update(
        grads: Updates, state: State, params: Params | None = None, **extra: Any
    ) -> tuple[Updates, SoapState]:
        params = given(params, "soap")
        lr, c1, c2, beta, e, decay, every = values_at(
            state.step,
            learning_rate,
            b1,
            b2,
            b2 if shampoo_beta is None else shampoo_beta,
            eps,
            weight_decay,
            precondition_frequency,
        )
        first = state.step == 0
        debias1 = 1 - c1**state.step if bias_correction else 1 - first
        debias2 = 1 - c2**state.step if bias_correction else jnp.ones(())
        # The moments start at the second call, when there is a basis to keep them in.
        fresh1, fresh2 = (jnp.where(first, 0, 1 - c) for c in (c1, c2))

        def rule(
            g: Any, m: Any, v: Any, statistics: Any, bases: Any, w: Any, decays: bool
        ) -> tuple[Any, ...]:
            g = wide(g)
            m = c1 * m + fresh1 * g
            v = c2 * v + fresh2 * _without_rounding(_turn(g, bases), g) ** 2
            h = over(_without_rounding(_turn(m, bases), m) * root(debias2), root(v) + e)
            u = over(_turn_back(h, bases), debias1 * jnp.ones(()))
            u = u + jnp.where(first, 0, decay) * wide(w) if decays else u
            statistics = tuple(
                beta * s + (1 - beta) * gram(g, axis) if s.size else s
                for axis, s in enumerate(statistics)
            )
            return -lr * u, m, v, statistics

        updates, momentum, second, statistics = leafwise(
            rule,
            (params, state.momentum, state.second_moment, state.statistics),
            grads,
            *state[1:],
            params,
            resolve_mask(mask, params),
        )
        due = state.step % every.astype(jnp.int32) == 0
        branch = jnp.where(first, 0, jnp.where(due, 1, 2))
        bases, second = jax.lax.switch(
            branch, (_eigenvectors, _power_step, _keep), statistics, state.bases, second
        )
        return updates, SoapState(next_count(state.step), momentum, second, statistics, bases)

    return Optimizer(init, update)


def _turn(g: Array, bases: tuple[Array, ...]) -> Array:
    """`g` in the eigenbasis: `Q'` applied to every axis that has one."""
    for axis, q in enumerate(bases):
        g = along(q.T, g, axis) if q.size else g
    return g


def _without_rounding(turned: Array, g: Array) -> Array:
    """`turned` with 0 where it is no more than the rounding of the turn.

    In the basis of its own statistics a gradient is diagonal, and Adam would take
    the rounding beside the diagonal for entries as good as any.
    """
    rounding = 64 * jnp.finfo(g.dtype).eps * norm(g)
    return jnp.where(jnp.abs(turned) <= rounding, 0, turned)


def _turn_back(g: Array, bases: tuple[Array, ...]) -> Array:
    for axis, q in enumerate(bases):
        g = along(q, g, axis) if q.size else g
    return g


def _keep(statistics: Updates, bases: Updates, second: Updates) -> tuple[Updates, Updates]:
    return bases, second


def _eigenvectors(statistics: Updates, bases: Updates, second: Updates) -> tuple[Updates, Updates]:
    """The eigenvectors of each statistic, largest eigenvalue first."""
    return jax.tree.map(lambda s: _basis(s) if s.size else s, statistics), second


def _basis(statistic: Array) -> Array:
    """Eigenvectors, largest eigenvalue first; those of eigenvalue 0 are told apart by position.

    Any basis of a null space would do, and rounding would choose one. No derivative
    goes through it: where eigenvalues are equal there is none.
    """
    statistic = jax.lax.stop_gradient(statistic)
    n = statistic.shape[0]
    values, vectors = jnp.linalg.eigh(statistic)
    values, vectors = values[::-1], vectors[:, ::-1]
    null = values <= 64 * jnp.finfo(values.dtype).eps * values[0]
    beside = vectors * null[None, :]
    onto_null = jnp.dot(beside, beside.T, precision="highest")
    places = jnp.diag(jnp.arange(n, 0, -1, dtype=values.dtype) / n)
    # Eigenvalue 2 for the rest keeps it in front of the null space, whose are at most 1.
    order = onto_null @ places @ onto_null + 2 * (jnp.eye(n, dtype=values.dtype) - onto_null)
    by_place = jnp.linalg.eigh(order)[1][:, ::-1]
    return jnp.where(null[None, :], by_place, vectors)


def _power_step(statistics: Updates, bases: Updates, second: Updates) -> tuple[Updates, Updates]:
    """One step of the power iteration, columns and second moment ordered by eigenvalue."""

    def leaf(v: Array, matrices: Any, old: Any) -> tuple[Any, Array]:
        new = []
        for axis, (s, q) in enumerate(zip(matrices, old, strict=True)):
            if s.size:
                s, q = jax.lax.stop_gradient((s, q))
                order = jnp.argsort(jnp.sum(q * (s @ q), axis=0), descending=True)
                v = jnp.take(v, order, axis=axis)
                q = q[:, order]
                powers = s @ q
                size = root(jnp.sum(powers**2, 0))
                # What the statistic does not see keeps its direction: its power is rounding.
                seen = size > 64 * jnp.finfo(s.dtype).eps * jnp.max(size)
                q = jnp.linalg.qr(jnp.where(seen[None, :], powers, q * jnp.max(size)))[0]
            new.append(q)
        return tuple(new), v

    return leafwise(leaf, (bases, second), second, statistics, bases)  # type: ignore[return-value]
