"""What checks need of a trial beyond its three functions: where its parameters are, and its rate.

A trial is looked at from outside, by `init`, `step` and `evaluate` alone, so that one written
with any library, or none, can be checked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.interpreters import partial_eval
from jaxtyping import PyTree

from jdl import tree
from jdl.engine.trial import Batch, Metrics, State, Trial, adapted, params_of, with_params


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` compiled in haste: it runs once, and compiling takes longer than running.

    On a CPU without LLVM's optimisations, which takes the time of all checks of
    an MLP from 21 to 14 seconds of one core.
    """
    options = {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else None
    return jax.jit(function, compiler_options=options)


def objective(trial: Trial) -> Callable[[PyTree, State, Batch, Any], Any]:
    """`(params, state, batch, key) -> loss`, to be differentiated.

    It is what the step minimises, penalty and dropout included, where the
    trial says so; else the loss that it evaluates.

    Raises:
      ValueError: (when called) the trial evaluates no "loss".
    """

    def value(params: PyTree, state: State, batch: Batch, key: Any) -> Any:
        state = with_params(state, params)
        if trial.objective is not None:
            return trial.objective(state, batch, key)
        return loss_in(trial.evaluate(state, batch))

    return value


def loss_in(metrics: Metrics) -> Any:
    """The metric called "loss".

    Raises:
      ValueError: there is none.
    """
    if "loss" not in metrics:
        raise ValueError(
            f'A check needs a metric called "loss", but the trial evaluates {sorted(metrics)}.'
        )
    return metrics["loss"]


def rescaled(trial: Trial) -> Callable[[Any], Trial]:
    """`trial` at multiples of its own learning rate: a function of the factor.

    The step is taken and its change of the parameters multiplied, which is what
    another rate does wherever the update is proportional to it: descent with or
    without momentum, Adam and its relatives. (Not line searches, nor averages
    that the optimizer keeps of its parameters: give `learning_rate_range` a
    function of the rate for those.)
    """

    def make(factor: Any) -> Trial:
        def step(state: State, batch: Batch, key: Any) -> tuple[State, Metrics]:
            after, metrics = trial.step(state, batch, key)
            moved = jax.tree.map(
                lambda w, v: (
                    (w + factor * (v - w)).astype(w.dtype)
                    if jnp.issubdtype(w.dtype, jnp.inexact)
                    else v
                ),
                params_of(state),
                params_of(after),
            )
            return with_params(after, moved), metrics

        return adapted(trial, step=step)

    return make


def live(jaxpr: Any, wanted: Sequence[bool]) -> tuple[Any, list[bool]]:
    """The part of a program that its wanted outputs need, and which of its inputs they read.

    >>> program = jax.make_jaxpr(lambda a, b: (a + 1, jnp.sin(b)))(1.0, 2.0).jaxpr
    >>> live(program, [True, False])[1]
    [True, False]
    """
    part, read = partial_eval.dce_jaxpr(jaxpr, [*wanted])
    return part, [*read]


def layers_of(params: PyTree) -> dict[str, Any]:
    """The weights by name, in order of depth: leaves of two axes or more that are real numbers.

    Numbers in a path count as numbers, so that layer 10 follows layer 9.
    """
    leaves = {
        name: leaf
        for name, leaf in tree.named_leaves(params).items()
        if getattr(leaf, "ndim", 0) > 1 and jnp.issubdtype(leaf.dtype, jnp.floating)
    }
    return dict(sorted(leaves.items(), key=lambda item: _natural(item[0])))


def _natural(name: str) -> list[Any]:
    words, digits = [], ""
    for letter in [*name, ""]:
        if letter.isdigit():
            digits += letter
            continue
        if digits:
            words.append((0, int(digits), ""))
            digits = ""
        words.append((1, 0, letter))
    return words


def classes_in(batch: Batch) -> int | None:
    """How many classes the integer labels of `batch = (x, y)` have; None if `y` is no label."""
    if not isinstance(batch, tuple | list) or len(batch) != 2:
        return None
    labels = np.asarray(batch[1])
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        return None
    return int(labels.max()) + 1


def first(batch: Batch, count: int) -> Batch:
    """The first `count` examples of `batch`."""
    return jax.tree.map(lambda a: a[:count], batch)


def length(batch: Batch) -> int:
    """How many examples `batch` holds."""
    return int(jax.tree.leaves(batch)[0].shape[0])
