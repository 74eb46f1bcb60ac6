"""The trial: one complete training run as pure functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from jdl._promotion import at_least_float32

State = PyTree
Batch = PyTree
Metrics = dict[str, Any]


class Trial(NamedTuple):
    """One complete training run: what a lane of a sweep runs.

    Any model fits; none of its functions may branch in Python on a number that
    a sweep varies.

    Attributes:
      init: `init(key, batch) -> state`; everything that a step changes. `batch` is the data
        set's tree with a leading batch axis, as arrays or `jax.ShapeDtypeStruct`s: shapes alone.
      step: `step(state, batch, key) -> (state, metrics)`; `batch` as in `init`, as arrays,
        `metrics` a dict of scalars. A metric called "loss" tells whether the trial diverged.
      evaluate: `evaluate(state, batch) -> metrics`, each the mean over `batch`.
      check: `check(data)` raises if the data set, as host arrays, does not fit the
        trial. It is called before anything is compiled.
      predict: `predict(state, x, key=None)` gives the outputs of a trained network, one
        row an example: probabilities of a classifier, values of a regression. Ensembles
        average it. A key draws the masks of Monte-Carlo dropout.
      objective: `objective(state, batch, key)` gives what a step minimises, penalties
        included, in training mode and differentiable in the state's parameters.
        Diagnostics use it, or the evaluated loss without it.
    """

    init: Callable[[Any, Batch], State]
    step: Callable[[State, Batch, Any], tuple[State, Metrics]]
    evaluate: Callable[[State, Batch], Metrics]
    check: Callable[[Any], None] | None = None
    predict: Callable[..., Any] | None = None
    objective: Callable[[State, Batch, Any], Any] | None = None


def adapted(
    trial: Trial,
    *,
    inward: Callable[[State], State] | None = None,
    outward: Callable[[State], State] | None = None,
    batch: Callable[[Batch], Batch] | None = None,
    **replaced: Any,
) -> Trial:
    """Wraps `trial` with another form of state or batch, or other functions.

    Args:
      trial: what is wrapped.
      inward: gives the state of `trial` from the new one; None where they are the same.
      outward: the inverse of `inward`, for `init` and `step`.
      batch: gives the batch of `trial` from the new one, for all functions but `check`
        and `predict`; None where they are the same.
      replaced: functions of the new trial, by the names of `Trial`. They are taken as they are.

    >>> inner = Trial(
    ...     init=lambda key, batch: 3.0,
    ...     step=lambda w, batch, key: (w - 1, {"loss": w * w}),
    ...     evaluate=lambda w, batch: {"loss": w * w},
    ...     objective=lambda w, batch, key: w * w,
    ... )
    >>> boxed = adapted(inner, inward=lambda box: box[0], outward=lambda w: [w])
    >>> boxed.step(boxed.init(None, None), None, None)
    ([2.0], {'loss': 9.0})
    >>> boxed.objective([2.0], None, None)
    4.0
    """
    inner = inward or _same
    outer = outward or _same
    part = batch or _same

    def init(key: Any, batch: Batch) -> State:
        # The batch may be shapes, on which only a trace can run a function of arrays.
        seen = batch if part is _same else jax.eval_shape(part, batch)
        return outer(trial.init(key, seen))

    def step(state: State, batch: Batch, key: Any) -> tuple[State, Metrics]:
        state, metrics = trial.step(inner(state), part(batch), key)
        return outer(state), metrics

    def evaluate(state: State, batch: Batch) -> Metrics:
        return trial.evaluate(inner(state), part(batch))

    def predict(state: State, x: Any, key: Any = None) -> Any:
        assert trial.predict is not None
        return trial.predict(inner(state), x, key)

    def objective(state: State, batch: Batch, key: Any) -> Any:
        assert trial.objective is not None
        return trial.objective(inner(state), part(batch), key)

    return Trial(
        init,
        step,
        evaluate,
        check=trial.check,
        predict=None if trial.predict is None else predict,
        objective=None if trial.objective is None else objective,
    )._replace(**replaced)


def _same(a: Any) -> Any:
    return a


def evaluated_sizes(examples: int, batch_size: int) -> list[int]:
    """The sizes of the batches that `evaluate_split` makes of so many examples.

    >>> evaluated_sizes(10, 4), evaluated_sizes(8, 4), evaluated_sizes(3, 4)
    ([4, 2], [4], [3])
    """
    size = min(batch_size, examples)
    return [size, *([rest] if (rest := examples % size) else [])]


def params_of(state: Any) -> PyTree:
    """The parameters in a trial's state.

    They are `state.params`, else `state["params"]`, else the first element of a
    plain tuple or list, else the state itself.

    >>> params_of({"params": 1.0, "moments": 2.0}), params_of((1.0, 2.0)), params_of(3.0)
    (1.0, 1.0, 3.0)
    """
    if hasattr(state, "params"):
        return state.params
    if isinstance(state, dict) and "params" in state:
        return state["params"]
    if type(state) in (tuple, list) and state:
        return state[0]
    return state


def with_params(state: Any, params: PyTree) -> Any:
    """`state` with its parameters replaced."""
    if hasattr(state, "_replace") and hasattr(state, "params"):
        if "params" in state._fields:
            return state._replace(params=params)
        # A state around another one, whose parameters it shows as its own.
        held = next(n for n, v in state._asdict().items() if getattr(v, "params", None) is not None)
        return state._replace(**{held: with_params(getattr(state, held), params)})
    if hasattr(state, "replace"):
        return state.replace(params=params)
    if isinstance(state, dict) and "params" in state:
        return {**state, "params": params}
    if type(state) in (tuple, list) and state:
        return type(state)([params, *state[1:]])
    return params


def widened(metrics: Metrics) -> Metrics:
    """`metrics` in float32 or wider: 256 is 0 in uint8, and 70,000 infinite in float16."""
    return {name: jnp.asarray(m, at_least_float32(m)) for name, m in metrics.items()}


def evaluate_split(trial: Trial, state: State, split: Batch, batch_size: int) -> Metrics:
    """The mean of each metric over all of `split`, however unevenly it divides.

    Full batches are scanned and the remainder is evaluated alone, each mean
    weighted by the number of its examples, in float32 or wider.
    """
    examples = jax.tree.leaves(split)[0].shape[0]
    batch_size, *_ = evaluated_sizes(examples, batch_size)
    full = examples // batch_size

    def part(start: int, stop: int) -> Batch:
        return jax.tree.map(lambda a: a[start:stop], split)

    def evaluate(batch: Batch) -> Metrics:
        return widened(trial.evaluate(state, batch))

    if full == 1:
        total = evaluate(part(0, batch_size))
        total = jax.tree.map(lambda m: m * batch_size, total)
    else:
        batches = jax.tree.map(
            lambda a: a.reshape(full, batch_size, *a.shape[1:]), part(0, full * batch_size)
        )
        means = jax.lax.map(evaluate, batches)
        total = jax.tree.map(lambda m: jnp.sum(m, axis=0) * batch_size, means)
    if rest := examples - full * batch_size:
        last = evaluate(part(full * batch_size, examples))
        total = jax.tree.map(lambda a, b: a + b * rest, total, last)
    return jax.tree.map(lambda m: m / examples, total)
