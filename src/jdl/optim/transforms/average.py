"""Averages of the parameters for test time, kept in the state: exponential, Polyak's, SWA."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from jdl._checks import check_number
from jdl._promotion import promoting
from jdl.optim._leaves import copies, given, wide
from jdl.optim.base import Number, Optimizer, Params, State, Updates, at_step, next_count
from jdl.optim.schedules.decay import minus, phase


class AverageState(NamedTuple):
    """The state of an average of parameters.

    Attributes:
      step: the number of updates made.
      weight: the weight of what has been averaged, relative to a sample of weight 1.
      average: the average, ready to use, shaped as the parameters, float32 or wider.
    """

    step: Int[Array, ""]
    weight: Float[Array, ""]
    average: PyTree


def averaged_params(state: State) -> Params:
    """The average in the state of an optimizer whose chain contains one.

    Raises:
      ValueError: there is no average in the state, or more than one.
    """
    is_average = lambda x: isinstance(x, AverageState)  # noqa: E731
    found = [x for x in jax.tree.leaves(state, is_leaf=is_average) if is_average(x)]
    if len(found) != 1:
        raise ValueError(
            f"Expected one average in the state, got {len(found)}: end the chain with "
            "`parameter_ema(...)`, `polyak_average(...)` or `swa(...)`."
        )
    return found[0].average


def _moved(average: PyTree, share: Array, params: Params, updates: Updates) -> PyTree:
    """`average + share * (params + updates - average)`; the sample itself where share is 1."""

    def leaf(a: Array, w: Any, u: Any) -> Array:
        sample = wide((w + u).astype(w.dtype))
        # a + (sample - a) is not sample where a is far larger, or infinite.
        return jnp.where(share >= 1, sample, a + share * (sample - a)).astype(a.dtype)

    return jax.tree.map(leaf, average, params, updates)


def parameter_ema(decay: Number, debias: bool = True) -> Optimizer:
    """Keeps an exponential moving average of the parameters, for the end of a `chain`.

        a = decay * a + (1 - decay) * w,    divided by 1 - decay**t if debiased

    Debiased, after the first update it is the parameters; otherwise it starts at
    the initial parameters and forgets them slowly. `averaged_params` gives it.

    Args:
      decay: in [0, 1], 0 is off; 0.995 averages the last few hundred steps.
      debias: whether the start is corrected for; exact under a schedule too.

    Returns:
      An `Optimizer` that passes updates on, whose state is one number per parameter.

    >>> from jdl import optim
    >>> optimizer = optim.chain(optim.adam(1e-3), optim.parameter_ema(0.995))
    """
    check_number("decay", decay, "[0, 1]")

    @promoting
    def init(params: Params) -> AverageState:
        weight = jnp.zeros(()) if debias else jnp.ones(())
        return AverageState(jnp.zeros((), jnp.int32), weight, copies(params))

    @promoting
    def update(
        grads: Updates, state: AverageState, params: Params | None = None, **extra: Any
    ) -> tuple[Updates, AverageState]:
        rho = at_step(decay, state.step)
        weight = (rho * state.weight + (1 - rho)).astype(state.weight.dtype)
        share = jnp.where(weight > 0, (1 - rho) / jnp.where(weight > 0, weight, 1), 0)
        average = _moved(state.average, share, given(params, "parameter_ema"), grads)
        return grads, AverageState(next_count(state.step), weight, average)

    return Optimizer(init, update)


def swa(start: Any = 0, period: Any = 1) -> Optimizer:
    """Keeps the plain average of the parameters of every `period`-th step from `start` on.

    Before `start` it is the parameters themselves. Stochastic weight averaging
    takes the end of each epoch or cycle; batch-norm statistics have to be computed
    anew for the average.

    Args:
      start: the first step whose result counts, from 0; may be traced.
      period: an integer in [1, inf), may be traced.

    Returns:
      An `Optimizer` that passes updates on, whose state is one number per parameter.

    Izmailov et al. 2018.
    """
    check_number("start", start, "[0, inf]")
    check_number("period", period, "[1, inf)")

    @promoting
    def init(params: Params) -> AverageState:
        return AverageState(jnp.zeros((), jnp.int32), jnp.zeros(()), copies(params))

    @promoting
    def update(
        grads: Updates, state: AverageState, params: Params | None = None, **extra: Any
    ) -> tuple[Updates, AverageState]:
        since = minus(state.step, start)
        counts = (since >= 0) & (phase(jnp.maximum(since, 0), period)[1] == 0)
        weight = state.weight + counts.astype(state.weight.dtype)
        # Before the start the average follows the parameters.
        share = jnp.where(counts, 1 / jnp.maximum(weight, 1), jnp.where(weight > 0, 0, 1))
        average = _moved(state.average, share, given(params, "swa"), grads)
        return grads, AverageState(next_count(state.step), weight, average)

    return Optimizer(init, update)


def polyak_average(start: Any = 0) -> Optimizer:
    """Keeps the plain average of the parameters of all steps from `start` on: `swa(start, 1)`.

    Returns:
      An `Optimizer` that passes updates on. Polyak and Juditsky 1992.
    """
    return swa(start, 1)
