"""Averages of the parameters, kept and evaluated beside the last iterate in every lane."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from jdl import tree
from jdl.engine.trial import Batch, Metrics, Trial, adapted
from jdl.optim import Optimizer, averaged_params

# Apart from the positions of layers and from the stream of augmentation.
_AVERAGE_STREAM = 2**32 - 2


class Average(NamedTuple):
    """One average of a run.

    Attributes:
      kept: the state of the averaging transform.
      model_state: the model's state that goes with the averaged parameters.
    """

    kept: PyTree
    model_state: PyTree


class AveragedState(NamedTuple):
    """A trial's state and its averages.

    Attributes:
      last: the state of the trial itself.
      averages: by name.
    """

    last: Any
    averages: dict[str, Average]

    @property
    def params(self) -> PyTree:
        """The parameters of the last iterate."""
        return self.last.params

    @property
    def model_state(self) -> PyTree:
        """The model's state of the last iterate."""
        return self.last.model_state

    def of(self, name: str) -> Any:
        """The trial's state with the parameters of the average `name` in place of its own.

        Raises:
          ValueError: there is no such average.
        """
        if name not in self.averages:
            known = ", ".join(self.averages)
            raise ValueError(f"`name` must be one of {known}, got name={name!r}.")
        average = self.averages[name]
        params = tree.cast_like(averaged_params(average.kept), self.last.params)
        return self.last._replace(params=params, model_state=average.model_state)


def averaged(
    trial: Trial, averages: Mapping[str, Optimizer], *, predict_with: str | None = None
) -> Trial:
    """`trial` with averages of its parameters, each evaluated beside the last iterate.

    For an average called "ema" there is "ema_accuracy" beside "accuracy", so
    that a sweep may be judged by `metric="valid_ema_accuracy"`. The averages
    only look on: the last iterate is, to the bit, that of `trial`.

    Where the model has a state (batch norm), a state of its own goes with each
    average: the training batches pass through the averaged network too, and its
    running statistics move as those of the last iterate do. That costs a forward
    pass a step; `nn.recompute_batch_stats` gives exact ones in the end.

    Args:
      trial: whose state has `params` and `model_state`, as those of
        `supervised`, `classifier`, `regressor` have.
      averages: by name: `optim.parameter_ema(0.995)`, `optim.swa(start, period)`
        (with an epoch's steps for the period, the average of the checkpoints at
        the epochs' ends), `optim.polyak_average()`. Their numbers may be traced.
      predict_with: the average that `predict` uses; None is the last iterate.

    Returns:
      A trial whose state is an `AveragedState`.

    Raises:
      ValueError: no average is given, or `predict_with` is none of them.

    >>> from jdl import models, optim, train
    >>> trial = averaged(
    ...     train.classifier(models.mlp((32, 10)), optim.adam(1e-3)),
    ...     {"ema": optim.parameter_ema(0.99), "swa": optim.swa(start=200, period=39)},
    ... )

    Izmailov, Podoprikhin, Garipov, Vetrov, Wilson 2018 (swa).
    """
    if not averages:
        raise ValueError("`averages` must hold at least one average, got none.")
    if predict_with is not None and predict_with not in averages:
        raise ValueError(
            f"`predict_with` must be one of {', '.join(averages)} or None, got {predict_with!r}."
        )

    def init(key: Any, batch: Batch) -> AveragedState:
        last: Any = trial.init(key, batch)
        return AveragedState(
            last,
            {
                name: Average(average.init(last.params), last.model_state)
                for name, average in averages.items()
            },
        )

    def step(state: AveragedState, batch: Batch, key: Any) -> tuple[AveragedState, Metrics]:
        last: Any
        last, metrics = trial.step(state.last, batch, key)
        moved = {}
        for position, (name, average) in enumerate(averages.items()):
            # After the step and without updates, so that the sample is the iterate to the bit.
            _, kept = average.update(
                tree.zeros_like(last.params), state.averages[name].kept, last.params
            )
            new = AveragedState(last, {name: Average(kept, state.averages[name].model_state)})
            moved[name] = Average(kept, statistics(new.of(name), batch, key, position))
        return AveragedState(last, moved), metrics

    def statistics(state: Any, batch: Batch, key: Any, position: int) -> PyTree:
        if not jax.tree.leaves(state.model_state):
            return state.model_state
        own = jax.random.fold_in(key, jnp.uint32(_AVERAGE_STREAM - position))
        # Of the step only the model's state is used, so the compiler drops its backward pass.
        after: Any = trial.step(state, batch, own)[0]
        return after.model_state

    def evaluate(state: AveragedState, batch: Batch) -> Metrics:
        metrics = dict(trial.evaluate(state.last, batch))
        for name in averages:
            of_average = trial.evaluate(state.of(name), batch)
            metrics |= {f"{name}_{metric}": value for metric, value in of_average.items()}
        return metrics

    def last(state: Any) -> Any:
        return state.last

    def shown(state: Any) -> Any:
        return state.last if predict_with is None else state.of(predict_with)

    predict = adapted(trial, inward=shown).predict
    return adapted(trial, inward=last, init=init, step=step, evaluate=evaluate, predict=predict)
