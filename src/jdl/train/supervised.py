"""Trials made from a model, a loss and an optimizer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from jdl import losses, nn
from jdl import metrics as metric_functions
from jdl._checks import check_number
from jdl.data.augment import Augment
from jdl.data.dataset import Dataset, check
from jdl.engine.trial import Batch, Metrics, Trial, adapted
from jdl.nn import Layer
from jdl.optim import Optimizer, apply_updates

PerExample = Callable[[Any, Any], Float[Array, " batch"]]

# Layers fold their positions into a step's key: no position is at the far end of uint32.
_AUGMENT_STREAM = 2**32 - 1


class TrainState(NamedTuple):
    """What a supervised trial's step changes."""

    params: PyTree
    model_state: PyTree
    opt_state: PyTree


def supervised(
    model: Layer,
    optimizer: Optimizer,
    loss: PerExample,
    *,
    metrics: Mapping[str, PerExample] | None = None,
    l2: Any = None,
    augment: Augment | None = None,
    output: Callable[[Any], Any] = nn.identity,
) -> Trial:
    """A trial that minimises the mean of `loss` over batches `(x, y)`.

    The objective is `mean(loss(model(x), y)) + l2 / 2 * sum(w ** 2)`, the sum
    over the kernels (parameters of two axes or more), not over biases and
    norms. The reported "loss" leaves the penalty out, so that training and
    evaluation compare.

    Args:
      model: gives the outputs that `loss` takes.
      optimizer: any `(init, update)` pair.
      loss: `loss(outputs, y)`, one value per example.
      metrics: further values to report, by name, of the same form.
      l2: strength of the penalty, in [0, inf); None leaves it out of the program.
      augment: changes the batches of training, as those of `data.augment` do;
        it keeps the shape of `x`. None leaves it out of the program.
      output: makes of the model's outputs what `predict` gives.

    Raises:
      ValueError: `l2` is negative.
      TypeError: `optimizer` is none.
    """
    if not (hasattr(optimizer, "init") and hasattr(optimizer, "update")):
        raise TypeError(
            f"`optimizer` must be (init, update), as optim.adam(1e-3) is, got {optimizer!r}."
        )
    if l2 is not None:
        check_number("l2", l2, "[0, inf)")
    measures = {"loss": loss, **(metrics or {})}

    def means(outputs: Any, y: Any) -> Metrics:
        return {name: jnp.mean(measure(outputs, y)) for name, measure in measures.items()}

    def init(key: Any, batch: Batch) -> TrainState:
        params, model_state = model.init(key, batch[0])
        return TrainState(params, model_state, optimizer.init(params))

    def minimised(
        params: PyTree, state: TrainState, batch: Batch, key: Any
    ) -> tuple[Any, tuple[Metrics, PyTree]]:
        x, y = batch
        outputs, model_state = model.apply(params, state.model_state, x, key=key, train=True)
        values = means(outputs, y)
        penalty = 0.0 if l2 is None else 0.5 * l2 * _sum_of_squares(params)
        return values["loss"] + penalty, (values, model_state)

    def augmented(batch: Batch, key: Any) -> Batch:
        if augment is None:
            return batch
        return augment(jax.random.fold_in(key, jnp.uint32(_AUGMENT_STREAM)), batch)

    def step(state: TrainState, batch: Batch, key: Any) -> tuple[TrainState, Metrics]:
        batch = augmented(batch, key)

        def objective(params: PyTree) -> tuple[Any, tuple[Metrics, PyTree]]:
            return minimised(params, state, batch, key)

        (value, (values, model_state)), grads = jax.value_and_grad(objective, has_aux=True)(
            state.params
        )
        updates, opt_state = optimizer.update(
            grads,
            state.opt_state,
            state.params,
            value=value,
            grad=grads,
            value_fn=lambda params: objective(params)[0],
        )
        params = apply_updates(state.params, updates)
        return TrainState(params, model_state, opt_state), values

    def evaluate(state: TrainState, batch: Batch) -> Metrics:
        x, y = batch
        outputs, _ = model.apply(state.params, state.model_state, x)
        return means(outputs, y)

    def objective(state: TrainState, batch: Batch, key: Any) -> Any:
        return minimised(state.params, state, augmented(batch, key), key)[0]

    def predict(state: TrainState, x: Any, key: Any = None) -> Any:
        return output(model.apply(state.params, state.model_state, x, key=key)[0])

    return Trial(init, step, evaluate, predict=predict, objective=objective)


def _sum_of_squares(params: PyTree) -> Array:
    kernels = [w for w in jax.tree.leaves(params) if w.ndim > 1]
    return sum(
        (jnp.sum(jnp.square(w.astype(jnp.promote_types(w.dtype, jnp.float32)))) for w in kernels),
        jnp.float32(0),
    )


def classifier(
    model: Layer,
    optimizer: Optimizer,
    *,
    l2: Any = None,
    label_smoothing: Any = None,
    augment: Augment | None = None,
) -> Trial:
    """A trial that trains `model` to give the logits of integer classes.

    Softmax cross-entropy, with the share of right answers as "accuracy" (where
    an augmentation mixes labels: of those with the largest share). `predict`
    gives probabilities.

    Args:
      model: gives logits of shape (batch, classes).
      optimizer: any `(init, update)` pair.
      l2: as in `supervised`.
      label_smoothing: in [0, 1]; the share of probability spread over all
        classes. None leaves it out of the program.
      augment: as in `supervised`.

    Raises:
      ValueError: `l2` or `label_smoothing` is out of range.
    """
    smoothing = {}
    if label_smoothing is not None:
        check_number("label_smoothing", label_smoothing, "[0, 1]")
        smoothing = {"label_smoothing": label_smoothing}

    def loss(logits: Any, labels: Any) -> Float[Array, " batch"]:
        return losses.softmax_cross_entropy(logits, labels, **smoothing)

    def accuracy(logits: Any, labels: Any) -> Float[Array, " batch"]:
        mixed = jnp.issubdtype(labels.dtype, jnp.floating)
        return metric_functions.accuracy(logits, jnp.argmax(labels, -1) if mixed else labels)

    trial = supervised(
        model,
        optimizer,
        loss,
        metrics={"accuracy": accuracy},
        l2=l2,
        augment=augment,
        output=nn.softmax,
    )

    def check_labels(data: Dataset) -> None:
        def outputs(x: Any) -> Any:
            return model.apply(*model.init(jax.random.key(0), x), x)[0]

        check(data, classes=jax.eval_shape(outputs, data.train[0]).shape[-1])

    return adapted(trial, check=check_labels)


def regressor(
    model: Layer,
    optimizer: Optimizer,
    *,
    l2: Any = None,
    augment: Augment | None = None,
) -> Trial:
    """A trial that trains `model` to predict real targets by squared error.

    Args:
      model: gives outputs of the shape of the targets.
      optimizer: any `(init, update)` pair.
      l2: as in `supervised`.
      augment: as in `supervised`.

    Raises:
      ValueError: `l2` is negative.
    """
    return supervised(model, optimizer, losses.squared_error, l2=l2, augment=augment)
