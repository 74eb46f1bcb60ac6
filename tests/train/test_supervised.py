"""Supervised trials: the objective, its metrics, and what an optimizer is told."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdl import nn, optim
from jdl.optim import Optimizer
from jdl.train import TrainState, classifier, regressor

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(6, 3)).astype(np.float32)
LABELS = np.array([0, 2, 1, 1, 0, 2], np.int32)


def key():
    return jax.random.key(0)


def log_softmax(logits):
    shifted = logits - logits.max(1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(1, keepdims=True))


def by_hand(params, l2=0.0, smoothing=0.0):
    """The objective of a linear classifier and its gradient, in NumPy."""
    kernel, bias = (np.asarray(params[0][name], np.float64) for name in ("kernel", "bias"))
    targets = np.eye(3)[LABELS] * (1 - smoothing) + smoothing / 3
    logs = log_softmax(X @ kernel + bias)
    loss = -(targets * logs).sum(1).mean()
    error = (np.exp(logs) - targets) / len(X)
    return loss, {"kernel": X.T @ error + l2 * kernel, "bias": error.sum(0)}, logs


@pytest.mark.parametrize("l2,smoothing", [(None, None), (0.3, None), (None, 0.2), (0.7, 0.1)])
def test_one_step_of_a_classifier_by_hand(l2, smoothing):
    trial = classifier(nn.chain(nn.dense(3)), optim.sgd(0.5), l2=l2, label_smoothing=smoothing)
    start, step = jax.random.split(key())
    state = trial.init(start, (X, LABELS))
    # A bias of 0, where every network starts, would feel no penalty.
    first = state.params[0] | {"bias": jnp.array([0.7, -0.4, 1.1])}
    state = state._replace(params=(first, *state.params[1:]))
    loss, grads, logs = by_hand(state.params, l2 or 0.0, smoothing or 0.0)
    after, metrics = jax.jit(trial.step)(state, (X, LABELS), step)
    # The penalty is in the gradient of the kernel, not of the bias, and not in the loss.
    np.testing.assert_allclose(metrics["loss"], loss, rtol=1e-5)
    np.testing.assert_allclose(metrics["accuracy"], np.mean(logs.argmax(1) == LABELS))
    for name, grad in grads.items():
        np.testing.assert_allclose(
            after.params[0][name], state.params[0][name] - 0.5 * grad, rtol=1e-4, atol=1e-6
        )


def test_regressor_by_hand():
    trial = regressor(nn.chain(nn.dense(1)), optim.sgd(0.1))
    state = trial.init(key(), (X, LABELS))
    y = RANDOM.normal(size=(6, 1)).astype(np.float32)
    kernel, bias = (np.asarray(state.params[0][name]) for name in ("kernel", "bias"))
    prediction = X @ kernel + bias
    metrics = jax.jit(trial.evaluate)(state, (X, y))
    np.testing.assert_allclose(metrics["loss"], np.mean((prediction - y) ** 2), rtol=1e-5)


def test_training_and_evaluation_see_their_own_mode():
    def init(key, x):
        return {"w": jnp.ones(())}, {"calls": jnp.int32(0)}

    def apply(params, state, x, *, key=None, train=False):
        assert (key is not None) == train
        y = x[:, :3] * params["w"]
        return y, {"calls": state["calls"] + 1} if train else state

    trial = classifier(nn.Layer(init, apply), optim.sgd(0.1))
    one, two, three = jax.random.split(key(), 3)
    state, _ = jax.jit(trial.step)(trial.init(one, (X, LABELS)), (X, LABELS), two)
    state, _ = jax.jit(trial.step)(state, (X, LABELS), three)
    jax.jit(trial.evaluate)(state, (X, LABELS))
    assert state.model_state["calls"] == 2


def test_what_the_optimizer_is_told():
    seen = {}

    def update(grads, state, params=None, *, value, value_fn, **extra):
        seen.update(value=value, again=value_fn(params), moved=value_fn(params))
        return jax.tree.map(jnp.zeros_like, grads), state

    trial = classifier(nn.chain(nn.dense(3)), Optimizer(lambda params: (), update), l2=0.5)
    one, two = jax.random.split(key())
    state = trial.init(one, (X, LABELS))
    first = state.params[0] | {"bias": jnp.array([0.7, -0.4, 1.1])}
    state = state._replace(params=(first, *state.params[1:]))
    trial.step(state, (jnp.asarray(X), jnp.asarray(LABELS)), two)
    loss, _, _ = by_hand(state.params)
    penalty = 0.25 * np.sum(np.square(state.params[0]["kernel"]))
    np.testing.assert_allclose(seen["value"], loss + penalty, rtol=1e-5)
    np.testing.assert_allclose(seen["again"], seen["value"], rtol=1e-6)


def test_augmentation_and_model_draw_from_keys_of_their_own():
    """Dropout's mask said, otherwise, how an image was moved; the penalised value sees the same."""
    seen = {"augment": [], "model": []}

    def augment(key, batch):
        seen["augment"].append(jax.random.key_data(key).tolist())
        return batch[0] + 3.0, batch[1]

    def init(key, x):
        return {"w": jnp.ones((3, 3))}, {}

    def apply(params, state, x, *, key=None, train=False):
        if key is not None:
            seen["model"].append(jax.random.key_data(key).tolist())
            np.testing.assert_array_equal(jax.lax.stop_gradient(x), X + 3.0)
        return x @ params["w"], state

    trial = classifier(nn.Layer(init, apply), optim.sgd(0.1), augment=augment)
    one, *steps = jax.random.split(key(), 4)
    state, batch = trial.init(one, (X, LABELS)), (jnp.asarray(X), jnp.asarray(LABELS))
    for step in steps:
        trial.step(state, batch, step)
    keys = [tuple(k) for k in (*seen["augment"], *{tuple(k) for k in seen["model"]})]
    assert len(keys) == len({*keys}) == 6
    # Nor is it a key that a layer of the model has by its position.
    places = [jax.random.key_data(jax.random.fold_in(s, i)) for s in steps for i in range(100)]
    assert not {tuple(p.tolist()) for p in places} & {*map(tuple, seen["augment"])}
    trial.objective(state, batch, steps[0])
    assert seen["augment"][-1] == seen["augment"][0] and seen["model"][-1] == seen["model"][0]
    trial.evaluate(state, batch)
    assert len(seen["augment"]) == 4


def test_the_shapes_of_a_batch_are_enough_to_start():
    trial = classifier(nn.chain(nn.dense(3)), optim.sgd(0.1))
    state = trial.init(key(), (jax.ShapeDtypeStruct(X.shape, X.dtype), None))
    same = trial.init(key(), (X, LABELS))
    assert isinstance(state, TrainState) and state.params[0]["kernel"].shape == (3, 3)
    np.testing.assert_array_equal(state.params[0]["kernel"], same.params[0]["kernel"])


def test_labels_that_the_model_has_no_logit_for():
    from jdl import sweep, train

    trial = classifier(nn.chain(nn.dense(2)), optim.sgd(0.1))
    data = ((X, LABELS), None, None)
    options = {"epochs": 1, "batch_size": 2, "progress": False}
    with pytest.raises(ValueError, match=r"train y\[1\] is 2: labels must be in \[0, 2\)"):
        train.fit(trial, data, **options)
    with pytest.raises(ValueError, match=r"labels must be in \[0, 2\)"):
        sweep.run(lambda hp: trial, {"seed": sweep.seeds(2)}, data, **options)


@pytest.mark.parametrize(
    "options,message",
    [({"l2": -1.0}, r"`l2` must be in \[0, inf\)"), ({"label_smoothing": 1.5}, r"\[0, 1\]")],
)
def test_ranges(options, message):
    with pytest.raises(ValueError, match=message):
        classifier(nn.chain(nn.dense(3)), optim.sgd(0.1), **options)
