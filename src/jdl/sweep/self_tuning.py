"""Trials that tune their own numbers by hypergradient while they train."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jdl._checks import check_count
from jdl.optim import Optimizer, apply_updates
from jdl.train import Trial


class TunedState(NamedTuple):
    """The state of a self-tuning trial."""

    params: Any
    opt_state: Any
    logs: dict[str, Any]  # logarithms of the tuned numbers


def self_tuning(
    init: Callable[[Any], Any],
    loss: Callable[[Any, Any], Any],
    make_optimizer: Callable[[dict[str, Any]], Optimizer],
    numbers: Mapping[str, Any],
    *,
    meta_rate: Any = 0.05,
    inner: int = 4,
    metrics: Callable[[Any, Any], dict[str, Any]] | None = None,
) -> Trial:
    """A trial that adapts its optimizer's positive numbers by the gradient of a held-out loss.

        w_k = inner updates from w, one on each of `inner` parts of the batch
        log h <- log h - meta_rate * sign(d loss(w_k, last part) / d log h)

    A step of the trial cuts one batch into `inner + 1` equal parts. It trains on
    all but the last, and differentiates the loss on the last through those
    updates, in forward mode (one tangent for each number). The sign makes
    `meta_rate` the relative change of a number in a step, whatever the scale of
    the loss. A `meta_rate` of 0 is off. The optimizer's state before the batch
    counts as constant, so the horizon is `inner` updates.

    Args:
      init: makes parameters from a key.
      loss: `loss(params, batch)`, the mean over the batch.
      make_optimizer: makes an optimizer from the numbers by name.
      numbers: their start values, each above 0; may be traced.
      meta_rate: relative change in a step, in [0, inf); may be traced.
      inner: updates in a step, at least 1; examples left over by `inner + 1`
        are not used.
      metrics: other values of `(params, batch)`, for evaluation.

    Returns:
      A trial that reports its loss and each number under its name.

    Raises:
      ValueError: `inner` is below 1, or `numbers` is empty.

    Source: Maclaurin, Duvenaud and Adams (2015); online over short horizons as in
    Franceschi et al. (2017) and, of one step, Baydin et al. (2018).
    """
    inner = check_count("inner", inner)
    if not numbers:
        raise ValueError("`numbers` needs at least one number to tune, got none.")

    def start(key: Any, batch: Any) -> TunedState:
        params = init(key)
        state = make_optimizer(dict(numbers)).init(params)
        logs = {name: jnp.log(jnp.asarray(n, jnp.float32)) for name, n in numbers.items()}
        return TunedState(params, state, logs)

    def step(state: TunedState, batch: Any, key: Any) -> tuple[TunedState, dict[str, Any]]:
        parts = jax.tree.map(lambda a: _parts(a, inner + 1), batch)
        held_out = jax.tree.map(lambda a: a[-1], parts)

        def trained(logs: dict[str, Any]) -> tuple[Any, Any]:
            optimizer = make_optimizer({name: jnp.exp(log) for name, log in logs.items()})

            def update(carry: Any, part: Any) -> tuple[Any, Any]:
                params, opt_state = carry
                value, grads = jax.value_and_grad(loss)(params, part)
                updates, opt_state = optimizer.update(grads, opt_state, params)
                return (apply_updates(params, updates), opt_state), value

            first = (state.params, state.opt_state)
            training = jax.tree.map(lambda a: a[:-1], parts)
            end, values = jax.lax.scan(update, first, training)
            return loss(end[0], held_out), (end, jnp.mean(values))

        slopes, ((params, opt_state), value) = jax.jacfwd(trained, has_aux=True)(state.logs)
        logs = {
            name: log - meta_rate * jnp.sign(jnp.nan_to_num(slopes[name]))
            for name, log in state.logs.items()
        }
        shown = {name: jnp.exp(log) for name, log in logs.items()}
        return TunedState(params, opt_state, logs), {"loss": value, **shown}

    def evaluate(state: TunedState, batch: Any) -> dict[str, Any]:
        more = metrics(state.params, batch) if metrics is not None else {}
        return {"loss": loss(state.params, batch), **more}

    return Trial(start, step, evaluate)


def _parts(array: Any, count: int) -> Any:
    size = array.shape[0] // count
    if size < 1:
        raise ValueError(
            f"A batch of {array.shape[0]} examples cannot be cut into {count} parts. Raise "
            "batch_size or lower `inner`."
        )
    return array[: size * count].reshape(count, size, *array.shape[1:])
