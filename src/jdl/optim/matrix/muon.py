"""Muon: momentum made orthogonal for matrices, with Adam for every other parameter."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PyTree

from jdl._checks import Count, check_choice, check_count, check_number
from jdl._promotion import promoting
from jdl.optim._leaves import (
    Mask,
    given,
    is_function,
    leafwise,
    moments,
    over,
    resolve_mask,
    square,
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
from jdl.optim.matrix.matrix_function import NEWTON_SCHULZ, orthogonalize
from jdl.tree import root


class MuonDimensionNumbers(NamedTuple):
    """Which axes of a parameter are the two sides of a matrix; any others are a batch of them.

    Attributes:
      reduction_axis: the axis, or axes, over which the layer sums (fan in).
      output_axis: the axis, or axes, that it gives (fan out).
    """

    reduction_axis: int | tuple[int, ...] = 0
    output_axis: int | tuple[int, ...] = 1


class MuonState(NamedTuple):
    """The state of `muon`.

    Attributes:
      step: the number of updates made.
      momentum: average of gradients, shaped as the parameters.
      second_moment: average of their squares for Adam's parameters, empty for the matrices.
    """

    step: Int[Array, ""]
    momentum: Updates
    second_moment: Updates


def muon(
    learning_rate: Number,
    ns_coeffs: Any = NEWTON_SCHULZ["standard"],
    ns_steps: Count = 5,
    beta: Number = 0.95,
    eps: Number = 1e-8,
    weight_decay: Number = 0.0,
    weight_decay_mask: Mask = None,
    mu_dtype: Any = None,
    *,
    nesterov: bool = True,
    adaptive: bool = False,
    preconditioning: str = "frobenius",
    adam_b1: Number = 0.9,
    adam_b2: Number = 0.999,
    adam_eps_root: Number = 0.0,
    adam_weight_decay: Number = 0.0,
    adam_learning_rate: Number | None = None,
    muon_weight_dimension_numbers: PyTree | Callable[[Params], PyTree] | None = None,
    consistent_rms: Number | None = None,
) -> Optimizer:
    """Muon: the momentum of a matrix, made orthogonal, is its update; Adam moves the rest.

        m = beta*m + (1-beta)*g;    mhat = beta*m/(1-beta**(t+1)) + (1-beta)*g/(1-beta**t)
        w -= lr * (sqrt(max(1, fan_out/fan_in)) * orthogonalize(mhat) + weight_decay*w)

    Matrices are the parameters of two axes unless `muon_weight_dimension_numbers`
    says otherwise. Embeddings and the last layer are better left to Adam.

    Args:
      learning_rate: in (0, inf).
      ns_coeffs: coefficients of the iteration, see `orthogonalize`, or the name
        "standard" or "dion".
      ns_steps: iterations, static; a list of triples has its own number.
      beta: decay of the momentum, in [0, 1).
      eps: in [0, inf), in the scale of the matrix and outside Adam's root.
      weight_decay: of the matrices, scaled by the rate, in [0, inf); 0 is off.
      weight_decay_mask: which matrices decay.
      mu_dtype: dtype of the momentum; `None` is float32 or wider.
      nesterov: whether the momentum looks ahead, as above; else `mhat = m/(1-beta**t)`.
      adaptive: whether the update is also scaled by its inner product with `mhat`.
      preconditioning: see `orthogonalize`.
      adam_b1: decay of Adam's first moment, in [0, 1).
      adam_b2: decay of Adam's second moment, in [0, 1).
      adam_eps_root: inside Adam's root, in [0, inf).
      adam_weight_decay: of the parameters that Adam moves, in [0, inf); 0 is off.
      adam_learning_rate: of Adam; `None` is `learning_rate`.
      muon_weight_dimension_numbers: a tree, or a function of the parameters that
        gives one, with a `MuonDimensionNumbers` for each matrix and `None` for the
        parameters that Adam moves.
      consistent_rms: `c`, in (0, inf), scales by `c * sqrt(max(fan_in, fan_out))`
        instead, so that an update has about the size of Adam's (0.2 is usual).

    Returns:
      An `Optimizer` with one number of state per element of a matrix, two of the rest.

    Raises:
      ValueError: a number out of range, or `update` without the parameters.

    Jordan et al., Muon: an optimizer for hidden layers in neural networks (2024).
    As optax.contrib's `muon`. torch's `Muon` has no Adam, `fan_out/fan_in` of
    transposed weights, no bias correction, and iterates in bfloat16; here the
    iteration runs in the momentum's dtype, float32 or wider.
    """
    check_learning_rate(learning_rate)
    check_betas(beta=beta, adam_b1=adam_b1, adam_b2=adam_b2)
    for name, value, interval in (
        ("eps", eps, "[0, inf)"),
        ("weight_decay", weight_decay, "[0, inf)"),
        ("adam_eps_root", adam_eps_root, "[0, inf)"),
        ("adam_weight_decay", adam_weight_decay, "[0, inf)"),
        ("adam_learning_rate", adam_learning_rate, "(0, inf)"),
        ("consistent_rms", consistent_rms, "(0, inf)"),
    ):
        if value is not None:
            check_number(name, value, interval)
    ns_steps = check_count("ns_steps", ns_steps, 0)
    if isinstance(ns_coeffs, str):
        check_choice("ns_coeffs", ns_coeffs, NEWTON_SCHULZ)
        ns_coeffs = NEWTON_SCHULZ[ns_coeffs]

    def matrices(params: Params) -> list[MuonDimensionNumbers | None]:
        """For each leaf its dimension numbers, or None where Adam moves it."""
        tree = muon_weight_dimension_numbers
        if tree is None:
            two = MuonDimensionNumbers()
            return [two if jnp.ndim(w) == 2 else None for w in jax.tree.leaves(params)]
        tree = tree(params) if is_function(tree) else tree
        full = jax.tree.broadcast(tree, params, is_leaf=_is_dimension_numbers)
        return jax.tree.leaves(full, is_leaf=_is_dimension_numbers)

    @promoting
    def init(params: Params) -> MuonState:
        momentum = moments(params, mu_dtype)
        structure: Any = jax.tree.structure(params)
        leaves = jax.tree.leaves(params)
        second = [
            jnp.zeros(jnp.shape(w) if numbers is None else (0,), jnp.real(wide(w)).dtype)
            for w, numbers in zip(leaves, matrices(params), strict=True)
        ]
        return MuonState(jnp.zeros((), jnp.int32), momentum, structure.unflatten(second))

    @promoting
    def update(
        grads: Updates, state: State, params: Params | None = None, **extra: Any
    ) -> tuple[Updates, MuonState]:
        params = given(params, "muon")
        lr, b, e, decay, b1, b2, e_root, adam_decay = values_at(
            state.step,
            learning_rate,
            beta,
            eps,
            weight_decay,
            adam_b1,
            adam_b2,
            adam_eps_root,
            adam_weight_decay,
        )
        adam_lr, rms = values_at(
            state.step,
            learning_rate if adam_learning_rate is None else adam_learning_rate,
            1.0 if consistent_rms is None else consistent_rms,
        )
        t = next_count(state.step)

        def look_ahead(m: Array, g: Array, decay_of_m: Array) -> Array:
            if not nesterov:
                return m / (1 - decay_of_m**t)
            ahead = decay_of_m * m / (1 - decay_of_m ** (t + 1))
            return ahead + (1 - decay_of_m) * g / (1 - decay_of_m**t)

        def matrix(
            g: Array, m: Any, v: Any, w: Array, decays: bool, numbers: MuonDimensionNumbers
        ) -> tuple[Any, ...]:
            m = b * wide(m) + (1 - b) * g
            m_hat = look_ahead(m, g, b)
            as_matrices, back, fan_in, fan_out = _sides(w, numbers)
            u = back(orthogonalize(as_matrices(m_hat), ns_coeffs, ns_steps, preconditioning, e))
            u = jnp.sum(jnp.conj(m_hat) * u) * u if adaptive else u
            wide_scale = math.sqrt(max(1, fan_out / max(1, fan_in)))
            u = u * (
                wide_scale if consistent_rms is None else rms * math.sqrt(max(fan_in, fan_out))
            )
            u = u + decay * w if decays else u
            return -lr * u, m, v

        def other(g: Array, m: Any, v: Array, w: Array) -> tuple[Any, ...]:
            m = b1 * wide(m) + (1 - b1) * g
            v = b2 * v + (1 - b2) * square(g)
            u = over(look_ahead(m, g, b1), root(v / (1 - b2**t) + e_root) + e) + adam_decay * w
            return -adam_lr * u, m, v

        structure: Any = jax.tree.structure(params)
        kinds = structure.unflatten([(kind,) for kind in matrices(params)])

        def rule(g: Any, m: Any, v: Any, w: Any, decays: bool, kind: Any) -> tuple[Any, ...]:
            if kind[0] is None:
                return other(wide(g), m, v, wide(w))
            return matrix(wide(g), m, v, wide(w), decays, kind[0])

        updates, momentum, second = leafwise(
            rule,
            (params, state.momentum, state.second_moment),
            grads,
            state.momentum,
            state.second_moment,
            params,
            resolve_mask(weight_decay_mask, params),
            kinds,
        )
        return updates, MuonState(t, momentum, second)

    return Optimizer(init, update)


def _is_dimension_numbers(x: Any) -> bool:
    return x is None or isinstance(x, MuonDimensionNumbers)


def _sides(w: Array, numbers: MuonDimensionNumbers) -> tuple[Callable, Callable, int, int]:
    """How to see `w` as (a batch of) matrices, how to undo it, the fan in and the fan out."""
    inner, outer = (
        tuple(axis % w.ndim for axis in ((axes,) if isinstance(axes, int) else axes))
        for axes in numbers
    )
    if set(inner) & set(outer):
        raise ValueError(
            "`muon_weight_dimension_numbers` must name different axes for the two sides, got "
            f"{numbers} for a parameter of shape {w.shape}."
        )
    batch = tuple(axis for axis in range(w.ndim) if axis not in inner + outer)
    order = batch + inner + outer
    fan_in, fan_out = (math.prod(w.shape[axis] for axis in axes) for axes in (inner, outer))
    sides = (*(w.shape[axis] for axis in batch), fan_in, fan_out)
    turned = tuple(w.shape[axis] for axis in order)
    inverse = tuple(order.index(axis) for axis in range(w.ndim))
    return (
        lambda x: x.transpose(order).reshape(sides),
        lambda x: x.reshape(turned).transpose(inverse),
        fan_in,
        fan_out,
    )
