"""Trials, sound and broken, that the tables of set-ups are made of."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tests.diagnose.arrays import digits

from jdl import losses, models, nn, optim, train
from jdl.nn import initializer
from jdl.train import Trial


def mlp(sizes=(16,), activation=nn.relu, kernel=initializer.lecun_normal, bias=initializer.zeros):
    layers: list[Any] = []
    for size in sizes:
        layers += [nn.dense(size, kernel_init=kernel, bias_init=bias), activation]
    return nn.chain(*layers, nn.dense(10, kernel_init=kernel))


def classify(model, optimizer=optim.adam, **more):
    return lambda rate: train.classifier(model, optimizer(rate), **more)


def with_loss(model, loss):
    return lambda rate: train.supervised(model, optim.adam(rate), loss)


@jax.custom_vjp
def upside_down(x):
    return jnp.tanh(x)


upside_down.defvjp(lambda x: (jnp.tanh(x), jnp.tanh(x)), lambda y, g: (-(1 - jnp.square(y)) * g,))


def probabilities_as_logits(outputs, y):
    return losses.softmax_cross_entropy(jax.nn.softmax(outputs), y)


def times_100(outputs, y):
    return 100 * losses.softmax_cross_entropy(outputs, y)


def hand_written(apply, init=None, summed=False, evaluate=None, noise=None):
    """A trial that uses no layer of the library: `apply(params, x)` gives logits."""

    def start(key):
        one, two = jax.random.split(key)
        return {
            "in": 0.125 * jax.random.normal(one, (64, 16)),
            "out": 0.25 * jax.random.normal(two, (16, 10)),
        }

    def loss(params, batch, apply=apply):
        each = losses.softmax_cross_entropy(apply(params, batch[0]), batch[1])
        return each.sum() if summed else each.mean()

    def make(rate):
        optimizer = optim.adam(rate)

        def begin(key, batch):
            params = (init or start)(key)
            return {"params": params, "moments": optimizer.init(params)}

        def step(state, batch, key):
            forward = apply if noise is None else functools.partial(noise, key)
            value, grads = jax.value_and_grad(loss)(state["params"], batch, forward)
            updates, moments = optimizer.update(grads, state["moments"], state["params"])
            params = optim.apply_updates(state["params"], updates)
            return {"params": params, "moments": moments}, {"loss": value}

        def judge(state, batch):
            return {"loss": loss(state["params"], batch, evaluate or apply)}

        return Trial(begin, step, judge)

    return make


def two_layers(params, x):
    return jnp.tanh(x @ params["in"]) @ params["out"]


def masked(key, params, x, rate=0.5):
    hidden = jnp.tanh(x @ params["in"])
    keep = jax.random.bernoulli(key, 1 - rate, hidden.shape)
    return jnp.where(keep, hidden / (1 - rate), 0) @ params["out"]


def one_key_twice(key):
    return {
        "in": 0.125 * jax.random.normal(key, (64, 16)),
        "out": 0.25 * jax.random.normal(key, (16, 10)),
    }


def one_old_key_twice(key):
    words = jax.random.key_data(key)  # raw words, which no checker follows
    draw = lambda: jax.random.normal(jax.random.wrap_key_data(words), (16, 16))  # noqa: E731
    first, last = jax.random.split(jax.random.fold_in(jax.random.key(3), words[0]))
    return {
        "in": 0.125 * jax.random.normal(first, (64, 16)),
        "middle": 0.25 * draw(),
        "next": 0.25 * draw(),
        "out": 0.25 * jax.random.normal(last, (16, 10)),
    }


def four_layers(params, x):
    hidden = jnp.tanh(x @ params["in"])
    return jnp.tanh(jnp.tanh(hidden @ params["middle"]) @ params["next"]) @ params["out"]


def detached(params, x):
    return jnp.tanh(x @ jax.lax.stop_gradient(params["in"])) @ params["out"]


def log_of_nothing(params, x):
    return jnp.log(jnp.maximum(x @ params["in"], 0)) @ params["out"]


def mode(model, **flags):
    """`model` with `train` fixed, or with its state left behind in training."""

    def apply(params, state, x, *, key=None, train=False):
        if flags.get("always_training"):
            y, after = model.apply(params, state, x, key=key, train=True)
            return y, after if train else state
        if flags.get("never_training"):
            return model.apply(params, state, x, key=key, train=False)
        y, _ = model.apply(params, state, x, key=key, train=train)
        return y, state  # what training moved is lost

    return model._replace(apply=apply)


def anew(returned):
    """Adam whose state is made anew in each step, and is `returned` "fresh" or as it was."""

    def make(rate):
        optimizer = optim.adam(rate)
        trial = train.classifier(mlp(), optimizer)

        def step(state, batch, key):
            start = state._replace(opt_state=optimizer.init(state.params))
            after, metrics = trial.step(start, batch, key)
            return (
                after if returned == "fresh" else after._replace(opt_state=state.opt_state)
            ), metrics

        return trial._replace(step=step)

    return make


def normed():
    return nn.chain(nn.dense(16), nn.batch_norm(), nn.relu, nn.dense(10))


def frozen_first(rate):
    optimizer = optim.sgd(rate)

    def update(grads, state, params=None, **extra):
        updates, state = optimizer.update(grads, state, params, **extra)
        return (jax.tree.map(jnp.zeros_like, updates[0]), *updates[1:]), state

    return optim.Optimizer(optimizer.init, update)


def negative_l2(outputs_of, strength):
    def make(rate, strength=strength):
        def step(state, batch, key):
            def value(params):
                penalty = sum(jnp.sum(w * w) for w in params.values())
                return (
                    losses.softmax_cross_entropy(outputs_of(params, batch[0]), batch[1]).mean()
                    - strength * penalty
                )

            loss, grads = jax.value_and_grad(value)(state["params"])
            return {"params": jax.tree.map(lambda w, g: w - rate * g, state["params"], grads)}, {
                "loss": loss
            }

        plain = hand_written(outputs_of)(rate)
        return Trial(
            lambda key, batch: {"params": plain.init(key, batch)["params"]}, step, plain.evaluate
        )

    return make


def one_distinct_start():
    one, two = jax.random.split(jax.random.key(8))
    return {
        "in": 0.125 * jax.random.normal(one, (64, 16)),
        "out": 0.25 * jax.random.normal(two, (16, 10)),
    }


@functools.cache
def trained():
    """The state of a small network with batch norm that knows the digits."""
    trial = train.classifier(normed(), optim.adam(3e-3))
    x, y = digits().train
    order = np.random.default_rng(0).integers(0, len(y), (600, 32))

    @jax.jit
    def whole(key):
        def step(state, rows):
            return trial.step(state, (jnp.asarray(x)[rows], jnp.asarray(y)[rows]), key)

        return jax.lax.scan(step, trial.init(key, (x[:32], y[:32])), order)[0]

    return jax.tree.map(np.asarray, whole(jax.random.key(0)))


def fine_tuned(model):
    """A trial that starts from what `trained` gives."""

    def make(rate):
        trial, state = train.classifier(model, optim.adam(rate)), trained()

        def init(key, batch):
            start = trial.init(key, batch)
            known = jax.tree.map(jnp.asarray, state)
            return start._replace(params=known.params, model_state=known.model_state)

        return trial._replace(init=init)

    return make


def autoencoder(rate):
    encoder = nn.chain(nn.dense(32), nn.relu, nn.dense(8))
    decoder = nn.chain(nn.relu, nn.dense(32), nn.relu, nn.dense(64))
    return train.autoencoder(encoder, decoder, optim.adam(rate))


def averaged(rate):
    trial = train.classifier(models.mlp((16, 10)), optim.adam(rate))
    return train.averaged(trial, {"ema": optim.parameter_ema(0.99)})


def warmed_up(rate):
    return optim.chain(optim.clip_by_global_norm(1.0), optim.adam(optim.warmup(rate, 100)))


def squares(outputs, y):
    return jnp.mean(jnp.square(outputs - jax.nn.one_hot(y, 10)), -1)


def hinge(outputs, y):
    right = jnp.take_along_axis(outputs, y[:, None], 1)
    return jnp.sum(jnp.maximum(0, 1 + outputs - right), -1) - 1


def smoothed(outputs, y):
    logs = jax.nn.log_softmax(outputs)
    return 0.9 * losses.softmax_cross_entropy(outputs, y) - 0.1 * logs.mean(-1)


def with_smoothed_labels(rate):
    right = {"accuracy": lambda outputs, y: jnp.argmax(outputs, -1) == y}
    return train.supervised(mlp(), optim.adam(rate), smoothed, metrics=right)
